//! Producers that the partition does not know, and of which a batch was refused here.
//!
//! A producer has five batches on their way. Where one is refused for now (too much in flight, not the leader yet) those behind
//! it find a gap, and are refused too: of a producer that the partition knows, [`check`](crate::partition::check) sees that. One that
//! it does not know may have been forgotten, and may go on at any sequence, so the batch behind a refused first one would be taken
//! for a beginning. The client counts what it sent before an acknowledged batch as acknowledged, and the refused batch is lost.
//!
//! Not every refusal is seen here: the first batch may wait at the leader before, which hangs, or was turned away before this
//! replica was ready. So whatever does not begin at 0 is refused once, retriably, and taken for a beginning when it comes again:
//! clients send what was refused behind what they sent before it (Java waits for that one's outcome, librdkafka lets nothing
//! be on its way to two leaders).
//!
//! Memory is enough: whoever forgets refuses once more.

use std::{collections::BTreeMap, time::Duration};

use varve_common::Monotonic;

use crate::{api::BatchMeta, limits::MISSED_PRODUCERS_MAX, partition::Verdict};

/// No client sends a batch again after so long.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

#[derive(Clone, Copy, Debug)]
struct First {
    epoch: i16,
    sequence: i32,
    since: Monotonic,
}

/// The first batch of each that is due.
#[derive(Debug, Default)]
pub(super) struct Missed {
    firsts: BTreeMap<i64, First>,
    /// There were too many: until then a producer that nobody knows begins at 0.
    strict_until: Option<Monotonic>,
    now: Monotonic,
}

impl Missed {
    pub(super) const fn set_now(&mut self, now: Monotonic) {
        self.now = now;
    }

    /// A batch of a producer that the partition does not know was refused, or may be lost.
    pub(super) fn note(&mut self, producer_id: i64, epoch: i16, sequence: i32) {
        if let Some(first) = self.firsts.get_mut(&producer_id)
            && first.epoch >= epoch
            && self.now.since(first.since) < PATIENCE
        {
            // After a failover the second may be refused before the first has come.
            if first.epoch == epoch && is_behind(first.sequence, sequence) {
                first.sequence = sequence;
            }
            return;
        }
        if self.is_full() {
            let now = self.now;
            self.firsts.retain(|_, first| now.since(first.since) < PATIENCE);
        }
        if self.is_full() {
            self.strict_until = Some(self.now.plus(PATIENCE));
        } else {
            self.firsts.insert(producer_id, First { epoch, sequence, since: self.now });
        }
    }

    /// Holds a batch of a producer that the partition does not know against what was refused here.
    pub(super) fn check(&self, meta: &BatchMeta) -> Verdict {
        match self.due(meta) {
            Some(expected) => Verdict::OutOfOrder { expected },
            None if self.is_beginning(meta) => Verdict::Append,
            None => Verdict::Unheard,
        }
    }

    /// Whether nothing can be missed before this batch: it is the first of all, or was refused here and came again. Where more
    /// were refused than are remembered it is taken at its word, or nothing of its producer would be taken again.
    fn is_beginning(&self, meta: &BatchMeta) -> bool {
        let came_again = |first: &First| {
            (first.epoch, first.sequence) == (meta.producer_epoch, meta.base_sequence)
                && self.now.since(first.since) < PATIENCE
        };
        meta.base_sequence == 0 || self.firsts.get(&meta.producer_id).map_or(self.is_full(), came_again)
    }

    fn is_full(&self) -> bool {
        self.firsts.len() >= MISSED_PRODUCERS_MAX
    }

    /// The sequence that must come before this batch of a producer that the partition does not know.
    fn due(&self, meta: &BatchMeta) -> Option<i32> {
        match self.firsts.get(&meta.producer_id) {
            Some(first) if first.epoch == meta.producer_epoch && self.now.since(first.since) < PATIENCE => {
                is_behind(meta.base_sequence, first.sequence).then_some(first.sequence)
            }
            _ if self.strict_until.is_some_and(|until| self.now < until) => {
                (meta.base_sequence != 0).then_some(0)
            }
            _ => None,
        }
    }

    /// The partition knows the producer now.
    pub(super) fn forget(&mut self, producer_id: i64) {
        self.firsts.remove(&producer_id);
    }
}

/// Whether a sequence comes later than another; they begin again at 0 behind the largest.
const fn is_behind(later: i32, earlier: i32) -> bool {
    let distance = later.wrapping_sub(earlier) & i32::MAX;
    distance > 0 && distance < i32::MAX / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(producer_id: i64, epoch: i16, sequence: i32) -> BatchMeta {
        BatchMeta {
            count: 1,
            last_offset_delta: 0,
            producer_id,
            producer_epoch: epoch,
            base_sequence: sequence,
            base_timestamp: 0,
            max_timestamp: 0,
            is_transactional: false,
            is_control: false,
            crc: 0,
            bytes: 61,
        }
    }

    #[test]
    fn the_first_refused_batch_is_due_until_it_comes_or_the_epoch_changes() {
        let mut missed = Missed::default();
        missed.note(7, 0, 3);
        missed.note(7, 0, 5);
        assert_eq!(missed.due(&meta(7, 0, 5)), Some(3));
        assert_eq!(missed.due(&meta(7, 0, 3)), None);
        assert_eq!(missed.due(&meta(7, 0, 2)), None, "it was tried elsewhere before");
        assert_eq!(missed.due(&meta(7, 1, 0)), None);
        assert_eq!(missed.due(&meta(8, 0, 5)), None);
        missed.forget(7);
        assert_eq!(missed.due(&meta(7, 0, 5)), None);
    }

    #[test]
    fn what_comes_before_a_refused_batch_is_a_beginning() {
        let mut missed = Missed::default();
        missed.note(7, 0, 3);
        assert_eq!(missed.due(&meta(7, 0, 0)), None);
        // Refused as well: now that one is due.
        missed.note(7, 0, 0);
        assert_eq!(missed.due(&meta(7, 0, 3)), Some(0));
        missed.note(8, 0, i32::MAX - 1);
        assert_eq!(missed.due(&meta(8, 0, 1)), Some(i32::MAX - 1));
        missed.set_now(Monotonic(PATIENCE));
        assert_eq!(missed.due(&meta(7, 0, 3)), None);
        missed.note(7, 0, 5);
        assert_eq!(missed.due(&meta(7, 0, 6)), Some(5));
    }

    #[test]
    fn more_than_are_remembered_must_begin_at_zero_for_a_while() {
        let mut missed = Missed::default();
        for producer in 0..=MISSED_PRODUCERS_MAX as i64 {
            missed.note(producer, 0, 0);
        }
        assert_eq!(missed.firsts.len(), MISSED_PRODUCERS_MAX);
        assert_eq!(missed.due(&meta(-5, 0, 9)), Some(0));
        missed.set_now(Monotonic(PATIENCE * 2));
        assert_eq!(missed.due(&meta(-5, 0, 9)), None);
        missed.note(i64::MAX, 0, 4);
        assert_eq!(missed.firsts.len(), 1);
    }
}
