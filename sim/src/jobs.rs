//! Background work on the deterministic executor: production's jobs and readers over simulated stores.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::oneshot;
use varve_broker::{
    jobs::{self, Surroundings},
    transfer::{Library, TransferOptions, Transfers, Way},
};
use varve_common::{Clock, Disk, Entropy, GroupId, NodeId, Offset, clock::BoxFuture};
use varve_formats::{
    compression::Codec,
    keys::{Keys, Prefix},
};
use varve_objects::{
    BudgetOptions, Budgets, Class, Directory, RetryOptions, Store, Stores,
    testing::{FaultRates, FaultyStore, MemoryStore, SeededEntropy},
};
use varve_replica::{Job, JobKind, JobOutcome, PartitionView};
use varve_tiering::{
    Admission, ChunkCache, ColdOptions, ColdReader, LocalSegments, LogView, PartitionExtent, ReadError,
    ReadLimits, Slab, SlabOptions, Spawn, TailCache, TimestampOffset, UploadMemory, Uploaders, chunks,
};
use varve_wal::{Reader, testing::MemoryDisk};

use crate::{clock::SimClock, node::CLUSTER, plan::StoreKind};

/// What records of a file for other systems take: little, so that a run makes some.
pub const ARCHIVE_BYTES: u64 = 16 << 10;

/// Where cold chunks are kept on disk.
pub const CACHE: &str = "/data/cache/chunks.slab";

/// How a task ended.
pub enum Done {
    /// A job of the core.
    Job(JobKind, GroupId, JobOutcome),
    /// A reader.
    Read(Box<ReadDone>),
    /// A search by time.
    Time(Box<TimeDone>),
    /// Nothing is left of an earlier replica.
    Swept(GroupId),
    /// Something that nobody waits for.
    Nothing,
}

/// What a reader got.
pub struct ReadDone {
    /// Of which partition.
    pub group: GroupId,
    /// From which offset on,
    pub from: Offset,
    /// as of this view.
    pub view: Arc<PartitionView>,
    /// The batches, and the offset behind them.
    pub result: Result<(Vec<Bytes>, Offset), ReadError>,
}

/// What a search by time found.
pub struct TimeDone {
    /// In which partition.
    pub group: GroupId,
    /// From which time on; `None` for the largest there is,
    pub asked: Option<i64>,
    /// as of this view.
    pub view: Arc<PartitionView>,
    /// The record.
    pub result: Result<Option<TimestampOffset>, ReadError>,
}

/// A bucket that outlives nodes.
pub type RemoteStore = FaultyStore<Arc<MemoryStore>>;

/// Tasks that tasks start, until the scheduler takes them.
#[derive(Clone, Default)]
pub struct SimSpawn(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl SimSpawn {
    /// What was started since.
    pub fn take(&self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(&mut *self.0.lock().expect("the simulator is one thread"))
    }
}

impl Spawn for SimSpawn {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.lock().expect("the simulator is one thread").push(task);
    }
}

/// A question to another node.
pub struct Ask {
    /// Which node.
    pub to: NodeId,
    /// What is asked.
    pub request: Bytes,
    /// Where the answer goes; dropped where there is none.
    pub answer: oneshot::Sender<Bytes>,
}

/// Questions to other nodes, until the scheduler takes them.
#[derive(Clone, Default)]
pub struct Asks(Arc<Mutex<Vec<Ask>>>);

impl Asks {
    /// What was asked since.
    pub fn take(&self) -> Vec<Ask> {
        std::mem::take(&mut *self.0.lock().expect("the simulator is one thread"))
    }
}

impl Way for Asks {
    fn ask(&self, node: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let (answer, waiter) = oneshot::channel();
        self.0.lock().expect("the simulator is one thread").push(Ask { to: node, request, answer });
        Box::pin(async move { waiter.await.map_err(|_| "no answer".to_owned()) })
    }
}

