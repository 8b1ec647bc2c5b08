//! Raft, one group per partition: input in, effects out. This crate owns every call into crate `raft` 0.7.0 and stands
//! between it and the rest, because raft answers what it does not expect by ending the process.
//!
//! It is pure: no file, socket, clock, task or randomness. Election time-outs come from a seed in [`GroupConfig`],
//! set before every tick, so a seed replays everything.
//!
//! ```text
//!            Recovered (checked)        propose · step (behind the gate) · tick · persisted · applied · fetched
//!                   |                                        |
//!                   v                                        v
//!             Group::open  ------------------------------> Group  -----> ready()
//!                                                            |             persist ---> write-ahead log
//!            in memory: what is not applied,                 |             messages --> peers
//!            a little of what is, and every term      TailStorage          committed -> state machine
//!                                                                          fetches ---> log reader
//! ```
//!
//! Several nodes ([`MultiRaft::with_peers`]): one [`Pulse`] a peer and interval carries the heartbeats of all groups, shows
//! that the node lives, and tells who leads; idle groups rest until something wakes them.
//!
//! ```text
//!   MultiRaft ── heartbeats, answers ──> Peers ── Pulse ──> peer         group/flow        bytes on their way to a follower
//!      ^                                  | who lives, who leads         group/reads       batched ReadIndex, with an end
//!      └──── wake, by a bounded number <──┘                              group/rest        rest by agreement of all members
//!                                                                        group/snapshot    pointers to checkpoints
//! ```
//!
//! Invariants
//! - A message leaves only when what it promises is durable: [`Group::ready`] holds back those of followers, and of a
//!   leader whose own term and vote are still on their way, until [`Group::persisted`] (T9). Several readies may be in
//!   flight; they become durable in order.
//! - Committed entries are handed out once, in order, and only when they are durable here too.
//! - A leader takes proposals only when the entry that opened its term is applied (T1).
//! - What raft would die of never reaches it: [`Recovered`] is checked before it opens, each peer message by
//!   [`gate`]. A violation fences the replica, not the process.
//! - No order of a hash map is ever seen from outside.

pub mod bugs;
mod config;
mod entry;
mod errors;
pub mod formation;
pub mod gate;
mod gossip;
mod group;
mod late_ticks;
pub mod limits;
mod membership;
mod message;
mod multi;
mod peers;
mod pulse;
mod ready;
mod reassign;
mod recovered;
mod storage;
mod terms;

#[cfg(test)]
mod tests;

pub use config::GroupConfig;
pub use entry::{Entry, EntryKind, HardState};
pub use errors::{ProposeError, StepError};
pub use gate::{Dropped, Gate, Violation};
pub use gossip::{LeaderBoard, LeaderReport};
pub use group::{
    Group, InstallError, ReadDone, ReadError, SnapshotLate, SnapshotOffer, SnapshotPointer, SnapshotWanted,
};
pub use membership::{Change, Membership};
pub use message::{Envelope, EnvelopeError, Message};
pub use multi::{Host, MultiRaft};
pub use peers::{NodeConfig, Peers, PulseError};
pub use pulse::{Beat, Pulse, Resting};
pub use ready::{Fetch, Leadership, Persist, Ready, Role};
pub use reassign::{Standing, Step, Wanted, next_step};
pub use recovered::{OpenError, Recovered, TermRun};
