//! One write-ahead log per node, for all groups, because one fsync must serve them all.
//!
//! It owns the files of one directory and is the only room that opens them, through `common::Disk`. It holds the
//! recent tail of every group's Raft log with hard states and marks (truncated, sealed, checkpoint, destroyed).
//!
//! ```text
//! submit --> [queue] --> Writer::append (one batch for all that waits) --> Writer::sync --> everyone is told
//!                             |                                              ^ acknowledged = fsynced
//!                             v
//!   |00..05.wal|00..06.wal|00..07.wal -> |   spare   spare        Reader: entries by index, CRC checked, any thread
//!    oldest: freed first    current
//! ```
//!
//! Invariants (FAULTS.md W1-W6):
//! - what [`Writer::sync`] returned for is on disk, whole, under a durable name;
//! - recovery takes the longest valid prefix. A bad record below a later `synced_position` is corruption, named per
//!   group ([`Damage`]), and never truncated in silence; any other is a torn tail and was never acknowledged;
//! - nothing is appended behind an old tail: each start closes it and goes on in a new file;
//! - after a failed write or sync nothing is acknowledged, and that file is never touched again ([`Poisoned`]);
//! - files go oldest first, each removal durable before the next. What still lives in the oldest is copied forward by
//!   the writer, as it is at that instant; such a copy never replaces or truncates anything in recovery;
//! - every CRC covers group, replica, salt and position: no bytes of another group, incarnation, place or earlier use
//!   of the file ever parse;
//! - what rots while the log runs is named ([`Rot`]) and stops nobody else: the owner cuts behind it or gives the replica
//!   up; damaged bytes are set aside in a file of their own and never keep a log file for long (`damage.rs`);
//! - files take at most 1.5 times the live bytes plus two files (spare files beside them).
//!
//! The core ([`Writer`], [`Reader`], [`open`]) knows no thread and no clock; [`spawn`] runs it in production, with two batches on their
//! way to the disk at once ([`Writer::begin_sync`], `worker.rs`).

#[cfg(feature = "seeded-bugs")]
pub mod bugs;
mod damage;
mod draft;
mod errors;
mod files;
mod fill;
mod flight;
mod frame;
mod hurt;
mod index;
pub mod limits;
mod maintain;
pub mod native;
mod options;
mod reader;
mod record;
mod recovery;
mod scan;
#[cfg(feature = "testing")]
pub mod testing;
mod thread;
mod transit;
mod worker;
mod writer;

pub use damage::{SetAside, remove_evidence};
pub use errors::{AppendError, Damage, DamageCause, Full, OpenError, Poisoned, ReadError, Rot, SyncError};
pub use flight::Flight;
pub use maintain::Maintained;
pub use native::NativeDisk;
pub use options::Options;
pub use reader::{Bounds, Reader, Usage};
pub use record::{Entry, GroupRecord, HardState, Record, SealMark, SnapshotMark};
pub use recovery::{RecoveredGroup, Recovery, open};
pub use thread::{Failure, Finding, Handle, OnDone, Pressure, Stopped, spawn};
pub use writer::Writer;
