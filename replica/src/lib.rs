//! What a committed entry means, and what follows from it: partitions, the metadata, and the shard that pairs each
//! Raft group of a node with its state.
//!
//! ```text
//!  requests, planner, WAL, jobs                                   WAL, replies, readers, jobs
//!        | Input                                                        ^ Effect
//!        v                                                              |
//!      Shard::step --> Group (consensus) --committed--> PartitionState / MetadataState
//!                        ^ proposals: offsets and producer checks on the speculative log end
//! ```
//!
//! It is pure: no file, socket, clock, future or randomness. The same inputs give the same effects, and the same
//! entries the same state hash on every replica.
//!
//! Invariants
//! - A reply leaves only when its entry, of its term, is committed, durable here and applied.
//! - A committed batch begins at the log's end; what the leader checked on its speculative table is asserted at apply.
//! - Nothing of record class reads state of bucket class; nothing at all reads a configuration or a clock at apply.
//! - A command of bucket class that misses its fence changes nothing.
//! - The local log is cut only below the older of two local checkpoints and below what is tiered (append applied) or
//!   sealed (mark fsynced).
//! - After a failed write nothing is acknowledged any more.

pub mod api;
pub mod bugs;
pub mod checkpoint;
pub mod coordinator;
pub mod limits;
pub mod metadata;
pub mod partition;
pub mod rebirth;
pub mod seeding;
pub mod shard;

pub use api::*;
pub use shard::{Figures, Shard};
