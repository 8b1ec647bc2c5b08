//! The header of a record batch (v2), at its fixed places.
//!
//! ```text
//!  0 base_offset i64 | 8 length i32 | 12 leader_epoch i32 | 16 magic u8 | 17 crc u32 | 21 attributes i16
//! 23 last_offset_delta i32 | 27 base_timestamp i64 | 35 max_timestamp i64 | 43 producer_id i64
//! 51 producer_epoch i16 | 53 base_sequence i32 | 57 count i32 | 61 records…
//! ```
//! Base offset and leader epoch lie before the CRC's range (21..): the leader writes them without touching it.

use varve_common::{LeaderEpoch, Offset, crc32c};

use crate::api::BatchMeta;

/// The length of a batch's header: no batch is shorter.
pub const BATCH_HEADER_BYTES: usize = 61;

const MAGIC: u8 = 2;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;
const TIMESTAMP_TYPE_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;

/// What the state machine reads of a batch: its place, and what the handler had parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The first record's offset.
    pub base_offset: Offset,
    /// Its writer's term as the wire carries it.
    pub leader_epoch: LeaderEpoch,
    /// The rest.
    pub meta: BatchMeta,
}

fn field<const N: usize>(batch: &[u8], at: usize) -> [u8; N] {
    batch[at..at + N].try_into().expect("the caller checked the length of the header")
}

impl BatchHeader {
    /// Reads the header of exactly one batch; `None` where the bytes are not that.
    #[must_use]
    pub fn parse(batch: &[u8]) -> Option<Self> {
        if batch.len() < BATCH_HEADER_BYTES || batch[16] != MAGIC {
            return None;
        }
        let length = usize::try_from(i32::from_be_bytes(field(batch, 8))).ok()?;
        if length + 12 != batch.len() {
            return None;
        }
        let attributes = i16::from_be_bytes(field(batch, ATTRIBUTES_AT));
        Some(Self {
            base_offset: Offset::from_wire(i64::from_be_bytes(field(batch, 0)))?,
            leader_epoch: LeaderEpoch(i32::from_be_bytes(field(batch, 12))),
            meta: BatchMeta {
                count: u32::try_from(i32::from_be_bytes(field(batch, 57))).ok()?,
                last_offset_delta: u32::try_from(i32::from_be_bytes(field(batch, 23))).ok()?,
                producer_id: i64::from_be_bytes(field(batch, 43)),
                producer_epoch: i16::from_be_bytes(field(batch, 51)),
                base_sequence: i32::from_be_bytes(field(batch, 53)),
                base_timestamp: i64::from_be_bytes(field(batch, 27)),
                max_timestamp: i64::from_be_bytes(field(batch, MAX_TIMESTAMP_AT)),
                is_transactional: attributes & TRANSACTIONAL_BIT != 0,
                is_control: attributes & CONTROL_BIT != 0,
                crc: u32::from_be_bytes(field(batch, CRC_AT)),
                bytes: u32::try_from(batch.len()).ok()?,
            },
        })
    }

    /// The offset behind the last record.
    #[must_use]
    pub const fn end(&self) -> Offset {
        self.base_offset.plus(self.meta.last_offset_delta as u64 + 1)
    }
}

/// Writes the batch's place, which the leader alone knows.
pub fn place(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    batch[0..8].copy_from_slice(&base_offset.to_wire().to_be_bytes());
    batch[12..16].copy_from_slice(&leader_epoch.0.to_be_bytes());
}

/// Makes it a LogAppendTime batch: type bit, largest timestamp and CRC. As in Kafka the records' own timestamps stay;
/// readers take the largest for all of them.
pub fn stamp(batch: &mut [u8], append_time_ms: i64) {
    let attributes = i16::from_be_bytes(field(batch, ATTRIBUTES_AT)) | TIMESTAMP_TYPE_BIT;
    batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
    batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&append_time_ms.to_be_bytes());
    let crc = crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

/// A well-formed batch for tests: `count` records of nothing in particular.
#[cfg(any(test, feature = "test-support"))]
#[must_use]
pub fn sample(producer: (i64, i16, i32), count: u32, payload: &[u8]) -> bytes::Bytes {
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    let length = i32::try_from(BATCH_HEADER_BYTES - 12 + payload.len()).expect("samples are small");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = MAGIC;
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    batch[27..35].copy_from_slice(&1_000_i64.to_be_bytes());
    batch[35..43].copy_from_slice(&(1_000 + i64::from(count)).to_be_bytes());
    batch[43..51].copy_from_slice(&producer.0.to_be_bytes());
    batch[51..53].copy_from_slice(&producer.1.to_be_bytes());
    batch[53..57].copy_from_slice(&producer.2.to_be_bytes());
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    batch.extend_from_slice(payload);
    let crc = crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placing_a_batch_keeps_its_crc() {
        let mut batch = sample((7, 1, 5), 3, b"payload").to_vec();
        let before = BatchHeader::parse(&batch).unwrap();
        place(&mut batch, Offset(41), LeaderEpoch(9));
        let placed = BatchHeader::parse(&batch).unwrap();
        assert_eq!(
            (placed.base_offset, placed.leader_epoch, placed.end()),
            (Offset(41), LeaderEpoch(9), Offset(44))
        );
        assert_eq!(placed.meta, before.meta);
        assert_eq!(placed.meta.crc, crc32c(&batch[ATTRIBUTES_AT..]));
    }

    #[test]
    fn stamping_sets_type_largest_timestamp_and_crc() {
        let mut batch = sample((-1, -1, -1), 2, b"x").to_vec();
        stamp(&mut batch, 123_456);
        let stamped = BatchHeader::parse(&batch).unwrap();
        assert_eq!(stamped.meta.max_timestamp, 123_456);
        assert_eq!(i16::from_be_bytes(field(&batch, ATTRIBUTES_AT)) & TIMESTAMP_TYPE_BIT, TIMESTAMP_TYPE_BIT);
        assert_eq!(stamped.meta.crc, crc32c(&batch[ATTRIBUTES_AT..]));
        assert_eq!(stamped.meta.base_timestamp, 1_000);
    }

    #[test]
    fn what_is_not_one_batch_is_refused() {
        let batch = sample((1, 0, 0), 1, b"abc");
        assert_eq!(BatchHeader::parse(&batch[..40]), None);
        assert_eq!(BatchHeader::parse(&batch[..batch.len() - 1]), None);
        let mut old = batch.to_vec();
        old[16] = 1;
        assert_eq!(BatchHeader::parse(&old), None);
    }
}
