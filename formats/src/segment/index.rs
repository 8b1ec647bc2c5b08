//! The block index: which bytes hold an offset or a time.

use std::ops::Range;

use bytes::Bytes;
use varve_common::{
    Offset,
    codec::{DecodeError, Decoder, Encoder},
};

use super::{BLOCK_HEADER_BYTES, Footer};
use crate::stored::{Stored, decode_list, encode_list};

/// One block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// Where its header begins in the segment.
    pub position: u64,
    /// Bytes behind its header.
    pub stored_bytes: u32,
    /// Bytes of its batches.
    pub raw_bytes: u32,
    /// The first record's offset.
    pub base: Offset,
    /// The last record's offset.
    pub last: Offset,
    /// The largest timestamp, -1 where there is none.
    pub max_timestamp: i64,
    /// How many records there are.
    pub count: u32,
}

impl BlockEntry {
    /// The block's bytes, header included.
    #[must_use]
    pub const fn range(&self) -> Range<u64> {
        // Positions come from bytes: a sum that overflows gives an empty range, which no block has.
        self.position..self.position.saturating_add(BLOCK_HEADER_BYTES as u64 + self.stored_bytes as u64)
    }
}

impl Stored for BlockEntry {
    const BYTES_MIN: usize = 4 + 8 + 4 + 4 + 8 + 8 + 8 + 4;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.u64(self.position);
            frame.u32(self.stored_bytes);
            frame.u32(self.raw_bytes);
            frame.offset(self.base);
            frame.offset(self.last);
            frame.i64(self.max_timestamp);
            frame.u32(self.count);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            Ok(Self {
                position: frame.u64()?,
                stored_bytes: frame.u32()?,
                raw_bytes: frame.u32()?,
                base: frame.offset()?,
                last: frame.offset()?,
                max_timestamp: frame.i64()?,
                count: frame.u32()?,
            })
        })
    }
}

/// All blocks of a segment, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockIndex {
    /// The blocks.
    pub blocks: Vec<BlockEntry>,
}

impl BlockIndex {
    /// The section's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut encoder = Encoder::new();
        encoder.frame(|frame| encode_list(frame, &self.blocks));
        encoder.finish()
    }

    /// Reads the section, expanded: blocks lie end to end from the segment's first byte to its first section.
    pub fn decode(section: Bytes, footer: &Footer) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(section);
        let blocks: Vec<BlockEntry> = decoder.frame(decode_list)?;
        decoder.finish()?;
        let error = |what| DecodeError { what, position: 0 };
        let (mut position, mut next) = (0, footer.base);
        for block in &blocks {
            if block.position != position {
                return Err(error("blocks do not lie end to end"));
            }
            if block.base < next || block.last < block.base || block.last > footer.last {
                return Err(error("blocks are out of order or outside of the segment"));
            }
            position = block.range().end;
            next = block.last.next();
        }
        if position != footer.blocks_end() {
            return Err(error("blocks do not end where the sections begin"));
        }
        Ok(Self { blocks })
    }

    /// The first block that ends at or behind `offset`; `None` where every record lies before it.
    #[must_use]
    pub fn locate(&self, offset: Offset) -> Option<usize> {
        let place = self.blocks.partition_point(|block| block.last < offset);
        (place < self.blocks.len()).then_some(place)
    }

    /// The first block, among those that end at or behind `from`, with a record whose timestamp is at least
    /// `timestamp`.
    #[must_use]
    pub fn locate_timestamp(&self, timestamp: i64, from: Offset) -> Option<usize> {
        let first = self.locate(from)?;
        let found = self.blocks[first..].iter().position(|block| block.max_timestamp >= timestamp)?;
        Some(first + found)
    }
}
