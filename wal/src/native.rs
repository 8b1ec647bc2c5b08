//! The real disk, over rustix. The only place in the workspace that opens log files.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags},
    io::Errno,
};
use varve_common::{Access, Disk, DiskFile, disk::Space};

/// Files under the paths as they are given.
#[derive(Clone, Copy, Debug, Default)]
pub struct NativeDisk;

struct NativeFile(OwnedFd);

fn open(path: &Path, access: Access, create: OFlags) -> io::Result<Box<dyn DiskFile>> {
    let direct = match access {
        Access::Buffered => OFlags::empty(),
        Access::Direct => OFlags::DIRECT,
    };
    let flags = OFlags::RDWR | OFlags::CLOEXEC | create | direct;
    Ok(Box::new(NativeFile(fs::open(path, flags, Mode::RUSR | Mode::WUSR)?)))
}

fn names(directory: &Path, wanted: FileType) -> io::Result<Vec<String>> {
    let fd = fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(&fd)? {
        let entry = entry?;
        let kind = match entry.file_type() {
            // Some file systems do not say: ask the file.
            FileType::Unknown => FileType::from_raw_mode(
                fs::statat(&fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?.st_mode,
            ),
            known => known,
        };
        let name = entry.file_name().to_str().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        if kind == wanted && name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let fd = fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(fs::fsync(fd)?)
}

impl Disk for NativeDisk {
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        open(path, access, OFlags::CREATE | OFlags::EXCL)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        open(path, access, OFlags::empty())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        names(directory, FileType::RegularFile)
    }

    fn list_directories(&self, directory: &Path) -> io::Result<Vec<String>> {
        names(directory, FileType::Directory)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut missing: Vec<PathBuf> = Vec::new();
        for above in path.ancestors() {
            if above.as_os_str().is_empty() {
                break;
            }
            match fs::stat(above) {
                Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => break,
                Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
                Err(Errno::NOENT) => missing.push(above.to_owned()),
                Err(error) => return Err(error.into()),
            }
        }
        for directory in missing.iter().rev() {
            match fs::mkdir(directory, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            sync_directory(directory.parent().unwrap_or(Path::new(".")))?;
        }
        Ok(())
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        Ok(fs::rmdir(path)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(fs::rename(from, to)?)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Ok(fs::unlink(path)?)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        sync_directory(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let found = fs::statvfs(path)?;
        Ok(Space {
            free_bytes: found.f_bavail * found.f_frsize,
            total_bytes: found.f_blocks * found.f_frsize,
        })
    }
}

impl DiskFile for NativeFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match rustix::io::pread(&self.0, &mut buffer[read..], position + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            match rustix::io::pwrite(&self.0, &bytes[written..], position + written as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => written += more,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        loop {
            match fs::fallocate(&self.0, FallocateFlags::empty(), 0, length) {
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        Ok(fs::ftruncate(&self.0, length)?)
    }

    fn len(&self) -> io::Result<u64> {
        u64::try_from(fs::fstat(&self.0)?.st_size).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        // Not repeated after any error, an interruption included: the pages may be gone (ATC '20).
        Ok(fs::fdatasync(&self.0)?)
    }
}
