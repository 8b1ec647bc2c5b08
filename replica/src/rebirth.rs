//! The state with which a group begins the next life of its cluster (TIERING.md 11d).
//!
//! ```text
//!  earlier life   checkpoint as of S and A ── segments behind its manifest ──> end of what is restored
//!  new life                                                                    index, term, ids: far above what was
//! ```
//! Nobody knows what the cluster did after its newest checkpoint: terms, replicas, groups and producer ids that were given
//! out since then are in no object. So all of them go on at a distance that no life covers in that time. Terms show as
//! leader epochs, which clients refuse to see going back.
//!
//! Nothing of the earlier life's log is in the new one: the group's log begins behind its first entry, with an empty open
//! range and everything tiered. What was announced and is not among the segments is a tombstone: its object, if it is
//! there, goes like that of any upload that was given up.

use std::{collections::BTreeMap, sync::Arc};

use varve_common::{GroupId, Incarnation, LogIndex, NodeId, PartitionIndex, ReplicaId, Term, TopicId};
use varve_formats::{
    manifest::{Entry, Root},
    segment::SegmentState,
};

use crate::{
    api::OpenRange,
    coordinator::Groups,
    metadata::{MetadataState, Partition, Topic},
    partition::{BucketState, PartitionState, RecordState, given_up},
};

/// By how much terms grow with a life: elections of a second each, for twelve days.
pub const TERMS: u64 = 1 << 20;
/// By how much producer ids do.
pub const PRODUCER_IDS: i64 = 1 << 40;
/// By how much groups and the replicas of each node do.
pub const NUMBERS: u64 = 1 << 20;

/// The topic's configuration that remembers how many replicas its partitions had, until they have them again. Not one that
/// clients see or set.
pub const REPLICAS_WANTED: &str = "varve.restore.replicas";

/// Which life, and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewLife {
    /// The life.
    pub incarnation: Incarnation,
    /// The node that begins it, alone.
    pub node: NodeId,
    /// Now.
    pub wall_ms: i64,
}

/// What follows behind the manifest of a checkpoint, and the state at the end of all.
#[derive(Clone, Debug, Default)]
pub struct Continuation {
    /// Segments that the manifest does not name, in order.
    pub entries: Vec<Entry>,
    /// What the last segment of all says of its end; `None` where the checkpoint is as of that end.
    pub state: Option<SegmentState>,
}

impl MetadataState {
    /// The metadata of the next life: the same topics, each partition with one replica, on the node that begins it.
    #[must_use]
    pub fn reborn(&self, life: NewLife) -> Self {
        let mut image = self.image.clone();
        (image.incarnation, image.index) = (life.incarnation, self.index.next());
        image.brokers = Arc::default();
        image.metadata_replicas = Arc::default();
        image.disks = Arc::default();
        image.next_producer_id = image.next_producer_id.saturating_add(PRODUCER_IDS);
        image.next_group += NUMBERS;
        let counters = image.replica_counters.iter().map(|(node, next)| (*node, next + NUMBERS));
        image.replica_counters = Arc::new(counters.collect());
        let mut state = Self {
            index: self.index.next(),
            term: self.term.jumped(),
            append_time_ms: life.wall_ms,
            image,
            published: Vec::new(),
        };
        state.settle_on(life.node);
        state
    }

    /// Every partition has one replica, on this node. A life that was begun elsewhere, and has no node yet, may begin here.
    pub fn settle_on(&mut self, node: NodeId) {
        let counters = Arc::make_mut(&mut self.image.replica_counters);
        let mut next = counters.get(&node).copied().unwrap_or(1).max(NUMBERS);
        let topics: BTreeMap<TopicId, Arc<Topic>> = self
            .image
            .topics
            .iter()
            .map(|(id, topic)| {
                let wanted =
                    topic.partitions.iter().map(|partition| partition.wanted().len()).max().unwrap_or(1);
                let mut topic = topic.as_ref().clone();
                for partition in &mut topic.partitions {
                    let replica = ReplicaId::new(node, next).expect("a life takes 2^20 of 2^40 numbers");
                    *partition = Partition::new(partition.group, vec![replica]);
                    next += 1;
                }
                let before =
                    topic.configs.get(REPLICAS_WANTED).and_then(|text| text.parse().ok()).unwrap_or(1);
                let wanted = wanted.max(before);
                if wanted > 1 {
                    topic.configs.insert(REPLICAS_WANTED.to_owned(), wanted.to_string());
                }
                (*id, Arc::new(topic))
            })
            .collect();
        self.image.topics = Arc::new(topics);
        counters.insert(node, next);
    }
}

/// A topic that only the bucket knows: made after the metadata's checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// How many partitions it has, at least.
    pub partitions: i32,
}

