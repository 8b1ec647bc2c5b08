//! One small node: a log in memory, sealed files, a bucket that fails on demand, and what every record must be.

use std::{
    collections::VecDeque,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use varve_common::{
    Clock, ClusterId, Disk, GroupId, Incarnation, LeaderEpoch, LogIndex, Monotonic, NodeId, Offset,
    PartitionIndex, ReplicaId, Term, TopicId, checksum::crc32c_append, clock::BoxFuture,
};
use varve_formats::{
    PartitionIdentity,
    batch::BatchHeader,
    command::{Command, Roll, encode_records},
    keys::{Keys, Prefix},
    manifest::{FanOut, Root},
    segment::{BlockCompression, SegmentState},
    state::{EpochStart, RollEntry, SealEntry},
};
use varve_objects::{
    Counting, Operation,
    testing::{FaultyStore, MemoryStore, SeededEntropy},
};
use varve_protocol::batch::{BatchBuilder, Codec, patch};
use varve_wal::{Entry, GroupRecord, Reader, Record, Writer, testing::MemoryDisk};

use crate::{
    ChunkCache, ColdOptions, ColdReader, LocalSegments, LogView, PartitionExtent, RangeSource, ReadError,
    ReadLimits, RolledSegment, Spawn, TailCache, UploadBudget, UploadKey, Uploader, chunks, put_node,
};

pub const GROUP: GroupId = GroupId(7);
pub const TERM: Term = Term(3);

/// Runs spawned tasks beside the main future, in turn, on this thread.
#[derive(Clone, Default)]
pub struct Executor(Arc<Mutex<VecDeque<BoxFuture<'static, ()>>>>);

impl Spawn for Executor {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.lock().unwrap().push_back(task);
    }
}

impl Executor {
    /// Polls everything once, in order.
    pub fn turn(&self) {
        let mut context = Context::from_waker(Waker::noop());
        let waiting = self.0.lock().unwrap().len();
        for _ in 0..waiting {
            let Some(mut task) = self.0.lock().unwrap().pop_front() else { break };
            if task.as_mut().poll(&mut context).is_pending() {
                self.0.lock().unwrap().push_back(task);
            }
        }
    }

    /// The future's answer, `None` where it is not there after many turns.
    pub fn try_run<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..1_000 {
            if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
                return Some(answer);
            }
            self.turn();
        }
        None
    }

    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.try_run(future).expect("the future ends")
    }
}

/// The answer of a future that nothing else has to run for.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    Executor::default().run(future)
}

/// A sleep takes three turns of the executor, however long it is.
struct TurnClock;

impl Clock for TurnClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic::default()
    }

    fn wall_ms(&self) -> i64 {
        0
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        let mut turns = 3;
        Box::pin(std::future::poll_fn(move |context| {
            turns -= 1;
            context.waker().wake_by_ref();
            if turns > 0 { Poll::Pending } else { Poll::Ready(()) }
        }))
    }
}

pub type Faulty = FaultyStore<MemoryStore>;

pub struct Node {
    pub executor: Executor,
    pub disk: MemoryDisk,
    pub writer: Writer,
    pub wal: Reader,
    pub store: Arc<Faulty>,
    pub counting: Arc<Counting<Arc<Faulty>>>,
    pub keys: Keys,
    pub identity: PartitionIdentity,
    pub view: LogView,
    pub local: LocalSegments,
    pub uploader: Uploader,
    pub budget: UploadBudget,
    pub root: Arc<Root>,
    pub rolls: Vec<RollEntry>,
    pub seals: Vec<SealEntry>,
    pub log_start: Offset,
    /// Every batch as it must be read, with its end.
    pub model: Vec<(Offset, Offset, Bytes)>,
    pub next: Offset,
    index: LogIndex,
    first_open: LogIndex,
    uids: u64,
}

pub fn replica() -> ReplicaId {
    ReplicaId::new(NodeId::new(1).unwrap(), 1).unwrap()
}

pub fn identity(topic: &str) -> PartitionIdentity {
    PartitionIdentity {
        cluster: ClusterId::from_random(9),
        incarnation: Incarnation(1),
        topic_id: TopicId::from_random(77),
        topic: topic.into(),
        partition: PartitionIndex(4),
    }
}

impl Node {
    pub fn new() -> Self {
        Self::with(chunks::Options { chunk_bytes: 512, bytes_max: 1 << 20 }, 1 << 20)
    }

