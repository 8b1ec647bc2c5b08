//! Checkpoints on this node: `groups/{group:016x}/{index:020}-{term:08x}.ckpt`, two of each group.
//!
//! A file is written under a temporary name, synced, renamed, and its directory synced; only then may a snapshot mark
//! in the write-ahead log name it (T6). The marks are the catalogue: a directory listing never is, and a file that no
//! mark names is rubbish of a crash.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use varve_common::{Access, Digest, Disk, GroupId, LogIndex, Term, disk::read_exact_at};
use varve_formats::{checkpoint::Checkpoint, limits::CHECKPOINT_BYTES_MAX};

use crate::verify::{Damage, Expected, verify_named};

/// What the write-ahead log says of a local checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The index that the state is of.
    pub index: LogIndex,
    /// The term of the entry there.
    pub term: Term,
    /// The file's name in the group's directory.
    pub file: String,
    /// The file's SHA-256.
    pub sha256: Digest,
}

/// A local checkpoint cannot be written, or a surplus one not removed. Nothing names it, so nothing is lost: retry
/// later (no space), or leave it to the operator.
#[derive(Debug, thiserror::Error)]
#[error("local checkpoint {}: {source}", .path.display())]
pub struct WriteError {
    /// Which file.
    pub path: PathBuf,
    /// What the disk said.
    pub source: io::Error,
}

/// Why a local checkpoint that a mark names was passed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is not there, although a mark names it.
    #[error("it is gone")]
    Gone,
    /// The disk does not give it.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It is there, and not what it should be.
    #[error(transparent)]
    Damaged(#[from] Damage),
}

/// A local checkpoint that was passed over: to be reported, and repaired by writing a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Which.
    pub mark: Mark,
    /// Why.
    pub why: Unusable,
}

/// The newest local checkpoint that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// It.
    pub checkpoint: Checkpoint,
    /// What names it.
    pub mark: Mark,
    /// Newer ones that were passed over.
    pub passed_over: Vec<PassedOver>,
}

/// There is no local checkpoint to start from. Neither case is an empty state: without any mark the log must reach
/// back to its first entry, else the replica is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The log names none: this group has not written one yet.
    #[error("no local checkpoint was ever written")]
    NeverWritten,
    /// Each one that the log names is damaged: the replica returns as a new learner (RAFT.md 1).
    #[error("all {} local checkpoints are unusable", .0.len())]
    AllUnusable(Vec<PassedOver>),
}

/// The directory of a group's checkpoints.
#[must_use]
pub fn directory(data: &Path, group: GroupId) -> PathBuf {
    data.join("groups").join(directory_name(group))
}

/// Its name, below `groups`.
#[must_use]
pub fn directory_name(group: GroupId) -> String {
    format!("{:016x}", group.0)
}

/// The name of a checkpoint's file.
#[must_use]
pub fn file_name(index: LogIndex, term: Term) -> String {
    format!("{:020}-{:08x}.ckpt", index.0, term.0)
}

/// Writes a checkpoint; on `Ok` it is durable and may be marked. `index` must lie above those of the group's marks:
/// a file that a mark names is never replaced.
pub fn write(
    disk: &dyn Disk,
    data: &Path,
    group: GroupId,
    (index, term): (LogIndex, Term),
    bytes: &Bytes,
) -> Result<Mark, WriteError> {
    write_as(file_name(index, term), disk, data, group, (index, term), bytes)
}

/// The same for a checkpoint from the bucket that takes the place of a log: under a name of its own, because the log may get
/// there meanwhile, and then its own checkpoint as of the same index may have a mark already.
pub fn write_installed(
    disk: &dyn Disk,
    data: &Path,
    group: GroupId,
    (index, term): (LogIndex, Term),
    bytes: &Bytes,
) -> Result<Mark, WriteError> {
    write_as(installed_name(index, term), disk, data, group, (index, term), bytes)
}

/// The same for a checkpoint that members are sent to: no mark names it, so it is rubbish in the next life.
pub fn write_offered(
    disk: &dyn Disk,
    data: &Path,
    group: GroupId,
    (index, term): (LogIndex, Term),
    (applied, bytes): (LogIndex, &Bytes),
) -> Result<Mark, WriteError> {
    let file = format!("{:020}-{:020}.offered.ckpt", index.0, applied.0);
    write_as(file, disk, data, group, (index, term), bytes)
}

