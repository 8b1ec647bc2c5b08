//! The seeded simulator: a node lives, dies and starts again, and a seed decides what happens between.
//!
//! ```text
//!  client, checkers ──> driver::Driver (production's) ──> SimPorts ──> wal::Writer (production's) ──> MemoryDisk
//!        ^                     ^                                            |                      torn, lost, EIO,
//!        |                     └── executor: jobs (production's) ──> objects::Store               ENOSPC, bit flips
//!        └── model (what was synced), shadow (a replica that never crashes): the truth
//! ```
//! One thread, one clock that jumps, one random number generator: the same seed gives the same trace hash. Only disk,
//! object store, clock and chance are faked; the core, the driver, the log and the jobs are those of production.
//!
//! Where each invariant of FAULTS.md 2 is enforced:
//! - H1-H4, H6, H7, H13 [`checkers::check_log`] over the durable log, in all codecs; H3, B6, B7, H8
//!   [`checkers::check_read`] over what is read back, between all other steps; H3 also [`world`]: a log start moves only
//!   where somebody asked for it. H10, B5 [`checkers::check_view`] at every view; H12 [`checkers::check_time`] at any moment;
//!   H5 [`client`] (one answer a request).
//! - W1, W2, R5, W6 [`model`]: a start finds exactly what was synced, and a prefix of what was written behind it. W3: a
//!   tail that is appended behind breaks the same check one start later. W4 [`world`]: no acknowledgement after a
//!   failure; the disk loses for good what a failed sync left in memory (T17). W5 [`world`]: the file of each mark is whole,
//!   be it a checkpoint or sealed.
//! - R5, R6 [`model::Model::check_writes`] over every batch before it is written; R5 also [`world`]: no leader is seen
//!   before its term is durable. R8 [`world`] at every checkpoint mark, [`bucket`] of published ones.
//! - R9, S1, S3 [`shadow`]: states hash alike at equal indexes, whatever crashes and checkpoints lie between. S4
//!   [`faults`]: a group stops only where its log, or each checkpoint that its marks name, was damaged on purpose.
//! - B4 [`cut`] at every cut of a log, and whenever a sealed file is given up. B5, B8 [`orders`]: whatever is uploaded is
//!   committed, and whatever is deleted is named by no manifest and no checkpoint that is in the bucket. B9 [`world`]: a log
//!   start moves where retention lets it. B1, B2, B5, B6, S2, X1 [`bucket`]: a scan of partitions and metadata at the end of every
//!   life and of the run, then with S1 and S3: a replica seeded by each published checkpoint becomes like the others. Objects
//!   never change. B3 is a part of the state that the shadow compares.
//!
//! [`crashes`] counts the steps at which crashes came; a test fails where one is never hit.

pub mod bucket;
pub mod bugs;
pub mod checkers;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod crashes;
pub mod cut;
pub mod executor;
pub mod faults;
mod finale;
pub mod history;
pub mod jobs;
pub mod model;
pub mod node;
mod orders;
pub mod plan;
pub mod ports;
pub mod run;
pub mod shadow;
pub mod trace;
pub mod violation;
pub mod world;
mod zombie;
