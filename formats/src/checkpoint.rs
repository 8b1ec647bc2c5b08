//! A checkpoint: the state of a group, in the bucket or on this node (TIERING.md 5).
//!
//! ```text
//! magic 8 | version u16 | header frame | section… | section count u32 | sha256 32 | end magic 8
//! section = id u16 | codec u8 | flags u8 | raw_len u32 | stored_len u32 | crc32c u32 | stored bytes
//! ```
//! A section's CRC covers its own header and its stored bytes; the SHA-256 covers everything above it. A checkpoint is
//! verified whole, every section expanded, before a reader gets anything of it: there is no half of a checkpoint, and
//! a damaged one is an error and never an empty state (S4).

use std::collections::BTreeMap;

use bytes::Bytes;
use varve_common::{
    Digest, GroupId, LogIndex, Offset, Term,
    checksum::crc32c_append,
    codec::{DecodeError, Decoder, Encoder},
    crc32c,
};

use crate::{
    compression::Codec,
    identity::PartitionIdentity,
    limits::{CHECKPOINT_BYTES_MAX, CHECKPOINT_SECTION_BYTES_MAX, CHECKPOINT_SECTIONS_MAX},
    state::ConfState,
    stored::Stored,
};

mod partition;
mod peek;
#[cfg(test)]
mod tests;

pub use partition::PartitionCheckpoint;
pub use peek::PEEK_BYTES;

const MAGIC: [u8; 8] = *b"VARVECKP";
const END_MAGIC: [u8; 8] = *b"PKCEVRAV";
const VERSION: u16 = 1;
const SECTION_HEADER_BYTES: usize = 16;
const FOOTER_BYTES: usize = 4 + 32 + 8;

/// What kind of group a checkpoint is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CheckpointKind {
    /// A partition: S is a roll, A the applied index at capture.
    Partition = 1,
    /// A partition that also holds coordinator state: S = A.
    Coordinator = 2,
    /// The metadata group: S = A.
    Metadata = 3,
}

impl CheckpointKind {
    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Partition),
            2 => Some(Self::Coordinator),
            3 => Some(Self::Metadata),
            _ => None,
        }
    }
}

/// S: what record class is as of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatePoint {
    /// The last index that is in the state.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The log end there.
    pub offset: Offset,
}

/// A: what bucket class is as of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppliedPoint {
    /// The last index that is in the state.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
}

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointHeader {
    /// Of what.
    pub kind: CheckpointKind,
    /// The Raft group.
    pub group: GroupId,
    /// Cluster, incarnation, topic, partition (all zero for the metadata group).
    pub identity: PartitionIdentity,
    /// S.
    pub state: StatePoint,
    /// A.
    pub applied: AppliedPoint,
    /// The membership as of S: changes in (S, A] are replayed.
    pub conf_state: ConfState,
    /// The manifest's sequence as of A.
    pub manifest_seq: u64,
    /// The feature level that a reader must know.
    pub feature_level: u16,
    /// Wall-clock time of the last command in it.
    pub append_time_ms: i64,
    /// Whether records below S are only on nodes: a restore reports them as missing, never as an empty partition.
    pub records_local: bool,
}

impl Stored for CheckpointHeader {
    const BYTES_MIN: usize = 4 + 1;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.u8(self.kind as u8);
            frame.u64(self.group.0);
            self.identity.encode(frame);
            frame.index(self.state.index);
            frame.term(self.state.term);
            frame.offset(self.state.offset);
            frame.index(self.applied.index);
            frame.term(self.applied.term);
            self.conf_state.encode(frame);
            frame.u64(self.manifest_seq);
            frame.u16(self.feature_level);
            frame.i64(self.append_time_ms);
            frame.bool(self.records_local);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            let kind = CheckpointKind::from_number(frame.u8()?)
                .ok_or_else(|| frame.error("unknown kind of checkpoint"))?;
            let header = Self {
                kind,
                group: GroupId(frame.u64()?),
                identity: PartitionIdentity::decode(frame)?,
                state: StatePoint { index: frame.index()?, term: frame.term()?, offset: frame.offset()? },
                applied: AppliedPoint { index: frame.index()?, term: frame.term()? },
                conf_state: ConfState::decode(frame)?,
                manifest_seq: frame.u64()?,
                feature_level: frame.u16()?,
                append_time_ms: frame.i64()?,
                records_local: frame.bool()?,
            };
            if header.state.index > header.applied.index {
                return Err(frame.error("S lies behind A"));
            }
            Ok(header)
        })
    }
}

