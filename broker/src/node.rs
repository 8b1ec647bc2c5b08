//! What the handlers know of the node: a facade over whatever runs the groups.
//!
//! The backend answers from what is published (image, views, never blocking) or by futures that end when the core has
//! decided, in the core's own types. In production it is the runtime around the shard thread, in tests an in-memory fake.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;
use varve_common::{
    Clock, Entropy, GroupId, LeaderEpoch, NodeId, Offset, ReplicaId, TopicId, clock::BoxFuture,
};
use varve_replica::{
    PartitionView, Refusal, coordinator,
    metadata::{self, MetadataRejected, Topic},
    partition::Producers,
};

use crate::{
    config::{
        Fetch, GroupTopic, Layers, Listener, TopicCreation,
        topic::{self, Defaults, Effective, Given, ProduceRules, Source},
    },
    controller::progress::Progress,
    handlers::Opened,
    metrics::Metrics,
};

/// What the configuration of each topic means for produced batches, worked out when the first one comes.
type Rules = BTreeMap<TopicId, (Arc<Topic>, Arc<OnceLock<ProduceRules>>)>;

/// The metadata as of one applied command.
#[derive(Clone, Debug)]
pub struct Image {
    metadata: metadata::Image,
    rules: Rules,
}

impl Image {
    /// The first one.
    #[must_use]
    pub fn new(metadata: metadata::Image) -> Self {
        Self { metadata: metadata.clone(), rules: Rules::new() }.advance(metadata)
    }

    /// The next one. A change of a topic makes a new [`Topic`]: what was worked out for the others stays.
    #[must_use]
    pub fn advance(&self, metadata: metadata::Image) -> Self {
        let inherits_alike = self.metadata.broker_configs == metadata.broker_configs;
        let rules_of = |(id, topic): (&TopicId, &Arc<Topic>)| {
            let known = self.rules.get(id).filter(|(of, _)| inherits_alike && Arc::ptr_eq(of, topic));
            (*id, known.cloned().unwrap_or_else(|| (Arc::clone(topic), Arc::default())))
        };
        Self { rules: metadata.topics.iter().map(rules_of).collect(), metadata }
    }

    /// What the configuration of a topic in this image means for produced batches.
    pub fn produce_rules(&self, topic: &Topic, make: impl FnOnce() -> ProduceRules) -> &ProduceRules {
        self.rules[&topic.id].1.get_or_init(make)
    }
}

impl Deref for Image {
    type Target = metadata::Image;

    fn deref(&self) -> &metadata::Image {
        &self.metadata
    }
}

/// A topic to create: checked, with its defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Drawn by the handler.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// Which nodes hold each partition, from 0; the first leads by preference. None is without nodes.
    pub replicas: Vec<Vec<NodeId>>,
    /// Its own configuration values.
    pub configs: Vec<(String, String)>,
}

impl NewTopic {
    /// How many partitions it has.
    #[must_use]
    pub fn partitions(&self) -> i32 {
        i32::try_from(self.replicas.len()).expect("it was checked against the most that a topic has")
    }

    /// How many replicas each has.
    #[must_use]
    pub fn replication_factor(&self) -> i16 {
        let nodes = self.replicas.first().map_or(0, Vec::len);
        i16::try_from(nodes).expect("it was checked against the brokers")
    }
}

/// Who leads a partition, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The leader. It takes requests, or it is another node's and has said that it does.
    pub leader: ReplicaId,
    /// Raft's term as clients see it.
    pub epoch: LeaderEpoch,
    /// The voters that keep up, the leader among them; only the leader where it has not said.
    pub in_sync: Vec<ReplicaId>,
}

/// Why the metadata was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataRefusal {
    /// It was applied, and rejected without effect.
    #[error(transparent)]
    Rejected(#[from] MetadataRejected),
    /// Another node decides, and cannot be asked now. Nothing was done.
    #[error("not the controller")]
    NotController,
    /// It was asked, and whether it was done is unknown.
    #[error("the outcome was not known in time")]
    TimedOut,
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
    /// How many replicas must have it before it is answered, where that is more than a quorum; else 0.
    pub replicas_min: u32,
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

/// Where a read stands when this node's own places were asked.
pub enum Reading {
    /// They gave it.
    Here(ReadBatches),
    /// It comes from the object store, asked with the first poll. Whoever stops waiting then loses nothing: the read goes
    /// on and fills the caches.
    OnItsWay(ColdRead),
}

/// A read from the object store.
pub type ColdRead = BoxFuture<'static, Result<ReadBatches, ReadError>>;

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

/// Where a node keeps its data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// Its path.
    pub path: String,
    /// The size of its file system; 0 where that is not known.
    pub total_bytes: u64,
    /// What is free there.
    pub free_bytes: u64,
}

