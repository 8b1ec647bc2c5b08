//! Records that more than a quorum is to have before they are acknowledged (`min.insync.replicas` above a majority).
//!
//! ```text
//!  committed: a quorum has it ──as many of those that keep up have it────────> acknowledged
//!                               those that keep up become fewer than asked for ─> NOT_ENOUGH_REPLICAS_AFTER_APPEND
//! ```
//! Nothing is taken back: the record stays, and who is told so sends it again and has it once.

use std::collections::{BTreeMap, VecDeque};

use varve_common::LogIndex;

use super::hosted::Hosted;
use crate::api::{Effect, Refusal, Reply, Ticket};

/// An answer that waits.
#[derive(Debug)]
pub(super) struct Held {
    /// What must be on so many replicas.
    pub(super) index: LogIndex,
    /// Who waits.
    pub(super) ticket: Ticket,
    /// What it is told then.
    pub(super) reply: Reply,
}

/// All that wait, by how many replicas each waits for (this one among them), in the order of what must be there: a step looks at the
/// first of each, whatever their number.
#[derive(Debug, Default)]
pub(super) struct Holders {
    queues: BTreeMap<u32, VecDeque<Held>>,
    len: usize,
}

impl Holders {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, replicas_min: u32, held: Held) {
        let queue = self.queues.entry(replicas_min.max(1)).or_default();
        let is_next = queue.back().is_none_or(|last| last.index <= held.index);
        assert!(is_next, "what waits is applied, and nothing is applied twice");
        queue.push_back(held);
        self.len += 1;
    }

    /// Those whose wait is over, by how far so many replicas are: the n-th of `reached` is how far n of them are, at the least. Those that
    /// wait for more than there are wait in vain, and `end` is told so.
    fn take(&mut self, reached: &[LogIndex], mut end: impl FnMut(Held, bool)) {
        let len = &mut self.len;
        self.queues.retain(|replicas_min, queue| {
            let nth = reached.get(*replicas_min as usize - 1);
            let is_over = |held: &mut Held| nth.is_none_or(|end| *end >= held.index);
            while let Some(held) = queue.pop_front_if(is_over) {
                *len -= 1;
                end(held, nth.is_some());
            }
            !queue.is_empty()
        });
    }
}

impl Hosted {
    /// Ends every wait that is over.
    pub(super) fn answer_held(&mut self, effects: &mut Vec<Effect>) {
        if self.held.len() == 0 || !self.is_leader() {
            return;
        }
        let in_sync = self.raft.in_sync();
        // This one holds whatever it has applied.
        let mut reached: Vec<LogIndex> = in_sync
            .iter()
            .map(|member| if *member == self.replica { LogIndex(u64::MAX) } else { self.reached(*member) })
            .collect();
        reached.sort_unstable_by(|one, other| other.cmp(one));
        self.held.take(&reached, |held, is_reached| {
            let reply = if is_reached { held.reply } else { Reply::Refused(Refusal::TooFewInSync) };
            effects.push(Effect::Reply { ticket: held.ticket, reply });
        });
    }

    fn reached(&self, member: varve_common::ReplicaId) -> LogIndex {
        self.raft.matched(member).unwrap_or_default()
    }

    /// Whoever leads now knows what they have; this replica does not any more.
    pub(super) fn fail_held(&mut self, refusal: &Refusal, effects: &mut Vec<Effect>) {
        let queues = std::mem::take(&mut self.held).queues;
        for held in queues.into_values().flatten() {
            effects.push(Effect::Reply { ticket: held.ticket, reply: Reply::Refused(refusal.clone()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use varve_common::Offset;

    use super::*;

    #[test]
    fn each_is_answered_once_so_many_have_it_and_refused_where_so_many_are_not_there() {
        let mut holders = Holders::default();
        for index in 1..=4 {
            for replicas_min in [2, 3] {
                let log_start = Offset(0);
                let reply = Reply::Trimmed { log_start };
                let ticket = Ticket(u64::from(replicas_min) * 10 + index);
                holders.push(replicas_min, Held { index: LogIndex(index), ticket, reply });
            }
        }
        let mut take = |reached: &[u64]| {
            let reached: Vec<_> = reached.iter().copied().map(LogIndex).collect();
            let mut ended = Vec::new();
            holders.take(&reached, |held, is_reached| ended.push((held.ticket.0, is_reached)));
            (ended, holders.len())
        };
        assert_eq!(take(&[9, 2, 1]), (vec![(21, true), (22, true), (31, true)], 5));
        assert_eq!(take(&[9, 2, 1]), (vec![], 5));
        // One of them does not keep up any more.
        assert_eq!(take(&[9, 3]), (vec![(23, true), (32, false), (33, false), (34, false)], 1));
        assert_eq!(take(&[9]), (vec![(24, false)], 0));
    }
}
