//! What the bucket holds, read and never written: which life, which checkpoint of each group, what follows behind it, where
//! each partition will end, and what is missing.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use varve_common::{GroupId, Incarnation, LogIndex, ObjectKey, Offset, PartitionIndex, TopicId};
use varve_compactor::history::{History, Stop};
use varve_formats::{checkpoint::CheckpointHeader, keys::Prefix, manifest::Entry};
use varve_objects::Store;
use varve_replica::{
    coordinator::{self, Clamped, Groups},
    metadata::{Image, MetadataState, Topic},
    rebirth::{Before, Continuation, Unknown},
};
use varve_snapshot::{
    choose::{Candidate, Damaged},
    claim::{self, Lives},
};

use super::{Progress, RestoreError, tail::Segments, unknown};

/// Groups that are read at once; of what follows a checkpoint each has one segment in memory.
const READS: usize = 16;

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
    /// Records that the checkpoint knew of and the bucket does not have: they are gone.
    pub gap: Option<Range<Offset>>,
    /// Whether its records stayed on nodes: its topic did not tier.
    pub records_local: bool,
    /// Segments behind the checkpoint's manifest.
    pub discovered: usize,
    /// What else is wrong behind it.
    pub troubles: Vec<String>,
    /// The largest timestamp among the records that will be there; -1 where there is none.
    pub newest_record_ms: i64,
    pub(super) before: Before,
    pub(super) continuation: Continuation,
}

impl PartitionSurvey {
    /// What groups have committed there, where it is a partition of their topic.
    #[must_use]
    pub const fn groups(&self) -> Option<&Groups> {
        self.before.groups.as_ref()
    }
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
    let store = Arc::clone(&bucket.store);
    let history = History::open_life(store, &bucket.prefix, lives.clone(), plan.source).await?;
    let metadata = history.metadata();
    let (origin, metadata_damaged) =
        (origin_of(&metadata.candidate, &metadata.header), metadata.damaged.clone());
    let mut state = Box::new(metadata.state.clone());
    let unknown = if is_copy(bucket, plan.source).await? {
        // Its metadata came last, and knows all that was copied.
        Vec::new()
    } else {
        unknown::topics(&*bucket.store, history.keys(), state.image(), plan.source).await?
    };
    state.adopt(&unknown, lives.newest.node);
    let image = state.image();
    let wanted: Vec<(Arc<Topic>, GroupId, PartitionIndex)> = image
        .groups
        .keys()
        .filter_map(|group| image.partition_of(*group))
        .map(|(topic, number, partition)| (Arc::clone(topic), partition.group, number))
        .collect();
    progress.begin("reading", wanted.len() as u64);
    let history = &history;
    let reads = wanted.into_iter().map(|(topic, group, number)| async move {
        let read = partition(history, &topic, group, number).await;
        progress.step(1);
        read
    });
    let mut partitions: Vec<PartitionSurvey> =
        stream::iter(reads).buffer_unordered(READS).try_collect().await?;
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    let clamped = clamp(&mut partitions);
    Ok(Survey {
        cluster: history.keys().cluster(),
        plan,
        metadata: origin,
        metadata_damaged,
        unknown,
        partitions,
        clamped,
        read_ms: now_ms,
        state,
    })
}

/// Whether a life is the copy of another cluster's.
async fn is_copy(bucket: &Bucket, life: Incarnation) -> Result<bool, RestoreError> {
    let first = Incarnation::FIRST;
    Ok(life == first && claim::read(&*bucket.store, &bucket.prefix, first).await?.origin.is_some())
}

fn origin_of(candidate: &Candidate, header: &CheckpointHeader) -> Origin {
    Origin::Checkpoint {
        key: candidate.key.clone(),
        applied: header.applied.index,
        append_time_ms: header.append_time_ms,
    }
}

async fn partition(
    history: &History,
    topic: &Topic,
    group: GroupId,
    number: PartitionIndex,
) -> Result<PartitionSurvey, RestoreError> {
    let read = history.partition(topic, number).await?;
    let origin = match &read.checkpoint {
        Some((candidate, header)) => origin_of(candidate, header),
        None if read.tail.segments.is_empty() => Origin::Nothing,
        None => Origin::Segments,
    };
    let header = read.checkpoint.as_ref().map(|(_, header)| header.clone());
    let mut before = Before::of(read.identity.clone(), header, read.state.clone())?;
    let segments = Segments { history, of: &read };
    let applied = before.applied();
    if let Some(groups) = &mut before.groups {
        segments.replay(groups, applied).await?;
    }
    let entries: Vec<Entry> = read.tail.segments.iter().map(|segment| segment.entry.clone()).collect();
    let offsets = before.offsets(&entries);
    let state = match &read.tail.state {
        Some(state) => Some(state.clone()),
        None if offsets.is_empty() || offsets.end == before.point().offset => None,
        None => segments.state_at_end().await?,
    };
    // Behind what is in the bucket the checkpoint knew of more.
    let missing = read.end().max(before.state.bucket.log_start)..read.known_end();
    let root_newest = read.state.root.places().map(|place| place.max_timestamp()).max().unwrap_or(-1);
    let newest_record_ms = entries.iter().map(|entry| entry.max_timestamp).fold(root_newest, i64::max);
    let mut troubles: Vec<String> =
        read.tail.passed.iter().map(|(key, trouble)| format!("{key}: {trouble}")).collect();
    troubles.extend(stopped(&read.tail.stop));
    Ok(PartitionSurvey {
        group,
        topic: read.identity.topic.as_str().into(),
        topic_id: read.identity.topic_id,
        partition: number,
        origin,
        gap: (missing.start < missing.end).then_some(missing),
        records_local: read.records_were_local(),
        discovered: entries.len(),
        damaged: read.damaged,
        offsets,
        troubles,
        newest_record_ms,
        before,
        continuation: Continuation { entries, state },
    })
}

/// Why what lies behind the end is not restored.
fn stopped(stop: &Stop) -> Option<String> {
    match stop {
        Stop::End => None,
        Stop::Gap { end, next } => Some(format!("what begins at {next} does not follow on {end}")),
        Stop::Fork { base, keys } => {
            let keys: Vec<&str> = keys.iter().map(ObjectKey::as_str).collect();
            Some(format!("objects at {base} overlap and do not agree: {}", keys.join(", ")))
        }
        Stop::Broken { key, trouble } => Some(format!("{key}: {trouble}; nothing behind it follows")),
        Stop::Stray(key) => Some(format!("{key} is of another lineage")),
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
    partitions.iter_mut().filter_map(|at| Some(at.before.groups.as_mut()?.clamp(end_of))).flatten().collect()
}
