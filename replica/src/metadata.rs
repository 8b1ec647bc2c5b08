//! The state of group 0: brokers, topics, assignments, configurations, id blocks, features, deletions.
//!
//! What was decided is in the command; apply validates it against the state alone, so every replica answers alike. A
//! rejected command changes nothing. Readers hold an [`Image`]: immutable, its maps shared, so that a clone costs a
//! few reference counts and a change copies only the map that it touches.

mod configs;
mod home;
mod image;
mod members;
mod stored;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use varve_common::{
    ClusterId, Digest, GroupId, Incarnation, LogIndex, NodeId, PartitionIndex, ReplicaId, Term, TopicId,
};
use varve_consensus::EntryKind;
use varve_formats::command::{
    BrokerRegistration, Command, CreateTopic, METADATA_FEATURE, MetadataCommand, PartitionAssignment,
    PublishedCheckpoint,
};

pub use configs::BrokerConfigs;
pub use image::{Broker, Deletion, Image, Partition, Topic};
pub use stored::MetadataSections;

use crate::{
    api::LogEntry,
    limits::{PARTITIONS_MAX, PUBLISHED_KEPT, TOPIC_NAME_BYTES_MAX},
    partition::ApplyError,
};

/// What a metadata command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataDone {
    /// The broker's registration is in force.
    BrokerRegistered {
        /// Which broker.
        node: NodeId,
        /// Counts its registrations; later ones fence earlier ones.
        epoch: u64,
    },
    /// The topic exists, with its groups.
    TopicCreated(Arc<Topic>),
    /// The topic has more partitions, with their groups.
    PartitionsCreated(Arc<Topic>),
    /// The topic is gone; its deletion is journaled.
    TopicDeleted(Arc<Topic>),
    /// The deletion's journal entry ended.
    TopicReaped,
    /// The configuration is in force.
    ConfigsSet(Arc<Topic>),
    /// The configuration of a broker, or of all, is in force.
    BrokerConfigsSet,
    /// Producer ids `first..first + count` are the proposer's.
    ProducerIds {
        /// The first.
        first: i64,
        /// How many.
        count: u32,
    },
    /// Replica counters `first..first + count` of a node are the proposer's.
    ReplicaIds {
        /// Whose.
        node: NodeId,
        /// The first.
        first: u64,
        /// How many.
        count: u32,
    },
    /// The feature is at this level.
    FeatureSet {
        /// Its level.
        level: u16,
    },
    /// The target is journaled, or the partition has come to it.
    Reassigned(Arc<Topic>),
    /// So many partitions are to have other replicas.
    ReplicasReplaced {
        /// How many.
        count: u32,
    },
    /// The node has left.
    BrokerRemoved,
}

/// Why a metadata command did nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataRejected {
    /// A topic of this name exists. TOPIC_ALREADY_EXISTS.
    #[error("topic exists")]
    TopicExists {
        /// Its id.
        id: TopicId,
    },
    /// The drawn topic id was used before, or is the zero id. Retry with another.
    #[error("topic id is taken")]
    TopicIdTaken,
    /// No such topic. UNKNOWN_TOPIC_ID.
    #[error("no such topic")]
    UnknownTopic,
    /// An empty or overlong name. INVALID_TOPIC_EXCEPTION.
    #[error("invalid topic name")]
    InvalidName,
    /// No partitions, too many, or one without replicas. INVALID_PARTITIONS.
    #[error("invalid partitions")]
    InvalidPartitions,
    /// The topic has another number of partitions than the command builds on. INVALID_PARTITIONS.
    #[error("the topic has {count} partitions")]
    PartitionsChanged {
        /// How many it has.
        count: u32,
    },
    /// Not a node id.
    #[error("invalid node id {0}")]
    InvalidNode(u32),
    /// A count of zero, or ids used up.
    #[error("invalid count")]
    InvalidCount,
    /// No partition is this group. UNKNOWN_TOPIC_OR_PARTITION.
    #[error("no partition is this group")]
    UnknownGroup,
    /// Not what replicas of one partition can be: none, two on a node, one that was never handed out or has left.
    /// INVALID_REPLICA_ASSIGNMENT.
    #[error("invalid replicas")]
    InvalidReplicas,
    /// The partition has another target by now, or none. NO_REASSIGNMENT_IN_PROGRESS.
    #[error("the partition has another target")]
    OtherTarget,
    /// The node has replicas of partitions.
    #[error("the node has replicas")]
    BrokerInUse,
    /// The node's place was given to another disk: this one was lost, or is a second machine with the same number.
    #[error(
        "another disk has taken the place of node {node}: this one was given up, or two machines have that number"
    )]
    OtherDisk {
        /// Which node.
        node: NodeId,
    },
    /// A machine asks for the place of a node that is alive.
    #[error("node {node} is alive on another machine, or on another disk")]
    NodeAlive {
        /// Which node.
        node: NodeId,
    },
    /// The node's release does not know what is written, or is to be.
    #[error(
        "the release on node {node} is too old: it does not know level {level} of the metadata's commands"
    )]
    TooOld {
        /// Which node.
        node: NodeId,
        /// The level.
        level: u16,
    },
    /// The values are others than those that the change builds on. Look again.
    #[error("the configuration was changed by somebody else at the same time")]
    ConfigsChanged,
    /// Feature levels only rise.
    #[error("feature is at level {current}")]
    FeatureDowngrade {
        /// Where it is.
        current: u16,
    },
}