/// Runs the groups.
pub trait Backend: Send + Sync + 'static {
    /// The newest metadata.
    fn image(&self) -> Arc<Image>;

    /// Creates a topic; on success the next [`Backend::image`] holds it.
    fn create_topic(&self, topic: NewTopic) -> BoxFuture<'static, Result<(), MetadataRefusal>>;

    /// Deletes a topic; on success the next [`Backend::image`] lacks it.
    fn delete_topic(&self, id: TopicId) -> BoxFuture<'static, Result<(), MetadataRefusal>>;

    /// Adds partitions behind the first `count` that a topic has; on success the next [`Backend::image`] holds them.
    fn create_partitions(
        &self,
        id: TopicId,
        count: usize,
        replicas: Vec<Vec<NodeId>>,
    ) -> BoxFuture<'static, Result<(), MetadataRefusal>>;

    /// Asks for a partition to be held by these nodes, in order of preference, or by those that hold it now, `None`. On
    /// success it is journaled; its leader brings it about.
    fn reassign(
        &self,
        group: GroupId,
        nodes: Option<Vec<NodeId>>,
    ) -> BoxFuture<'static, Result<(), MetadataRefusal>>;

    /// Takes a node out of the cluster.
    fn remove_broker(&self, node: NodeId) -> BoxFuture<'static, Result<(), MetadataRefusal>>;

    /// Sets a topic's own configuration values, and removes those without a value, where it still says what the change
    /// builds on; on success the next [`Backend::image`] holds the change.
    fn configure_topic(
        &self,
        id: TopicId,
        changes: Vec<(String, Option<String>)>,
        built_on: &BTreeMap<String, String>,
    ) -> BoxFuture<'static, Result<(), MetadataRefusal>>;

    /// The same for a broker, or with `None` for all of them.
    fn configure_broker(
        &self,
        whose: Option<NodeId>,
        changes: Vec<(String, Option<String>)>,
        built_on: &BTreeMap<String, String>,
    ) -> BoxFuture<'static, Result<(), MetadataRefusal>>;

    /// A producer id that nobody had.
    fn allocate_producer_id(&self) -> BoxFuture<'static, Result<i64, MetadataRefusal>>;

    /// Appends a batch. It is handed over before this returns: batches of one connection keep their order.
    fn append(&self, group: GroupId, append: Append) -> BoxFuture<'static, Result<Appended, Refusal>>;

    /// A batch of an idempotent producer was refused for now, and not handed over: those behind it must not be taken before it.
    fn missed(&self, group: GroupId, meta: &varve_protocol::batch::BatchMeta);

    /// What a replica here knows of the producers of a partition.
    fn producers(&self, group: GroupId) -> BoxFuture<'static, Result<Arc<Producers>, Refusal>>;

    /// Moves a partition's first offset forward, to `before` or, where that is `None`, to the high watermark; gives the first
    /// offset. `Throttled`: another change is on its way, ask again.
    fn delete_records(
        &self,
        group: GroupId,
        before: Option<Offset>,
    ) -> BoxFuture<'static, Result<Offset, Refusal>>;

    /// Asks the coordinator of groups of consumers that a partition of their topic has, where this node leads it.
    fn coordinate(
        &self,
        group: GroupId,
        request: coordinator::Request,
    ) -> BoxFuture<'static, Result<coordinator::Outcome, Refusal>>;

    /// Who leads a group, this node or another; the metadata group's leader is the controller. `None`: nobody who takes
    /// requests now, as far as this node knows.
    fn leadership(&self, group: GroupId) -> Option<Leadership>;

    /// Lets another replica of a group lead. Whether it came to lead within the time.
    fn elect(&self, group: GroupId, leader: ReplicaId, within: Duration) -> BoxFuture<'static, bool>;

    /// How far the replicas of groups are, as their leaders say, in no order. Groups whose leader does not answer are missing.
    fn progress(&self, groups: Vec<GroupId>) -> BoxFuture<'static, Vec<Progress>>;

    /// Asks the leaders of groups where their records end, and waits for so long until the replicas here show as much: those of
    /// which everything shows that was acknowledged before.
    fn read_index(&self, groups: Vec<GroupId>, _wait: Duration) -> BoxFuture<'static, BTreeSet<GroupId>> {
        Box::pin(std::future::ready(groups.into_iter().collect()))
    }

    /// Where the data is.
    fn directory(&self) -> Directory;

    /// Whether a node is heard of.
    fn is_alive(&self, node: NodeId) -> bool;

    /// What is published of a partition; the receiver wakes with each change. `None`: not on this node.
    fn watch(&self, group: GroupId) -> Option<watch::Receiver<Arc<PartitionView>>>;

    /// Whether this node still leads a partition, as a quorum says. What was acknowledged before shows in what is published
    /// then.
    fn confirm(&self, _group: GroupId) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(true))
    }

    /// Why a partition of this node takes no more records, if it does not.
    fn damage(&self, _group: GroupId) -> Option<Arc<str>> {
        None
    }

    /// Whole batches from the one that holds `from`, on behalf of a connection. Ends when the places of this node were
    /// asked.
    fn read(
        &self,
        connection: u64,
        group: GroupId,
        from: Offset,
        limits: ReadLimits,
    ) -> BoxFuture<'static, Result<Reading, ReadError>>;

    /// The first record whose timestamp is at least `timestamp`.
    fn find_timestamp(
        &self,
        group: GroupId,
        timestamp: i64,
    ) -> BoxFuture<'static, Result<Option<Found>, ReadError>>;

    /// The record with the largest timestamp.
    fn find_max_timestamp(&self, group: GroupId) -> BoxFuture<'static, Result<Option<Found>, ReadError>>;
}

