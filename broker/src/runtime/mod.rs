//! The production side of the driver's ports: threads, clocks, the data directory, the process.

mod appends;
mod assignments;
pub mod backend;
pub mod background;
mod balancing;
mod banner;
pub mod birth;
pub mod blocks;
mod catching_up;
pub mod certificates;
pub mod changes;
pub mod clock;
mod cold;
mod cold_pace;
mod cold_reads;
mod configuring;
mod cut_off;
pub mod data;
mod descriptors;
mod errors;
pub mod formation;
mod gauges;
pub mod given_out;
pub mod guard;
mod hand_over;
pub mod identity;
pub mod inbound;
mod joining;
mod leftovers;
pub mod mailbox;
pub mod moving;
mod old_copy;
pub mod options;
mod orphans;
pub mod peering;
mod preferring;
pub mod pressure;
mod progress;
mod registration;
mod regrowing;
pub mod rot;

pub mod process;
mod read_index;
pub mod scrub;
pub mod shard;
pub mod small_file;
pub mod start;
pub mod store;
pub mod views;
mod watches;

/// The disk of this machine, for who works on a data directory without a broker.
#[must_use]
pub fn disk() -> impl varve_common::Disk {
    varve_wal::NativeDisk
}
