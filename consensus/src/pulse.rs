//! What one node says to another once a heartbeat: that it lives, the beats of all its groups, and what it knows of
//! leaders. One message, however many groups there are.
//!
//! ```text
//! cluster [16] | frame { from, life, number | heard | beats | answers | resting | disowned | after, through, reports | pressed, before }
//! ```

use bytes::Bytes;
use raft::eraftpb::{self, MessageType};
use varve_common::{
    ClusterId, GroupId, LogIndex, NodeId, ReplicaId, Term,
    codec::{DecodeError, Decoder, Encoder},
};

use crate::{
    LeaderReport, Message,
    limits::{CONTEXT_BYTES_MAX, PULSE_BYTES_MAX},
};

/// A heartbeat of one group, or the answer to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Which group.
    pub group: GroupId,
    /// Which replica speaks.
    pub from: ReplicaId,
    /// To which.
    pub to: ReplicaId,
    /// In which term.
    pub term: Term,
    /// A leader's: what it knows the receiver to hold of what is committed. A follower's: its commit index.
    pub commit: LogIndex,
    /// The read that is being confirmed.
    pub context: Bytes,
    /// A leader asks for rest; a follower rests.
    pub rest: bool,
}

impl Beat {
    /// The beat in a message; `None` where that is something else.
    pub(crate) fn of(group: GroupId, message: &Message) -> Option<Self> {
        Some(Self {
            group,
            from: message.from()?,
            to: message.to()?,
            term: message.term(),
            commit: LogIndex(message.0.commit),
            context: message.0.context.clone(),
            rest: false,
        })
    }

    pub(crate) fn to_message(&self, kind: MessageType) -> Message {
        Message(eraftpb::Message {
            msg_type: kind.into(),
            from: self.from.get(),
            to: self.to.get(),
            term: self.term.0,
            commit: self.commit.0,
            context: self.context.clone(),
            ..eraftpb::Message::default()
        })
    }

    fn encode(&self, encoder: &mut Encoder) {
        encoder.u64(self.group.0);
        encoder.u64(self.from.get());
        encoder.u64(self.to.get());
        encoder.term(self.term);
        encoder.index(self.commit);
        encoder.bool(self.rest);
        encoder.bytes(&self.context);
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        let group = GroupId(decoder.u64()?);
        let (from, to) = (replica(decoder)?, replica(decoder)?);
        let (term, commit, rest) = (decoder.term()?, decoder.index()?, decoder.bool()?);
        let context = decoder.bytes()?;
        if context.len() > CONTEXT_BYTES_MAX {
            return Err(decoder.error("a context is too long"));
        }
        Ok(Self { group, from, to, term, commit, context, rest })
    }
}

/// A group that rests here, led by the receiver of the pulse as far as its sender knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resting {
    /// Which group.
    pub group: GroupId,
    /// In which term.
    pub term: Term,
}

/// What one node says to another once a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// The cluster of both.
    pub cluster: ClusterId,
    /// Who speaks; checked against the connection.
    pub from: NodeId,
    /// Which of its starts this is: it grows with each.
    pub life: u64,
    /// Which pulse of that life.
    pub number: u64,
    /// Up to where the sender has heard the receiver's reports, in which life of the receiver.
    pub heard: (u64, u64),
    /// Beats of groups that the sender leads.
    pub beats: Vec<Beat>,
    /// Answers to the receiver's beats.
    pub answers: Vec<Beat>,
    /// Some groups that rest at the sender, a few in each pulse, for the receiver to confirm.
    pub resting: Vec<Resting>,
    /// Groups that the sender does not lead at rest, whatever the receiver believes: it wakes them.
    pub disowned: Vec<GroupId>,
    /// The reports below are all that changed behind this one...
    pub after: u64,
    /// ...up to this one.
    pub through: u64,
    /// What the sender leads.
    pub reports: Vec<LeaderReport>,
    /// Groups that the receiver leads, as far as the sender knows, and of which the sender could free its log if something were written.
    pub pressed: Vec<GroupId>,
    /// The life of the receiver that the sender heard before the one in `heard`; 0 where there was none.
    pub before: u64,
}

