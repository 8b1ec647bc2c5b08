//! What a group hands to its driver.

use varve_common::{LogIndex, ReplicaId, Term};

use crate::{
    Entry, HardState, Message, ReadDone, SnapshotLate, SnapshotOffer, SnapshotPointer, SnapshotWanted,
};

/// What a replica is in its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads its term.
    Leader,
}

/// Term, role and known leader: reported whenever one of them changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The current term.
    pub term: Term,
    /// What this replica is in it.
    pub role: Role,
    /// Its leader, as far as this replica knows.
    pub leader: Option<ReplicaId>,
}

/// What must be written, in the order given by ready numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// Term, vote and commit, where one of them changed.
    pub hard_state: Option<HardState>,
    /// The log is replaced: nothing of it counts any more, it goes on behind this snapshot. Hard state, this and
    /// `entries` are one write; before it the checkpoint must be durable, and with it the state machine becomes the checkpoint's.
    pub installed: Option<SnapshotOffer>,
    /// Entries; an index that the log already has truncates it there first.
    pub entries: Vec<Entry>,
    /// Whether it must be synced before it is reported. If not (only the commit index moved), writing is enough.
    pub must_sync: bool,
}

/// A read of the log that must come from disk: entries from `from` on, at least one, up to `bytes_max`, below `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The first index wanted.
    pub from: LogIndex,
    /// The index behind the last one wanted.
    pub end: LogIndex,
    /// How much to read; one entry in any case.
    pub bytes_max: u64,
}

/// One step's effects. All of it may be acted on at once; messages that must wait for the disk are not in here yet,
/// they come with the first ready after [`crate::Group::persisted`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Its number, in order from 1; 0 where it holds only what waited.
    pub number: u64,
    /// What to write; then report `number` to [`crate::Group::persisted`]. Nothing to report where this is `None`.
    pub persist: Option<Persist>,
    /// Messages to peers, free to go.
    pub messages: Vec<Message>,
    /// Committed entries, each exactly once and in order; then report to [`crate::Group::applied`].
    pub committed: Vec<Entry>,
    /// Where term, role or leader changed: the new ones.
    pub leadership: Option<Leadership>,
    /// Log reads for followers that lag; answered by [`crate::Group::fetched`].
    pub fetches: Vec<Fetch>,
    /// Reads that ended.
    pub reads: Vec<ReadDone>,
    /// Followers that need a checkpoint and have none on offer; told once until the next offer.
    pub snapshots_wanted: Vec<SnapshotWanted>,
    /// Followers that did not come back from the checkpoint that they were sent to.
    pub snapshots_late: Vec<SnapshotLate>,
    /// A checkpoint that the leader sends this replica to.
    pub snapshot_pointer: Option<SnapshotPointer>,
}

impl Ready {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.persist.is_none()
            && self.messages.is_empty()
            && self.committed.is_empty()
            && self.leadership.is_none()
            && self.fetches.is_empty()
            && self.reads.is_empty()
            && self.snapshots_wanted.is_empty()
            && self.snapshots_late.is_empty()
            && self.snapshot_pointer.is_none()
    }
}
