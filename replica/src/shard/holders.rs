//! Records that more than a quorum is to have before they are acknowledged (`min.insync.replicas` above a majority).
//!
//! ```text
//!  committed: a quorum has it ──as many of those that keep up have it────────> acknowledged
//!                               those that keep up become fewer than asked for ─> NOT_ENOUGH_REPLICAS_AFTER_APPEND
//! ```
//! Nothing is taken back: the record stays, and who is told so sends it again and has it once.

use varve_common::LogIndex;

use super::hosted::Hosted;
use crate::api::{Effect, Refusal, Reply, Ticket};

/// An answer that waits.
#[derive(Debug)]
pub(super) struct Held {
    /// What must be on so many replicas.
    pub(super) index: LogIndex,
    /// So many, this one among them.
    pub(super) replicas_min: u32,
    /// Who waits.
    pub(super) ticket: Ticket,
    /// What it is told then.
    pub(super) reply: Reply,
}

impl Hosted {
    pub(super) fn hold(&mut self, held: Held) {
        self.held.push_back(held);
    }

    /// Ends every wait that is over.
    pub(super) fn answer_held(&mut self, effects: &mut Vec<Effect>) {
        if self.held.is_empty() || !self.is_leader() {
            return;
        }
        let in_sync = self.raft.in_sync();
        // This one holds whatever it has applied.
        let mut reached: Vec<LogIndex> = in_sync
            .iter()
            .map(|member| if *member == self.replica { LogIndex(u64::MAX) } else { self.reached(*member) })
            .collect();
        reached.sort_unstable_by(|one, other| other.cmp(one));
        self.held.retain_mut(|held| {
            let nth = held.replicas_min.max(1) as usize - 1;
            let refused = Reply::Refused(Refusal::TooFewInSync);
            let reply = match reached.get(nth) {
                Some(end) if *end >= held.index => std::mem::replace(&mut held.reply, refused),
                Some(_) => return true,
                None => refused,
            };
            effects.push(Effect::Reply { ticket: held.ticket, reply });
            false
        });
    }

    fn reached(&self, member: varve_common::ReplicaId) -> LogIndex {
        self.raft.matched(member).unwrap_or_default()
    }

    /// Whoever leads now knows what they have; this replica does not any more.
    pub(super) fn fail_held(&mut self, refusal: &Refusal, effects: &mut Vec<Effect>) {
        for held in std::mem::take(&mut self.held) {
            effects.push(Effect::Reply { ticket: held.ticket, reply: Reply::Refused(refusal.clone()) });
        }
    }
}
