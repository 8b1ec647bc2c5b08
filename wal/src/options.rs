//! What the caller chooses.

use std::{path::PathBuf, sync::Arc};

use varve_common::{Access, Disk};

use crate::{
    errors::OpenError,
    limits::{BLOCK_BYTES, FILE_BYTES_MAX, FILE_BYTES_MIN, FILES_PER_SPARE, RESERVE_FILES, SPARE_FILES},
};

/// How the log lives on its disk.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory that holds the log's files and nothing else.
    pub directory: PathBuf,
    /// The length of one file; larger files mean fewer closes, and more to scan after a crash. 64 MiB.
    pub file_bytes: u64,
    /// What all files together may take. Entries are refused two files earlier than marks.
    pub bytes_max: u64,
    /// Through the page cache or past it. Past it where the file system takes that (ADR 7): a page of the cache costs more than the
    /// write, and what was just written is read from memory of our own. Batches are padded to 4 KiB then.
    pub access: Access,
    /// A random number of this start, drawn by the caller: makes salts that nobody who writes records can guess.
    pub salt_seed: u64,
    /// Bugs for tests to find.
    #[cfg(feature = "seeded-bugs")]
    pub bugs: crate::bugs::Bugs,
}

impl Options {
    /// Production's choices for a directory, with a budget and this start's random number.
    #[must_use]
    pub fn new(directory: PathBuf, bytes_max: u64, salt_seed: u64) -> Self {
        Self {
            directory,
            file_bytes: 64 << 20,
            bytes_max,
            access: Access::Direct,
            salt_seed,
            #[cfg(feature = "seeded-bugs")]
            bugs: crate::bugs::Bugs::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if !(FILE_BYTES_MIN..=FILE_BYTES_MAX).contains(&self.file_bytes)
            || !self.file_bytes.is_multiple_of(BLOCK_BYTES)
        {
            return Err(OpenError::Options("file_bytes must be a multiple of 4096 from 32 KiB to 1 GiB"));
        }
        if self.bytes_max < self.file_bytes * (RESERVE_FILES + 2) {
            return Err(OpenError::Options("bytes_max must hold at least four files"));
        }
        Ok(())
    }

    /// How many files are kept for reuse.
    pub(crate) fn spare_files_max(&self) -> usize {
        let share = self.bytes_max / self.file_bytes / FILES_PER_SPARE;
        share.clamp(*SPARE_FILES.start(), *SPARE_FILES.end()) as usize
    }

    /// What opens files past the cache, where that is how they are written.
    pub(crate) fn past_cache(&self, disk: &Arc<dyn Disk>) -> Option<Arc<dyn Disk>> {
        (self.access == Access::Direct).then(|| Arc::clone(disk))
    }

    /// The alignment of batches.
    pub(crate) fn alignment(&self) -> u64 {
        match self.access {
            Access::Buffered => crate::limits::ALIGNMENT,
            Access::Direct => BLOCK_BYTES,
        }
    }
}