/// What jobs and readers of one life stand on.
pub struct Cold {
    /// What goes to other nodes.
    pub asks: Asks,
    /// What they have from here.
    pub library: Arc<Library>,
    /// The jobs' part.
    pub surroundings: Arc<Surroundings>,
    /// The readers' part.
    pub log: LogView,
    /// Tasks of tasks.
    pub spawned: SimSpawn,
    /// The newest batches.
    pub tail: TailCache,
}

/// The keys of every simulation.
#[must_use]
pub fn keys() -> Keys {
    Prefix::new("").cluster(CLUSTER)
}

/// A remote bucket.
#[must_use]
pub fn remote_store(seed: u64, clock: &SimClock) -> (Arc<MemoryStore>, Arc<RemoteStore>) {
    let memory = Arc::new(MemoryStore::default());
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(seed));
    let faulty = FaultyStore::new(Arc::clone(&memory), Arc::new(clock.clone()) as Arc<dyn Clock>, entropy);
    (memory, Arc::new(faulty))
}

/// Each kind of fault at this rate, of a thousand.
#[must_use]
pub const fn rates(each: u16) -> FaultRates {
    FaultRates {
        error_before: each,
        error_after: each,
        slow: each,
        slow_by: Duration::from_secs(3),
        truncated: each,
        altered: each,
        missing: each,
        stall: each / 2,
    }
}

/// Where the embedded store is.
#[must_use]
pub fn embedded_path() -> &'static Path {
    Path::new("/data/objects")
}

