//! The directory: names of WAL files, spare files kept preallocated, and the open files that readers share.
//!
//! ```text
//! spare  --header written, fsync-->  spare  --rename, directory fsync-->  0000000000000007.wal  (batches go in)
//! oldest .wal, nothing live  --rename or remove, directory fsync-->  spare or gone      (one at a time, oldest first)
//! ```
//!
//! A name `.wal` therefore always has an intact header (W5), and removals are durable in order: the directory is
//! synced between two of them, or a crash could keep the older file and lose the newer (W6).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
};

use varve_common::{
    Access, Disk, DiskFile, GroupId, LogIndex, WalPosition,
    aligned::{ReadBuffers, aligned, remove_if_there, usable_access},
};

use crate::{
    errors::Full,
    fill::Fill,
    frame::FileHeader,
    index::Index,
    limits::{
        LANES, READ_BUFFERS_KEPT, READ_BYTES_MAX, RESERVE_FILES, SPARE_FILES, SPARES_QUIET_ROUNDS,
        SUSPECTS_MAX,
    },
    options::Options,
    transit::Transit,
};

/// A file that can be read.
pub(crate) struct OpenFile {
    pub header: FileHeader,
    pub path: PathBuf,
    /// Always through the page cache, which the kernel keeps coherent with direct writes.
    pub file: Box<dyn DiskFile>,
    /// Where this life writes past the cache: what opens the file so for a read. A descriptor more for each file would be many.
    pub past_cache: Option<Arc<dyn Disk>>,
}

/// What writer and readers share. A lock is held for a look-up or an update in memory, never across a read or write.
pub(crate) struct Shared {
    pub state: RwLock<State>,
    /// What readers could not read: the writer looks again, for a file may have been freed under a reader.
    pub suspects: Mutex<BTreeSet<(GroupId, LogIndex)>>,
    /// What the index knows and the files do not hold yet.
    pub transit: Transit,
    /// Memory for long reads.
    pub read_buffers: Arc<ReadBuffers>,
}

/// Index and files change together.
#[derive(Default)]
pub(crate) struct State {
    pub index: Index,
    pub files: BTreeMap<WalPosition, Arc<OpenFile>>,
    #[cfg(feature = "seeded-bugs")]
    pub crc_ignored: bool,
}

impl OpenFile {
    /// Opened past the cache, where that is how this life writes. A file that was freed meanwhile is read through what is open.
    pub(crate) fn past_cache(&self) -> Option<Box<dyn DiskFile>> {
        self.past_cache.as_ref()?.open(&self.path, Access::Direct).ok()
    }
}

impl State {
    /// Bytes of all WAL files, without the spares.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.files.values().map(|file| file.header.capacity).sum()
    }
}

impl Shared {
    /// Over what recovery found.
    pub(crate) fn new(state: State) -> Self {
        Self {
            state: state.into(),
            suspects: Mutex::default(),
            transit: Transit::default(),
            read_buffers: Arc::new(ReadBuffers::new(READ_BYTES_MAX, READ_BUFFERS_KEPT)),
        }
    }

    pub(crate) fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().expect("no holder of this lock panics")
    }

    /// Asks the writer to look at an entry again.
    pub(crate) fn suspect(&self, group: GroupId, index: LogIndex) {
        let mut suspects = self.suspects.lock().expect("no holder of this lock panics");
        if suspects.len() < SUSPECTS_MAX {
            suspects.insert((group, index));
        }
    }

    pub(crate) fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().expect("no holder of this lock panics")
    }
}

/// Who asks for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Entries: refused early, so that what frees space still fits.
    Entries,
    /// Marks and hard states: they leave one file for the rewrite.
    Reserve,
    /// The forward rewrite: each of its rounds frees at least the file that it takes, so it must never be refused one.
    Rewrite,
}

