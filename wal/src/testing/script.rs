//! What a memory disk is made to do wrong, and where it died.

use std::path::{Path, PathBuf};

/// What an operation is made to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injected {
    /// It fails as a broken disk does; of a write any part may be there, of a sync nothing is, nor ever will be.
    Eio,
    /// It fails as a full disk does.
    Enospc,
    /// It says that all is well and does nothing: for syncs, a lying disk.
    Lie,
    /// The machine dies in it: nothing of it is done, and nothing later is.
    Dies,
}

/// What an operation that changes something does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Makes a file.
    Create,
    /// Writes into one.
    Write,
    /// Reserves room for one.
    Allocate,
    /// Cuts or extends one.
    SetLength,
    /// Syncs one.
    Sync,
    /// Gives one another name.
    Rename,
    /// Removes one.
    Remove,
    /// Syncs a directory.
    SyncDirectory,
    /// Makes or removes a directory.
    Directory,
}

/// The next operation but some of a kind, below a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which kind.
    pub operation: Operation,
    /// Below which directory, or on it.
    pub below: PathBuf,
    /// How many of them are spared.
    pub spared: u32,
}

impl Target {
    /// Whether this operation is the one; counts those that are spared.
    pub(super) fn is_hit(&mut self, operation: Operation, path: &Path) -> bool {
        if self.operation != operation || !path.starts_with(&self.below) {
            return false;
        }
        let hit = self.spared == 0;
        self.spared = self.spared.saturating_sub(1);
        hit
    }
}

/// Reads that fail.
#[derive(Default)]
pub(super) struct ReadErrors {
    below: PathBuf,
    left: u32,
    pub made: u64,
}

impl ReadErrors {
    pub fn plan(&mut self, below: &Path, count: u32) {
        (self.below, self.left) = (below.to_owned(), count);
    }

    pub const fn is_planned(&self) -> bool {
        self.left > 0
    }

    pub fn fails(&mut self, path: &Path) -> bool {
        let fails = self.left > 0 && path.starts_with(&self.below);
        self.left -= u32::from(fails);
        self.made += u64::from(fails);
        fails
    }
}
