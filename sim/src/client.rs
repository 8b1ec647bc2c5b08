//! Clients: producers that retry as Kafka's do, and an operator who makes and deletes topics.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use varve_broker::runtime::backend;
use varve_common::{GroupId, NodeId, Offset, ReplicaId, TopicId};
use varve_formats::command::{CreateTopic, MetadataCommand, PartitionAssignment};
use varve_protocol::batch::{BatchBuilder, Codec, Limits, validate};
use varve_replica::{
    BatchMeta, Input, Refusal, Reply, Ticket, Timestamps, coordinator,
    metadata::{Image, MetadataDone},
};

use crate::{
    history::{History, SendId, Sent},
    node::replica,
    violation::{Checked, violation},
};

/// What Kafka's producers have in flight at most.
const INFLIGHT_MAX: usize = 5;

/// Most as they are: what is written and cut should not be small.
const CODECS: [Codec; 8] =
    [Codec::None, Codec::None, Codec::None, Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    InFlight,
}

struct Producer {
    id: u64,
    group: GroupId,
    idempotent: bool,
    next_sequence: i32,
    /// Not acknowledged, in order.
    queue: VecDeque<(SendId, State)>,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Send(u64, SendId),
    Delete(TopicId),
    Metadata,
    Trim(GroupId, Offset),
}

/// Everybody who asks the node for something.
#[derive(Default)]
pub struct Clients {
    /// What was sent and answered.
    pub history: History,
    /// Partitions whose deletion was asked for: nothing is promised of them any more.
    pub deleted: BTreeSet<GroupId>,
    /// Below this offset records may be gone, because somebody asked for it.
    pub trimmed: BTreeMap<GroupId, Offset>,
    /// Below this offset they are gone, for somebody was told so.
    told: BTreeMap<GroupId, Offset>,
    /// Topics that were told to forget what is in the bucket, once at least.
    pub forgetful: BTreeSet<TopicId>,
    /// Partitions that the broker writes itself.
    pub internal: BTreeSet<GroupId>,
    /// Whether new batches are made.
    pub quiet: bool,
    /// On how many replicas records are to be before they are acknowledged; 0: a quorum.
    pub replicas_min: u32,
    /// Whether values are of kilobytes.
    pub large: bool,
    /// The nodes that host new topics; only one where there are none.
    pub nodes: Vec<NodeId>,
    producers: BTreeMap<u64, Producer>,
    waiting: BTreeMap<Ticket, Asked>,
    next_ticket: u64,
    next_producer: u64,
    next_replica: u64,
    next_name: u64,
}

impl Clients {
    /// Whose topics are hosted by these nodes.
    #[must_use]
    pub fn of(nodes: Vec<NodeId>) -> Self {
        Self { nodes, ..Self::default() }
    }

