//! Forming a cluster: the driver of [`consensus::formation`](varve_consensus::formation) at the start of a node with seeds.
//!
//! ```text
//!  file `formation` ──> Formation ──probe──> seeds        every answer given to a seed is what the file holds
//!                          |  ^──answers──'
//!                          |──look, claim──> bucket
//!                          v
//!                   Start (a founder) or Join (everybody else)
//! ```
//! The file is written before anything follows from it, and never removed: a disk without one is new, or was wiped.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use tokio::task::JoinSet;
use varve_common::{Clock, ClusterId, Disk, Incarnation, NodeId, ReplicaId, clock::BoxFuture};
use varve_consensus::formation::{
    Answer, Formation, FormationEffect, FormationInput, FormationRecord, Founder, Probe, Refused, SeedSet,
};
use varve_formats::{
    claim::{Claim, FORMAT},
    keys::Prefix,
};
use varve_objects::Store;
use varve_snapshot::claim::{self, ClaimError, DataDirectory, Lives};

use super::{
    small_file::{self, SmallFileError},
    start::Start,
};

const FILE: &str = "formation";
/// How often time is told to the formation.
const TICK: Duration = Duration::from_millis(100);
/// How often a directory is asked who the seeds are, in ticks.
const NAMES_TICKS: u32 = 10;
/// How long a bucket that did not answer is left alone.
const BUCKET_PAUSE: Duration = Duration::from_secs(1);

/// Why a node with seeds does not come up.
#[derive(Debug, thiserror::Error)]
pub enum FormationError {
    /// The disk.
    #[error(transparent)]
    File(#[from] SmallFileError),
    /// What the disk holds is not what was written.
    #[error("the formation file of the data directory is damaged")]
    Damaged,
    /// The bucket.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// Nothing will come of it.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Asks seeds, by the names under which they are configured.
pub trait Seeds: Send + Sync + 'static {
    /// Asks one; nothing where it does not answer.
    fn probe(&self, seed: String, probe: Probe) -> BoxFuture<'static, Option<Answer>>;

    /// Asks the directory that names them, where there is one; nothing where it does not answer, or names nobody.
    fn names(&self) -> Option<BoxFuture<'static, Option<SeedSet>>> {
        None
    }
}

/// What the formation stands on.
pub struct Ground {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The data directory.
    pub directory: PathBuf,
    /// The object store.
    pub store: Arc<dyn Store>,
    /// Where in it the cluster lives.
    pub prefix: Prefix,
    /// This node.
    pub node: NodeId,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who is told what is waited for.
    pub start: Start,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Formed {
    /// This disk is one of the founders.
    Founder {
        /// The cluster.
        cluster: ClusterId,
        /// The founding voters of group 0.
        voters: Vec<ReplicaId>,
    },
    /// The cluster is there without this disk, which joins it as a new node.
    Newcomer {
        /// The cluster.
        cluster: ClusterId,
        /// The founding voters of group 0.
        voters: Vec<ReplicaId>,
    },
}

/// This node's seat at the table: it answers who asks, before and after the cluster is formed.
pub struct Seat(Mutex<(Formation, Vec<FormationEffect>)>);

impl Seat {
    /// The same of a disk without the log that it had: it counts as another, whose number nobody has written down yet.
    pub fn of_another_disk(ground: &Ground, founder: Founder) -> Result<Self, FormationError> {
        let mut record = load(ground)?;
        if let FormationRecord::Formed { disk, .. } = &mut record {
            *disk = founder.disk;
        }
        Ok(Self(Mutex::new(Formation::new(founder, record))))
    }

    /// Goes on from what the disk holds. `known` is the cluster of a node that has run without seeds: it is its only
    /// founder.
    pub fn open(ground: &Ground, founder: Founder, known: Option<ClusterId>) -> Result<Self, FormationError> {
        let record = match (load(ground)?, known) {
            (FormationRecord::Empty, Some(cluster)) => {
                let record = FormationRecord::Formed {
                    node: ground.node,
                    seeds: founder.seeds.clone(),
                    cluster,
                    disk: founder.disk,
                    members: [(ground.node, founder.disk)].into(),
                };
                store(ground, &record)?;
                record
            }
            (record, _) => record,
        };
        Ok(Self(Mutex::new(Formation::new(founder, record))))
    }

