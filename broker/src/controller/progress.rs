//! How far the replicas of a group are: what its leader knows, and how another node is told.

use bytes::Bytes;
use varve_common::{
    GroupId, LogIndex, ReplicaId, Term,
    codec::{DecodeError, Decoder, Encoder},
};

/// A group as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which group.
    pub group: GroupId,
    /// Its leader.
    pub leader: ReplicaId,
    /// Its term.
    pub term: Term,
    /// What is committed.
    pub commit: LogIndex,
    /// The end of the leader's log.
    pub last: LogIndex,
    /// Its members, the leader among them.
    pub members: Vec<Member>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub replica: ReplicaId,
    /// Up to which entry its log is known to be the leader's.
    pub matched: LogIndex,
    /// Whether it votes; a learner does not.
    pub votes: bool,
    /// Whether it keeps up.
    pub in_sync: bool,
}

/// Groups that one message asks about: the reply stays far below what a message may take.
pub const GROUPS_MAX: usize = 4_096;

/// What a group without members takes in a reply; see [`Decoder::list`].
const PROGRESS_BYTES_MIN: usize = 48;
const MEMBER_BYTES: usize = 18;

/// Writes which groups are asked about.
pub fn encode_groups(encoder: &mut Encoder, groups: &[GroupId]) {
    assert!(groups.len() <= GROUPS_MAX, "callers split what they ask");
    encoder.list(groups.iter(), |encoder, group| encoder.u64(group.0));
}

/// Reads what [`encode_groups`] wrote.
pub fn decode_groups(decoder: &mut Decoder) -> Result<Vec<GroupId>, DecodeError> {
    let groups = decoder.list(8, |decoder| Ok(GroupId(decoder.u64()?)))?;
    if groups.len() > GROUPS_MAX { Err(decoder.error("too many groups")) } else { Ok(groups) }
}

/// What this node leads of the groups that it was asked about.
#[must_use]
pub fn encode(led: &[Progress]) -> Bytes {
    let mut encoder = Encoder::new();
    encoder.list(led.iter(), |encoder, progress| {
        encoder.frame(|frame| {
            frame.u64(progress.group.0);
            frame.u64(progress.leader.get());
            frame.term(progress.term);
            frame.index(progress.commit);
            frame.index(progress.last);
            frame.list(progress.members.iter(), |frame, member| {
                frame.u64(member.replica.get());
                frame.index(member.matched);
                frame.bool(member.votes);
                frame.bool(member.in_sync);
            });
        });
    });
    encoder.finish()
}

/// Reads what [`encode`] wrote.
pub fn decode(reply: Bytes) -> Result<Vec<Progress>, DecodeError> {
    let mut decoder = Decoder::new(reply);
    let led = decoder.list(PROGRESS_BYTES_MIN, |decoder| decoder.frame(decode_one))?;
    decoder.finish()?;
    Ok(led)
}

fn decode_one(frame: &mut Decoder) -> Result<Progress, DecodeError> {
    Ok(Progress {
        group: GroupId(frame.u64()?),
        leader: replica(frame)?,
        term: frame.term()?,
        commit: frame.index()?,
        last: frame.index()?,
        members: frame.list(MEMBER_BYTES, |frame| {
            Ok(Member {
                replica: replica(frame)?,
                matched: frame.index()?,
                votes: frame.bool()?,
                in_sync: frame.bool()?,
            })
        })?,
    })
}

fn replica(decoder: &mut Decoder) -> Result<ReplicaId, DecodeError> {
    ReplicaId::from_raw(decoder.u64()?).ok_or_else(|| decoder.error("replica id out of range"))
}

#[cfg(test)]
mod tests {
    use varve_common::NodeId;

    use super::*;

    #[test]
    fn progress_round_trips_and_what_is_cut_is_refused() {
        let replica = |node| ReplicaId::new(NodeId::new(node).unwrap(), 9).unwrap();
        let member = |node| Member {
            replica: replica(node),
            matched: LogIndex(5),
            votes: node < 3,
            in_sync: node == 1,
        };
        let one = Progress {
            group: GroupId(7),
            leader: replica(1),
            term: Term(3),
            commit: LogIndex(6),
            last: LogIndex(8),
            members: vec![member(1), member(2), member(3)],
        };
        let alone = Progress { members: Vec::new(), ..one.clone() };
        let encoded = encode(&[one.clone(), alone.clone()]);
        assert_eq!(decode(encoded.clone()), Ok(vec![one, alone]));
        for end in 0..encoded.len() {
            assert!(decode(encoded.slice(..end)).is_err());
        }
    }
}
