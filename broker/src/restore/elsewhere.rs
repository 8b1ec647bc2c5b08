//! Into another prefix: a new cluster, made of a copy of what the bucket holds, while the old one may run on.
//!
//! ```text
//!  claim      the other prefix, for a new cluster that says which life of which cluster it is a copy of
//!  copy       groups' offsets first, so that none is beyond records that come after it; then all else; then the metadata
//!  look       at the source's metadata again: what was made meanwhile is copied as well, what was deleted is passed over
//!  restore    as in place, there: the copy is the cluster's first life, and the second begins
//! ```
//! Of the source only reads and listings are asked: nothing is claimed there, and nobody who runs there has to stop.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use varve_common::{Clock, ClusterId, Disk, Entropy, Incarnation, NodeId, PartitionIndex, TopicId};
use varve_compactor::{
    copy::{self, CopiedPartition, Copier},
    history::{History, HistoryError},
};
use varve_formats::claim::{Claim, FORMAT, Origin as CopyOf};
use varve_replica::{
    coordinator,
    metadata::{MetadataState, Topic},
};
use varve_snapshot::claim::{self, Established};

use super::{Bucket, Plan, Progress, RestoreError, directory, unknown};

/// Partitions that are begun: [`copy::PARTITIONS_AT_ONCE`] of them are copied, the others wait for what may still come of them.
const PARTITIONS_BEGUN: usize = 1024;
/// How often the source's metadata is looked at for what was made meanwhile.
const LOOKS_MAX: usize = 8;

/// What a copy stands on.
pub struct Copying<'a> {
    /// What is copied; only read.
    pub source: Bucket,
    /// Where to; its prefix is empty, or holds what an earlier try has copied.
    pub target: Bucket,
    /// The node that is going to begin there.
    pub node: NodeId,
    /// Its data directory.
    pub data: &'a Path,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// Who is told.
    pub progress: &'a dyn Progress,
    /// Partitions of the groups' own topic, where only the source's bucket knows it, as its survey says.
    pub offsets_partitions: i32,
    /// Which partitions; the others are there, empty.
    pub chosen: &'a (dyn Fn(&str, PartitionIndex) -> bool + Sync),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The new cluster.
    pub cluster: ClusterId,
    /// What was copied now: nothing where an earlier try had come to its end.
    pub partitions: Vec<CopiedPartition>,
    /// Topics that were deleted in the source meanwhile: the new cluster does not know them.
    pub deleted: BTreeSet<String>,
    /// How long it took.
    pub duration: Duration,
}

/// Copies. What is there then is restored as in place, with [`super::run`]; nobody has lived there, so nobody is waited for.
pub async fn copy(copying: &Copying<'_>) -> Result<Copied, RestoreError> {
    let began = copying.clock.monotonic();
    let Bucket { store, prefix } = &copying.source;
    let lives = claim::lives(&**store, prefix).await?.ok_or(RestoreError::Unclaimed)?;
    let incarnation = Plan::of(&lives)?.source;
    let origin = CopyOf { cluster: lives.newest.cluster, incarnation };
    let (cluster, resumes) = copying.claim(origin).await?;
    let (mut partitions, mut deleted) = (Vec::new(), BTreeSet::new());
    if !resumes || !copying.is_whole(cluster).await? {
        let open = || History::open_life(Arc::clone(store), prefix, lives.clone(), incarnation);
        let (target, keys) = (&copying.target.store, copying.target.prefix.cluster(cluster));
        let copier = Copier::new(
            Arc::new(open().await?),
            Arc::clone(target),
            keys,
            resumes,
            Arc::clone(&copying.clock),
        );
        (partitions, deleted) = copying.all(copier, open).await?;
    }
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok(Copied { cluster, partitions, deleted, duration: copying.clock.monotonic().since(began) })
}

/// A partition that is to be copied.
struct Wanted {
    topic: Arc<Topic>,
    number: PartitionIndex,
}

impl Wanted {
    fn at(&self) -> (TopicId, PartitionIndex) {
        (self.topic.id, self.number)
    }

    fn is_of_groups(&self) -> bool {
        &*self.topic.name == coordinator::TOPIC
    }
}