    /// The seeds as this disk knows them: those of its promise, or of the cluster that was formed; else as they are configured.
    #[must_use]
    pub fn seeds(&self, configured: SeedSet) -> SeedSet {
        match self.lock().0.record() {
            FormationRecord::Promised { seeds, .. } | FormationRecord::Formed { seeds, .. }
                if configured.is_empty() =>
            {
                seeds.clone()
            }
            _ => configured,
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Formation, Vec<FormationEffect>)> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// What a seed is told that asks.
    #[must_use]
    pub fn probed(&self, probe: &Probe) -> Answer {
        self.lock().0.answer(probe)
    }

    /// This disk's number; 0 as long as it has promised nothing.
    #[must_use]
    pub fn disk(&self) -> u64 {
        self.lock().0.record().disk().unwrap_or(0)
    }

    fn step(&self, input: FormationInput) {
        let (formation, effects) = &mut *self.lock();
        formation.step(input, effects);
    }

    fn take_effects(&self) -> Vec<FormationEffect> {
        std::mem::take(&mut self.lock().1)
    }

    /// What is waited for.
    #[must_use]
    pub fn waiting(&self) -> Option<String> {
        self.lock().0.waiting().map(ToString::to_string)
    }

    /// Takes part until there is a cluster.
    pub async fn form(&self, ground: &Ground, seeds: &Arc<dyn Seeds>) -> Result<Formed, FormationError> {
        let mut tasks: JoinSet<Result<Option<FormationInput>, ClaimError>> = JoinSet::new();
        let mut tick = ground.clock.monotonic().plus(TICK);
        let (mut told, mut ticks) = (None, 0_u32);
        ask_names(seeds, &mut tasks);
        loop {
            let effects = self.take_effects();
            let idle = effects.is_empty();
            for effect in effects {
                if let Some(formed) = self.perform(effect, ground, seeds, &mut tasks)? {
                    return Ok(formed);
                }
            }
            if !idle {
                continue;
            }
            let waiting = self.waiting();
            if waiting != told {
                tracing::info!(waiting = waiting.as_deref().unwrap_or("nothing"), "forming a cluster");
                ground.start.wait_for(waiting.clone());
                told = waiting;
            }
            let pause = ground.clock.sleep(tick.since(ground.clock.monotonic()));
            tokio::select! {
                () = pause => {
                    (tick, ticks) = (tick.plus(TICK), ticks.wrapping_add(1));
                    if ticks.is_multiple_of(NAMES_TICKS) {
                        ask_names(seeds, &mut tasks);
                    }
                    self.step(FormationInput::Tick);
                }
                Some(done) = tasks.join_next() => {
                    // A task that was cancelled, or whose seed did not answer, has nothing to say.
                    if let Some(input) = done.unwrap_or(Ok(None))? {
                        self.step(input);
                    }
                }
            }
        }
    }

    fn perform(
        &self,
        effect: FormationEffect,
        ground: &Ground,
        seeds: &Arc<dyn Seeds>,
        tasks: &mut JoinSet<Result<Option<FormationInput>, ClaimError>>,
    ) -> Result<Option<Formed>, FormationError> {
        match effect {
            FormationEffect::Ask { seed, probe } => {
                let answer = seeds.probe(seed.clone(), probe);
                tasks.spawn(async move {
                    Ok(answer.await.map(|answer| FormationInput::Answered { seed, answer }))
                });
            }
            FormationEffect::Write(record) => {
                store(ground, &record)?;
                self.step(FormationInput::Written);
            }
            FormationEffect::LookAtClaim => {
                let bucket = Bucket::of(ground);
                tasks.spawn(async move { bucket.look().await.map(Some) });
            }
            FormationEffect::Claim(cluster) => {
                let bucket = Bucket::of(ground);
                tasks.spawn(async move { bucket.claim(cluster).await.map(Some) });
            }
            FormationEffect::Start { cluster, voters } => {
                return Ok(Some(Formed::Founder { cluster, voters }));
            }
            FormationEffect::Join { cluster, voters } => {
                return Ok(Some(Formed::Newcomer { cluster, voters }));
            }
            FormationEffect::Refuse(why) => return Err(why.into()),
        }
        Ok(None)
    }
}

fn ask_names(seeds: &Arc<dyn Seeds>, tasks: &mut JoinSet<Result<Option<FormationInput>, ClaimError>>) {
    if let Some(names) = seeds.names() {
        tasks.spawn(async move { Ok(names.await.map(FormationInput::Seeds)) });
    }
}

fn load(ground: &Ground) -> Result<FormationRecord, FormationError> {
    load_record(&*ground.disk, &ground.directory)
}

fn load_record(disk: &dyn Disk, directory: &Path) -> Result<FormationRecord, FormationError> {
    let Some(bytes) = small_file::read(disk, &directory.join(FILE))? else {
        return Ok(FormationRecord::Empty);
    };
    let body = small_file::unseal(&bytes).ok_or(FormationError::Damaged)?;
    FormationRecord::decode(Bytes::copy_from_slice(body)).map_err(|_| FormationError::Damaged)
}

fn store(ground: &Ground, record: &FormationRecord) -> Result<(), SmallFileError> {
    store_record(&*ground.disk, &ground.directory, record)
}

fn store_record(disk: &dyn Disk, directory: &Path, record: &FormationRecord) -> Result<(), SmallFileError> {
    small_file::replace(disk, directory, FILE, &small_file::seal(&record.encode()))
}

/// The disk is not the one that it was: where a cluster was formed with it, it is none of its founders any more.
pub fn forget_disk(disk: &dyn Disk, directory: &Path, number: u64) -> Result<(), FormationError> {
    let record = load_record(disk, directory)?;
    let FormationRecord::Formed { node, seeds, cluster, members, .. } = record else { return Ok(()) };
    let record = FormationRecord::Formed { node, seeds, cluster, disk: number, members };
    Ok(store_record(disk, directory, &record)?)
}

/// Whether this disk was ever part of a formation: then it belongs to a cluster of several.
pub fn has_formed(disk: &dyn Disk, directory: &Path) -> Result<bool, SmallFileError> {
    Ok(small_file::read(disk, &directory.join(FILE))?.is_some())
}

/// The life that a cluster is in, which a disk joins: as its claims say, in a bucket that all nodes have.
pub(super) async fn life(ground: &Ground, cluster: ClusterId) -> Result<Incarnation, FormationError> {
    let bucket = Bucket::of(ground);
    loop {
        match claim::lives(&*bucket.store, &bucket.prefix).await {
            Ok(Some(Lives { newest, .. })) if newest.cluster == cluster => return Ok(newest.incarnation),
            // Who formed it without the bucket has claimed nothing there yet.
            Ok(None) => return Ok(Incarnation::FIRST),
            Ok(Some(Lives { newest, .. })) => {
                return Err(ClaimError::Foreign { claim: newest, mine: cluster }.into());
            }
            Err(error) => bucket.pause_or(error).await?,
        }
    }
}

/// The claim on the prefix.
struct Bucket {
    store: Arc<dyn Store>,
    prefix: Prefix,
    node: NodeId,
    clock: Arc<dyn Clock>,
}

impl Bucket {
    fn of(ground: &Ground) -> Self {
        Self {
            store: Arc::clone(&ground.store),
            prefix: ground.prefix.clone(),
            node: ground.node,
            clock: Arc::clone(&ground.clock),
        }
    }

