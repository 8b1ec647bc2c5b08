//! Finding a record by its time.

use super::compression::Caps;
use super::header::{BatchHeader, TimestampType};
use super::records::{Record, RecordError, Records};

/// Where and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The record's offset.
    pub offset: i64,
    /// The record's time.
    pub timestamp: i64,
}

impl Found {
    fn of(record: &Record<'_>) -> Self {
        Self { offset: record.offset, timestamp: record.timestamp }
    }
}

/// The first record at or after `timestamp`. Decompresses only batches that hold one.
///
/// # Errors
/// The records are damaged.
pub fn first_at_or_after(
    batch: &BatchHeader<'_>,
    timestamp: i64,
    caps: Caps,
) -> Result<Option<Found>, RecordError> {
    let meta = batch.meta();
    if meta.max_timestamp < timestamp {
        return Ok(None);
    }
    if meta.timestamp_type == TimestampType::LogAppendTime {
        return Ok(Some(Found { offset: meta.base_offset, timestamp: meta.max_timestamp }));
    }
    for record in Records::read(batch, caps)?.iter() {
        let record = record?;
        if record.timestamp >= timestamp {
            return Ok(Some(Found::of(&record)));
        }
    }
    Ok(None)
}

/// The first record that has the batch's largest timestamp; `None` where no record has any (KIP-734).
///
/// # Errors
/// The records are damaged.
pub fn max_timestamp(batch: &BatchHeader<'_>, caps: Caps) -> Result<Option<Found>, RecordError> {
    let timestamp = batch.meta().max_timestamp;
    if timestamp < 0 {
        return Ok(None);
    }
    first_at_or_after(batch, timestamp, caps)
}
