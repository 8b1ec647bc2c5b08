//! The parts of a partition's state that checkpoints store, as plain values.

mod archive;
mod codec;

use std::ops::Range;

use varve_common::{Digest, LogIndex, Offset, ReplicaId, Term};

pub use archive::{ArchivePlan, ArchivePlanned, ArchiveState, Archived, ArchivedFile};

use crate::manifest::EntryKind;

/// One remembered batch of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    /// Sequence of the first record.
    pub base_sequence: i32,
    /// Sequence of the last record.
    pub last_sequence: i32,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Largest timestamp in the batch.
    pub timestamp: i64,
}

/// What a partition knows of one producer id (KIP-98, KIP-360, KIP-890).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    /// The id.
    pub producer_id: i64,
    /// Its current epoch.
    pub epoch: i16,
    /// The last batches, at most five, oldest first.
    pub batches: Vec<ProducerBatch>,
    /// Where its open transaction began.
    pub transaction_first: Option<Offset>,
    /// Epoch of the coordinator that wrote its last marker, -1 where none.
    pub coordinator_epoch: i32,
    /// The transaction protocol's version (KIP-890).
    pub transaction_version: u8,
    /// Append time of its last batch, for expiry.
    pub last_timestamp: i64,
}

/// Where a leader epoch began (KIP-101).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The term.
    pub term: Term,
    /// The first offset written in it.
    pub start: Offset,
}

/// An aborted transaction, for read_committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: i64,
    /// Its first offset.
    pub first: Offset,
    /// Its marker's offset.
    pub last: Offset,
    /// The last stable offset when it ended.
    pub last_stable: Offset,
}

/// A closed range that is not yet tiered or trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollEntry {
    /// Start of the range.
    pub base: Offset,
    /// End of the range.
    pub end: Offset,
    /// Sum of the batches' bytes.
    pub bytes: u64,
    /// The largest record timestamp.
    pub max_timestamp: i64,
    /// See `command::Roll::batch_crcs`.
    pub batch_crcs: u32,
    /// Raft index of the first entry that belongs to the range.
    pub first_index: LogIndex,
    /// Raft index of the roll.
    pub roll_index: LogIndex,
    /// The term of the roll's entry.
    pub roll_term: Term,
    /// Wall-clock time in the roll's header.
    pub rolled_ms: i64,
}

/// An announced upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Part of the key.
    pub uid: u64,
    /// Part of the key.
    pub term: Term,
    /// Start of the range.
    pub base: Offset,
    /// End of the range.
    pub end: Offset,
    /// Wall-clock time in the intent's header.
    pub announced_ms: i64,
    /// What will hold the range: part of the key.
    pub kind: EntryKind,
}

/// An object that must be deleted: an expired intent's, a replaced one, or one below the log start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Its manifest entry, or what an intent would have put there.
    pub uid: u64,
    /// The level of a manifest node, which stands for itself and all that it names; `None` for a segment.
    pub node_level: Option<u8>,
    /// Whether a node stands for itself only: another names what it named. False for a segment.
    pub alone: bool,
    /// What kind of segment it is: part of the key. Without meaning for a node.
    pub kind: EntryKind,
    /// Part of the key.
    pub incarnation: u32,
    /// Part of the key.
    pub term: Term,
    /// Part of the key.
    pub base: Offset,
    /// Part of the key.
    pub last: Offset,
    /// Wall-clock time in the command that made it.
    pub since_ms: i64,
    /// The log start in force when it was made.
    pub log_start: Offset,
    /// The applied indexes (A) whose checkpoints may name it: from behind the roll of its range to the command that took
    /// it out of the manifest. Empty for what no manifest ever named, [`NAMED_EVER`] where nobody knows.
    pub named: Range<LogIndex>,
}

/// Every applied index: any checkpoint may name the object.
pub const NAMED_EVER: Range<LogIndex> = LogIndex::ZERO..LogIndex(u64::MAX);

/// A transaction that has begun in this partition and not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Whose.
    pub producer_id: i64,
    /// Its first offset.
    pub first: Offset,
}

/// Bucket-class state that is a number each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketState {
    /// The first offset that readers may see.
    pub log_start: Offset,
    /// How often the manifest changed.
    pub manifest_seq: u64,
}

/// A range in a segment file of this node: what a seal mark in the write-ahead log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealEntry {
    /// Start of the range.
    pub base: Offset,
    /// End of the range.
    pub end: Offset,
    /// Raft index of the first entry of the range.
    pub first_index: LogIndex,
    /// Raft index of the roll that closed it.
    pub last_index: LogIndex,
    /// The term of the entry at `last_index`.
    pub last_term: Term,
    /// The file's length.
    pub bytes: u64,
    /// The file's SHA-256.
    pub sha256: Digest,
}

/// A group's membership, in raft's words; lists are sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Counted in the incoming configuration.
    pub voters: Vec<ReplicaId>,
    /// Not counted.
    pub learners: Vec<ReplicaId>,
    /// Counted in the outgoing configuration of a joint one.
    pub voters_outgoing: Vec<ReplicaId>,
    /// Learners once the joint configuration is left.
    pub learners_next: Vec<ReplicaId>,
    /// Whether the joint configuration is left by itself.
    pub auto_leave: bool,
    /// The newest entry of the members' journal that a change among them follows from; zero where none does.
    pub version: LogIndex,
}

/// What records imply as of a roll: a candidate for S (TIERING.md 1, 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenRoll {
    /// The log end at the roll.
    pub end: Offset,
    /// The roll's index.
    pub roll_index: LogIndex,
    /// The roll's term.
    pub roll_term: Term,
    /// The membership there.
    pub conf_state: ConfState,
    /// Producers there, by id.
    pub producers: Vec<ProducerEntry>,
    /// Open transactions there, by first offset.
    pub open_transactions: Vec<OpenTransaction>,
    /// Aborted transactions there, by last offset.
    pub aborted: Vec<AbortedTransaction>,
    /// Leader epochs there, oldest first.
    pub epochs: Vec<EpochStart>,
}
