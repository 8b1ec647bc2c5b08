//! The bytes of a WAL file.
//!
//! ```text
//! 0       4096                                             end           capacity-4096  capacity
//! | header | batch | batch | ... | batch | (zero or old bytes) | index | ... | trailer |
//!
//! batch   magic u32 | version u16 | flags u16 | salt u64 | position u64 | synced_position u64
//!         | length u32 | count u32 | key_id u32 | reserved 16 | crc u32 | record * count
//! record  group u64 | replica u64 | length u32 | kind u8 | version u8 | flags u16
//!         | payload crc u32 | crc u32 | payload, padded to 8 bytes
//! ```
//!
//! Every CRC starts from the file's salt and the item's own position, so that bytes of an earlier generation, of
//! another file or of another place never parse, whatever a producer put into its records. A record's header has a
//! CRC of its own (over group, replica and the payload's CRC): where only the payload rots, the group is still named.

use bytes::Bytes;
use varve_common::{
    GroupId, ReplicaId, WalPosition,
    checksum::crc32c_append,
    codec::{DecodeError, Decoder, Encoder},
};

use crate::{
    limits::{BATCH_BYTES_MAX, BLOCK_BYTES, FILE_BYTES_MAX},
    record::Kind,
};

pub(crate) const RECORD_HEADER_BYTES: usize = 32;
/// No record is this long (marks take 32 to 56 and 88 or more, entries 80 or more): a gap of this size between two
/// records is a batch header and nothing else, so the index can join them.
pub(crate) const BATCH_HEADER_BYTES: usize = 64;
pub(crate) const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"VwB\x01");
const FILE_MAGIC: u64 = u64::from_le_bytes(*b"varvewal");
const TRAILER_MAGIC: u64 = u64::from_le_bytes(*b"varveend");
const VERSION: u16 = 1;
/// The header is there twice, in different sectors: one bad sector does not cost a whole file.
const HEADER_COPIES: [usize; 2] = [0, 2048];

/// The record was copied forward out of the oldest file.
pub(crate) const FLAG_MOVED: u16 = 1;
/// A truncation that empties the log (its term conflicts), rather than cutting a prefix.
pub(crate) const FLAG_RESET: u16 = 2;

/// CRC-32C over salt and position, then the bytes.
pub(crate) fn crc_at(salt: u64, position: WalPosition, bytes: &[u8]) -> u32 {
    let mut seed = [0; 16];
    seed[..8].copy_from_slice(&salt.to_le_bytes());
    seed[8..].copy_from_slice(&position.0.to_le_bytes());
    crc32c_append(crc32c_append(0, &seed), bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The first block of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    /// Files count up and never reuse a number.
    pub sequence: u64,
    /// The position of the file's first byte.
    pub base: WalPosition,
    /// The file's length.
    pub capacity: u64,
    /// New for each use of the file.
    pub salt: u64,
    /// What batches are aligned to: 8, or a block where the file was written with `O_DIRECT`.
    pub alignment: u64,
    /// The file before, 0 for none.
    pub previous_sequence: u64,
    /// Where the file before ends: what lies beyond is dead for ever.
    pub previous_end: WalPosition,
    /// The number of the first file that was made since the log was opened.
    pub session: u64,
}

impl FileHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.u64(FILE_MAGIC);
        out.u16(VERSION);
        for field in [self.sequence, self.base.0, self.capacity, self.salt, self.alignment] {
            out.u64(field);
        }
        out.u64(self.previous_sequence);
        out.u64(self.previous_end.0);
        out.u64(self.session);
        let fields = out.finish();
        let mut block = vec![0; BLOCK_BYTES as usize];
        for at in HEADER_COPIES {
            block[at..at + fields.len()].copy_from_slice(&fields);
            let crc = crc32c_append(0, &fields);
            block[at + fields.len()..at + fields.len() + 4].copy_from_slice(&crc.to_le_bytes());
        }
        block
    }

    /// Reads whichever copy is intact.
    pub(crate) fn decode(block: &[u8]) -> Option<Self> {
        HEADER_COPIES.iter().find_map(|&at| block.get(at..at + 78).and_then(Self::decode_copy))
    }

    fn decode_copy(bytes: &[u8]) -> Option<Self> {
        if u64_at(bytes, 0) != FILE_MAGIC || u16_at(bytes, 8) != VERSION {
            return None;
        }
        if u32_at(bytes, 74) != crc32c_append(0, &bytes[..74]) {
            return None;
        }
        let header = Self {
            sequence: u64_at(bytes, 10),
            base: WalPosition(u64_at(bytes, 18)),
            capacity: u64_at(bytes, 26),
            salt: u64_at(bytes, 34),
            alignment: u64_at(bytes, 42),
            previous_sequence: u64_at(bytes, 50),
            previous_end: WalPosition(u64_at(bytes, 58)),
            session: u64_at(bytes, 66),
        };
        let sane = header.capacity >= 3 * BLOCK_BYTES
            && header.capacity <= FILE_BYTES_MAX
            && header.base.0 >> 62 == 0
            && (header.alignment == 8 || header.alignment == BLOCK_BYTES);
        sane.then_some(header)
    }

    /// Where the first batch goes.
    pub(crate) fn first_batch(&self) -> WalPosition {
        self.base.plus(BLOCK_BYTES)
    }
}

