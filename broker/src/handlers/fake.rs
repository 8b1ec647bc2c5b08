//! A node in memory: one broker, batches in vectors, everything committed at once.

mod controls;
mod groups;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use varve_common::{
    Clock, ClusterId, Entropy, GroupId, Incarnation, LeaderEpoch, LogIndex, Monotonic, NodeId, Offset,
    ReplicaId, Term, TopicId, clock::BoxFuture,
};
use varve_protocol::batch::{BatchHeader, Caps, Records, patch};
use varve_replica::{
    PartitionView, Refusal, coordinator,
    metadata::{self, Broker, MetadataRejected, Partition, Topic},
    partition::Producers,
};

use crate::{
    config::{Config, Sources},
    controller::progress::{Member, Progress},
    handlers::Opened,
    metrics::Metrics,
    node::*,
};

pub use view::empty_view;

struct Log {
    batches: Vec<(Offset, Bytes)>,
    view: watch::Sender<Arc<PartitionView>>,
}

struct State {
    image: Arc<Image>,
    logs: BTreeMap<GroupId, Log>,
    producers: i64,
    cold: BTreeMap<GroupId, Cold>,
    /// What other nodes are said to lead, and this one with others in sync.
    leaders: BTreeMap<GroupId, Leadership>,
    dead: BTreeSet<NodeId>,
    replicas: u64,
    coordinators: groups::Coordinators,
    /// How often a quorum was asked whether this node leads.
    confirmed: BTreeMap<GroupId, u32>,
}

impl State {
    fn found(&mut self, metadata: &mut metadata::Image, replicas: Vec<Vec<NodeId>>) -> Vec<Partition> {
        let mut partitions = Vec::new();
        for nodes in replicas {
            let group = GroupId(metadata.next_group);
            metadata.next_group += 1;
            if nodes.contains(&node_id()) {
                let log = Log { batches: Vec::new(), view: watch::Sender::new(Arc::new(empty_view())) };
                self.logs.insert(group, log);
            }
            let mut incarnate = |node: NodeId| {
                self.replicas += 1;
                ReplicaId::new(node, self.replicas).unwrap()
            };
            partitions.push(Partition::new(group, nodes.into_iter().map(&mut incarnate).collect()));
        }
        partitions
    }
}

/// A partition whose records are in the object store.
struct Cold {
    batch: Bytes,
    opens: watch::Sender<bool>,
    asked: u32,
}

/// The backend.
pub struct Fake(Arc<Mutex<State>>);

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

fn node_id() -> NodeId {
    NodeId::new(1).unwrap()
}

fn replica_id() -> ReplicaId {
    ReplicaId::new(node_id(), 1).unwrap()
}

impl Fake {
    fn new() -> Self {
        let broker =
            Broker { node: node_id(), epoch: 1, advertised: Vec::new(), rack: None, peer: None, level: 0 };
        let mut metadata = metadata::Image::new(ClusterId([7; 16]), Incarnation(1));
        metadata.brokers = Arc::new(BTreeMap::from([(node_id(), broker)]));
        let image = Arc::new(Image::new(metadata));
        Self(Arc::new(Mutex::new(State {
            image,
            logs: BTreeMap::new(),
            producers: 0,
            cold: BTreeMap::new(),
            leaders: BTreeMap::new(),
            dead: BTreeSet::new(),
            replicas: 0,
            confirmed: BTreeMap::new(),
            coordinators: groups::Coordinators::default(),
        })))
    }
}

impl Fake {
    /// Every record's time.
    fn times(&self, group: GroupId) -> Vec<Found> {
        let mut times = Vec::new();
        for (_, batch) in &self.0.lock().unwrap().logs[&group].batches {
            let header = BatchHeader::read(batch).unwrap();
            for record in Records::read(&header, Caps::default()).unwrap().iter() {
                let record = record.unwrap();
                let offset = Offset::from_wire(record.offset).unwrap();
                times.push(Found { offset, timestamp: record.timestamp });
            }
        }
        times
    }
}

impl Backend for Fake {
    fn image(&self) -> Arc<Image> {
        Arc::clone(&self.0.lock().unwrap().image)
    }

