//! Background work: what it is given and how it ends.

use std::{ops::Range, sync::Arc};

use varve_common::{GroupId, LogIndex, NodeId, Offset, Term, TopicId};
use varve_consensus::Membership;
use varve_formats::{
    command::PublishedCheckpoint,
    manifest::{Entry, FoldPlan, NodeReference, Root},
    state::{ArchivePlan, ArchiveState, ArchivedFile, Intent, RollEntry, Tombstone},
};

use super::{GroupState, LocalCheckpoint, PartitionIdentity, SealMark, Stall};
use crate::{checkpoint::Captured, metadata::Topic, partition::RecordState};

/// A future to run outside the core. A job that cannot succeed ends with `Failed`; the planner starts it anew.
#[derive(Clone, Debug)]
pub enum Job {
    /// Puts a rolled range into the bucket under the intent's key.
    Upload {
        /// Which group.
        group: GroupId,
        /// What the key and the footer are made of.
        identity: PartitionIdentity,
        /// Announced and committed.
        intent: Intent,
        /// What the range must contain: bytes, digest of batch CRCs, raft bounds.
        roll: RollEntry,
        /// Producers, aborted transactions and epochs as of the range's end, for the segment's sections.
        frozen: Option<Arc<RecordState>>,
        /// The range's sealed file, where there is one: the log may be cut behind it.
        seal: Option<SealMark>,
    },
    /// Puts a range whose object in the bucket is damaged there once more, under the intent's key, from what this node holds of it.
    Restore {
        /// Which group.
        group: GroupId,
        /// What the key and the footer are made of.
        identity: PartitionIdentity,
        /// Announced and committed.
        intent: Intent,
        /// The manifest's word on the range.
        entry: Entry,
        /// The range's sealed file, where there is one.
        seal: Option<SealMark>,
    },
    /// Puts one object in the place of several small ones that hold adjacent ranges.
    Merge {
        /// Which group.
        group: GroupId,
        /// What the key and the footer are made of.
        identity: PartitionIdentity,
        /// Announced and committed.
        intent: Intent,
        /// What it replaces, in order.
        entries: Vec<Entry>,
    },
    /// Writes a rolled range into a file: temporary file, fsync, rename, directory fsync.
    Seal {
        /// Which group.
        group: GroupId,
        /// What the footer is made of.
        identity: PartitionIdentity,
        /// What the range must contain.
        roll: RollEntry,
        /// As in `Upload`.
        frozen: Option<Arc<RecordState>>,
    },
    /// Removes a sealed file whose `Unsealed` mark is fsynced.
    Unseal {
        /// Which group.
        group: GroupId,
        /// Which file.
        seal: SealMark,
    },
    /// Encodes the state and writes it as `{index:020}-{term:08x}.ckpt`: temporary file, fsync, rename, directory fsync.
    CheckpointLocal {
        /// Which group.
        group: GroupId,
        /// The applied index.
        index: LogIndex,
        /// Its term.
        term: Term,
        /// The state, shared copy on write: encode it in the job.
        captured: Captured,
    },
    /// Removes a local checkpoint that two newer ones replace.
    RemoveCheckpoint {
        /// Which group.
        group: GroupId,
        /// Which file.
        checkpoint: LocalCheckpoint,
    },
    /// Encodes the state, puts it into the bucket, reads it back by GET and verifies it whole.
    Publish {
        /// Which group.
        group: GroupId,
        /// `None` for the metadata group.
        identity: Option<PartitionIdentity>,
        /// Part of the key.
        uid: u64,
        /// Part of the key: the leader's term.
        key_term: Term,
        /// The state: record class as of S, bucket class as of A.
        captured: Captured,
    },
    /// Puts a manifest node.
    Fold {
        /// Which group.
        group: GroupId,
        /// What the key is made of.
        identity: PartitionIdentity,
        /// Part of the key.
        uid: u64,
        /// What the node holds.
        contents: FoldPlan,
    },
    /// Puts a leaf of the manifest that takes the place of another: of the same entries where its object is damaged; or with
    /// another segment in the place of one that is damaged, or of several small ones.
    Mend {
        /// Which group.
        group: GroupId,
        /// What the key is made of.
        identity: PartitionIdentity,
        /// Part of the new leaf's key.
        uid: u64,
        /// What goes.
        leaf: NodeReference,
        /// The range in it to put there once more, or to merge; announced and committed. With its sealed file, where there is one.
        range: Option<(Intent, Option<SealMark>)>,
    },
    /// Encodes the state into a file of this node, from where members that lag behind the log may have it.
    Offer {
        /// Which group.
        group: GroupId,
        /// The leader's term.
        term: Term,
        /// The state: record class as of S, bucket class as of A.
        captured: Captured,
    },
    /// Brings the checkpoint that the leader sends this replica to, verifies it whole and makes it a local one; before that some of
    /// the sealed files that it needs and this node lacks.
    Install {
        /// Which group.
        group: GroupId,
        /// What its key is made of, and what it must say of itself; of no topic for the metadata group.
        identity: PartitionIdentity,
        /// Where it lies and what it must be.
        checkpoint: PublishedCheckpoint,
        /// The nodes that have it, and records that are on nodes only, the likeliest first; none where it is in the bucket.
        from: Vec<NodeId>,
        /// The sealed files that this node has, in order.
        seals: Arc<Vec<SealMark>>,
    },
    /// Brings a sealed file that this node has lost from another that has the same records.
    Refetch {
        /// Which group.
        group: GroupId,
        /// What its footer must say.
        identity: PartitionIdentity,
        /// What its records must be.
        roll: RollEntry,
        /// Which file.
        seal: SealMark,
        /// Whom to ask, the likeliest first.
        from: Vec<NodeId>,
    },
    /// Deletes objects. Missing ones are fine.
    Delete {
        /// Which group.
        group: GroupId,
        /// What the keys are made of.
        identity: PartitionIdentity,
        /// What goes. A node's tombstone stands for the node and all that it names.
        tombstones: Vec<Tombstone>,
    },
    /// Measures the next file for other systems, or puts the one that is announced.
    Archive {
        /// Which group.
        group: GroupId,
        /// Whose records.
        identity: PartitionIdentity,
        /// What is in the bucket.
        root: Arc<Root>,
        /// What of it exists.
        offsets: Range<Offset>,
        /// How far files go.
        archive: ArchiveState,
        /// Whether files that are there already, behind those that are known, are looked for first.
        look: bool,
    },
    /// Deletes everything of a deleted topic: its objects, of all incarnations, and what is left of its files.
    Reap {
        /// The metadata group.
        group: GroupId,
        /// What it was.
        topic: Arc<Topic>,
        /// Which time.
        pass: ReapPass,
    },
}

