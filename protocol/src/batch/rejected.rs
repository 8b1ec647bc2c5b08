//! Records that a topic does not take. Their batch is refused whole, and the producer is told of each (KIP-467): the others it may
//! send again.

use std::fmt;

use thiserror::Error;

use crate::{error_code::ErrorCode, limits::REJECTED_RECORDS_MAX};

/// Records that are named in the summary, as in Kafka.
const SUMMARIZED_MAX: usize = 3;

/// What is wrong with one record.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// Offsets do not count 0, 1, 2.
    #[error("offset delta {offset_delta} is not the record's place")]
    OffsetDelta {
        /// As sent.
        offset_delta: i32,
    },
    /// From too long ago, or from the future.
    #[error("timestamp {timestamp} is out of range: it must be from {earliest} to {latest}")]
    Timestamp {
        /// As sent.
        timestamp: i64,
        /// The least that is taken.
        earliest: i64,
        /// The largest.
        latest: i64,
    },
    /// A compacted topic needs keys.
    #[error("it has no key, and the topic is compacted")]
    NoKey,
}

/// One record that is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectedRecord {
    /// Its place in the batch.
    pub place: u32,
    /// What is wrong.
    pub fault: Fault,
}

/// All of them in one batch: there is at least one.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub struct Rejected {
    count: usize,
    has_timestamp: bool,
    records: Vec<RejectedRecord>,
}

impl Rejected {
    /// Nothing is wrong yet.
    pub(super) const fn none() -> Self {
        Self { count: 0, has_timestamp: false, records: Vec::new() }
    }

    pub(super) fn push(&mut self, place: u32, fault: Fault) {
        self.count += 1;
        self.has_timestamp |= matches!(fault, Fault::Timestamp { .. });
        if self.records.len() < REJECTED_RECORDS_MAX {
            self.records.push(RejectedRecord { place, fault });
        }
    }

    /// An error where there is one at all.
    pub(super) fn check(self) -> Result<(), Self> {
        if self.count == 0 { Ok(()) } else { Err(self) }
    }

    /// The records that are not taken, up to a bound.
    #[must_use]
    pub fn records(&self) -> &[RejectedRecord] {
        &self.records
    }

    /// What the producer is told of the batch: one timestamp out of range tells for all, as in Kafka.
    #[must_use]
    pub const fn error_code(&self) -> ErrorCode {
        if self.has_timestamp { ErrorCode::InvalidTimestamp } else { ErrorCode::InvalidRecord }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} records are not taken, and none of their batch is:", self.count)?;
        for (number, RejectedRecord { place, fault }) in self.records.iter().take(SUMMARIZED_MAX).enumerate()
        {
            write!(out, "{} record {place}: {fault}", if number == 0 { "" } else { ";" })?;
        }
        if self.count > SUMMARIZED_MAX { out.write_str("; …") } else { Ok(()) }
    }
}
