//! The gate before raft: every message from a peer is checked here first, because raft answers nonsense by ending the
//! process (RAFT.md 2).
//!
//! A *drop* is a message that has no business here and harms nobody. A *violation* means that one of the two replicas
//! is not what it says it is, most often because a disk lost what was acknowledged: the replica that sees it stops,
//! says so, and returns under a new id.

use prost::Message as _;
use raft::eraftpb::{self, EntryType, MessageType};
use varve_common::{ClusterId, GroupId, LogIndex, NodeId, ReplicaId, Term};

use crate::{
    Envelope, Membership, Message, Role,
    limits::{CONTEXT_BYTES_MAX, ENTRY_BYTES_MAX, POINTER_BYTES_MAX, POSITION_MAX},
};

/// What does not change while a group is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The cluster of this node.
    pub cluster: ClusterId,
    /// The group.
    pub group: GroupId,
}

/// Where a message says it is from, and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The cluster that the envelope names.
    pub cluster: ClusterId,
    /// The group that the envelope names.
    pub group: GroupId,
    /// The node at the other end of the connection.
    pub connection: NodeId,
}

impl Sender {
    /// The sender of an envelope that came over the connection to a node.
    #[must_use]
    pub const fn of(envelope: &Envelope, connection: NodeId) -> Self {
        Self { cluster: envelope.cluster, group: envelope.group, connection }
    }
}

/// What the checks need to know of the replica.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) replica: ReplicaId,
    pub(crate) term: Term,
    pub(crate) role: Role,
    pub(crate) leader: Option<ReplicaId>,
    pub(crate) last_index: LogIndex,
}

/// Why a message is of no use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// For an incarnation of this replica that is no more, or from one to itself.
    OtherReceiver,
    /// Proposals, transfers of leadership and reads are for the driver of the leader, not for raft's peers.
    NotFromPeers,
    /// A call to campaign that does not come from the leader of the term.
    NotFromLeader,
    /// A snapshot whose membership lacks this replica: it is seeded from a checkpoint of its own.
    Snapshot,
    /// A follower's rejection of what it has acknowledged since.
    StaleRejection,
    /// A replica that is no member asks for a vote.
    NotAMember,
    /// A follower asks for a snapshot, which is not how one is asked for here.
    SnapshotRequest,
}

/// What no healthy peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Two clusters share an address.
    #[error("a message of cluster {0}")]
    WrongCluster(ClusterId),
    /// A message was routed to the wrong group.
    #[error("a message of group {0}")]
    WrongGroup(GroupId),
    /// The sender's id is malformed.
    #[error("the sender has no replica id")]
    NoSender,
    /// The sender lives on another node than the one that the connection goes to.
    #[error("replica {replica} spoke over the connection to node {connection}")]
    WrongConnection {
        /// Whom the message names.
        replica: ReplicaId,
        /// Where it came from.
        connection: NodeId,
    },
    /// A kind that exists only within a replica, or not at all.
    #[error("message kind {0} does not come from peers")]
    LocalKind(i32),
    /// A term or an index that no log ever reached, or none where one belongs.
    #[error("a term or an index is out of range")]
    OutOfRange,
    /// Entries, or a context, larger than anything that is ever proposed.
    #[error("{0} bytes exceed their bound")]
    TooLarge(usize),
    /// Entries that do not follow each other, or go back in term.
    #[error("the entry at {0} does not follow")]
    NotContiguous(LogIndex),
    /// An entry of a kind that nobody proposes.
    #[error("the entry at {0} is of no known kind")]
    EntryKind(LogIndex),
    /// The leader holds that this replica has entries which it has not: its disk lost them.
    #[error("a heartbeat commits {commit} beyond the log's end {last}")]
    HeartbeatBeyondLog {
        /// What the leader knows to be here.
        commit: LogIndex,
        /// What is here.
        last: LogIndex,
    },
    /// A follower acknowledges what this leader never sent.
    #[error("a follower answers for {index} beyond the leader's last {last}")]
    ResponseBeyondLog {
        /// What it answers for.
        index: LogIndex,
        /// The leader's last entry.
        last: LogIndex,
    },
    /// A snapshot whose members no group ever had.
    #[error("a snapshot's membership is not canonical")]
    MembershipInvalid,
    /// Not a peer's fault: what is applied cannot be, or what was acknowledged is lost here.
    #[error("this replica was stopped")]
    Stopped,
    /// Two leaders in one term (R1).
    #[error("{other} leads term {term} that another leads already")]
    TwoLeaders {
        /// The term.
        term: Term,
        /// The one whose message came second.
        other: ReplicaId,
    },
}

