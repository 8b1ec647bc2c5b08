//! What there is to see of a group from outside.

use raft::StateRole;
use varve_common::{LogIndex, ReplicaId, Term};

use super::Group;
use crate::{
    HardState, Leadership, Membership, Role, TermRun, Violation,
    bugs::{Bug, is_planted},
};

impl Group {
    /// This replica.
    #[must_use]
    pub const fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The members, as of what is applied.
    #[must_use]
    pub const fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The violation that stopped this replica, if one did.
    #[must_use]
    pub const fn fenced(&self) -> Option<Violation> {
        self.fenced
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.node.raft.term)
    }

    /// What this replica is in its term.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    /// The leader of the term, where known.
    #[must_use]
    pub fn leader(&self) -> Option<ReplicaId> {
        ReplicaId::from_raw(self.node.raft.leader_id)
    }

    /// Term, role and leader.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        Leadership { term: self.term(), role: self.role(), leader: self.leader() }
    }

    /// Whether this replica leads and has applied the entry that opened its term: from then on, and not before, it
    /// knows all that earlier terms committed, and may assign offsets (T1).
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.role() == Role::Leader
            && (self.node.raft.apply_to_current_term() || is_planted(Bug::ServesBeforeOwnEntry))
    }

    /// The hard state as of now; what of it is durable is the write-ahead log's to say.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        HardState::from_raft(&self.node.raft.hard_state())
    }

    /// The last index of the log.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.last_index())
    }

    /// The commit index.
    #[must_use]
    pub fn commit_index(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.committed)
    }

    /// What was reported to [`Group::applied`].
    #[must_use]
    pub fn applied_index(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.applied)
    }

    /// The truncation point.
    #[must_use]
    pub fn truncated(&self) -> TermRun {
        self.node.store().truncated()
    }

    /// The term of an entry, from the truncation point to the end of the log.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index < self.truncated().start || index > self.last_index() {
            return None;
        }
        self.node.raft.raft_log.term(index.0).ok().map(Term)
    }

    /// The first entry of the present term, where the log has one, or the truncation point where it is of this term.
    #[must_use]
    pub fn term_start(&self) -> Option<LogIndex> {
        self.term_runs().last().filter(|run| run.term == self.term()).map(|run| run.start)
    }

    /// The terms of the log, by runs; the first begins at the truncation point.
    #[must_use]
    pub fn term_runs(&self) -> &[TermRun] {
        self.node.store().runs()
    }

    /// How much of the log is held in memory, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.node.store().entries_bytes()
    }

    /// Readies given out and not yet durable.
    #[must_use]
    pub fn readies_in_flight(&self) -> usize {
        self.in_flight.len()
    }
}