    pub fn with(chunk_options: chunks::Options, index_bytes_max: usize) -> Self {
        let disk = MemoryDisk::default();
        disk.create_directory(&PathBuf::from("data/segments")).unwrap();
        let mut options = varve_wal::Options::new(PathBuf::from("data/wal"), 64 << 20, 5);
        options.file_bytes = 1 << 20;
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let (writer, wal, _) = varve_wal::open(Arc::clone(&shared), options).unwrap();
        let faulty =
            FaultyStore::new(MemoryStore::default(), Arc::new(TurnClock), Arc::new(SeededEntropy::new(1)));
        let store = Arc::new(faulty);
        let counting = Arc::new(Counting::new(Arc::clone(&store)));
        let executor = Executor::default();
        let identity = identity("orders");
        let keys = Prefix::new("varve").cluster(identity.cluster);
        let chunks = ChunkCache::new(counting.clone(), Arc::new(executor.clone()), chunk_options);
        let cold_options =
            ColdOptions { index_bytes_max, read_ahead_bytes_max: 16 << 10, ..ColdOptions::default() };
        let cold = ColdReader::new(counting.clone(), keys.clone(), chunks, cold_options);
        let local = LocalSegments::new(shared, PathBuf::from("data/segments"));
        let budget = UploadBudget::new(8 << 20);
        Self {
            view: LogView::new(TailCache::new(2_000), wal.clone(), local.clone(), cold),
            uploader: Uploader::new(counting.clone(), keys.clone(), budget.clone()),
            executor,
            disk,
            writer,
            wal,
            store,
            counting,
            keys,
            identity,
            local,
            budget,
            root: Arc::default(),
            rolls: Vec::new(),
            seals: Vec::new(),
            log_start: Offset::ZERO,
            model: Vec::new(),
            next: Offset::ZERO,
            index: LogIndex(1),
            first_open: LogIndex(1),
            uids: 100,
        }
    }

