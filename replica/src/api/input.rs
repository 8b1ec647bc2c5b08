//! What the driver tells the shard.

use bytes::Bytes;
use varve_common::{
    ClusterId, Digest, GroupId, Incarnation, LogIndex, Monotonic, Offset, ReplicaId, Term, TopicId,
};
use varve_formats::command::{MetadataCommand, TrimCause};

use super::{GroupOptions, JobOutcome, LogEntry, PersistedHardState, ReapPass, SealMark};
use crate::{coordinator, metadata::MetadataState, partition::PartitionState};

/// The time of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For intervals.
    pub monotonic: Monotonic,
    /// For timestamps in commands: milliseconds since 1970, UTC.
    pub wall_ms: i64,
}

/// Names a waiting client request; exactly one [`super::Effect::Reply`] answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What does not read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rot {
    /// Entries of the log.
    Entries(std::ops::Range<LogIndex>),
    /// The sealed file whose range begins here.
    Sealed(Offset),
    /// The local checkpoint of this index. The state is in memory: another is written.
    Checkpoint(LogIndex),
}

impl std::fmt::Display for Rot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Entries(entries) => write!(f, "log entries {} to {}", entries.start, entries.end.0 - 1),
            Self::Sealed(base) => write!(f, "the sealed file from offset {base}"),
            Self::Checkpoint(index) => write!(f, "the local checkpoint as of entry {index}"),
        }
    }
}

/// An event for [`crate::Shard::step`].
#[derive(Debug)]
pub enum Input {
    /// A group of this node, recovered or new. A single voter campaigns at once.
    Open(Box<OpenGroup>),
    /// One record batch (v2) that the handler has validated: length, CRC, magic, count, size limits.
    Produce {
        /// Answered by `Produced`, `Duplicate` or `Refused`.
        ticket: Ticket,
        /// Which partition.
        group: GroupId,
        /// The batch as the client sent it; base offset and leader epoch are overwritten here.
        batch: Bytes,
        /// What its header says.
        meta: BatchMeta,
        /// Whose timestamps it keeps (`message.timestamp.type`).
        timestamps: Timestamps,
        /// How many replicas that keep up must have it, this one among them, before it is answered (`min.insync.replicas`). A quorum has
        /// it in any case.
        replicas_min: u32,
    },
    /// A batch that was refused for now before it came here: what the producer sent behind it must not be taken before it.
    Missed {
        /// Which partition.
        group: GroupId,
        /// What its header says.
        meta: BatchMeta,
    },
    /// A change of the metadata; answered by `Metadata` or `Refused`. Only for [`GroupId::METADATA`].
    Propose {
        /// Who waits, if anyone.
        ticket: Option<Ticket>,
        /// The metadata group.
        group: GroupId,
        /// What to change.
        command: MetadataCommand,
    },
    /// What is known of the producers of a partition; answered by `Producers`.
    Producers {
        /// Who waits.
        ticket: Ticket,
        /// Which partition.
        group: GroupId,
    },
    /// DeleteRecords; answered by `Trimmed` once committed and applied.
    DeleteRecords {
        /// Who waits.
        ticket: Ticket,
        /// Which partition.
        group: GroupId,
        /// Records below it go; `None` for the high watermark (-1 on the wire).
        before: Option<Offset>,
    },
    /// A request to the coordinator of a group of consumers; answered by `Group`.
    Coordinate {
        /// Who waits.
        ticket: Ticket,
        /// The partition of `__consumer_offsets` that the group belongs to.
        group: GroupId,
        /// What is asked.
        request: Box<coordinator::Request>,
    },
    /// What the planner decided. It is checked again here; a stale one is dropped without a trace.
    Act {
        /// Which group.
        group: GroupId,
        /// What to do.
        action: Action,
    },
    /// Everything in the `Persist` of this number, and in all before it, is fsynced.
    Persisted {
        /// Which group.
        group: GroupId,
        /// The number of its `Persist`.
        ready: u64,
    },
    /// The mark of this number is fsynced.
    Marked {
        /// Which group.
        group: GroupId,
        /// The number of its `Mark`.
        number: u64,
    },
    /// Bytes of this group do not read back as they were written. Where another place holds them nothing is lost.
    Rotten {
        /// Which group.
        group: GroupId,
        /// What.
        rot: Rot,
    },
    /// A write or fsync failed. Every waiter fails with `StorageError`, and nothing is acknowledged any more (W4).
    PersistFailed,
    /// A job ended.
    JobDone {
        /// Which group.
        group: GroupId,
        /// How.
        outcome: JobOutcome,
    },
    /// The configuration of a topic changed.
    Configure {
        /// Which group.
        group: GroupId,
        /// The new options.
        options: GroupOptions,
    },
    /// The group leaves this node (its topic was deleted). Waiters are refused; a `Destroyed` mark is written.
    Close {
        /// Which group.
        group: GroupId,
    },
    /// Time passed. Costs nothing for groups that lead with a single voter.
    Tick,
}

