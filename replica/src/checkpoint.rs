//! Checkpoints: a group's state, captured in the core at no cost and encoded by a job.
//!
//! ```text
//! magic 8 | version u16 | frame { header | sections: name, bytes } | crc32c u32
//! ```
//! A local checkpoint is as of the applied index; a bucket checkpoint has record class as of S, the newest tiered roll,
//! and bucket class as of A, the applied index at capture (TIERING.md 5).

use std::sync::Arc;

use bytes::Bytes;
use varve_common::{
    ClusterId, Digest, Incarnation, LogIndex, Offset, PartitionIndex, ReplicaId, Term,
    codec::{DecodeError, Decoder, Encoder},
    crc32c,
};

use crate::{
    api::{PartitionIdentity, SealMark},
    metadata::MetadataState,
    partition::{PartitionSections, PartitionState, RecordState},
};

const MAGIC: &[u8; 8] = b"VARVECKP";
const VERSION: u16 = 1;

/// What is captured, shared copy on write.
#[derive(Clone, Debug)]
enum State {
    Partition { state: Box<PartitionState>, records: Option<Arc<RecordState>>, seals: Arc<Vec<SealMark>> },
    Metadata(Box<MetadataState>),
}

/// A state captured at one applied index.
#[derive(Clone, Debug)]
pub struct Captured {
    header: CheckpointHeader,
    state: State,
}

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointHeader {
    /// Which partition; `None` for the metadata group.
    pub identity: Option<PartitionIdentity>,
    /// S: record class is as of this entry,
    pub state_index: LogIndex,
    /// of this term,
    pub state_term: Term,
    /// with the log ending here.
    pub state_offset: Offset,
    /// A: bucket class is as of this entry,
    pub applied_index: LogIndex,
    /// of this term.
    pub applied_term: Term,
    /// The log start it carries.
    pub log_start: Offset,
    /// The sequence of the manifest it carries.
    pub manifest_seq: u64,
    /// The voters as of S.
    pub voters: Vec<ReplicaId>,
    /// Whether records at or above the log start are on the nodes only: restore reports a gap, never an empty partition.
    pub records_local: bool,
    /// The leader's clock at the last command applied.
    pub append_time_ms: i64,
}

/// An encoded checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedCheckpoint {
    /// Its bytes.
    pub bytes: Bytes,
    /// Their SHA-256.
    pub sha256: Digest,
}

/// A decoded checkpoint.
#[derive(Debug)]
pub enum Decoded {
    /// Of a partition.
    Partition {
        /// What it says of itself.
        header: CheckpointHeader,
        /// The state.
        state: Box<PartitionState>,
        /// The seal catalogue when it was taken (local checkpoints).
        seals: Vec<SealMark>,
    },
    /// Of the metadata group.
    Metadata {
        /// What it says of itself.
        header: CheckpointHeader,
        /// The state.
        state: Box<MetadataState>,
    },
}

impl Captured {
    /// A partition's local checkpoint.
    #[must_use]
    pub fn local(state: &PartitionState, seals: &Arc<Vec<SealMark>>, voters: Vec<ReplicaId>) -> Self {
        let header = partition_header(state, &state.records, voters, false);
        Self { header, state: State::Partition { state: Box::new(state.clone()), records: None, seals: Arc::clone(seals) } }
    }

    /// A partition's bucket checkpoint: as of the newest tiered roll, or, where records stay on the nodes, as of the
    /// applied index. `None` where no such roll is frozen or A is not applied.
    #[must_use]
    pub fn bucket(state: &PartitionState, tiered: bool, voters: Vec<ReplicaId>) -> Option<Self> {
        if !state.is_whole() {
            return None;
        }
        let records = if tiered {
            Some(Arc::clone(state.frozen.range(..=state.bucket.tiered_end).next_back()?.1))
        } else {
            None
        };
        let header = partition_header(state, records.as_deref().unwrap_or(&state.records), voters, !tiered);
        let mut state = Box::new(state.clone());
        state.frozen.clear();
        Some(Self { header, state: State::Partition { state, records, seals: Arc::default() } })
    }

