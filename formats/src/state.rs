//! The parts of a partition's state that checkpoints store, as plain values.

mod codec;

use varve_common::{LogIndex, Offset, Term};

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
}

/// An object that must be deleted: an expired intent's, a replaced one, or one below the log start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Its manifest entry, or what an intent would have put there.
    pub uid: u64,
    /// The level of a manifest node, which stands for itself and all that it names; `None` for a segment.
    pub node_level: Option<u8>,
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
    /// The log start in force when it was made; deletion waits for two checkpoints that carry it.
    pub log_start: Offset,
}