/// The metadata's state as of its applied entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataState {
    pub(crate) index: LogIndex,
    pub(crate) term: Term,
    pub(crate) append_time_ms: i64,
    pub(crate) image: Image,
    pub(crate) published: Vec<PublishedCheckpoint>,
}

/// What a committed entry of the metadata group did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataApplied {
    /// A no-op, or a membership change.
    Nothing,
    /// A metadata command, done or rejected.
    Command(Result<MetadataDone, MetadataRejected>),
    /// A checkpoint of this group was published.
    Published,
    /// A command that missed its fence.
    Fenced,
}

impl MetadataState {
    /// The state before the first entry.
    #[must_use]
    pub fn new(cluster: ClusterId, incarnation: Incarnation) -> Self {
        Self {
            index: LogIndex::ZERO,
            term: Term::ZERO,
            append_time_ms: 0,
            image: Image::new(cluster, incarnation),
            published: Vec::new(),
        }
    }

    /// Applies the committed entry that follows.
    pub fn apply(&mut self, entry: &LogEntry) -> Result<MetadataApplied, ApplyError> {
        let expected = self.index.next();
        if entry.index != expected {
            return Err(ApplyError::Gap { expected, found: entry.index });
        }
        let applied = match EntryKind::from_u8(entry.kind) {
            Some(EntryKind::Normal) => self.apply_command(entry)?,
            Some(EntryKind::Empty | EntryKind::ConfChange) => MetadataApplied::Nothing,
            None => return Err(ApplyError::EntryKind(entry.kind)),
        };
        (self.index, self.term) = (entry.index, entry.term);
        Ok(applied)
    }

    fn apply_command(&mut self, entry: &LogEntry) -> Result<MetadataApplied, ApplyError> {
        let (header, command) = Command::decode(entry.data.clone())?;
        self.append_time_ms = header.append_time_ms;
        match command {
            Command::Metadata(command) => {
                let outcome = self.change(command);
                if outcome.is_ok() {
                    self.image.index = entry.index;
                }
                Ok(MetadataApplied::Command(outcome))
            }
            Command::CkptPublished(published) => {
                let newest = self.published.last().map_or(LogIndex::ZERO, |newest| newest.applied_index);
                if published.term != entry.term || published.checkpoint.applied_index <= newest {
                    return Ok(MetadataApplied::Fenced);
                }
                self.published.push(published.checkpoint);
                self.published.drain(..self.published.len().saturating_sub(PUBLISHED_KEPT));
                Ok(MetadataApplied::Published)
            }
            _ => Err(ApplyError::WrongGroup),
        }
    }