/// How many of so many replicas can elect a leader and commit: also `min.insync.replicas` where nobody sets it.
#[must_use]
pub const fn majority(replicas: usize) -> usize {
    replicas / 2 + 1
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
    /// How the topic of groups comes to be.
    pub groups: GroupTopic,
    /// What topics inherit from the file, environment and flags of this node.
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
    /// Memory for batches that are opened on their way in.
    pub opened: Opened,
    /// Held by who changes a configuration, from its look at what is there to the answer: those of one node would only make
    /// each other look again.
    pub alteration: tokio::sync::Mutex<()>,
}

impl Node {
    /// What is published of a partition now.
    #[must_use]
    pub fn view(&self, group: GroupId) -> Option<Arc<PartitionView>> {
        self.backend.watch(group).map(|view| Arc::clone(&view.borrow()))
    }

    /// How many replicas a topic gets where nobody says how many: what is configured, as far as there are brokers. One
    /// that is away holds its replica once it is back, as long as those that are here can elect and commit without it.
    #[must_use]
    pub fn replication_factor(&self) -> i16 {
        self.replicas_of(self.creation.replication_factor)
    }

    /// The same where so many are wanted.
    #[must_use]
    pub fn replicas_of(&self, wanted: i16) -> i16 {
        let image = self.backend.image();
        let here = image.brokers.keys().filter(|node| self.backend.is_alive(**node)).count().max(1);
        let wanted = usize::try_from(wanted).unwrap_or(1);
        let all = wanted.min(image.brokers.len().max(1));
        let factor = if here >= majority(all) { all } else { wanted.min(here) };
        i16::try_from(factor).expect("it is at most what was configured")
    }

    /// What gives a topic with so many replicas a value where it does not say, the winner first.
    #[must_use]
    pub fn inherited(&self, name: &str, replicas: usize) -> Vec<Given> {
        let mut given = self.defaults().given(name).to_vec();
        if name == topic::MIN_INSYNC_REPLICAS {
            let defaults = given.iter_mut().filter(|given| given.source == Source::Default);
            defaults.for_each(|given| given.value = majority(replicas).to_string());
        }
        given
    }

    /// A topic's configuration: its own values over what it inherits.
    #[must_use]
    pub fn effective(&self, topic: &Topic) -> Effective {
        let own = topic.configs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Effective::new(&self.defaults(), own)
    }

    /// What topics inherit now.
    #[must_use]
    pub fn defaults(&self) -> Cow<'_, Defaults> {
        self.topic_defaults.with(self.id, &self.backend.image().broker_configs)
    }
}

#[cfg(test)]
mod tests {
    use varve_common::{ClusterId, Incarnation};

    use super::*;

    #[test]
    fn rules_are_worked_out_once_and_anew_for_a_topic_that_changed() {
        let topic = |id: u128, configs: &[(&str, &str)]| {
            let own = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Arc::new(Topic {
                id: TopicId::from_random(id),
                name: "a".into(),
                created_ms: 0,
                partitions: Vec::new(),
                configs: own.collect(),
            })
        };
        let image = |topics: &[Arc<Topic>]| {
            let mut image = metadata::Image::new(ClusterId::from_random(1), Incarnation(1));
            image.topics = Arc::new(topics.iter().map(|topic| (topic.id, Arc::clone(topic))).collect());
            image
        };
        let rules = |batch_bytes_max| ProduceRules {
            batch_bytes_max,
            compacted: false,
            log_append_time: false,
            replicas_min: None,
            before_ms_max: 0,
            after_ms_max: 0,
            stored: None,
        };
        let (same, old, new) = (topic(1, &[]), topic(2, &[]), topic(2, &[("max.message.bytes", "5")]));
        let first = Image::new(image(&[Arc::clone(&same), Arc::clone(&old)]));
        assert_eq!(first.produce_rules(&same, || rules(1)).batch_bytes_max, 1);
        assert_eq!(first.produce_rules(&old, || rules(2)).batch_bytes_max, 2);
        let second = first.advance(image(&[Arc::clone(&same), Arc::clone(&new)]));
        assert_eq!(second.produce_rules(&same, || rules(3)).batch_bytes_max, 1);
        assert_eq!(second.produce_rules(&new, || rules(4)).batch_bytes_max, 4);
    }
}
