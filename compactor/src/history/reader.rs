//! Records of a history, by `tiering`'s reader of the bucket in memory that is bounded for one reader.

use std::{ops::Range, sync::Arc};

use varve_common::Offset;
use varve_protocol::batch::{BatchHeader, BatchMeta, Batches as WholeBatches, Caps, Record, Records};
use varve_tiering::{
    Batches, ChunkCache, ColdError, ColdOptions, ColdReader, ReadError, ReadLimits, Spawn, TimestampOffset,
    chunks, limits::CHUNK_BYTES,
};

use super::{History, View};

/// Chunks that are held: what is read ahead of one reader, and as much again.
const CHUNKS_BYTES_MAX: usize = 64 << 20;
/// Nodes of manifests and indices of segments that are held.
const INDEX_BYTES_MAX: usize = 32 << 20;
/// How far is read ahead.
const READ_AHEAD_BYTES_MAX: u64 = 32 << 20;
/// Requests that are on their way at a time.
const FILLS_MAX: usize = 8;

const _: () = assert!(READ_AHEAD_BYTES_MAX as usize * 2 <= CHUNKS_BYTES_MAX);
const _: () = assert!(FILLS_MAX as u64 * CHUNK_BYTES <= CHUNKS_BYTES_MAX as u64);

/// Why records of a history cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadRecordsError {
    /// See the reader's error.
    #[error(transparent)]
    Cold(#[from] ColdError),
    /// A block is whole, and a batch in it is not.
    #[error("the batch at {offset}: {cause}")]
    Batch {
        /// Where the batch begins.
        offset: Offset,
        /// What is wrong.
        cause: String,
    },
    /// Nothing holds this offset, though what is before and behind it is there.
    #[error("offset {0} is in no segment")]
    Nowhere(Offset),
}

/// Reads partitions of one history. Clones share the memory.
#[derive(Clone)]
pub struct Reader(ColdReader);

impl Reader {
    /// Reads ahead on `spawn`.
    #[must_use]
    pub fn new(history: &History, spawn: Arc<dyn Spawn>) -> Self {
        let options = chunks::Options { chunk_bytes: CHUNK_BYTES, bytes_max: CHUNKS_BYTES_MAX };
        let chunks = ChunkCache::new(Arc::clone(history.store()), spawn, options);
        chunks.bound_fills(FILLS_MAX);
        let options = ColdOptions {
            index_bytes_max: INDEX_BYTES_MAX,
            read_ahead_bytes_max: READ_AHEAD_BYTES_MAX,
            ..ColdOptions::default()
        };
        Self(ColdReader::new(Arc::clone(history.store()), history.keys().clone(), chunks, options))
    }

    /// Whole batches from the one that holds `from` on, about `bytes_max` of them; `None` at the end.
    pub async fn read(
        &self,
        view: &View,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Option<Batches>, ReadRecordsError> {
        if from >= view.end() {
            return Ok(None);
        }
        let limits = ReadLimits { bytes_max, below: view.end() };
        let read = self.0.read(&view.extent(), from, limits).await?;
        read.filter(|read| read.next > from).map(Some).ok_or(ReadRecordsError::Nowhere(from))
    }

    /// The first record whose timestamp is at least this.
    pub async fn at_time(
        &self,
        view: &View,
        timestamp: i64,
    ) -> Result<Option<TimestampOffset>, ReadRecordsError> {
        self.0.find_offset(&view.extent(), timestamp).await.map_err(|error| match error {
            ReadError::Cold(error) => error.into(),
            ReadError::Records { offset, cause } => ReadRecordsError::Batch { offset, cause },
            other => ReadRecordsError::Batch { offset: view.start(), cause: other.to_string() },
        })
    }
}

/// Shows every batch; its own checksum is held first.
///
/// # Errors
/// A batch is damaged, or `show` says so.
pub fn each_batch<E: From<ReadRecordsError>>(
    batches: &Batches,
    mut show: impl FnMut(&BatchHeader<'_>) -> Result<(), E>,
) -> Result<(), E> {
    for batch in batches.chunks.iter().flat_map(|chunk| WholeBatches::new(chunk)) {
        let batch = batch.map_err(|cause| damaged(batches.next.to_wire(), cause.to_string()))?;
        if !batch.crc_matches() {
            return Err(damaged(batch.meta().base_offset, "its checksum does not match".to_owned()).into());
        }
        show(&batch)?;
    }
    Ok(())
}

/// Shows every record of `batches` within `range`, those of control batches too.
///
/// # Errors
/// As [`each_batch`].
pub fn each_record<E: From<ReadRecordsError>>(
    batches: &Batches,
    range: &Range<Offset>,
    mut show: impl FnMut(&BatchMeta, &Record<'_>) -> Result<(), E>,
) -> Result<(), E> {
    each_batch(batches, |batch| {
        let meta = batch.meta();
        let records = Records::read(batch, Caps::default())
            .map_err(|cause| damaged(meta.base_offset, cause.to_string()))?;
        for record in records.iter() {
            let record = record.map_err(|cause| damaged(meta.base_offset, cause.to_string()))?;
            if record.offset >= range.start.to_wire() && record.offset < range.end.to_wire() {
                show(meta, &record)?;
            }
        }
        Ok(())
    })
}

fn damaged(offset: i64, cause: String) -> ReadRecordsError {
    ReadRecordsError::Batch { offset: Offset::from_wire(offset).unwrap_or_default(), cause }
}
