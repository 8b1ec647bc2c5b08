//! Where things are in a segment: the part of reading it that a file and an object share.
//!
//! ```text
//! [block]... [sections][footer]         1. the last bytes        -> footer, most often the index too
//!     ^ located by the index            2. more of them, or the index section, where that was not enough
//! ```
//! Nothing here reads: [`Opening`] says which bytes it wants next, and whoever holds the file or the store brings them.

use std::ops::Range;

use bytes::Bytes;
use varve_common::{Offset, codec::DecodeError};
use varve_formats::{
    PartitionIdentity,
    batch::{BatchHeader, batches},
    limits::SUFFIX_BYTES,
    segment::{BlockIndex, Footer, SectionKind, Suffix, footer_from_suffix},
};

/// Footer and block index of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentMap {
    pub(crate) footer: Footer,
    pub(crate) index: BlockIndex,
}

impl SegmentMap {
    /// About how much memory it takes.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>() + self.index.blocks.len() * size_of::<varve_formats::segment::BlockEntry>()
    }

    /// Whether it is the segment of this partition and range.
    pub(crate) fn check(&self, identity: &PartitionIdentity, base: Offset, end: Offset) -> Result<(), DecodeError> {
        let error = |what| DecodeError { what, position: 0 };
        if !self.footer.identity.same_partition(identity) {
            return Err(error("a segment of another cluster or partition"));
        }
        if (self.footer.base, self.footer.last.next()) != (base, end) {
            return Err(error("a segment of another range"));
        }
        if self.footer.encryption.is_some() {
            return Err(error("the segment is encrypted"));
        }
        Ok(())
    }
}

/// What a step of [`Opening`] came to.
pub(crate) enum Step {
    /// Bring what it [wants](Opening::wants).
    Wants(Opening),
    /// Done.
    Open(SegmentMap),
}

/// A segment that is being opened.
pub(crate) struct Opening {
    length: u64,
    suffix_bytes: u64,
    footer: Option<Footer>,
}

impl Opening {
    /// Begins to open a segment of `length` bytes.
    pub(crate) fn new(length: u64) -> Self {
        Self { length, suffix_bytes: SUFFIX_BYTES.min(length), footer: None }
    }

    /// The bytes to bring.
    pub(crate) fn wants(&self) -> Range<u64> {
        match self.footer.as_ref().and_then(|footer| footer.section(SectionKind::BLOCK_INDEX)) {
            Some(section) => section.range(),
            None => self.length - self.suffix_bytes..self.length,
        }
    }

    /// Takes the bytes that were wanted.
    pub(crate) fn feed(mut self, bytes: &Bytes) -> Result<Step, DecodeError> {
        if let Some(footer) = self.footer {
            let section = footer.require(SectionKind::BLOCK_INDEX)?.decode(bytes.clone())?;
            return Ok(Step::Open(SegmentMap { index: BlockIndex::decode(section, &footer)?, footer }));
        }
        let footer = match footer_from_suffix(bytes, self.length)? {
            Suffix::Footer(footer) => *footer,
            Suffix::More(wanted) if wanted > self.suffix_bytes && wanted <= self.length => {
                self.suffix_bytes = wanted;
                return Ok(Step::Wants(self));
            }
            Suffix::More(_) => return Err(DecodeError { what: "a segment's end is missing", position: 0 }),
        };
        match footer.section_in_suffix(bytes, self.length, SectionKind::BLOCK_INDEX)? {
            Some(section) => Ok(Step::Open(SegmentMap { index: BlockIndex::decode(section, &footer)?, footer })),
            None => {
                self.footer = Some(footer);
                Ok(Step::Wants(self))
            }
        }
    }
}

/// The batches of a decoded block that end behind `from`, one by one, shared.
pub(crate) fn batches_from(raw: &Bytes, from: Offset) -> impl Iterator<Item = Result<(BatchHeader, Bytes), DecodeError>> {
    let mut position = 0;
    batches(raw).filter_map(move |header| match header {
        Err(error) => Some(Err(error)),
        Ok(header) => {
            let start = position;
            position += header.bytes;
            (header.last >= from).then(|| Ok((header, raw.slice(start..position))))
        }
    })
}