    /// The metadata group's checkpoint, local or in the bucket.
    #[must_use]
    pub fn metadata(state: &MetadataState, voters: Vec<ReplicaId>) -> Self {
        let (index, term) = state.applied();
        let header = CheckpointHeader {
            identity: None,
            state_index: index,
            state_term: term,
            state_offset: Offset::ZERO,
            applied_index: index,
            applied_term: term,
            log_start: Offset::ZERO,
            manifest_seq: 0,
            voters,
            records_local: false,
            append_time_ms: state.append_time_ms,
        };
        Self { header, state: State::Metadata(Box::new(state.clone())) }
    }

    /// What it will say of itself.
    #[must_use]
    pub const fn header(&self) -> &CheckpointHeader {
        &self.header
    }

    /// Its sections by name.
    #[must_use]
    pub fn sections(&self) -> Vec<(&'static str, Bytes)> {
        match &self.state {
            State::Metadata(state) => vec![("metadata", state.encode())],
            State::Partition { state, records, seals } => {
                let PartitionSections { records, bucket, frozen } = match records {
                    Some(records) => state.encode_as_of(records),
                    None => state.encode(),
                };
                let mut sections = vec![("records", records), ("bucket", bucket)];
                sections.extend(frozen.map(|frozen| ("frozen", frozen)));
                sections.push(("seals", encode_seals(seals)));
                sections
            }
        }
    }

    /// Its bytes. Work for a job: it takes time in proportion to the state.
    #[must_use]
    pub fn encode(&self) -> EncodedCheckpoint {
        let mut encoder = Encoder::new();
        encoder.raw(MAGIC);
        encoder.u16(VERSION);
        encoder.frame(|frame| {
            frame.frame(|frame| encode_header(frame, &self.header));
            frame.list(self.sections().into_iter(), |frame, (name, bytes)| {
                frame.string(name);
                frame.bytes(&bytes);
            });
        });
        let body = encoder.finish();
        let mut bytes = Vec::with_capacity(body.len() + 4);
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&crc32c(&body).to_le_bytes());
        let bytes = Bytes::from(bytes);
        EncodedCheckpoint { sha256: Digest::of(&bytes), bytes }
    }
}

/// Reads a whole checkpoint and verifies it.
pub fn decode(bytes: &Bytes) -> Result<Decoded, DecodeError> {
    let error = |what| DecodeError { what, position: 0 };
    let end = bytes.len().checked_sub(4).ok_or_else(|| error("bytes missing"))?;
    if !bytes.starts_with(MAGIC) {
        return Err(error("not a checkpoint"));
    }
    if crc32c(&bytes[..end]).to_le_bytes() != bytes[end..] {
        return Err(error("the checksum does not match"));
    }
    let mut decoder = Decoder::new(bytes.slice(MAGIC.len()..end));
    if decoder.u16()? != VERSION {
        return Err(error("unknown version of a checkpoint"));
    }
    let (header, sections) = decoder.frame(|frame| {
        Ok((frame.frame(decode_header)?, frame.list(8, |frame| Ok((frame.string()?, frame.bytes()?)))?))
    })?;
    decoder.finish()?;
    from_sections(header, &sections)
}

/// The state that sections hold; unknown ones are skipped.
pub fn from_sections(header: CheckpointHeader, sections: &[(String, Bytes)]) -> Result<Decoded, DecodeError> {
    let find = |name: &str| sections.iter().find(|section| section.0 == name).map(|section| section.1.clone());
    let need = |name| find(name).ok_or(DecodeError { what: "a section is missing", position: 0 });
    let Some(identity) = header.identity.clone() else {
        return Ok(Decoded::Metadata { header, state: Box::new(MetadataState::decode(need("metadata")?)?) });
    };
    let parts = PartitionSections { records: need("records")?, bucket: need("bucket")?, frozen: find("frozen") };
    let seals = find("seals").map_or(Ok(Vec::new()), decode_seals)?;
    let state = Box::new(PartitionState::decode(identity, &parts)?);
    Ok(Decoded::Partition { header, state, seals })
}

