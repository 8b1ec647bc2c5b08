//! What one node asks of the node that leads the metadata group: a change of the metadata, and its outcome. And what it asks
//! of the leader of any group: to let another replica lead, how far its replicas are, and where its records end.
//!
//! ```text
//! node that was asked                                       leader of group 0
//!   change(command) -> here first: not the leader
//!        └── Controller::forward(leader, request) ────────> answer(backend, request): proposes, here only
//!        <─────────────────────────────────────── reply ───┘
//!   waits until its own image holds what the reply tells of
//! ```
//! Requests are opaque to the transport that carries them. The receiving side never forwards: two nodes that take each
//! other for the leader only tell each other so.

pub mod progress;
pub mod read_index;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use varve_common::{
    GroupId, LogIndex, NodeId, ReplicaId, Term, TopicId,
    clock::BoxFuture,
    codec::{DecodeError, Decoder, Encoder},
};
use varve_formats::command::{Command, MetadataCommand};
use varve_replica::metadata::{MetadataDone, MetadataRejected};

use crate::runtime::backend::NodeBackend;

/// The first byte of a reply, and of a request for a change. A later form takes another.
const VERSION: u8 = 1;
/// The first byte of a request to hand over.
const TRANSFER: u8 = 2;
/// The first byte of a question how far replicas are.
const PROGRESS: u8 = 3;
/// The first byte of a question where records end.
const READ_INDEX: u8 = 4;

/// Carries requests to another node.
pub trait Controller: Send + Sync + 'static {
    /// Sends a request and waits for its reply.
    fn forward(&self, to: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, Unanswered>>;
}

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// It never left this node: nothing was done.
    #[error("the node cannot be reached")]
    NotSent,
    /// It may have arrived.
    #[error("no reply came")]
    Lost,
}

/// The way to other nodes; a node without peers has none. Clones share it.
#[derive(Clone, Default)]
pub struct Link(Arc<OnceLock<Arc<dyn Controller>>>);

impl Link {
    /// Gives this node its way to others, once.
    pub fn connect(&self, controller: Arc<dyn Controller>) {
        let first = self.0.set(controller).is_ok();
        assert!(first, "a node is connected once");
    }

    /// The way, if this node has peers.
    #[must_use]
    pub fn get(&self) -> Option<&Arc<dyn Controller>> {
        self.0.get()
    }
}

/// What a change gave besides the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing.
    Changed,
    /// Producer ids.
    ProducerIds {
        /// The first.
        first: i64,
        /// How many.
        count: u32,
    },
    /// Replica counters.
    ReplicaIds {
        /// The first.
        first: u64,
        /// How many.
        count: u32,
    },
}

impl From<MetadataDone> for Done {
    fn from(done: MetadataDone) -> Self {
        match done {
            MetadataDone::ProducerIds { first, count } => Self::ProducerIds { first, count },
            MetadataDone::ReplicaIds { first, count, .. } => Self::ReplicaIds { first, count },
            _ => Self::Changed,
        }
    }
}

/// What became of a change on the node that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was applied. Metadata as of this version, or a later one, shows what it did.
    Applied {
        /// The version.
        version: LogIndex,
        /// Done, or rejected without effect.
        outcome: Result<Done, MetadataRejected>,
    },
    /// It was not proposed: another node leads, or none.
    NotLeader {
        /// Which, where that is known.
        leader: Option<NodeId>,
    },
    /// It was not proposed: too much is in flight.
    Busy,
    /// It was proposed, and what became of it is not known.
    Unknown,
    /// The log of the node that was asked cannot be written; whether it took effect is unknown.
    Storage,
}

/// What a node is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// To change the metadata.
    Change(MetadataCommand),
    /// To let another replica lead a group that it leads. The reply says that it will try.
    Transfer {
        /// The group.
        group: GroupId,
        /// The replica.
        to: ReplicaId,
    },
    /// To say how far the replicas are of what it leads of these groups.
    Progress(Vec<GroupId>),
    /// To say where the records end of what it leads of these groups, once a quorum has said that it does.
    ReadIndex(Vec<GroupId>),
}

