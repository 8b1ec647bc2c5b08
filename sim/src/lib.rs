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
//! - H1-H4, H6, H7, H13 [`checkers::check_log`] over the durable log; H3, B6, B7, H8 [`checkers::check_read`] over what is
//!   read back; H10 [`checkers::check_view`] at every view; H5 [`client`] (one answer a request).
//! - W1, W2, R5, W6 [`model`]: a start finds exactly what was synced, and a prefix of what was written behind it. W3: a
//!   tail that is appended behind breaks the same check one start later. W4 [`world`]: no acknowledgement after a
//!   failure. W5 [`world`]: each mark's file is whole.
//! - R6, R9, S1, S3 [`shadow`]: states hash alike at equal indexes, whatever crashes and checkpoints lie between. R8
//!   [`world`] at every checkpoint mark. S4: a group that stops without injected damage is a violation.
//! - B4 [`cut`] at every cut of a log. B1, B2, B5, B6, S1-S3 [`bucket`]: a scan after everything healed. B3 is a part of the
//!   state that the shadow compares. B7: readers run between all other steps.

pub mod bucket;
pub mod bugs;
pub mod checkers;
pub mod client;
pub mod clock;
pub mod cut;
pub mod executor;
mod finale;
pub mod history;
pub mod jobs;
pub mod model;
pub mod node;
pub mod plan;
pub mod ports;
pub mod run;
pub mod shadow;
pub mod trace;
pub mod violation;
pub mod world;
mod zombie;
