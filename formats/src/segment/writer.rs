//! Writes a segment as a stream: one block is held at a time, and its batches are passed on as they came.

use bytes::Bytes;
use varve_common::{
    Digest, LogIndex, Offset, Term,
    checksum::{DigestBuilder, crc32c_append},
    codec::DecodeError,
    crc32c,
};

use super::{BlockEntry, BlockIndex, Encryption, Footer, SectionEntry, SectionKind, SegmentState, block};
use crate::{
    batch::BatchHeader,
    compression::{BlockCompressor, Codec},
    identity::PartitionIdentity,
    limits::{
        BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, BLOCK_BYTES_SOFT_MAX, BLOCK_BYTES_TARGET, COMPRESSION_PAYS_ONE_IN,
        SEGMENT_SECTION_BYTES_MAX,
    },
    manifest::EntryKind,
    stored::Stored,
};

/// Whether blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockCompression {
    /// Never.
    Never,
    /// Blocks that the producer did not compress, if the first of them shows that it pays.
    WhereItPays,
}

/// What is known of a segment before its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSpec {
    /// Whose it is.
    pub identity: PartitionIdentity,
    /// What kind it is.
    pub kind: EntryKind,
    /// The first offset that it covers.
    pub base: Offset,
    /// The end of what it covers.
    pub end: Offset,
    /// Raft index of the first entry of the range.
    pub first_index: LogIndex,
    /// Raft index of the roll that closed it.
    pub roll_index: LogIndex,
    /// The term of the roll's entry.
    pub roll_term: Term,
    /// When tombstones in it may go, 0 where none.
    pub delete_horizon_ms: i64,
    /// Whether blocks are compressed.
    pub compression: BlockCompression,
}

/// What is known of a segment once it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Its footer.
    pub footer: Footer,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 over all its bytes.
    pub sha256: Digest,
}

/// Why a segment cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The bytes are not whole batches.
    #[error(transparent)]
    Batch(#[from] DecodeError),
    /// A batch does not begin where the one before ended.
    #[error("the segment goes on at {expected}, the batch begins at {found}")]
    OutOfPlace {
        /// Where it should begin.
        expected: Offset,
        /// Where it begins.
        found: Offset,
    },
    /// The records do not reach, or go beyond, the segment's end.
    #[error("the segment ends at {expected}, its records at {found}")]
    End {
        /// Where they should end.
        expected: Offset,
        /// Where they end.
        found: Offset,
    },
    /// A batch or a section is larger than readers allow.
    #[error("{bytes} bytes are more than a reader takes")]
    TooLarge {
        /// How many they are.
        bytes: usize,
    },
}

/// The batches of the block that is being filled.
#[derive(Default)]
struct Pending {
    batches: Vec<Bytes>,
    bytes: usize,
    base: Offset,
    last: Offset,
    count: u64,
    max_timestamp: i64,
    compressed: bool,
}

/// Sums over the whole segment.
struct Totals {
    count: u64,
    batch_bytes: u64,
    batch_crcs: u32,
    min_timestamp: i64,
    max_timestamp: i64,
    terms: Option<(Term, Term)>,
}

/// Whether compression goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compress {
    Never,
    Undecided,
    Always,
}

/// Writes one segment.
pub struct SegmentWriter {
    spec: SegmentSpec,
    pending: Pending,
    compress: Compress,
    compressor: BlockCompressor,
    totals: Totals,
    index: BlockIndex,
    position: u64,
    next: Offset,
    digest: DigestBuilder,
}

impl SegmentWriter {
    /// Begins a segment.
    #[must_use]
    pub fn new(spec: SegmentSpec) -> Self {
        let compress = match spec.compression {
            BlockCompression::Never => Compress::Never,
            BlockCompression::WhereItPays => Compress::Undecided,
        };
        let next = spec.base;
        Self {
            spec,
            pending: Pending::default(),
            compress,
            compressor: BlockCompressor::default(),
            totals: Totals {
                count: 0,
                batch_bytes: 0,
                batch_crcs: 0,
                min_timestamp: -1,
                max_timestamp: -1,
                terms: None,
            },
            index: BlockIndex::default(),
            position: 0,
            next,
            digest: DigestBuilder::default(),
        }
    }

