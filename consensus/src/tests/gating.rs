//! Every violation has its message.

use raft::eraftpb::{self, EntryType, MessageType};
use varve_common::{ClusterId, GroupId, LogIndex, NodeId, Term};

use super::cluster::{Cluster, GATE, replica};
use crate::{
    Dropped, Envelope, EnvelopeError, Message, StepError, Violation, gate::Sender, limits::ENVELOPE_BYTES_MAX,
};

fn sender() -> Sender {
    Sender { cluster: GATE.cluster, group: GATE.group, connection: NodeId::new(2).unwrap() }
}

/// A message from replica 2 to replica 1, in a term that both have long reached.
fn message(kind: MessageType) -> eraftpb::Message {
    eraftpb::Message {
        msg_type: kind.into(),
        from: replica(2).get(),
        to: replica(1).get(),
        term: 9,
        ..eraftpb::Message::default()
    }
}

fn entry(index: u64, term: u64) -> eraftpb::Entry {
    eraftpb::Entry { index, term, ..eraftpb::Entry::default() }
}

fn step(sender: Sender, message: eraftpb::Message) -> Result<(), StepError> {
    Cluster::new(3, 0, 1).group(replica(1)).step(&GATE, sender, Message(message))
}

fn violation(change: impl FnOnce(&mut Sender, &mut eraftpb::Message), kind: MessageType) -> Violation {
    let (mut sender, mut message) = (sender(), message(kind));
    change(&mut sender, &mut message);
    match step(sender, message) {
        Err(StepError::Fenced(violation)) => violation,
        other => panic!("not a violation: {other:?}"),
    }
}

#[test]
fn each_violation_is_named() {
    use MessageType::{MsgAppend, MsgHeartbeat, MsgHup, MsgRequestVote};
    let cluster = ClusterId([8; 16]);
    assert_eq!(violation(|s, _| s.cluster = cluster, MsgAppend), Violation::WrongCluster(cluster));
    assert_eq!(violation(|s, _| s.group = GroupId(6), MsgAppend), Violation::WrongGroup(GroupId(6)));
    assert_eq!(violation(|_, m| m.from = 0, MsgAppend), Violation::NoSender);
    let third = Violation::WrongConnection { replica: replica(3), connection: NodeId::new(2).unwrap() };
    assert_eq!(violation(|_, m| m.from = replica(3).get(), MsgAppend), third);
    assert_eq!(violation(|_, _| {}, MsgHup), Violation::LocalKind(0));
    assert_eq!(violation(|_, m| m.msg_type = 99, MsgAppend), Violation::LocalKind(99));
    assert_eq!(violation(|_, m| m.term = 0, MsgAppend), Violation::OutOfRange);
    assert_eq!(violation(|_, m| m.index = u64::MAX, MsgAppend), Violation::OutOfRange);
    assert_eq!(violation(|_, m| m.context = vec![0; 65].into(), MsgHeartbeat), Violation::TooLarge(65));
    let gap = Violation::NotContiguous(LogIndex(2));
    assert_eq!(violation(|_, m| m.entries = vec![entry(2, 1)], MsgAppend), gap);
    assert_eq!(violation(|_, m| m.entries = vec![entry(1, 3), entry(2, 2)], MsgAppend), gap);
    assert_eq!(violation(|_, m| m.entries = vec![entry(1, 9), entry(2, 10)], MsgAppend), gap);
    assert_eq!(violation(|_, m| m.entries = vec![entry(2, 1)], MsgRequestVote), gap);
    let kind = |entry_type: i32| {
        move |_: &mut Sender, m: &mut eraftpb::Message| {
            m.entries = vec![eraftpb::Entry { entry_type, ..entry(1, 1) }];
        }
    };
    let unknown = Violation::EntryKind(LogIndex(1));
    assert_eq!(violation(kind(7), MsgAppend), unknown);
    assert_eq!(violation(kind(EntryType::EntryConfChange.into()), MsgAppend), unknown);
    let lost = Violation::HeartbeatBeyondLog { commit: LogIndex(4), last: LogIndex(0) };
    assert_eq!(violation(|_, m| m.commit = 4, MsgHeartbeat), lost);
}