impl Pulse {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new();
        encoder.raw(&self.cluster.0);
        encoder.frame(|encoder| {
            encoder.u32(self.from.get());
            for number in [self.life, self.number, self.heard.0, self.heard.1] {
                encoder.u64(number);
            }
            encoder.list(self.beats.iter(), |encoder, beat| beat.encode(encoder));
            encoder.list(self.answers.iter(), |encoder, beat| beat.encode(encoder));
            encoder.list(self.resting.iter(), |encoder, resting| {
                encoder.u64(resting.group.0);
                encoder.term(resting.term);
            });
            encoder.list(self.disowned.iter(), |encoder, group| encoder.u64(group.0));
            encoder.u64(self.after);
            encoder.u64(self.through);
            encoder.list(self.reports.iter(), |encoder, report| report.encode(encoder));
            // Nothing is written for none while no field follows.
            if !self.pressed.is_empty() || self.before != 0 {
                encoder.list(self.pressed.iter(), |encoder, group| encoder.u64(group.0));
            }
            if self.before != 0 {
                encoder.u64(self.before);
            }
        });
        encoder.finish()
    }

    /// Reads it; what is too large is refused before anything is decoded. Fields of later releases are skipped.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        if decoder.remaining() > PULSE_BYTES_MAX {
            return Err(decoder.error("a pulse is too long"));
        }
        let cluster =
            ClusterId(decoder.raw(16)?.as_ref().try_into().expect("raw gives as many bytes as asked"));
        let pulse = decoder.frame(|frame| Self::decode_fields(cluster, frame))?;
        decoder.finish()?;
        Ok(pulse)
    }

    fn decode_fields(cluster: ClusterId, frame: &mut Decoder) -> Result<Self, DecodeError> {
        let from = NodeId::new(frame.u32()?).ok_or_else(|| frame.error("no node id"))?;
        Ok(Self {
            cluster,
            from,
            life: frame.u64()?,
            number: frame.u64()?,
            heard: (frame.u64()?, frame.u64()?),
            beats: frame.list(BEAT_BYTES_MIN, Beat::decode)?,
            answers: frame.list(BEAT_BYTES_MIN, Beat::decode)?,
            resting: frame
                .list(16, |decoder| Ok(Resting { group: GroupId(decoder.u64()?), term: decoder.term()? }))?,
            disowned: frame.list(8, |decoder| decoder.u64().map(GroupId))?,
            after: frame.u64()?,
            through: frame.u64()?,
            reports: frame.list(LeaderReport::BYTES_MIN, LeaderReport::decode)?,
            pressed: if frame.is_empty() {
                Vec::new()
            } else {
                frame.list(8, |decoder| decoder.u64().map(GroupId))?
            },
            before: if frame.is_empty() { 0 } else { frame.u64()? },
        })
    }
}

/// The shortest beat: no context.
const BEAT_BYTES_MIN: usize = 45;

pub(crate) fn replica(decoder: &mut Decoder) -> Result<ReplicaId, DecodeError> {
    ReplicaId::from_raw(decoder.u64()?).ok_or_else(|| decoder.error("no replica id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulses_round_trip_and_refuse_what_is_malformed() {
        let node = |id| NodeId::new(id).unwrap();
        let replica = |id| ReplicaId::new(node(id), 1).unwrap();
        let beat = Beat {
            group: GroupId(9),
            from: replica(1),
            to: replica(2),
            term: Term(3),
            commit: LogIndex(40),
            context: Bytes::from_static(b"read"),
            rest: true,
        };
        let pulse = Pulse {
            cluster: ClusterId([3; 16]),
            from: node(1),
            life: 7,
            number: 8,
            heard: (1, 2),
            beats: vec![beat.clone(), Beat { context: Bytes::new(), ..beat.clone() }],
            answers: vec![beat],
            resting: vec![Resting { group: GroupId(1), term: Term(2) }],
            disowned: vec![GroupId(4)],
            after: 5,
            through: 6,
            reports: vec![LeaderReport {
                group: GroupId(9),
                term: Term(3),
                version: 2,
                leader: replica(1),
                in_sync: vec![replica(1), replica(2)],
            }],
            pressed: vec![GroupId(9), GroupId(11)],
            before: 3,
        };
        let bytes = pulse.encode();
        assert_eq!(Pulse::decode(bytes.clone()), Ok(pulse.clone()));
        let first = Pulse { before: 0, ..pulse.clone() };
        assert_eq!(Pulse::decode(first.encode()), Ok(first));
        // As an earlier release says it.
        let none = Pulse { pressed: Vec::new(), before: 0, ..pulse };
        assert_eq!(Pulse::decode(none.encode()), Ok(none.clone()));
        assert!(none.encode().len() < bytes.len());
        for cut in 0..bytes.len() {
            assert!(Pulse::decode(bytes.slice(..cut)).is_err());
        }
    }
}
