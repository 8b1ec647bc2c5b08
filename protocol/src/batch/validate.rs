//! The gate of the produce path: Kafka's `LogValidator` for magic 2, without decompressing.

use thiserror::Error;

use super::compression::{Caps, Codec};
use super::header::{BatchHeader, BatchMeta, HeaderError};
use super::records::{RecordError, Records};
use crate::error_code::ErrorCode;
use crate::limits;

/// What a topic allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `max.message.bytes`: of the batch as sent.
    pub batch_bytes_max: usize,
    /// Compacted topics need a key in every record: their batches are decompressed to look.
    pub keys: Keys,
    /// The least timestamp that a record may have; `i64::MIN`: any. Compressed batches are decompressed where there is one.
    pub earliest: i64,
    /// The largest. The header of a compressed batch says it.
    pub latest: i64,
    /// Where transactions are not served yet.
    pub transactions: Transactions,
    /// For what must be decompressed.
    pub caps: Caps,
}

impl Limits {
    /// Whether compressed batches are decompressed to look at their records.
    #[must_use]
    pub fn looks_inside(&self) -> bool {
        self.keys == Keys::Required || self.earliest > i64::MIN
    }
}

/// Whether every record needs a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// A record may have none.
    Optional,
    /// A record without is refused: the topic is compacted.
    Required,
}

/// Whether batches of transactions are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transactions {
    /// Taken.
    Accepted,
    /// Refused.
    Refused,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_bytes_max: limits::BATCH_BYTES_MAX,
            keys: Keys::Optional,
            earliest: i64::MIN,
            latest: i64::MAX,
            transactions: Transactions::Refused,
            caps: Caps::default(),
        }
    }
}

/// Why a producer's bytes are not appended. Nothing of them is stored.
#[derive(Debug, Error)]
pub enum Invalid {
    /// No records at all.
    #[error("no batch")]
    Empty,
    /// No batch of magic 2, or not all of it.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The bytes are not those that the producer sent.
    #[error("stored crc {stored:08x} does not match")]
    Crc {
        /// As the batch says.
        stored: u32,
    },
    /// Larger than the topic allows.
    #[error("batch of {bytes} bytes exceeds {limit}")]
    TooLarge {
        /// Of the batch.
        bytes: usize,
        /// Of the topic.
        limit: usize,
    },
    /// A second batch, or bytes that are none.
    #[error("{bytes} bytes behind the batch")]
    SeveralBatches {
        /// How many.
        bytes: usize,
    },
    /// The count is 0, or not that of the offsets.
    #[error("{count} records with last offset delta {last_offset_delta}")]
    Count {
        /// As claimed.
        count: u32,
        /// As claimed.
        last_offset_delta: u32,
    },
    /// Clients send no control batches.
    #[error("control batch from a client")]
    Control,
    /// Transactions are not served.
    #[error("transactional batch")]
    Transactional,
    /// A sequence without producer id, an id without epoch or sequence, or a transaction without id.
    #[error("producer id {producer_id} epoch {producer_epoch} sequence {base_sequence}")]
    Producer {
        /// As sent.
        producer_id: i64,
        /// As sent.
        producer_epoch: i16,
        /// As sent.
        base_sequence: i32,
    },
    /// Brokers alone set these attributes.
    #[error("log append time or delete horizon from a client")]
    Attributes,
    /// A record breaks the format.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// Offsets do not count 0, 1, 2.
    #[error("record {place} has offset delta {offset_delta}")]
    OffsetDelta {
        /// Its place.
        place: u32,
        /// As sent.
        offset_delta: i32,
    },
    /// A record from too long ago, or from the future.
    #[error(
        "timestamp {timestamp} of record {place} is out of range: it must be from {earliest} to {latest}"
    )]
    Timestamp {
        /// Its place.
        place: u32,
        /// As sent.
        timestamp: i64,
        /// The least that is taken.
        earliest: i64,
        /// The largest.
        latest: i64,
    },
    /// A compacted topic needs keys.
    #[error("record {place} has no key")]
    NoKey {
        /// Its place.
        place: u32,
    },
}

