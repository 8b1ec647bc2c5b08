//! A bucket in memory: claims, metadata with one topic, and whatever segments and checkpoints a test puts there.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use varve_common::{
    ClusterId, Digest, GroupId, Incarnation, LogIndex, NodeId, ObjectKey, Offset, PartitionIndex, ReplicaId,
    Term, TopicId,
};
use varve_formats::{
    PartitionIdentity,
    checkpoint::{
        AppliedPoint, Checkpoint, CheckpointHeader, CheckpointKind, PartitionCheckpoint, SectionId,
        StatePoint,
    },
    claim::{Claim, Complete, FORMAT},
    command::{Command, CreateTopic, MetadataCommand, PartitionAssignment},
    compression::Codec,
    keys::{CheckpointName, Key, Keys, PartitionKeys, Prefix, SegmentName},
    manifest::{Entry, EntryKind, FanOut, Root},
    segment::{BlockCompression, SegmentSpec, SegmentState, SegmentWriter},
    state::{ArchiveState, BucketState, ConfState, EpochStart, Tombstone},
};
use varve_objects::{Store as _, testing::MemoryStore};
use varve_protocol::batch::{self, BatchBuilder, patch};
use varve_replica::{LogEntry, metadata::MetadataState};
use varve_tiering::put_node;

use super::{History, HistoryError, PartitionHistory};

pub(crate) const TOPIC: &str = "orders";
pub(crate) const TERM: Term = Term(3);

/// Runs a future whose store answers at once.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
}

pub(crate) fn cluster() -> ClusterId {
    ClusterId::from_random(9)
}

pub(crate) fn prefix() -> Prefix {
    Prefix::new("team")
}

pub(crate) fn topic_id() -> TopicId {
    TopicId::from_random(77)
}

/// The values of records: `{offset}` and what tells lineages apart.
pub(crate) fn batch(base: u64, count: u64, word: &str) -> Bytes {
    let mut builder = BatchBuilder::new(batch::Codec::None);
    for offset in base..base + count {
        builder.push(1_000 + offset as i64, Some(b"k"), Some(format!("{word}{offset}").as_bytes()));
    }
    let mut bytes = builder.build().to_vec();
    patch(&mut bytes, Offset(base), TERM.leader_epoch());
    bytes.into()
}

pub(crate) struct Bucket {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) keys: Keys,
    pub(crate) incarnation: u32,
}

impl Bucket {
    /// The first life, with metadata as of index 10.
    pub(crate) fn new() -> Self {
        let bucket = Self { store: Arc::default(), keys: prefix().cluster(cluster()), incarnation: 1 };
        bucket.claim(1);
        bucket.metadata(1, 10);
        bucket
    }

    pub(crate) fn put(&self, key: &ObjectKey, bytes: Bytes) {
        let sha256 = Digest::of(&bytes);
        block_on(self.store.put_new(key, bytes.into(), sha256)).unwrap();
    }

    pub(crate) fn claim(&self, incarnation: u32) {
        let (incarnation, node) = (Incarnation(incarnation), NodeId::new(1).unwrap());
        let claim =
            Claim { cluster: cluster(), incarnation, created_ms: 1_000, node, format: FORMAT, origin: None };
        self.put(&prefix().claim(incarnation), claim.to_bytes());
    }

    pub(crate) fn complete(&self, incarnation: u32) {
        let incarnation = Incarnation(incarnation);
        let complete = Complete { cluster: cluster(), incarnation, completed_ms: 2_000, groups: 2, token: 0 };
        self.put(&prefix().complete(incarnation), complete.to_bytes());
    }

    pub(crate) fn metadata(&self, incarnation: u32, applied: u64) -> ObjectKey {
        let incarnation = Incarnation(incarnation);
        let mut state = MetadataState::new(cluster(), incarnation);
        let replicas = vec![ReplicaId::new(NodeId::new(1).unwrap(), 1).unwrap()];
        let create = CreateTopic {
            id: topic_id(),
            name: TOPIC.into(),
            partitions: vec![PartitionAssignment { group: 0, replicas }],
            configs: vec![],
        };
        let data = Command::Metadata(MetadataCommand::CreateTopic(create)).encode(TERM, 5);
        state.apply(&LogEntry { index: LogIndex(1), term: TERM, kind: 0, offset: Offset(0), data }).unwrap();
        let identity = PartitionIdentity {
            topic_id: TopicId::ZERO,
            topic: String::new(),
            partition: PartitionIndex(0),
            ..self.identity(incarnation.0)
        };
        let mut header = header(identity, (applied, 0), applied);
        (header.kind, header.group) = (CheckpointKind::Metadata, GroupId::METADATA);
        let mut checkpoint = Checkpoint::new(header);
        checkpoint.sections.insert(SectionId::METADATA_IMAGE, state.encode());
        let name = CheckpointName { applied_index: LogIndex(applied), term: TERM, uid: applied };
        let key = self.keys.build(&Key::MetadataCheckpoint(incarnation, name));
        self.put(&key, checkpoint.encode(Codec::Zstd));
        key
    }

    pub(crate) fn identity(&self, incarnation: u32) -> PartitionIdentity {
        PartitionIdentity {
            cluster: cluster(),
            incarnation: Incarnation(incarnation),
            topic_id: topic_id(),
            topic: TOPIC.into(),
            partition: PartitionIndex(0),
        }
    }