    /// Where the next batch begins: after a read error the caller goes on from here.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        self.next
    }

    /// Rolling CRC-32C over the CRCs of the batches so far: compared with the roll's before the segment is used.
    #[must_use]
    pub const fn batch_crcs(&self) -> u32 {
        self.totals.batch_crcs
    }

    /// Takes whole batches and gives the segment's next bytes, none while a block is being filled.
    pub fn push(&mut self, mut batches: Bytes) -> Result<Vec<Bytes>, WriteError> {
        let mut chunks = Vec::new();
        while !batches.is_empty() {
            let header = BatchHeader::read(&batches)?;
            self.check_place(&header)?;
            if self.closes_before(header.bytes) {
                self.close_block(&mut chunks);
            }
            let batch = batches.split_to(header.bytes);
            self.add(&header, batch);
        }
        Ok(chunks)
    }

    fn check_place(&self, header: &BatchHeader) -> Result<(), WriteError> {
        let (expected, found) = (self.next, header.base);
        let gap_allowed = self.spec.kind == EntryKind::Compacted;
        if found < expected || (found > expected && !gap_allowed) {
            return Err(WriteError::OutOfPlace { expected, found });
        }
        let (expected, found) = (self.spec.end, header.last.next());
        if found > expected {
            return Err(WriteError::End { expected, found });
        }
        if header.bytes > BLOCK_BYTES_MAX {
            return Err(WriteError::TooLarge { bytes: header.bytes });
        }
        Ok(())
    }

    fn closes_before(&self, bytes: usize) -> bool {
        let held = self.pending.bytes;
        let with = held + bytes;
        held > 0 && (with > BLOCK_BYTES_SOFT_MAX || (with > BLOCK_BYTES_TARGET && held >= BLOCK_BYTES_MIN))
    }

    fn add(&mut self, header: &BatchHeader, batch: Bytes) {
        let pending = &mut self.pending;
        if pending.batches.is_empty() {
            pending.base = header.base;
            pending.max_timestamp = -1;
        }
        pending.last = header.last;
        pending.bytes += batch.len();
        pending.count += u64::from(header.count);
        pending.max_timestamp = pending.max_timestamp.max(header.max_timestamp);
        pending.compressed |= header.compressed;
        let totals = &mut self.totals;
        totals.count += u64::from(header.count);
        totals.batch_bytes += batch.len() as u64;
        totals.batch_crcs = crc32c_append(totals.batch_crcs, &header.crc.to_le_bytes());
        totals.max_timestamp = totals.max_timestamp.max(header.max_timestamp);
        if header.base_timestamp >= 0
            && (totals.min_timestamp < 0 || header.base_timestamp < totals.min_timestamp)
        {
            totals.min_timestamp = header.base_timestamp;
        }
        totals.terms = Some((totals.terms.map_or(header.term, |(first, _)| first), header.term));
        pending.batches.push(batch);
        self.next = header.last.next();
    }

    fn close_block(&mut self, chunks: &mut Vec<Bytes>) {
        let pending = std::mem::take(&mut self.pending);
        if pending.batches.is_empty() {
            return;
        }
        let raw_bytes = pending.bytes;
        let (codec, stored) = self.compress_block(pending.batches, raw_bytes, pending.compressed);
        let header = block::header(codec, raw_bytes, &stored);
        let stored_bytes: usize = stored.iter().map(Bytes::len).sum();
        const FITS: &str = "a batch is held against BLOCK_BYTES_MAX";
        self.index.blocks.push(BlockEntry {
            position: self.position,
            stored_bytes: u32::try_from(stored_bytes).expect(FITS),
            raw_bytes: u32::try_from(raw_bytes).expect(FITS),
            base: pending.base,
            last: pending.last,
            max_timestamp: pending.max_timestamp,
            count: u32::try_from(pending.count).unwrap_or(u32::MAX),
        });
        self.emit(header, chunks);
        stored.into_iter().for_each(|bytes| self.emit(bytes, chunks));
    }

    /// The first block that the producer did not compress decides for the whole segment.
    fn compress_block(
        &mut self,
        batches: Vec<Bytes>,
        raw_bytes: usize,
        by_producer: bool,
    ) -> (Codec, Vec<Bytes>) {
        if by_producer || self.compress == Compress::Never {
            return (Codec::None, batches);
        }
        let compressed = self.compressor.compress(&batches);
        if self.compress == Compress::Undecided {
            let pays = compressed.len() + raw_bytes / COMPRESSION_PAYS_ONE_IN <= raw_bytes;
            self.compress = if pays { Compress::Always } else { Compress::Never };
        }
        if self.compress == Compress::Always && compressed.len() < raw_bytes {
            (Codec::Zstd, vec![Bytes::copy_from_slice(compressed)])
        } else {
            (Codec::None, batches)
        }
    }

    fn emit(&mut self, bytes: Bytes, chunks: &mut Vec<Bytes>) {
        self.digest.update(&bytes);
        self.position += bytes.len() as u64;
        chunks.push(bytes);
    }

    /// Ends the segment: gives its last bytes, and what is known of it now.
    pub fn finish(mut self, state: &SegmentState) -> Result<(Vec<Bytes>, SegmentSummary), WriteError> {
        let (expected, found) = (self.spec.end, self.next);
        if found != expected && self.spec.kind != EntryKind::Compacted || expected <= self.spec.base {
            return Err(WriteError::End { expected, found });
        }
        let mut chunks = Vec::new();
        self.close_block(&mut chunks);
        let index = self.index.to_bytes();
        let mut sections = Vec::new();
        for (kind, raw) in [
            (SectionKind::PRODUCERS, state.producers.to_bytes()),
            (SectionKind::ABORTED_TRANSACTIONS, state.aborted.to_bytes()),
            (SectionKind::LEADER_EPOCHS, state.epochs.to_bytes()),
            (SectionKind::BLOCK_INDEX, index),
        ] {
            sections.push(self.write_section(kind, raw, &mut chunks)?);
        }
        let footer = self.footer(sections, state.aborted.is_empty());
        self.emit(footer.to_bytes(), &mut chunks);
        Ok((chunks, SegmentSummary { footer, bytes: self.position, sha256: self.digest.finish() }))
    }

    fn write_section(
        &mut self,
        kind: SectionKind,
        raw: Bytes,
        chunks: &mut Vec<Bytes>,
    ) -> Result<SectionEntry, WriteError> {
        if raw.len() > SEGMENT_SECTION_BYTES_MAX {
            return Err(WriteError::TooLarge { bytes: raw.len() });
        }
        let compressed = match self.spec.compression {
            BlockCompression::Never => raw.clone(),
            BlockCompression::WhereItPays => Codec::Zstd.compress(&raw),
        };
        let raw_bytes = raw.len() as u32;
        let (codec, stored) =
            if compressed.len() < raw.len() { (Codec::Zstd, compressed) } else { (Codec::None, raw) };
        let (position, stored_bytes, crc) = (self.position, stored.len() as u32, crc32c(&stored));
        self.emit(stored, chunks);
        Ok(SectionEntry { kind, position, stored_bytes, raw_bytes, codec, crc })
    }

    fn footer(&self, sections: Vec<SectionEntry>, txn_index_empty: bool) -> Footer {
        let (spec, totals) = (&self.spec, &self.totals);
        Footer {
            identity: spec.identity.clone(),
            kind: spec.kind,
            base: spec.base,
            last: Offset(spec.end.0 - 1),
            count: totals.count,
            batch_bytes: totals.batch_bytes,
            batch_crcs: totals.batch_crcs,
            min_timestamp: totals.min_timestamp,
            max_timestamp: totals.max_timestamp,
            first_index: spec.first_index,
            roll_index: spec.roll_index,
            roll_term: spec.roll_term,
            terms: totals.terms.unwrap_or((spec.roll_term, spec.roll_term)),
            txn_index_empty,
            delete_horizon_ms: spec.delete_horizon_ms,
            sections,
            encryption: None::<Encryption>,
        }
    }
}