impl MetadataState {
    /// Takes in topics that it does not know, as they might have been made: with the most replicas that any topic has. A name that
    /// another topic has is given with its id.
    pub fn adopt(&mut self, unknown: &[Unknown], node: NodeId) {
        let image = &mut self.image;
        let replicas = |topic: &Arc<Topic>| topic.partitions.iter().map(|at| at.wanted().len()).max();
        let wanted = image.topics.values().filter_map(replicas).max().unwrap_or(1);
        // Theirs were the next, and they may have been many.
        let mut group = image.next_group + NUMBERS / 2;
        for Unknown { id, name, partitions } in unknown {
            let is_taken = image.names.contains_key(name.as_str());
            let name: Arc<str> = if is_taken { format!("{name}.{id}").into() } else { name.as_str().into() };
            let mut topic = Topic {
                id: *id,
                name: Arc::clone(&name),
                created_ms: self.append_time_ms,
                partitions: Vec::new(),
                configs: BTreeMap::new(),
            };
            if wanted > 1 {
                topic.configs.insert(REPLICAS_WANTED.to_owned(), wanted.to_string());
            }
            for number in 0..*partitions {
                let replica = ReplicaId::new(node, 1).expect("1 is a counter");
                topic.partitions.push(Partition::new(GroupId(group), vec![replica]));
                Arc::make_mut(&mut image.groups).insert(GroupId(group), (*id, PartitionIndex(number)));
                group += 1;
            }
            Arc::make_mut(&mut image.names).insert(name, *id);
            Arc::make_mut(&mut image.topics).insert(*id, Arc::new(topic));
        }
    }
}

trait Jump {
    fn jumped(self) -> Self;
}

impl Jump for Term {
    fn jumped(self) -> Self {
        Self(self.0 + TERMS)
    }
}

impl PartitionState {
    /// The partition at the beginning of the next life. It ends where what is in the bucket ends; what was on nodes alone is
    /// a gap, and the log begins behind it where nothing before it is in the bucket.
    #[must_use]
    pub fn reborn(self, life: NewLife, then: Continuation) -> Self {
        let index = self.last_known(&then).next();
        let term = then
            .entries
            .iter()
            .map(|entry| entry.roll_term.max(entry.term))
            .fold(self.records.term, Term::max)
            .jumped();
        let bucket = self.bucket_after(&then, life, (index, term));
        let end = bucket.tiered_end;
        let mut records = RecordState {
            index,
            term,
            append_time_ms: self.records.append_time_ms,
            log_end: end,
            open: OpenRange::starting_at(end),
            ..RecordState::default()
        };
        let as_of_checkpoint = end == self.records.log_end && !is_bare(&bucket.root);
        let (mut producers, mut epochs) = match then.state {
            Some(state) => (by_id(state.producers), state.epochs),
            None if as_of_checkpoint => {
                (self.records.producers.as_ref().clone(), self.records.epochs.as_ref().clone())
            }
            // Nothing of what it had written is left: who comes again with the same batch is to be taken.
            None => (BTreeMap::new(), self.records.epochs.as_ref().clone()),
        };
        // Whoever began a transaction does not end it: its coordinator's life is over.
        producers.values_mut().for_each(|producer| producer.transaction_first = None);
        epochs.retain(|epoch| epoch.start <= end);
        (records.producers, records.epochs) = (Arc::new(producers), Arc::new(epochs));
        let mut identity = self.identity.clone();
        identity.incarnation = life.incarnation;
        let mut reborn = Self::new(identity);
        reborn.frozen = [(end, Arc::new(records.clone()))].into();
        (reborn.records, reborn.bucket, reborn.bucket_index) = (records, bucket, index);
        reborn.groups = self.groups;
        reborn
    }

    fn last_known(&self, then: &Continuation) -> LogIndex {
        let rolled = then.entries.iter().map(|entry| entry.roll_index);
        rolled.fold(self.records.index.max(self.bucket_index), LogIndex::max)
    }

    fn bucket_after(&self, then: &Continuation, life: NewLife, at: (LogIndex, Term)) -> BucketState {
        let before = &self.bucket;
        let mut root = before.root.as_ref().clone();
        root.entries.extend(then.entries.iter().cloned());
        let mut log_start = before.log_start;
        if is_bare(&root) || root.end() < log_start {
            // Nothing is left to read: what comes begins behind all that there was, so that no offset is given out twice.
            log_start = log_start.max(self.records.log_end).max(root.end());
            root = Root { start: log_start, ..Root::default() };
        }
        let adopted = |uid: u64| then.entries.iter().any(|entry| entry.uid == uid);
        let mut tombstones = before.tombstones.as_ref().clone();
        tombstones.retain(|tombstone| !adopted(tombstone.uid));
        let lost = before.intents.iter().filter(|intent| !adopted(intent.uid));
        tombstones
            .extend(lost.map(|intent| given_up(life.wall_ms, log_start, intent, self.identity.incarnation)));
        BucketState {
            log_start,
            tiered_end: root.end(),
            tiered_roll: at,
            manifest_seq: before.manifest_seq + 1,
            root: Arc::new(root),
            intents: Arc::default(),
            tombstones: Arc::new(tombstones),
            published: Arc::default(),
            kept: None,
        }
    }

    /// Groups of consumers, to be changed before the life begins.
    pub const fn groups_mut(&mut self) -> Option<&mut Groups> {
        self.groups.as_mut()
    }

    /// The newest checkpoint is this one: nothing has to be published before something changes.
    pub fn name_published(&mut self, checkpoint: varve_formats::command::PublishedCheckpoint) {
        self.bucket.published = Arc::new(vec![checkpoint]);
    }
}

fn by_id(producers: Vec<varve_formats::state::ProducerEntry>) -> crate::partition::Producers {
    producers.into_iter().map(|producer| (producer.producer_id, producer)).collect()
}

const fn is_bare(root: &Root) -> bool {
    root.nodes.is_empty() && root.entries.is_empty()
}
