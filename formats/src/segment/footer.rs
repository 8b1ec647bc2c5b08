//! The footer: whose the segment is, what it covers, where its sections are.

use std::ops::Range;

use bytes::Bytes;
use varve_common::{
    Digest, LogIndex, Offset, Term,
    codec::{DecodeError, Decoder, Encoder},
    crc32c,
};

pub use crate::keys::SegmentName;
use crate::{
    compression::Codec,
    identity::PartitionIdentity,
    limits::{FOOTER_BYTES_MAX, SEGMENT_SECTION_BYTES_MAX},
    manifest::{Entry, EntryKind},
    stored::{Stored, decode_list, decode_option, encode_list, encode_option},
};

const MAGIC: [u8; 8] = *b"VARVESEG";
const VERSION: u16 = 1;
const TRAILER_BYTES: usize = 4 + 8;

/// A section's number. Numbers are never reused; a reader skips those that it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SectionKind(pub u16);

impl SectionKind {
    /// `[ProducerEntry]` at the segment's end.
    pub const PRODUCERS: Self = Self(1);
    /// `[AbortedTransaction]` in the range.
    pub const ABORTED_TRANSACTIONS: Self = Self(2);
    /// `[EpochStart]` up to the segment's end.
    pub const LEADER_EPOCHS: Self = Self(3);
    /// The block index.
    pub const BLOCK_INDEX: Self = Self(4);
}

/// Where a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionEntry {
    /// Which.
    pub kind: SectionKind,
    /// Where it begins in the segment.
    pub position: u64,
    /// Its length as it is stored.
    pub stored_bytes: u32,
    /// Its length, expanded.
    pub raw_bytes: u32,
    /// How it is stored.
    pub codec: Codec,
    /// CRC-32C of its stored bytes.
    pub crc: u32,
}

impl SectionEntry {
    /// The section's bytes in the segment.
    #[must_use]
    pub const fn range(&self) -> Range<u64> {
        self.position..self.position.saturating_add(self.stored_bytes as u64)
    }

    /// The section, expanded, from exactly its bytes.
    pub fn decode(&self, stored: Bytes) -> Result<Bytes, DecodeError> {
        let error = |what| DecodeError { what, position: self.position as usize };
        if stored.len() != self.stored_bytes as usize || crc32c(&stored) != self.crc {
            return Err(error("a section's checksum does not match"));
        }
        if self.raw_bytes as usize > SEGMENT_SECTION_BYTES_MAX {
            return Err(error("a section is larger than sections may be"));
        }
        self.codec.expand(stored, self.raw_bytes as usize)
    }
}

impl Stored for SectionEntry {
    const BYTES_MIN: usize = 4 + 2 + 8 + 4 + 4 + 1 + 4;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.u16(self.kind.0);
            frame.u64(self.position);
            frame.u32(self.stored_bytes);
            frame.u32(self.raw_bytes);
            frame.u8(self.codec as u8);
            frame.u32(self.crc);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            Ok(Self {
                kind: SectionKind(frame.u16()?),
                position: frame.u64()?,
                stored_bytes: frame.u32()?,
                raw_bytes: frame.u32()?,
                codec: Codec::from_number(frame.u8()?)
                    .ok_or_else(|| frame.error("unknown codec of a section"))?,
                crc: frame.u32()?,
            })
        })
    }
}

/// How a segment's blocks are encrypted: reserved, no release writes it yet, and none that does not know it reads on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// The algorithm's number.
    pub algorithm: u8,
    /// The key that wraps the segment's own.
    pub key_id: String,
    /// The segment's key, wrapped.
    pub wrapped_key: Bytes,
}