/// What one group starts from.
#[derive(Debug)]
pub struct OpenGroup {
    /// Its number.
    pub group: GroupId,
    /// This node's replica of it.
    pub replica: ReplicaId,
    /// All voters.
    pub voters: Vec<ReplicaId>,
    /// What it holds.
    pub kind: GroupKind,
    /// Term, vote and commit from the WAL; default for a new group.
    pub hard_state: PersistedHardState,
    /// Index and term of the last entry that was cut; zero where none was.
    pub truncated: (LogIndex, Term),
    /// The newest valid local checkpoint, decoded.
    pub state: GroupState,
    /// Marks of the WAL: the sealed files that are on this node, in order.
    pub seals: Vec<SealMark>,
    /// Marks of the WAL: the local checkpoints that are on this node, oldest first, at most two.
    pub local_checkpoints: Vec<LocalCheckpoint>,
    /// The first offset whose entry the WAL holds; the log's end where it holds none.
    pub local_start: Offset,
    /// Bytes of the entries in the WAL.
    pub log_bytes: u64,
    /// Every entry above the state's applied index (above `truncated` where the state is new), without a gap.
    pub entries: Vec<LogEntry>,
}

/// What a group holds.
#[derive(Clone, Debug)]
pub enum GroupKind {
    /// The metadata of a cluster.
    Metadata {
        /// Which cluster.
        cluster: ClusterId,
        /// The cluster's life on its bucket prefix.
        incarnation: Incarnation,
    },
    /// One partition of a topic.
    Partition {
        /// Which.
        identity: PartitionIdentity,
        /// How it is run.
        options: GroupOptions,
    },
}

pub use varve_formats::identity::PartitionIdentity;

/// The state that a group starts from.
#[derive(Clone, Debug)]
pub enum GroupState {
    /// Nothing was ever applied, or everything that was is in `entries`.
    New,
    /// A partition's checkpoint.
    Partition(Box<PartitionState>),
    /// The metadata's checkpoint.
    Metadata(Box<MetadataState>),
}

/// A checkpoint file on this node whose mark is fsynced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCheckpoint {
    /// The applied index that it holds.
    pub index: LogIndex,
    /// The term of the entry there.
    pub term: Term,
    /// Its name in the group's directory.
    pub file: String,
    /// Its SHA-256.
    pub sha256: Digest,
}

/// The header of a record batch, as the handler parsed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMeta {
    /// How many records.
    pub count: u32,
    /// The last record's offset less the first's: `count - 1` in what producers send.
    pub last_offset_delta: u32,
    /// -1 without idempotence.
    pub producer_id: i64,
    /// -1 without idempotence.
    pub producer_epoch: i16,
    /// -1 without idempotence.
    pub base_sequence: i32,
    /// The first record's timestamp.
    pub base_timestamp: i64,
    /// The largest timestamp, -1 where there is none.
    pub max_timestamp: i64,
    /// Part of a transaction: refused until transactions exist.
    pub is_transactional: bool,
    /// A control batch: clients may not send one.
    pub is_control: bool,
    /// CRC-32C as stored in the batch.
    pub crc: u32,
    /// The batch's length in bytes.
    pub bytes: u32,
}