impl Cold {
    /// Opens the store and everything above it; fails only with the disk.
    pub fn open(
        kind: StoreKind,
        remote: &Arc<RemoteStore>,
        disk: &MemoryDisk,
        wal: &Reader,
        clock: &SimClock,
        seed: u64,
    ) -> std::io::Result<Self> {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let clock: Arc<dyn Clock> = Arc::new(clock.clone());
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(seed ^ 0x636f_6c64));
        let inner: Arc<dyn Store> = match kind {
            StoreKind::Remote => Arc::clone(remote) as Arc<dyn Store>,
            StoreKind::Embedded => {
                let opened = Directory::open(Arc::clone(&disk), embedded_path(), seed);
                Arc::new(opened.map_err(|error| std::io::Error::other(error.to_string()))?)
            }
        };
        for directory in ["/data/groups", "/data/segments"] {
            disk.create_directory(Path::new(directory))?;
        }
        let budgets = Budgets::new(Arc::clone(&clock), BudgetOptions::default());
        let stores = Stores::new(inner, budgets, &clock, &entropy, RetryOptions::default());
        let store = stores.of(Class::Checkpoint);
        let local = LocalSegments::new(Arc::clone(&disk), PathBuf::from("/data/segments"));
        let (tail, spawned) = (TailCache::new(6 << 10), SimSpawn::default());
        let options = chunks::Options { chunk_bytes: 4 << 10, bytes_max: 8 << 10 };
        let slab = SlabOptions {
            path: PathBuf::from(CACHE),
            frame_bytes: options.chunk_bytes,
            bytes_max: 32 * options.chunk_bytes,
            admission: Admission::First,
        };
        let slab = Slab::new(Arc::clone(&disk), Arc::clone(&clock), slab);
        let chunks = ChunkCache::new(stores.of(Class::ClientRead), Arc::new(spawned.clone()), options);
        let chunks = chunks.with_slab(slab);
        let cold_options =
            ColdOptions { index_bytes_max: 64 << 10, read_ahead_bytes_max: 32 << 10, glimpse_bytes: 3 << 10 };
        let cold = ColdReader::new(stores.of(Class::ClientRead), keys(), chunks, cold_options);
        let log = LogView::new(tail.clone(), wal.clone(), local.clone(), cold);
        let asks = Asks::default();
        // Files are small here, and take several pieces all the same.
        let options = TransferOptions { bytes_per_second: u64::MAX, piece_bytes: 3 << 10 };
        let transfers = Transfers::new(Some(Arc::new(asks.clone())), options, Arc::clone(&clock));
        let library = Library::new(
            Arc::clone(&disk),
            PathBuf::from("/data"),
            local.clone(),
            options,
            Arc::clone(&clock),
        );
        let library = Arc::new(library);
        let surroundings = Surroundings {
            disk,
            uploaders: Uploaders::new(
                &stores,
                &keys(),
                UploadMemory { uploads: 1 << 20, background: 1 << 20 },
            ),
            store,
            stores,
            keys: keys(),
            local,
            wal: wal.clone(),
            tail: tail.clone(),
            data: PathBuf::from("/data"),
            claimed: None,
            retention: varve_broker::jobs::Retention::default(),
            codec: Codec::Zstd,
            clock,
            transfers,
            archives: varve_broker::jobs::Archives::new(ARCHIVE_BYTES),
        };
        Ok(Self { asks, library, surroundings: Arc::new(surroundings), log, spawned, tail })
    }

    /// A job as a task.
    #[must_use]
    pub fn job(&self, job: Job) -> BoxFuture<'static, Done> {
        let surroundings = Arc::clone(&self.surroundings);
        let kind = job.kind();
        Box::pin(async move {
            let (group, outcome) = jobs::run(job, &surroundings).await;
            Done::Job(kind, group, outcome)
        })
    }

    /// The removal of a group's files as a task.
    #[must_use]
    pub fn sweep(&self, group: GroupId) -> BoxFuture<'static, Done> {
        let surroundings = Arc::clone(&self.surroundings);
        Box::pin(async move {
            // What stays behind is found again when the group is an orphan of the log, or never.
            drop(surroundings.remove_group(group));
            Done::Swept(group)
        })
    }

    /// A reader as a task: everything from `from` to the view's watermark, in pieces.
    #[must_use]
    pub fn read(&self, group: GroupId, from: Offset, view: Arc<PartitionView>) -> BoxFuture<'static, Done> {
        let log = self.log.clone();
        Box::pin(async move {
            let result = read_from(&log, group, from, &view).await;
            Done::Read(Box::new(ReadDone { group, from, view, result }))
        })
    }

    /// A search by time as a task.
    #[must_use]
    pub fn find_time(
        &self,
        group: GroupId,
        asked: Option<i64>,
        view: Arc<PartitionView>,
    ) -> BoxFuture<'static, Done> {
        let log = self.log.clone();
        Box::pin(async move {
            let (extent, below) = (extent(group, &view), view.high_watermark);
            let result = match asked {
                Some(time) => log.find_timestamp(&extent, time, below).await,
                None => log.max_timestamp(&extent, below).await,
            };
            Done::Time(Box::new(TimeDone { group, asked, view: view.clone(), result }))
        })
    }
}

/// As in the broker.
#[must_use]
pub fn extent(group: GroupId, view: &PartitionView) -> PartitionExtent<'_> {
    PartitionExtent {
        group,
        identity: &view.identity,
        log_start: view.log_start,
        root: &view.root,
        rolls: &view.rolls,
        seals: &view.seals,
    }
}

async fn read_from(
    log: &LogView,
    group: GroupId,
    from: Offset,
    view: &PartitionView,
) -> Result<(Vec<Bytes>, Offset), ReadError> {
    let limits = ReadLimits { bytes_max: 6 << 10, below: view.high_watermark };
    let (mut batches, mut next) = (Vec::new(), from);
    while next < view.high_watermark {
        let read = log.read(&extent(group, view), next, limits).await?;
        if read.next <= next {
            break;
        }
        next = read.next;
        batches.extend(read.chunks);
    }
    Ok((batches, next))
}

/// Whether a job did not succeed.
#[must_use]
pub const fn is_failure(outcome: &JobOutcome) -> bool {
    matches!(
        outcome,
        JobOutcome::UploadFailed { .. }
            | JobOutcome::MendFailed { .. }
            | JobOutcome::SealFailed { .. }
            | JobOutcome::Failed { .. }
    )
}
