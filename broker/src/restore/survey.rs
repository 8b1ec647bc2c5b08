//! What the bucket holds, read and never written: which life, which checkpoint of each group, what follows behind it, where
//! each partition will end, and what is missing.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Semaphore;
use varve_common::{GroupId, Incarnation, LogIndex, ObjectKey, Offset, PartitionIndex, TopicId};
use varve_formats::{
    PartitionIdentity,
    keys::{Keys, Prefix},
    segment,
};
use varve_objects::Store;
use varve_replica::{
    checkpoint::{self, Decoded},
    coordinator::{self, Clamped},
    metadata::{Image, MetadataState, Topic},
    partition::PartitionState,
    rebirth::{Continuation, Unknown},
};
use varve_snapshot::{
    choose::{ChooseError, Chosen, Damaged, Which, choose},
    claim::{self, Lives},
};

use super::{
    Progress, RestoreError,
    tail::{Place, Tail},
    unknown,
};

/// Groups that are read at once.
const READS: usize = 32;
/// Of them, those that read segments: each is in memory whole.
const TAILS: usize = 4;

/// Which lives a restore is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The newest life of which every group has a checkpoint: what is restored.
    pub source: Incarnation,
    /// The life that begins.
    pub target: Incarnation,
    /// Whether a restore that did not come to its end has begun it.
    pub resumes: bool,
}

impl Plan {
    /// The life in which a cluster is founded is complete by that: nothing says so in the bucket.
    pub(super) fn of(lives: &Lives) -> Result<Self, RestoreError> {
        let newest = lives.newest.incarnation;
        let source = lives.complete.unwrap_or(Incarnation::FIRST);
        if newest > source {
            return Ok(Self { source, target: newest, resumes: true });
        }
        let target = newest.next().ok_or(RestoreError::TooManyLives)?;
        Ok(Self { source, target, resumes: false })
    }
}

/// What a group is restored from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A checkpoint.
    Checkpoint {
        /// Its key.
        key: ObjectKey,
        /// A.
        applied: LogIndex,
        /// When the last command in it was appended, wall clock.
        append_time_ms: i64,
    },
    /// No checkpoint: segments from offset 0 on.
    Segments,
    /// Nothing of it is in the bucket.
    Nothing,
}

/// What is restored of a partition.
#[derive(Clone, Debug)]
pub struct PartitionSurvey {
    /// Its group.
    pub group: GroupId,
    /// Its topic.
    pub topic: Arc<str>,
    /// Its topic's id.
    pub topic_id: TopicId,
    /// Its number.
    pub partition: PartitionIndex,
    /// What from.
    pub origin: Origin,
    /// Newer checkpoints that are damaged.
    pub damaged: Vec<Damaged>,
    /// The first offset, and the end, of what will be there.
    pub offsets: Range<Offset>,
    /// Records that were on nodes alone when the checkpoint was taken: they are gone.
    pub gap: Option<Range<Offset>>,
    /// Segments behind the checkpoint's manifest.
    pub discovered: usize,
    /// Objects that could have followed, and are damaged.
    pub unusable: Vec<(ObjectKey, String)>,
    /// Objects behind a hole: what they hold is not restored.
    pub beyond: usize,
    /// The largest timestamp among the records that will be there; -1 where there is none.
    pub newest_record_ms: i64,
    pub(super) state: Box<PartitionState>,
    pub(super) continuation: Continuation,
}

/// All of it.
#[derive(Debug)]
pub struct Survey {
    /// Whose.
    pub cluster: varve_common::ClusterId,
    /// Which lives.
    pub plan: Plan,
    /// The metadata's checkpoint.
    pub metadata: Origin,
    /// Newer ones that are damaged.
    pub metadata_damaged: Vec<Damaged>,
    /// Topics that were made after it: how they were configured is lost.
    pub unknown: Vec<Unknown>,
    /// By topic and partition.
    pub partitions: Vec<PartitionSurvey>,
    /// Offsets of groups that are beyond what will be there.
    pub clamped: Vec<Clamped>,
    /// When it was read.
    pub read_ms: i64,
    pub(super) state: Box<MetadataState>,
}

impl Survey {
    /// The topics as they will be.
    #[must_use]
    pub fn image(&self) -> &Image {
        self.state.image()
    }

