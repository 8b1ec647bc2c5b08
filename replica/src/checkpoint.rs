//! Checkpoints: a group's state, captured in the core at no cost and encoded by a job.
//!
//! The container is `formats::checkpoint`: sections compressed and checked one by one, a SHA-256 over all. A local
//! checkpoint is as of the applied index; a bucket checkpoint has record class as of S, the newest tiered roll, and
//! bucket class as of A, the applied index at capture (TIERING.md 5).

use std::sync::Arc;

use bytes::Bytes;
use varve_common::{Digest, GroupId, LogIndex, Offset, PartitionIndex, TopicId, codec::DecodeError};
use varve_consensus::Membership;
use varve_formats::{
    checkpoint::{
        AppliedPoint, Checkpoint, CheckpointHeader, CheckpointKind, PartitionCheckpoint, SectionId,
        StatePoint,
    },
    compression::Codec,
    state::ConfState,
};

use crate::{
    api::{PartitionIdentity, SealMark},
    bugs::{Bug, is_seeded},
    metadata::MetadataState,
    partition::{POSITION, PartitionSections, PartitionState, RecordState},
    shard::MembersSince,
};

/// The feature level that a reader of today's checkpoints must know.
const FEATURE_LEVEL: u16 = 1;

/// What is captured, shared copy on write.
#[derive(Clone, Debug)]
enum State {
    Local { state: Box<PartitionState>, seals: Arc<Vec<SealMark>>, members: MembersSince },
    Bucket { state: Box<PartitionState>, records: Arc<RecordState> },
    Metadata(Box<MetadataState>),
}

/// A state captured at one applied index.
#[derive(Clone, Debug)]
pub struct Captured {
    header: CheckpointHeader,
    log_start: Offset,
    state: State,
}

/// An encoded checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedCheckpoint {
    /// Its bytes.
    pub bytes: Bytes,
    /// The SHA-256 of all of them: what a mark or a `CkptPublished` names.
    pub sha256: Digest,
}

/// A decoded checkpoint.
#[derive(Debug)]
pub enum Decoded {
    /// Of a partition.
    Partition {
        /// What it says of itself.
        header: CheckpointHeader,
        /// The state.
        state: Box<PartitionState>,
        /// The seal catalogue when it was taken (local checkpoints).
        seals: Vec<SealMark>,
        /// Who was in the group as of earlier rolls (local checkpoints).
        members: Vec<(LogIndex, Membership)>,
    },
    /// Of the metadata group.
    Metadata {
        /// What it says of itself.
        header: CheckpointHeader,
        /// The state.
        state: Box<MetadataState>,
    },
}

impl Captured {
    /// A partition's local checkpoint.
    #[must_use]
    pub fn local(
        group: GroupId,
        state: &PartitionState,
        seals: &Arc<Vec<SealMark>>,
        members: &Membership,
    ) -> Self {
        let mut state = Box::new(state.clone());
        if is_seeded(Bug::ReseededForgetsA) {
            state.bucket_index = state.bucket_index.min(state.records.index);
        }
        Self {
            header: partition_header(group, &state, &state.records, members),
            log_start: state.bucket.log_start,
            state: State::Local { state, seals: Arc::clone(seals), members: MembersSince::default() },
        }
    }

    /// A partition's bucket checkpoint: as of the newest tiered roll, or, where records stay on the nodes, as of the
    /// applied index. `None` where no such roll is frozen or A is not applied.
    #[must_use]
    pub fn bucket(
        group: GroupId,
        state: &PartitionState,
        tiered: bool,
        members: &Membership,
    ) -> Option<Self> {
        if !state.is_whole() {
            return None;
        }
        let records = if tiered {
            Arc::clone(state.newest_frozen(state.bucket.tiered_end)?)
        } else {
            Arc::new(state.records.clone())
        };
        let mut captured = Self::of_bucket(group, state, records, members);
        captured.header.records_local = !tiered;
        Some(captured)
    }