/// Asks to hand over.
#[must_use]
pub fn encode_transfer(group: GroupId, to: ReplicaId) -> Bytes {
    let mut encoder = Encoder::new();
    encoder.u8(TRANSFER);
    encoder.frame(|frame| {
        frame.u64(group.0);
        frame.u64(to.get());
    });
    encoder.finish()
}

/// Asks how far the replicas of groups are.
#[must_use]
pub fn encode_progress(groups: &[GroupId]) -> Bytes {
    encode_question(PROGRESS, groups)
}

/// Asks where the records of groups end.
#[must_use]
pub fn encode_read_index(groups: &[GroupId]) -> Bytes {
    encode_question(READ_INDEX, groups)
}

fn encode_question(kind: u8, groups: &[GroupId]) -> Bytes {
    let mut encoder = Encoder::new();
    encoder.u8(kind);
    progress::encode_groups(&mut encoder, groups);
    encoder.finish()
}

fn decode_question(request: Bytes) -> Result<Vec<GroupId>, DecodeError> {
    let mut decoder = Decoder::new(request);
    let groups = progress::decode_groups(&mut decoder)?;
    decoder.finish()?;
    Ok(groups)
}

/// A change as it travels.
#[must_use]
pub fn encode_request(command: &MetadataCommand) -> Bytes {
    let mut encoder = Encoder::new();
    encoder.u8(VERSION);
    encoder.raw(&Command::Metadata(command.clone()).encode(Term::ZERO, 0));
    encoder.finish()
}

/// Reads what [`encode_request`], [`encode_transfer`], [`encode_progress`] or [`encode_read_index`] wrote.
pub fn decode_request(request: Bytes) -> Result<Request, DecodeError> {
    match request.first() {
        Some(&TRANSFER) => return decode_transfer(request.slice(1..)),
        Some(&PROGRESS) => return decode_question(request.slice(1..)).map(Request::Progress),
        Some(&READ_INDEX) => return decode_question(request.slice(1..)).map(Request::ReadIndex),
        _ => {}
    }
    let mut decoder = versioned(request)?;
    let rest = decoder.remaining();
    let (_, command) = Command::decode(decoder.raw(rest)?)?;
    match command {
        Command::Metadata(command) => Ok(Request::Change(command)),
        _ => Err(decoder.error("a command of another group")),
    }
}

fn decode_transfer(request: Bytes) -> Result<Request, DecodeError> {
    let mut decoder = Decoder::new(request);
    let asked = decoder.frame(|frame| {
        let group = GroupId(frame.u64()?);
        let to = ReplicaId::from_raw(frame.u64()?).ok_or_else(|| frame.error("replica id out of range"))?;
        Ok(Request::Transfer { group, to })
    })?;
    decoder.finish()?;
    Ok(asked)
}

fn versioned(bytes: Bytes) -> Result<Decoder, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    match decoder.u8()? {
        VERSION => Ok(decoder),
        _ => Err(decoder.error("unknown version of a controller's message")),
    }
}

const APPLIED: u8 = 1;
const REJECTED: u8 = 2;
const NOT_LEADER: u8 = 3;
const BUSY: u8 = 4;
const UNKNOWN: u8 = 5;
const STORAGE: u8 = 6;

/// A reply as it travels.
#[must_use]
pub fn encode_reply(outcome: &Outcome) -> Bytes {
    let mut encoder = Encoder::new();
    encoder.u8(VERSION);
    encoder.frame(|frame| match outcome {
        Outcome::Applied { version, outcome: Ok(done) } => {
            frame.u8(APPLIED);
            frame.index(*version);
            encode_done(frame, *done);
        }
        Outcome::Applied { version, outcome: Err(rejected) } => {
            frame.u8(REJECTED);
            frame.index(*version);
            encode_rejected(frame, rejected);
        }
        Outcome::NotLeader { leader } => {
            frame.u8(NOT_LEADER);
            frame.u32(leader.map_or(0, NodeId::get));
        }
        Outcome::Busy => frame.u8(BUSY),
        Outcome::Unknown => frame.u8(UNKNOWN),
        Outcome::Storage => frame.u8(STORAGE),
    });
    encoder.finish()
}