/// A section's number. Numbers are never reused; a reader skips those that it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SectionId(pub u16);

macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident = $number:literal $text:literal;)*) => {
        impl SectionId {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// What it holds, for people; `None` for a section of a later release.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($number => Some($text),)* _ => None }
            }
        }
    };
}

sections! {
    /// `manifest::Root`, as of A.
    MANIFEST_ROOT = 1 "manifest root";
    /// `[ProducerEntry]`, as of S.
    PRODUCERS = 2 "producers";
    /// `[OpenTransaction]`, as of S.
    OPEN_TRANSACTIONS = 3 "open transactions";
    /// `[AbortedTransaction]` above the tiered end, as of S.
    ABORTED_TRANSACTIONS = 4 "aborted transactions";
    /// `[EpochStart]`, as of S.
    LEADER_EPOCHS = 5 "leader epochs";
    /// `BucketState`, as of A.
    BUCKET_STATE = 6 "log start and bucket state";
    /// `[Intent]`, as of A.
    INTENTS = 7 "intents";
    /// `[Tombstone]`, as of A.
    TOMBSTONES = 8 "tombstones";
    /// `[RollEntry]`: ranges that are closed and neither tiered nor trimmed.
    ROLLS = 9 "roll table";
    /// `[SealEntry]`: this node's segment files (local checkpoints only).
    SEALS = 10 "seal catalogue";
    /// `[FrozenRoll]`: candidates for S (local checkpoints only).
    FROZEN_ROLLS = 11 "frozen rolls";
    /// The metadata group's state, as `replica` encodes it.
    METADATA_IMAGE = 12 "metadata image";
    /// `[PublishedCheckpoint]`, newest last, as of A.
    PUBLISHED = 13 "published checkpoints";
    /// The state of a coordinator, as `replica` encodes it.
    COORDINATOR = 14 "coordinator state";
    /// What only a replica of a partition needs, as `replica` encodes it: the open range, the tiered end, A.
    POSITION = 15 "place in the log";
    /// `ArchiveState`, as of A: only where files for other systems were ever made.
    ARCHIVE = 16 "archive cursor";
}

/// A checkpoint in memory: its header and its sections, expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// What it says of itself.
    pub header: CheckpointHeader,
    /// Sections by number, unknown ones too.
    pub sections: BTreeMap<SectionId, Bytes>,
}

impl Checkpoint {
    /// A checkpoint without sections.
    #[must_use]
    pub const fn new(header: CheckpointHeader) -> Self {
        Self { header, sections: BTreeMap::new() }
    }

    /// Adds a section.
    pub fn put(&mut self, id: SectionId, value: &impl Stored) {
        self.sections.insert(id, value.to_bytes());
    }

    /// Reads a section; `None` where it is not there.
    pub fn get<T: Stored>(&self, id: SectionId) -> Result<Option<T>, DecodeError> {
        self.sections.get(&id).map(|bytes| T::from_bytes(bytes.clone())).transpose()
    }

    /// Reads a section that must be there: a missing one is damage, never an empty value.
    pub fn require<T: Stored>(&self, id: SectionId) -> Result<T, DecodeError> {
        self.get(id)?.ok_or(DecodeError { what: "a section is missing", position: 0 })
    }

    /// The stored bytes, each section compressed by `codec` where that makes it smaller.
    #[must_use]
    pub fn encode(&self, codec: Codec) -> Bytes {
        let mut encoder = Encoder::new();
        encoder.raw(&MAGIC);
        encoder.u16(VERSION);
        self.header.encode(&mut encoder);
        for (id, raw) in &self.sections {
            encode_section(&mut encoder, *id, raw, codec);
        }
        encoder.u32(u32::try_from(self.sections.len()).expect("sections are numbered by 16 bits"));
        let above = encoder.finish();
        let mut encoder = Encoder::new();
        encoder.raw(&above);
        encoder.digest(Digest::of(&above));
        encoder.raw(&END_MAGIC);
        encoder.finish()
    }

