//! A disk of plain files: enough to run the directory store on, with no claim to durability.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the disk of tests, which no release has: the real one is in room wal"
)]

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use varve_common::{Access, Disk, DiskFile, aligned::BLOCK_BYTES, disk::Space};

/// See the module.
#[derive(Default)]
pub struct PlainDisk {
    /// Lets every fsync of a directory fail.
    pub directory_syncs_fail: AtomicBool,
}

struct PlainFile {
    file: File,
    access: Access,
}

impl PlainFile {
    /// Through the page cache in any case, and as strict as `O_DIRECT`.
    fn check_alignment(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let block = BLOCK_BYTES as usize;
        let fine = position.is_multiple_of(BLOCK_BYTES)
            && bytes.len().is_multiple_of(block)
            && bytes.as_ptr().addr().is_multiple_of(block);
        if self.access == Access::Direct && !fine { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(()) }
    }
}

fn names(directory: &Path, wanted: impl Fn(&fs::FileType) -> bool) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if wanted(&entry.file_type()?) {
            names.push(entry.file_name().into_string().map_err(|_| io::ErrorKind::InvalidData)?);
        }
    }
    names.sort();
    Ok(names)
}

impl Disk for PlainDisk {
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Box::new(PlainFile { file, access }))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Box::new(PlainFile { file, access }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        names(directory, fs::FileType::is_file)
    }

    fn list_directories(&self, directory: &Path) -> io::Result<Vec<String>> {
        names(directory, fs::FileType::is_dir)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)?;
        fs::remove_file(from)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        if self.directory_syncs_fail.load(Ordering::Relaxed) {
            return Err(io::Error::other("injected"));
        }
        Ok(())
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        Ok(Space { free_bytes: u64::MAX, total_bytes: u64::MAX })
    }
}

impl DiskFile for PlainFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.check_alignment(buffer, position)?;
        let mut read = 0;
        while read < buffer.len() {
            match self.file.read_at(&mut buffer[read..], position + read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.check_alignment(bytes, position)?;
        self.file.write_all_at(bytes, position)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
