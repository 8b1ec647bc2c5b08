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
//! Index and term follow from the life alone, whichever of the checkpoints of the one before was whole: the first checkpoint of
//! a group has one name in each life, so that of several who restore it one publishes it, and the others take what is there.
//!
//! Nothing of the earlier life's log is in the new one: the group's log begins behind its first entry, with an empty open
//! range and everything tiered. What was announced up to the restored end and is not among the segments is a tombstone: its
//! object, if it is there, goes like that of any upload that was given up. What lies behind the end stays.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use varve_common::{
    GroupId, Incarnation, LogIndex, NodeId, Offset, PartitionIndex, ReplicaId, Term, TopicId,
    codec::DecodeError,
};
use varve_formats::{
    checkpoint::{CheckpointHeader, PartitionCheckpoint, StatePoint},
    command::PublishedCheckpoint,
    manifest::{Entry, Root},
    segment::SegmentState,
    state::{Intent, ProducerEntry},
};

use crate::{
    api::{OpenRange, PartitionIdentity},
    coordinator::{self, Groups},
    metadata::{MetadataState, Partition, Topic},
    partition::{BucketState, PartitionState, Producers, RecordState, given_up},
};

/// By how much log indexes grow with a life.
pub const INDEXES: u64 = 1 << 40;
/// By how much terms do: elections of a second each, for twelve days; half of that is the least distance.
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

impl NewLife {
    /// Where a group of which this much is known begins.
    fn begin(self, index: LogIndex, term: Term) -> (LogIndex, Term) {
        let life = u64::from(self.incarnation.0);
        let index = life.max(index.0 / INDEXES + 1) * INDEXES;
        let term = life.max((term.0 + TERMS / 2) / TERMS + 1) * TERMS;
        (LogIndex(index), Term(term))
    }
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
        let (mut image, (index, term)) = (self.image.clone(), life.begin(self.index, self.term));
        (image.incarnation, image.index) = (life.incarnation, index);
        image.brokers = Arc::default();
        image.metadata_replicas = Arc::default();
        image.disks = Arc::default();
        image.next_producer_id = image.next_producer_id.saturating_add(PRODUCER_IDS);
        image.next_group += NUMBERS;
        let counters = image.replica_counters.iter().map(|(node, next)| (*node, next + NUMBERS));
        image.replica_counters = Arc::new(counters.collect());
        let mut state = Self { index, term, append_time_ms: life.wall_ms, image, published: Vec::new() };
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

/// Partitions that only the bucket knows, of a topic that is known: added after the metadata's checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// The topic.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// The first that is not known, and how many partitions the topic has, at least.
    pub partitions: Range<i32>,
}

impl MetadataState {
    /// Takes in topics and partitions that it does not know, as they might have been made: topics with the most replicas that
    /// any has. A name that another topic has is given with its id.
    pub fn adopt(&mut self, unknown: &[Unknown], added: &[Added], node: NodeId) {
        let replicas = |topic: &Arc<Topic>| topic.partitions.iter().map(|at| at.wanted().len()).max();
        let wanted = self.image.topics.values().filter_map(replicas).max().unwrap_or(1);
        // Theirs were the next, and they may have been many.
        let mut group = self.image.next_group + NUMBERS / 2;
        for Unknown { id, name, partitions } in unknown {
            let image = &mut self.image;
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
            Arc::make_mut(&mut image.names).insert(name, *id);
            Arc::make_mut(&mut image.topics).insert(*id, Arc::new(topic));
            self.extend(*id, *partitions, &mut group, node);
        }
        for Added { id, partitions, .. } in added {
            self.extend(*id, partitions.end, &mut group, node);
        }
    }

    /// The topic has so many partitions.
    fn extend(&mut self, id: TopicId, partitions: i32, group: &mut u64, node: NodeId) {
        let Some(topic) = Arc::make_mut(&mut self.image.topics).get_mut(&id) else { return };
        let topic = Arc::make_mut(topic);
        let known = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        for number in known..partitions {
            let replica = ReplicaId::new(node, 1).expect("1 is a counter");
            topic.partitions.push(Partition::new(GroupId(*group), vec![replica]));
            Arc::make_mut(&mut self.image.groups).insert(GroupId(*group), (id, PartitionIndex(number)));
            *group += 1;
        }
    }
}

/// A partition as a checkpoint of the earlier life says; nothing where there is none.
#[derive(Clone, Debug)]
pub struct Before {
    /// Which partition, in which life.
    pub identity: PartitionIdentity,
    /// What the checkpoint says of itself.
    pub header: Option<CheckpointHeader>,
    /// Its sections.
    pub state: PartitionCheckpoint,
    /// Groups of consumers; `None` where it is no partition of their topic.
    pub groups: Option<Groups>,
}

impl Before {
    /// What a checkpoint says.
    pub fn of(
        identity: PartitionIdentity,
        header: Option<CheckpointHeader>,
        mut state: PartitionCheckpoint,
    ) -> Result<Self, DecodeError> {
        let groups = match state.coordinator.take() {
            Some(section) => Some(Groups::decode(section)?),
            None => (identity.topic == coordinator::TOPIC).then(Groups::default),
        };
        Ok(Self { identity, header, state, groups })
    }