fn partition_header(
    state: &PartitionState,
    records: &RecordState,
    voters: Vec<ReplicaId>,
    records_local: bool,
) -> CheckpointHeader {
    CheckpointHeader {
        identity: Some(state.identity.clone()),
        state_index: records.index,
        state_term: records.term,
        state_offset: records.log_end,
        applied_index: state.bucket_index.max(state.records.index),
        applied_term: state.records.term,
        log_start: state.bucket.log_start,
        manifest_seq: state.bucket.manifest_seq,
        voters,
        records_local,
        append_time_ms: state.records.append_time_ms,
    }
}

fn encode_header(frame: &mut Encoder, header: &CheckpointHeader) {
    frame.bool(header.identity.is_some());
    if let Some(identity) = &header.identity {
        frame.raw(&identity.cluster.0);
        frame.u32(identity.incarnation.0);
        frame.topic_id(identity.topic_id);
        frame.string(&identity.topic);
        frame.i32(identity.partition.0);
    }
    frame.index(header.state_index);
    frame.term(header.state_term);
    frame.offset(header.state_offset);
    frame.index(header.applied_index);
    frame.term(header.applied_term);
    frame.offset(header.log_start);
    frame.u64(header.manifest_seq);
    frame.list(header.voters.iter(), |frame, voter| frame.u64(voter.get()));
    frame.bool(header.records_local);
    frame.i64(header.append_time_ms);
}

fn decode_header(frame: &mut Decoder) -> Result<CheckpointHeader, DecodeError> {
    let identity = if frame.bool()? {
        Some(PartitionIdentity {
            cluster: ClusterId(frame.raw(16)?[..].try_into().expect("sixteen bytes were read")),
            incarnation: Incarnation(frame.u32()?),
            topic_id: frame.topic_id()?,
            topic: frame.string()?,
            partition: PartitionIndex(frame.i32()?),
        })
    } else {
        None
    };
    Ok(CheckpointHeader {
        identity,
        state_index: frame.index()?,
        state_term: frame.term()?,
        state_offset: frame.offset()?,
        applied_index: frame.index()?,
        applied_term: frame.term()?,
        log_start: frame.offset()?,
        manifest_seq: frame.u64()?,
        voters: frame.list(8, |frame| {
            let raw = frame.u64()?;
            ReplicaId::from_raw(raw).ok_or_else(|| frame.error("replica id out of range"))
        })?,
        records_local: frame.bool()?,
        append_time_ms: frame.i64()?,
    })
}

fn encode_seals(seals: &[SealMark]) -> Bytes {
    let mut encoder = Encoder::new();
    encoder.list(seals.iter(), |encoder, seal| {
        encoder.frame(|frame| {
            frame.offset(seal.base);
            frame.offset(seal.end);
            frame.index(seal.first_index);
            frame.index(seal.last_index);
            frame.term(seal.last_term);
            frame.u64(seal.bytes);
            frame.digest(seal.sha256);
        });
    });
    encoder.finish()
}

fn decode_seals(bytes: Bytes) -> Result<Vec<SealMark>, DecodeError> {
    Decoder::new(bytes).list(4, |decoder| {
        decoder.frame(|frame| {
            Ok(SealMark {
                base: frame.offset()?,
                end: frame.offset()?,
                first_index: frame.index()?,
                last_index: frame.index()?,
                last_term: frame.term()?,
                bytes: frame.u64()?,
                sha256: frame.digest()?,
            })
        })
    })
}
