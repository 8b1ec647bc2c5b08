//! A cluster from its bucket alone: the next life, begun on one node (TIERING.md 8 and 11d).
//!
//! ```text
//!  survey    lives -> newest complete one -> metadata -> each partition: checkpoint, what follows it, where it ends
//!  claim     the next life, create-only; wait until whoever lives the one before has seen that, and stopped
//!  survey    once more: what was still on its way is there now
//!  publish   every partition's first checkpoint in the new life, then the metadata's: read back whole
//!  seed      the data directory: a local checkpoint of each group, and a log that begins behind it
//!  complete  only now is the life one that can be restored from; then the directory is a node's
//! ```
//! Whatever ends it half-way, the next restore resumes the life that was claimed: groups that have a checkpoint in it keep
//! that, also where another machine goes on. The life before is not looked at again once the new one is complete.
//!
//! The node begins alone. Others join it with empty disks, and partitions get back as many replicas as they had
//! (`runtime::regrowing`).

mod directory;
mod elsewhere;
mod survey;
mod tail;
mod unknown;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use varve_common::{
    Clock, ClusterId, Disk, Entropy, GroupId, Incarnation, ObjectKey, ReplicaId, codec::DecodeError,
};
use varve_compactor::history::HistoryError;
use varve_consensus::Membership;
use varve_formats::{
    claim::{Claim, Complete, FORMAT},
    command::PublishedCheckpoint,
    compression::Codec,
    keys::{CheckpointName, Key, Keys, PartitionKeys},
};
use varve_objects::Failure;
use varve_replica::{
    checkpoint::{self, Captured, Decoded},
    metadata::MetadataState,
    partition::PartitionState,
    rebirth::NewLife,
};
use varve_snapshot::{
    choose::{ChooseError, Which, choose},
    claim::{self, ClaimError, Established},
    local, publish,
    publish::PublishError,
};

use self::directory::{Directory, Marker, Seeded};
pub use self::{
    directory::{is_unfinished, restored},
    elsewhere::{Copied, Copying, copy},
    survey::{Bucket, Origin, PartitionSurvey, Plan, Survey, survey},
};
use crate::{
    config::Config,
    metrics::Metrics,
    runtime::{
        birth::BirthError,
        data::LockError,
        identity::{Identity, IdentityError},
        small_file::SmallFileError,
    },
};

/// Groups whose checkpoints are published at once.
const PUBLICATIONS: usize = 16;