impl Copying<'_> {
    /// Claims the prefix; the cluster's id, and whether an earlier try may have put something there.
    async fn claim(&self, origin: CopyOf) -> Result<(ClusterId, bool), RestoreError> {
        let mine = Claim {
            cluster: ClusterId::from_random(self.entropy.next_u128()),
            incarnation: Incarnation::FIRST,
            created_ms: self.clock.wall_ms(),
            node: self.node,
            format: FORMAT,
            origin: Some(origin),
        };
        let Bucket { store, prefix } = &self.target;
        let claim = match claim::begin_copy(&**store, prefix, mine).await? {
            Established::Created(claim) => return Ok((claim.cluster, false)),
            Established::Confirmed(claim) => claim,
        };
        // A node may live there. This directory's own restore is the one that may have been ended before it knew.
        let lives = claim::lives(&**store, prefix).await?;
        let begun = directory::begun(&*self.disk, self.data)?;
        let is_mine = begun.is_some_and(|begun| begun.cluster == claim.cluster);
        if !is_mine && lives.is_some_and(|lives| lives.complete.is_some()) {
            return Err(RestoreError::Inhabited(claim.cluster));
        }
        Ok((claim.cluster, true))
    }

    async fn is_whole(&self, cluster: ClusterId) -> Result<bool, RestoreError> {
        Ok(copy::is_whole(&*self.target.store, &self.target.prefix, cluster).await?)
    }

    /// Copies until a look at the source's metadata shows nothing that is not copied, and then that metadata. What was copied of what
    /// it names, and which topics it does not name any more.
    async fn all<F: Future<Output = Result<History, HistoryError>>>(
        &self,
        mut copier: Copier,
        open: impl Fn() -> F,
    ) -> Result<(Vec<CopiedPartition>, BTreeSet<String>), RestoreError> {
        let (mut copied, mut done) = (Vec::new(), BTreeMap::new());
        for _ in 0..LOOKS_MAX {
            let (state, mut missing) = self.wanted(copier.source()).await?;
            missing.retain(|wanted| !done.contains_key(&wanted.at()));
            if missing.is_empty() {
                copier.metadata(&state).await?;
                let is_there = |id: TopicId| state.image().topic(id).is_some();
                copied.retain(|at: &CopiedPartition| is_there(at.topic_id));
                let deleted = done.into_iter().filter(|((id, _), _)| !is_there(*id));
                return Ok((copied, deleted.map(|(_, name)| name).collect()));
            }
            done.extend(missing.iter().map(|wanted| (wanted.at(), wanted.topic.name.to_string())));
            self.progress.begin("copying", missing.len() as u64);
            let (groups, others): (Vec<_>, Vec<_>) = missing.into_iter().partition(Wanted::is_of_groups);
            for some in [groups, others] {
                copied.extend(self.partitions(&copier, some, &open).await?);
            }
            copier = copier.with(Arc::new(open().await?));
        }
        Err(RestoreError::Restless)
    }

    /// The source's metadata with what only its objects know, and what is to be copied of them.
    async fn wanted(&self, source: &History) -> Result<(MetadataState, Vec<Wanted>), RestoreError> {
        let mut state = source.metadata().state.clone();
        let (store, life) = (&**source.store(), source.incarnation());
        let offsets_partitions = self.offsets_partitions;
        let newer =
            unknown::find((store, None), source.keys(), state.image(), life, offsets_partitions).await?;
        state.adopt(&newer.topics, &newer.partitions, self.node);
        let all = state.image().topics.values().flat_map(|topic| {
            (0..)
                .zip(&topic.partitions)
                .map(|(number, _)| Wanted { topic: Arc::clone(topic), number: PartitionIndex(number) })
        });
        let wanted = all.filter(|wanted| (self.chosen)(&wanted.topic.name, wanted.number)).collect();
        Ok((state, wanted))
    }

    /// Those of them that are still there in the end.
    async fn partitions<F: Future<Output = Result<History, HistoryError>>>(
        &self,
        copier: &Copier,
        wanted: Vec<Wanted>,
        open: &impl Fn() -> F,
    ) -> Result<Vec<CopiedPartition>, RestoreError> {
        let each = wanted.into_iter().map(|Wanted { topic, number }| async move {
            let copied = copier.partition(&topic, number).await;
            self.progress.step(1);
            match copied {
                Ok(copied) => Ok(Some(copied)),
                Err(why) if why.is_of_source() && was_deleted(copier.source(), &open().await?, topic.id) => {
                    Ok(None)
                }
                Err(why) => Err(RestoreError::from(why)),
            }
        });
        let copied = stream::iter(each).buffer_unordered(PARTITIONS_BEGUN);
        copied.try_filter_map(|copied| async move { Ok(copied) }).try_collect().await
    }
}

/// Whether a topic went between two looks because it was deleted: nothing of it goes before the metadata in the bucket says so, and nothing
/// else takes it out of the metadata. Of one that only its objects told of the journal of deletions must say it.
fn was_deleted(before: &History, now: &History, id: TopicId) -> bool {
    let was_known = before.image().topic(id).is_some() || now.image().deletions.contains_key(&id);
    // Where the newest metadata could not be read an older one may be from before the topic was made.
    was_known && now.image().topic(id).is_none() && now.image().index >= before.image().index
}
