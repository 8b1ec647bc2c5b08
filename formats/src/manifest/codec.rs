//! The stored form of manifest entries and references.

use varve_common::{
    Offset,
    codec::{DecodeError, Decoder, Encoder},
};

use super::{Entry, EntryKind, NodeReference, Root};
use crate::stored::{Stored, decode_list, encode_list};

impl EntryKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Raw),
            2 => Some(Self::Merged),
            3 => Some(Self::Compacted),
            4 => Some(Self::Pack),
            _ => None,
        }
    }
}

impl Stored for Entry {
    const BYTES_MIN: usize = 4 + 2 + 1 + 4 + 8 * 14 + 1 + 8 * 2 + 32;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.u16(self.store_id);
            frame.u8(self.kind as u8);
            frame.u32(self.incarnation);
            frame.term(self.term);
            frame.u64(self.uid);
            frame.u64(self.position);
            frame.u64(self.length);
            frame.offset(self.base);
            frame.offset(self.last);
            frame.u64(self.count);
            frame.i64(self.min_timestamp);
            frame.i64(self.max_timestamp);
            frame.index(self.first_index);
            frame.index(self.roll_index);
            frame.term(self.roll_term);
            frame.term(self.terms.0);
            frame.term(self.terms.1);
            frame.bool(self.txn_index_empty);
            frame.i64(self.delete_horizon_ms);
            frame.u64(self.batch_bytes);
            frame.digest(self.sha256);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            let entry = Self {
                store_id: frame.u16()?,
                kind: EntryKind::from_number(frame.u8()?)
                    .ok_or_else(|| frame.error("unknown kind of manifest entry"))?,
                incarnation: frame.u32()?,
                term: frame.term()?,
                uid: frame.u64()?,
                position: frame.u64()?,
                length: frame.u64()?,
                base: frame.offset()?,
                last: frame.offset()?,
                count: frame.u64()?,
                min_timestamp: frame.i64()?,
                max_timestamp: frame.i64()?,
                first_index: frame.index()?,
                roll_index: frame.index()?,
                roll_term: frame.term()?,
                terms: (frame.term()?, frame.term()?),
                txn_index_empty: frame.bool()?,
                delete_horizon_ms: frame.i64()?,
                batch_bytes: frame.u64()?,
                sha256: frame.digest()?,
            };
            checked_range(frame, entry.base, entry.last)?;
            Ok(entry)
        })
    }
}

impl Stored for NodeReference {
    const BYTES_MIN: usize = 4 + 1 + 4 + 8 * 7 + 32;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.u8(self.level);
            frame.u32(self.incarnation);
            frame.u64(self.uid);
            frame.offset(self.base);
            frame.offset(self.last);
            frame.u64(self.entries);
            frame.u64(self.segment_bytes);
            frame.i64(self.max_timestamp);
            frame.u64(self.length);
            frame.digest(self.sha256);
            if let Some(batch_bytes) = self.batch_bytes {
                frame.u64(batch_bytes);
            }
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            let node = Self {
                level: frame.u8()?,
                incarnation: frame.u32()?,
                uid: frame.u64()?,
                base: frame.offset()?,
                last: frame.offset()?,
                entries: frame.u64()?,
                segment_bytes: frame.u64()?,
                max_timestamp: frame.i64()?,
                length: frame.u64()?,
                sha256: frame.digest()?,
                batch_bytes: if frame.is_empty() { None } else { Some(frame.u64()?) },
            };
            checked_range(frame, node.base, node.last)?;
            Ok(node)
        })
    }
}

impl Stored for Root {
    const BYTES_MIN: usize = 4 + 8 + 4 + 4;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.offset(self.start);
            encode_list(frame, &self.nodes);
            encode_list(frame, &self.entries);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            let start = frame.offset()?;
            Ok(Self { start, nodes: decode_list(frame)?, entries: decode_list(frame)? })
        })
    }
}

/// A range holds at least one offset, and its end is an offset too.
fn checked_range(frame: &Decoder, base: Offset, last: Offset) -> Result<(), DecodeError> {
    if base > last || last.0 > i64::MAX as u64 {
        return Err(frame.error("a range ends before it begins or beyond the last offset"));
    }
    Ok(())
}
