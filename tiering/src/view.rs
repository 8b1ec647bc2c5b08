//! The log view: where an offset is, from hot to cold, and its batches from there (TIERING.md 1, invariant B7).
//!
//! ```text
//! tail cache -> write-ahead log -> sealed file of this node -> bucket
//!   memory        page cache          disk                      network
//! ```
//! The places overlap and never gap: data leaves one only when it is durable in the next. So a read asks them in that
//! order and takes the first that holds the offset; one that is damaged is passed over where a colder one holds the
//! same range, and what went wrong is told where none does.
//!
//! An extent is one instant. Where the log was cut after that instant the older extent may name no place at all for an
//! offset ([`ReadError::Nowhere`]): the caller takes the newest extent and asks again. Only where that stays so is the
//! range damaged.

use varve_common::{GroupId, Offset, codec::DecodeError};
use varve_formats::batch::BatchHeader;
use varve_wal::Reader;

use crate::{
    cold::{ColdError, ColdReader},
    extent::PartitionExtent,
    seal::{Damaged, LocalSegments},
    segment::batches_from,
    source::{SourceError, records},
    tail::{Batches, ReadLimits, TailCache},
    turns::Consumer,
};

/// Why nothing was read. Clients may retry all of them but `BelowLogStart`.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The caller asked below the first offset that exists.
    #[error("offset {offset} is below the log start {log_start}")]
    BelowLogStart {
        /// What was asked for.
        offset: Offset,
        /// The first offset.
        log_start: Offset,
    },
    /// No place that this extent knows holds the offset: Retry with a newer extent. Where that is the newest, a range
    /// that was promised is held nowhere: damage, KAFKA_STORAGE_ERROR.
    #[error("offset {offset} is in no place that this view knows")]
    Nowhere {
        /// Which.
        offset: Offset,
    },
    /// The write-ahead log does not give it, and no other place holds it.
    #[error(transparent)]
    Wal(#[from] SourceError),
    /// The sealed file is damaged, and the range is not in the bucket.
    #[error(transparent)]
    Local(#[from] Damaged),
    /// The bucket does not give it: Retry, with throttle.
    #[error(transparent)]
    Cold(#[from] ColdError),
    /// The records of a batch cannot be read (only where a search looks into them): Corrupt.
    #[error("records at {offset}: {cause}")]
    Records {
        /// The batch's first offset.
        offset: Offset,
        /// What is wrong.
        cause: String,
    },
}

impl From<varve_wal::ReadError> for ReadError {
    fn from(error: varve_wal::ReadError) -> Self {
        Self::Wal(error.into())
    }
}

/// What the places of this node say of an offset.
pub enum Hot {
    /// They hold it.
    Read(Batches),
    /// They do not, or not any more.
    Elsewhere,
    /// They should hold it and do not give it. The bucket may.
    Failed(ReadError),
}

/// Reads partitions wherever their records are. Clones share everything.
#[derive(Clone)]
pub struct LogView {
    tail: TailCache,
    wal: Reader,
    local: LocalSegments,
    cold: ColdReader,
}

impl LogView {
    /// Reads from these places.
    #[must_use]
    pub fn new(tail: TailCache, wal: Reader, local: LocalSegments, cold: ColdReader) -> Self {
        Self { tail, wal, local, cold }
    }

    /// The same on behalf of a consumer, which takes its turn with others at the bucket.
    #[must_use]
    pub fn of(&self, consumer: Consumer) -> Self {
        Self { cold: self.cold.of(consumer), ..self.clone() }
    }

    /// The newest batches, from memory alone: never blocks. `None` where they are not all there.
    #[must_use]
    pub fn read_tail(&self, group: GroupId, from: Offset, limits: ReadLimits) -> Option<Batches> {
        self.tail.read(group, from, limits)
    }

    /// Reads from this node alone: blocks no longer than its disk does. For hot partitions, which are answered while
    /// cold ones of the same Fetch are still on their way.
    #[must_use]
    pub fn read_hot(&self, extent: &PartitionExtent<'_>, from: Offset, limits: ReadLimits) -> Hot {
        if from >= limits.below {
            return Hot::Read(Batches::none_at(from));
        }
        if from < extent.log_start {
            return Hot::Failed(ReadError::BelowLogStart { offset: from, log_start: extent.log_start });
        }
        if let Some(read) = self.tail.read(extent.group, from, limits) {
            return Hot::Read(read);
        }
        let failed = match self.read_wal(extent.group, from, limits) {
            Ok(Some(read)) => return Hot::Read(read),
            Ok(None) => None,
            Err(error) => Some(ReadError::Wal(error)),
        };
        match self.read_local(extent, from, limits) {
            // Its batches lie in blocks, those of the bucket in chunks of megabytes.
            Ok(Some(read)) => Hot::Read(read.detached()),
            Ok(None) => failed.map_or(Hot::Elsewhere, Hot::Failed),
            Err(damaged) => Hot::Failed(damaged.into()),
        }
    }

    /// Whole batches from the one that holds `from`, wherever it is. `from` lies at or above the log start.
    pub async fn read(
        &self,
        extent: &PartitionExtent<'_>,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<Batches, ReadError> {
        let failed = match self.read_hot(extent, from, limits) {
            Hot::Read(read) => return Ok(read),
            Hot::Failed(error @ ReadError::BelowLogStart { .. }) => return Err(error),
            Hot::Failed(error) => Some(error),
            Hot::Elsewhere => None,
        };
        match self.cold.read(extent, from, limits).await? {
            Some(read) => Ok(read.detached()),
            None => Err(failed.unwrap_or(ReadError::Nowhere { offset: from })),
        }
    }

    /// `None` where the log does not hold the offset (any more).
    fn read_wal(
        &self,
        group: GroupId,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<Option<Batches>, SourceError> {
        let Some(mut index) = self.wal.find_offset(group, from)? else { return Ok(None) };
        let mut read = Batches::none_at(from);
        loop {
            let wanted = limits.bytes_max.saturating_sub(read.bytes).max(1) as u64;
            let entries = match self.wal.entries(group, index, wanted) {
                Ok(entries) => entries,
                // Cut since, or damaged behind what was read: the next read finds out.
                Err(_) if !read.chunks.is_empty() => break,
                Err(varve_wal::ReadError::Missing { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let Some(last) = entries.last() else { break };
            index = last.index.next();
            for entry in &entries {
                let Some(batch) = records(entry)? else { continue };
                let header = BatchHeader::read(&batch)
                    .map_err(|cause| SourceError::Entry { index: entry.index, cause })?;
                if header.last < from {
                    continue;
                }
                if header.base > read.next {
                    // The log begins behind the offset: what holds it was cut between the two calls.
                    return Ok((!read.chunks.is_empty()).then_some(read));
                }
                if !read.take(limits, header.last.next(), &batch) {
                    return Ok(Some(read));
                }
            }
            // What was left over held no further entry, or little more than one: to find that out is a read of its own.
            if read.bytes >= limits.bytes_max / 2 {
                break;
            }
        }
        Ok((!read.chunks.is_empty()).then_some(read))
    }

    /// `None` where no sealed file covers the offset.
    fn read_local(
        &self,
        extent: &PartitionExtent<'_>,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<Option<Batches>, Damaged> {
        let Some(seal) = extent.seal(from) else { return Ok(None) };
        let segment = self.local.open(extent.group, extent.identity, seal)?;
        let index = &segment.map().index;
        let first = index.locate(from).unwrap_or(index.blocks.len());
        let mut read = Batches::none_at(from);
        for block in first..index.blocks.len() {
            if !read.chunks.is_empty() && read.bytes >= limits.bytes_max {
                break;
            }
            let raw = match segment.block(block) {
                Ok(raw) => raw,
                Err(_) if !read.chunks.is_empty() => break,
                Err(damaged) => return Err(damaged),
            };
            for batch in batches_from(&raw, from) {
                let (header, batch) = batch.map_err(|cause| segment.damaged(cause))?;
                if !read.take(limits, header.last.next(), &batch) {
                    return Ok(Some(read));
                }
            }
        }
        if read.chunks.is_empty() {
            return Err(segment.damaged(DecodeError { what: "a segment ends early", position: 0 }));
        }
        Ok(Some(read))
    }

    /// Whether the write-ahead log holds the batch of an offset.
    pub(crate) fn is_in_wal(&self, group: GroupId, offset: Offset) -> bool {
        matches!(self.wal.find_offset(group, offset), Ok(Some(_)))
    }

    pub(crate) const fn local(&self) -> &LocalSegments {
        &self.local
    }

    /// The reader of the bucket.
    #[must_use]
    pub const fn cold(&self) -> &ColdReader {
        &self.cold
    }

    /// The tail cache.
    #[must_use]
    pub const fn tail(&self) -> &TailCache {
        &self.tail
    }
}
