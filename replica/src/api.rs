//! The joint between the pure core and everything around it: what goes into [`crate::Shard::step`] and what comes out.
//!
//! Inputs and effects are plain values. The driver executes effects in the order in which they stand, may batch the
//! writes of many groups into one fsync, and answers with inputs. Nothing here reads a clock: [`Now`] is an argument.

mod effect;
mod input;
mod job;
mod options;
mod peer;
mod reply;
mod stall;
mod status;

pub use effect::{Effect, LogEntry, Mark, PersistedHardState, SealMark, StopReason};
pub use input::{
    Action, BatchMeta, GroupKind, GroupState, Input, LocalCheckpoint, Now, OpenGroup, PartitionIdentity,
    RollCause, Rot, Ticket, Timestamps,
};
pub use job::{Installable, Job, JobKind, JobOutcome, Mended, ReapPass, uid_of_leaf};
pub use options::{GroupOptions, LocalRetention};
pub use peer::{PeerEffect, PeerInput, ReplicaStatus};
pub use reply::{Refusal, Reply};
pub use stall::Stall;
pub use status::{GroupStatus, Holdings, JobsStatus, OpenRange, PartitionView, Role};
