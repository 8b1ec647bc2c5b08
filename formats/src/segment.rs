//! A segment: the records of one range, as an object in the bucket or a file on a node (TIERING.md 2).
//!
//! ```text
//! [block]... [producers][aborted txns][epoch lineage][block index][footer][footer_len u32][magic 8]
//! block  = codec u8 | flags u8 | raw_len u32 | stored_len u32 | crc32c u32 | stored bytes
//! footer = frame | crc32c u32                       footer_len counts both
//! ```
//! A block holds whole record batches, byte-identical to what the producer sent but for offset and leader epoch. Its
//! CRC covers its own header and its stored bytes. Sections lie end to end from the last block to the footer, whose
//! table gives kind, position, length, codec and CRC of each; a reader skips kinds that it does not know. The footer
//! says whose the segment is and what it covers, so that a manifest can be rebuilt from segments alone.
//!
//! Reading needs no file and no store: [`footer_from_suffix`] takes the object's end, [`BlockIndex`] says which bytes
//! hold an offset or a time, and [`decode_block`] takes those bytes.

use bytes::Bytes;
use varve_common::codec::DecodeError;

use crate::{
    batch::{BatchHeader, batches},
    limits::{BLOCK_BYTES_MAX, FOOTER_BYTES_MAX},
    state::{AbortedTransaction, EpochStart, ProducerEntry},
    stored::Stored,
};

mod block;
mod footer;
mod home;
mod index;
#[cfg(test)]
mod tests;
mod writer;

pub use block::{BLOCK_HEADER_BYTES, decode_block};
pub use footer::{Encryption, Footer, SectionEntry, SectionKind, SegmentName, Suffix, footer_from_suffix};
pub use home::rehomed;
pub use index::{BlockEntry, BlockIndex};
pub use writer::{BlockCompression, SegmentSpec, SegmentSummary, SegmentWriter, WriteError};

/// What a segment says of the state at its end, beside the records: enough to start a replica there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentState {
    /// Producers, by id.
    pub producers: Vec<ProducerEntry>,
    /// Transactions that were aborted in the range.
    pub aborted: Vec<AbortedTransaction>,
    /// All leader epochs up to the segment's end, oldest first.
    pub epochs: Vec<EpochStart>,
}

/// A segment that was verified whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSegment {
    /// Its footer.
    pub footer: Footer,
    /// Its block index.
    pub index: BlockIndex,
    /// The state at its end.
    pub state: SegmentState,
}

/// Verifies every byte of a segment: for scrub, repair and the file that was just sealed. The SHA-256 is the caller's
/// to compare; everything that this finds, it finds without it.
pub fn verify(segment: &Bytes) -> Result<VerifiedSegment, DecodeError> {
    verify_batches(segment, |_, _| Ok(()))
}

/// As [`verify`], and shows every whole batch to `check`.
pub fn verify_batches(
    segment: &Bytes,
    mut check_batch: impl FnMut(&BatchHeader, &[u8]) -> Result<(), DecodeError>,
) -> Result<VerifiedSegment, DecodeError> {
    let Suffix::Footer(footer) = footer_from_suffix(segment, segment.len() as u64)? else {
        return Err(DecodeError { what: "a segment is cut off", position: segment.len() });
    };
    let index = BlockIndex::decode(footer.section_of(segment, SectionKind::BLOCK_INDEX)?, &footer)?;
    let mut check = RecordCheck::default();
    for block in &index.blocks {
        let raw = decode_block(block_slice(segment, block), block)?;
        check.block(&raw, block, &mut check_batch)?;
    }
    check.finish(&footer)?;
    let state = SegmentState {
        producers: Stored::from_bytes(footer.section_of(segment, SectionKind::PRODUCERS)?)?,
        aborted: Stored::from_bytes(footer.section_of(segment, SectionKind::ABORTED_TRANSACTIONS)?)?,
        epochs: Stored::from_bytes(footer.section_of(segment, SectionKind::LEADER_EPOCHS)?)?,
    };
    // Sections that this release does not know are checked all the same.
    for section in &footer.sections {
        let range = section.range();
        section.decode(segment.slice(range.start as usize..range.end as usize))?;
    }
    Ok(VerifiedSegment { footer: *footer, index, state })
}

fn block_slice(segment: &Bytes, block: &BlockEntry) -> Bytes {
    let range = block.range();
    segment.slice(range.start as usize..range.end as usize)
}

/// Holds batches against what index and footer say of them.
#[derive(Default)]
struct RecordCheck {
    count: u64,
    bytes: u64,
    crcs: u32,
}

impl RecordCheck {
    fn block(
        &mut self,
        raw: &Bytes,
        block: &BlockEntry,
        check_batch: &mut impl FnMut(&BatchHeader, &[u8]) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let error = |what| DecodeError { what, position: block.position as usize };
        let (mut first, mut last, mut count, mut timestamp) = (None, None, 0, -1);
        let mut position = 0;
        for batch in batches(raw) {
            let batch = batch?;
            check_batch(&batch, &raw[position..position + batch.bytes])?;
            position += batch.bytes;
            if last.is_some_and(|last| batch.base <= last) {
                return Err(error("batches are out of order"));
            }
            first.get_or_insert(batch.base);
            last = Some(batch.last);
            count += u64::from(batch.count);
            timestamp = timestamp.max(batch.max_timestamp);
            self.crcs = varve_common::checksum::crc32c_append(self.crcs, &batch.crc.to_le_bytes());
        }
        let said = (Some(block.base), Some(block.last), u64::from(block.count), block.max_timestamp);
        if (first, last, count, timestamp) != said {
            return Err(error("a block does not hold what the index says"));
        }
        self.count += count;
        self.bytes += raw.len() as u64;
        Ok(())
    }

    fn finish(self, footer: &Footer) -> Result<(), DecodeError> {
        if (self.count, self.bytes, self.crcs) != (footer.count, footer.batch_bytes, footer.batch_crcs) {
            return Err(DecodeError { what: "the records are not what the footer says", position: 0 });
        }
        Ok(())
    }
}

const _: () = assert!(FOOTER_BYTES_MAX < BLOCK_BYTES_MAX);
