//! What the bucket holds, read and never written: which life, which checkpoint of each group, what follows behind it, where
//! each partition will end, and what is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use varve_common::{GroupId, Incarnation, LogIndex, ObjectKey, Offset, PartitionIndex, TopicId};
use varve_compactor::history::{History, Hole};
use varve_formats::{checkpoint::CheckpointHeader, keys::Prefix, manifest::Entry};
use varve_objects::{Listed, Store};
use varve_replica::{
    coordinator::{self, Clamped, Groups},
    metadata::{Image, MetadataState, Topic},
    rebirth::{Added, Before, Continuation, Unknown},
};
use varve_snapshot::{
    choose::{Candidate, Damaged},
    claim::{self, Lives},
};

use super::{
    Progress, RestoreError,
    foreseen::Foreseen,
    groups::{Strayed, clamp, fit, strayed},
    publication,
    tail::{self, Segments},
    unknown::{self, Newer},
};
use crate::config::Config;

/// Groups that are read at once. What follows their checkpoints is bounded by its bytes ([`History::memory`]).
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

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Partitions of the groups' own topic, where only the bucket knows it.
    pub offsets_partitions: i32,
    /// Topics, or partitions as `TOPIC-N`, that may begin without what was lost of them.
    pub accepted: Vec<String>,
}

impl Options {
    /// What a node's configuration says; nothing is accepted.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self { offsets_partitions: config.groups.topic.partitions, accepted: Vec::new() }
    }

    /// The groups that `accepted` names. A topic of such a name goes before a partition.
    fn accepted_of(&self, wanted: &[Wanted]) -> Result<BTreeSet<GroupId>, RestoreError> {
        let mut accepted = BTreeSet::new();
        for name in &self.accepted {
            let of_topic = |at: &&Wanted| *at.0.name == **name;
            let is_one = |at: &&Wanted| format!("{}-{}", at.0.name, at.2) == *name;
            let mut named: Vec<GroupId> = wanted.iter().filter(of_topic).map(|at| at.1).collect();
            if named.is_empty() {
                named.extend(wanted.iter().find(is_one).map(|at| at.1));
            }
            if named.is_empty() {
                return Err(RestoreError::NotThere(name.clone()));
            }
            accepted.extend(named);
        }
        Ok(accepted)
    }
}

/// One partition that is to be restored.
type Wanted = (Arc<Topic>, GroupId, PartitionIndex);

/// What of a partition cannot be restored, because nothing that is whole says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Why.
    pub why: String,
    /// Whether that was accepted: else nothing is restored.
    pub accepted: bool,
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
    /// What must be accepted before it is restored.
    pub lost: Option<Lost>,
    /// What is missing before an object that is there: it is still on its way, or lost.
    pub hole: Option<Hole>,
    /// What else is wrong behind it.
    pub troubles: Vec<String>,
    /// The largest timestamp among the records that will be there; -1 where there is none.
    pub newest_record_ms: i64,
    /// All names of its objects, where one listing had them.
    names: Option<Arc<[Listed]>>,
    pub(super) before: Before,
    pub(super) continuation: Continuation,
}

impl PartitionSurvey {
    /// What groups have committed there, where it is a partition of their topic.
    #[must_use]
    pub const fn groups(&self) -> Option<&Groups> {
        self.before.groups.as_ref()
    }

    /// Why what lies behind its end is not restored.
    pub fn left(&self) -> impl Iterator<Item = String> {
        self.troubles.iter().cloned().chain(self.hole.as_ref().map(Hole::to_string))
    }

    /// Whether a second look would read the same: an object's bytes are what they were, so that the same names of the same life say
    /// the same. What groups have committed was changed by [`clamp`], and what is damaged may have been read badly.
    fn stands(&self, wanted: &Wanted, names: Option<&Arc<[Listed]>>) -> bool {
        let (topic, group, number) = wanted;
        let is_it = (&*self.topic, self.topic_id, self.partition, self.group)
            == (&*topic.name, topic.id, *number, *group);
        let is_whole =
            self.lost.is_none() && self.damaged.is_empty() && self.troubles.is_empty() && self.hole.is_none();
        is_it && is_whole && self.groups().is_none() && names.is_some() && self.names.as_ref() == names
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
    /// Partitions that were added after it.
    pub added: Vec<Added>,
    /// By topic and partition.
    pub partitions: Vec<PartitionSurvey>,
    /// Offsets of groups that are beyond what will be there.
    pub clamped: Vec<Clamped>,
    /// Groups that lie where nobody looks for them: their topic has another number of partitions than it had.
    pub strayed: Vec<Strayed>,
    /// When it was read.
    pub read_ms: i64,
    /// The metadata as of its checkpoint, with what was made since.
    pub(super) state: Box<MetadataState>,
    /// The same as a restore that did not come to its end has begun the life with it.
    pub(super) begun: Option<Box<MetadataState>>,
}

impl Survey {
    /// The topics as they will be.
    #[must_use]
    pub fn image(&self) -> &Image {
        self.state.image()
    }

