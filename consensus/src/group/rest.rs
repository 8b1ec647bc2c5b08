//! Rest by agreement: an idle group sends nothing and asks for no ticks.
//!
//! ```text
//!  leader: idle for a while ──beat, "rest at (term, commit)"──> each member: same term, same end, all of it committed?
//!     all members agree  <─────────answer, "resting"──────────  rests: its election timer stands still
//!     rests: no more beats
//! ```
//! From then on the life of the leader's *node* stands for the leader's ([`crate::Peers`]): whoever loses that node wakes
//! its groups. A member that woke, or never agreed, is told again by the next beat; any raft message wakes who receives
//! it. A waking follower waits a whole election time-out before it grants a vote, a waking leader as long before it
//! asks whether a quorum is there.

use std::collections::BTreeSet;

use raft::ProgressState;
use varve_common::{LogIndex, ReplicaId, Term};

use super::Group;
use crate::Role;

/// Whether this replica rests, and who agreed to.
#[derive(Debug, Default)]
pub(super) struct Rest {
    resting: bool,
    /// Ticks without work, as a leader.
    idle: usize,
    agreed: BTreeSet<ReplicaId>,
}

impl Group {
    /// Whether this replica rests: no ticks, no beats, until something wakes it.
    #[must_use]
    pub const fn is_resting(&self) -> bool {
        self.rest.resting
    }

    /// Ends the rest; whether there was one.
    pub fn wake(&mut self) -> bool {
        self.rest.idle = 0;
        self.rest.agreed.clear();
        let rested = std::mem::take(&mut self.rest.resting);
        if rested {
            self.restart_timer();
            self.forget_who_spoke();
        }
        rested
    }

    /// Ends the rest because a peer seeks a leader: if this is the one, it says so at once.
    pub(super) fn wake_and_speak(&mut self) {
        if self.wake() && self.role() == Role::Leader {
            self.node.ping();
        }
    }

    pub(super) fn tick_rest(&mut self) {
        if self.has_nothing_to_do() {
            self.rest.idle = self.rest.idle.saturating_add(1);
        } else {
            self.rest.idle = 0;
            self.rest.agreed.clear();
        }
    }

    /// Whether this leader's next beat asks for rest.
    #[must_use]
    pub(crate) fn seeks_rest(&self) -> bool {
        self.rest.idle >= self.config.rest_ticks && self.has_nothing_to_do()
    }

    /// Everything is durable, committed and applied, here and at every member, as far as this leader knows.
    fn has_nothing_to_do(&self) -> bool {
        let (last, own) = (self.last_index(), self.replica.get());
        self.is_settled()
            && self.commit_index() == last
            && self.applied_index() == last
            && self.in_flight.is_empty()
            && self.reads.is_empty()
            && self.node.raft.lead_transferee.is_none()
            && self.membership.voters_outgoing.is_empty()
            && self
                .node
                .raft
                .prs()
                .iter()
                .filter(|(id, _)| **id != own)
                .all(|(_, progress)| progress.state == ProgressState::Replicate && progress.matched == last.0)
    }

    /// A follower is asked to rest by its leader, whose log ends, committed, at `commit`.
    pub(crate) fn agree_to_rest(&mut self, leader: ReplicaId, term: Term, commit: LogIndex) {
        let last = self.last_index();
        self.rest.resting = self.fenced.is_none()
            && self.role() == Role::Follower
            && (self.leader(), self.term()) == (Some(leader), term)
            && last == commit
            && self.commit_index() == last
            && self.in_flight.is_empty()
            && self.node.raft.raft_log.unstable_entries().is_empty();
    }

    /// A member answers that it rests, with its log committed up to `commit`.
    pub(crate) fn rest_agreed(&mut self, member: ReplicaId, term: Term, commit: LogIndex) {
        if self.rest.resting || !self.seeks_rest() || term != self.term() || commit != self.last_index() {
            return;
        }
        self.rest.agreed.insert(member);
        let own = self.replica;
        let all = self.members().filter(|id| *id != own).all(|id| self.rest.agreed.contains(&id));
        self.rest.resting = all;
    }

    /// A member answers that it does not rest.
    pub(crate) fn rest_refused(&mut self, member: ReplicaId) {
        self.rest.agreed.remove(&member);
    }

    /// All members, voters and learners, each once.
    pub fn members(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        let membership = &self.membership;
        let leaving = membership.voters_outgoing.iter().filter(|id| !membership.voters.contains(id));
        membership.voters.iter().chain(&membership.learners).chain(leaving).copied()
    }
}