/// Reads what [`encode_reply`] wrote.
pub fn decode_reply(reply: Bytes) -> Result<Outcome, DecodeError> {
    let mut decoder = versioned(reply)?;
    let outcome = decoder.frame(|frame| {
        Ok(match frame.u8()? {
            APPLIED => Outcome::Applied { version: frame.index()?, outcome: Ok(decode_done(frame)?) },
            REJECTED => Outcome::Applied { version: frame.index()?, outcome: Err(decode_rejected(frame)?) },
            NOT_LEADER => Outcome::NotLeader { leader: NodeId::new(frame.u32()?) },
            BUSY => Outcome::Busy,
            UNKNOWN => Outcome::Unknown,
            STORAGE => Outcome::Storage,
            _ => return Err(frame.error("unknown outcome of a change")),
        })
    })?;
    decoder.finish()?;
    Ok(outcome)
}

fn encode_done(frame: &mut Encoder, done: Done) {
    match done {
        Done::Changed => frame.u8(0),
        Done::ProducerIds { first, count } => {
            frame.u8(1);
            frame.i64(first);
            frame.u32(count);
        }
        Done::ReplicaIds { first, count } => {
            frame.u8(2);
            frame.u64(first);
            frame.u32(count);
        }
    }
}

fn decode_done(frame: &mut Decoder) -> Result<Done, DecodeError> {
    Ok(match frame.u8()? {
        0 => Done::Changed,
        1 => Done::ProducerIds { first: frame.i64()?, count: frame.u32()? },
        2 => Done::ReplicaIds { first: frame.u64()?, count: frame.u32()? },
        _ => return Err(frame.error("unknown gift of a change")),
    })
}

fn encode_rejected(frame: &mut Encoder, rejected: &MetadataRejected) {
    match rejected {
        MetadataRejected::TopicExists { id } => {
            frame.u8(1);
            frame.topic_id(*id);
        }
        MetadataRejected::TopicIdTaken => frame.u8(2),
        MetadataRejected::UnknownTopic => frame.u8(3),
        MetadataRejected::InvalidName => frame.u8(4),
        MetadataRejected::InvalidPartitions => frame.u8(5),
        MetadataRejected::InvalidNode(node) => {
            frame.u8(6);
            frame.u32(*node);
        }
        MetadataRejected::PartitionsChanged { count } => {
            frame.u8(9);
            frame.u32(*count);
        }
        MetadataRejected::InvalidCount => frame.u8(7),
        MetadataRejected::UnknownGroup => frame.u8(10),
        MetadataRejected::InvalidReplicas => frame.u8(11),
        MetadataRejected::OtherTarget => frame.u8(12),
        MetadataRejected::BrokerInUse => frame.u8(13),
        MetadataRejected::OtherDisk { node } => {
            frame.u8(14);
            frame.u32(node.get());
        }
        MetadataRejected::NodeAlive { node } => {
            frame.u8(15);
            frame.u32(node.get());
        }
        MetadataRejected::TooOld { node, level } => {
            frame.u8(16);
            frame.u32(node.get());
            frame.u16(*level);
        }
        MetadataRejected::ConfigsChanged => frame.u8(17),
        MetadataRejected::FeatureDowngrade { current } => {
            frame.u8(8);
            frame.u16(*current);
        }
    }
}