#[test]
fn a_leader_refuses_an_answer_for_what_it_never_sent_and_a_second_leader() {
    for kind in [MessageType::MsgAppendResponse, MessageType::MsgHeartbeat] {
        let mut cluster = Cluster::new(3, 0, 1);
        let leader = cluster.elect();
        let other = replica(if leader == replica(1) { 2 } else { 1 });
        let (term, last) = (cluster.group(leader).term(), cluster.group(leader).last_index());
        let mut message = message(kind);
        (message.from, message.to, message.term) = (other.get(), leader.get(), term.0);
        let expected = match kind {
            MessageType::MsgHeartbeat => Violation::TwoLeaders { term, other },
            _ => Violation::ResponseBeyondLog { index: last.next(), last },
        };
        message.index = last.0 + 1;
        let sender = Sender { connection: other.node(), ..sender() };
        let group = cluster.group(leader);
        assert_eq!(group.step(&GATE, sender, Message(message)), Err(StepError::Fenced(expected)));
        assert_eq!(group.fenced(), Some(expected));
        assert_eq!(group.ready(), None, "a fenced replica is silent");
        assert!(!group.wants_tick());
    }
}

#[test]
fn what_has_no_business_here_is_dropped_without_a_fence() {
    use MessageType as Kind;
    for kind in [Kind::MsgPropose, Kind::MsgTransferLeader, Kind::MsgReadIndex, Kind::MsgReadIndexResp] {
        assert_eq!(step(sender(), message(kind)), Err(StepError::Dropped(Dropped::NotFromPeers)));
    }
    let late = eraftpb::Message { to: replica(1).get() + 1, ..message(Kind::MsgAppend) };
    assert_eq!(step(sender(), late), Err(StepError::Dropped(Dropped::OtherReceiver)));
    let now = message(Kind::MsgTimeoutNow);
    assert_eq!(step(sender(), now), Err(StepError::Dropped(Dropped::NotFromLeader)));
    let others = eraftpb::ConfState { voters: vec![replica(2).get()], ..eraftpb::ConfState::default() };
    let metadata = eraftpb::SnapshotMetadata { conf_state: Some(others), index: 5, term: 1 };
    let snapshot = Some(eraftpb::Snapshot { metadata: Some(metadata), ..eraftpb::Snapshot::default() });
    let snapshot = eraftpb::Message { snapshot, ..message(Kind::MsgSnapshot) };
    assert_eq!(step(sender(), snapshot), Err(StepError::Dropped(Dropped::Snapshot)));
    let asks = eraftpb::Message { request_snapshot: 1, ..message(Kind::MsgAppendResponse) };
    assert_eq!(step(sender(), asks), Err(StepError::Dropped(Dropped::SnapshotRequest)));
}

#[test]
fn a_snapshot_with_a_member_that_is_no_replica_is_a_violation() {
    for place in 0..3 {
        let mut state = eraftpb::ConfState {
            voters: vec![replica(1).get(), replica(2).get()],
            ..eraftpb::ConfState::default()
        };
        [&mut state.voters, &mut state.learners, &mut state.voters_outgoing][place].push(1);
        let metadata = eraftpb::SnapshotMetadata { conf_state: Some(state), index: 5, term: 1 };
        let snapshot = Some(eraftpb::Snapshot { metadata: Some(metadata), ..eraftpb::Snapshot::default() });
        let found = violation(|_, m| m.snapshot = snapshot, MessageType::MsgSnapshot);
        assert_eq!(found, Violation::MembershipInvalid);
    }
}

#[test]
fn an_append_or_a_vote_may_commit_beyond_the_log() {
    for kind in [MessageType::MsgAppend, MessageType::MsgRequestVote] {
        let ahead = eraftpb::Message { commit: 100, commit_term: 3, ..message(kind) };
        assert_eq!(step(sender(), ahead), Ok(()));
    }
}

#[test]
fn envelopes_round_trip_and_refuse_what_is_malformed() {
    let message = eraftpb::Message {
        entries: vec![eraftpb::Entry { data: vec![1; 100].into(), ..entry(1, 1) }],
        priority: -3,
        ..message(MessageType::MsgAppend)
    };
    let envelope = Envelope { cluster: GATE.cluster, group: GATE.group, message: Message(message) };
    let frame = envelope.encode();
    assert_eq!(Envelope::decode(frame.clone()), Ok(envelope.clone()));
    assert_eq!((envelope.message.term(), envelope.message.payload_bytes()), (Term(9), 100));
    for cut in 0..frame.len() {
        assert!(Envelope::decode(frame.slice(..cut)).is_err());
    }
    let large = vec![0; ENVELOPE_BYTES_MAX + 1];
    assert_eq!(
        Envelope::decode(large.into()),
        Err(EnvelopeError::TooLarge { bytes: ENVELOPE_BYTES_MAX + 1 })
    );
}
