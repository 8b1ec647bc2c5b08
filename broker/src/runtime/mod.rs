//! The production side of the driver's ports: threads, clocks, the data directory, the process.

mod assignments;
pub mod backend;
pub mod background;
mod balancing;
mod banner;
pub mod blocks;
pub mod certificates;
pub mod changes;
pub mod clock;
mod cold;
mod cold_pace;
mod cold_reads;
pub mod data;
mod descriptors;
pub mod formation;
mod gauges;
pub mod guard;
mod hand_over;
pub mod identity;
pub mod inbound;
mod joining;
pub mod mailbox;
pub mod options;
mod orphans;
pub mod peering;
pub mod pressure;
mod progress;
mod registration;
pub mod rot;

pub mod process;
pub mod scrub;
pub mod shard;
pub mod small_file;
pub mod store;
pub mod views;
mod watches;