/// Why no file was made.
pub(crate) enum CreateError {
    Full(Full),
    Io(&'static str, io::Error),
}

/// A file that waits for its use.
pub(crate) struct Spare {
    pub path: PathBuf,
    pub bytes: u64,
    /// Whether its blocks were written before, not only reserved.
    pub written: bool,
}

/// A file that batches can go into.
pub(crate) struct Made {
    pub file: Box<dyn DiskFile>,
    /// Opened before anything of this use of the file was written: they are told of every write that is lost.
    pub lanes: [Arc<dyn DiskFile>; LANES],
    pub open: OpenFile,
    /// Whether its blocks were written before.
    pub written: bool,
}

/// Names and spare files.
pub(crate) struct Directory {
    pub disk: Arc<dyn Disk>,
    pub path: PathBuf,
    spares: Vec<Spare>,
    /// Bytes of the spare that is lent out to be filled.
    lent_bytes: u64,
    spare_counter: u64,
    /// Quiet rounds since a file came or went.
    quiet_rounds: u32,
}

const WAL_SUFFIX: &str = ".wal";
const SPARE_SUFFIX: &str = ".spare";
const PROBE: &str = "direct.probe";

impl Directory {
    /// Opens the directory: its WAL files by number, and its spares.
    pub(crate) fn open(disk: Arc<dyn Disk>, path: PathBuf) -> io::Result<(Self, Vec<(u64, PathBuf)>)> {
        disk.create_directory(&path)?;
        let mut directory =
            Self { disk, path, spares: Vec::new(), lent_bytes: 0, spare_counter: 0, quiet_rounds: 0 };
        let mut files = Vec::new();
        for name in directory.disk.list(&directory.path)? {
            let path = directory.path.join(&name);
            if let Some(number) = number_of(&name, WAL_SUFFIX) {
                files.push((number, path));
            } else if let Some(number) = number_of(&name, SPARE_SUFFIX) {
                let bytes = directory.disk.open(&path, Access::Buffered)?.len()?;
                directory.spares.push(Spare { path, bytes, written: false });
                directory.spare_counter = directory.spare_counter.max(number);
            }
        }
        files.sort();
        Ok((directory, files))
    }

    /// How files here can be written: past the page cache only where the file system takes that.
    pub(crate) fn usable(&self, wanted: Access) -> io::Result<Access> {
        if wanted == Access::Buffered {
            return Ok(wanted);
        }
        let path = self.path.join(PROBE);
        // One that an earlier life left.
        remove_if_there(&*self.disk, &path)?;
        usable_access(&*self.disk, &path)
    }

    /// Bytes held by spare files.
    pub(crate) fn spare_bytes(&self) -> u64 {
        self.lent_bytes + self.spares.iter().map(|spare| spare.bytes).sum::<u64>()
    }

    /// Lends out a spare to be filled: one at a time, and only where another can be made in its place.
    pub(crate) fn lend(&mut self, options: &Options, used: u64) -> Option<Fill> {
        let room = used + self.spare_bytes() + (RESERVE_FILES + 2) * options.file_bytes <= options.bytes_max;
        let wanted = |spare: &Spare| !spare.written && spare.bytes == options.file_bytes;
        if self.lent_bytes > 0 || !room {
            return None;
        }
        let at = self.spares.iter().position(wanted)?;
        let spare = self.spares.remove(at);
        self.lent_bytes = spare.bytes;
        Some(Fill::new(Arc::clone(&self.disk), spare.path, spare.bytes, options.access))
    }

    pub(crate) fn take_back(&mut self, fill: Fill, written: bool) {
        self.lent_bytes = 0;
        self.spares.push(Spare { path: fill.path, bytes: fill.bytes, written });
    }

    fn spare_path(&mut self) -> PathBuf {
        self.spare_counter += 1;
        self.path.join(format!("{:016x}{SPARE_SUFFIX}", self.spare_counter))
    }

    /// Sees to it that `count` spare files of the usual length are ready; whether there was room for them.
    pub(crate) fn prepare(&mut self, options: &Options, used: u64, count: usize) -> Result<(), CreateError> {
        let lent = usize::from(self.lent_bytes > 0);
        while self.spares.len() + lent < count {
            if used + self.spare_bytes() + options.file_bytes > options.bytes_max {
                return Err(CreateError::Full(Full::Budget));
            }
            self.add_spare(options.file_bytes)?;
        }
        Ok(())
    }

    fn add_spare(&mut self, bytes: u64) -> Result<(), CreateError> {
        let path = self.spare_path();
        let made = self.disk.create(&path, Access::Buffered).and_then(|file| file.allocate(bytes));
        match made {
            Ok(()) => {
                self.spares.push(Spare { path, bytes, written: false });
                Ok(())
            }
            Err(error) if is_full(&error) => {
                // What was reserved of it goes back; a name that stays behind is found again as a short spare.
                let _ = self.disk.remove(&path);
                Err(CreateError::Full(Full::Disk))
            }
            Err(error) => Err(CreateError::Io("preallocation", error)),
        }
    }

    /// Counts a quiet round. After enough of them the spares that only a burst needs go, one a round.
    pub(crate) fn shrink(&mut self) -> io::Result<()> {
        self.quiet_rounds = self.quiet_rounds.saturating_add(1);
        if self.quiet_rounds <= SPARES_QUIET_ROUNDS || self.spares.len() <= *SPARE_FILES.start() as usize {
            return Ok(());
        }
        let at = self.spares.iter().position(|spare| !spare.written).unwrap_or(0);
        self.disk.remove(&self.spares.remove(at).path)
    }