impl Invalid {
    /// What the producer is told.
    #[must_use]
    pub const fn error_code(&self) -> ErrorCode {
        match self {
            Self::Header(HeaderError::Magic { magic: 0 | 1 }) => ErrorCode::UnsupportedForMessageFormat,
            Self::Header(HeaderError::Truncated { .. } | HeaderError::Length { .. }) | Self::Crc { .. } => {
                ErrorCode::CorruptMessage
            }
            Self::TooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::Transactional => ErrorCode::InvalidTxnState,
            Self::Timestamp { .. } => ErrorCode::InvalidTimestamp,
            Self::Records(RecordError::Compression(cause)) => match cause {
                super::CompressionError::TooLarge { .. } => ErrorCode::MessageTooLarge,
                super::CompressionError::Damaged { .. } => ErrorCode::CorruptMessage,
            },
            _ => ErrorCode::InvalidRecord,
        }
    }
}

/// Checks what a Produce request brings for one partition: exactly one sound batch.
///
/// Compressed batches are not decompressed unless the topic needs their keys, or bounds their timestamps from below; what their records say is found by
/// readers, as offsets and counts stand in the header. Uncompressed ones are walked, which costs no memory.
///
/// # Errors
/// See [`Invalid`].
pub fn validate(bytes: &[u8], limits: &Limits) -> Result<BatchMeta, Invalid> {
    let batch = check_whole(bytes, limits)?;
    if batch.meta().codec == Codec::None || limits.looks_inside() {
        check_records(&Records::read(&batch, limits.caps).map_err(RecordError::from)?, limits)?;
    }
    Ok(*batch.meta())
}

/// Everything but the records themselves.
pub(super) fn check_whole<'a>(bytes: &'a [u8], limits: &Limits) -> Result<BatchHeader<'a>, Invalid> {
    if bytes.is_empty() {
        return Err(Invalid::Empty);
    }
    let batch = BatchHeader::read(bytes)?;
    let whole = batch.bytes().len();
    if whole < bytes.len() {
        return Err(Invalid::SeveralBatches { bytes: bytes.len() - whole });
    }
    if whole > limits.batch_bytes_max {
        return Err(Invalid::TooLarge { bytes: whole, limit: limits.batch_bytes_max });
    }
    if !batch.crc_matches() {
        return Err(Invalid::Crc { stored: batch.meta().crc });
    }
    check_header(batch.meta(), limits)?;
    Ok(batch)
}

fn check_header(meta: &BatchMeta, limits: &Limits) -> Result<(), Invalid> {
    if meta.is_control {
        return Err(Invalid::Control);
    }
    if meta.count == 0 || meta.count - 1 != meta.last_offset_delta {
        return Err(Invalid::Count { count: meta.count, last_offset_delta: meta.last_offset_delta });
    }
    if meta.has_delete_horizon || meta.timestamp_type == super::TimestampType::LogAppendTime {
        return Err(Invalid::Attributes);
    }
    let is_idempotent = meta.producer_id >= 0 && meta.producer_epoch >= 0 && meta.base_sequence >= 0;
    // Without an id the epoch and the sequence mean nothing, as in Kafka's LogValidator: KafkaJS and aiokafka leave zeros there.
    let is_plain = meta.producer_id == -1 && !meta.is_transactional;
    if !is_idempotent && !is_plain {
        let BatchMeta { producer_id, producer_epoch, base_sequence, .. } = *meta;
        return Err(Invalid::Producer { producer_id, producer_epoch, base_sequence });
    }
    if meta.is_transactional && limits.transactions == Transactions::Refused {
        return Err(Invalid::Transactional);
    }
    check_latest(meta, limits)
}

/// The largest timestamp stands in the header, where the last record cannot hide it.
fn check_latest(meta: &BatchMeta, limits: &Limits) -> Result<(), Invalid> {
    if meta.max_timestamp <= limits.latest {
        return Ok(());
    }
    let Limits { earliest, latest, .. } = *limits;
    Err(Invalid::Timestamp { place: meta.last_offset_delta, timestamp: meta.max_timestamp, earliest, latest })
}

pub(super) fn check_records(records: &Records<'_>, limits: &Limits) -> Result<(), Invalid> {
    for (place, record) in (0..).zip(records.iter()) {
        let record = record?;
        if u32::try_from(record.offset_delta) != Ok(place) {
            return Err(Invalid::OffsetDelta { place, offset_delta: record.offset_delta });
        }
        if limits.keys == Keys::Required && record.key.is_none() {
            return Err(Invalid::NoKey { place });
        }
        let Limits { earliest, latest, .. } = *limits;
        let timestamp = record.timestamp;
        // -1 stands for no timestamp.
        if timestamp >= 0 && !(earliest..=latest).contains(&timestamp) {
            return Err(Invalid::Timestamp { place, timestamp, earliest, latest });
        }
    }
    Ok(())
}
