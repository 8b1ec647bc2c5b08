//! A cluster from its bucket alone: the next life, begun on one node (TIERING.md 8 and 11d).
//!
//! ```text
//!  survey    lives -> newest complete one -> metadata -> each partition: checkpoint, what follows it, where it ends
//!  claim     the next life, create-only; wait until whoever lives the one before has seen that, and stopped
//!  survey    once more: what was still on its way is there now
//!  publish   the first checkpoint in the new life of the metadata, then of every partition: read back whole
//!  seed      the data directory: a local checkpoint of each group, and a log that begins behind it
//!  complete  only now is the life one that can be restored from; then the directory is a node's
//! ```
//! Whatever ends it half-way, the next restore resumes the life that was claimed, also where another machine goes on: the
//! metadata that is published in it says which groups there are, and those that have a checkpoint in it keep that. Two that do so
//! at a time begin the same life (`publication`), and one of them has it: whose random number `.complete` holds. The life before is
//! not looked at again once the new one is complete.
//!
//! The node begins alone. Others join it with empty disks, and partitions get back as many replicas as they had
//! (`runtime::regrowing`).

mod directory;
mod elsewhere;
mod foreseen;
mod groups;
mod publication;
mod survey;
mod tail;
mod unknown;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use varve_common::{Clock, ClusterId, Disk, Entropy, Incarnation, ObjectKey, codec::DecodeError};
use varve_compactor::{copy::LIFE, history::HistoryError};
use varve_formats::claim::{Claim, Complete, FORMAT};
use varve_objects::Failure;
use varve_snapshot::{
    choose::ChooseError,
    claim::{self, ClaimError, Established, Lives},
    local,
    publish::PublishError,
};

use self::directory::{Directory, Marker};
pub use self::{
    directory::{is_unfinished, restored},
    elsewhere::{Copied, Copying, copy},
    groups::Strayed,
    survey::{Bucket, Lost, Options, Origin, PartitionSurvey, Plan, Survey, survey},
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
    /// The operator: something of these partitions is lost.
    #[error("nothing that is whole says what {} was", .0.join(", "))]
    Lost(Vec<String>),
    /// The operator: what was accepted is of nothing.
    #[error("there is no topic, and no partition, {0}")]
    NotThere(String),
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
    /// Another restore began the same life from something else.
    #[error("another restore of incarnation {} is under way, and has begun it with other partitions", .0.0)]
    Contended(Incarnation),
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
    /// The copy that was made here just now, where one was: only its own first restore follows.
    pub copied: Option<&'a Copied>,
    /// What is asked for.
    pub options: Options,
    /// What was read for the plan, where there was one: of partitions whose objects are still the same it stands.
    pub planned: Option<Survey>,
    /// Who is told.
    pub progress: &'a dyn Progress,
}

/// Restores the cluster; what was restored, and what it took.
pub async fn run(ground: Ground<'_>) -> Result<(Survey, Outcome), RestoreError> {
    let began = ground.clock.monotonic();
    let before = ground.copied.map_or(Duration::ZERO, |copied| copied.duration);
    let mut directory = Directory::take(Arc::clone(&ground.disk), &ground.config.data_directory)?;
    let lives = ground.lives().await?;
    let cluster = lives.newest.cluster;
    let mine = directory.marker.filter(|mine| mine.cluster == cluster);
    let plan = ground.aim(&lives, mine).await?;
    // Another restore of the same copy has come to its end since: a broker may live there, and nobody would wait for it to stop.
    if ground.copied.is_some() && Some(plan.target) != LIFE.next() {
        return Err(RestoreError::Inhabited(cluster));
    }
    let token = mine.filter(|mine| mine.incarnation == plan.target).map(|mine| mine.token);
    let token = token.unwrap_or_else(|| ground.entropy.next_u64() | 1);
    let marker = Marker { cluster, incarnation: plan.target, token };
    directory.begin(marker)?;
    if !plan.resumes {
        ground.claim(cluster, plan.target).await?;
    }
    ground.progress.begin("waiting until an earlier life has ended", 0);
    ground.clock.sleep(ground.wait).await;
    let survey = ground.survey(plan, cluster).await?;
    let groups = ground.publish(&survey).await?;
    directory.seed(ground.config, &groups, &*ground.entropy)?;
    ground.complete(marker, groups.len() as u64).await?;
    let outcome = Outcome {
        incarnation: plan.target,
        duration_ms: (before + ground.clock.monotonic().since(began)).as_millis() as i64,
        newest_record_age_ms: survey.newest_record_age_ms().unwrap_or(-1),
        checkpoint_age_ms: survey.checkpoint_age_ms(),
    };
    let identity = Identity { cluster, incarnation: plan.target, node: ground.config.node };
    directory.finish(identity, &outcome)?;
    Ok((survey, outcome))
}

impl Ground<'_> {
    async fn lives(&self) -> Result<Lives, RestoreError> {
        let lives = claim::lives(&*self.bucket.store, &self.bucket.prefix).await?;
        lives.ok_or(RestoreError::Unclaimed)
    }

    /// Which life is restored into which, where this directory has begun one.
    async fn aim(&self, lives: &Lives, mine: Option<Marker>) -> Result<Plan, RestoreError> {
        // A crash between the last two steps: the life is complete, and this directory's.
        if let (Some(mine), Some(complete)) = (mine, lives.complete)
            && mine.incarnation <= complete
        {
            // Whoever lost a race does not end the winner's life by trying again.
            if mine.incarnation < complete || !self.is_completed_by(mine).await? {
                return Err(RestoreError::Overtaken(complete));
            }
            return Ok(Plan { source: mine.incarnation, target: mine.incarnation, resumes: true });
        }
        Plan::of(lives)
    }

    /// Reads the bucket as the life is to begin from it. Somebody else may have come to the end of it, or begun the one after it,
    /// since it was claimed.
    async fn survey(&self, plan: Plan, cluster: ClusterId) -> Result<Survey, RestoreError> {
        let (store, prefix) = (&*self.bucket.store, &self.bucket.prefix);
        claim::check(store, prefix, cluster, plan.target).await?;
        let lives = self.lives().await?;
        if plan.source < plan.target && lives.complete >= Some(plan.target) {
            return Err(RestoreError::Overtaken(plan.target));
        }
        let now_ms = self.clock.wall_ms();
        let survey = survey::survey_of(
            &self.bucket,
            (&lives, plan),
            (&self.options, self.planned.as_ref()),
            now_ms,
            self.progress,
        )
        .await?;
        let unaccepted = survey.unaccepted();
        if unaccepted.is_empty() { Ok(survey) } else { Err(RestoreError::Lost(unaccepted)) }
    }

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
        Ok(marker.cluster == mine.cluster && marker.token == mine.token)
    }

    /// Says that the life can be restored from, where nobody else has: two machines may have resumed it.
    async fn complete(&self, mine: Marker, groups: u64) -> Result<(), RestoreError> {
        let Marker { cluster, incarnation, token } = mine;
        let (store, prefix) = (&*self.bucket.store, &self.bucket.prefix);
        claim::check(store, prefix, cluster, incarnation).await?;
        let completed_ms = self.clock.wall_ms();
        let complete = Complete { cluster, incarnation, completed_ms, groups, token };
        claim::complete(store, prefix, complete).await?;
        if self.is_completed_by(mine).await? { Ok(()) } else { Err(RestoreError::Overtaken(incarnation)) }
    }
}