/// Whose timestamps a batch keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// The producer's (CreateTime): the batch stays as it is.
    Create,
    /// The leader's (LogAppendTime): type bit, largest timestamp and CRC are rewritten once, before proposing.
    Append,
}

/// Why a range is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RollCause {
    /// `segment.bytes` is reached.
    Bytes,
    /// `segment.ms` or the upload age has passed.
    Age,
    /// The log must be cut for the WAL's sake.
    Pressure,
    /// A checkpoint needs a boundary.
    Checkpoint,
    /// The node stops.
    Shutdown,
}

/// What the planner decided for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Closes the open range. Dropped where that is empty or a roll is on its way.
    Roll {
        /// Why, for the metric.
        cause: RollCause,
    },
    /// Announces the upload of a rolled range; on apply the upload starts by itself.
    Announce {
        /// Drawn at random; never used before.
        uid: u64,
        /// Start of a range in the roll table.
        base: Offset,
        /// Its end.
        end: Offset,
    },
    /// Starts the upload of a live intent of this term that is neither running nor done.
    Upload {
        /// Which intent.
        uid: u64,
    },
    /// Commits what is uploaded: the longest run of done uploads from the tiered end on, in one command.
    Append,
    /// Writes the rolled range that begins at `base` into a file of this node.
    Seal {
        /// Which range.
        base: Offset,
    },
    /// Gives up the sealed file that begins at `base`: only what is tiered or below the log start.
    Unseal {
        /// Which file.
        base: Offset,
    },
    /// Writes a local checkpoint of the applied state.
    CheckpointLocal,
    /// Writes a checkpoint to the bucket, as of the newest tiered roll.
    PublishCheckpoint {
        /// Drawn at random; part of the key.
        uid: u64,
    },
    /// Makes a checkpoint in a file of this node, for members that lag behind the log.
    OfferCheckpoint,
    /// Brings the sealed file that begins at `base`, and is damaged, from another node.
    Refetch {
        /// Which file.
        base: Offset,
    },
    /// Moves the oldest manifest entries (or nodes) from the root into a node object.
    Fold {
        /// Drawn at random; part of the key.
        uid: u64,
    },
    /// Puts a leaf of the manifest, whose object is damaged, there once more, as another that takes its place.
    MendLeaf {
        /// Drawn at random; part of the key.
        uid: u64,
        /// The uid of the leaf that goes.
        leaf: u64,
    },
    /// Moves the log start forward.
    Trim {
        /// The new first offset, at most the high watermark.
        log_start: Offset,
        /// Why.
        cause: TrimCause,
    },
    /// Gives up announced uploads: of earlier terms, or failed ones of this term.
    Expire {
        /// Which intents.
        uids: Vec<u64>,
    },
    /// Forgets producers that were last used before this wall-clock time.
    ExpireProducers {
        /// Milliseconds since 1970.
        unused_since_ms: i64,
    },
    /// Appends an entry that changes nothing, so that a group at rest can take one more checkpoint, above the ones it has. A follower
    /// asks its leader for that.
    Advance,
    /// Deletes objects that tombstones name; `TierReaped` is proposed when they are gone.
    Delete {
        /// Which tombstones. The planner has checked grace and checkpoints; the checkpoints are checked again here.
        uids: Vec<u64>,
    },
    /// Goes on with the files for other systems: measures the next, or puts the announced one.
    Archive,
    /// Deletes what is left of a deleted topic. Dropped while one of its groups is here, or a job of one runs.
    Reap {
        /// Which topic.
        topic: TopicId,
        /// Which time. The planner has checked grace and checkpoints.
        pass: ReapPass,
    },
    /// Cuts the local log up to and with this entry: at most [`super::GroupStatus::cut_limit`].
    Cut {
        /// The last index that goes.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
}
