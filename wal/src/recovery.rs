//! Opening the log: closed files by their index, the open tail (and what a crash left without an index) by a scan;
//! then the old tail is closed for ever, so that nothing is ever appended behind it.
//!
//! The order survives a crash at each step: nothing is written before all was read; a torn tail's file gets its index
//! and trailer (without which the next start scans to the same end again), and only the first append makes a new file,
//! whose header says where the old one ends. A file with corruption is left as it is, evidence for the next start.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use varve_common::{
    Access, Disk, DiskFile, GroupId, LogIndex, Offset, ReplicaId, Term, WalPosition, checksum::crc32c,
    disk::read_exact_at,
};

use crate::{
    errors::{Damage, DamageCause, OpenError},
    files::{Directory, OpenFile, Shared, State, open_for_reading},
    frame::{FileHeader, Summary, Trailer, decode_index},
    index::{FileUse, Group, Index, Origin, Place},
    limits::{BLOCK_BYTES, FILE_BYTES_MAX},
    options::Options,
    reader::Reader,
    record::{HardState, SealMark, SnapshotMark},
    scan::{Found, Scan, Scanned, load},
    writer::{Chain, Summaries, Writer, close},
};

/// What the log held.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Every replica that is not destroyed.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// Destroyed replicas whose mark is still there.
    pub destroyed: BTreeMap<GroupId, ReplicaId>,
    /// Bytes behind the longest valid prefix that a crash left, never acknowledged.
    pub torn_bytes: u64,
    /// Bytes that had to be scanned because their file had no index.
    pub scanned_bytes: u64,
    /// Files found.
    pub files: usize,
    /// The file system refuses `O_DIRECT`, so this life writes through the page cache.
    pub buffered_instead: bool,
}

/// What the log held of one replica. The log itself is read through [`Reader`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// The incarnation.
    pub replica: ReplicaId,
    /// The newest hard state.
    pub hard_state: Option<HardState>,
    /// The truncation point, `(0, 0)` for none.
    pub truncated: (LogIndex, Term),
    /// The last entry, or the truncation point where there is none.
    pub last_index: LogIndex,
    /// Its term.
    pub last_term: Term,
    /// Local segments, by base offset.
    pub seals: BTreeMap<Offset, SealMark>,
    /// The newest two checkpoint marks, oldest first.
    pub snapshots: Vec<SnapshotMark>,
    /// What was lost to corruption. Everything above is then what is left.
    pub damage: Option<Damage>,
}

impl RecoveredGroup {
    fn of(group: &Group) -> Self {
        let (last_index, last_term) = group.last();
        Self {
            replica: group.replica,
            hard_state: group.hard_state.map(|(state, _)| state),
            truncated: group.truncated.map_or((LogIndex::ZERO, Term::ZERO), |(index, term, _)| (index, term)),
            last_index,
            last_term,
            seals: group.seals.iter().map(|(base, (mark, _))| (*base, mark.clone())).collect(),
            snapshots: group.snapshots.iter().map(|(mark, _)| mark.clone()).collect(),
            damage: group.damage.clone(),
        }
    }
}