    fn change(&mut self, command: MetadataCommand) -> Result<MetadataDone, MetadataRejected> {
        match command {
            MetadataCommand::RegisterBroker(registration) => self.register(registration),
            MetadataCommand::CreateTopic(topic) => self.create(topic),
            MetadataCommand::DeleteTopic { id } => self.delete(id),
            MetadataCommand::TopicReaped { id } => {
                Arc::make_mut(&mut self.image.deletions).remove(&id).ok_or(MetadataRejected::UnknownTopic)?;
                Ok(MetadataDone::TopicReaped)
            }
            MetadataCommand::SetTopicConfigs { id, configs, expected } => {
                self.configure(id, configs, expected)
            }
            MetadataCommand::SetBrokerConfigs { node, configs, expected } => {
                self.configure_broker(node, configs, expected)
            }
            MetadataCommand::CreatePartitions { id, first, partitions } => {
                self.create_partitions(id, first, partitions)
            }
            MetadataCommand::AllocateProducerIds { count } => self.allocate_producer_ids(count),
            MetadataCommand::AllocateReplicaIds { node, count } => self.allocate_replica_ids(node, count),
            MetadataCommand::SetFeature { name, level } => self.set_feature(name, level),
            MetadataCommand::Reassign { group, target } => self.reassign(group, target),
            MetadataCommand::MembersChanged { group, members, version } => {
                self.members_changed(group, &members, version)
            }
            MetadataCommand::ReplaceReplicas { node, below } => self.replace_replicas(node, below),
            MetadataCommand::HostMetadata { node, disk } => self.host_metadata(node, disk),
            MetadataCommand::RemoveBroker { node } => self.remove_broker(node),
        }
    }

    fn register(&mut self, registration: BrokerRegistration) -> Result<MetadataDone, MetadataRejected> {
        let node = NodeId::new(registration.node).ok_or(MetadataRejected::InvalidNode(registration.node))?;
        if self.image.metadata_replicas.get(&node) == Some(&None) {
            // It left. It comes back with a replica of the metadata, or not at all.
            return Err(MetadataRejected::InvalidNode(registration.node));
        }
        if registration.disk != 0 && self.image.is_other_disk(node, registration.disk) {
            return Err(MetadataRejected::OtherDisk { node });
        }
        let known = self.image.level(METADATA_FEATURE);
        if registration.level < known {
            return Err(MetadataRejected::TooOld { node, level: known });
        }
        let brokers = Arc::make_mut(&mut self.image.brokers);
        let epoch = brokers.get(&node).map_or(1, |broker| broker.epoch + 1);
        let BrokerRegistration { advertised, rack, peer, level, .. } = registration;
        brokers.insert(node, Broker { node, epoch, advertised, rack, peer, level });
        Ok(MetadataDone::BrokerRegistered { node, epoch })
    }

    fn create(&mut self, command: CreateTopic) -> Result<MetadataDone, MetadataRejected> {
        self.check_new(&command)?;
        self.check_present(&command.partitions)?;
        let partitions = self.found(command.id, 0, command.partitions);
        let topic = Arc::new(Topic {
            id: command.id,
            name: command.name.as_str().into(),
            created_ms: self.append_time_ms,
            partitions,
            configs: command.configs.into_iter().collect(),
        });
        Arc::make_mut(&mut self.image.names).insert(Arc::clone(&topic.name), command.id);
        Arc::make_mut(&mut self.image.topics).insert(command.id, Arc::clone(&topic));
        Ok(MetadataDone::TopicCreated(topic))
    }

    /// Gives new partitions of a topic their groups.
    fn found(&mut self, id: TopicId, first: usize, assignments: Vec<PartitionAssignment>) -> Vec<Partition> {
        let mut partitions = Vec::with_capacity(assignments.len());
        for (number, assignment) in (first..).zip(assignments) {
            let partition = PartitionIndex(i32::try_from(number).expect("checked against PARTITIONS_MAX"));
            let group = GroupId(self.image.next_group);
            self.image.next_group += 1;
            Arc::make_mut(&mut self.image.groups).insert(group, (id, partition));
            let replicas = assignment.replicas.into_iter().map(|replica| self.on_present_disk(replica));
            let replicas = replicas.collect();
            partitions.push(Partition::new(group, replicas));
        }
        partitions
    }

    fn create_partitions(
        &mut self,
        id: TopicId,
        first: u32,
        assignments: Vec<PartitionAssignment>,
    ) -> Result<MetadataDone, MetadataRejected> {
        let mut topic = self.image.topics.get(&id).ok_or(MetadataRejected::UnknownTopic)?.as_ref().clone();
        let count = topic.partitions.len();
        if usize::try_from(first) != Ok(count) {
            let count = u32::try_from(count).expect("checked against PARTITIONS_MAX");
            return Err(MetadataRejected::PartitionsChanged { count });
        }
        if count + assignments.len() > PARTITIONS_MAX
            || assignments.is_empty()
            || assignments.iter().any(|each| each.replicas.is_empty())
        {
            return Err(MetadataRejected::InvalidPartitions);
        }
        self.check_present(&assignments)?;
        topic.partitions.extend(self.found(id, count, assignments));
        let topic = Arc::new(topic);
        Arc::make_mut(&mut self.image.topics).insert(id, Arc::clone(&topic));
        Ok(MetadataDone::PartitionsCreated(topic))
    }

