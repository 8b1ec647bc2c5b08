//! The data directory: its layout, and the lock that keeps a second process out.

#![allow(
    clippy::disallowed_types,
    reason = "a lock file is held by the operating system for this process; no data is in it"
)]

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use varve_common::Disk;

/// Where things are.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The data directory itself.
    pub root: PathBuf,
    /// The write-ahead log.
    pub wal: PathBuf,
    /// Local checkpoints, a folder a group.
    pub groups: PathBuf,
    /// Sealed files, a folder a group.
    pub segments: PathBuf,
    /// The embedded object store.
    pub objects: PathBuf,
    /// Chunks of cold objects: nothing that is missed when it is gone.
    pub cache: PathBuf,
}

impl Layout {
    /// The layout below `root`.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            wal: root.join("wal"),
            groups: root.join("groups"),
            segments: root.join("segments"),
            objects: root.join("objects"),
            cache: root.join("cache"),
        }
    }

    /// Makes the directories that are not there.
    pub fn create(&self, disk: &dyn Disk) -> io::Result<()> {
        [&self.root, &self.wal, &self.groups, &self.segments]
            .into_iter()
            .try_for_each(|path| disk.create_directory(path))
    }
}

/// Held while the process lives; the operating system lets go of it however the process ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held, not used")] File);

/// Why the directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another process uses this data directory")]
    Taken,
    /// The file system does not let us.
    #[error("lock file: {0}")]
    Io(#[from] io::Error),
}

impl Lock {
    /// Takes the lock of a directory.
    pub fn take(root: &Path) -> Result<Self, LockError> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(root.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(LockError::Taken),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}
