//! What readers and the planner see.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use varve_common::{GroupId, LeaderEpoch, LogIndex, Monotonic, Offset, ReplicaId, Term, TopicId};
use varve_formats::{
    command::PublishedCheckpoint,
    manifest::Root,
    state::{ArchiveState, EpochStart, Intent, RollEntry, Tombstone},
};

use super::{GroupOptions, JobKind, LocalCheckpoint, PartitionIdentity, SealMark};
use crate::metadata::Deletion;

/// A replica's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Role {
    Follower,
    Candidate,
    Leader,
    Learner,
}

/// The range since the last roll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRange {
    /// The end of the last roll.
    pub base: Offset,
    /// Raft index of its first batch; 0 while it is empty.
    pub first_index: LogIndex,
    /// Sum of the batches' bytes.
    pub bytes: u64,
    /// The largest record timestamp, -1 where there is none.
    pub max_timestamp: i64,
    /// See `command::Roll::batch_crcs`.
    pub batch_crcs: u32,
    /// Append time of its first batch, -1 while it is empty.
    pub first_append_ms: i64,
}

impl Default for OpenRange {
    fn default() -> Self {
        Self::starting_at(Offset::ZERO)
    }
}

impl OpenRange {
    /// An empty range.
    #[must_use]
    pub const fn starting_at(base: Offset) -> Self {
        Self {
            base,
            first_index: LogIndex::ZERO,
            bytes: 0,
            max_timestamp: -1,
            batch_crcs: 0,
            first_append_ms: -1,
        }
    }

    /// Whether nothing was appended since the last roll.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.first_index.0 == 0
    }
}

/// All that a reader of a partition needs; immutable, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// Which partition.
    pub identity: PartitionIdentity,
    /// This replica.
    pub replica: ReplicaId,
    /// Its role.
    pub role: Role,
    /// Who leads, if known.
    pub leader: Option<ReplicaId>,
    /// Raft's term as clients see it.
    pub leader_epoch: LeaderEpoch,
    /// Whether this replica serves: it leads with its own no-op applied, and has applied A of its seed.
    pub ready: bool,
    /// Whether its state is whole: all that it shows is committed. One that began with a checkpoint has applied A of it.
    pub whole: bool,
    /// The first offset that exists.
    pub log_start: Offset,
    /// The first offset from which on all is on this node, in sealed files and the WAL.
    pub local_start: Offset,
    /// The end of what is in the bucket; where log_start is not below it, nothing is.
    pub tiered_end: Offset,
    /// The end of what is committed.
    pub high_watermark: Offset,
    /// The end of what read_committed sees.
    pub last_stable_offset: Offset,
    /// The end of the log: with a single voter the high watermark.
    pub log_end: Offset,
    /// Leader epochs, oldest first.
    pub epochs: Arc<Vec<EpochStart>>,
    /// What is in the bucket.
    pub root: Arc<Root>,
    /// Announced uploads, by base.
    pub intents: Arc<Vec<Intent>>,
    /// Objects that must be deleted.
    pub tombstones: Arc<Vec<Tombstone>>,
    /// Rolled ranges that are neither tiered nor trimmed, in order.
    pub rolls: Arc<Vec<RollEntry>>,
    /// Sealed files on this node, in order.
    pub seals: Arc<Vec<SealMark>>,
    /// The range since the last roll.
    pub open: OpenRange,
    /// How many producers are remembered.
    pub producers: usize,
}

/// A group's jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobsStatus {
    /// What runs now, with how many.
    pub running: BTreeMap<JobKind, u32>,
    /// Failures in a row and when the last was; gone after a success. The planner backs off by it.
    pub failures: BTreeMap<JobKind, (u32, Monotonic)>,
    /// What the last failure said.
    pub last_failure: Option<(JobKind, String)>,
    /// Ranges (by base) that are being sealed.
    pub sealing: BTreeSet<Offset>,
    /// Ranges (by base) whose files are on their way out: until they are gone nobody else has their names.
    pub removing: BTreeSet<Offset>,
    /// The damaged file (by base) that was last asked for.
    pub refetched: Option<Offset>,
    /// Whether a range waits to be sealed until what comes from other nodes lets it.
    pub seal_waits: bool,
}

impl JobsStatus {
    /// Whether one of this kind runs.
    #[must_use]
    pub fn runs(&self, kind: JobKind) -> bool {
        self.running.contains_key(&kind)
    }
}

/// What other nodes may have of a group from this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// The first offset that exists: what ends at or below it is trimmed, by command.
    pub log_start: Offset,
    /// Sealed files whose marks are fsynced, and which are not known to be damaged, in order.
    pub seals: Arc<Vec<SealMark>>,
    /// The checkpoint that members are sent to.
    pub offered: Option<LocalCheckpoint>,
}