/// A batch's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub position: WalPosition,
    /// All below was durable before this batch was built.
    pub synced_position: WalPosition,
    /// Bytes of records behind this header.
    pub length: u32,
    pub count: u32,
    /// Which key encrypts the batch; 0 for none, the only one so far.
    pub key_id: u32,
}

impl BatchHeader {
    pub(crate) fn encode(&self, salt: u64) -> [u8; BATCH_HEADER_BYTES] {
        let mut bytes = [0; BATCH_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&salt.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.position.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced_position.0.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.length.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.count.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.key_id.to_le_bytes());
        let crc = crc_at(salt, self.position, &bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at `position`, `None` where there is no intact one of this generation.
    pub(crate) fn decode(bytes: &[u8], salt: u64, position: WalPosition) -> Option<Self> {
        let bytes = bytes.get(..BATCH_HEADER_BYTES)?;
        let here = u32_at(bytes, 0) == BATCH_MAGIC
            && u16_at(bytes, 4) == VERSION
            && u64_at(bytes, 8) == salt
            && u64_at(bytes, 16) == position.0
            && u32_at(bytes, 60) == crc_at(salt, position, &bytes[..60]);
        let header = Self {
            position,
            synced_position: WalPosition(u64_at(bytes, 24)),
            length: u32_at(bytes, 32),
            count: u32_at(bytes, 36),
            key_id: u32_at(bytes, 40),
        };
        (here && u64::from(header.length) <= BATCH_BYTES_MAX && header.key_id == 0).then_some(header)
    }

    /// Whether a batch (maybe a torn one) starts with these bytes: a read of a run steps over such headers.
    pub(crate) fn looks_like(bytes: &[u8]) -> bool {
        bytes.len() >= 4 && u32_at(bytes, 0) == BATCH_MAGIC
    }
}

/// A record's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub group: GroupId,
    pub replica: ReplicaId,
    /// Payload bytes, without padding.
    pub length: u32,
    pub kind: Kind,
    pub flags: u16,
    pub payload_crc: u32,
}

impl RecordHeader {
    pub(crate) fn encode(&self, salt: u64, position: WalPosition) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.group.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.replica.get().to_le_bytes());
        bytes[16..20].copy_from_slice(&self.length.to_le_bytes());
        bytes[20] = self.kind as u8;
        bytes[21] = VERSION as u8;
        bytes[22..24].copy_from_slice(&self.flags.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc_at(salt, position, &bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at `position`, `None` where it is not intact.
    pub(crate) fn decode(bytes: &[u8], salt: u64, position: WalPosition) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        if u32_at(bytes, 28) != crc_at(salt, position, &bytes[..28]) || u16::from(bytes[21]) != VERSION {
            return None;
        }
        Self::decode_unchecked(bytes)
    }

    /// The same without the check of the CRC (for the seeded bug that ignores it).
    pub(crate) fn decode_unchecked(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        Some(Self {
            group: GroupId(u64_at(bytes, 0)),
            replica: ReplicaId::from_raw(u64_at(bytes, 8))?,
            length: u32_at(bytes, 16),
            kind: Kind::from_raw(bytes[20])?,
            flags: u16_at(bytes, 22),
            payload_crc: u32_at(bytes, 24),
        })
    }

    /// Bytes on disk, with header and padding.
    pub(crate) fn span(&self) -> u64 {
        padded(RECORD_HEADER_BYTES as u64 + u64::from(self.length))
    }

    /// Whether this is the payload that was written.
    pub(crate) fn payload_is_intact(&self, salt: u64, position: WalPosition, payload: &[u8]) -> bool {
        self.payload_crc == crc_at(salt, position, payload)
    }
}

/// `bytes` rounded up to the alignment of records.
pub(crate) const fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(crate::limits::ALIGNMENT)
}