    /// How old the newest record is that will be there, in milliseconds; `None` where there is none.
    #[must_use]
    pub fn newest_record_age_ms(&self) -> Option<i64> {
        let newest = self.partitions.iter().map(|partition| partition.newest_record_ms).max()?;
        (newest >= 0).then(|| (self.read_ms - newest).max(0))
    }

    /// How old the checkpoint of the metadata is.
    #[must_use]
    pub fn checkpoint_age_ms(&self) -> i64 {
        match &self.metadata {
            Origin::Checkpoint { append_time_ms, .. } => (self.read_ms - append_time_ms).max(0),
            Origin::Segments | Origin::Nothing => 0,
        }
    }
}

/// Where a cluster is.
#[derive(Clone)]
pub struct Bucket {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Where in it.
    pub prefix: Prefix,
}

/// Reads everything that a restore needs to know. Nothing is written.
pub async fn survey(bucket: &Bucket, now_ms: i64, progress: &dyn Progress) -> Result<Survey, RestoreError> {
    let lives = claim::lives(&*bucket.store, &bucket.prefix).await?.ok_or(RestoreError::Unclaimed)?;
    survey_of(bucket, &lives, now_ms, progress).await
}

pub(super) async fn survey_of(
    bucket: &Bucket,
    lives: &Lives,
    now_ms: i64,
    progress: &dyn Progress,
) -> Result<Survey, RestoreError> {
    let plan = Plan::of(lives)?;
    let keys = bucket.prefix.cluster(lives.newest.cluster);
    let store = &*bucket.store;
    let chosen = choose(store, &keys, Which::Metadata, plan.source).await.map_err(RestoreError::Metadata)?;
    let (metadata, metadata_damaged) = (origin_of(&chosen), chosen.damaged);
    let Decoded::Metadata { mut state, .. } = checkpoint::restore(chosen.checkpoint)? else {
        return Err(RestoreError::Contradiction("the metadata's checkpoint is a partition's"));
    };
    let unknown = unknown::topics(store, &keys, state.image(), plan.source).await?;
    state.adopt(&unknown, lives.newest.node);
    let image = state.image();
    let wanted: Vec<(Arc<Topic>, GroupId, PartitionIndex)> = image
        .groups
        .keys()
        .filter_map(|group| image.partition_of(*group))
        .map(|(topic, number, partition)| (Arc::clone(topic), partition.group, number))
        .collect();
    progress.begin("reading", wanted.len() as u64);
    let (tails, source) = (Semaphore::new(TAILS), plan.source);
    let keys = &keys;
    let reads = wanted.into_iter().map(|(topic, group, number)| {
        let identity = PartitionIdentity {
            cluster: keys.cluster(),
            incarnation: source,
            topic_id: topic.id,
            topic: topic.name.to_string(),
            partition: number,
        };
        let tails = &tails;
        async move {
            let read = partition(store, keys, (identity, group), tails).await;
            progress.step(1);
            read
        }
    });
    let mut partitions: Vec<PartitionSurvey> =
        stream::iter(reads).buffer_unordered(READS).try_collect().await?;
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    let clamped = clamp(&mut partitions);
    Ok(Survey {
        cluster: keys.cluster(),
        plan,
        metadata,
        metadata_damaged,
        unknown,
        partitions,
        clamped,
        read_ms: now_ms,
        state,
    })
}

fn origin_of(chosen: &Chosen) -> Origin {
    Origin::Checkpoint {
        key: chosen.candidate.key.clone(),
        applied: chosen.checkpoint.header.applied.index,
        append_time_ms: chosen.checkpoint.header.append_time_ms,
    }
}

async fn partition(
    store: &dyn Store,
    keys: &Keys,
    (identity, group): (PartitionIdentity, GroupId),
    tails: &Semaphore,
) -> Result<PartitionSurvey, RestoreError> {
    let of =
        |why| RestoreError::Group { topic: identity.topic.clone(), partition: identity.partition.0, why };
    let which = Which::Partition(identity.topic_id, identity.partition);
    let (origin, damaged, state, records_local) = match choose(store, keys, which, identity.incarnation).await
    {
        Ok(chosen) => {
            let (origin, records_local) = (origin_of(&chosen), chosen.checkpoint.header.records_local);
            match checkpoint::restore(chosen.checkpoint)? {
                Decoded::Partition { state, .. } => (origin, chosen.damaged, state, records_local),
                Decoded::Metadata { .. } => {
                    return Err(RestoreError::Contradiction("a partition's checkpoint is the metadata's"));
                }
            }
        }
        Err(ChooseError::NoneListed(_)) => {
            (Origin::Nothing, Vec::new(), Box::new(PartitionState::new(identity.clone())), false)
        }
        Err(why) => return Err(of(why)),
    };
    let _turn = tails.acquire().await.expect("nobody closes it");
    let keeps_bytes = state.groups().is_some();
    let place = Place { store, keys, identity: &identity, keeps_bytes };
    let end = state.bucket().root.end();
    let tail = place.tail(end, !damaged.is_empty()).await?;
    let read = Read { origin, damaged, state, records_local, tail };
    read.finish(&place, group).await
}

