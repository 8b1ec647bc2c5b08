//! Watches every step of a cluster for the invariants of FAULTS.md.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::eraftpb::MessageType;
use varve_common::{LogIndex, ReplicaId, Term};

use super::cluster::{Disk, Node};
use crate::{Entry, Membership, Message, Role};

/// What was ever seen.
#[derive(Default)]
pub(super) struct Checker {
    leaders: BTreeMap<Term, ReplicaId>,
    entries: BTreeMap<(LogIndex, Term), (Bytes, Term)>,
    committed: BTreeMap<LogIndex, Entry>,
    terms: BTreeMap<ReplicaId, Term>,
}

impl Checker {
    /// The committed log.
    pub(super) fn committed(&self) -> &BTreeMap<LogIndex, Entry> {
        &self.committed
    }

    /// R2: entries of one index and term are equal, and so is what precedes them.
    pub(super) fn on_durable(&mut self, disk: &Disk, replica: ReplicaId) {
        let mut before = disk.truncated.1;
        for entry in &disk.entries {
            let seen = self.entries.entry((entry.index, entry.term)).or_insert((entry.data.clone(), before));
            assert_eq!(
                *seen,
                (entry.data.clone(), before),
                "R2 log matching at {} of {replica}",
                entry.index
            );
            before = entry.term;
        }
        let term = self.terms.entry(replica).or_default();
        assert!(*term <= disk.hard_state.term, "R5 the durable term goes back");
        *term = disk.hard_state.term;
        for (index, committed) in self.committed.range(disk.truncated.0.next()..) {
            let Some(entry) = disk.get(*index) else { break };
            if *index <= disk.hard_state.commit {
                assert_eq!(entry, committed, "R6 a committed entry changed");
            }
        }
    }

    /// R3, R4: a committed entry is one for all, and durable on a quorum.
    pub(super) fn on_committed(
        &mut self,
        entry: &Entry,
        membership: &Membership,
        nodes: &BTreeMap<ReplicaId, Node>,
    ) {
        if let Some(known) = self.committed.get(&entry.index) {
            assert_eq!(known, entry, "R3 two entries committed at {}", entry.index);
            return;
        }
        let holds =
            |id: &&ReplicaId| nodes.get(id).is_some_and(|node| node.disk.holds(entry.index, entry.term));
        let durable = membership.voters.iter().filter(holds).count();
        assert!(durable > membership.voters.len() / 2, "R4 {} is committed on {durable} disks", entry.index);
        self.committed.insert(entry.index, entry.clone());
    }

    /// R1, R3, R4, R8, R10 of a replica as it stands.
    pub(super) fn on_step(&mut self, node: &Node, learners: &[ReplicaId]) {
        let Some(group) = &node.group else { return };
        let replica = group.replica();
        assert_eq!(group.fenced(), None, "a healthy replica is never fenced");
        assert!(group.applied_index() <= group.commit_index(), "R4 applied beyond commit");
        assert!(group.truncated().start <= group.commit_index(), "R8 truncated beyond commit");
        if learners.contains(&replica) {
            assert_eq!(group.role(), Role::Follower, "R10 a learner campaigns");
        }
        if group.role() == Role::Leader {
            let first = *self.leaders.entry(group.term()).or_insert(replica);
            assert_eq!(first, replica, "R1 two leaders in {}", group.term());
            for (index, entry) in self.committed.range(group.truncated().start.next()..).rev().take(8) {
                if entry.term < group.term() {
                    assert_eq!(group.term_at(*index), Some(entry.term), "R3 the leader lacks {index}");
                }
            }
        }
    }

    /// R5, T9: what a message promises is durable when it leaves.
    pub(super) fn on_send(disk: &Disk, message: &Message) {
        let message = &message.0;
        let kind = message.get_msg_type();
        if matches!(kind, MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse) {
            return;
        }
        assert!(disk.hard_state.term.0 >= message.term, "T9 {kind:?} leaves before its term is durable");
        if kind == MessageType::MsgRequestVoteResponse
            && !message.reject
            && disk.hard_state.term.0 == message.term
        {
            assert_eq!(
                disk.hard_state.vote.map(ReplicaId::get),
                Some(message.to),
                "R5 the vote is not durable"
            );
        }
        if kind == MessageType::MsgAppendResponse && !message.reject {
            assert!(disk.last_index().0 >= message.index, "T9 an append is answered before it is durable");
        }
    }
}
