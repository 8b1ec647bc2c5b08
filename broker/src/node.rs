//! What the handlers know of the node: a facade over whatever runs the groups.
//!
//! The backend answers from what is published (image, views, never blocking) or by futures that end when the core has
//! decided. In production it is the runtime around the shard thread, in tests an in-memory fake.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use tokio::sync::watch;
use varve_common::{
    Clock, ClusterId, Entropy, GroupId, LeaderEpoch, NodeId, Offset, ReplicaId, Term, TopicId,
    clock::BoxFuture,
};

use crate::{
    config::{
        Fetch, Layers, Listener, TopicCreation,
        topic::{Defaults, Effective, ProduceRules},
    },
    metrics::Metrics,
};

/// The metadata as of one applied command.
#[derive(Clone, Debug)]
pub struct Image {
    /// The cluster.
    pub cluster: ClusterId,
    /// Who answers metadata requests, if somebody does.
    pub controller: Option<NodeId>,
    /// The brokers, by id.
    pub brokers: BTreeMap<u32, Broker>,
    /// The topics, by name.
    pub topics: BTreeMap<String, Arc<Topic>>,
    /// Their names, by id.
    pub names: BTreeMap<TopicId, String>,
}

/// A broker as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Where clients reach it, per listener name; missing: at the address that they connected to.
    pub advertised: BTreeMap<String, (String, u16)>,
    /// Its rack.
    pub rack: Option<String>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// Its partitions, from 0.
    pub partitions: Vec<Partition>,
    /// Its own configuration values.
    pub configs: BTreeMap<String, String>,
    /// What they and the inherited ones mean for produced batches, once one came. A change of the topic makes a new
    /// `Topic`, so this never goes stale.
    pub rules: Cached<ProduceRules>,
}

/// Something worked out at its first use; not part of what the owner is equal by.
#[derive(Clone, Debug)]
pub struct Cached<T>(OnceLock<T>);

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Cached<T> {
    /// The value, made now if it was not before.
    pub fn get(&self, make: impl FnOnce() -> T) -> &T {
        self.0.get_or_init(make)
    }
}

impl<T> PartialEq for Cached<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Cached<T> {}

/// A partition's group and replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its group.
    pub group: GroupId,
    /// Its voters.
    pub replicas: Vec<ReplicaId>,
}

impl Image {
    /// The topic with this name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// The topic with this id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.names.get(&id).and_then(|name| self.topics.get(name))
    }
}

/// What a reader sees of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// Whether this node serves it.
    pub ready: bool,
    /// The first offset that exists.
    pub log_start: Offset,
    /// The first offset that is on this node's disk.
    pub local_start: Offset,
    /// The end of what is in the bucket.
    pub tiered_end: Offset,
    /// The end of what is committed.
    pub high_watermark: Offset,
    /// The end of what read_committed sees.
    pub last_stable_offset: Offset,
    /// The end of the log.
    pub log_end: Offset,
    /// Terms and their first offsets, oldest first.
    pub epochs: Arc<Vec<(Term, Offset)>>,
}

/// A topic to create: checked, with its defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Drawn by the handler.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// How many replicas of each.
    pub replication_factor: i16,
    /// Its own configuration values.
    pub configs: Vec<(String, String)>,
}

/// Why the metadata was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataRefusal {
    /// A topic has that name.
    #[error("topic exists already")]
    Exists,
    /// No topic has that id.
    #[error("no such topic")]
    UnknownTopic,
    /// Too many partitions, or other limits of the cluster.
    #[error("{0}")]
    Limit(&'static str),
    /// Another node decides.
    #[error("not the controller")]
    NotController,
    /// The log cannot be written.
    #[error("storage error")]
    Storage,
}

/// A batch that was checked, on its way to its group.
#[derive(Clone, Debug)]
pub struct Append {
    /// The batch as the client sent it.
    pub batch: Bytes,
    /// What its header says.
    pub meta: varve_protocol::batch::BatchMeta,
    /// Whether the leader's time replaces the producer's.
    pub log_append_time: bool,
}

/// A batch that is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The first record's offset.
    pub base_offset: Offset,
    /// The leader's time where the topic asks for it, else -1.
    pub append_time_ms: i64,
    /// The partition's first offset.
    pub log_start: Offset,
    /// Whether it was stored before.
    pub duplicate: bool,
}