    /// S, its term, and the log's end there.
    #[must_use]
    pub fn point(&self) -> StatePoint {
        self.header.as_ref().map_or_else(StatePoint::default, |header| header.state)
    }

    /// A.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.header.as_ref().map_or(LogIndex::ZERO, |header| header.applied.index)
    }

    /// The first offset and the end of what is left with these segments behind the manifest. Where nothing is, the log begins
    /// behind all that there was, so that no offset is given out twice.
    #[must_use]
    pub fn offsets(&self, entries: &[Entry]) -> Range<Offset> {
        let (root, log_start) = (&self.state.root, self.state.bucket.log_start);
        let end = entries.last().map_or_else(|| root.end(), Entry::end);
        if entries.is_empty() && root.first().is_none() || end < log_start {
            let behind = log_start.max(self.point().offset).max(end);
            return behind..behind;
        }
        log_start..end
    }

    /// The partition at the beginning of the next life. It ends where what is in the bucket ends; what was on nodes alone is
    /// a gap.
    #[must_use]
    pub fn reborn(self, life: NewLife, then: Continuation) -> PartitionState {
        let point = self.point();
        let offsets = self.offsets(&then.entries);
        let rolled = then.entries.iter().map(|entry| entry.roll_index);
        let index = rolled.fold(point.index.max(self.applied()), LogIndex::max);
        let applied_term = self.header.as_ref().map_or(Term::ZERO, |header| header.applied.term);
        let terms = then.entries.iter().map(|entry| entry.roll_term.max(entry.term));
        let (index, term) = life.begin(index, terms.fold(point.term.max(applied_term), Term::max));
        let (mut producers, mut epochs) = match then.state {
            Some(state) => (by_id(state.producers), state.epochs),
            None if offsets.start < offsets.end && offsets.end == point.offset => {
                (by_id(self.state.producers.clone()), self.state.epochs.clone())
            }
            // Nothing of what they had written is left: who comes again with the same batch is to be taken.
            None => (BTreeMap::new(), self.state.epochs.clone()),
        };
        // Whoever began a transaction does not end it: its coordinator's life is over.
        producers.values_mut().for_each(|producer| producer.transaction_first = None);
        epochs.retain(|epoch| epoch.start <= offsets.end);
        let records = RecordState {
            index,
            term,
            append_time_ms: self.header.as_ref().map_or(life.wall_ms, |header| header.append_time_ms),
            log_end: offsets.end,
            open: OpenRange::starting_at(offsets.end),
            producers: Arc::new(producers),
            epochs: Arc::new(epochs),
            ..RecordState::default()
        };
        let mut reborn =
            PartitionState::new(PartitionIdentity { incarnation: life.incarnation, ..self.identity.clone() });
        reborn.bucket = self.bucket(&then.entries, offsets, life, (index, term));
        reborn.frozen = [(records.log_end, Arc::new(records.clone()))].into();
        (reborn.records, reborn.bucket_index, reborn.groups) = (records, index, self.groups);
        reborn
    }

    fn bucket(
        &self,
        entries: &[Entry],
        offsets: Range<Offset>,
        life: NewLife,
        at: (LogIndex, Term),
    ) -> BucketState {
        let mut root = self.state.root.clone();
        root.entries.extend(entries.iter().cloned());
        if offsets.is_empty() {
            root = Root { start: offsets.end, ..Root::default() };
        }
        let adopted = |uid: u64| entries.iter().any(|entry| entry.uid == uid);
        let mut tombstones = self.state.tombstones.clone();
        tombstones.retain(|tombstone| !adopted(tombstone.uid));
        let (log_start, before) = (offsets.start, self.identity.incarnation);
        // What lies behind the end may be all that is left of its range: it stays, and `varve bucket verify` tells of it.
        let behind = |intent: &Intent| intent.end > offsets.end;
        let lost = self.state.intents.iter().filter(|intent| !adopted(intent.uid) && !behind(intent));
        tombstones.extend(lost.map(|intent| given_up(life.wall_ms, log_start, intent, before)));
        BucketState {
            log_start,
            tiered_end: offsets.end,
            tiered_roll: at,
            manifest_seq: self.state.bucket.manifest_seq + 1,
            root: Arc::new(root),
            intents: Arc::default(),
            tombstones: Arc::new(tombstones),
            published: Arc::default(),
            kept: None,
            // What is announced is made, or found there: files that were made since are looked for before the next.
            archive: self.state.archive,
        }
    }
}

impl PartitionState {
    /// The newest checkpoint is this one: nothing has to be published before something changes.
    pub fn name_published(&mut self, checkpoint: PublishedCheckpoint) {
        self.bucket.published = Arc::new(vec![checkpoint]);
    }
}

fn by_id(producers: Vec<ProducerEntry>) -> Producers {
    producers.into_iter().map(|producer| (producer.producer_id, producer)).collect()
}

#[cfg(test)]
mod tests;
