//! What the shard asks of the driver.

use std::sync::Arc;

use bytes::Bytes;
use varve_common::{GroupId, LogIndex, Offset, ReplicaId, Term};

use super::{Job, LocalCheckpoint, PartitionView, Reply, Rot, Ticket};
use crate::{metadata::Image, partition::ApplyError};

/// A Raft entry on its way to the WAL, or back from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its index.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// `consensus::EntryKind::to_u8`: 0 a command, 1 empty (a leader's no-op), 2 a membership change.
    pub kind: u8,
    /// The partition's log end before this entry: the base offset of a Records entry. 0 in the metadata group.
    pub offset: Offset,
    /// A command (`formats::command`), or empty.
    pub data: Bytes,
}

/// Raft's hard state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PersistedHardState {
    /// The current term.
    pub term: Term,
    /// For whom this replica voted in it, 0 for nobody.
    pub vote: u64,
    /// The commit index.
    pub commit: LogIndex,
}

/// A rolled range in a file of this node.
pub use varve_formats::state::SealEntry as SealMark;

/// A fact for the WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Entries up to and with this one are dead.
    Truncated {
        /// The last one that goes.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// A local checkpoint is complete and its name durable.
    Snapshot(LocalCheckpoint),
    /// A sealed file is complete and its name durable.
    Sealed(SealMark),
    /// A sealed file is about to be removed: it goes only after this is fsynced.
    Unsealed {
        /// Start of its range.
        base: Offset,
        /// End of its range.
        end: Offset,
    },
    /// The group left this node: nothing of this replica counts any more.
    Destroyed,
    /// This replica has lost what it acknowledged: it stops, and a restart knows.
    Damaged {
        /// The first entry that is lost; `None` where the log is whole and a sealed file is not.
        from: Option<LogIndex>,
    },
}

/// Why a group stopped. Its clients get `StorageError`; the other groups go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// A committed entry cannot be applied: an unknown command, or a broken invariant.
    #[error("entry {index} cannot be applied: {cause}")]
    Apply {
        /// The entry.
        index: LogIndex,
        /// What is wrong with it.
        cause: ApplyError,
    },
    /// What recovery handed over does not fit together.
    #[error("recovered state is inconsistent: {0}")]
    Inconsistent(String),
    /// Acknowledged records do not read back, and no other place holds them.
    #[error("acknowledged records are damaged, and nothing else holds them: {0}")]
    Damaged(Rot),
}

/// Something to do. Effects are executed in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Writes to the WAL; answered by `Persisted { ready }` when fsynced. Many may be in flight; answers come in order.
    Persist {
        /// Which group.
        group: GroupId,
        /// Which replica.
        replica: ReplicaId,
        /// Its number, increasing within the group since it was opened.
        ready: u64,
        /// Term, vote and commit where they changed.
        hard_state: Option<PersistedHardState>,
        /// The log is replaced: it begins behind this checkpoint, whose file is durable. One write with the rest.
        installed: Option<LocalCheckpoint>,
        /// In order; an index at or below the last one replaces the suffix from there.
        entries: Vec<LogEntry>,
        /// Whether the answer needs an fsync; where false (only the commit index moved) it may come at once, and the
        /// record may ride with the next write.
        must_sync: bool,
    },
    /// Writes a mark to the WAL; answered by `Marked { number }` when fsynced.
    Mark {
        /// Which group.
        group: GroupId,
        /// Which replica.
        replica: ReplicaId,
        /// Its number, increasing within the group since it was opened.
        number: u64,
        /// The last entry of its log that the replica has applied, and its term: what the mark stands on.
        applied: (LogIndex, Term),
        /// What to write.
        mark: Mark,
    },
    /// Sends a raft message to a peer; never with a single voter.
    Send {
        /// Which group.
        group: GroupId,
        /// The message.
        message: varve_consensus::Message,
    },
    /// Answers a request.
    Reply {
        /// Which.
        ticket: Ticket,
        /// The answer.
        reply: Reply,
    },
    /// A committed batch for the tail cache; stands before the `Publish` that makes it visible.
    Tail {
        /// Which group.
        group: GroupId,
        /// Its first offset.
        base: Offset,
        /// The offset behind its last record.
        end: Offset,
        /// The term in which it was written.
        term: Term,
        /// The batch with base offset and leader epoch.
        batch: Bytes,
    },
    /// What readers see from now on. Wakes waiting fetches.
    Publish {
        /// Which group.
        group: GroupId,
        /// The view.
        view: Arc<PartitionView>,
    },
    /// Starts a background job; answered by `JobDone`.
    Start(Job),
    /// The metadata changed: open and close groups, wake readers.
    MetadataChanged(Arc<Image>),
    /// The group stopped; nothing of it is served any more.
    Stopped {
        /// Which group.
        group: GroupId,
        /// Why.
        why: StopReason,
    },
}