    /// Takes a file of at least `bytes` out of the spares, or makes one.
    fn take(&mut self, options: &Options, used: u64, bytes: u64, class: Class) -> Result<Spare, CreateError> {
        let (kept, margin) = match class {
            Class::Entries => (1, RESERVE_FILES * options.file_bytes),
            Class::Reserve => (0, (RESERVE_FILES - 1) * options.file_bytes),
            Class::Rewrite => (0, 0),
        };
        // A spare of another length (file_bytes was changed, or its preallocation was cut short) is of no use.
        while let Some(odd) = self.spares.iter().position(|spare| spare.bytes != options.file_bytes) {
            let Spare { path, .. } = self.spares.swap_remove(odd);
            self.disk.remove(&path).map_err(|error| CreateError::Io("remove", error))?;
        }
        // Lives that end in the middle of their first rewrite leave its file behind: it goes beyond the budget then, and comes back.
        let budget = if class == Class::Rewrite { u64::MAX } else { options.bytes_max };
        if used + bytes + margin > budget {
            return Err(CreateError::Full(Full::Budget));
        }
        if bytes > options.file_bytes {
            self.add_spare(bytes)?;
            return Ok(self.spares.pop().expect("one was just added"));
        }
        while self.spares.len() <= kept && used + self.spare_bytes() + options.file_bytes <= budget {
            self.add_spare(options.file_bytes)?;
        }
        if self.spares.len() <= kept {
            return Err(CreateError::Full(Full::Budget));
        }
        // The best is one that was written before.
        let at = self.spares.iter().position(|spare| spare.written).unwrap_or(0);
        Ok(self.spares.remove(at))
    }

    /// Makes the file that `header` describes, durable under its name, and opens it for writing, syncing and reading.
    pub(crate) fn create(
        &mut self,
        options: &Options,
        used: u64,
        mut header: FileHeader,
        class: Class,
    ) -> Result<Made, CreateError> {
        self.quiet_rounds = 0;
        let Spare { path: spare, bytes, written } = self.take(options, used, header.capacity, class)?;
        header.capacity = bytes;
        let path = self.path.join(format!("{:016x}{WAL_SUFFIX}", header.sequence));
        let opened = self.disk.open(&spare, options.access).and_then(|file| {
            // Under its old name: nothing is done yet where there is no descriptor for it.
            let reading = self.disk.open(&spare, Access::Buffered)?;
            Ok((file, reading, open_lanes(&*self.disk, &spare, options.access)?))
        });
        let (file, reading, lanes) = match opened {
            Err(error) if is_full(&error) => {
                self.spares.push(Spare { path: spare, bytes, written });
                return Err(CreateError::Full(Full::Disk));
            }
            opened => opened.map_err(|error| CreateError::Io("create", error))?,
        };
        let made = (|| {
            file.write_at(&aligned(&header.encode()), 0)?;
            file.sync_data()?;
            self.disk.rename_new(&spare, &path)?;
            self.disk.sync_directory(&self.path)?;
            let past_cache = options.past_cache(&self.disk);
            let open = OpenFile { header, path: path.clone(), file: reading, past_cache };
            Ok(Made { file, lanes, open, written })
        })();
        made.map_err(|error| CreateError::Io("create", error))
    }

    /// Lets the oldest file go, durably: into the spares while they are few and nobody reads it, else for good.
    pub(crate) fn free(&mut self, file: Arc<OpenFile>, options: &Options) -> io::Result<()> {
        self.quiet_rounds = 0;
        let unread = Arc::strong_count(&file) == 1;
        let fits =
            file.header.capacity == options.file_bytes && self.spares.len() < options.spare_files_max();
        if unread && fits {
            let spare = self.spare_path();
            self.disk.rename_new(&file.path, &spare)?;
            // All of it was in use.
            self.spares.push(Spare { path: spare, bytes: file.header.capacity, written: true });
        } else {
            self.disk.remove(&file.path)?;
        }
        self.disk.sync_directory(&self.path)
    }
}

/// One descriptor a lane.
pub(crate) fn open_lanes(
    disk: &dyn Disk,
    path: &Path,
    access: Access,
) -> io::Result<[Arc<dyn DiskFile>; LANES]> {
    let lane = || disk.open(path, access).map(Arc::from);
    Ok([lane()?, lane()?])
}

fn number_of(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// Whether the file system, or this user's share of it, is full, or the process has no descriptor left: nothing was
/// written, and it passes.
pub(crate) fn is_full(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    ) || matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

/// Opens an existing WAL file for reading.
pub(crate) fn open_for_reading(disk: &dyn Disk, path: &Path) -> io::Result<Box<dyn DiskFile>> {
    disk.open(path, Access::Buffered)
}
