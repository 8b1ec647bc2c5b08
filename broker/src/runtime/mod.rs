//! The production side of the driver's ports: threads, clocks, the data directory, the process.

pub mod backend;
pub mod background;
mod banner;
pub mod blocks;
pub mod clock;
pub mod data;
pub mod guard;
pub mod identity;
pub mod mailbox;
pub mod options;
mod pressure;

pub mod shard;
pub mod store;
pub mod views;
pub mod process;