/// Opens or founds the log in a directory.
pub fn open(disk: Arc<dyn Disk>, mut options: Options) -> Result<(Writer, Reader, Recovery), OpenError> {
    options.check()?;
    let (directory, names) = Directory::open(Arc::clone(&disk), options.directory.clone())?;
    let wanted = options.access;
    options.access = directory.usable(wanted)?;
    let mut opening = Opening {
        index: Index::default(),
        files: BTreeMap::new(),
        chain: Chain::default(),
        suspect: None,
        recovery: Recovery {
            files: names.len(),
            buffered_instead: options.access != wanted,
            ..Recovery::default()
        },
        past_cache: options.past_cache(&disk),
        #[cfg(feature = "seeded-bugs")]
        bugs: options.bugs,
    };
    // Likewise for names: a file that was freed must not come back after a later one has gone.
    disk.sync_directory(&options.directory)?;
    let named = load_headers(&*disk, names)?;
    let headers: Vec<_> = named.iter().map(|file| file.header).collect();
    let mut tails = Vec::new();
    for (at, file) in named.into_iter().enumerate() {
        let next = headers.get(at + 1).copied().flatten();
        tails.extend(opening.file(file, next.as_ref())?);
    }
    opening.finish();
    let chain = opening.chain;
    #[cfg(feature = "seeded-bugs")]
    let appended_behind = if options.bugs.torn_tail_appended_behind { tails.pop() } else { None };
    tails.iter().try_for_each(|tail| close_tail(&*disk, tail, &options))?;
    let Opening { index, files, recovery, .. } = opening;
    let state = State {
        index,
        files,
        #[cfg(feature = "seeded-bugs")]
        crc_ignored: options.bugs.crc_ignored,
    };
    let shared = Arc::new(Shared::new(state));
    let reader = Reader::new(Arc::clone(&shared));
    #[allow(unused_mut)]
    let mut writer = Writer {
        shared,
        directory,
        options,
        current: None,
        chain,
        synced: chain.end,
        landed: Arc::default(),
        written: chain.end,
        poisoned: None,
        unreadable: BTreeMap::new(),
        aside_pause: 0,
        #[cfg(feature = "seeded-bugs")]
        queued: Vec::new(),
    };
    #[cfg(feature = "seeded-bugs")]
    if let Some(tail) = appended_behind {
        writer.continue_old_tail(tail)?;
    }
    Ok((writer, reader, recovery))
}

/// A name `.wal` and what its first block says.
struct Named {
    sequence: u64,
    path: PathBuf,
    header: Option<FileHeader>,
    file: Box<dyn DiskFile>,
    bytes: u64,
}

fn load_headers(disk: &dyn Disk, names: Vec<(u64, PathBuf)>) -> io::Result<Vec<Named>> {
    let load = |(sequence, path): (u64, PathBuf)| {
        let file = open_for_reading(disk, &path)?;
        let bytes = file.len()?;
        let mut block = vec![0; BLOCK_BYTES.min(bytes) as usize];
        let read = file.read_at(&mut block, 0)?;
        let header = FileHeader::decode(&block[..read]).filter(|header| header.sequence == sequence);
        Ok(Named { sequence, path, header, file, bytes })
    };
    names.into_iter().map(load).collect()
}

/// A file without an index that can get one now.
pub(crate) struct Tail {
    pub header: FileHeader,
    pub path: PathBuf,
    pub end: WalPosition,
    pub summaries: Summaries,
}

struct Opening {
    index: Index,
    files: BTreeMap<WalPosition, Arc<OpenFile>>,
    chain: Chain,
    /// Something that nobody can attribute was lost in this session of the log, at this position: replicas that are
    /// first met later in that session may have lost it.
    suspect: Option<(u64, WalPosition)>,
    recovery: Recovery,
    past_cache: Option<Arc<dyn Disk>>,
    #[cfg(feature = "seeded-bugs")]
    bugs: crate::bugs::Bugs,
}