pub(crate) enum Refused {
    Dropped(Dropped),
    Violation(Violation),
}

impl From<Dropped> for Refused {
    fn from(why: Dropped) -> Self {
        Self::Dropped(why)
    }
}

impl From<Violation> for Refused {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

/// Checks a message in full; what passes is safe to step.
pub(crate) fn check(gate: &Gate, view: &View, sender: Sender, message: &Message) -> Result<(), Refused> {
    let from = check_parties(gate, view, sender, message)?;
    let message = &message.0;
    let kind = check_kind(message)?;
    check_ranges(message)?;
    check_entries(message)?;
    check_leader(view, from, kind, message)?;
    match kind {
        MessageType::MsgHeartbeat => check_heartbeat(view, message),
        MessageType::MsgAppendResponse => check_append_response(view, message),
        MessageType::MsgTimeoutNow if view.leader != Some(from) || message.term != view.term.0 => {
            Err(Dropped::NotFromLeader.into())
        }
        MessageType::MsgSnapshot => check_snapshot(view, message),
        _ => Ok(()),
    }
}

fn check_parties(gate: &Gate, view: &View, sender: Sender, message: &Message) -> Result<ReplicaId, Refused> {
    if sender.cluster != gate.cluster {
        return Err(Violation::WrongCluster(sender.cluster).into());
    }
    if sender.group != gate.group {
        return Err(Violation::WrongGroup(sender.group).into());
    }
    let from = message.from().ok_or(Violation::NoSender)?;
    if from.node() != sender.connection {
        return Err(Violation::WrongConnection { replica: from, connection: sender.connection }.into());
    }
    // A late message to an earlier incarnation is no fault of anybody's.
    if message.to() != Some(view.replica) || from == view.replica {
        return Err(Dropped::OtherReceiver.into());
    }
    Ok(from)
}

fn check_kind(message: &eraftpb::Message) -> Result<MessageType, Refused> {
    use MessageType as Kind;
    let kind = MessageType::try_from(message.msg_type).map_err(|_| Violation::LocalKind(message.msg_type))?;
    match kind {
        Kind::MsgHup | Kind::MsgBeat | Kind::MsgUnreachable | Kind::MsgSnapStatus | Kind::MsgCheckQuorum => {
            Err(Violation::LocalKind(message.msg_type).into())
        }
        Kind::MsgPropose | Kind::MsgTransferLeader | Kind::MsgReadIndex | Kind::MsgReadIndexResp => {
            Err(Dropped::NotFromPeers.into())
        }
        _ if message.request_snapshot != 0 => Err(Dropped::SnapshotRequest.into()),
        _ => Ok(kind),
    }
}

/// Raft takes a message without a term for a local one, and adds to indexes without looking.
fn check_ranges(message: &eraftpb::Message) -> Result<(), Refused> {
    let positions = [message.term, message.log_term, message.index, message.commit, message.commit_term];
    if message.term == 0
        || positions.iter().chain([&message.reject_hint]).any(|&position| position > POSITION_MAX)
    {
        return Err(Violation::OutOfRange.into());
    }
    if message.context.len() > CONTEXT_BYTES_MAX {
        return Err(Violation::TooLarge(message.context.len()).into());
    }
    Ok(())
}

fn check_entries(message: &eraftpb::Message) -> Result<(), Refused> {
    if !message.entries.is_empty() && message.msg_type() != MessageType::MsgAppend {
        return Err(Violation::NotContiguous(LogIndex(message.entries[0].index)).into());
    }
    let (mut index, mut term) = (message.index, message.log_term);
    for entry in &message.entries {
        let place = LogIndex(entry.index);
        if entry.index != index + 1 || entry.term < term.max(1) || entry.term > message.term {
            return Err(Violation::NotContiguous(place).into());
        }
        if entry.data.len() > ENTRY_BYTES_MAX || !entry.context.is_empty() {
            return Err(Violation::TooLarge(entry.data.len() + entry.context.len()).into());
        }
        let known = match EntryType::try_from(entry.entry_type) {
            Ok(EntryType::EntryNormal) => true,
            Ok(EntryType::EntryConfChangeV2) => eraftpb::ConfChangeV2::decode(entry.data.clone()).is_ok(),
            Ok(EntryType::EntryConfChange) | Err(_) => false,
        };
        if !known {
            return Err(Violation::EntryKind(place).into());
        }
        (index, term) = (entry.index, entry.term);
    }
    Ok(())
}

/// One leader per term.
fn check_leader(
    view: &View,
    from: ReplicaId,
    kind: MessageType,
    message: &eraftpb::Message,
) -> Result<(), Refused> {
    let leads = matches!(kind, MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot);
    let other = view.leader.is_some_and(|leader| leader != from);
    if leads && message.term == view.term.0 && other {
        return Err(Violation::TwoLeaders { term: view.term, other: from }.into());
    }
    Ok(())
}

/// An append's or a vote's commit is rightly higher than the log during catch-up; a heartbeat's is what the leader
/// has seen this replica acknowledge.
fn check_heartbeat(view: &View, message: &eraftpb::Message) -> Result<(), Refused> {
    let (commit, last) = (LogIndex(message.commit), view.last_index);
    if message.term >= view.term.0 && commit > last {
        return Err(Violation::HeartbeatBeyondLog { commit, last }.into());
    }
    Ok(())
}

fn check_append_response(view: &View, message: &eraftpb::Message) -> Result<(), Refused> {
    let (index, last) = (LogIndex(message.index), view.last_index);
    if view.role == Role::Leader && message.term == view.term.0 && index > last {
        return Err(Violation::ResponseBeyondLog { index, last }.into());
    }
    Ok(())
}

/// Raft drops a snapshot whose members lack this replica, and dies of members that fit nowhere.
fn check_snapshot(view: &View, message: &eraftpb::Message) -> Result<(), Refused> {
    let snapshot = message.get_snapshot();
    let metadata = snapshot.get_metadata();
    if metadata.index == 0
        || metadata.index > POSITION_MAX
        || metadata.term > message.term
        || metadata.term == 0
    {
        return Err(Violation::OutOfRange.into());
    }
    if snapshot.data.len() > POINTER_BYTES_MAX {
        return Err(Violation::TooLarge(snapshot.data.len()).into());
    }
    let state = metadata.get_conf_state();
    let membership = Membership::from_raft(state);
    // Raft gets the ids as they came: none may be lost on the way to ours.
    let count = |state: &eraftpb::ConfState| {
        [&state.voters, &state.learners, &state.voters_outgoing, &state.learners_next].map(Vec::len)
    };
    if !membership.is_canonical() || count(&membership.to_raft()) != count(state) {
        return Err(Violation::MembershipInvalid.into());
    }
    let members = [&state.voters, &state.learners, &state.voters_outgoing];
    if members.iter().any(|ids| ids.contains(&view.replica.get())) {
        Ok(())
    } else {
        Err(Dropped::Snapshot.into())
    }
}