    /// How many partitions the groups' own topic has; 0 where there is none.
    #[must_use]
    pub fn offsets_partitions(&self) -> i32 {
        self.image().topic_by_name(coordinator::TOPIC).map_or(0, |topic| topic.partitions.len() as i32)
    }

    /// Partitions of which something is lost that nobody has accepted, and why.
    #[must_use]
    pub fn unaccepted(&self) -> Vec<String> {
        let open = self.partitions.iter().filter_map(|at| {
            let lost = at.lost.as_ref().filter(|lost| !lost.accepted)?;
            Some(format!("{}-{} ({})", at.topic, at.partition, lost.why))
        });
        open.collect()
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
pub async fn survey(
    bucket: &Bucket,
    options: &Options,
    now_ms: i64,
    progress: &dyn Progress,
) -> Result<Survey, RestoreError> {
    let lives = claim::lives(&*bucket.store, &bucket.prefix).await?.ok_or(RestoreError::Unclaimed)?;
    survey_of(bucket, (&lives, Plan::of(&lives)?), (options, None), now_ms, progress).await
}

pub(super) async fn survey_of(
    bucket: &Bucket,
    (lives, plan): (&Lives, Plan),
    (options, earlier): (&Options, Option<&Survey>),
    now_ms: i64,
    progress: &dyn Progress,
) -> Result<Survey, RestoreError> {
    let names = Arc::new(Foreseen::new(Arc::clone(&bucket.store)));
    let store: Arc<dyn Store> = Arc::<Foreseen>::clone(&names);
    let history = History::open_life(store, &bucket.prefix, lives.clone(), plan.source).await?;
    let earlier = earlier
        .filter(|earlier| (earlier.cluster, earlier.plan.source) == (history.keys().cluster(), plan.source));
    let reading = Reading { history: &history, names: &names, options, earlier, progress };
    let metadata = history.metadata();
    let (origin, metadata_damaged) =
        (origin_of(&metadata.candidate, &metadata.header), metadata.damaged.clone());
    let mut state = Box::new(metadata.state.clone());
    let begun = if plan.resumes {
        publication::begun(&*bucket.store, history.keys(), plan.target).await?
    } else {
        None
    };
    // Whoever began the life has said what is in it; the metadata of a copy came last, and knows all that was copied.
    let mut newer = if begun.is_some() || is_copy(bucket, plan.source).await? {
        Newer::default()
    } else {
        let (keys, offsets_partitions) = (history.keys(), options.offsets_partitions);
        let from = (&*bucket.store, Some(&*names));
        unknown::find(from, keys, state.image(), plan.source, offsets_partitions).await?
    };
    state.adopt(&newer.topics, &newer.partitions, lives.newest.node);
    if let Some(begun) = &begun {
        state.clone_from(begun);
    }
    let mut partitions = reading.partitions(state.image()).await?;
    if fit(&mut newer.topics, &partitions) {
        *state = metadata.state.clone();
        state.adopt(&newer.topics, &newer.partitions, lives.newest.node);
        partitions = reading.partitions(state.image()).await?;
    }
    let Newer { topics: unknown, partitions: added } = newer;
    let (clamped, strayed) = (clamp(&mut partitions), strayed(&partitions));
    Ok(Survey {
        cluster: history.keys().cluster(),
        plan,
        metadata: origin,
        metadata_damaged,
        unknown,
        added,
        partitions,
        clamped,
        strayed,
        read_ms: now_ms,
        state,
        begun,
    })
}

/// Whether a life is the copy of another cluster's.
async fn is_copy(bucket: &Bucket, life: Incarnation) -> Result<bool, RestoreError> {
    let first = Incarnation::FIRST;
    Ok(life == first && claim::read(&*bucket.store, &bucket.prefix, first).await?.origin.is_some())
}

/// What partitions are read with.
struct Reading<'a> {
    history: &'a History,
    names: &'a Foreseen,
    options: &'a Options,
    earlier: Option<&'a Survey>,
    progress: &'a dyn Progress,
}

impl Reading<'_> {
    /// Reads all of them, in the order in which they are told.
    async fn partitions(&self, image: &Image) -> Result<Vec<PartitionSurvey>, RestoreError> {
        let wanted: Vec<Wanted> = image
            .groups
            .keys()
            .filter_map(|group| image.partition_of(*group))
            .map(|(topic, number, partition)| (Arc::clone(topic), partition.group, number))
            .collect();
        let accepted = &self.options.accepted_of(&wanted)?;
        let earlier = self.earlier.map_or(&[][..], |earlier| &earlier.partitions);
        let earlier: &BTreeMap<GroupId, &PartitionSurvey> =
            &earlier.iter().map(|at| (at.group, at)).collect();
        self.progress.begin("reading", wanted.len() as u64);
        let reads = wanted.into_iter().map(|wanted| async move {
            let names = self.names.names(&self.history.keys().partition(wanted.0.id, wanted.2));
            let known = earlier.get(&wanted.1).filter(|known| known.stands(&wanted, names.as_ref()));
            let read = match known {
                Some(known) => Ok((*known).clone()),
                None => partition(self.history, wanted, names, accepted).await,
            };
            self.progress.step(1);
            read
        });
        let mut partitions: Vec<PartitionSurvey> =
            stream::iter(reads).buffer_unordered(READS).try_collect().await?;
        partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(partitions)
    }
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
    (topic, group, number): Wanted,
    names: Option<Arc<[Listed]>>,
    accepted: &BTreeSet<GroupId>,
) -> Result<PartitionSurvey, RestoreError> {
    let (read, mut lost) = match history.partition(&topic, number).await {
        Ok(read) => (read, Vec::new()),
        Err(why) if why.is_lost() => (history.remains(&topic, number).await?, vec![why.to_string()]),
        Err(why) => return Err(why.into()),
    };
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
        tolerated(segments.replay(groups, applied).await, &mut lost)?;
    }
    let entries: Vec<Entry> = read.tail.segments.iter().map(|segment| segment.entry.clone()).collect();
    let offsets = before.offsets(&entries);
    let state = match &read.tail.state {
        Some(state) => Some(state.clone()),
        None if offsets.is_empty() || offsets.end == before.point().offset => None,
        None => tolerated(segments.state_at_end().await, &mut lost)?.flatten(),
    };
    // Behind what is in the bucket the checkpoint knew of more.
    let missing = read.end().max(before.state.bucket.log_start)..read.known_end();
    let root_newest = read.state.root.places().map(|place| place.max_timestamp()).max().unwrap_or(-1);
    let newest_record_ms = entries.iter().map(|entry| entry.max_timestamp).fold(root_newest, i64::max);
    let mut troubles: Vec<String> =
        read.tail.passed.iter().map(|(key, trouble)| format!("{key}: {trouble}")).collect();
    troubles.extend(tail::stopped(&read.tail.stop));
    Ok(PartitionSurvey {
        group,
        topic: read.identity.topic.as_str().into(),
        topic_id: read.identity.topic_id,
        partition: number,
        origin,
        gap: (missing.start < missing.end).then_some(missing),
        records_local: read.records_were_local(),
        hole: read.hole(),
        discovered: entries.len(),
        damaged: read.damaged,
        lost: (!lost.is_empty()).then(|| Lost { why: lost.join("; "), accepted: accepted.contains(&group) }),
        offsets,
        troubles,
        newest_record_ms,
        names,
        before,
        continuation: Continuation { entries, state },
    })
}

/// What a segment that cannot be read would have said is lost, if that is accepted.
fn tolerated<T>(read: Result<T, RestoreError>, lost: &mut Vec<String>) -> Result<Option<T>, RestoreError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(why @ RestoreError::Segment { .. }) => {
            lost.push(why.to_string());
            Ok(None)
        }
        Err(why) => Err(why),
    }
}