    /// A node that was removed while somebody placed replicas on it hosts none.
    fn check_present(&self, assignments: &[PartitionAssignment]) -> Result<(), MetadataRejected> {
        let is_removed =
            |replica: &ReplicaId| self.image.metadata_replicas.get(&replica.node()) == Some(&None);
        let any = assignments.iter().flat_map(|each| &each.replicas).any(is_removed);
        if any { Err(MetadataRejected::InvalidReplicas) } else { Ok(()) }
    }

    fn check_new(&self, command: &CreateTopic) -> Result<(), MetadataRejected> {
        if command.name.is_empty() || command.name.len() > TOPIC_NAME_BYTES_MAX {
            return Err(MetadataRejected::InvalidName);
        }
        if let Some(&id) = self.image.names.get(command.name.as_str()) {
            return Err(MetadataRejected::TopicExists { id });
        }
        let used =
            self.image.topics.contains_key(&command.id) || self.image.deletions.contains_key(&command.id);
        if used || command.id == TopicId::ZERO {
            return Err(MetadataRejected::TopicIdTaken);
        }
        let count = command.partitions.len();
        if count == 0
            || count > PARTITIONS_MAX
            || command.partitions.iter().any(|each| each.replicas.is_empty())
        {
            return Err(MetadataRejected::InvalidPartitions);
        }
        Ok(())
    }

    fn delete(&mut self, id: TopicId) -> Result<MetadataDone, MetadataRejected> {
        if !self.image.topics.contains_key(&id) {
            return Err(MetadataRejected::UnknownTopic);
        }
        let topic =
            Arc::make_mut(&mut self.image.topics).remove(&id).ok_or(MetadataRejected::UnknownTopic)?;
        Arc::make_mut(&mut self.image.names).remove(&topic.name);
        let groups = Arc::make_mut(&mut self.image.groups);
        for partition in &topic.partitions {
            groups.remove(&partition.group);
        }
        // The entry that is applied now: `index` moves behind it.
        let index = self.index.next();
        let deletion = Deletion { topic: Arc::clone(&topic), since_ms: self.append_time_ms, index };
        Arc::make_mut(&mut self.image.deletions).insert(id, deletion);
        Ok(MetadataDone::TopicDeleted(topic))
    }

    fn allocate_producer_ids(&mut self, count: u32) -> Result<MetadataDone, MetadataRejected> {
        let first = self.image.next_producer_id;
        let next = first
            .checked_add(i64::from(count))
            .filter(|_| count > 0)
            .ok_or(MetadataRejected::InvalidCount)?;
        self.image.next_producer_id = next;
        Ok(MetadataDone::ProducerIds { first, count })
    }

    fn allocate_replica_ids(&mut self, node: u32, count: u32) -> Result<MetadataDone, MetadataRejected> {
        let node = NodeId::new(node).ok_or(MetadataRejected::InvalidNode(node))?;
        let first = self.image.replica_counters.get(&node).copied().unwrap_or(1);
        let next = first + u64::from(count);
        if count == 0 || next >> 40 != 0 {
            return Err(MetadataRejected::InvalidCount);
        }
        Arc::make_mut(&mut self.image.replica_counters).insert(node, next);
        Ok(MetadataDone::ReplicaIds { node, first, count })
    }

    fn set_feature(&mut self, name: String, level: u16) -> Result<MetadataDone, MetadataRejected> {
        let current = self.image.features.get(&name).copied().unwrap_or(0);
        if level < current {
            return Err(MetadataRejected::FeatureDowngrade { current });
        }
        Arc::make_mut(&mut self.image.features).insert(name, level);
        Ok(MetadataDone::FeatureSet { level })
    }

    /// The last applied entry and its term.
    #[must_use]
    pub const fn applied(&self) -> (LogIndex, Term) {
        (self.index, self.term)
    }

    /// What readers see.
    #[must_use]
    pub const fn image(&self) -> &Image {
        &self.image
    }

    /// The newest verified checkpoints in the bucket, oldest first.
    #[must_use]
    pub fn published(&self) -> &[PublishedCheckpoint] {
        &self.published
    }

    /// Equal on all replicas that have applied the same index (R9).
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest::of(&self.hashed_bytes())
    }
}
