//! The fields of a record batch (v2) that a segment needs: where it is, how long, how it is compressed.
//!
//! `protocol` validates what clients send; here batches are trusted as far as their own arithmetic goes.

use bytes::Buf;
use varve_common::{Offset, Term, codec::DecodeError, crc32c};

/// The length of a batch's header in bytes.
pub const BATCH_HEADER_BYTES: usize = 61;

/// What comes before the part that `batch_length` counts: base offset and the length itself.
const LENGTH_END: usize = 12;
/// Where what the checksum covers begins.
const CRC_END: usize = 21;

/// What a segment needs of a batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The first record's offset.
    pub base: Offset,
    /// The last record's offset.
    pub last: Offset,
    /// The whole batch's length in bytes.
    pub bytes: usize,
    /// The term of the leader that appended it.
    pub term: Term,
    /// The batch's own CRC-32C.
    pub crc: u32,
    /// Whether the producer compressed the records.
    pub compressed: bool,
    /// The first record's timestamp, -1 where there is none.
    pub base_timestamp: i64,
    /// The largest timestamp, -1 where there is none.
    pub max_timestamp: i64,
    /// How many records there are.
    pub count: u32,
}

impl BatchHeader {
    /// Reads the header at the beginning of `bytes`; the whole batch must be there.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let error = |what| DecodeError { what, position: 0 };
        if bytes.len() < BATCH_HEADER_BYTES {
            return Err(error("a batch's header is missing"));
        }
        let mut rest = bytes;
        let base = Offset::from_wire(rest.get_i64()).ok_or_else(|| error("a batch's offset is negative"))?;
        let length = usize::try_from(rest.get_i32()).map_err(|_| error("a batch's length is negative"))?;
        let epoch = rest.get_i32();
        if rest.get_i8() != 2 {
            return Err(error("a batch is not of version 2"));
        }
        let crc = rest.get_u32();
        let attributes = rest.get_i16();
        let delta = u64::try_from(rest.get_i32()).map_err(|_| error("a batch ends before it begins"))?;
        let (base_timestamp, max_timestamp) = (rest.get_i64(), rest.get_i64());
        rest.advance(8 + 2 + 4);
        let count = u32::try_from(rest.get_i32()).map_err(|_| error("a batch's count is negative"))?;
        let whole = LENGTH_END + length;
        if whole < BATCH_HEADER_BYTES || whole > bytes.len() {
            return Err(error("a batch is cut off"));
        }
        let last = base.0.checked_add(delta).filter(|last| *last < i64::MAX as u64);
        Ok(Self {
            base,
            last: Offset(last.ok_or_else(|| error("a batch's last offset overflows"))?),
            bytes: whole,
            term: Term(u64::try_from(epoch).unwrap_or_default()),
            crc,
            compressed: attributes & 0x7 != 0,
            base_timestamp,
            max_timestamp,
            count,
        })
    }

    /// Whether `bytes` are one whole batch with the checksum that its producer gave it.
    #[must_use]
    pub fn is_intact(bytes: &[u8]) -> bool {
        Self::read(bytes)
            .is_ok_and(|header| header.bytes == bytes.len() && crc32c(&bytes[CRC_END..]) == header.crc)
    }
}

/// Walks over whole batches.
pub fn batches(mut bytes: &[u8]) -> impl Iterator<Item = Result<BatchHeader, DecodeError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let header = BatchHeader::read(bytes);
        bytes = header.as_ref().map_or(&[], |header| &bytes[header.bytes..]);
        Some(header)
    })
}

#[cfg(test)]
pub(crate) mod tests_support {
    use bytes::{BufMut, Bytes, BytesMut};
    use varve_common::crc32c;

    /// A batch of `count` records whose body is `body`, which nobody looks at.
    pub(crate) fn batch(base: u64, count: u32, timestamp: i64, codec: i16, body: &[u8]) -> Bytes {
        let mut after_crc = BytesMut::new();
        after_crc.put_i16(codec);
        after_crc.put_i32(count as i32 - 1);
        after_crc.put_i64(timestamp);
        after_crc.put_i64(timestamp);
        after_crc.put_i64(-1);
        after_crc.put_i16(-1);
        after_crc.put_i32(-1);
        after_crc.put_i32(count as i32);
        after_crc.put_slice(body);
        let mut batch = BytesMut::new();
        batch.put_i64(base as i64);
        batch.put_i32(4 + 1 + 4 + after_crc.len() as i32);
        batch.put_i32(7);
        batch.put_i8(2);
        batch.put_u32(crc32c(&after_crc));
        batch.put_slice(&after_crc);
        batch.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::{tests_support::batch, *};

    #[test]
    fn batches_are_walked_one_by_one() {
        let bytes = [batch(5, 3, 20, 0, b"abc"), batch(8, 1, 21, 4, b"")].concat();
        let headers: Vec<_> = batches(&bytes).map(Result::unwrap).collect();
        let seen: Vec<_> =
            headers.iter().map(|header| (header.base.0, header.last.0, header.compressed)).collect();
        assert_eq!(seen, [(5, 7, false), (8, 8, true)]);
        assert_eq!((headers[0].term, headers[0].count, headers[0].max_timestamp), (Term(7), 3, 20));
    }

    #[test]
    fn a_cut_batch_is_an_error_and_ends_the_walk() {
        let bytes = batch(5, 3, 20, 0, b"abc");
        for end in 1..bytes.len() {
            let read: Vec<_> = batches(&bytes[..end]).collect();
            assert!(matches!(read[..], [Err(_)]), "{end}");
        }
    }
}