    fn create_topic(&self, topic: NewTopic) -> BoxFuture<'static, Result<(), MetadataRefusal>> {
        let mut state = self.0.lock().unwrap();
        let mut metadata = metadata::Image::clone(&state.image);
        let name: Arc<str> = topic.name.into();
        let partitions = state.found(&mut metadata, topic.replicas);
        let made = Topic {
            id: topic.id,
            name: Arc::clone(&name),
            created_ms: 0,
            partitions,
            configs: topic.configs.into_iter().collect(),
        };
        Arc::make_mut(&mut metadata.names).insert(name, topic.id);
        Arc::make_mut(&mut metadata.topics).insert(topic.id, Arc::new(made));
        state.image = Arc::new(state.image.advance(metadata));
        ready(Ok(()))
    }

    fn delete_topic(&self, id: TopicId) -> BoxFuture<'static, Result<(), MetadataRefusal>> {
        let mut state = self.0.lock().unwrap();
        let mut metadata = metadata::Image::clone(&state.image);
        let Some(topic) = Arc::make_mut(&mut metadata.topics).remove(&id) else {
            return ready(Err(MetadataRejected::UnknownTopic.into()));
        };
        Arc::make_mut(&mut metadata.names).remove(&topic.name);
        state.image = Arc::new(state.image.advance(metadata));
        ready(Ok(()))
    }

    fn create_partitions(
        &self,
        id: TopicId,
        count: usize,
        replicas: Vec<Vec<NodeId>>,
    ) -> BoxFuture<'static, Result<(), MetadataRefusal>> {
        let mut state = self.0.lock().unwrap();
        let mut metadata = metadata::Image::clone(&state.image);
        let mut topic = Topic::clone(&metadata.topics[&id]);
        assert_eq!(topic.partitions.len(), count);
        topic.partitions.extend(state.found(&mut metadata, replicas));
        Arc::make_mut(&mut metadata.topics).insert(id, Arc::new(topic));
        state.image = Arc::new(state.image.advance(metadata));
        ready(Ok(()))
    }

    /// Whoever is added is so at the next look; nobody brings it about.
    fn reassign(
        &self,
        group: GroupId,
        nodes: Option<Vec<NodeId>>,
    ) -> BoxFuture<'static, Result<(), MetadataRefusal>> {
        let mut state = self.0.lock().unwrap();
        let mut metadata = metadata::Image::clone(&state.image);
        let place = |topic: &Arc<Topic>| topic.partitions.iter().position(|at| at.group == group);
        let mut places = metadata.topics.values().filter_map(|topic| Some((topic, place(topic)?)));
        let (topic, number) = places.next().unwrap();
        let mut topic = Topic::clone(topic);
        let partition = topic.partitions[number].clone();
        let replica = |node: NodeId| partition.on(node).unwrap_or(ReplicaId::new(node, 77).unwrap());
        let target = nodes.map(|nodes| nodes.into_iter().map(replica).collect());
        topic.partitions[number].target =
            target.filter(|target| *target != partition.replicas).unwrap_or_default();
        Arc::make_mut(&mut metadata.topics).insert(topic.id, Arc::new(topic));
        state.image = Arc::new(state.image.advance(metadata));
        ready(Ok(()))
    }

    fn remove_broker(&self, node: NodeId) -> BoxFuture<'static, Result<(), MetadataRefusal>> {
        let mut state = self.0.lock().unwrap();
        let mut metadata = metadata::Image::clone(&state.image);
        let hosts = |topic: &Arc<Topic>| topic.partitions.iter().any(|at| at.on(node).is_some());
        if metadata.topics.values().any(hosts) {
            return ready(Err(MetadataRejected::BrokerInUse.into()));
        }
        Arc::make_mut(&mut metadata.brokers).remove(&node);
        state.image = Arc::new(state.image.advance(metadata));
        ready(Ok(()))
    }

    fn configure_topic(
        &self,
        id: TopicId,
        changes: Vec<(String, Option<String>)>,
        built_on: &BTreeMap<String, String>,
    ) -> BoxFuture<'static, Result<(), MetadataRefusal>> {
        let (state, built_on) = (Arc::clone(&self.0), built_on.clone());
        Box::pin(async move {
            // As a journal does: what others ask meanwhile does not know of it.
            tokio::task::yield_now().await;
            let mut state = state.lock().unwrap();
            let mut metadata = metadata::Image::clone(&state.image);
            let Some(topic) = Arc::make_mut(&mut metadata.topics).get_mut(&id) else {
                return Err(MetadataRejected::UnknownTopic.into());
            };
            let mut changed = Topic::clone(topic);
            if changed.configs != built_on {
                return Err(MetadataRejected::ConfigsChanged.into());
            }
            for (name, value) in changes {
                match value {
                    Some(value) => changed.configs.insert(name, value),
                    None => changed.configs.remove(&name),
                };
            }
            *topic = Arc::new(changed);
            state.image = Arc::new(state.image.advance(metadata));
            Ok(())
        })
    }

    fn configure_broker(
        &self,
        whose: Option<NodeId>,
        changes: Vec<(String, Option<String>)>,
        _built_on: &BTreeMap<String, String>,
    ) -> BoxFuture<'static, Result<(), MetadataRefusal>> {
        let mut state = self.0.lock().unwrap();
        let mut metadata = metadata::Image::clone(&state.image);
        let configs = Arc::make_mut(&mut metadata.broker_configs).entry(whose).or_default();
        for (name, value) in changes {
            match value {
                Some(value) => configs.insert(name, value),
                None => configs.remove(&name),
            };
        }
        state.image = Arc::new(state.image.advance(metadata));
        ready(Ok(()))
    }

    fn allocate_producer_id(&self) -> BoxFuture<'static, Result<i64, MetadataRefusal>> {
        let mut state = self.0.lock().unwrap();
        state.producers += 1;
        ready(Ok(state.producers))
    }

    fn missed(&self, _group: GroupId, _meta: &varve_protocol::batch::BatchMeta) {}

    fn confirm(&self, group: GroupId) -> BoxFuture<'static, bool> {
        *self.0.lock().unwrap().confirmed.entry(group).or_default() += 1;
        ready(true)
    }

    fn producers(&self, group: GroupId) -> BoxFuture<'static, Result<Arc<Producers>, Refusal>> {
        let known = self.0.lock().unwrap().logs.contains_key(&group);
        ready(if known { Ok(Arc::default()) } else { Err(Refusal::UnknownGroup) })
    }

    fn coordinate(
        &self,
        group: GroupId,
        request: coordinator::Request,
    ) -> BoxFuture<'static, Result<coordinator::Outcome, Refusal>> {
        ready(self.0.lock().unwrap().coordinators.ask(group, request))
    }

    fn append(&self, group: GroupId, append: Append) -> BoxFuture<'static, Result<Appended, Refusal>> {
        let mut state = self.0.lock().unwrap();
        let log = state.logs.get_mut(&group).unwrap();
        let base_offset = log.view.borrow().log_end;
        let mut batch = BytesMut::from(&append.batch[..]);
        patch(&mut batch, base_offset, LeaderEpoch(3));
        log.batches.push((base_offset, batch.freeze()));
        let end = base_offset.plus(u64::from(append.meta.count));
        log.view.send_modify(|view| {
            let view = Arc::make_mut(view);
            (view.log_end, view.high_watermark, view.last_stable_offset) = (end, end, end);
        });
        ready(Ok(Appended { base_offset, append_time_ms: -1, log_start: Offset(0), duplicate: false }))
    }

    fn delete_records(
        &self,
        group: GroupId,
        before: Option<Offset>,
    ) -> BoxFuture<'static, Result<Offset, Refusal>> {
        let state = self.0.lock().unwrap();
        let view = &state.logs[&group].view;
        let end = view.borrow().high_watermark;
        let before = before.unwrap_or(end);
        if before > end {
            return ready(Err(Refusal::OffsetOutOfRange));
        }
        view.send_modify(|view| {
            let view = Arc::make_mut(view);
            view.log_start = view.log_start.max(before);
        });
        ready(Ok(view.borrow().log_start))
    }

    fn leadership(&self, group: GroupId) -> Option<Leadership> {
        let state = self.0.lock().unwrap();
        if let Some(known) = state.leaders.get(&group) {
            return Some(known.clone());
        }
        if group == GroupId::METADATA {
            let leader = replica_id();
            return Some(Leadership { leader, epoch: LeaderEpoch(1), in_sync: vec![leader] });
        }
        let view = state.logs.get(&group)?.view.borrow();
        let leader = view.leader.filter(|leader| *leader != view.replica || view.ready)?;
        Some(Leadership { leader, epoch: view.leader_epoch, in_sync: vec![leader] })
    }

    fn elect(&self, group: GroupId, leader: ReplicaId, _: Duration) -> BoxFuture<'static, bool> {
        let mut state = self.0.lock().unwrap();
        let in_sync = state.leaders.get(&group).map_or(vec![leader], |known| known.in_sync.clone());
        state.leaders.insert(group, Leadership { leader, epoch: LeaderEpoch(4), in_sync });
        ready(true)
    }

    /// Whoever is in sync has everything, and the others nothing.
    fn progress(&self, groups: Vec<GroupId>) -> BoxFuture<'static, Vec<Progress>> {
        let one = |group: GroupId| {
            let Leadership { leader, in_sync, .. } = self.leadership(group)?;
            let member =
                |id: &ReplicaId| Member { replica: *id, matched: LogIndex(8), votes: true, in_sync: true };
            let members = in_sync.iter().map(member).collect();
            Some(Progress { group, leader, term: Term(3), commit: LogIndex(7), last: LogIndex(8), members })
        };
        ready(groups.into_iter().filter_map(one).collect())
    }

    fn directory(&self) -> Directory {
        Directory { path: "/data".to_owned(), total_bytes: 100, free_bytes: 60 }
    }

    fn is_alive(&self, node: NodeId) -> bool {
        !self.0.lock().unwrap().dead.contains(&node)
    }

    fn watch(&self, group: GroupId) -> Option<watch::Receiver<Arc<PartitionView>>> {
        self.0.lock().unwrap().logs.get(&group).map(|log| log.view.subscribe())
    }

    fn read(
        &self,
        _connection: u64,
        group: GroupId,
        from: Offset,
        limits: ReadLimits,
    ) -> BoxFuture<'static, Result<Reading, ReadError>> {
        let mut state = self.0.lock().unwrap();
        if let Some(cold) = state.cold.get_mut(&group) {
            cold.asked += 1;
            let mut opens = cold.opens.subscribe();
            let bytes = cold.batch.clone();
            let read = async move {
                opens.wait_for(|open| *open).await.map_err(|_| ReadError::Unavailable)?;
                Ok(ReadBatches { chunks: vec![bytes], next: Offset(from.0 + 1) })
            };
            return ready(Ok(Reading::OnItsWay(Box::pin(read))));
        }
        let mut read = ReadBatches { chunks: Vec::new(), next: from };
        let mut left = limits.bytes_max;
        for (base, batch) in &state.logs[&group].batches {
            let end = base.plus(u64::from(BatchHeader::read(batch).unwrap().meta().count));
            if end <= from || *base >= limits.below {
                continue;
            }
            let first = read.chunks.is_empty() && limits.one_batch_at_least;
            if batch.len() > left && !first {
                break;
            }
            left = left.saturating_sub(batch.len());
            read.chunks.push(batch.clone());
            read.next = end;
        }
        // Some partitions lie in memory, others do not.
        Box::pin(async move {
            if group.0.is_multiple_of(2) {
                tokio::task::yield_now().await;
            }
            Ok(Reading::Here(read))
        })
    }

    fn find_timestamp(
        &self,
        group: GroupId,
        timestamp: i64,
    ) -> BoxFuture<'static, Result<Option<Found>, ReadError>> {
        let mut times = self.times(group).into_iter();
        ready(Ok(times.find(|found| found.timestamp >= timestamp)))
    }

    fn find_max_timestamp(&self, group: GroupId) -> BoxFuture<'static, Result<Option<Found>, ReadError>> {
        ready(Ok(self.times(group).into_iter().max_by_key(|found| found.timestamp)))
    }
}

struct FixedClock;

impl Clock for FixedClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic::default()
    }

    fn wall_ms(&self) -> i64 {
        1_000_000
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        ready(())
    }
}

#[derive(Default)]
struct Counter(AtomicU64);

impl Entropy for Counter {
    fn next_u64(&self) -> u64 {
        (self.0.fetch_add(1, Ordering::Relaxed) + 1) << 40
    }
}

/// A node over a fake backend.
pub fn node() -> (Node, Arc<Fake>) {
    let config = Config::load(&Sources::default()).unwrap();
    let backend = Arc::new(Fake::new());
    let node = Node {
        id: node_id(),
        backend: Arc::clone(&backend) as Arc<dyn Backend>,
        listeners: config.listeners,
        creation: config.topics,
        groups: config.groups.topic,
        topic_defaults: config.topic_defaults,
        layers: config.layers,
        fetch: config.fetch,
        entropy: Arc::new(Counter::default()),
        clock: Arc::new(FixedClock),
        metrics: Arc::new(Metrics::new()),
        opened: Opened::new(config.memory.opened as usize),
        alteration: Default::default(),
    };
    (node, backend)
}