    async fn look(&self) -> Result<FormationInput, ClaimError> {
        loop {
            match claim::lives(&*self.store, &self.prefix).await {
                Ok(lives) => return Ok(FormationInput::ClaimFound(lives.map(|lives| lives.newest.cluster))),
                Err(error) => self.pause_or(error).await?,
            }
        }
    }

    async fn claim(&self, cluster: ClusterId) -> Result<FormationInput, ClaimError> {
        let mine = Claim {
            cluster,
            incarnation: Incarnation::FIRST,
            created_ms: self.clock.wall_ms(),
            node: self.node,
            format: FORMAT,
            origin: None,
        };
        let data = DataDirectory::Of(cluster, Incarnation::FIRST);
        loop {
            match claim::establish(&*self.store, &self.prefix, mine, data).await {
                Ok(_) => return Ok(FormationInput::Claimed(Ok(()))),
                Err(ClaimError::Foreign { claim, .. } | ClaimError::Superseded { claim, .. }) => {
                    return Ok(FormationInput::Claimed(Err(Some(claim.cluster))));
                }
                Err(error) => self.pause_or(error).await?,
            }
        }
    }

    /// Whose the prefix is is not known while the bucket does not answer: that is waited for.
    async fn pause_or(&self, error: ClaimError) -> Result<(), ClaimError> {
        let (ClaimError::Store(_) | ClaimError::Vanished(_)) = &error else { return Err(error) };
        tracing::warn!(%error, "the claim could not be read");
        self.clock.sleep(BUCKET_PAUSE).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
