//! A leader whose disk stands still (fault row 22).
//!
//! ```text
//!  leader     append ──────────────────────────────> followers: durable, and they say so
//!             its own write: asked for .................................... not durable
//!                            |<── longest election time-out ──>| hands over to who has it
//!                                                              |<── as long again ──>| leads no more, whoever that leaves
//! ```
//! Its heartbeats would keep the others from an election, and everything that its log's thread is to do waits: a quorum could
//! commit without it. It hands over only where a follower has what this one waits for: where the disks of all stand still, or one is
//! merely slow beside others that are as slow, nobody would do better, and leaders would wander.
//!
//! While its disk stands still a replica does not campaign: its vote for itself would wait in the same queue.

use varve_common::ReplicaId;

use super::Group;
use crate::Role;

/// For how long the oldest write has been on its way.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// The ready that carries it.
    number: Option<u64>,
    ticks: usize,
}

impl Group {
    /// Time goes by for what is on its way to the disk.
    pub(super) fn tick_disk(&mut self) {
        let oldest = self.in_flight.front().filter(|ready| ready.writes).map(|ready| ready.number);
        let goes_on = oldest.is_some() && oldest == self.standing.number;
        self.standing.ticks = if goes_on { self.standing.ticks + 1 } else { 0 };
        self.standing.number = oldest;
        if self.role() == Role::Leader {
            self.leave_to_others();
        }
    }

    /// This process did not run: its disk may have done its work meanwhile.
    pub(super) fn forgive_disk(&mut self) {
        self.standing.ticks = 0;
    }

    /// Whether the disk has not done in a whole election time-out what it was asked.
    #[must_use]
    pub fn is_disk_standing(&self) -> bool {
        self.standing.ticks >= self.patience()
    }

    /// The longest that a follower waits for a leader.
    const fn patience(&self) -> usize {
        2 * self.config.election_ticks
    }

    fn leave_to_others(&mut self) {
        if !self.is_disk_standing() {
            return;
        }
        let Some(heir) = self.heir() else { return };
        if self.standing.ticks >= 2 * self.patience() {
            // What it was told to do may not have left this process, or the heir cannot.
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        } else if self.node.raft.lead_transferee.is_none() {
            self.transfer(heir);
        }
    }

    /// The voter that is furthest, of those whose disk has what this one's has not.
    fn heir(&self) -> Option<ReplicaId> {
        let waits =
            self.in_flight.iter().take_while(|ready| ready.writes).find_map(|ready| ready.last_entry)?;
        let matched = |id: &ReplicaId| self.matched(*id).unwrap_or_default();
        let others = self.membership.voters.iter().copied().filter(|id| *id != self.replica);
        others.filter(|id| matched(id) >= waits && self.is_heard_of(*id)).max_by_key(matched)
    }
}
