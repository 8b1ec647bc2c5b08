//! A disk that is only read: a broker may be running on the directory.
//!
//! Every change is refused. Files that are being written (`staging`) are not shown, so that opening a directory store
//! finds nothing to clean up there.

use std::{fs, io, os::unix::fs::FileExt as _, path::Path};

use varve_common::{Access, Disk, DiskFile, disk::Space};

/// See the module.
pub struct ReadOnlyDisk;

struct ReadOnlyFile(fs::File);

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "this command changes nothing"))
}

fn names(directory: &Path, directories: bool) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() == directories {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort_unstable();
    Ok(names)
}

impl Disk for ReadOnlyDisk {
    fn create(&self, _: &Path, _: Access) -> io::Result<Box<dyn DiskFile>> {
        refused()
    }

    fn open(&self, path: &Path, _: Access) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(ReadOnlyFile(fs::File::open(path)?)))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        if directory.ends_with("staging") { Ok(Vec::new()) } else { names(directory, false) }
    }

    fn list_directories(&self, directory: &Path) -> io::Result<Vec<String>> {
        names(directory, true)
    }

    /// Fine where it exists, `NotFound` where it would have to be made.
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::metadata(path).map(drop)
    }

    fn remove_directory(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn rename_new(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    /// Nothing was changed, so nothing has to be made durable.
    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        Ok(Space { free_bytes: 0, total_bytes: 0 })
    }
}

impl DiskFile for ReadOnlyFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        refused()
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        refused()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        refused()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