    fn ticket(&mut self, asked: Asked) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.waiting.insert(ticket, asked);
        ticket
    }

    /// The partitions of the image get their producers, those of deleted topics lose them.
    pub fn adopt(&mut self, image: &Image) {
        self.producers.retain(|_, producer| image.groups.contains_key(&producer.group));
        let internal = image.topics.values().filter(|topic| &*topic.name == coordinator::TOPIC);
        self.internal.extend(internal.flat_map(|topic| &topic.partitions).map(|partition| partition.group));
        for group in image.groups.keys().filter(|group| !self.internal.contains(group)) {
            if self.producers.values().any(|producer| producer.group == *group) {
                continue;
            }
            for idempotent in [true, true, false] {
                self.next_producer += 1;
                let id = self.next_producer;
                let queue = VecDeque::new();
                self.producers
                    .insert(id, Producer { id, group: *group, idempotent, next_sequence: 0, queue });
            }
        }
    }

    /// The next thing that some producer does; nothing where all of them wait.
    pub fn produce(&mut self, random: &mut ChaCha8Rng, time_ms: i64, now: u64) -> Option<Input> {
        let ids: Vec<u64> = self.producers.keys().copied().collect();
        let id = *ids.get(random.random_range(0..ids.len().max(1)))?;
        let producer = &self.producers[&id];
        if self.deleted.contains(&producer.group) {
            return None;
        }
        let first_waiting = producer.queue.iter().position(|(_, state)| *state == State::Waiting);
        let send = match first_waiting {
            Some(at) if self.holds_back(producer, at) => return None,
            Some(at) => producer.queue[at].0,
            None if self.quiet || producer.queue.len() >= INFLIGHT_MAX => return None,
            None => self.make(id, random, time_ms, now),
        };
        let ticket = self.ticket(Asked::Send(id, send));
        let producer = self.producers.get_mut(&id)?;
        let queued = producer.queue.iter_mut().find(|(queued, _)| *queued == send);
        queued.expect("it waits or was just made").1 = State::InFlight;
        let sent = self.history.get_mut(send);
        sent.attempts += 1;
        let (batch, group) = (sent.batch.clone(), sent.group);
        let (meta, replicas_min) = (meta_of(&batch), self.replicas_min);
        Some(Input::Produce { ticket, group, batch, meta, timestamps: Timestamps::Create, replicas_min })
    }

    /// Of several nodes one may hang with a batch while another, that leads now, is sent the next. What such a one refused waits until
    /// those before it are answered, as in Java's client (`shouldStopDrainBatchesForPartition`).
    fn holds_back(&self, producer: &Producer, at: usize) -> bool {
        let was_refused = self.history.get(producer.queue[at].0).attempts > 0;
        producer.idempotent && self.nodes.len() > 1 && at > 0 && was_refused
    }

    fn make(&mut self, id: u64, random: &mut ChaCha8Rng, time_ms: i64, now: u64) -> SendId {
        let producer = self.producers.get_mut(&id).expect("it was just looked up");
        let count = random.random_range(1..4);
        let (pid, epoch, sequence) =
            if producer.idempotent { (producer.id as i64, 0, producer.next_sequence) } else { (-1, -1, -1) };
        let mut builder = BatchBuilder::new(CODECS[random.random_range(0..CODECS.len())]);
        builder = builder.producer(pid, epoch, sequence);
        let mut timestamps = Vec::new();
        for record in 0..count {
            let key = format!("p{}", producer.id);
            let mut value = format!("{}.{}.{record}:", producer.id, producer.next_sequence).into_bytes();
            let padding = random.random_range(if self.large { 4_000..8_000 } else { 10..700 });
            value.resize(value.len() + padding, b'a' + (producer.id % 26) as u8);
            timestamps.push(time_ms - random.random_range(0..3_000));
            builder.push(timestamps[record as usize], Some(key.as_bytes()), Some(&value));
        }
        let sent = Sent {
            group: producer.group,
            producer: producer.id,
            sequence: producer.next_sequence,
            idempotent: producer.idempotent,
            batch: builder.build(),
            count,
            timestamps,
            invoked: now,
            attempts: 0,
            acked: None,
        };
        producer.next_sequence += count as i32;
        let send = self.history.send(sent);
        producer.queue.push_back((send, State::Waiting));
        send
    }

    fn replicas(&self, counter: u64) -> Vec<ReplicaId> {
        let of = |node: &NodeId| ReplicaId::new(*node, counter).expect("counters begin at 1");
        if self.nodes.is_empty() { vec![replica(counter)] } else { self.nodes.iter().map(of).collect() }
    }

    /// Makes a topic, which tiers or not, and then keeps everything; where that is left open it may as well not.
    pub fn create_topic(&mut self, random: &mut ChaCha8Rng, tiered: Option<bool>) -> Input {
        self.next_name += 1;
        let partitions = (0..random.random_range(1..3))
            .map(|_| {
                self.next_replica += 1;
                PartitionAssignment { group: 0, replicas: self.replicas(self.next_replica) }
            })
            .collect();
        let segment_bytes = [3 << 10, 6 << 10, 16 << 10][random.random_range(0..3)];
        let mut configs = vec![("segment.bytes".to_owned(), segment_bytes.to_string())];
        if !tiered.unwrap_or_else(|| random.random_bool(0.7)) {
            configs.push(("remote.storage.enable".to_owned(), "false".to_owned()));
        }
        if tiered.is_none() && random.random_bool(0.25) {
            configs.push(("retention.bytes".to_owned(), (24 << 10).to_string()));
        }
        let name = format!("t{}", self.next_name);
        let id = TopicId::from_random(random.random());
        let ticket = Some(self.ticket(Asked::Metadata));
        let command = MetadataCommand::CreateTopic(CreateTopic { id, name, partitions, configs });
        Input::Propose { ticket, group: GroupId::METADATA, command }
    }

    /// Makes the topic that groups of consumers are kept in, of one partition.
    pub fn create_offsets(&mut self, random: &mut ChaCha8Rng) -> Input {
        self.next_replica += 1;
        let partitions = vec![PartitionAssignment { group: 0, replicas: self.replicas(self.next_replica) }];
        let configs = vec![("segment.bytes".to_owned(), (3 << 10).to_string())];
        let id = TopicId::from_random(random.random());
        let ticket = Some(self.ticket(Asked::Metadata));
        let name = coordinator::TOPIC.to_owned();
        let command = MetadataCommand::CreateTopic(CreateTopic { id, name, partitions, configs });
        Input::Propose { ticket, group: GroupId::METADATA, command }
    }

    /// Switches the tier of a topic on, off, to a pause, or off with all that is in it.
    pub fn switch_tier(&mut self, image: &Image, random: &mut ChaCha8Rng) -> Option<Input> {
        let topics: Vec<_> = image.topics.values().collect();
        let topic = topics.get(random.random_range(0..topics.len().max(1)))?;
        let (enable, pause, forget) =
            [(true, false, false), (true, true, false), (false, false, false), (false, false, true)]
                [random.random_range(0..4)];
        Some(self.set_tier(topic.id, [enable, pause, forget]))
    }

    /// Sets whether a topic tiers, whether its uploads pause, and whether it forgets the tier when that is off.
    pub fn set_tier(&mut self, id: TopicId, [enable, pause, forget]: [bool; 3]) -> Input {
        if forget {
            self.forgetful.insert(id);
        }
        let value = |name: &str, value: bool| (name.to_owned(), Some(value.to_string()));
        let configs = vec![
            value("remote.storage.enable", enable),
            value("remote.log.copy.disable", pause),
            value("remote.log.delete.on.disable", forget),
        ];
        let ticket = Some(self.ticket(Asked::Metadata));
        let command = MetadataCommand::SetTopicConfigs { id, configs, expected: None };
        Input::Propose { ticket, group: GroupId::METADATA, command }
    }

    /// Deletes a topic.
    pub fn delete_topic(&mut self, image: &Image, random: &mut ChaCha8Rng) -> Option<Input> {
        let topics: Vec<_> =
            image.topics.values().filter(|topic| &*topic.name != coordinator::TOPIC).collect();
        let topic = topics.get(random.random_range(0..topics.len().max(1)))?;
        self.deleted.extend(topic.partitions.iter().map(|partition| partition.group));
        let ticket = Some(self.ticket(Asked::Delete(topic.id)));
        let command = MetadataCommand::DeleteTopic { id: topic.id };
        Some(Input::Propose { ticket, group: GroupId::METADATA, command })
    }

    /// Deletes records below some offset that was acknowledged.
    pub fn delete_records(&mut self, group: GroupId, before: Offset) -> Input {
        let asked = self.trimmed.entry(group).or_default();
        *asked = before.max(*asked);
        let ticket = self.ticket(Asked::Trim(group, before));
        Input::DeleteRecords { ticket, group, before: Some(before) }
    }

    /// The offset below which records were deleted, as somebody was told.
    #[must_use]
    pub fn deleted_below(&self, group: GroupId) -> Offset {
        self.told.get(&group).copied().unwrap_or_default()
    }

    /// An answer. Gives the partition and the end of what was acknowledged.
    pub fn answered(
        &mut self,
        ticket: Ticket,
        reply: &Reply,
        now: u64,
    ) -> Checked<Option<(GroupId, Offset)>> {
        let Some(asked) = self.waiting.remove(&ticket) else {
            return Err(violation("H5", format!("{ticket:?} is answered twice: {reply:?}")));
        };
        match (asked, reply) {
            (Asked::Send(producer, send), reply) => self.sent(producer, send, reply, now),
            (Asked::Trim(group, before), Reply::Trimmed { log_start }) if *log_start < before => {
                Err(violation("B9", format!("{group}: trimmed to {log_start}, not {before}")))
            }
            (Asked::Trim(group, before), Reply::Trimmed { .. }) => {
                let told = self.told.entry(group).or_default();
                *told = before.max(*told);
                Ok(None)
            }
            (Asked::Delete(id), Reply::Metadata(Ok(MetadataDone::TopicDeleted(topic)))) if topic.id != id => {
                Err(violation("M", format!("deleted {} in place of {id}", topic.id)))
            }
            _ => Ok(None),
        }
    }

    fn sent(
        &mut self,
        producer: u64,
        id: SendId,
        reply: &Reply,
        now: u64,
    ) -> Checked<Option<(GroupId, Offset)>> {
        let sent = self.history.get_mut(id);
        let base = match reply {
            Reply::Produced { base_offset, .. } | Reply::Duplicate { base_offset, .. } => *base_offset,
            Reply::Refused(refusal) => return self.refused(producer, id, refusal).map(|()| None),
            other => return Err(violation("H5", format!("a batch is answered by {other:?}"))),
        };
        if matches!(reply, Reply::Duplicate { .. }) && (!sent.idempotent || sent.attempts < 2) {
            return Err(violation("H2", format!("{id:?} was sent once and is called a duplicate")));
        }
        sent.acked = Some((base, now));
        let acked = (sent.group, base.plus(u64::from(sent.count)));
        if let Some(producer) = self.producers.get_mut(&producer) {
            producer.queue.retain(|(queued, _)| *queued != id);
        }
        Ok(Some(acked))
    }

    fn refused(&mut self, producer: u64, id: SendId, refusal: &Refusal) -> Checked {
        let sent = self.history.get(id);
        if self.deleted.contains(&sent.group) {
            return Ok(());
        }
        let Some(producer) = self.producers.get_mut(&producer) else { return Ok(()) };
        let oldest = producer.queue.front().is_some_and(|(first, _)| *first == id);
        match refusal {
            Refusal::OutOfOrderSequence { .. } if oldest => {
                let detail = format!("{id:?}, the oldest of its producer, is refused: {refusal}");
                return Err(violation("H7", detail));
            }
            Refusal::InvalidProducerEpoch { .. } | Refusal::InvalidBatch(_) | Refusal::WrongGroup => {
                return Err(violation("H7", format!("{id:?} is refused: {refusal}")));
            }
            _ => {}
        }
        for queued in producer.queue.iter_mut().filter(|queued| queued.0 == id) {
            queued.1 = State::Waiting;
        }
        Ok(())
    }

    /// The node is gone: whatever was under way has an unknown outcome, and is tried again.
    pub fn disconnected(&mut self, random: &mut ChaCha8Rng) {
        self.waiting.clear();
        for producer in self.producers.values_mut() {
            let gives_up = !producer.idempotent && random.random_bool(0.5);
            producer.queue.retain(|(_, state)| !(gives_up && *state == State::InFlight));
            producer.queue.iter_mut().for_each(|queued| queued.1 = State::Waiting);
        }
    }

    /// Whether nobody waits for anything, but for partitions that serve no more.
    #[must_use]
    pub fn is_content(&self, offline: &BTreeSet<GroupId>) -> bool {
        let lost = |group: &GroupId| offline.contains(group) || self.deleted.contains(group);
        self.producers.values().all(|producer| producer.queue.is_empty() || lost(&producer.group))
    }
}

fn meta_of(batch: &Bytes) -> BatchMeta {
    backend::meta_of(&validate(batch, &Limits::default()).expect("our own batches are valid"))
}