    /// With who was in the group as of earlier entries: what a bucket checkpoint says of S, and a local one of the rolls that are
    /// to become S. `None` where that is not known of S.
    #[must_use]
    pub fn with_members(mut self, known: &MembersSince) -> Option<Self> {
        match &mut self.state {
            State::Local { members, .. } => members.clone_from(known),
            State::Bucket { records, .. } => self.header.conf_state = conf_state(known.at(records.index)?),
            State::Metadata(_) => {}
        }
        Some(self)
    }

    /// The same of a partition with all its records in the bucket: S is its applied index, whatever commands came after its
    /// last roll. For a member that needs what is cut, where nothing more is written.
    #[must_use]
    pub fn at_rest(group: GroupId, state: &PartitionState, members: &Membership) -> Option<Self> {
        let records = &state.records;
        let all_tiered = records.open.is_empty() && records.log_end == state.bucket.tiered_end;
        (state.is_whole() && all_tiered)
            .then(|| Self::of_bucket(group, state, Arc::new(records.clone()), members))
    }

    /// A checkpoint for members that lag: `records` are as of S, the newest roll of which all records up to it are in files of this
    /// node, or as of now where all are. Their rolls are still in the table, so that whoever takes it knows which files it needs.
    #[must_use]
    pub fn offered(
        group: GroupId,
        state: &PartitionState,
        records: Arc<RecordState>,
        members: &Membership,
    ) -> Self {
        let mut captured = Self::of_bucket(group, state, records, members);
        captured.header.records_local = true;
        captured
    }

    fn of_bucket(
        group: GroupId,
        state: &PartitionState,
        records: Arc<RecordState>,
        members: &Membership,
    ) -> Self {
        let header = partition_header(group, state, &records, members);
        let mut state = Box::new(state.clone());
        state.frozen.clear();
        Self { header, log_start: state.bucket.log_start, state: State::Bucket { state, records } }
    }

    /// The metadata group's checkpoint, local or in the bucket.
    #[must_use]
    pub fn metadata(state: &MetadataState, members: &Membership) -> Self {
        let (index, term) = state.applied();
        let identity = PartitionIdentity {
            cluster: state.image().cluster,
            incarnation: state.image().incarnation,
            topic_id: TopicId::ZERO,
            topic: String::new(),
            partition: PartitionIndex(0),
        };
        let header = CheckpointHeader {
            kind: CheckpointKind::Metadata,
            group: GroupId::METADATA,
            identity,
            state: StatePoint { index, term, offset: Offset::ZERO },
            applied: AppliedPoint { index, term },
            conf_state: conf_state(members),
            manifest_seq: 0,
            feature_level: FEATURE_LEVEL,
            append_time_ms: state.append_time_ms,
            records_local: false,
        };
        Self { header, log_start: Offset::ZERO, state: State::Metadata(Box::new(state.clone())) }
    }

    /// What it will say of itself.
    #[must_use]
    pub const fn header(&self) -> &CheckpointHeader {
        &self.header
    }

    /// The log start that it carries.
    #[must_use]
    pub const fn log_start(&self) -> Offset {
        self.log_start
    }

    /// The uids of the checkpoints in the bucket that the group names: they must stay.
    #[must_use]
    pub fn published(&self) -> Vec<u64> {
        let published = match &self.state {
            State::Local { state, .. } | State::Bucket { state, .. } => state.bucket().published.as_slice(),
            State::Metadata(state) => state.published.as_slice(),
        };
        published.iter().map(|checkpoint| checkpoint.uid).collect()
    }

