//! The disk as tasks use it: while a call takes its time, the thread's other tasks go on elsewhere.
//!
//! Jobs and cold reads share their threads, and what changes a disk may stand still for as long as the disk does: a sync, gigabytes
//! that are allocated. A task that the thread has just woken runs nowhere else (it is the next one here, and nobody may take it), so
//! chunks that had long arrived waited for a stranger's sync. Threads outside of a runtime, the log's and the shard's, notice nothing.

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::block_in_place,
};
use varve_common::{Access, Disk, DiskFile, disk::Space};

/// So many calls at a time give way, each with a thread more; the others are as many as there are threads for tasks.
const GIVING_WAY_MAX: usize = 8;

static GIVING_WAY: AtomicUsize = AtomicUsize::new(0);

/// A disk whose calls that change something, and no reads, give way.
#[derive(Debug)]
pub struct GivingWay<D>(pub D);

struct File(Box<dyn DiskFile>);

fn give_way<T>(call: impl FnOnce() -> T) -> T {
    let is_task =
        Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if !is_task {
        return call();
    }
    let counted = Counted::new();
    if counted.is_among <= GIVING_WAY_MAX { block_in_place(call) } else { call() }
}

/// One that gives way, until it is dropped.
struct Counted {
    is_among: usize,
}

impl Counted {
    fn new() -> Self {
        Self { is_among: GIVING_WAY.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        GIVING_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<D: Disk> Disk for GivingWay<D> {
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File(self.0.create(path, access)?)))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File(self.0.open(path, access)?)))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.0.list(directory)
    }

    fn list_directories(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.0.list_directories(directory)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        give_way(|| self.0.create_directory(path))
    }

    fn create_directories(&self, above: &Path, names: &[String]) -> io::Result<()> {
        give_way(|| self.0.create_directories(above, names))
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        give_way(|| self.0.remove_directory(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        give_way(|| self.0.rename(from, to))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        give_way(|| self.0.rename_new(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        give_way(|| self.0.remove(path))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        give_way(|| self.0.sync_directory(path))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.space(path)
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        give_way(|| self.0.write_at(bytes, position))
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        give_way(|| self.0.allocate(length))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        give_way(|| self.0.set_len(length))
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        give_way(|| self.0.sync_data())
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn what_a_task_has_woken_does_not_wait_for_its_disk() {
        let threads = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (tell, told) = mpsc::channel();
        let waits = async move {
            tokio::spawn(async move { tell.send(()).unwrap() });
            give_way(|| told.recv_timeout(Duration::from_secs(60)))
        };
        assert_eq!(threads.block_on(async { tokio::spawn(waits).await.unwrap() }), Ok(()));
    }

    #[test]
    fn a_thread_of_its_own_and_more_than_may_give_way_call_where_they_are() {
        let here = std::thread::current().id();
        assert_eq!(give_way(|| std::thread::current().id()), here);
        let threads = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let nested = threads.block_on(async {
            tokio::spawn(async {
                let _others: Vec<_> = (0..GIVING_WAY_MAX).map(|_| Counted::new()).collect();
                give_way(|| 7)
            })
            .await
            .unwrap()
        });
        assert_eq!(nested, 7);
        let alone = Builder::new_current_thread().build().unwrap();
        assert_eq!(alone.block_on(async { give_way(|| 8) }), 8);
    }
}