fn decode_rejected(frame: &mut Decoder) -> Result<MetadataRejected, DecodeError> {
    Ok(match frame.u8()? {
        1 => MetadataRejected::TopicExists { id: frame.topic_id()? },
        2 => MetadataRejected::TopicIdTaken,
        3 => MetadataRejected::UnknownTopic,
        4 => MetadataRejected::InvalidName,
        5 => MetadataRejected::InvalidPartitions,
        6 => MetadataRejected::InvalidNode(frame.u32()?),
        7 => MetadataRejected::InvalidCount,
        8 => MetadataRejected::FeatureDowngrade { current: frame.u16()? },
        9 => MetadataRejected::PartitionsChanged { count: frame.u32()? },
        10 => MetadataRejected::UnknownGroup,
        11 => MetadataRejected::InvalidReplicas,
        12 => MetadataRejected::OtherTarget,
        13 => MetadataRejected::BrokerInUse,
        14 => MetadataRejected::OtherDisk { node: decode_node(frame)? },
        15 => MetadataRejected::NodeAlive { node: decode_node(frame)? },
        16 => MetadataRejected::TooOld { node: decode_node(frame)?, level: frame.u16()? },
        17 => MetadataRejected::ConfigsChanged,
        _ => return Err(frame.error("unknown reason of a rejection")),
    })
}

fn decode_node(frame: &mut Decoder) -> Result<NodeId, DecodeError> {
    let id = frame.u32()?;
    NodeId::new(id).ok_or_else(|| frame.error("node id out of range"))
}

/// Answers another node's request: proposes the change where this node leads. What cannot be read was not proposed.
pub async fn answer(backend: &NodeBackend, request: Bytes) -> Bytes {
    backend.changes().answer(request).await
}

/// Whether a topic of this id is what the change made: a repetition of it finds it there.
#[must_use]
pub fn made(command: &MetadataCommand, found: TopicId) -> bool {
    matches!(command, MetadataCommand::CreateTopic(topic) if topic.id == found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_round_trip_and_others_are_refused() {
        let command = MetadataCommand::AllocateReplicaIds { node: 3, count: 7 };
        assert_eq!(decode_request(encode_request(&command)), Ok(Request::Change(command)));
        let (group, to) = (GroupId(7), ReplicaId::new(NodeId::new(2).unwrap(), 3).unwrap());
        assert_eq!(decode_request(encode_transfer(group, to)), Ok(Request::Transfer { group, to }));
        let groups = vec![group, GroupId::METADATA];
        assert_eq!(decode_request(encode_progress(&groups)), Ok(Request::Progress(groups.clone())));
        assert_eq!(decode_request(encode_read_index(&groups)), Ok(Request::ReadIndex(groups)));
        let rejections = [
            MetadataRejected::TopicExists { id: TopicId::from_random(5) },
            MetadataRejected::TopicIdTaken,
            MetadataRejected::UnknownTopic,
            MetadataRejected::InvalidName,
            MetadataRejected::InvalidPartitions,
            MetadataRejected::InvalidNode(9),
            MetadataRejected::InvalidCount,
            MetadataRejected::FeatureDowngrade { current: 4 },
            MetadataRejected::PartitionsChanged { count: 5 },
            MetadataRejected::UnknownGroup,
            MetadataRejected::InvalidReplicas,
            MetadataRejected::OtherTarget,
            MetadataRejected::BrokerInUse,
            MetadataRejected::ConfigsChanged,
        ];
        let gifts = [
            Done::Changed,
            Done::ProducerIds { first: 5, count: 2 },
            Done::ReplicaIds { first: 6, count: 3 },
        ];
        let applied = |outcome| Outcome::Applied { version: LogIndex(9), outcome };
        let outcomes = rejections.map(|rejected| applied(Err(rejected))).into_iter();
        let outcomes = outcomes.chain(gifts.map(|done| applied(Ok(done)))).chain([
            Outcome::NotLeader { leader: None },
            Outcome::NotLeader { leader: NodeId::new(2) },
            Outcome::Busy,
            Outcome::Unknown,
            Outcome::Storage,
        ]);
        for outcome in outcomes {
            let reply = encode_reply(&outcome);
            assert_eq!(decode_reply(reply.clone()), Ok(outcome));
            for end in 0..reply.len() {
                assert!(decode_reply(reply.slice(..end)).is_err());
            }
        }
        let records = varve_formats::command::encode_records(b"batch", Term(1), 2);
        for garbage in [&b""[..], b"\x02", b"\x03", b"\x01", &[&[VERSION], &records[..]].concat()] {
            assert!(decode_request(Bytes::copy_from_slice(garbage)).is_err());
        }
    }
}
