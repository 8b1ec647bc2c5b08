//! Record class: what the records and rolls of a log imply, as of one entry. It reads nothing of bucket class, so that
//! it can be frozen at a roll and rebuilt from there (TIERING.md 5).

use std::sync::Arc;

use bytes::Bytes;
use varve_common::{LogIndex, Offset, Term, checksum::crc32c_append};
use varve_formats::{
    command::{ProducerExpired, Roll},
    state::{AbortedTransaction, EpochStart, RollEntry},
};

use super::{ApplyError, BatchHeader, Producers, Verdict, producers};
use crate::api::{BatchMeta, OpenRange};

/// An entry's place, and what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The entry's index.
    pub index: LogIndex,
    /// The entry's term.
    pub term: Term,
    /// The leader's clock when it built the command.
    pub append_time_ms: i64,
}

/// State of record class. Lists are shared copy on write: freezing it costs a few reference counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordState {
    /// The entry as of which this is.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The append time of the last command of record class; not compared (R9), as frozen rolls do not keep it.
    pub append_time_ms: i64,
    /// The end of the log.
    pub log_end: Offset,
    /// The range since the last roll.
    pub open: OpenRange,
    /// Producers, by id.
    pub producers: Arc<Producers>,
    /// Leader epochs, oldest first.
    pub epochs: Arc<Vec<EpochStart>>,
    /// Aborted transactions; empty until transactions exist.
    pub aborted: Arc<Vec<AbortedTransaction>>,
    /// Rolled ranges that are neither tiered nor trimmed, in order.
    pub rolls: Arc<Vec<RollEntry>>,
}

impl OpenRange {
    /// Takes in one batch.
    pub(crate) fn extend(&mut self, meta: &BatchMeta, index: LogIndex, append_time_ms: i64) {
        if self.is_empty() {
            self.first_index = index;
            self.first_append_ms = append_time_ms;
        }
        self.bytes += u64::from(meta.bytes);
        self.max_timestamp = self.max_timestamp.max(meta.max_timestamp);
        self.batch_crcs = crc32c_append(self.batch_crcs, &meta.crc.to_le_bytes());
    }

    /// The command that closes it at `end`.
    pub(crate) const fn roll(&self, end: Offset) -> Roll {
        Roll {
            base: self.base,
            end,
            bytes: self.bytes,
            max_timestamp: self.max_timestamp,
            batch_crcs: self.batch_crcs,
        }
    }
}

impl RecordState {
    /// A leader's no-op: its epoch begins here. An epoch in which nothing was written leaves no trace.
    pub(crate) fn apply_leader(&mut self, term: Term) {
        let start = self.log_end;
        let epochs = &self.epochs;
        if epochs.last().is_some_and(|last| last.term >= term) {
            return;
        }
        let epochs = Arc::make_mut(&mut self.epochs);
        while epochs.last().is_some_and(|last| last.start >= start) {
            epochs.pop();
        }
        epochs.push(EpochStart { term, start });
    }

    /// Appends a batch. A committed one always takes effect; one that could not have been proposed is a broken
    /// invariant.
    pub(crate) fn apply_records(&mut self, place: Place, batch: &Bytes) -> Result<BatchHeader, ApplyError> {
        let header = BatchHeader::parse(batch).ok_or(ApplyError::BatchMalformed)?;
        if header.base_offset != self.log_end {
            return Err(ApplyError::OffsetMismatch { expected: self.log_end, found: header.base_offset });
        }
        if header.leader_epoch != place.term.leader_epoch() {
            return Err(ApplyError::EpochMismatch {
                expected: place.term.leader_epoch(),
                found: header.leader_epoch,
            });
        }
        let meta = &header.meta;
        if meta.producer_id >= 0 {
            let known = self.producers.get(&meta.producer_id);
            let verdict = producers::check(known, meta);
            if verdict != Verdict::Append {
                return Err(ApplyError::ProducerMismatch { producer_id: meta.producer_id, verdict });
            }
            let entry = producers::remember(known, meta, header.base_offset, place.append_time_ms);
            Arc::make_mut(&mut self.producers).insert(meta.producer_id, entry);
        }
        self.apply_leader(place.term);
        self.open.extend(meta, place.index, place.append_time_ms);
        self.log_end = header.end();
        self.append_time_ms = place.append_time_ms;
        Ok(header)
    }

    /// Closes the open range.
    pub(crate) fn apply_roll(&mut self, place: Place, roll: &Roll) -> Result<RollEntry, ApplyError> {
        let expected = self.open.roll(self.log_end);
        if *roll != expected || self.open.is_empty() {
            return Err(ApplyError::RollMismatch {
                expected: Box::new(expected),
                found: Box::new(roll.clone()),
            });
        }
        let entry = RollEntry {
            base: roll.base,
            end: roll.end,
            bytes: roll.bytes,
            max_timestamp: roll.max_timestamp,
            batch_crcs: roll.batch_crcs,
            first_index: self.open.first_index,
            roll_index: place.index,
            roll_term: place.term,
            rolled_ms: place.append_time_ms,
        };
        Arc::make_mut(&mut self.rolls).push(entry.clone());
        self.open = OpenRange::starting_at(roll.end);
        self.append_time_ms = place.append_time_ms;
        Ok(entry)
    }

    /// Forgets producers. The time is in the command: no replica reads a clock.
    pub(crate) fn apply_producer_expired(&mut self, place: Place, expired: &ProducerExpired) {
        let lives = |last: i64| last >= expired.unused_since_ms;
        if self.producers.values().any(|entry| !lives(entry.last_timestamp)) {
            Arc::make_mut(&mut self.producers).retain(|_, entry| lives(entry.last_timestamp));
        }
        self.append_time_ms = place.append_time_ms;
    }

    /// Drops rolls that are tiered or trimmed.
    pub(crate) fn prune_rolls(&mut self, end: Offset) -> bool {
        let dead = self.rolls.iter().take_while(|roll| roll.end <= end).count();
        if dead > 0 {
            Arc::make_mut(&mut self.rolls).drain(..dead);
        }
        dead > 0
    }
}
