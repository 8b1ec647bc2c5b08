//! The seam to local storage: blocking, positioned, with durability spelled out.
//!
//! A write is durable only after [`DiskFile::sync_data`]; a new, renamed or removed name only after
//! [`Disk::sync_directory`] of its directory. The simulated disk takes both words literally and loses the rest.

use std::{io, path::Path};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Through the page cache.
    Buffered,
    /// Past the page cache (`O_DIRECT`): positions, lengths and memory are multiples of 4,096 bytes.
    Direct,
}

/// Bytes free to this process and bytes in all, of the file system that holds a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What an unprivileged process can still write.
    pub free_bytes: u64,
    /// The size of the file system.
    pub total_bytes: u64,
}

/// A directory tree.
pub trait Disk: Send + Sync + 'static {
    /// Makes a new file for reading and writing; `AlreadyExists` where the name is taken.
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading and writing; `NotFound` where there is none.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>>;

    /// The names of the files directly in a directory, sorted; `NotFound` where there is no such directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// The names of the directories directly in a directory, sorted.
    fn list_directories(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Makes a directory and those above it; it is durable on return. Fine where it exists.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes directories of these names in one, and that too; all are durable on return. Fine where some exist.
    fn create_directories(&self, above: &Path, names: &[String]) -> io::Result<()> {
        names.iter().try_for_each(|name| self.create_directory(&above.join(name)))
    }

    /// Removes an empty directory.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, replacing what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file another name; `AlreadyExists`, and nothing changed, where that is taken.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; `NotFound` where there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Room on the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// An open file. Positioned calls need no lock: callers see to it that what is read of ranges being written is used by nobody.
#[allow(clippy::len_without_is_empty)]
pub trait DiskFile: Send + Sync {
    /// Reads into `buffer` from `position`; fewer bytes than asked only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `position`, growing the file as needed. After an error any part may be written.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Reserves disk space for the first `length` bytes and makes the file that long; new bytes read as zero.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// Cuts or extends the file.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Makes everything written so far durable, with the metadata needed to read it (`fdatasync`). After an error
    /// the file must not be synced again: the kernel may have dropped the pages (ATC '20, "Can applications recover
    /// from fsync failures?").
    fn sync_data(&self) -> io::Result<()>;
}

/// Reads exactly `length` bytes, `UnexpectedEof` where the file ends before.
pub fn read_exact_at(file: &dyn DiskFile, position: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let read = file.read_at(&mut bytes, position)?;
    if read < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}