/// A closed file's last block: where the batches end and the index lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub end: WalPosition,
    pub index_position: WalPosition,
    pub index_bytes: u32,
    pub index_crc: u32,
}

impl Trailer {
    pub(crate) fn encode(&self, salt: u64) -> Vec<u8> {
        let mut out = Encoder::new();
        out.u64(TRAILER_MAGIC);
        out.u64(self.end.0);
        out.u64(self.index_position.0);
        out.u32(self.index_bytes);
        out.u32(self.index_crc);
        let mut block = out.finish().to_vec();
        block.extend(crc_at(salt, self.end, &block).to_le_bytes());
        block.resize(BLOCK_BYTES as usize, 0);
        block
    }

    pub(crate) fn decode(bytes: &[u8], salt: u64) -> Option<Self> {
        let bytes = bytes.get(..36)?;
        let trailer = Self {
            end: WalPosition(u64_at(bytes, 8)),
            index_position: WalPosition(u64_at(bytes, 16)),
            index_bytes: u32_at(bytes, 24),
            index_crc: u32_at(bytes, 28),
        };
        let intact =
            u64_at(bytes, 0) == TRAILER_MAGIC && u32_at(bytes, 32) == crc_at(salt, trailer.end, &bytes[..32]);
        intact.then_some(trailer)
    }
}

/// A record as the index of a closed file names it, and as the in-memory index applies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub group: GroupId,
    pub replica: ReplicaId,
    pub flags: u16,
    pub position: WalPosition,
    /// Bytes on disk; of merged records with the batch headers between them.
    pub bytes: u32,
    pub content: crate::record::Content,
}

impl Summary {
    /// Bytes in a closed file's index.
    pub(crate) fn index_bytes(&self) -> u64 {
        let mut out = Encoder::new();
        self.content.encode(&mut out);
        31 + out.position() as u64
    }
}

/// Bytes of one summary in the index, beside a snapshot mark's file name: an upper bound, so that there is always
/// room to close a file.
pub(crate) const SUMMARY_BYTES_MAX: u64 = 8 + 8 + 1 + 2 + 4 + 4 + 4 + 96;

/// Writes a closed file's index.
pub(crate) fn encode_index(base: WalPosition, summaries: &[Summary]) -> Bytes {
    let mut out = Encoder::new();
    out.list(summaries.iter(), |out, summary| {
        out.u64(summary.group.0);
        out.u64(summary.replica.get());
        out.u8(summary.content.kind() as u8);
        out.u16(summary.flags);
        out.u32(summary.position.since(base) as u32);
        out.u32(summary.bytes);
        out.frame(|out| summary.content.encode(out));
    });
    out.finish()
}

/// Reads a closed file's index.
pub(crate) fn decode_index(base: WalPosition, bytes: Bytes) -> Result<Vec<Summary>, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let count = decoder.u32()?;
    let mut summaries = Vec::new();
    for _ in 0..count {
        let group = GroupId(decoder.u64()?);
        let replica =
            ReplicaId::from_raw(decoder.u64()?).ok_or_else(|| decoder.error("replica id out of range"))?;
        let kind = Kind::from_raw(decoder.u8()?).ok_or_else(|| decoder.error("unknown record kind"))?;
        let flags = decoder.u16()?;
        let position = base.plus(u64::from(decoder.u32()?));
        let bytes = decoder.u32()?;
        let payload = decoder.bytes()?;
        let content = crate::record::Content::decode(kind, &mut Decoder::new(payload))?;
        summaries.push(Summary { group, replica, flags, position, bytes, content });
    }
    Ok(summaries)
}