/// A deleted topic's objects are looked for twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReapPass {
    /// As soon as nothing can bring the topic back.
    Early,
    /// When the grace is over, for an upload that was on its way when its process died: after it the deletion has ended.
    Final,
}

/// The kind of a job, for status and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum JobKind {
    Upload,
    Merge,
    Seal,
    Unseal,
    CheckpointLocal,
    RemoveCheckpoint,
    Publish,
    Fold,
    Mend,
    Offer,
    Install,
    Refetch,
    Delete,
    Archive,
    Reap,
}

impl Job {
    /// Whose job it is.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        match self {
            Self::Upload { group, .. }
            | Self::Restore { group, .. }
            | Self::Merge { group, .. }
            | Self::Seal { group, .. }
            | Self::Unseal { group, .. }
            | Self::CheckpointLocal { group, .. }
            | Self::RemoveCheckpoint { group, .. }
            | Self::Publish { group, .. }
            | Self::Fold { group, .. }
            | Self::Mend { group, .. }
            | Self::Offer { group, .. }
            | Self::Install { group, .. }
            | Self::Refetch { group, .. }
            | Self::Delete { group, .. }
            | Self::Archive { group, .. }
            | Self::Reap { group, .. } => *group,
        }
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> JobKind {
        match self {
            Self::Upload { .. } | Self::Restore { .. } => JobKind::Upload,
            Self::Merge { .. } => JobKind::Merge,
            Self::Seal { .. } => JobKind::Seal,
            Self::Unseal { .. } => JobKind::Unseal,
            Self::CheckpointLocal { .. } => JobKind::CheckpointLocal,
            Self::RemoveCheckpoint { .. } => JobKind::RemoveCheckpoint,
            Self::Publish { .. } => JobKind::Publish,
            Self::Fold { .. } => JobKind::Fold,
            Self::Mend { .. } => JobKind::Mend,
            Self::Offer { .. } => JobKind::Offer,
            Self::Install { .. } => JobKind::Install,
            Self::Refetch { .. } => JobKind::Refetch,
            Self::Delete { .. } => JobKind::Delete,
            Self::Archive { .. } => JobKind::Archive,
            Self::Reap { .. } => JobKind::Reap,
        }
    }
}

/// A leaf that can take the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// The uid of the leaf that goes.
    pub removed: u64,
    /// What comes.
    pub node: NodeReference,
    /// The entries that only the old leaf names, and the one that the new one names instead.
    pub exchanged: Option<(Vec<Entry>, Entry)>,
}

impl Mended {
    /// The segments that became one; none where nothing was merged.
    #[must_use]
    pub fn merged(&self) -> &[Entry] {
        match &self.exchanged {
            Some((gone, _)) if gone.len() > 1 => gone,
            _ => &[],
        }
    }
}

/// A checkpoint that a leader sent this replica to, and the state in it.
#[derive(Clone, Debug)]
pub struct Installable {
    /// The file, as of S. No mark names it yet.
    pub checkpoint: LocalCheckpoint,
    /// The members as of S.
    pub membership: Membership,
    /// The state.
    pub state: GroupState,
    /// Up to where another node has trimmed its records by command: files below it need not be here.
    pub trimmed: Offset,
}