/// Why a cluster is not restored. Nothing that was there is changed by any of it.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is nothing to restore.
    #[error("no cluster has claimed this prefix: there is nothing to restore")]
    Unclaimed,
    /// Lives are counted by 32 bits.
    #[error("there were too many lives")]
    TooManyLives,
    /// Whose the prefix is.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// As the failure says.
    #[error(transparent)]
    Store(#[from] Failure),
    /// What there is cannot be read, or is damaged.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A checkpoint of the life that begins cannot be read.
    #[error("{what}: {why}")]
    Choose {
        /// Of what.
        what: String,
        /// Why.
        why: ChooseError,
    },
    /// What the manifest names does not read back, and something in it is needed.
    #[error("{key}, which the manifest names, cannot be read: {why}")]
    Segment {
        /// Which.
        key: ObjectKey,
        /// Why.
        why: String,
    },
    /// No release writes them.
    #[error("an object that several partitions share")]
    Pack,
    /// A checkpoint that is whole does not make sense.
    #[error("a checkpoint does not read back: {0}")]
    Decode(#[from] DecodeError),
    /// The same.
    #[error("{0}")]
    Contradiction(&'static str),
    /// Another restore was faster.
    #[error("another restore has completed incarnation {}: start the node that it made. What was begun in this directory is of no use", .0.0)]
    Overtaken(Incarnation),
    /// Into another prefix: what is there cannot be copied.
    #[error(transparent)]
    Copy(#[from] varve_compactor::copy::CopyError),
    /// Into another prefix: topics were made as fast as they were copied.
    #[error("topics are made faster than they are copied")]
    Restless,
    /// Into another prefix: it was done, and somebody may live there.
    #[error(
        "the prefix holds cluster {0}, a copy that has begun to live: its own `varve restore` brings it back"
    )]
    Inhabited(ClusterId),
    /// A checkpoint of the new life is not in the bucket.
    #[error("the first checkpoint of {what} is not published: {why}")]
    Publish {
        /// Of what.
        what: String,
        /// Why.
        why: PublishError,
    },
    /// The data directory is somebody's.
    #[error("{} is not empty: a cluster is restored into an empty data directory", .0.display())]
    NotEmpty(PathBuf),
    /// A process runs on it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The disk.
    #[error("data directory: {0}")]
    Io(#[from] io::Error),
    /// The disk.
    #[error(transparent)]
    SmallFile(#[from] SmallFileError),
    /// The disk.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The disk.
    #[error(transparent)]
    Birth(#[from] BirthError),
    /// The disk.
    #[error(transparent)]
    Checkpoint(#[from] local::WriteError),
    /// The log.
    #[error("write-ahead log: {0}")]
    Open(#[from] varve_wal::OpenError),
    /// The log.
    #[error("write-ahead log: {0}")]
    Append(#[from] varve_wal::AppendError),
    /// The log.
    #[error("write-ahead log: {0}")]
    Sync(#[from] varve_wal::SyncError),
}

/// Who is told how far it is.
pub trait Progress: Send + Sync {
    /// A stage begins, of so many steps.
    fn begin(&self, what: &'static str, steps: u64);
    /// So many steps of it are done.
    fn step(&self, steps: u64);
}

/// What a restore took, and what it cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The life that began.
    pub incarnation: Incarnation,
    /// From the start to a directory that a broker can be started on, in milliseconds; the wait is part of it.
    pub duration_ms: i64,
    /// How old the newest record is that was restored, when the restore began; -1 where there is none.
    pub newest_record_age_ms: i64,
    /// How old the metadata's checkpoint was then.
    pub checkpoint_age_ms: i64,
}

impl Outcome {
    /// Shows it as long as the node lives.
    pub(crate) fn count(&self, metrics: &Metrics) {
        let seconds = |ms: i64| ms.max(0) as f64 / 1000.0;
        let handles = &metrics.handles;
        handles.restore_duration.set(seconds(self.duration_ms));
        handles.restore_record_age.set(seconds(self.newest_record_age_ms));
        handles.restore_checkpoint_age.set(seconds(self.checkpoint_age_ms));
    }

    fn encode(&self) -> Vec<u8> {
        let times = [self.duration_ms, self.newest_record_age_ms, self.checkpoint_age_ms];
        let times = times.into_iter().flat_map(i64::to_le_bytes);
        self.incarnation.0.to_le_bytes().into_iter().chain(times).collect()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (incarnation, times) = bytes.split_at_checked(4)?;
        let time = |place: usize| {
            let bytes = times.get(place * 8..place * 8 + 8)?;
            Some(i64::from_le_bytes(bytes.try_into().ok()?))
        };
        Some(Self {
            incarnation: Incarnation(u32::from_le_bytes(incarnation.try_into().ok()?)),
            duration_ms: time(0)?,
            newest_record_age_ms: time(1)?,
            checkpoint_age_ms: time(2)?,
        })
    }
}

/// What a restore stands on.
pub struct Ground<'a> {
    /// The node's configuration.
    pub config: &'a Config,
    /// The cluster's bucket, to be written to.
    pub bucket: Bucket,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// How long whoever still lives the life before has until it must have stopped.
    pub wait: Duration,
    /// What it took to get here: a copy.
    pub before: Duration,
    /// Who is told.
    pub progress: &'a dyn Progress,
}

/// Restores the cluster; what was restored, and what it took.
pub async fn run(ground: Ground<'_>) -> Result<(Survey, Outcome), RestoreError> {
    let began = ground.clock.monotonic();
    let mut directory = Directory::take(Arc::clone(&ground.disk), &ground.config.data_directory)?;
    let lives = claim::lives(&*ground.bucket.store, &ground.bucket.prefix).await?;
    let lives = lives.ok_or(RestoreError::Unclaimed)?;
    let mut plan = Plan::of(&lives)?;
    let cluster = lives.newest.cluster;
    // A crash between the last two steps: the life is complete, and this directory's.
    let mine = directory.marker.filter(|mine| mine.cluster == cluster);
    if let (Some(mine), Some(complete)) = (mine, lives.complete)
        && mine.incarnation <= complete
    {
        // Whoever lost a race does not end the winner's life by trying again.
        if mine.incarnation < complete || !ground.is_completed_by(mine).await? {
            return Err(RestoreError::Overtaken(complete));
        }
        plan = Plan { source: mine.incarnation, target: mine.incarnation, resumes: true };
    }
    let completed_ms = match mine.filter(|mine| mine.incarnation == plan.target) {
        Some(mine) => mine.completed_ms,
        None => ground.clock.wall_ms(),
    };
    let marker = Marker { cluster, incarnation: plan.target, completed_ms };
    directory.begin(marker)?;
    if !plan.resumes {
        ground.claim(cluster, plan.target).await?;
    }
    ground.progress.begin("waiting until an earlier life has ended", 0);
    ground.clock.sleep(ground.wait).await;
    let mut survey =
        survey::survey_of(&ground.bucket, &lives, ground.clock.wall_ms(), ground.progress).await?;
    survey.plan = plan;
    let groups = ground.publish(&mut survey).await?;
    directory.seed(ground.config, &groups, &*ground.entropy)?;
    ground.complete(marker, groups.len() as u64).await?;
    let outcome = Outcome {
        incarnation: plan.target,
        duration_ms: (ground.before + ground.clock.monotonic().since(began)).as_millis() as i64,
        newest_record_age_ms: survey.newest_record_age_ms().unwrap_or(-1),
        checkpoint_age_ms: survey.checkpoint_age_ms(),
    };
    let identity = Identity { cluster, incarnation: plan.target, node: ground.config.node };
    directory.finish(identity, &outcome)?;
    Ok((survey, outcome))
}

impl Ground<'_> {
    /// Claims the life. Whoever comes second is told that it is there, and resumes it.
    async fn claim(&self, cluster: ClusterId, incarnation: Incarnation) -> Result<(), RestoreError> {
        let created_ms = self.clock.wall_ms();
        let claim =
            Claim { cluster, incarnation, created_ms, node: self.config.node, format: FORMAT, origin: None };
        match claim::begin(&*self.bucket.store, &self.bucket.prefix, claim).await? {
            Established::Created(_) | Established::Confirmed(_) => Ok(()),
        }
    }

    async fn is_completed_by(&self, mine: Marker) -> Result<bool, RestoreError> {
        let marker = claim::completion(&*self.bucket.store, &self.bucket.prefix, mine.incarnation).await?;
        Ok(marker.cluster == mine.cluster && marker.completed_ms == mine.completed_ms)
    }

    /// Says that the life can be restored from, where nobody else has: two machines may have resumed it.
    async fn complete(&self, mine: Marker, groups: u64) -> Result<(), RestoreError> {
        let Marker { cluster, incarnation, completed_ms } = mine;
        let (store, prefix) = (&*self.bucket.store, &self.bucket.prefix);
        claim::check(store, prefix, cluster, incarnation).await?;
        let complete = Complete { cluster, incarnation, completed_ms, groups };
        claim::complete(store, prefix, complete).await?;
        if self.is_completed_by(mine).await? { Ok(()) } else { Err(RestoreError::Overtaken(incarnation)) }
    }

    /// Publishes what the life has not yet; gives what the node begins with, the metadata first.
    async fn publish(&self, survey: &mut Survey) -> Result<Vec<Seeded>, RestoreError> {
        let keys = self.bucket.prefix.cluster(survey.cluster);
        let life = NewLife {
            incarnation: survey.plan.target,
            node: self.config.node,
            wall_ms: self.clock.wall_ms(),
        };
        let (metadata, is_new) = self.metadata(survey, &keys, life).await?;
        self.progress.begin("publishing", survey.partitions.len() as u64 + 1);
        let (keys, metadata_ref, resumes) = (&keys, &metadata, survey.plan.resumes);
        let each = survey.partitions.iter().map(|partition| async move {
            let seeded = self.partition(partition, metadata_ref, keys, life, resumes).await;
            self.progress.step(1);
            seeded
        });
        let mut groups: Vec<Seeded> = stream::iter(each).buffer_unordered(PUBLICATIONS).try_collect().await?;
        let alone = ReplicaId::new(life.node, 1).expect("1 is a counter");
        let captured = Captured::metadata(&metadata, &Membership::from(vec![alone]));
        if is_new {
            let name = self.name(&captured);
            let key = keys.build(&Key::MetadataCheckpoint(life.incarnation, name));
            self.put(keys, &key, &captured, "the metadata").await?;
        }
        self.progress.step(1);
        groups.push(Seeded {
            group: GroupId::METADATA,
            replica: alone,
            place: metadata.applied(),
            checkpoint: captured.encode(Codec::Zstd),
        });
        groups.sort_by_key(|group| group.group);
        Ok(groups)
    }

    /// The metadata as the life begins with it, and whether it is not in the bucket yet.
    async fn metadata(
        &self,
        survey: &Survey,
        keys: &Keys,
        life: NewLife,
    ) -> Result<(Box<MetadataState>, bool), RestoreError> {
        if survey.plan.resumes {
            match choose(&*self.bucket.store, keys, Which::Metadata, life.incarnation).await {
                Ok(chosen) => {
                    let Decoded::Metadata { mut state, .. } = checkpoint::restore(chosen.checkpoint)? else {
                        return Err(RestoreError::Contradiction(
                            "the metadata's checkpoint is a partition's",
                        ));
                    };
                    // Whoever began may be another node.
                    state.settle_on(life.node);
                    return Ok((state, false));
                }
                Err(ChooseError::NoneListed(_) | ChooseError::AllDamaged(_)) => {}
                Err(why) => return Err(RestoreError::Choose { what: "the metadata".to_owned(), why }),
            }
        }
        Ok((Box::new(survey.state.reborn(life)), true))
    }

    async fn partition(
        &self,
        partition: &PartitionSurvey,
        metadata: &MetadataState,
        keys: &Keys,
        life: NewLife,
        resumes: bool,
    ) -> Result<Seeded, RestoreError> {
        let what = || format!("{}-{}", partition.topic, partition.partition);
        let placed = metadata.image().partition_of(partition.group);
        let (_, _, placed) =
            placed.ok_or(RestoreError::Contradiction("a partition that the metadata does not know"))?;
        let (replica, members) = (placed.replicas[0], Membership::from(placed.replicas.clone()));
        let state = match self.resumed(partition, keys, life, resumes).await? {
            Some(state) => state,
            None => {
                let reborn = partition.before.clone().reborn(life, partition.continuation.clone());
                let mut state = Box::new(reborn);
                let captured = Captured::at_rest(partition.group, &state, &members)
                    .ok_or(RestoreError::Contradiction("a partition that begins with records on nodes"))?;
                let name = self.name(&captured);
                let at = PartitionKeys {
                    topic_id: partition.topic_id,
                    partition: partition.partition,
                    incarnation: life.incarnation,
                };
                let key = keys.build(&Key::Checkpoint(at, name));
                let published = self.put(keys, &key, &captured, &what()).await?;
                state.name_published(published);
                state
            }
        };
        let place = state.applied();
        let captured = Captured::local(partition.group, &state, &Arc::default(), &members);
        let checkpoint = captured.encode(Codec::Zstd);
        Ok(Seeded { group: partition.group, replica, place, checkpoint })
    }

    /// The state that a restore which did not come to its end has published.
    async fn resumed(
        &self,
        partition: &PartitionSurvey,
        keys: &Keys,
        life: NewLife,
        resumes: bool,
    ) -> Result<Option<Box<PartitionState>>, RestoreError> {
        if !resumes {
            return Ok(None);
        }
        let which = Which::Partition(partition.topic_id, partition.partition);
        match choose(&*self.bucket.store, keys, which, life.incarnation).await {
            Ok(chosen) => match checkpoint::restore(chosen.checkpoint)? {
                Decoded::Partition { state, .. } => Ok(Some(state)),
                Decoded::Metadata { .. } => {
                    Err(RestoreError::Contradiction("a partition's checkpoint is the metadata's"))
                }
            },
            Err(ChooseError::NoneListed(_) | ChooseError::AllDamaged(_)) => Ok(None),
            Err(why) => {
                let what = format!("{}-{}", partition.topic, partition.partition);
                Err(RestoreError::Choose { what, why })
            }
        }
    }

    fn name(&self, captured: &Captured) -> CheckpointName {
        let header = captured.header();
        let (applied_index, term) = (header.applied.index, header.applied.term);
        CheckpointName { applied_index, term, uid: self.entropy.next_u64() }
    }

    async fn put(
        &self,
        keys: &Keys,
        key: &ObjectKey,
        captured: &Captured,
        what: &str,
    ) -> Result<PublishedCheckpoint, RestoreError> {
        let encoded = captured.encode(Codec::Zstd);
        let why = |why| RestoreError::Publish { what: what.to_owned(), why };
        let done =
            publish(&*self.bucket.store, keys, key, encoded.bytes, encoded.sha256).await.map_err(why)?;
        let header = &done.header;
        let Ok(Key::Checkpoint(_, name) | Key::MetadataCheckpoint(_, name)) = keys.parse(key) else {
            return Err(RestoreError::Contradiction("a checkpoint's key"));
        };
        Ok(PublishedCheckpoint {
            uid: name.uid,
            key_term: name.term,
            state_index: header.state.index,
            state_term: header.state.term,
            state_offset: header.state.offset,
            applied_index: header.applied.index,
            log_start: captured.log_start(),
            bytes: done.bytes,
            sha256: done.sha256,
            published_ms: self.clock.wall_ms(),
        })
    }
}
