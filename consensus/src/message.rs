//! Messages between replicas, and the envelope in which they cross the network.

use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use raft::eraftpb;
use varve_common::{
    ClusterId, GroupId, ReplicaId, Term,
    codec::{DecodeError, Decoder},
};

use crate::limits::{ENVELOPE_BYTES_MAX, MESSAGE_ENTRIES_MAX};

/// A raft message. Opaque outside this crate: what it says is between the replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message(pub(crate) eraftpb::Message);

impl Message {
    /// The receiver; `None` only in what a broken peer sent.
    #[must_use]
    pub const fn to(&self) -> Option<ReplicaId> {
        ReplicaId::from_raw(self.0.to)
    }

    /// The sender; `None` only in what a broken peer sent.
    #[must_use]
    pub const fn from(&self) -> Option<ReplicaId> {
        ReplicaId::from_raw(self.0.from)
    }

    /// The sender's term.
    #[must_use]
    pub const fn term(&self) -> Term {
        Term(self.0.term)
    }

    /// What it is, for whoever counts.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        use eraftpb::MessageType as Type;
        match self.0.get_msg_type() {
            Type::MsgAppend => "append",
            Type::MsgAppendResponse => "append_response",
            Type::MsgRequestVote => "vote",
            Type::MsgRequestVoteResponse => "vote_response",
            Type::MsgRequestPreVote => "pre_vote",
            Type::MsgRequestPreVoteResponse => "pre_vote_response",
            Type::MsgSnapshot => "snapshot",
            Type::MsgHeartbeat => "heartbeat",
            Type::MsgHeartbeatResponse => "heartbeat_response",
            Type::MsgTimeoutNow => "transfer",
            _ => "other",
        }
    }

    /// Whether it asks for a vote: the sender campaigns.
    #[must_use]
    pub fn is_campaign(&self) -> bool {
        self.0.get_msg_type() == eraftpb::MessageType::MsgRequestVote
    }

    /// How many entries it carries.
    #[must_use]
    pub const fn entries(&self) -> usize {
        self.0.entries.len()
    }

    /// About how much memory its entries hold, in bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.0.entries.iter().map(|entry| entry.data.len()).sum()
    }
}

/// For traces: what it says, without its payload.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = &self.0;
        let (kind, term) = (message.get_msg_type(), message.term);
        write!(f, "{kind:?} in {term}: {}/{}", message.index, message.log_term)?;
        write!(f, " +{} commit {}", message.entries.len(), message.commit)?;
        match (message.reject, message.get_snapshot().get_metadata().index) {
            (true, _) => write!(f, " rejects, hints {}", message.reject_hint),
            (_, 0) => Ok(()),
            (_, index) => write!(f, " snapshot {index}"),
        }
    }
}

/// A message with the names of its cluster and group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The cluster that both replicas belong to.
    pub cluster: ClusterId,
    /// The group that both replicas belong to.
    pub group: GroupId,
    /// What one says to the other.
    pub message: Message,
}

impl Envelope {
    /// The frame `cluster [16] | group u64 | message`.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut frame = BytesMut::new();
        self.encode_into(&mut frame);
        frame.freeze()
    }

    /// Writes the frame behind what `buffer` holds: payloads are copied once.
    pub fn encode_into(&self, buffer: &mut BytesMut) {
        let bytes = self.message.0.encoded_len();
        buffer.reserve(16 + 8 + 4 + bytes);
        buffer.put_slice(&self.cluster.0);
        buffer.put_u64_le(self.group.0);
        buffer.put_u32_le(u32::try_from(bytes).expect("a message is far below 4 GiB"));
        self.message.0.encode(buffer).expect("a growing buffer has room");
    }

    /// Reads a frame. Payloads share the frame's bytes; what is too large is refused before anything is decoded.
    pub fn decode(frame: Bytes) -> Result<Self, EnvelopeError> {
        if frame.len() > ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::TooLarge { bytes: frame.len() });
        }
        let mut decoder = Decoder::new(frame);
        let cluster =
            ClusterId(decoder.raw(16)?.as_ref().try_into().expect("raw gives as many bytes as asked"));
        let group = GroupId(decoder.u64()?);
        let body = decoder.bytes()?;
        decoder.finish()?;
        let message = eraftpb::Message::decode(body).map_err(|_| EnvelopeError::NotAMessage)?;
        if message.entries.len() > MESSAGE_ENTRIES_MAX {
            return Err(EnvelopeError::TooManyEntries { entries: message.entries.len() });
        }
        Ok(Self { cluster, group, message: Message(message) })
    }
}

/// The frame holds no envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// More bytes than any message has.
    #[error("{bytes} bytes exceed the largest message")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// More entries than any message has.
    #[error("{entries} entries exceed the most that a message holds")]
    TooManyEntries {
        /// How many.
        entries: usize,
    },
    /// The frame is malformed.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// The body is no raft message.
    #[error("the body is no raft message")]
    NotAMessage,
}
