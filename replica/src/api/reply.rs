//! Answers to requests.

use std::sync::Arc;

use varve_common::{Offset, ReplicaId};

use crate::{
    coordinator,
    metadata::{MetadataDone, MetadataRejected},
    partition::Producers,
};

/// The answer to one ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Committed and applied.
    Produced {
        /// The first record's offset.
        base_offset: Offset,
        /// The leader's time where the topic asks for it, else -1.
        append_time_ms: i64,
        /// The partition's log start.
        log_start: Offset,
    },
    /// The batch was stored before; the original is committed and applied.
    Duplicate {
        /// The original's first offset.
        base_offset: Offset,
        /// The partition's log start.
        log_start: Offset,
    },
    /// The metadata command was applied: done, or rejected without effect.
    Metadata(Result<MetadataDone, MetadataRejected>),
    /// The log start is at or above what was asked.
    Trimmed {
        /// Where it is.
        log_start: Offset,
    },
    /// What is known of a partition's producers, by id.
    Producers(Arc<Producers>),
    /// What the coordinator of a group of consumers says.
    Group(Box<coordinator::Outcome>),
    /// Not done; see each case for what is known.
    Refused(Refusal),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such group on this node. Redirect (UNKNOWN_TOPIC_OR_PARTITION or NOT_LEADER_OR_FOLLOWER).
    #[error("group is not on this node")]
    UnknownGroup,
    /// Not the leader, or not ready to lead yet; nothing was appended. Redirect (NOT_LEADER_OR_FOLLOWER).
    #[error("not the leader")]
    NotLeader {
        /// Who is, if known.
        leader: Option<ReplicaId>,
    },
    /// Leadership was lost after the append: whether it took effect is unknown (NOT_LEADER_OR_FOLLOWER).
    #[error("leadership was lost before the outcome was known")]
    Unknown,
    /// It is appended and committed; those that keep up became too few before as many had it as it asks for.
    /// NOT_ENOUGH_REPLICAS_AFTER_APPEND.
    #[error("fewer replicas keep up than the record is to be on")]
    TooFewInSync,
    /// Too much is in flight; nothing was appended. Retry (REQUEST_TIMED_OUT; for producers NOT_ENOUGH_REPLICAS).
    #[error("too many bytes in flight")]
    Throttled,
    /// A producer of which nothing is known does not begin at 0: what it sent before may be on its way elsewhere, or was refused
    /// before it came here. Nothing was appended; it is taken for a beginning when it comes again. Retry (NOT_ENOUGH_REPLICAS).
    #[error(
        "the producer is not known here, and what it sent before this batch may still come: send it again"
    )]
    Unheard,
    /// The log cannot be written; whether it took effect is unknown. KAFKA_STORAGE_ERROR.
    #[error("storage error")]
    StorageError,
    /// A gap in the producer's sequence. OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("sequence {found} where {expected} was expected")]
    OutOfOrderSequence {
        /// What would have been in order.
        expected: i32,
        /// What was sent.
        found: i32,
    },
    /// A newer epoch of the producer exists. INVALID_PRODUCER_EPOCH.
    #[error("producer epoch {found} is fenced by {current}")]
    InvalidProducerEpoch {
        /// The current epoch.
        current: i16,
        /// What was sent.
        found: i16,
    },
    /// The batch is not one that a client may send here. INVALID_RECORD.
    #[error("invalid batch: {0}")]
    InvalidBatch(&'static str),
    /// Transactions are not supported yet. TRANSACTIONAL_ID_AUTHORIZATION_FAILED is wrong here: INVALID_TXN_STATE.
    #[error("transactions are not supported")]
    Transactional,
    /// DeleteRecords beyond the high watermark. OFFSET_OUT_OF_RANGE.
    #[error("offset lies beyond the high watermark")]
    OffsetOutOfRange,
    /// The request does not fit the kind of group. Invalid.
    #[error("the group does not hold that")]
    WrongGroup,
}
