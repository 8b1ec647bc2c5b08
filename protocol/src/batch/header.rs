//! The 61 bytes before the records.

use thiserror::Error;
use varve_common::{LeaderEpoch, Offset, crc32c};

use super::compression::Codec;

/// Bytes before the records.
pub const HEADER_BYTES: usize = 61;
/// Bytes before what the length field counts.
pub const LENGTH_OVERHEAD: usize = 12;

const LENGTH_AT: usize = 8;
const EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;

const TIMESTAMP_TYPE_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;
const DELETE_HORIZON_BIT: i16 = 1 << 6;

/// Whose clock the timestamps are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The leader's: the max timestamp holds for every record.
    LogAppendTime,
}

/// Bytes that do not begin with a batch of magic 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Fewer bytes than a header, or than the length field says.
    #[error("batch of {claimed} bytes in {available}")]
    Truncated {
        /// What the length field says, or the size of a header.
        claimed: usize,
        /// What is there.
        available: usize,
    },
    /// The length field is too small for a header.
    #[error("batch length {length}")]
    Length {
        /// As stored.
        length: i32,
    },
    /// Magic 0 and 1 are the old message format; above 2 is unknown.
    #[error("batch of magic {magic}")]
    Magic {
        /// As stored.
        magic: i8,
    },
    /// Codec 5 to 7.
    #[error("unknown codec {codec}")]
    Codec {
        /// As stored.
        codec: u8,
    },
    /// A negative last offset delta or count.
    #[error("count {count} with last offset delta {last_offset_delta}")]
    Count {
        /// As stored.
        count: i32,
        /// As stored.
        last_offset_delta: i32,
    },
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMeta {
    /// The first record's offset. Producers may send any (some do not send 0): the leader patches it.
    pub base_offset: i64,
    /// The leader epoch as stored.
    pub leader_epoch: i32,
    /// How many records; fewer than the offsets once compacted.
    pub count: u32,
    /// The last record's offset less the first's: `count - 1` in what producers send.
    pub last_offset_delta: u32,
    /// How the records are compressed.
    pub codec: Codec,
    /// Whose clock.
    pub timestamp_type: TimestampType,
    /// Part of a transaction.
    pub is_transactional: bool,
    /// Holds a transaction marker.
    pub is_control: bool,
    /// The base timestamp is a delete horizon (KIP-534).
    pub has_delete_horizon: bool,
    /// The first record's timestamp.
    pub base_timestamp: i64,
    /// The largest timestamp, -1 where there is none.
    pub max_timestamp: i64,
    /// -1 without idempotence.
    pub producer_id: i64,
    /// -1 without idempotence.
    pub producer_epoch: i16,
    /// -1 without idempotence.
    pub base_sequence: i32,
    /// CRC-32C as stored.
    pub crc: u32,
    /// The whole batch in bytes.
    pub bytes: u32,
}

impl BatchMeta {
    /// The last record's offset, where the base offset has been assigned.
    #[must_use]
    pub const fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(self.last_offset_delta as i64)
    }

    /// The offset behind the batch.
    #[must_use]
    pub const fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// The last record's sequence, which wraps from `i32::MAX` to 0; -1 without idempotence.
    #[must_use]
    pub const fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        let last = self.base_sequence as u64 + self.last_offset_delta as u64;
        (last % (1 << 31)) as i32
    }
}

/// A whole batch in place: its header parsed, its bytes at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader<'a> {
    meta: BatchMeta,
    batch: &'a [u8],
}

impl<'a> BatchHeader<'a> {
    /// Reads the batch that `bytes` begin with. The CRC is not looked at: see [`BatchHeader::crc_matches`].
    ///
    /// # Errors
    /// No whole batch of magic 2 stands there.
    pub fn read(bytes: &'a [u8]) -> Result<Self, HeaderError> {
        let available = bytes.len();
        if available > MAGIC_AT && bytes[MAGIC_AT] != 2 {
            return Err(HeaderError::Magic { magic: bytes[MAGIC_AT] as i8 });
        }
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::Truncated { claimed: HEADER_BYTES, available });
        };
        let length = i32_at(header, LENGTH_AT);
        let whole = usize::try_from(length).ok().and_then(|length| length.checked_add(LENGTH_OVERHEAD));
        let Some(claimed) = whole.filter(|whole| *whole >= HEADER_BYTES) else {
            return Err(HeaderError::Length { length });
        };
        if claimed > available {
            return Err(HeaderError::Truncated { claimed, available });
        }
        Ok(Self { meta: read_meta(header, claimed as u32)?, batch: &bytes[..claimed] })
    }

    /// What the header says.
    #[must_use]
    pub const fn meta(&self) -> &BatchMeta {
        &self.meta
    }

    /// The whole batch.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.batch
    }

    /// The records, compressed or not.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.batch[HEADER_BYTES..]
    }

    /// Whether the stored CRC-32C is that of the bytes from the attributes to the end.
    #[must_use]
    pub fn crc_matches(&self) -> bool {
        crc32c(&self.batch[ATTRIBUTES_AT..]) == self.meta.crc
    }
}

