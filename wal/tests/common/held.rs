//! A disk whose writes and syncs of batches (those in lanes: no header is written through the same descriptor) wait until the
//! test lets them go, each with the result that the test says.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
};

use varve_common::{Access, Disk, DiskFile, disk::Space};
use varve_wal::testing::MemoryDisk;

/// What is held: each kind is counted for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Write,
    Sync,
}

#[derive(Default)]
struct Holds {
    /// Which are held, and how many have begun.
    holding: BTreeMap<Step, bool>,
    begun: BTreeMap<Step, u64>,
    results: BTreeMap<(Step, u64), bool>,
}

impl Holds {
    fn holds(&self, step: Step) -> bool {
        self.holding.get(&step) == Some(&true)
    }
}

struct Shared {
    holds: Mutex<Holds>,
    changed: Condvar,
    entered: Mutex<Sender<(Step, u64)>>,
}

impl Shared {
    /// Waits until the test says how it goes.
    fn pass(&self, step: Step) -> io::Result<()> {
        let mut holds = self.holds.lock().unwrap();
        if holds.holds(step) {
            let begun = holds.begun.entry(step).or_default();
            let number = *begun;
            *begun += 1;
            self.entered.lock().unwrap().send((step, number)).unwrap();
            while holds.holds(step) && !holds.results.contains_key(&(step, number)) {
                holds = self.changed.wait(holds).unwrap();
            }
            if holds.results.get(&(step, number)) == Some(&false) {
                return Err(io::Error::other("held and lost"));
            }
        }
        Ok(())
    }
}

pub struct HeldDisk {
    disk: MemoryDisk,
    refuses_direct: bool,
    shared: Arc<Shared>,
}

/// The test's hand on the syncs.
pub struct Hand {
    shared: Arc<Shared>,
    entered: Receiver<(Step, u64)>,
}

struct HeldFile {
    file: Box<dyn DiskFile>,
    /// Whether it is a lane's: the header went through another.
    is_lane: AtomicBool,
    shared: Arc<Shared>,
}

impl HeldDisk {
    pub fn new(disk: MemoryDisk) -> (Self, Hand) {
        let (sender, entered) = channel();
        let shared = Arc::new(Shared {
            holds: Mutex::default(),
            changed: Condvar::new(),
            entered: Mutex::new(sender),
        });
        (Self { disk, refuses_direct: false, shared: Arc::clone(&shared) }, Hand { shared, entered })
    }

    /// A file system without `O_DIRECT`, and nothing held.
    pub fn without_direct(disk: MemoryDisk) -> Self {
        Self { refuses_direct: true, ..Self::new(disk).0 }
    }

    fn check(&self, access: Access) -> io::Result<()> {
        let refused = self.refuses_direct && access == Access::Direct;
        if refused { Err(io::Error::from_raw_os_error(22)) } else { Ok(()) }
    }

    fn hold(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(HeldFile { file, is_lane: AtomicBool::new(true), shared: Arc::clone(&self.shared) })
    }
}

impl Hand {
    /// From now on these wait, or no longer do.
    pub fn holding(&self, step: Step, holding: bool) {
        self.shared.holds.lock().unwrap().holding.insert(step, holding);
        self.shared.changed.notify_all();
    }

    /// Waits until one has begun; its number.
    pub fn begun(&self) -> (Step, u64) {
        self.entered.recv_timeout(std::time::Duration::from_secs(20)).expect("one begins")
    }

    /// Whether none begins for a while.
    pub fn nothing_begins(&self) -> bool {
        self.entered.recv_timeout(std::time::Duration::from_millis(100)).is_err()
    }

    /// Lets one go: as the disk has it, or with an error.
    pub fn let_go(&self, step: Step, number: u64, good: bool) {
        self.shared.holds.lock().unwrap().results.insert((step, number), good);
        self.shared.changed.notify_all();
    }
}

impl DiskFile for HeldFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        if position == 0 {
            self.is_lane.store(false, Ordering::Relaxed);
        }
        if self.is_lane.load(Ordering::Relaxed) {
            self.shared.pass(Step::Write)?;
        }
        self.file.write_at(bytes, position)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.file.allocate(length)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.is_lane.load(Ordering::Relaxed) {
            self.shared.pass(Step::Sync)?;
        }
        self.file.sync_data()
    }
}

impl Disk for HeldDisk {
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        self.check(access)?;
        self.disk.create(path, access).map(|file| self.hold(file))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        self.check(access)?;
        self.disk.open(path, access).map(|file| self.hold(file))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.disk.list(directory)
    }

    fn list_directories(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.disk.list_directories(directory)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.create_directory(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_directory(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }
}
