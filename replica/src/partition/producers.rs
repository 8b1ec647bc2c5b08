//! What a partition knows of its producers, and what it says to a batch (KIP-98, KIP-360).
//!
//! The check is made once, by the leader, before it proposes, on the table as it will be when everything pending is
//! applied. Apply makes the same transition without asking again, and asserts that it was legal.

use std::collections::BTreeMap;

use varve_common::Offset;
use varve_formats::state::{ProducerBatch, ProducerEntry};

use crate::{
    api::BatchMeta,
    bugs::{Bug, is_seeded},
    limits::DEDUP_BATCHES,
};

/// The producers of a partition, by id.
pub type Producers = BTreeMap<i64, ProducerEntry>;

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It comes next.
    Append,
    /// It was appended before.
    Duplicate {
        /// Where.
        base_offset: Offset,
    },
    /// A gap, or a reused sequence.
    OutOfOrder {
        /// What comes next.
        expected: i32,
    },
    /// Of a producer of which nothing is known, and not its first: what it sent before may still come.
    Unheard,
    /// From an epoch that a newer one fenced.
    Fenced {
        /// The current epoch.
        current: i16,
    },
}

/// The sequence of the record `count` behind `sequence`: after `i32::MAX` comes 0.
#[must_use]
pub const fn sequence_plus(sequence: i32, count: u32) -> i32 {
    ((sequence as i64 + count as i64) % (i32::MAX as i64 + 1)) as i32
}

/// Holds a batch of a producer against what is known of it. As in Kafka, a producer of which nothing is known (never
/// seen, expired, or all its records deleted) may begin at any sequence (a leader asks it to come twice, by `Missed`); a new epoch
/// of a known one begins at 0.
#[must_use]
pub fn check(known: Option<&ProducerEntry>, meta: &BatchMeta) -> Verdict {
    let Some(entry) = known else { return Verdict::Append };
    if meta.producer_epoch < entry.epoch {
        return Verdict::Fenced { current: entry.epoch };
    }
    if meta.producer_epoch > entry.epoch {
        return if meta.base_sequence == 0 { Verdict::Append } else { Verdict::OutOfOrder { expected: 0 } };
    }
    let last_sequence = sequence_plus(meta.base_sequence, meta.count - 1);
    let same = |batch: &&ProducerBatch| {
        batch.base_sequence == meta.base_sequence && batch.last_sequence == last_sequence
    };
    if let Some(original) = entry.batches.iter().rev().find(same) {
        return Verdict::Duplicate { base_offset: original.base_offset };
    }
    match entry.batches.last() {
        None => Verdict::Append,
        Some(last) if sequence_plus(last.last_sequence, 1) == meta.base_sequence => Verdict::Append,
        Some(last) => Verdict::OutOfOrder { expected: sequence_plus(last.last_sequence, 1) },
    }
}

/// Remembers a batch at `base_offset`; `known` is the producer's entry before it.
#[must_use]
pub fn remember(
    known: Option<&ProducerEntry>,
    meta: &BatchMeta,
    base_offset: Offset,
    append_time_ms: i64,
) -> ProducerEntry {
    let mut entry = match known {
        Some(entry) if entry.epoch == meta.producer_epoch => entry.clone(),
        // A new epoch starts its sequences anew: nothing of the old one may answer for it (T29).
        _ => ProducerEntry {
            producer_id: meta.producer_id,
            epoch: meta.producer_epoch,
            batches: Vec::with_capacity(1),
            transaction_first: None,
            coordinator_epoch: known.map_or(-1, |entry| entry.coordinator_epoch),
            transaction_version: known.map_or(0, |entry| entry.transaction_version),
            last_timestamp: append_time_ms,
        },
    };
    let window = if is_seeded(Bug::DedupWindowOne) { 1 } else { DEDUP_BATCHES };
    while entry.batches.len() >= window {
        entry.batches.remove(0);
    }
    entry.batches.push(ProducerBatch {
        base_sequence: meta.base_sequence,
        last_sequence: sequence_plus(meta.base_sequence, meta.count - 1),
        base_offset,
        timestamp: meta.max_timestamp,
    });
    entry.last_timestamp = append_time_ms;
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(epoch: i16, base_sequence: i32, count: u32) -> BatchMeta {
        BatchMeta {
            count,
            last_offset_delta: count - 1,
            producer_id: 9,
            producer_epoch: epoch,
            base_sequence,
            base_timestamp: 0,
            max_timestamp: 0,
            is_transactional: false,
            is_control: false,
            crc: 0,
            bytes: 100,
        }
    }

    fn after(batches: &[(i16, i32, u32)]) -> ProducerEntry {
        let mut entry = None;
        let mut offset = Offset(100);
        for &(epoch, sequence, count) in batches {
            let batch = meta(epoch, sequence, count);
            assert_eq!(check(entry.as_ref(), &batch), Verdict::Append);
            entry = Some(remember(entry.as_ref(), &batch, offset, 1));
            offset = offset.plus(u64::from(count));
        }
        entry.unwrap()
    }

    #[test]
    fn t28_the_last_five_batches_are_answered_with_their_offsets() {
        let entry = after(&[(0, 0, 1), (0, 1, 2), (0, 3, 1), (0, 4, 1), (0, 5, 1), (0, 6, 1)]);
        assert_eq!(check(Some(&entry), &meta(0, 1, 2)), Verdict::Duplicate { base_offset: Offset(101) });
        assert_eq!(check(Some(&entry), &meta(0, 6, 1)), Verdict::Duplicate { base_offset: Offset(106) });
        assert_eq!(check(Some(&entry), &meta(0, 0, 1)), Verdict::OutOfOrder { expected: 7 });
        assert_eq!(check(Some(&entry), &meta(0, 1, 1)), Verdict::OutOfOrder { expected: 7 });
    }

    #[test]
    fn t29_a_new_epoch_that_reuses_a_sequence_is_a_new_batch() {
        let entry = after(&[(0, 0, 1)]);
        assert_eq!(check(Some(&entry), &meta(1, 0, 1)), Verdict::Append);
        let entry = remember(Some(&entry), &meta(1, 0, 1), Offset(200), 2);
        assert_eq!(check(Some(&entry), &meta(1, 0, 1)), Verdict::Duplicate { base_offset: Offset(200) });
        assert_eq!(check(Some(&entry), &meta(0, 0, 1)), Verdict::Fenced { current: 1 });
        assert_eq!(check(Some(&entry), &meta(2, 3, 1)), Verdict::OutOfOrder { expected: 0 });
    }

    #[test]
    fn sequences_wrap_behind_the_largest() {
        let entry = after(&[(0, i32::MAX - 1, 3)]);
        assert_eq!(entry.batches[0].last_sequence, 0);
        assert_eq!(check(Some(&entry), &meta(0, 1, 1)), Verdict::Append);
        assert_eq!(
            check(Some(&entry), &meta(0, i32::MAX - 1, 3)),
            Verdict::Duplicate { base_offset: Offset(100) }
        );
        let entry = after(&[(0, i32::MAX, 1)]);
        assert_eq!(check(Some(&entry), &meta(0, 0, 1)), Verdict::Append);
    }

    #[test]
    fn an_unknown_producer_may_begin_anywhere() {
        assert_eq!(check(None, &meta(3, 77, 1)), Verdict::Append);
    }
}