    /// The checkpoint in memory.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        let PartitionSections { standard, position, groups } = match &self.state {
            State::Metadata(state) => {
                let mut checkpoint = Checkpoint::new(self.header.clone());
                checkpoint.sections.insert(SectionId::METADATA_IMAGE, state.encode());
                return checkpoint;
            }
            State::Local { state, seals, members } => state.encode(seals, |roll| {
                members.at(roll).map_or_else(|| self.header.conf_state.clone(), conf_state)
            }),
            State::Bucket { state, records } => state.encode_as_of(records),
        };
        let mut checkpoint = standard.into_checkpoint(self.header.clone());
        checkpoint.sections.insert(POSITION, position);
        checkpoint.sections.extend(groups.map(|groups| (SectionId::COORDINATOR, groups)));
        checkpoint
    }

    /// Its bytes. Work for a job: it takes time in proportion to the state.
    #[must_use]
    pub fn encode(&self, codec: Codec) -> EncodedCheckpoint {
        let bytes = self.checkpoint().encode(codec);
        EncodedCheckpoint { sha256: Digest::of(&bytes), bytes }
    }
}

/// Verifies a whole checkpoint and reads the state in it. Whose it is, is the caller's to check.
pub fn decode(bytes: &Bytes) -> Result<Decoded, DecodeError> {
    restore(Checkpoint::decode(bytes)?)
}

/// The state in a verified checkpoint; sections of later releases are skipped, and what a reader must know and this one does not is an
/// error: the next checkpoint would be without it.
pub fn restore(mut checkpoint: Checkpoint) -> Result<Decoded, DecodeError> {
    let missing = DecodeError { what: "a section is missing", position: 0 };
    let header = checkpoint.header.clone();
    if header.feature_level > FEATURE_LEVEL {
        let what = "a later release wrote this, with what only that one or one after it can read";
        return Err(DecodeError { what, position: 0 });
    }
    if header.kind == CheckpointKind::Metadata {
        let image = checkpoint.sections.remove(&SectionId::METADATA_IMAGE).ok_or(missing)?;
        return Ok(Decoded::Metadata { header, state: Box::new(MetadataState::decode(image)?) });
    }
    let position = checkpoint.sections.get(&POSITION).cloned().ok_or(missing)?;
    let groups = checkpoint.sections.get(&SectionId::COORDINATOR).cloned();
    let mut standard = PartitionCheckpoint::from_checkpoint(&checkpoint)?;
    let seals = std::mem::take(&mut standard.seals);
    let rolls = standard.frozen.iter();
    let members = rolls.map(|roll| (roll.roll_index, membership(&roll.conf_state))).collect();
    let state =
        PartitionState::decode(header.identity.clone(), PartitionSections { standard, position, groups })?;
    if state.records.index != header.state.index || state.bucket_index != header.applied.index {
        return Err(DecodeError { what: "header and sections disagree on S or A", position: 0 });
    }
    Ok(Decoded::Partition { header, state: Box::new(state), seals, members })
}

fn partition_header(
    group: GroupId,
    state: &PartitionState,
    records: &RecordState,
    members: &Membership,
) -> CheckpointHeader {
    let index = state.bucket_index.max(state.records.index);
    let coordinates = state.groups.is_some();
    CheckpointHeader {
        kind: if coordinates { CheckpointKind::Coordinator } else { CheckpointKind::Partition },
        group,
        identity: state.identity.clone(),
        state: StatePoint { index: records.index, term: records.term, offset: records.log_end },
        applied: AppliedPoint { index, term: state.records.term },
        conf_state: conf_state(members),
        manifest_seq: state.bucket.manifest_seq,
        feature_level: FEATURE_LEVEL,
        append_time_ms: state.records.append_time_ms,
        records_local: false,
    }
}

/// The members that a checkpoint names.
#[must_use]
pub fn membership(members: &ConfState) -> Membership {
    Membership {
        voters: members.voters.clone(),
        learners: members.learners.clone(),
        voters_outgoing: members.voters_outgoing.clone(),
        learners_next: members.learners_next.clone(),
        auto_leave: members.auto_leave,
        version: members.version,
    }
}

fn conf_state(members: &Membership) -> ConfState {
    ConfState {
        voters: members.voters.clone(),
        learners: members.learners.clone(),
        voters_outgoing: members.voters_outgoing.clone(),
        learners_next: members.learners_next.clone(),
        auto_leave: members.auto_leave,
        version: members.version,
    }
}