    pub fn extent(&self) -> PartitionExtent<'_> {
        PartitionExtent {
            group: GROUP,
            identity: &self.identity,
            log_start: self.log_start,
            root: &self.root,
            rolls: &self.rolls,
            seals: &self.seals,
        }
    }

    fn log(&mut self, kind: u8, offset: Offset, data: Bytes) -> LogIndex {
        let index = self.index;
        let record = Record::Entries(vec![Entry { index, term: TERM, kind, offset, data }]);
        self.writer.append(&[GroupRecord { group: GROUP, replica: replica(), record }]).unwrap();
        self.index = index.next();
        index
    }

    /// An election's empty entry.
    pub fn elect(&mut self) {
        self.log(1, self.next, Bytes::new());
    }

    /// Appends one batch of `values`, one record each, with these timestamps; it is committed at once.
    pub fn append(&mut self, codec: Codec, records: &[(i64, &[u8])]) {
        let mut builder = BatchBuilder::new(codec);
        records.iter().for_each(|(timestamp, value)| builder.push(*timestamp, None, Some(value)));
        let (base, batch) = (self.next, builder.build());
        let mut entry: BytesMut = encode_records(&batch, TERM, 1);
        patch(&mut entry[varve_formats::command::HEADER_BYTES..], base, LeaderEpoch(TERM.0 as i32));
        let entry = entry.freeze();
        let batch = entry.slice(varve_formats::command::HEADER_BYTES..);
        self.log(0, base, entry);
        self.next = base.plus(records.len() as u64);
        self.view.tail().push(GROUP, base, self.next, batch.clone());
        self.model.push((base, self.next, batch));
    }

    /// Appends a batch of `count` records of `bytes` bytes each, whose timestamps are their offsets times 10.
    pub fn fill(&mut self, count: u64, bytes: usize) {
        let base = self.next.0;
        let values: Vec<Vec<u8>> = (0..count).map(|place| noise(bytes, base + place)).collect();
        let records: Vec<(i64, &[u8])> = values
            .iter()
            .enumerate()
            .map(|(place, value)| ((base as i64 + place as i64) * 10, &value[..]))
            .collect();
        self.append(Codec::None, &records);
    }

    /// Closes the open range.
    pub fn roll(&mut self) -> RollEntry {
        let base = self.rolls.last().map_or(self.root.end(), |roll| roll.end);
        let held: Vec<_> = self.model.iter().filter(|batch| batch.0 >= base).map(|batch| &batch.2).collect();
        let (mut crcs, mut timestamp) = (0, -1);
        for batch in &held {
            let header = BatchHeader::read(batch).unwrap();
            crcs = crc32c_append(crcs, &header.crc.to_le_bytes());
            timestamp = timestamp.max(header.max_timestamp);
        }
        let bytes = held.iter().map(|batch| batch.len() as u64).sum();
        let roll = Roll { base, end: self.next, bytes, max_timestamp: timestamp, batch_crcs: crcs };
        let entry = Command::Roll(roll).encode(TERM, 1);
        let first_index = self.first_open;
        let roll_index = self.log(0, self.next, entry);
        self.first_open = roll_index.next();
        let entry = RollEntry {
            base,
            end: self.next,
            bytes,
            max_timestamp: timestamp,
            batch_crcs: crcs,
            first_index,
            roll_index,
            roll_term: TERM,
            rolled_ms: 1,
        };
        self.rolls.push(entry.clone());
        entry
    }

    pub fn segment(&self) -> RolledSegment {
        let epochs = vec![EpochStart { term: TERM, start: Offset::ZERO }];
        RolledSegment {
            identity: self.identity.clone(),
            state: SegmentState { epochs, ..SegmentState::default() },
            compression: BlockCompression::WhereItPays,
        }
    }

    pub fn source(&self, roll: &RollEntry) -> RangeSource {
        RangeSource::new(self.wal.clone(), GROUP, roll.clone())
    }

    pub fn uid(&mut self) -> u64 {
        self.uids += 1;
        self.uids
    }

    /// Uploads the oldest rolled range and commits it.
    pub fn tier(&mut self) {
        let roll = self.rolls.remove(0);
        let key = UploadKey { term: TERM, uid: self.uid() };
        let seal = self.seals.iter().find(|seal| seal.base == roll.base).cloned();
        let mut source = self.source(&roll);
        if let Some(seal) = seal {
            source = source.or_sealed(self.local.open(GROUP, &self.identity, &seal).unwrap());
        }
        let upload = self.uploader.clone();
        let entry = self.executor.run(upload.upload(&self.segment(), source, key)).unwrap();
        let log_start = self.log_start;
        Arc::make_mut(&mut self.root).append(vec![entry], log_start).unwrap();
    }

    /// Moves entries into nodes until the root is within a fan-out of 4.
    pub fn fold(&mut self) {
        while let Some(plan) = self.root.plan_fold(FanOut(4)) {
            let uid = self.uid();
            let put = put_node(&*self.counting, &self.keys, &self.identity, plan, uid);
            let reference = self.executor.run(put).unwrap();
            Arc::make_mut(&mut self.root).fold(&reference).unwrap();
        }
    }

    /// Seals a rolled range and marks it.
    pub fn seal(&mut self, roll: &RollEntry) -> SealEntry {
        let seal = self.local.seal(GROUP, &self.segment(), self.source(roll)).unwrap();
        self.seals.push(seal.clone());
        seal
    }

    /// Cuts the log below and with `index`.
    pub fn cut(&mut self, index: LogIndex) {
        let record = Record::Truncated { index, term: TERM };
        self.writer.append(&[GroupRecord { group: GROUP, replica: replica(), record }]).unwrap();
    }

    /// Forgets the tail, as a restart does.
    pub fn forget_tail(&self) {
        self.view.tail().remove(GROUP);
    }

    /// A batch that the tail, the log and no sealed file hold any more: everything rolled is cut.
    pub fn all_cold(segments: u64, batches: u64, bytes: usize) -> Self {
        let mut node = Self::new();
        node.grow_cold(segments, batches, bytes);
        node
    }

    pub fn grow_cold(&mut self, segments: u64, batches: u64, bytes: usize) {
        for _ in 0..segments {
            (0..batches).for_each(|_| self.fill(2, bytes));
            let roll = self.roll();
            self.tier();
            self.cut(roll.roll_index);
            self.forget_tail();
        }
    }

    /// All batches that hold offsets of `from..`.
    pub fn expected(&self, from: Offset) -> Vec<Bytes> {
        self.model.iter().filter(|(_, end, _)| *end > from).map(|(_, _, batch)| batch.clone()).collect()
    }
}

/// Bytes that do not compress.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let entropy = SeededEntropy::new(seed);
    (0..bytes).map(|_| varve_common::Entropy::next_u64(&entropy) as u8).collect()
}

/// The objects in the bucket.
pub fn objects(node: &Node) -> Vec<String> {
    node.store.inner().objects().iter().map(|(key, _)| key.as_str().to_owned()).collect()
}

/// How many ranges were asked of the store.
pub fn ranges_asked(node: &Node) -> u64 {
    node.counting.counters().snapshot().get(&Operation::GetRange).map_or(0, |count| count.requests)
}

/// Everything from `from` on, read by `bytes_max` a time.
pub fn read_all(node: &Node, from: Offset, bytes_max: usize) -> Result<Vec<Bytes>, ReadError> {
    let limits = ReadLimits { bytes_max, below: node.next };
    let (mut next, mut chunks) = (from, Vec::new());
    while next < node.next {
        let read = node.executor.run(node.view.read(&node.extent(), next, limits))?;
        assert!(read.next > next, "a read moves on");
        next = read.next;
        chunks.extend(read.chunks);
    }
    Ok(chunks)
}

impl Node {
    /// The only file of the log.
    pub fn disk_file(&self) -> PathBuf {
        let directory = PathBuf::from("data/wal");
        let names = self.disk.list(&directory).unwrap();
        directory.join(names.first().expect("the log has a file"))
    }
}
