//! The stored form of commands.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use varve_common::{
    LogIndex, Offset, ReplicaId, Term,
    codec::{DecodeError, Decoder, Encoder},
};

use super::{
    ArchivePlanned, Archived, CkptPublished, Command, Fence, HEADER_BYTES, Header, IntentExpired, Kind,
    LeafReplaced, MetadataCommand, NodeFolded, ProducerExpired, PublishedCheckpoint, Roll, TierAppend,
    TierIntent, TierReaped, TierReplace, TierTrim, TrimCause,
};
use crate::{
    manifest::NodeReference,
    stored::{Stored, decode_list, encode_list},
};

/// The version of every kind's payload today.
const VERSION: u8 = 1;

impl Header {
    /// A header of today's version.
    #[must_use]
    pub const fn new(kind: Kind, built_term: Term, append_time_ms: i64) -> Self {
        Self { kind, version: VERSION, built_term, append_time_ms }
    }

    /// Reads the header alone. An unknown kind, version or flag is an error that stops the group (RAFT.md 4).
    pub fn read(entry: &[u8]) -> Result<Self, DecodeError> {
        let error = |what, position| DecodeError { what, position };
        if entry.len() < HEADER_BYTES {
            return Err(error("a command's header is missing", entry.len()));
        }
        let mut rest = entry;
        let kind = Kind::from_number(rest.get_u8()).ok_or_else(|| error("unknown kind of command", 0))?;
        let version = rest.get_u8();
        if version != VERSION {
            return Err(error("unknown version of a command", 1));
        }
        if rest.get_u16_le() != 0 {
            return Err(error("unknown flags of a command", 2));
        }
        Ok(Self { kind, version, built_term: Term(rest.get_u64_le()), append_time_ms: rest.get_i64_le() })
    }

    fn write(&self, buffer: &mut impl BufMut) {
        buffer.put_u8(self.kind as u8);
        buffer.put_u8(self.version);
        buffer.put_u16_le(0);
        buffer.put_u64_le(self.built_term.0);
        buffer.put_i64_le(self.append_time_ms);
    }
}

/// A `Records` entry in one buffer, header and batch: the caller patches base offset and leader epoch in it (both lie
/// outside the batch's CRC) and freezes it; the batch that a fetch returns is a slice of what raft holds.
#[must_use]
pub fn encode_records(batch: &[u8], built_term: Term, append_time_ms: i64) -> BytesMut {
    let mut entry = BytesMut::with_capacity(HEADER_BYTES + batch.len());
    Header::new(Kind::Records, built_term, append_time_ms).write(&mut entry);
    entry.put_slice(batch);
    entry
}