/// Why a batch was not appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefusal {
    /// No such group on this node.
    #[error("partition is not on this node")]
    UnknownGroup,
    /// Another node leads, or nobody yet.
    #[error("not the leader")]
    NotLeader,
    /// Leadership was lost after the append.
    #[error("leadership was lost before the outcome was known")]
    Unknown,
    /// Too much is in flight, or the disk is full; nothing was appended.
    #[error("too many bytes in flight")]
    Throttled,
    /// The log cannot be written.
    #[error("storage error")]
    Storage,
    /// A gap in the producer's sequence.
    #[error("sequence {found} where {expected} was expected")]
    OutOfOrderSequence {
        /// What would have been in order.
        expected: i32,
        /// What was sent.
        found: i32,
    },
    /// A newer epoch of the producer exists.
    #[error("producer epoch {found} is fenced by {current}")]
    InvalidProducerEpoch {
        /// The current epoch.
        current: i16,
        /// What was sent.
        found: i16,
    },
    /// The batch is not one that a client may send.
    #[error("invalid batch: {0}")]
    InvalidBatch(&'static str),
    /// Transactions are not supported yet.
    #[error("transactions are not supported")]
    Transactional,
}

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// The most bytes.
    pub bytes_max: usize,
    /// Whether the first batch comes even if it is larger.
    pub one_batch_at_least: bool,
    /// Batches that begin at or behind this offset are not read.
    pub below: Offset,
}

/// Whole batches; the first holds the offset that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadBatches {
    /// Their bytes, each piece one or more batches.
    pub chunks: Vec<Bytes>,
    /// The offset behind the last.
    pub next: Offset,
}

/// Why nothing was read. All but `OutOfRange` and `Corrupt` are worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No such group on this node.
    #[error("partition is not on this node")]
    UnknownGroup,
    /// Below the log start or above the log end.
    #[error("offset is out of range")]
    OutOfRange,
    /// The store cannot be reached: hot data is served, cold data later.
    #[error("object store is not reachable")]
    Unavailable,
    /// The bytes are damaged here.
    #[error("stored bytes are damaged")]
    Corrupt,
    /// The disk failed.
    #[error("storage error")]
    Storage,
}

/// A record found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: i64,
}

/// Runs the groups.
pub trait Backend: Send + Sync + 'static {
    /// The newest metadata.
    fn image(&self) -> Arc<Image>;

    /// Creates a topic; on success the next [`Backend::image`] holds it.
    fn create_topic(&self, topic: NewTopic) -> BoxFuture<'static, Result<(), MetadataRefusal>>;

    /// Deletes a topic; on success the next [`Backend::image`] lacks it.
    fn delete_topic(&self, id: TopicId) -> BoxFuture<'static, Result<(), MetadataRefusal>>;

    /// A producer id that nobody had.
    fn allocate_producer_id(&self) -> BoxFuture<'static, Result<i64, MetadataRefusal>>;

    /// Appends a batch. It is handed over before this returns: batches of one connection keep their order.
    fn append(&self, group: GroupId, append: Append) -> BoxFuture<'static, Result<Appended, AppendRefusal>>;

    /// What is published of a partition; the receiver wakes with each change. `None`: not on this node.
    fn watch(&self, group: GroupId) -> Option<watch::Receiver<Arc<PartitionView>>>;

    /// Why a partition of this node takes no more records, if it does not.
    fn damage(&self, _group: GroupId) -> Option<Arc<str>> {
        None
    }

    /// Whole batches from the one that holds `from`.
    fn read(
        &self,
        group: GroupId,
        from: Offset,
        limits: ReadLimits,
    ) -> BoxFuture<'static, Result<ReadBatches, ReadError>>;

    /// The first record whose timestamp is at least `timestamp`.
    fn find_timestamp(
        &self,
        group: GroupId,
        timestamp: i64,
    ) -> BoxFuture<'static, Result<Option<Found>, ReadError>>;

    /// The record with the largest timestamp.
    fn find_max_timestamp(&self, group: GroupId) -> BoxFuture<'static, Result<Option<Found>, ReadError>>;
}

/// All that a handler needs.
pub struct Node {
    /// This node.
    pub id: NodeId,
    /// Runs the groups.
    pub backend: Arc<dyn Backend>,
    /// Where clients connect, with what they are told.
    pub listeners: Vec<Listener>,
    /// How topics come to be.
    pub creation: TopicCreation,
    /// What topics inherit.
    pub topic_defaults: Defaults,
    /// Every broker key with its origin, for DescribeConfigs.
    pub layers: Layers,
    /// Bounds on fetches.
    pub fetch: Fetch,
    /// Chance, for topic and session ids.
    pub entropy: Arc<dyn Entropy>,
    /// Time, for bounds on record timestamps.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Node {
    /// What is published of a partition now.
    #[must_use]
    pub fn view(&self, group: GroupId) -> Option<Arc<PartitionView>> {
        self.backend.watch(group).map(|view| Arc::clone(&view.borrow()))
    }

    /// A topic's configuration: its own values over what it inherits.
    #[must_use]
    pub fn effective(&self, topic: &Topic) -> Effective {
        let own = topic.configs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Effective::new(&self.topic_defaults, own)
    }
}
