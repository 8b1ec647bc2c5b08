//! A disk whose syncs of batches (those in lanes: nothing is written through the same descriptor) wait until the test lets
//! them go, each with the result that the test says.

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

#[derive(Default)]
struct Holds {
    holding: bool,
    begun: u64,
    results: BTreeMap<u64, bool>,
}

struct Shared {
    holds: Mutex<Holds>,
    changed: Condvar,
    entered: Mutex<Sender<u64>>,
}

pub struct HeldDisk {
    disk: MemoryDisk,
    shared: Arc<Shared>,
}

/// The test's hand on the syncs.
pub struct Hand {
    shared: Arc<Shared>,
    entered: Receiver<u64>,
}

struct HeldFile {
    file: Box<dyn DiskFile>,
    written: AtomicBool,
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
        (Self { disk, shared: Arc::clone(&shared) }, Hand { shared, entered })
    }

    fn hold(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(HeldFile { file, written: AtomicBool::new(false), shared: Arc::clone(&self.shared) })
    }
}

impl Hand {
    /// From now on syncs wait, or no longer do.
    pub fn holding(&self, holding: bool) {
        self.shared.holds.lock().unwrap().holding = holding;
        self.shared.changed.notify_all();
    }

    /// Waits until a sync has begun; its number.
    pub fn begun(&self) -> u64 {
        self.entered.recv_timeout(std::time::Duration::from_secs(20)).expect("a sync begins")
    }

    /// Lets a sync go: as the disk has it, or with an error.
    pub fn let_go(&self, number: u64, good: bool) {
        self.shared.holds.lock().unwrap().results.insert(number, good);
        self.shared.changed.notify_all();
    }
}

impl DiskFile for HeldFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.written.store(true, Ordering::Relaxed);
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
        let mut holds = self.shared.holds.lock().unwrap();
        if holds.holding && !self.written.load(Ordering::Relaxed) {
            let number = holds.begun;
            holds.begun += 1;
            self.shared.entered.lock().unwrap().send(number).unwrap();
            while holds.holding && !holds.results.contains_key(&number) {
                holds = self.shared.changed.wait(holds).unwrap();
            }
            if holds.results.get(&number) == Some(&false) {
                return Err(io::Error::other("held and lost"));
            }
        }
        drop(holds);
        self.file.sync_data()
    }
}

impl Disk for HeldDisk {
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(path, access).map(|file| self.hold(file))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
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
