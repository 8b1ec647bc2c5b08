//! Whom a voter would rather see lead. Raft lets a voter of higher priority veto an equal log for ever; a favourite that
//! is dead or starved would block every election. So the veto fades: halved after one round without a leader, gone
//! after two, and whole again once there is a leader.

use varve_common::Term;

use super::Group;

/// Rounds without a leader.
#[derive(Debug, Default)]
pub(super) struct Preference {
    rounds: u32,
}

impl Group {
    /// This replica campaigned, so the round before brought no leader.
    pub(super) fn round_failed(&mut self) {
        self.preference.rounds = self.preference.rounds.saturating_add(1);
        self.apply_preference();
    }

    /// Somebody asks for a vote while nobody leads. If this voter is about to veto, the next time counts less.
    pub(super) fn asked_for_vote(&mut self, priority: i64) {
        self.apply_preference();
        if self.leader().is_none() && priority < self.node.raft.priority {
            self.preference.rounds = self.preference.rounds.saturating_add(1);
        }
    }

    /// There is a leader.
    pub(super) fn led_again(&mut self) {
        self.preference.rounds = 0;
        self.apply_preference();
    }

    fn apply_preference(&mut self) {
        let priority = match self.preference.rounds {
            // Raft ends the process when a replica that never was in a term vetoes.
            _ if self.term() == Term::ZERO => 0,
            0 => self.config.priority,
            1 => self.config.priority / 2,
            _ => 0,
        };
        self.node.set_priority(priority);
    }

    /// The priority in force.
    #[must_use]
    pub fn priority(&self) -> i64 {
        self.node.raft.priority
    }
}
