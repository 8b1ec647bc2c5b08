//! A disk in memory that loses what was not synced, and the suite that every disk must pass.

mod conformance;
mod memory_disk;
mod memory_file;
mod script;

pub use conformance::disk_conformance;
pub use memory_disk::MemoryDisk;
pub use script::{Injected, Operation, Target};
