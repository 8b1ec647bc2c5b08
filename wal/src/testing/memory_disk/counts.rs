//! What was asked of the disk, counted.

use super::MemoryDisk;

impl MemoryDisk {
    /// How many reads failed as [`MemoryDisk::fail_reads`] says.
    #[must_use]
    pub fn read_errors(&self) -> u64 {
        self.lock().read_errors.made
    }

    /// How many operations that change something were made.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// How many `sync_data` calls were made.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// How many bytes of files were read.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.lock().bytes_read
    }
}