impl Opening {
    /// Takes in one file; returns it where it lacks an index and can be closed now.
    fn file(&mut self, named: Named, next: Option<&FileHeader>) -> Result<Option<Tail>, OpenError> {
        let header = named.header.unwrap_or_else(|| self.stand_in(&named, next));
        if header.base < self.chain.next_base {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "two wal files claim one position").into());
        }
        let file_end = header.base.plus(header.capacity);
        self.index.files.insert(header.base, FileUse { end: file_end, live_bytes: 0 });
        let chained = self.files.is_empty() || header.previous_sequence == self.chain.sequence;
        if !chained || named.header.is_none() {
            // A file is gone from the middle, or nothing in this one can be told.
            let bytes = if named.header.is_none() { header.capacity as u32 } else { 0 };
            self.lost(header.session, Place { position: header.base, bytes });
        }
        let (mut end, mut tail) = (header.base, None);
        if named.header.is_some() {
            let known_end =
                next.filter(|next| next.previous_sequence == named.sequence).map(|next| next.previous_end);
            let summaries;
            (end, summaries) = self.contents(&named, &header, known_end)?;
            tail = summaries.map(|summaries| Tail { header, path: named.path.clone(), end, summaries });
        }
        self.chain = Chain { sequence: named.sequence, end, next_base: file_end, session: 0 };
        self.files.insert(
            header.base,
            Arc::new(OpenFile {
                header,
                path: named.path,
                file: named.file,
                past_cache: self.past_cache.clone(),
            }),
        );
        Ok(tail)
    }

    /// A header for a file that has lost its own, so that it is kept, counted and freed in its turn.
    fn stand_in(&self, named: &Named, next: Option<&FileHeader>) -> FileHeader {
        let session = self.files.values().next_back().map(|file| file.header.session);
        FileHeader {
            sequence: named.sequence,
            base: self.chain.next_base,
            capacity: named.bytes.clamp(3 * BLOCK_BYTES, FILE_BYTES_MAX),
            salt: 0,
            alignment: BLOCK_BYTES,
            previous_sequence: self.chain.sequence,
            previous_end: self.chain.end,
            session: session.or(next.map(|next| next.session)).unwrap_or(named.sequence),
        }
    }

    /// Applies what a file holds, by its index or else by a scan; returns its end, and what an index of it would hold
    /// where it has none and nothing is corrupt.
    fn contents(
        &mut self,
        named: &Named,
        header: &FileHeader,
        known_end: Option<WalPosition>,
    ) -> Result<(WalPosition, Option<Summaries>), OpenError> {
        let trailer = load_trailer(named, header)?;
        if let Some((trailer, Some(summaries))) = &trailer {
            summaries.iter().for_each(|summary| self.apply(header, summary));
            return Ok((trailer.end, None));
        }
        let known_end = trailer.map(|(trailer, _)| trailer.end).or(known_end);
        let direct =
            self.past_cache.as_ref().map(|disk| disk.open(&named.path, Access::Direct)).transpose()?;
        let file = direct.as_ref().unwrap_or(&named.file);
        let bytes = load(&**file, named.bytes.min(header.capacity))?;
        self.recovery.scanned_bytes += bytes.len() as u64;
        #[cfg(feature = "seeded-bugs")]
        let check_crc = !self.bugs.crc_ignored;
        #[cfg(not(feature = "seeded-bugs"))]
        let check_crc = true;
        let scan = Scan { header, bytes: &bytes, known_end, check_crc };
        let mut summaries = Summaries::default();
        let Scanned { end, synced, torn_bytes, corrupt } = scan.run(&mut |found| match found {
            Found::Record(summary) => {
                self.apply(header, &summary);
                summaries.push(summary, 0);
            }
            Found::Bad(group, replica, place) => {
                self.index.damage(group, replica, place.position, DamageCause::Record, place.bytes)
            }
            Found::Unattributed(place) => self.lost(header.session, place),
        });
        self.recovery.torn_bytes += torn_bytes;
        make_durable(&*named.file, header, &bytes, synced..end)?;
        Ok((end, (!corrupt).then_some(summaries)))
    }

    fn lost(&mut self, session: u64, place: Place) {
        self.index.damage_all(place.position, DamageCause::Unattributed, place.bytes);
        self.suspect = Some((session, place.position));
    }

    fn apply(&mut self, header: &FileHeader, summary: &Summary) {
        self.index.apply(summary, Origin::Recovery);
        if let Some((session, position)) = self.suspect
            && session == header.session
            && self.index.groups.get(&summary.group).is_some_and(|group| group.damage.is_none())
            && !matches!(summary.content, crate::record::Content::LossAccepted { .. })
        {
            self.index.damage(summary.group, summary.replica, position, DamageCause::Unattributed, 0);
        }
    }

    /// Checks each log for gaps, now that everything that was moved has been met.
    fn finish(&mut self) {
        let Index { groups, destroyed, hurt, .. } = &mut self.index;
        for (id, group) in groups.iter_mut() {
            let gap = group.check_contiguous();
            let (last_index, last_term) = group.last();
            if let Some(position) = gap
                && group.damage.is_none()
            {
                let replica = group.replica;
                hurt.insert(*id);
                group.damage =
                    Some(Damage { replica, position, last_index, last_term, cause: DamageCause::Gap });
            }
            if group.damage_mark.is_none()
                && let Some(damage) = &mut group.damage
            {
                (damage.last_index, damage.last_term) = (last_index, last_term);
            }
            self.recovery.groups.insert(*id, RecoveredGroup::of(group));
        }
        self.recovery.destroyed = destroyed.iter().map(|(id, (replica, _))| (*id, *replica)).collect();
    }
}

