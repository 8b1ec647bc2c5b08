//! An open file of the memory disk.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use varve_common::{Access, DiskFile};

use super::{
    memory_disk::Tree,
    script::{Injected, Operation},
};

pub(super) struct MemoryFile {
    pub tree: Arc<Mutex<Tree>>,
    pub id: u64,
    pub access: Access,
}

impl MemoryFile {
    fn lock(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().expect("no holder of this lock panics")
    }

    /// `O_DIRECT` refuses what is not aligned; memory is not looked at, the real disk's suite does that.
    fn check_alignment(&self, position: u64, length: usize) -> io::Result<()> {
        let fine = position.is_multiple_of(4096) && (length as u64).is_multiple_of(4096);
        if self.access == Access::Direct && !fine { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(()) }
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        // A panicking test may have poisoned the lock; then nothing needs sweeping.
        if let Ok(mut tree) = self.tree.lock() {
            if let Some(inode) = tree.inodes.get_mut(&self.id) {
                inode.open -= 1;
            }
            tree.sweep(self.id);
        }
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.check_alignment(position, buffer.len())?;
        let mut tree = self.lock();
        tree.alive()?;
        if tree.read_errors.is_planned() {
            let path = tree.path_of(self.id);
            if tree.read_errors.fails(&path) {
                return Err(io::Error::from_raw_os_error(5));
            }
        }
        let bytes = &tree.inodes[&self.id].bytes;
        let start = (position as usize).min(bytes.len());
        let end = (start + buffer.len()).min(bytes.len());
        buffer[..end - start].copy_from_slice(&bytes[start..end]);
        tree.bytes_read += (end - start) as u64;
        Ok(end - start)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.check_alignment(position, bytes.len())?;
        let mut tree = self.lock();
        let injected = tree.operate_on(Operation::Write, self.id)?;
        let kept = match injected {
            Some(Injected::Eio) => bytes.len() / 2,
            Some(Injected::Lie) => 0,
            _ => bytes.len(),
        };
        let end = position + kept as u64;
        tree.grow(self.id, end)?;
        let inode = tree.inodes.get_mut(&self.id).expect("it is open");
        inode.touch(position, end);
        inode.bytes[position as usize..end as usize].copy_from_slice(&bytes[..kept]);
        if injected == Some(Injected::Eio) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let mut tree = self.lock();
        tree.plain_on(Operation::Allocate, self.id)?;
        tree.grow(self.id, length)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut tree = self.lock();
        tree.plain_on(Operation::SetLength, self.id)?;
        tree.grow(self.id, length)?;
        let inode = tree.inodes.get_mut(&self.id).expect("it is open");
        let now = inode.bytes.len() as u64;
        inode.touch(length.min(now), now);
        inode.bytes.truncate(length as usize);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let tree = self.lock();
        tree.alive()?;
        Ok(tree.inodes[&self.id].bytes.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut tree = self.lock();
        tree.syncs += 1;
        let injected = tree.operate_on(Operation::Sync, self.id)?;
        let inode = tree.inodes.get_mut(&self.id).expect("it is open");
        match injected {
            Some(Injected::Eio) => {
                // As Linux does it: the pages are called clean, and what they held is on disk or is not.
                inode.lose();
                Err(io::Error::from_raw_os_error(5))
            }
            Some(Injected::Lie) => Ok(()),
            _ => {
                inode.sync();
                Ok(())
            }
        }
    }
}