/// What an earlier round of [`write_installed`] left, where it has this digest; durable, as if it had been written now.
#[must_use]
pub fn read_installed(
    disk: &dyn Disk,
    data: &Path,
    group: GroupId,
    (index, term): (LogIndex, Term),
    sha256: Digest,
) -> Option<(Bytes, Mark)> {
    let (directory, name) = (directory(data, group), installed_name(index, term));
    let path = directory.join(&name);
    let file = disk.open(&path, Access::Buffered).ok()?;
    let length = file.len().ok().filter(|length| *length <= CHECKPOINT_BYTES_MAX as u64)?;
    let bytes = Bytes::from(read_exact_at(&*file, 0, length as usize).ok()?);
    if Digest::of(&bytes) != sha256 {
        return None;
    }
    // It has its name since it is whole and synced; whether that name is durable nobody knows.
    disk.sync_directory(&directory).ok()?;
    Some((bytes, Mark { index, term, file: name, sha256 }))
}

fn installed_name(index: LogIndex, term: Term) -> String {
    format!("{:020}-{:08x}.installed.ckpt", index.0, term.0)
}

fn write_as(
    file: String,
    disk: &dyn Disk,
    data: &Path,
    group: GroupId,
    (index, term): (LogIndex, Term),
    bytes: &Bytes,
) -> Result<Mark, WriteError> {
    let directory = directory(data, group);
    let path = directory.join(&file);
    write_durably(disk, &directory, &path, bytes).map_err(|source| WriteError { path, source })?;
    Ok(Mark { index, term, file, sha256: Digest::of(bytes) })
}

fn write_durably(disk: &dyn Disk, directory: &Path, path: &Path, bytes: &Bytes) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    disk.create_directory(directory)?;
    remove_if_there(disk, &temporary)?;
    let file = disk.create(&temporary, Access::Buffered)?;
    file.write_at(bytes, 0)?;
    file.sync_data()?;
    disk.rename(&temporary, path)?;
    disk.sync_directory(directory)
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Loads the newest checkpoint that `marks` name and that is whole and this group's.
pub fn load(
    disk: &dyn Disk,
    data: &Path,
    group: GroupId,
    expected: &Expected,
    marks: &[Mark],
) -> Result<Loaded, LoadError> {
    let mut newest_first: Vec<&Mark> = marks.iter().collect();
    newest_first.sort_by_key(|mark| std::cmp::Reverse((mark.index, mark.term)));
    let mut passed_over = Vec::new();
    for mark in newest_first {
        match load_one(disk, &directory(data, group).join(&mark.file), expected, mark) {
            Ok(checkpoint) => return Ok(Loaded { checkpoint, mark: mark.clone(), passed_over }),
            Err(why) => passed_over.push(PassedOver { mark: mark.clone(), why }),
        }
    }
    if passed_over.is_empty() {
        Err(LoadError::NeverWritten)
    } else {
        Err(LoadError::AllUnusable(passed_over))
    }
}

fn load_one(disk: &dyn Disk, path: &Path, expected: &Expected, mark: &Mark) -> Result<Checkpoint, Unusable> {
    let bytes = read(disk, path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unusable::Gone,
        _ => Unusable::Unreadable(error.to_string()),
    })?;
    Ok(verify_named(&bytes, mark.sha256, Some(expected))?)
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Bytes> {
    let file = disk.open(path, Access::Buffered)?;
    let length = file.len()?;
    if length > CHECKPOINT_BYTES_MAX as u64 {
        return Err(io::Error::other("larger than checkpoints may be"));
    }
    read_exact_at(&*file, 0, length as usize).map(Bytes::from)
}