/// The trailer if it is intact, with the index if that is too.
fn load_trailer(named: &Named, header: &FileHeader) -> io::Result<Option<(Trailer, Option<Vec<Summary>>)>> {
    if named.bytes < header.capacity {
        return Ok(None);
    }
    let mut block = vec![0; BLOCK_BYTES as usize];
    let read = named.file.read_at(&mut block, header.capacity - BLOCK_BYTES)?;
    let Some(trailer) = Trailer::decode(&block[..read], header.salt) else { return Ok(None) };
    let room = header.capacity - BLOCK_BYTES;
    let at = trailer.index_position.since(header.base);
    if at + u64::from(trailer.index_bytes) > room {
        return Ok(Some((trailer, None)));
    }
    let index = match read_exact_at(&*named.file, at, trailer.index_bytes as usize) {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Some((trailer, None))),
        Err(error) => return Err(error),
    };
    let intact = crc32c(&index) == trailer.index_crc;
    let summaries = if intact { decode_index(header.base, index).ok() } else { None };
    Ok(Some((trailer, summaries)))
}

/// After the death of a process only, what was read may still be nowhere but in memory: it must be durable before anybody
/// acts on it, and before a trailer vouches for it. A sync alone is not enough: if the process died because one failed,
/// the kernel calls those pages clean and writes them never (T17). So what no batch says to be durable is written once
/// more, as it is; with no batch that includes the file's header.
fn make_durable(
    file: &dyn DiskFile,
    header: &FileHeader,
    bytes: &[u8],
    unsure: std::ops::Range<WalPosition>,
) -> io::Result<()> {
    let from = if unsure.start < header.base { 0 } else { unsure.start.since(header.base) };
    let to = unsure.end.since(header.base).min(bytes.len() as u64);
    if from < to {
        file.write_at(&bytes[from as usize..to as usize], from)?;
    }
    file.sync_data()
}

/// Gives an old tail its index and trailer, over whatever the crash left there.
fn close_tail(disk: &dyn Disk, tail: &Tail, options: &Options) -> io::Result<()> {
    let index_bytes = 4 + tail.summaries.list.iter().map(Summary::index_bytes).sum::<u64>();
    let at = tail.end.since(tail.header.base).next_multiple_of(BLOCK_BYTES);
    if at + index_bytes + 2 * BLOCK_BYTES > tail.header.capacity {
        // Only a file that this code did not write has no room; it is scanned again next time.
        return Ok(());
    }
    let file = disk.open(&tail.path, options.access)?;
    close(&*file, &tail.header, tail.end, &tail.summaries.list)
}

#[cfg(feature = "seeded-bugs")]
impl Writer {
    /// The seeded bug T10: goes on writing behind what the crash left.
    fn continue_old_tail(&mut self, tail: Tail) -> io::Result<()> {
        let inside = (tail.end.since(tail.header.base) + 1).next_multiple_of(BLOCK_BYTES);
        let end = tail.header.base.plus(inside);
        let file = self.directory.disk.open(&tail.path, self.options.access)?;
        let lanes = crate::files::open_lanes(&*self.directory.disk, &tail.path, self.options.access)?;
        (self.synced, self.written, self.chain.end) = (end, end, end);
        self.chain.session = tail.header.session;
        let Tail { header, summaries, .. } = tail;
        self.current =
            Some(crate::writer::Current { header, file, lanes, end, summaries, filled: 0, settled: true });
        Ok(())
    }
}
