//! What the log holds: records of groups, and their payload encoding (the fields behind a record's header).

use bytes::Bytes;
use varve_common::{
    Digest, GroupId, LogIndex, Offset, ReplicaId, Term, WalPosition,
    codec::{DecodeError, Decoder, Encoder},
};

use crate::errors::DamageCause;

/// One entry of a group's Raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the group's log.
    pub index: LogIndex,
    /// The term that proposed it.
    pub term: Term,
    /// The Raft entry type; this room only keeps it.
    pub kind: u8,
    /// The partition's log end before this entry: the base offset of an entry that holds records.
    pub offset: Offset,
    /// What was proposed.
    pub data: Bytes,
}

/// A group's term, vote and commit index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term seen.
    pub term: Term,
    /// The replica voted for in that term, 0 for none.
    pub vote: u64,
    /// The highest index known to be committed.
    pub commit: LogIndex,
}

/// A range that lives in a local segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealMark {
    /// First offset.
    pub base: Offset,
    /// End offset, exclusive.
    pub end: Offset,
    /// The first Raft entry in the file.
    pub first_index: LogIndex,
    /// The last Raft entry in the file.
    pub last_index: LogIndex,
    /// The term of the last entry.
    pub last_term: Term,
    /// The file's length.
    pub bytes: u64,
    /// The file's checksum.
    pub sha256: Digest,
}

/// A local checkpoint that was fsynced under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMark {
    /// The last entry that it covers.
    pub index: LogIndex,
    /// The term of that entry.
    pub term: Term,
    /// The checkpoint's file name.
    pub file: String,
    /// The file's checksum.
    pub sha256: Digest,
}

/// One thing to keep for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Consecutive entries. A first index at or below the last one truncates that suffix first.
    Entries(Vec<Entry>),
    /// Replaces the hard state.
    HardState(HardState),
    /// Entries up to this one are committed. Where the log has just this one, and so all before it, it raises the commit index of the
    /// hard state that is there; it leaves term and vote alone, so it may overtake hard states and entries that wait for room.
    Committed {
        /// The entry.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// The log's prefix up to `index` is dead. Where the log has no entry of `term` at `index`, all of it is (a
    /// snapshot from the leader replaced it): nothing that conflicts with a snapshot stays beside it.
    Truncated {
        /// The last dead entry.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// A range was sealed.
    Sealed(SealMark),
    /// A local segment file was removed.
    Unsealed {
        /// First offset.
        base: Offset,
        /// End offset, exclusive.
        end: Offset,
    },
    /// A local checkpoint exists; the newest two marks are kept.
    Snapshot(SnapshotMark),
    /// The replica is gone; the group can come back under a higher replica id only.
    Destroyed,
    /// The replica has lost what it acknowledged, and stops: nothing is taken of it from here on, and a restart knows.
    Damaged {
        /// The first entry that is lost; `None` where the log is whole and a sealed file is not.
        from: Option<LogIndex>,
    },
    /// The operator gave up what [`crate::Damage`] names: the undamaged prefix is the log from here on, and checkpoint
    /// marks above it are gone.
    LossAccepted,
}

/// A record and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// The group.
    pub group: GroupId,
    /// The incarnation of this node's replica of it.
    pub replica: ReplicaId,
    /// What to keep.
    pub record: Record,
}

impl GroupRecord {
    /// About how many bytes this takes in the log.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let payload = match &self.record {
            Record::Entries(entries) => {
                entries.iter().map(|entry| entry.data.len() as u64 + 16).sum::<u64>() + 28
            }
            Record::Snapshot(mark) => 64 + mark.file.len() as u64,
            _ => 96,
        };
        payload + crate::frame::RECORD_HEADER_BYTES as u64
    }
}

/// A record's kind on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Entries = 1,
    HardState = 2,
    Truncated = 3,
    Sealed = 4,
    Unsealed = 5,
    Snapshot = 6,
    Destroyed = 7,
    LossAccepted = 8,
    Damaged = 9,
}

impl Kind {
    pub(crate) fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Entries,
            2 => Self::HardState,
            3 => Self::Truncated,
            4 => Self::Sealed,
            5 => Self::Unsealed,
            6 => Self::Snapshot,
            7 => Self::Destroyed,
            8 => Self::LossAccepted,
            9 => Self::Damaged,
            _ => return None,
        })
    }
}

/// What the index keeps of one entries record: all its entries have one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntriesHead {
    pub term: Term,
    pub first_index: LogIndex,
    pub first_offset: Offset,
    pub count: u32,
}

/// A record as the index applies it: entries as their head only, everything else whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Entries(EntriesHead),
    HardState(HardState),
    Truncated { index: LogIndex, term: Term },
    Sealed(SealMark),
    Unsealed { base: Offset, end: Offset },
    Snapshot(SnapshotMark),
    Destroyed,
    LossAccepted { last_index: LogIndex },
    Damaged(DamageMark),
}

/// What a damage mark keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DamageMark {
    pub position: WalPosition,
    pub last_index: LogIndex,
    pub last_term: Term,
    pub cause: DamageCause,
}

