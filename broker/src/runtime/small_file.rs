//! Small files of the data directory that are replaced whole: after a crash a reader finds all of the old or all of the new.

use std::{
    io,
    path::{Path, PathBuf},
};

use varve_common::{Access, Disk, crc32c, disk::read_exact_at};

/// The largest of them.
const BYTES_MAX: u64 = 64 << 10;
/// The checksum in front of a binary one.
const CHECKSUM_BYTES: usize = 4;

/// The disk did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}: {source}", path = .path.display())]
pub struct SmallFileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> SmallFileError + 'a {
    move |source| SmallFileError { action, path: path.to_owned(), source }
}

/// Reads a file whole, `None` where it is not there.
pub fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, SmallFileError> {
    let file = match disk.open(path, Access::Buffered) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let length = file.len().map_err(failed("read", path))?;
    if length > BYTES_MAX {
        return Err(failed("read", path)(io::Error::other("it is too long")));
    }
    read_exact_at(&*file, 0, length as usize).map(Some).map_err(failed("read", path))
}

/// Puts a file in the place of the one of this name, durably.
pub fn replace(disk: &dyn Disk, directory: &Path, name: &str, bytes: &[u8]) -> Result<(), SmallFileError> {
    let (path, temporary) = (directory.join(name), directory.join(format!("{name}.tmp")));
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("replace", &temporary)(error));
        }
        _ => {}
    }
    let file = disk.create(&temporary, Access::Buffered).map_err(failed("create", &temporary))?;
    file.write_at(bytes, 0).map_err(failed("write", &temporary))?;
    file.sync_data().map_err(failed("sync", &temporary))?;
    disk.rename(&temporary, &path).map_err(failed("rename", &path))?;
    disk.sync_directory(directory).map_err(failed("sync", directory))
}

/// Removes a file, durably; fine where there is none.
pub fn remove(disk: &dyn Disk, directory: &Path, name: &str) -> Result<(), SmallFileError> {
    let path = directory.join(name);
    match disk.remove(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", &path)(error)),
        Ok(()) => disk.sync_directory(directory).map_err(failed("sync", directory)),
    }
}

/// The bytes with their checksum in front.
#[must_use]
pub fn seal(body: &[u8]) -> Vec<u8> {
    [&crc32c(body).to_le_bytes(), body].concat()
}

/// The bytes behind their checksum; `None` where it is wrong.
#[must_use]
pub fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let (checksum, body) = bytes.split_at_checked(CHECKSUM_BYTES)?;
    (crc32c(body).to_le_bytes() == checksum).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_replaced_reads_back_and_an_altered_seal_does_not_open() {
        let directory = tempfile::tempdir().unwrap();
        let disk = varve_wal::NativeDisk;
        let path = directory.path().join("small");
        assert!(read(&disk, &path).unwrap().is_none());
        for text in ["one", "another"] {
            replace(&disk, directory.path(), "small", &seal(text.as_bytes())).unwrap();
            let bytes = read(&disk, &path).unwrap().unwrap();
            assert_eq!(unseal(&bytes), Some(text.as_bytes()));
        }
        let mut bytes = seal(b"sound");
        bytes[6] ^= 1;
        assert_eq!(unseal(&bytes), None);
        assert_eq!(unseal(b"abc"), None);
    }
}