/// The footer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Whose the segment is.
    pub identity: PartitionIdentity,
    /// What kind of segment it is.
    pub kind: EntryKind,
    /// The first offset that it covers.
    pub base: Offset,
    /// The last offset that it covers.
    pub last: Offset,
    /// How many records there are.
    pub count: u64,
    /// Bytes of the batches.
    pub batch_bytes: u64,
    /// Rolling CRC-32C over the batches' CRCs, as in the roll.
    pub batch_crcs: u32,
    /// The smallest first timestamp of a batch, -1 where there is none.
    pub min_timestamp: i64,
    /// The largest record timestamp, -1 where there is none.
    pub max_timestamp: i64,
    /// Raft index of the first entry of the range.
    pub first_index: LogIndex,
    /// Raft index of the roll that closed it.
    pub roll_index: LogIndex,
    /// The term of the roll's entry.
    pub roll_term: Term,
    /// First and last term of the records.
    pub terms: (Term, Term),
    /// Whether no transaction was aborted in the range.
    pub txn_index_empty: bool,
    /// When tombstones in it may go, 0 where none.
    pub delete_horizon_ms: i64,
    /// Where the sections are, in order, end to end.
    pub sections: Vec<SectionEntry>,
    /// How the blocks are encrypted.
    pub encryption: Option<Encryption>,
}

impl Footer {
    /// Where the blocks end and the sections begin.
    #[must_use]
    pub fn blocks_end(&self) -> u64 {
        self.sections.first().map_or(0, |section| section.position)
    }

    /// The table's entry for a section.
    #[must_use]
    pub fn section(&self, kind: SectionKind) -> Option<&SectionEntry> {
        self.sections.iter().find(|section| section.kind == kind)
    }

    /// The table's entry for a section that every segment has.
    pub fn require(&self, kind: SectionKind) -> Result<&SectionEntry, DecodeError> {
        self.section(kind).ok_or(DecodeError { what: "a section is missing", position: 0 })
    }

    /// A section, expanded, from the whole segment.
    pub(super) fn section_of(&self, segment: &Bytes, kind: SectionKind) -> Result<Bytes, DecodeError> {
        let section = self.require(kind)?;
        let range = section.range();
        section.decode(segment.slice(range.start as usize..range.end as usize))
    }

    /// A section, expanded, from the end of a segment of `length` bytes; `None` where `suffix` does not hold it.
    pub fn section_in_suffix(
        &self,
        suffix: &Bytes,
        length: u64,
        kind: SectionKind,
    ) -> Result<Option<Bytes>, DecodeError> {
        let section = self.require(kind)?;
        let (range, start) = (section.range(), length.saturating_sub(suffix.len() as u64));
        if range.start < start || range.end > length {
            return Ok(None);
        }
        let within = (range.start - start) as usize..(range.end - start) as usize;
        section.decode(suffix.slice(within)).map(Some)
    }

    /// The manifest entry of this segment under a key of this name.
    #[must_use]
    pub fn entry(&self, name: SegmentName, store_id: u16, length: u64, sha256: Digest) -> Entry {
        Entry {
            store_id,
            kind: self.kind,
            incarnation: self.identity.incarnation.0,
            term: name.term,
            uid: name.uid,
            position: 0,
            length,
            base: self.base,
            last: self.last,
            count: self.count,
            min_timestamp: self.min_timestamp,
            max_timestamp: self.max_timestamp,
            first_index: self.first_index,
            roll_index: self.roll_index,
            roll_term: self.roll_term,
            terms: self.terms,
            txn_index_empty: self.txn_index_empty,
            delete_horizon_ms: self.delete_horizon_ms,
            batch_bytes: self.batch_bytes,
            sha256,
        }
    }

    /// Footer, its length and the magic number: the segment's last bytes.
    pub(super) fn to_bytes(&self) -> Bytes {
        let mut encoder = Encoder::new();
        encoder.frame(|frame| self.encode_fields(frame));
        let footer = encoder.finish();
        let mut encoder = Encoder::new();
        encoder.raw(&footer);
        encoder.u32(crc32c(&footer));
        encoder.u32(u32::try_from(footer.len() + 4).expect("a footer holds a handful of sections"));
        encoder.raw(&MAGIC);
        encoder.finish()
    }