impl Command {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Records(_) => Kind::Records,
            Self::Roll(_) => Kind::Roll,
            Self::ProducerExpired(_) => Kind::ProducerExpired,
            Self::TierIntent(_) => Kind::TierIntent,
            Self::TierAppend(_) => Kind::TierAppend,
            Self::TierReplace(_) => Kind::TierReplace,
            Self::TierTrim(_) => Kind::TierTrim,
            Self::NodeFolded(_) => Kind::NodeFolded,
            Self::CkptPublished(_) => Kind::CkptPublished,
            Self::IntentExpired(_) => Kind::IntentExpired,
            Self::TierReaped(_) => Kind::TierReaped,
            Self::LeafReplaced(_) => Kind::LeafReplaced,
            Self::ArchivePlanned(_) => Kind::ArchivePlanned,
            Self::Archived(_) => Kind::Archived,
            Self::Metadata(_) => Kind::Metadata,
        }
    }

    /// The entry's data: header and payload.
    #[must_use]
    pub fn encode(&self, built_term: Term, append_time_ms: i64) -> Bytes {
        if let Self::Records(batch) = self {
            return encode_records(batch, built_term, append_time_ms).freeze();
        }
        let mut header = [0; HEADER_BYTES];
        Header::new(self.kind(), built_term, append_time_ms).write(&mut header.as_mut_slice());
        let mut encoder = Encoder::new();
        encoder.raw(&header);
        encoder.frame(|frame| self.encode_payload(frame));
        encoder.finish()
    }

    fn encode_payload(&self, frame: &mut Encoder) {
        match self {
            Self::Records(_) => unreachable!("records are written without a frame"),
            Self::Roll(roll) => roll.encode(frame),
            Self::ProducerExpired(expired) => expired.encode(frame),
            Self::TierIntent(intent) => intent.encode(frame),
            Self::TierAppend(append) => append.encode(frame),
            Self::TierReplace(replace) => replace.encode(frame),
            Self::TierTrim(trim) => trim.encode(frame),
            Self::NodeFolded(folded) => folded.encode(frame),
            Self::CkptPublished(published) => published.encode(frame),
            Self::IntentExpired(expired) => {
                frame.term(expired.term);
                encode_uids(frame, &expired.uids);
            }
            Self::TierReaped(reaped) => {
                frame.term(reaped.term);
                encode_uids(frame, &reaped.uids);
            }
            Self::LeafReplaced(replaced) => replaced.encode(frame),
            Self::ArchivePlanned(planned) => planned.encode(frame),
            Self::Archived(archived) => archived.encode(frame),
            Self::Metadata(command) => command.encode(frame),
        }
    }

    /// Reads an entry's data; the batch of a `Records` entry is a slice of it.
    pub fn decode(mut entry: Bytes) -> Result<(Header, Self), DecodeError> {
        let header = Header::read(&entry)?;
        let payload = entry.split_off(HEADER_BYTES);
        if header.kind == Kind::Records {
            return Ok((header, Self::Records(payload)));
        }
        let mut decoder = Decoder::new(payload);
        let command = decoder.frame(|frame| Self::decode_payload(header.kind, frame))?;
        decoder.finish()?;
        Ok((header, command))
    }

    fn decode_payload(kind: Kind, frame: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(match kind {
            Kind::Records => unreachable!("records are read without a frame"),
            Kind::Roll => Self::Roll(Roll::decode(frame)?),
            Kind::ProducerExpired => Self::ProducerExpired(ProducerExpired::decode(frame)?),
            Kind::TierIntent => Self::TierIntent(TierIntent::decode(frame)?),
            Kind::TierAppend => Self::TierAppend(TierAppend::decode(frame)?),
            Kind::TierReplace => Self::TierReplace(TierReplace::decode(frame)?),
            Kind::TierTrim => Self::TierTrim(TierTrim::decode(frame)?),
            Kind::NodeFolded => Self::NodeFolded(NodeFolded::decode(frame)?),
            Kind::CkptPublished => Self::CkptPublished(CkptPublished::decode(frame)?),
            Kind::IntentExpired => {
                Self::IntentExpired(IntentExpired { term: frame.term()?, uids: decode_uids(frame)? })
            }
            Kind::TierReaped => {
                Self::TierReaped(TierReaped { term: frame.term()?, uids: decode_uids(frame)? })
            }
            Kind::LeafReplaced => Self::LeafReplaced(LeafReplaced::decode(frame)?),
            Kind::ArchivePlanned => Self::ArchivePlanned(ArchivePlanned::decode(frame)?),
            Kind::Archived => Self::Archived(Archived::decode(frame)?),
            Kind::Metadata => Self::Metadata(MetadataCommand::decode(frame)?),
        })
    }
}

fn encode_uids(frame: &mut Encoder, uids: &[u64]) {
    frame.list(uids.iter(), |frame, uid| frame.u64(*uid));
}

fn decode_uids(frame: &mut Decoder) -> Result<Vec<u64>, DecodeError> {
    frame.list(8, Decoder::u64)
}

impl Fence {
    fn encode(self, frame: &mut Encoder) {
        frame.term(self.term);
        frame.u64(self.manifest_seq);
    }

    fn decode(frame: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(Self { term: frame.term()?, manifest_seq: frame.u64()? })
    }
}

/// Reads start and end of a range that holds something.
fn decode_range(frame: &mut Decoder) -> Result<(Offset, Offset), DecodeError> {
    let (base, end) = (frame.offset()?, frame.offset()?);
    if base >= end { Err(frame.error("a range holds nothing")) } else { Ok((base, end)) }
}

impl Roll {
    fn encode(&self, frame: &mut Encoder) {
        frame.offset(self.base);
        frame.offset(self.end);
        frame.u64(self.bytes);
        frame.i64(self.max_timestamp);
        frame.u32(self.batch_crcs);
    }

    fn decode(frame: &mut Decoder) -> Result<Self, DecodeError> {
        let (base, end) = decode_range(frame)?;
        let (bytes, max_timestamp, batch_crcs) = (frame.u64()?, frame.i64()?, frame.u32()?);
        Ok(Self { base, end, bytes, max_timestamp, batch_crcs })
    }
}

impl ProducerExpired {
    fn encode(&self, frame: &mut Encoder) {
        frame.i64(self.unused_since_ms);
    }

    fn decode(frame: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(Self { unused_since_ms: frame.i64()? })
    }
}

