//! The records of a rolled range, for an upload or a seal: read from where they are, held against what the roll
//! promises (invariant B6).
//!
//! What the tail cache still holds comes from there: a busy partition's range is uploaded while it is in memory, and its disk
//! is left to producers. The write-ahead log has the rest. Where it has been cut, or its bytes are damaged, the sealed file
//! of the range goes on from the same offset: all hold the same batches.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use varve_common::{GroupId, LogIndex, Offset, Term, checksum::crc32c_append, codec::DecodeError};
use varve_formats::{
    batch::BatchHeader,
    command::{HEADER_BYTES, Header, Kind},
    manifest::Entry as ManifestEntry,
    segment::decode_block,
    state::RollEntry,
};
use varve_wal::{Entry, Reader};

use crate::{
    limits::SOURCE_READ_BYTES,
    seal::{Damaged, LocalSegment},
    segment::batches_from,
    tail::{ReadLimits, TailCache},
};

/// Why a range cannot be read as its roll promises.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The write-ahead log does not give it, and there is no sealed file. Retry, or another replica.
    #[error(transparent)]
    Wal(#[from] varve_wal::ReadError),
    /// The sealed file does not give it. Another replica.
    #[error(transparent)]
    Sealed(#[from] Damaged),
    /// An entry does not hold what its header says: Corrupt.
    #[error("entry {index}: {cause}")]
    Entry {
        /// Which.
        index: LogIndex,
        /// What is wrong.
        cause: DecodeError,
    },
    /// A batch does not begin where the one before ended: Corrupt.
    #[error("the range goes on at {expected}, the batch begins at {found}")]
    Gap {
        /// Where it should begin.
        expected: Offset,
        /// Where it begins.
        found: Offset,
    },
    /// The entries up to the roll do not reach the range's end: Corrupt.
    #[error("the range ends at {expected}, its records at {found}")]
    End {
        /// Where they should end.
        expected: Offset,
        /// Where they end.
        found: Offset,
    },
    /// The log holds another roll than the one that was promised: Corrupt.
    #[error("the entry at the roll's index is of {found:?}, not of term {expected}")]
    Term {
        /// The roll's.
        expected: Term,
        /// The log's.
        found: Option<Term>,
    },
    /// The records are not those of the roll: Corrupt.
    #[error("the range's {what} is {found}, the roll promises {promised}")]
    Promise {
        /// Which sum.
        what: &'static str,
        /// As the roll says.
        promised: u64,
        /// As the records say.
        found: u64,
    },
}

const CRCS: &str = "digest of batch checksums";

enum Place {
    /// At this entry, or at the one that holds the next offset.
    Wal(Option<LogIndex>),
    Sealed,
}

/// Reads one rolled range from its begin to its end, once.
pub struct RangeSource {
    wal: Reader,
    group: GroupId,
    roll: RollEntry,
    tail: Option<TailCache>,
    sealed: Option<Arc<LocalSegment>>,
    place: Place,
    next: Offset,
    bytes: u64,
    crcs: u32,
    max_timestamp: i64,
    /// Whether the roll promises the digest of the batch checksums; a manifest entry does not know it.
    crcs_promised: bool,
}

impl RangeSource {
    /// Begins at the range's begin.
    #[must_use]
    pub fn new(wal: Reader, group: GroupId, roll: RollEntry) -> Self {
        let (next, place) = (roll.base, Place::Wal(Some(roll.first_index)));
        Self {
            wal,
            group,
            roll,
            tail: None,
            sealed: None,
            place,
            next,
            bytes: 0,
            crcs: 0,
            max_timestamp: -1,
            crcs_promised: true,
        }
    }

    /// Begins at the begin of a range that is in the bucket, and not in the roll table any more: for its repair.
    #[must_use]
    pub fn of_entry(wal: Reader, group: GroupId, entry: &ManifestEntry) -> Self {
        let roll = RollEntry {
            base: entry.base,
            end: entry.end(),
            bytes: entry.batch_bytes,
            max_timestamp: entry.max_timestamp,
            batch_crcs: 0,
            first_index: entry.first_index,
            roll_index: entry.roll_index,
            roll_term: entry.roll_term,
            rolled_ms: 0,
        };
        Self { crcs_promised: false, ..Self::new(wal, group, roll) }
    }

    /// Takes from the cache what is still there.
    #[must_use]
    pub fn with_tail(mut self, tail: TailCache) -> Self {
        self.tail = Some(tail);
        self
    }

    /// Reads a file alone, which may have no mark yet.
    #[must_use]
    pub fn of_file(wal: Reader, group: GroupId, roll: RollEntry, segment: Arc<LocalSegment>) -> Self {
        Self { place: Place::Sealed, ..Self::new(wal, group, roll) }.or_sealed(segment)
    }

    /// Goes on in the sealed file of the range where the write-ahead log cannot.
    #[must_use]
    pub fn or_sealed(mut self, segment: Arc<LocalSegment>) -> Self {
        self.sealed = Some(segment);
        self
    }

    /// What was promised.
    #[must_use]
    pub const fn roll(&self) -> &RollEntry {
        &self.roll
    }

    /// The next batches, whole and without a gap, in memory of their own; `None` at the end, once everything was found
    /// to be as promised. Blocks for as long as the disk does.
    pub fn next_batches(&mut self) -> Result<Option<Bytes>, SourceError> {
        if self.next >= self.roll.end {
            return self.check_promise().map(|()| None);
        }
        if let Some(batches) = self.read_tail()? {
            return Ok(Some(batches));
        }
        if let Place::Wal(index) = self.place {
            match self.entry_at(index).and_then(|index| self.read_wal(index)) {
                Err(SourceError::Wal(_) | SourceError::Term { .. }) if self.sealed.is_some() => {
                    self.place = Place::Sealed;
                }
                read => return read.map(Some),
            }
        }
        self.read_sealed().map(Some)
    }

    /// `None` where the cache has let go of it, or where its bytes are not what they were.
    fn read_tail(&mut self) -> Result<Option<Bytes>, SourceError> {
        let Some(tail) = &self.tail else { return Ok(None) };
        let limits = ReadLimits { bytes_max: SOURCE_READ_BYTES as usize, below: self.roll.end };
        let Some(cached) = tail.read(self.group, self.next, limits) else { return Ok(None) };
        let mut gathered = BytesMut::with_capacity(cached.bytes);
        for batch in cached.chunks.iter().take_while(|batch| BatchHeader::is_intact(batch)) {
            self.accept(self.roll.roll_index, batch)?;
            gathered.extend_from_slice(batch);
        }
        if gathered.is_empty() {
            return Ok(None);
        }
        self.place = match self.place {
            Place::Wal(_) => Place::Wal(None),
            Place::Sealed => Place::Sealed,
        };
        Ok(Some(gathered.freeze()))
    }

    fn entry_at(&self, known: Option<LogIndex>) -> Result<LogIndex, SourceError> {
        let found = match known {
            None => self.wal.find_offset(self.group, self.next)?,
            known => known,
        };
        // Where it was cut, the range's first entry is missing as well.
        Ok(found.unwrap_or(self.roll.first_index))
    }

    fn read_wal(&mut self, from: LogIndex) -> Result<Bytes, SourceError> {
        let (expected, found) = (self.roll.roll_term, self.wal.term(self.group, self.roll.roll_index));
        if found != Some(expected) {
            // What was cut is not read; what was replaced is not what the roll closed.
            self.wal.entries(self.group, from, 1)?;
            return Err(SourceError::Term { expected, found });
        }
        // One batch or more: entries of other kinds between them may fill a whole read.
        let mut index = from;
        let mut gathered = BytesMut::new();
        while gathered.is_empty() {
            let entries = self.wal.entries(self.group, index, SOURCE_READ_BYTES)?;
            let within: Vec<_> =
                entries.into_iter().take_while(|entry| entry.index <= self.roll.roll_index).collect();
            let Some(last) = within.last() else {
                return Err(SourceError::End { expected: self.roll.end, found: self.next });
            };
            index = last.index.next();
            gathered.reserve(within.iter().map(|entry| entry.data.len()).sum());
            for entry in &within {
                if let Some(batch) = records(entry)? {
                    self.accept(entry.index, &batch)?;
                    gathered.extend_from_slice(&batch);
                }
            }
        }
        self.place = Place::Wal(Some(index));
        // A copy, on purpose: a slice would keep what of other groups lies between in the log.
        Ok(gathered.freeze())
    }

    fn read_sealed(&mut self) -> Result<Bytes, SourceError> {
        let (expected, found) = (self.roll.end, self.next);
        let segment = self.sealed.clone().ok_or(SourceError::End { expected, found })?;
        let block = segment.map().index.locate(self.next).ok_or(SourceError::End { expected, found })?;
        let block = segment.map().index.blocks[block];
        let raw =
            decode_block(segment.read(block.range())?, &block).map_err(|cause| segment.damaged(cause))?;
        let mut gathered = BytesMut::new();
        for batch in batches_from(&raw, self.next) {
            let (_, batch) = batch.map_err(|cause| segment.damaged(cause))?;
            self.accept(self.roll.roll_index, &batch)?;
            gathered.extend_from_slice(&batch);
        }
        Ok(gathered.freeze())
    }

    fn accept(&mut self, index: LogIndex, batch: &Bytes) -> Result<(), SourceError> {
        let header = BatchHeader::read(batch).map_err(|cause| SourceError::Entry { index, cause })?;
        if header.bytes != batch.len() {
            let cause = DecodeError { what: "bytes behind a batch", position: header.bytes };
            return Err(SourceError::Entry { index, cause });
        }
        let (expected, found) = (self.next, header.base);
        if expected != found {
            return Err(SourceError::Gap { expected, found });
        }
        let (expected, found) = (self.roll.end, header.last.next());
        if found > expected {
            return Err(SourceError::End { expected, found });
        }
        self.next = found;
        self.bytes += header.bytes as u64;
        self.crcs = crc32c_append(self.crcs, &header.crc.to_le_bytes());
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        Ok(())
    }

    fn check_promise(&self) -> Result<(), SourceError> {
        let pairs = [
            ("bytes", self.roll.bytes, self.bytes),
            (CRCS, u64::from(self.roll.batch_crcs), u64::from(self.crcs)),
            ("largest timestamp", self.roll.max_timestamp as u64, self.max_timestamp as u64),
        ];
        let known = |what: &str| self.crcs_promised || what != CRCS;
        match pairs.into_iter().find(|(what, promised, found)| known(what) && promised != found) {
            Some((what, promised, found)) => Err(SourceError::Promise { what, promised, found }),
            None => Ok(()),
        }
    }
}

/// The batch of a `Records` entry; `None` for any other. Elections and membership changes are not commands.
pub(crate) fn records(entry: &Entry) -> Result<Option<Bytes>, SourceError> {
    if entry.kind != 0 || entry.data.is_empty() {
        return Ok(None);
    }
    let header =
        Header::read(&entry.data).map_err(|cause| SourceError::Entry { index: entry.index, cause })?;
    Ok((header.kind == Kind::Records).then(|| entry.data.slice(HEADER_BYTES..)))
}