    fn encode_fields(&self, frame: &mut Encoder) {
        frame.u16(VERSION);
        self.identity.encode(frame);
        frame.u8(self.kind as u8);
        frame.offset(self.base);
        frame.offset(self.last);
        frame.u64(self.count);
        frame.u64(self.batch_bytes);
        frame.u32(self.batch_crcs);
        frame.i64(self.min_timestamp);
        frame.i64(self.max_timestamp);
        frame.index(self.first_index);
        frame.index(self.roll_index);
        frame.term(self.roll_term);
        frame.term(self.terms.0);
        frame.term(self.terms.1);
        frame.bool(self.txn_index_empty);
        frame.i64(self.delete_horizon_ms);
        encode_list(frame, &self.sections);
        encode_option(frame, self.encryption.as_ref(), |frame, encryption| {
            frame.u8(encryption.algorithm);
            frame.string(&encryption.key_id);
            frame.bytes(&encryption.wrapped_key);
        });
    }

    fn decode_fields(frame: &mut Decoder) -> Result<Self, DecodeError> {
        if frame.u16()? != VERSION {
            return Err(frame.error("unknown version of a segment"));
        }
        let identity = PartitionIdentity::decode(frame)?;
        let kind =
            EntryKind::from_number(frame.u8()?).ok_or_else(|| frame.error("unknown kind of segment"))?;
        Ok(Self {
            identity,
            kind,
            base: frame.offset()?,
            last: frame.offset()?,
            count: frame.u64()?,
            batch_bytes: frame.u64()?,
            batch_crcs: frame.u32()?,
            min_timestamp: frame.i64()?,
            max_timestamp: frame.i64()?,
            first_index: frame.index()?,
            roll_index: frame.index()?,
            roll_term: frame.term()?,
            terms: (frame.term()?, frame.term()?),
            txn_index_empty: frame.bool()?,
            delete_horizon_ms: frame.i64()?,
            sections: decode_list(frame)?,
            encryption: decode_option(frame, |frame| {
                let (algorithm, key_id) = (frame.u8()?, frame.string()?);
                Ok(Encryption { algorithm, key_id, wrapped_key: frame.bytes()? })
            })?,
        })
    }

    /// Range and sections make sense; `position` is where the footer begins.
    fn check(&self, position: u64) -> Result<(), &'static str> {
        if self.base > self.last || self.last.0 >= i64::MAX as u64 {
            return Err("a segment ends before it begins or beyond the last offset");
        }
        let mut next = self.blocks_end();
        for section in &self.sections {
            if section.position != next {
                return Err("sections do not lie end to end");
            }
            next = section.range().end;
        }
        if next != position {
            return Err("sections do not end where the footer begins");
        }
        Ok(())
    }
}

/// What the end of a segment gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suffix {
    /// The footer is longer than what was read: this many bytes of the end are needed.
    More(u64),
    /// The footer.
    Footer(Box<Footer>),
}

/// Reads the footer from the last bytes of a segment that is `length` bytes long.
pub fn footer_from_suffix(suffix: &Bytes, length: u64) -> Result<Suffix, DecodeError> {
    let error = |what| DecodeError { what, position: length as usize };
    let held = suffix.len();
    if held as u64 > length || length < TRAILER_BYTES as u64 {
        return Err(error("too short for a segment"));
    }
    if held < TRAILER_BYTES {
        return Ok(Suffix::More(TRAILER_BYTES as u64));
    }
    if !suffix.ends_with(&MAGIC) {
        return Err(error("not a segment"));
    }
    let mut trailer = Decoder::new(suffix.slice(held - TRAILER_BYTES..));
    let footer_bytes = trailer.u32()? as usize;
    if !(8..=FOOTER_BYTES_MAX).contains(&footer_bytes) || (footer_bytes + TRAILER_BYTES) as u64 > length {
        return Err(error("a footer's length is out of range"));
    }
    if footer_bytes + TRAILER_BYTES > held {
        return Ok(Suffix::More((footer_bytes + TRAILER_BYTES) as u64));
    }
    let end = held - TRAILER_BYTES;
    let (body, crc) = (suffix.slice(end - footer_bytes..end - 4), &suffix[end - 4..end]);
    if crc32c(&body).to_le_bytes() != crc {
        return Err(error("a footer's checksum does not match"));
    }
    let mut decoder = Decoder::new(body);
    let footer = decoder.frame(Footer::decode_fields)?;
    decoder.finish()?;
    footer.check(length - (footer_bytes + TRAILER_BYTES) as u64).map_err(error)?;
    Ok(Suffix::Footer(Box::new(footer)))
}