/// Removes the group's files that no mark in `keep` names; called after the newest mark is durable. Gives their names.
pub fn remove_surplus(
    disk: &dyn Disk,
    data: &Path,
    group: GroupId,
    keep: &[Mark],
) -> Result<Vec<String>, WriteError> {
    let directory = directory(data, group);
    let remove = || -> io::Result<Vec<String>> {
        let mut surplus = disk.list(&directory)?;
        surplus.retain(|name| {
            (name.ends_with(".ckpt") || name.ends_with(".tmp")) && !keep.iter().any(|mark| mark.file == *name)
        });
        for name in &surplus {
            remove_if_there(disk, &directory.join(name))?;
        }
        if !surplus.is_empty() {
            disk.sync_directory(&directory)?;
        }
        Ok(surplus)
    };
    match remove() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        result => result.map_err(|source| WriteError { path: directory.clone(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::{CutDisk, checkpoint, encode, header, identity},
        verify::Mismatch,
    };

    const GROUP: GroupId = GroupId(3);

    fn data() -> &'static Path {
        Path::new("data")
    }

    fn expected() -> Expected {
        Expected::of(&identity(1), GROUP)
    }

    fn put(disk: &CutDisk, index: u64) -> Mark {
        write(disk, data(), GROUP, (LogIndex(index), Term(7)), &checkpoint(1, index, index)).unwrap()
    }

    fn path(mark: &Mark) -> PathBuf {
        directory(data(), GROUP).join(&mark.file)
    }

    #[test]
    fn the_newest_of_two_is_loaded_and_the_rest_is_removed() {
        let disk = CutDisk::default();
        let marks = [put(&disk, 10), put(&disk, 20), put(&disk, 30)];
        assert_eq!(marks[0].file, "00000000000000000010-00000007.ckpt");
        let removed = remove_surplus(&disk, data(), GROUP, &marks[1..]).unwrap();
        assert_eq!(removed, [marks[0].file.clone()]);
        let loaded = load(&disk, data(), GROUP, &expected(), &marks[1..]).unwrap();
        assert_eq!((loaded.mark, loaded.passed_over), (marks[2].clone(), vec![]));
    }

    #[test]
    fn s4_t14_a_damaged_newest_is_reported_and_the_one_before_it_is_used() {
        type Change = fn(&mut Vec<u8>);
        let changes: [Change; 4] = [
            |bytes| bytes[40] ^= 1,
            |bytes| bytes.truncate(90),
            |bytes| bytes.clear(),
            |bytes| bytes.push(0),
        ];
        for change in changes {
            let disk = CutDisk::default();
            let marks = [put(&disk, 10), put(&disk, 20)];
            disk.tamper(&path(&marks[1]), change);
            let loaded = load(&disk, data(), GROUP, &expected(), &marks).unwrap();
            assert_eq!((&loaded.mark, &loaded.passed_over[0].mark), (&marks[0], &marks[1]));
            assert!(matches!(loaded.passed_over[0].why, Unusable::Damaged(Damage::Checksum { .. })));
            disk.tamper(&path(&marks[0]), change);
            let error = load(&disk, data(), GROUP, &expected(), &marks).unwrap_err();
            assert!(matches!(error, LoadError::AllUnusable(all) if all.len() == 2));
        }
    }

    #[test]
    fn s4_a_missing_file_is_gone_and_never_an_empty_state() {
        let disk = CutDisk::default();
        let marks = [put(&disk, 10)];
        disk.remove(&path(&marks[0])).unwrap();
        let error = load(&disk, data(), GROUP, &expected(), &marks).unwrap_err();
        let why = Unusable::Gone;
        assert_eq!(error, LoadError::AllUnusable(vec![PassedOver { mark: marks[0].clone(), why }]));
        assert_eq!(load(&disk, data(), GROUP, &expected(), &[]), Err(LoadError::NeverWritten));
    }

    #[test]
    fn s5_the_checkpoint_of_another_group_is_refused() {
        let disk = CutDisk::default();
        let mut other = header(1, 10, 10);
        other.group = GroupId(4);
        let mark = write(&disk, data(), GROUP, (LogIndex(10), Term(7)), &encode(other)).unwrap();
        let error = load(&disk, data(), GROUP, &expected(), std::slice::from_ref(&mark)).unwrap_err();
        let why = Unusable::Damaged(Damage::Foreign(Mismatch::Group(GroupId(4))));
        assert_eq!(error, LoadError::AllUnusable(vec![PassedOver { mark, why }]));
    }

    #[test]
    fn t6_a_power_cut_at_any_step_leaves_what_the_marks_name() {
        let mut cuts = 0;
        loop {
            let disk = CutDisk::default();
            let mut marks = vec![put(&disk, 10)];
            disk.cut_after(cuts);
            let written = write(&disk, data(), GROUP, (LogIndex(20), Term(7)), &checkpoint(1, 20, 20));
            disk.restart();
            let finished = written.is_ok();
            // The mark is written after the file: a mark exists only where `write` returned.
            marks.extend(written.ok());
            let loaded = load(&disk, data(), GROUP, &expected(), &marks).unwrap();
            assert_eq!(
                (&loaded.mark, loaded.passed_over),
                (marks.last().unwrap(), vec![]),
                "cut after {cuts}"
            );
            // The next try is not stopped by what the crash left.
            put(&disk, 20);
            remove_surplus(&disk, data(), GROUP, &marks).unwrap();
            if finished {
                break;
            }
            cuts += 1;
        }
        assert!(cuts > 4);
    }
}