impl Content {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Entries(_) => Kind::Entries,
            Self::HardState(_) => Kind::HardState,
            Self::Truncated { .. } => Kind::Truncated,
            Self::Sealed(_) => Kind::Sealed,
            Self::Unsealed { .. } => Kind::Unsealed,
            Self::Snapshot(_) => Kind::Snapshot,
            Self::Destroyed => Kind::Destroyed,
            Self::LossAccepted { .. } => Kind::LossAccepted,
            Self::Damaged(_) => Kind::Damaged,
        }
    }

    /// Writes the payload; of entries the head only (the entries follow it in a record, never in an index).
    pub(crate) fn encode(&self, out: &mut Encoder) {
        match self {
            Self::Entries(head) => {
                out.term(head.term);
                out.index(head.first_index);
                out.offset(head.first_offset);
                out.u32(head.count);
            }
            Self::HardState(state) => {
                out.term(state.term);
                out.u64(state.vote);
                out.index(state.commit);
            }
            Self::Truncated { index, term } => {
                out.index(*index);
                out.term(*term);
            }
            Self::Sealed(mark) => {
                out.offset(mark.base);
                out.offset(mark.end);
                out.index(mark.first_index);
                out.index(mark.last_index);
                out.term(mark.last_term);
                out.u64(mark.bytes);
                out.digest(mark.sha256);
            }
            Self::Unsealed { base, end } => {
                out.offset(*base);
                out.offset(*end);
            }
            Self::Snapshot(mark) => {
                out.index(mark.index);
                out.term(mark.term);
                out.string(&mark.file);
                out.digest(mark.sha256);
            }
            Self::LossAccepted { last_index } => out.index(*last_index),
            Self::Damaged(mark) => {
                out.u64(mark.position.0);
                out.index(mark.last_index);
                out.term(mark.last_term);
                out.u8(mark.cause as u8);
            }
            Self::Destroyed => {}
        }
    }

    /// Reads a payload. Fields may be added behind the known ones.
    pub(crate) fn decode(kind: Kind, decoder: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(match kind {
            Kind::Entries => Self::Entries(decode_head(decoder)?),
            Kind::HardState => Self::HardState(HardState {
                term: decoder.term()?,
                vote: decoder.u64()?,
                commit: decoder.index()?,
            }),
            Kind::Truncated => Self::Truncated { index: decoder.index()?, term: decoder.term()? },
            Kind::Sealed => Self::Sealed(SealMark {
                base: decoder.offset()?,
                end: decoder.offset()?,
                first_index: decoder.index()?,
                last_index: decoder.index()?,
                last_term: decoder.term()?,
                bytes: decoder.u64()?,
                sha256: decoder.digest()?,
            }),
            Kind::Unsealed => Self::Unsealed { base: decoder.offset()?, end: decoder.offset()? },
            Kind::Snapshot => Self::Snapshot(SnapshotMark {
                index: decoder.index()?,
                term: decoder.term()?,
                file: decoder.string()?,
                sha256: decoder.digest()?,
            }),
            Kind::Destroyed => Self::Destroyed,
            Kind::LossAccepted => Self::LossAccepted { last_index: decoder.index()? },
            Kind::Damaged => Self::Damaged(DamageMark {
                position: WalPosition(decoder.u64()?),
                last_index: decoder.index()?,
                last_term: decoder.term()?,
                cause: DamageCause::from_raw(decoder.u8()?),
            }),
        })
    }
}

fn decode_head(decoder: &mut Decoder) -> Result<EntriesHead, DecodeError> {
    let head = EntriesHead {
        term: decoder.term()?,
        first_index: decoder.index()?,
        first_offset: decoder.offset()?,
        count: decoder.u32()?,
    };
    // Far beyond any real log; keeps arithmetic on hostile bytes from overflowing.
    if head.count == 0 || head.first_index.0 == 0 || head.first_index.0 >> 62 != 0 {
        return Err(decoder.error("entries head out of range"));
    }
    Ok(head)
}

/// What stands before each entry's data: offset, kind, length.
pub(crate) const ENTRY_HEAD_BYTES: usize = 13;

/// What stands before the entry's data, as `Encoder` would write it, without a buffer of its own.
pub(crate) fn encode_entry_head(entry: &Entry) -> [u8; ENTRY_HEAD_BYTES] {
    let length = u32::try_from(entry.data.len()).expect("an entry is far below 4 GiB");
    let mut head = [0; ENTRY_HEAD_BYTES];
    head[..8].copy_from_slice(&entry.offset.0.to_le_bytes());
    head[8] = entry.kind;
    head[9..].copy_from_slice(&length.to_le_bytes());
    head
}

/// Reads the entries behind a head.
pub(crate) fn decode_entries(head: EntriesHead, decoder: &mut Decoder) -> Result<Vec<Entry>, DecodeError> {
    // A claimed count beyond what the heads alone would take allocates nothing.
    if decoder.remaining() / ENTRY_HEAD_BYTES < head.count as usize {
        return Err(decoder.error("fewer entries than counted"));
    }
    let mut entries = Vec::with_capacity(head.count as usize);
    for place in 0..u64::from(head.count) {
        let offset = decoder.offset()?;
        let kind = decoder.u8()?;
        let data = decoder.bytes()?;
        entries.push(Entry { index: head.first_index.plus(place), term: head.term, kind, offset, data });
    }
    Ok(entries)
}