/// What the planner reads. Cheap: small values and shared lists.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// Which group.
    pub group: GroupId,
    /// This replica.
    pub replica: ReplicaId,
    /// `None` for the metadata group.
    pub identity: Option<PartitionIdentity>,
    /// How it is run; defaults for the metadata group.
    pub options: GroupOptions,
    /// Its role.
    pub role: Role,
    /// Raft's term.
    pub term: Term,
    /// Whether proposals are taken: it leads and its own no-op is applied.
    pub ready: bool,
    /// The applied index and its term.
    pub applied: (LogIndex, Term),
    /// The last entry that was cut, and its term.
    pub truncated: (LogIndex, Term),
    /// The furthest safe cut (TIERING.md 6): equal to `truncated` where nothing may go.
    pub cut_limit: (LogIndex, Term),
    /// The last entry of what is sealed or tiered from the start of the log on: what may be cut once two local checkpoints
    /// are above it.
    pub releasable: LogIndex,
    /// Bytes of the entries above `truncated`, as far as this process knows.
    pub log_bytes: u64,
    /// Bytes of the entries applied since the newest local checkpoint was captured.
    pub bytes_since_checkpoint: u64,
    /// Entries applied since the newest local checkpoint was captured that change state (no-ops do not).
    pub changes_since_checkpoint: u64,
    /// The first offset that exists.
    pub log_start: Offset,
    /// The end of what is committed.
    pub high_watermark: Offset,
    /// The range since the last roll, applied.
    pub open: OpenRange,
    /// Rolled ranges that are neither tiered nor trimmed, in order.
    pub rolls: Arc<Vec<RollEntry>>,
    /// Sealed files on this node whose marks are fsynced, in order.
    pub seals: Arc<Vec<SealMark>>,
    /// The end of what is in the bucket.
    pub tiered_end: Offset,
    /// What is in the bucket.
    pub root: Arc<Root>,
    /// Sequence of manifest changes.
    pub manifest_seq: u64,
    /// Announced uploads, by base.
    pub intents: Arc<Vec<Intent>>,
    /// Intents whose job runs now.
    pub uploading: BTreeSet<u64>,
    /// Intents whose object is in the bucket and waits for `Append`.
    pub uploaded: BTreeSet<u64>,
    /// Whether `Append` would commit something now.
    pub appendable: bool,
    /// Intents of this term whose upload failed: to be expired.
    pub upload_failed: BTreeSet<u64>,
    /// Deleted topics whose objects and files are not known to be gone; none but in the metadata group.
    pub deletions: Arc<BTreeMap<TopicId, Deletion>>,
    /// Those of them of which the early pass has found nothing any more, since the process started.
    pub reaped_early: BTreeSet<TopicId>,
    /// Objects that must be deleted.
    pub tombstones: Arc<Vec<Tombstone>>,
    /// The newest verified checkpoints in the bucket, oldest first, at most two.
    pub published: Vec<PublishedCheckpoint>,
    /// Local checkpoints whose marks are fsynced, oldest first, at most two.
    pub local_checkpoints: Vec<LocalCheckpoint>,
    /// Tiered segments above S of the newest published checkpoint.
    pub unpublished_segments: u32,
    /// When the first of them was appended, wall clock.
    pub first_unpublished_ms: Option<i64>,
    /// Whether state changed since the newest published checkpoint (metadata group: any applied command).
    pub publish_dirty: bool,
    /// A checkpoint's publication is proposed and not applied: the next is captured after it.
    pub publication_pending: bool,
    /// A member lags behind the log, and no checkpoint is new enough to send it there.
    pub checkpoint_wanted: bool,
    /// Members were sent to the newest in the bucket in vain: the store is away, or what is there cannot be used.
    pub checkpoint_declined: bool,
    /// Where there are others: S of the checkpoint that this replica could make now, did it lead, for members that have its sealed
    /// files: the newest roll with all records up to it in the bucket or in files of this node, that the log still goes on from.
    pub offer_end: Option<(LogIndex, Term)>,
    /// The same of what can still be made when more was written: as of a roll, where `offer_end` may be what is applied.
    pub lasting_end: Option<(LogIndex, Term)>,
    /// S of the checkpoint that members were sent to on this node, and when one of them last asked for some of it.
    pub leased: Option<((LogIndex, Term), Monotonic)>,
    /// Sealed files (by base) that are damaged, and are to be had from other nodes.
    pub broken: BTreeSet<Offset>,
    /// The log is needed above this entry by a follower that keeps up; the largest index where nobody needs it.
    pub needed_above: LogIndex,
    /// Whether the group has other members.
    pub has_peers: bool,
    /// Where this replica leads: the last entry that every member holds, where it is not cut yet.
    pub reached_by_all: Option<(LogIndex, Term)>,
    /// A roll is proposed and not applied.
    pub roll_pending: bool,
    /// A command that changes the manifest is proposed and not applied: the next would miss its fence.
    pub fence_pending: bool,
    /// How far it is in files for other systems; `None` where none was ever announced.
    pub archive: Option<ArchiveState>,
    /// When the oldest was tiered of what waits for its file, wall clock; `None` where nothing does.
    pub unarchived_since_ms: Option<i64>,
    /// What says that a file is announced, or there, is proposed and not applied.
    pub archive_pending: bool,
    /// Bytes proposed and not applied.
    pub inflight_bytes: u64,
    /// How many producers are remembered.
    pub producers: usize,
    /// When the least recently used of them was used.
    pub oldest_producer_ms: Option<i64>,
    /// Bucket-class commands that were no-ops, since the process started.
    pub fenced_commands: u64,
    /// Jobs.
    pub jobs: JobsStatus,
}
