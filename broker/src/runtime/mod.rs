//! The production side of the driver's ports: threads, clocks, the data directory.

pub mod clock;
pub mod identity;
pub mod mailbox;
pub mod shard;
pub mod views;
