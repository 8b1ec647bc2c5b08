//! The gate of the produce path: Kafka's `LogValidator` for magic 2, without decompressing.

use thiserror::Error;

use super::compression::{Caps, Codec};
use super::header::{BatchHeader, BatchMeta, HeaderError};
use super::records::{RecordError, Records};
use super::rejected::{Fault, Rejected};
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
    /// The largest. The header of a compressed batch says it; which records those are is looked for where it is beyond.
    pub latest: i64,
    /// Where transactions are not served yet.
    pub transactions: Transactions,
    /// For what must be decompressed.
    pub caps: Caps,
}

impl Limits {
    /// Whether a compressed batch is decompressed to look at its records: where any could be at fault.
    #[must_use]
    pub fn looks_inside(&self, meta: &BatchMeta) -> bool {
        self.keys == Keys::Required || self.earliest > i64::MIN || meta.max_timestamp > self.latest
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
    /// Records that the topic does not take.
    #[error(transparent)]
    Rejected(#[from] Rejected),
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
            Self::Rejected(rejected) => rejected.error_code(),
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
/// Compressed batches are not decompressed unless the topic needs their keys, bounds their timestamps from below, or their newest is beyond its bound;
/// what their records say is found by readers, as offsets and counts stand in the header. Uncompressed ones are walked, which costs no memory.
///
/// # Errors
/// See [`Invalid`].
pub fn validate(bytes: &[u8], limits: &Limits) -> Result<BatchMeta, Invalid> {
    let batch = check_whole(bytes, limits)?;
    if batch.meta().codec == Codec::None || limits.looks_inside(batch.meta()) {
        let records = Records::read(&batch, limits.caps).map_err(RecordError::from)?;
        check_records(batch.meta(), &records, limits)?;
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
    Ok(())
}

/// Walks all records, so that all that are wrong are told at once.
pub(super) fn check_records(meta: &BatchMeta, records: &Records<'_>, limits: &Limits) -> Result<(), Invalid> {
    let Limits { earliest, latest, .. } = *limits;
    let mut rejected = Rejected::none();
    for (place, record) in (0..).zip(records.iter()) {
        let record = record?;
        let timestamp = record.timestamp;
        if u32::try_from(record.offset_delta) != Ok(place) {
            rejected.push(place, Fault::OffsetDelta { offset_delta: record.offset_delta });
        } else if limits.keys == Keys::Required && record.key.is_none() {
            rejected.push(place, Fault::NoKey);
        } else if timestamp >= 0 && !(earliest..=latest).contains(&timestamp) {
            // -1 stands for no timestamp.
            rejected.push(place, Fault::Timestamp { timestamp, earliest, latest });
        }
    }
    rejected.check()?;
    check_latest(meta, limits)
}

/// What the header says is what readers are shown, whatever the records say.
fn check_latest(meta: &BatchMeta, limits: &Limits) -> Result<(), Invalid> {
    if meta.max_timestamp <= limits.latest {
        return Ok(());
    }
    let Limits { earliest, latest, .. } = *limits;
    let mut rejected = Rejected::none();
    let fault = Fault::Timestamp { timestamp: meta.max_timestamp, earliest, latest };
    rejected.push(meta.last_offset_delta, fault);
    Ok(rejected.check()?)
}