impl TierIntent {
    fn encode(&self, frame: &mut Encoder) {
        frame.u64(self.uid);
        frame.term(self.term);
        frame.offset(self.base);
        frame.offset(self.end);
    }

    fn decode(frame: &mut Decoder) -> Result<Self, DecodeError> {
        let (uid, term) = (frame.u64()?, frame.term()?);
        let (base, end) = decode_range(frame)?;
        Ok(Self { uid, term, base, end })
    }
}

impl TierAppend {
    fn encode(&self, frame: &mut Encoder) {
        self.fence.encode(frame);
        encode_list(frame, &self.entries);
    }

    fn decode(frame: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(Self { fence: Fence::decode(frame)?, entries: decode_list(frame)? })
    }
}

impl TierReplace {
    fn encode(&self, frame: &mut Encoder) {
        self.fence.encode(frame);
        encode_uids(frame, &self.removed);
        encode_list(frame, &self.added);
    }

    fn decode(frame: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(Self { fence: Fence::decode(frame)?, removed: decode_uids(frame)?, added: decode_list(frame)? })
    }
}

impl TrimCause {
    /// The cause with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Retention),
            2 => Some(Self::DeleteRecords),
            3 => Some(Self::Disabled),
            _ => None,
        }
    }
}

impl TierTrim {
    fn encode(&self, frame: &mut Encoder) {
        self.fence.encode(frame);
        frame.offset(self.log_start);
        frame.u8(self.cause as u8);
    }

    fn decode(frame: &mut Decoder) -> Result<Self, DecodeError> {
        let (fence, log_start) = (Fence::decode(frame)?, frame.offset()?);
        let cause =
            TrimCause::from_number(frame.u8()?).ok_or_else(|| frame.error("unknown cause of a trim"))?;
        Ok(Self { fence, log_start, cause })
    }
}

impl NodeFolded {
    fn encode(&self, frame: &mut Encoder) {
        self.fence.encode(frame);
        self.node.encode(frame);
    }

    fn decode(frame: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(Self { fence: Fence::decode(frame)?, node: NodeReference::decode(frame)? })
    }
}

impl LeafReplaced {
    fn encode(&self, frame: &mut Encoder) {
        self.fence.encode(frame);
        frame.u64(self.removed);
        self.node.encode(frame);
        encode_list(frame, &self.gone);
        encode_list(frame, &self.added);
    }

    fn decode(frame: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(Self {
            fence: Fence::decode(frame)?,
            removed: frame.u64()?,
            node: NodeReference::decode(frame)?,
            gone: decode_list(frame)?,
            added: decode_list(frame)?,
        })
    }
}

impl CkptPublished {
    fn encode(&self, frame: &mut Encoder) {
        frame.term(self.term);
        self.checkpoint.encode(frame);
        // A frame that ends here does not know: nothing is written for that while no field follows.
        if let Some(kept) = &self.kept {
            frame.bool(true);
            frame.list(kept.iter(), |frame, applied| frame.index(*applied));
        }
    }

    fn decode(frame: &mut Decoder) -> Result<Self, DecodeError> {
        let (term, checkpoint) = (frame.term()?, PublishedCheckpoint::decode(frame)?);
        let known = !frame.is_empty() && frame.bool()?;
        let kept = if known { Some(frame.list(8, Decoder::index)?) } else { None };
        Ok(Self { term, checkpoint, kept })
    }
}

impl Stored for PublishedCheckpoint {
    const BYTES_MIN: usize = 4 + 8 * 9 + 32;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.u64(self.uid);
            frame.term(self.key_term);
            frame.index(self.state_index);
            frame.term(self.state_term);
            frame.offset(self.state_offset);
            frame.index(self.applied_index);
            frame.offset(self.log_start);
            frame.u64(self.bytes);
            frame.digest(self.sha256);
            frame.i64(self.published_ms);
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            Ok(Self {
                uid: frame.u64()?,
                key_term: frame.term()?,
                state_index: frame.index()?,
                state_term: frame.term()?,
                state_offset: frame.offset()?,
                applied_index: LogIndex(frame.u64()?),
                log_start: frame.offset()?,
                bytes: frame.u64()?,
                sha256: frame.digest()?,
                published_ms: frame.i64()?,
            })
        })
    }
}

/// Reads a replica id.
pub(crate) fn decode_replica(frame: &mut Decoder) -> Result<ReplicaId, DecodeError> {
    ReplicaId::from_raw(frame.u64()?).ok_or_else(|| frame.error("a replica id has no node or no counter"))
}