/// A checkpoint and what follows.
struct Read {
    origin: Origin,
    damaged: Vec<Damaged>,
    state: Box<PartitionState>,
    records_local: bool,
    tail: Tail,
}

impl Read {
    async fn finish(mut self, place: &Place<'_>, group: GroupId) -> Result<PartitionSurvey, RestoreError> {
        if self.origin == Origin::Nothing && !self.tail.segments.is_empty() {
            self.origin = Origin::Segments;
        }
        self.replay_groups();
        let (log_start, log_end) = (self.state.bucket().log_start, self.state.records().log_end);
        let root = &self.state.bucket().root;
        let entries: Vec<_> = self.tail.segments.iter().map(|segment| segment.entry.clone()).collect();
        let end = entries.last().map_or(root.end(), |entry| entry.end());
        let is_bare = entries.is_empty() && root.first().is_none() || end < log_start;
        let state = match self.tail.segments.pop() {
            Some(last) => Some(last.state),
            None if is_bare || end == log_end => None,
            None => place.state_at_end(root).await?,
        };
        let offsets = if is_bare {
            let at = log_start.max(log_end).max(end);
            at..at
        } else {
            log_start..end
        };
        // Behind what is in the bucket the checkpoint knew of more.
        let missing = end.max(log_start)..log_end;
        let gap = (missing.start < missing.end && (self.records_local || is_bare)).then_some(missing);
        let root_newest = root.places().map(|place| place.max_timestamp()).max().unwrap_or(-1);
        let newest_record_ms = entries.iter().map(|entry| entry.max_timestamp).fold(root_newest, i64::max);
        let discovered = entries.len();
        Ok(PartitionSurvey {
            group,
            topic: place.identity.topic.as_str().into(),
            topic_id: place.identity.topic_id,
            partition: place.identity.partition,
            origin: self.origin,
            damaged: self.damaged,
            offsets,
            gap,
            discovered,
            unusable: self.tail.damaged,
            beyond: self.tail.beyond,
            newest_record_ms,
            state: self.state,
            continuation: Continuation { entries, state },
        })
    }

    /// Commits that came after the checkpoint: groups are as of A, and segments that end behind A say more. Each record
    /// says all of its key, so that one which is taken in again changes nothing, as long as those behind it follow.
    fn replay_groups(&mut self) {
        let applied = self.state.bucket_index();
        let Some(groups) = self.state.groups_mut() else { return };
        for segment in self.tail.segments.iter().filter(|segment| segment.entry.roll_index > applied) {
            for block in &segment.verified.index.blocks {
                let range = block.range();
                let stored = segment.bytes.slice(range.start as usize..range.end as usize);
                let Ok(mut raw) = segment::decode_block(stored, block) else { continue };
                while let Ok(header) = varve_formats::batch::BatchHeader::read(&raw) {
                    groups.apply(&raw.split_to(header.bytes));
                }
            }
        }
    }
}

/// No group is beyond the end of a partition (G4).
fn clamp(partitions: &mut [PartitionSurvey]) -> Vec<Clamped> {
    let ends: BTreeMap<(Arc<str>, i32), (TopicId, Offset)> = partitions
        .iter()
        .map(|at| ((Arc::clone(&at.topic), at.partition.0), (at.topic_id, at.offsets.end)))
        .collect();
    let end_of = |topic: &str, partition: i32, committed: &coordinator::Committed| {
        let (id, end) = ends.get(&(Arc::from(topic), partition))?;
        // Of a topic of that name that is gone.
        let is_other = committed.topic != TopicId::ZERO && committed.topic != *id;
        (!is_other).then_some(*end)
    };
    partitions.iter_mut().filter_map(|at| Some(at.state.groups_mut()?.clamp(end_of))).flatten().collect()
}