    /// Verifies all of `bytes`, then gives what they hold.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        read(bytes).map(|(checkpoint, _)| checkpoint)
    }

    /// Verifies all of `bytes`, then lists the sections too.
    pub fn inspect(bytes: &Bytes) -> Result<(Self, Vec<SectionSummary>), DecodeError> {
        read(bytes)
    }
}

/// How a section is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionSummary {
    /// Which.
    pub id: SectionId,
    /// Its codec.
    pub codec: Codec,
    /// Its length, expanded.
    pub raw_bytes: u64,
    /// Its length as it is stored.
    pub stored_bytes: u64,
}

fn encode_section(encoder: &mut Encoder, id: SectionId, raw: &Bytes, codec: Codec) {
    const FITS: &str = "a checkpoint is state, never records: far below 4 GiB";
    let compressed = codec.compress(raw);
    let (codec, stored) =
        if compressed.len() < raw.len() { (codec, compressed) } else { (Codec::None, raw.clone()) };
    let mut header = Encoder::new();
    header.u16(id.0);
    header.u8(codec as u8);
    header.u8(0);
    header.u32(u32::try_from(raw.len()).expect(FITS));
    header.u32(u32::try_from(stored.len()).expect(FITS));
    let header = header.finish();
    encoder.raw(&header);
    encoder.u32(crc32c_append(crc32c(&header), &stored));
    encoder.raw(&stored);
}

fn read(bytes: &Bytes) -> Result<(Checkpoint, Vec<SectionSummary>), DecodeError> {
    let error = |what, position| DecodeError { what, position };
    let above_end =
        bytes.len().checked_sub(FOOTER_BYTES - 4).ok_or_else(|| error("bytes missing", bytes.len()))?;
    if !bytes.starts_with(&MAGIC) {
        return Err(error("not a checkpoint", 0));
    }
    if !bytes.ends_with(&END_MAGIC) {
        return Err(error("the end is missing", bytes.len()));
    }
    if Digest::of(&bytes[..above_end]).0 != bytes[above_end..above_end + 32] {
        return Err(error("the sha-256 does not match", above_end));
    }
    let mut decoder = Decoder::new(bytes.slice(..above_end));
    decoder.raw(MAGIC.len())?;
    if decoder.u16()? != VERSION {
        return Err(decoder.error("unknown version of a checkpoint"));
    }
    let mut checkpoint = Checkpoint::new(CheckpointHeader::decode(&mut decoder)?);
    let mut summaries = Vec::new();
    let mut raw_bytes = 0;
    while decoder.remaining() > 4 {
        let (summary, raw) = read_section(&mut decoder)?;
        raw_bytes += raw.len();
        if raw_bytes > CHECKPOINT_BYTES_MAX {
            return Err(decoder.error("a checkpoint is larger than checkpoints may be"));
        }
        if checkpoint.sections.insert(summary.id, raw).is_some() {
            return Err(decoder.error("a section is there twice"));
        }
        summaries.push(summary);
    }
    let count = decoder.u32()?;
    if count as usize != summaries.len() || count > CHECKPOINT_SECTIONS_MAX {
        return Err(decoder.error("the number of sections does not match"));
    }
    decoder.finish()?;
    Ok((checkpoint, summaries))
}

fn read_section(decoder: &mut Decoder) -> Result<(SectionSummary, Bytes), DecodeError> {
    let header = decoder.raw(SECTION_HEADER_BYTES - 4)?;
    let crc = decoder.u32()?;
    let mut fields = Decoder::new(header.clone());
    let id = SectionId(fields.u16()?);
    let codec = fields.u8()?;
    if fields.u8()? != 0 {
        return Err(decoder.error("unknown flags of a section"));
    }
    let (raw_bytes, stored_bytes) = (fields.u32()? as usize, fields.u32()? as usize);
    let stored = decoder.raw(stored_bytes)?;
    if crc32c_append(crc32c(&header), &stored) != crc {
        return Err(decoder.error("a section's checksum does not match"));
    }
    let codec = Codec::from_number(codec).ok_or_else(|| decoder.error("unknown codec of a section"))?;
    if raw_bytes > CHECKPOINT_SECTION_BYTES_MAX {
        return Err(decoder.error("a section is larger than sections may be"));
    }
    let raw = codec.expand(stored, raw_bytes)?;
    let (raw_bytes, stored_bytes) = (raw_bytes as u64, stored_bytes as u64);
    Ok((SectionSummary { id, codec, raw_bytes, stored_bytes }, raw))
}
