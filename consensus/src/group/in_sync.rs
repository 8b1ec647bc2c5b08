//! Which followers keep up, as clients are told (ISR).
//!
//! A follower is in sync while it keeps reaching, within the lag that is allowed, where the leader's log ended when it
//! last did. Commit and elections do not ask this: they count voters.

use std::collections::BTreeMap;

use varve_common::{LogIndex, ReplicaId};

use super::Group;
use crate::{Membership, Role};

/// How far one follower is.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Where the log ended when it last caught up.
    target: LogIndex,
    /// Ticks since then.
    ticks: usize,
    in_sync: bool,
}

/// Marks of all followers; a leader's knowledge.
#[derive(Debug, Default)]
pub(super) struct InSync {
    followers: BTreeMap<u64, Mark>,
    /// Ticks as a leader.
    ticks: usize,
    /// When each follower last said something, in these ticks.
    heard: BTreeMap<u64, usize>,
}

impl Group {
    pub(super) fn tick_in_sync(&mut self) {
        let (last, own, ticks_max) = (self.last_index(), self.replica.get(), self.config.in_sync_ticks);
        let mut followers = BTreeMap::new();
        for (&id, progress) in self.node.raft.prs().iter().filter(|(id, _)| **id != own) {
            // A new leader gives everybody the benefit of the doubt, as Kafka's does, for as long as the lag allows.
            let first = Mark { target: last, ticks: 0, in_sync: true };
            let mut mark = self.in_sync.followers.get(&id).copied().unwrap_or(first);
            if progress.matched >= mark.target.0 {
                mark = Mark { target: last, ticks: 0, in_sync: true };
            } else {
                mark.ticks += 1;
                mark.in_sync &= mark.ticks < ticks_max;
            }
            followers.insert(id, mark);
        }
        self.in_sync.followers = followers;
        self.in_sync.ticks += 1;
    }

    /// A peer's message came in.
    pub(super) fn hear(&mut self, from: u64) {
        if self.role() == Role::Leader {
            self.in_sync.heard.insert(from, self.in_sync.ticks);
        }
    }

    /// What was said is of an earlier time: before this one led, or rested.
    pub(super) fn forget_who_spoke(&mut self) {
        self.in_sync.heard.clear();
    }

    /// Whether this very replica was heard of within an election time-out. Its node may live, and its log be known to reach far,
    /// while the disk on which it was is gone.
    #[must_use]
    pub fn is_heard_of(&self, member: ReplicaId) -> bool {
        let recent = |at: &usize| self.in_sync.ticks - at <= self.config.election_ticks;
        // At rest nobody speaks: what was heard before that is of no use.
        member == self.replica
            || (!self.is_resting() && self.in_sync.heard.get(&member.get()).is_some_and(recent))
    }

    /// The voters that keep up with this leader, itself among them, in order; empty where it does not lead. Between two sets
    /// of voters those that are being left: as long as these decide too, who comes takes nobody's place, and whoever asks
    /// whether another disk may be lost has to be told so.
    #[must_use]
    pub fn in_sync(&self) -> Vec<ReplicaId> {
        if self.role() != Role::Leader {
            return Vec::new();
        }
        let Membership { voters, voters_outgoing, .. } = &self.membership;
        let decide = if self.membership.is_joint() { voters_outgoing } else { voters };
        let mut found: Vec<ReplicaId> = decide.iter().copied().filter(|id| self.keeps_up(*id)).collect();
        if !found.contains(&self.replica) {
            found.push(self.replica);
        }
        found.sort_unstable();
        found
    }

    /// Whether a member keeps up with this leader, or is this leader.
    #[must_use]
    pub fn keeps_up(&self, member: ReplicaId) -> bool {
        member == self.replica || self.in_sync.followers.get(&member.get()).is_none_or(|mark| mark.in_sync)
    }

    /// How far a follower's log is known to be equal; `None` where this replica does not lead or does not know it.
    #[must_use]
    pub fn matched(&self, follower: ReplicaId) -> Option<LogIndex> {
        let progress = self.node.raft.prs().get(follower.get())?;
        (self.role() == Role::Leader).then_some(LogIndex(progress.matched))
    }
}
