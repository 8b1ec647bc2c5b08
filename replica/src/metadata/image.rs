//! What readers see of the metadata.

use std::{collections::BTreeMap, sync::Arc};

use varve_common::{ClusterId, GroupId, Incarnation, LogIndex, NodeId, PartitionIndex, ReplicaId, TopicId};

use super::configs::BrokerConfigs;

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its node id.
    pub node: NodeId,
    /// Counts its registrations.
    pub epoch: u64,
    /// Where clients reach it; empty: at the address they connected to.
    pub advertised: Vec<String>,
    /// Its rack.
    pub rack: Option<String>,
    /// Where other nodes reach it, `host:port`.
    pub peer: Option<String>,
    /// Which level of metadata commands it knows.
    pub level: u16,
}

/// One partition's group and replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its group.
    pub group: GroupId,
    /// Its voters; while it is reassigned, those from before.
    pub replicas: Vec<ReplicaId>,
    /// The voters that it is to have; empty where nothing is under way.
    pub target: Vec<ReplicaId>,
    /// Those that it began with, where these are others; empty where they are `replicas`.
    pub founders: Vec<ReplicaId>,
    /// Of each node the newest that left, where one did: none comes back.
    pub left: Vec<ReplicaId>,
    /// Those that were to be in it and are not any more: they may be, until it has come to its target.
    pub leaving: Vec<ReplicaId>,
    /// The entry that last changed any of this; zero where nothing did.
    pub version: LogIndex,
}

impl Partition {
    /// A partition that was never reassigned.
    #[must_use]
    pub const fn new(group: GroupId, replicas: Vec<ReplicaId>) -> Self {
        Self {
            group,
            replicas,
            target: Vec::new(),
            founders: Vec::new(),
            left: Vec::new(),
            leaving: Vec::new(),
            version: LogIndex::ZERO,
        }
    }

    /// Those that it began with: a replica with the whole log, and no checkpoint, starts from them.
    #[must_use]
    pub fn founders(&self) -> &[ReplicaId] {
        if self.founders.is_empty() { &self.replicas } else { &self.founders }
    }

    /// Those that it is to have.
    #[must_use]
    pub fn wanted(&self) -> &[ReplicaId] {
        if self.target.is_empty() { &self.replicas } else { &self.target }
    }

    /// All that are, may be, or are to be in it.
    pub fn known(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.replicas.iter().chain(&self.target).chain(&self.leaving).copied()
    }

    /// Its replica on a node, as it is or is to be there; the newest incarnation.
    #[must_use]
    pub fn on(&self, node: NodeId) -> Option<ReplicaId> {
        self.known().filter(|replica| replica.node() == node).max()
    }

    /// The newest replica that a node ever had, as far as it is known: none that comes is older.
    #[must_use]
    pub fn newest_on(&self, node: NodeId) -> Option<ReplicaId> {
        let known = self.known().chain(self.left.iter().copied());
        known.filter(|replica| replica.node() == node).max()
    }

    /// It is to have these.
    pub(super) fn aim(&mut self, target: Vec<ReplicaId>) {
        if self.founders.is_empty() {
            self.founders.clone_from(&self.replicas);
        }
        self.target = target;
    }
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// For ever.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// When it was created, wall clock.
    pub created_ms: i64,
    /// Its partitions, from 0.
    pub partitions: Vec<Partition>,
    /// What differs from the defaults.
    pub configs: BTreeMap<String, String>,
}

/// A deleted topic whose objects and files are not all gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// What it was.
    pub topic: Arc<Topic>,
    /// When it was deleted, wall clock.
    pub since_ms: i64,
    /// The entry that deleted it: a checkpoint of an earlier state would bring it back.
    pub index: LogIndex,
}

/// The metadata, immutable; a clone shares everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its life on the bucket prefix.
    pub incarnation: Incarnation,
    /// The last entry that changed it: a version.
    pub index: LogIndex,
    /// Brokers, by node.
    pub brokers: Arc<BTreeMap<NodeId, Broker>>,
    /// Topics, by id.
    pub topics: Arc<BTreeMap<TopicId, Arc<Topic>>>,
    /// Topic ids, by name.
    pub names: Arc<BTreeMap<Arc<str>, TopicId>>,
    /// Which partition a group is.
    pub groups: Arc<BTreeMap<GroupId, (TopicId, PartitionIndex)>>,
    /// Deleted topics that are not reaped.
    pub deletions: Arc<BTreeMap<TopicId, Deletion>>,
    /// Feature levels, by name.
    pub features: Arc<BTreeMap<String, u16>>,
    /// The next replica counter of each node.
    pub replica_counters: Arc<BTreeMap<NodeId, u64>>,
    /// The metadata's own replica on each node, where that is not its founder; `None` for a node that has left.
    pub metadata_replicas: Arc<BTreeMap<NodeId, Option<ReplicaId>>>,
    /// The random number of the disk to which that replica was given, where it said one.
    pub disks: Arc<BTreeMap<NodeId, u64>>,
    /// What was set for brokers at run time.
    pub broker_configs: Arc<BrokerConfigs>,
    /// The next producer id.
    pub next_producer_id: i64,
    /// The next group's number; 0 is the metadata's.
    pub next_group: u64,
}

impl Image {
    /// No broker and no topic.
    #[must_use]
    pub fn new(cluster: ClusterId, incarnation: Incarnation) -> Self {
        Self {
            cluster,
            incarnation,
            index: LogIndex::ZERO,
            brokers: Arc::default(),
            topics: Arc::default(),
            names: Arc::default(),
            groups: Arc::default(),
            deletions: Arc::default(),
            features: Arc::default(),
            replica_counters: Arc::default(),
            metadata_replicas: Arc::default(),
            disks: Arc::default(),
            broker_configs: Arc::default(),
            next_producer_id: 1,
            next_group: 1,
        }
    }

    /// The topic of this name.
    #[must_use]
    pub fn topic_by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(name)?)
    }

    /// The topic with this id.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// Whether a replica was on a disk that is lost, or on a node that has left: its node's metadata is of a later disk.
    #[must_use]
    pub fn is_lost(&self, replica: ReplicaId) -> bool {
        match self.metadata_replicas.get(&replica.node()) {
            Some(Some(hosted)) => replica.counter() < hosted.counter(),
            Some(None) => true,
            None => false,
        }
    }

    /// Whether a disk of a node is another than the one that the cluster knows.
    #[must_use]
    pub fn is_other_disk(&self, node: NodeId, disk: u64) -> bool {
        self.disks.get(&node).is_some_and(|known| *known != disk)
    }

    /// The level of a feature up to which everybody here reads what is written.
    #[must_use]
    pub fn level(&self, feature: &str) -> u16 {
        self.features.get(feature).copied().unwrap_or(0)
    }

    /// The topic, partition number and partition that a group is.
    #[must_use]
    pub fn partition_of(&self, group: GroupId) -> Option<(&Arc<Topic>, PartitionIndex, &Partition)> {
        let (id, number) = self.groups.get(&group)?;
        let topic = self.topics.get(id)?;
        let partition = topic.partitions.get(usize::try_from(number.0).ok()?)?;
        Some((topic, *number, partition))
    }
}