impl PartialEq for Installable {
    /// The state is what its file's digest says.
    fn eq(&self, other: &Self) -> bool {
        self.checkpoint == other.checkpoint
    }
}

impl Eq for Installable {}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// The segment is in the bucket.
    Uploaded {
        /// The intent's.
        uid: u64,
        /// What the manifest will say.
        entry: Entry,
    },
    /// The upload did not succeed; whether the object exists is unknown, so the intent is expired and a new uid drawn.
    UploadFailed {
        /// The intent's.
        uid: u64,
        /// What keeps it up.
        stall: Stall,
        /// For logs and status.
        why: String,
    },
    /// The merged segment is in the bucket: `TierReplace` is proposed next.
    Merged {
        /// What the manifest will say; its uid is the intent's.
        entry: Entry,
        /// How many segments it replaces.
        segments: usize,
    },
    /// The merge did not succeed; as for an upload, another uid is drawn.
    MergeFailed {
        /// The intent's.
        uid: u64,
        /// For logs and status.
        why: String,
    },
    /// The file is complete and its name durable: the mark is written next.
    Sealed(SealMark),
    /// The log does not have the range any more. Where the bucket has it, that is no matter.
    SealPassed {
        /// Start of the range.
        base: Offset,
        /// For logs and status.
        why: String,
    },
    /// The file could not be written.
    SealFailed {
        /// Start of the range.
        base: Offset,
        /// For logs and status.
        why: String,
    },
    /// The sealed file is gone.
    Unsealed {
        /// Start of its range.
        base: Offset,
    },
    /// The local checkpoint is complete and its name durable: the mark is written next.
    CheckpointWritten(LocalCheckpoint),
    /// The checkpoint was read back whole: `CkptPublished` is proposed next.
    CheckpointPublished {
        /// Where it is.
        checkpoint: PublishedCheckpoint,
        /// The applied indexes of all checkpoints of the group that are in the bucket now; `None` where unknown.
        kept: Option<Vec<LogIndex>>,
    },
    /// The node is in the bucket: `NodeFolded` is proposed next.
    Folded {
        /// What the root will say.
        node: NodeReference,
    },
    /// The leaf is in the bucket, and what it names: `LeafReplaced` is proposed next.
    Mended(Box<Mended>),
    /// A leaf was not mended; an announced segment of it draws another uid.
    MendFailed {
        /// The intent's, where there is one.
        uid: Option<u64>,
        /// For logs and status.
        why: String,
    },
    /// The checkpoint is in a file of this node, and its name durable: members are sent to it next.
    Offered {
        /// What it is.
        checkpoint: PublishedCheckpoint,
        /// Where it is.
        file: LocalCheckpoint,
    },
    /// Sealed files that a checkpoint needs came whole, and their names are durable: their marks are written next, then the rest comes.
    Fetched(Vec<SealMark>),
    /// A sealed file is whole again. Where it has other bytes than before, and the same records, its mark is written next.
    Refetched(SealMark),
    /// The checkpoint is here, whole, and its name durable: the log is replaced next.
    Installable(Box<Installable>),
    /// The objects are gone: `TierReaped` is proposed next.
    Deleted {
        /// Which tombstones.
        uids: Vec<u64>,
    },
    /// Where the next file for other systems ends: `ArchivePlanned` is proposed next.
    ArchiveMeasured {
        /// The file.
        plan: ArchivePlan,
        /// Whether no file is there that the group does not know.
        alone: bool,
        /// Offsets before it that are in no file: they were trimmed first.
        skipped: u64,
    },
    /// The announced file is in the store, or there is none to be: `Archived` is proposed next.
    Archived {
        /// The range.
        base: Offset,
        /// Its end.
        end: Offset,
        /// The largest timestamp in it, -1 where that is not known.
        newest_ms: i64,
        /// The file.
        file: Option<ArchivedFile>,
    },
    /// A listing found nothing of the deleted topic any more: after the final pass `TopicReaped` is proposed next.
    Reaped {
        /// Which topic.
        topic: TopicId,
        /// Which time.
        pass: ReapPass,
        /// How many objects went.
        objects: u64,
    },
    /// A superseded local checkpoint is gone.
    CheckpointRemoved,
    /// Any other failure; nothing changed.
    Failed {
        /// Of which job.
        kind: JobKind,
        /// For logs and status.
        why: String,
    },
}

/// The uid of the leaf that is put beside a segment: another one, because tombstones are told apart by theirs, and as good
/// a random number, because no two uids give the same.
#[must_use]
pub const fn uid_of_leaf(segment: u64) -> u64 {
    match segment.rotate_left(29) ^ 0x9e37_79b9_7f4a_7c15 {
        0 => 1,
        uid => uid,
    }
}
