//! The real disk, over rustix. The only place in the workspace that opens log files.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Mutex,
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

/// Who made a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Before,
    Now,
}

/// How many directories are remembered as durable; the name of any other is synced each time.
const DURABLE_MAX: usize = 100_000;

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

/// Directories whose names this process knows to be durable. That one exists says nothing: a life that was killed, or
/// another thread, may have made it and not synced the one above. Held while that is done, so that nobody comes first.
static DURABLE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Makes what is missing from the top down, and syncs above each directory of which nothing is known.
fn make_durable(
    path: &Path,
    durable: &mut BTreeSet<PathBuf>,
    mut make: impl FnMut(&Path) -> io::Result<Made>,
    mut sync_above: impl FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let unknown: Vec<&Path> =
        path.ancestors().take_while(|above| above.parent().is_some() && !durable.contains(*above)).collect();
    for directory in unknown.into_iter().rev() {
        let made = make(directory)?;
        match (sync_above(directory), made) {
            (Ok(()), _) => {}
            // It is not ours, and neither is what stands above it.
            (Err(_), Made::Before) => continue,
            (Err(error), Made::Now) => return Err(error),
        }
        if durable.len() < DURABLE_MAX {
            durable.insert(directory.to_owned());
        }
    }
    Ok(())
}

fn make_directory(path: &Path) -> io::Result<Made> {
    // Asked first: where nothing may be made, on a read-only file system, what exists is fine.
    match fs::stat(path) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => Ok(Made::Before),
        Ok(_) => Err(io::ErrorKind::NotADirectory.into()),
        Err(Errno::NOENT) => match fs::mkdir(path, Mode::RWXU) {
            Ok(()) => Ok(Made::Now),
            Err(Errno::EXIST) => Ok(Made::Before),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

fn sync_above(path: &Path) -> io::Result<()> {
    sync_directory(path.parent().unwrap_or(Path::new(".")))
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
        let mut durable = DURABLE.lock().expect("no holder of this lock panics");
        // What somebody else removed is not known any more.
        for gone in path.ancestors().take_while(|above| fs::stat(*above).is_err()) {
            durable.remove(gone);
        }
        make_durable(path, &mut durable, make_directory, sync_above)
    }

    // One sync for all names.
    fn create_directories(&self, above: &Path, names: &[String]) -> io::Result<()> {
        self.create_directory(above)?;
        let mut durable = DURABLE.lock().expect("no holder of this lock panics");
        let paths: Vec<PathBuf> = names.iter().map(|name| above.join(name)).collect();
        for path in &paths {
            make_directory(path)?;
        }
        sync_directory(above)?;
        let room = DURABLE_MAX.saturating_sub(durable.len());
        durable.extend(paths.into_iter().take(room));
        Ok(())
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        DURABLE.lock().expect("no holder of this lock panics").remove(path);
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
                // Past the page cache an end that is no multiple of a block: some file systems refuse to be asked again from there.
                Err(Errno::INVAL) if read > 0 => break,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(path: &str, existing: &[&str], durable: &mut BTreeSet<PathBuf>) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let (mut made, mut synced) = (Vec::new(), Vec::new());
        let make = |path: &Path| {
            if existing.contains(&path.to_str().unwrap()) {
                return Ok(Made::Before);
            }
            made.push(path.to_owned());
            Ok(Made::Now)
        };
        let sync = |path: &Path| {
            synced.push(path.to_owned());
            if path == Path::new("/others") { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
        };
        make_durable(Path::new(path), durable, make, sync).unwrap();
        (made, synced)
    }

    fn paths(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn w5_a_directory_that_exists_counts_as_durable_only_once_this_process_has_synced_it() {
        let mut durable = BTreeSet::new();
        let existing = ["/others", "/others/data", "/others/data/segments"];
        let (made, synced) = run("/others/data/segments/7", &existing, &mut durable);
        assert_eq!(made, paths(&["/others/data/segments/7"]));
        assert_eq!(
            synced,
            paths(&["/others", "/others/data", "/others/data/segments", "/others/data/segments/7"])
        );
        // From then on it costs nothing; what is beside it costs its own.
        assert_eq!(run("/others/data/segments/7", &[], &mut durable).1, paths(&[]));
        let (made, synced) = run("/others/data/segments/8", &existing, &mut durable);
        assert_eq!(
            (made, synced),
            (paths(&["/others/data/segments/8"]), paths(&["/others/data/segments/8"]))
        );
    }

    #[test]
    fn w5_many_directories_are_made_and_known_to_be_durable_beside_some_that_were_there() {
        let folder = tempfile::tempdir().unwrap();
        let above = folder.path().join("groups");
        NativeDisk.create_directory(&above.join("1")).unwrap();
        let names = ["0", "1", "2"].map(str::to_owned);
        NativeDisk.create_directories(&above, &names).unwrap();
        assert_eq!(NativeDisk.list_directories(&above).unwrap(), names);
        assert!(names.iter().all(|name| DURABLE.lock().unwrap().contains(&above.join(name))));
        drop(NativeDisk.create(&above.join("3"), Access::Buffered).unwrap());
        assert!(NativeDisk.create_directories(&above, &["3".to_owned()]).is_err());
    }

    #[test]
    fn w5_a_directory_that_went_is_made_durable_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let is_known = || DURABLE.lock().unwrap().contains(&path);
        NativeDisk.create_directory(&path).unwrap();
        assert!(is_known() && path.is_dir());
        NativeDisk.remove_directory(&path).unwrap();
        assert!(!is_known());
        NativeDisk.create_directory(&path).unwrap();
        assert!(is_known() && path.is_dir());
    }
}