fn read_meta(header: &[u8; HEADER_BYTES], bytes: u32) -> Result<BatchMeta, HeaderError> {
    let attributes = i16_at(header, ATTRIBUTES_AT);
    let (last_offset_delta, count) = (i32_at(header, 23), i32_at(header, 57));
    let (Ok(delta), Ok(records)) = (u32::try_from(last_offset_delta), u32::try_from(count)) else {
        return Err(HeaderError::Count { count, last_offset_delta });
    };
    let codec = (attributes & 7) as u8;
    Ok(BatchMeta {
        base_offset: i64_at(header, 0),
        leader_epoch: i32_at(header, EPOCH_AT),
        count: records,
        last_offset_delta: delta,
        codec: Codec::from_number(codec).ok_or(HeaderError::Codec { codec })?,
        timestamp_type: if attributes & TIMESTAMP_TYPE_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        },
        is_transactional: attributes & TRANSACTIONAL_BIT != 0,
        is_control: attributes & CONTROL_BIT != 0,
        has_delete_horizon: attributes & DELETE_HORIZON_BIT != 0,
        base_timestamp: i64_at(header, 27),
        max_timestamp: i64_at(header, MAX_TIMESTAMP_AT),
        producer_id: i64_at(header, 43),
        producer_epoch: i16_at(header, 51),
        base_sequence: i32_at(header, 53),
        crc: i32_at(header, CRC_AT) as u32,
        bytes,
    })
}

/// Assigns offset and leader epoch. Both lie outside the CRC: the producer's CRC stays valid to the archive.
///
/// # Panics
/// `batch` is shorter than a header: callers patch batches that were validated.
pub fn patch(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    assert!(batch.len() >= HEADER_BYTES, "only validated batches are patched");
    batch[..LENGTH_AT].copy_from_slice(&base_offset.to_wire().to_be_bytes());
    batch[EPOCH_AT..MAGIC_AT].copy_from_slice(&leader_epoch.0.to_be_bytes());
}

/// Makes a batch one of LogAppendTime: sets the type bit and the largest timestamp, which then holds for every
/// record, and computes the CRC anew. Returns the new CRC.
///
/// # Panics
/// `batch` is shorter than a header: callers rewrite batches that were validated.
pub fn rewrite_append_time(batch: &mut [u8], append_time_ms: i64) -> u32 {
    assert!(batch.len() >= HEADER_BYTES, "only validated batches are rewritten");
    let attributes = i16_at(batch, ATTRIBUTES_AT) | TIMESTAMP_TYPE_BIT;
    batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
    batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&append_time_ms.to_be_bytes());
    seal(batch)
}

/// Stores the CRC of a batch that is otherwise complete.
pub(super) fn seal(batch: &mut [u8]) -> u32 {
    let crc = crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
    crc
}

/// The fields of a header that a builder chooses.
pub(super) fn write_header(out: &mut Vec<u8>, meta: &BatchMeta) {
    let mut attributes = i16::from(meta.codec.number());
    let flags = [
        (meta.timestamp_type == TimestampType::LogAppendTime, TIMESTAMP_TYPE_BIT),
        (meta.is_transactional, TRANSACTIONAL_BIT),
        (meta.is_control, CONTROL_BIT),
        (meta.has_delete_horizon, DELETE_HORIZON_BIT),
    ];
    for (_, bit) in flags.iter().filter(|(set, _)| *set) {
        attributes |= bit;
    }
    out.extend(meta.base_offset.to_be_bytes());
    out.extend((meta.bytes as i32 - LENGTH_OVERHEAD as i32).to_be_bytes());
    out.extend(meta.leader_epoch.to_be_bytes());
    out.push(2);
    out.extend(meta.crc.to_be_bytes());
    out.extend(attributes.to_be_bytes());
    out.extend((meta.last_offset_delta as i32).to_be_bytes());
    out.extend(meta.base_timestamp.to_be_bytes());
    out.extend(meta.max_timestamp.to_be_bytes());
    out.extend(meta.producer_id.to_be_bytes());
    out.extend(meta.producer_epoch.to_be_bytes());
    out.extend(meta.base_sequence.to_be_bytes());
    out.extend((meta.count as i32).to_be_bytes());
}

/// A batch like `batch`, with its records compressed by `codec` as `payload`.
pub(super) fn write_payload(batch: &BatchHeader<'_>, codec: Codec, payload: &[u8]) -> Vec<u8> {
    let bytes = HEADER_BYTES + payload.len();
    let size = u32::try_from(bytes).expect("records are decompressed below a cap of some MiB");
    let mut out = Vec::with_capacity(bytes);
    write_header(&mut out, &BatchMeta { codec, bytes: size, ..*batch.meta() });
    out.extend_from_slice(payload);
    seal(&mut out);
    out
}

/// The batches of a buffer, one after the other. Ends after the first error: what stands behind it has no place.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// Over `bytes`, which begin with a batch.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchHeader<'a>, HeaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = BatchHeader::read(self.rest);
        self.rest = match &batch {
            Ok(batch) => &self.rest[batch.bytes().len()..],
            Err(_) => &[],
        };
        Some(batch)
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes is an array of N bytes")
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(array_at(bytes, at))
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(array_at(bytes, at))
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(array_at(bytes, at))
}