    pub(crate) fn at(&self) -> PartitionKeys {
        let incarnation = Incarnation(self.incarnation);
        PartitionKeys { topic_id: topic_id(), partition: PartitionIndex(0), incarnation }
    }

    /// Puts a segment of batches of five records; roll and first entry are where an undisturbed log has them.
    pub(crate) fn segment(&self, range: std::ops::Range<u64>, term: u64, word: &str) -> (ObjectKey, Entry) {
        let (name, bytes, mut entry) = self.segment_bytes(range, term, word);
        let key = self.keys.build(&Key::Segment(self.at(), name));
        entry.length = bytes.len() as u64;
        self.put(&key, bytes);
        (key, entry)
    }

    pub(crate) fn segment_bytes(
        &self,
        range: std::ops::Range<u64>,
        term: u64,
        word: &str,
    ) -> (SegmentName, Bytes, Entry) {
        let mut writer = SegmentWriter::new(SegmentSpec {
            identity: self.identity(self.incarnation),
            kind: EntryKind::Raw,
            base: Offset(range.start),
            end: Offset(range.end),
            first_index: LogIndex(range.start + 1),
            roll_index: LogIndex(range.end),
            roll_term: TERM,
            delete_horizon_ms: 0,
            compression: BlockCompression::WhereItPays,
        });
        let mut pieces = Vec::new();
        for base in range.clone().step_by(5) {
            pieces.extend(writer.push(batch(base, 5.min(range.end - base), word)).unwrap());
        }
        let epochs = vec![EpochStart { term: TERM, start: Offset(0) }];
        let (rest, summary) = writer.finish(&SegmentState { epochs, ..SegmentState::default() }).unwrap();
        pieces.extend(rest);
        let (base, last) = (Offset(range.start), Offset(range.end - 1));
        let name = SegmentName { base, last, term: Term(term), uid: term * 1_000 + range.start };
        (name, pieces.concat().into(), summary.footer.entry(name, 0, summary.bytes, summary.sha256))
    }

    /// Puts a checkpoint with this manifest, S at its end.
    pub(crate) fn checkpoint(&self, applied: u64, root: &Root, log_start: u64) -> ObjectKey {
        let bucket = BucketState { log_start: Offset(log_start), manifest_seq: 3 };
        self.put_state(
            applied,
            PartitionCheckpoint { root: root.clone(), bucket, ..PartitionCheckpoint::default() },
        )
    }

    /// Puts the newest one's manifest again, with something to delete.
    pub(crate) fn checkpoint_with(&self, applied: LogIndex, tombstone: Tombstone) -> ObjectKey {
        let mut state = self.partition().unwrap().state;
        state.tombstones.push(tombstone);
        self.put_state(applied.0, state)
    }

    /// The same with files that were made of it.
    pub(crate) fn checkpoint_archived(&self, applied: LogIndex, archive: ArchiveState) -> ObjectKey {
        let mut state = self.partition().unwrap().state;
        state.archive = Some(archive);
        self.put_state(applied.0, state)
    }

    fn put_state(&self, applied: u64, state: PartitionCheckpoint) -> ObjectKey {
        let end = state.root.end().0;
        let header = header(self.identity(self.incarnation), (end, end), applied);
        let name = CheckpointName { applied_index: LogIndex(applied), term: TERM, uid: applied };
        let key = self.keys.build(&Key::Checkpoint(self.at(), name));
        self.put(&key, state.into_checkpoint(header).encode(Codec::Zstd));
        key
    }

    /// Segments of ten from 0 to `end`, folded into nodes with this fan-out.
    pub(crate) fn manifest(&self, end: u64, fan_out: u32) -> Root {
        let mut root = Root::default();
        for base in (0..end).step_by(10) {
            let (_, entry) = self.segment(base..base + 10, TERM.0, "");
            root.append(vec![entry], Offset(0)).unwrap();
            self.fold(&mut root, fan_out);
        }
        root
    }

    pub(crate) fn fold(&self, root: &mut Root, fan_out: u32) {
        while let Some(plan) = root.plan_fold(FanOut(fan_out)) {
            let uid = 1 << 40 | plan.sums().base.0 << 8 | u64::from(plan.level());
            let identity = self.identity(self.incarnation);
            let reference = block_on(put_node(&*self.store, &self.keys, &identity, plan, uid)).unwrap();
            root.fold(&reference).unwrap();
        }
    }

    pub(crate) fn open(&self) -> Result<History, HistoryError> {
        block_on(History::open(self.store.clone(), &prefix()))
    }

    pub(crate) fn partition(&self) -> Result<PartitionHistory, HistoryError> {
        let history = self.open()?;
        let topic = history.topic(TOPIC)?.clone();
        block_on(history.partition(&topic, PartitionIndex(0)))
    }

    pub(crate) fn tamper(&self, key: &ObjectKey, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = block_on(self.store.get(key)).unwrap().to_vec();
        change(&mut bytes);
        self.store.tamper(key, bytes.into());
    }
}

fn header(identity: PartitionIdentity, (index, offset): (u64, u64), applied: u64) -> CheckpointHeader {
    CheckpointHeader {
        kind: CheckpointKind::Partition,
        group: GroupId(1),
        identity,
        state: StatePoint { index: LogIndex(index), term: TERM, offset: Offset(offset) },
        applied: AppliedPoint { index: LogIndex(applied), term: TERM },
        conf_state: ConfState::default(),
        manifest_seq: 3,
        feature_level: 1,
        append_time_ms: 5,
        records_local: false,
    }
}
