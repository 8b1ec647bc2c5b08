//! What seeds ask each other before there is a cluster.

use std::collections::BTreeMap;

use bytes::Bytes;
use varve_common::{
    ClusterId, NodeId,
    codec::{DecodeError, Decoder, Encoder},
};

use super::SeedSet;

/// "What are you?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The asking process.
    pub process: u64,
    /// Its how manyth question.
    pub number: u64,
}

/// What a seed is, as far as its disk says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeedState {
    /// New, or wiped.
    Empty,
    /// It promised.
    Promised {
        /// Which cluster.
        cluster: ClusterId,
        /// Its disk's number.
        disk: u64,
        /// Who alone may decide, as far as it knows.
        coordinator: Option<NodeId>,
    },
    /// It is a member of a cluster, or was added to one later (then it is not among these).
    Formed {
        /// Which cluster.
        cluster: ClusterId,
        /// The first voters of group 0, each with its disk's number.
        members: BTreeMap<NodeId, u64>,
    },
}

/// The answer to a [`Probe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The process that asked.
    pub process: u64,
    /// Its how manyth question.
    pub number: u64,
    /// Who answers.
    pub node: NodeId,
    /// The seeds that it names.
    pub seeds: SeedSet,
    /// What it is.
    pub state: SeedState,
}

impl Probe {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new();
        encoder.frame(|encoder| {
            encoder.u64(self.process);
            encoder.u64(self.number);
        });
        encoder.finish()
    }

    /// Reads it.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let probe = decoder.frame(|frame| Ok(Self { process: frame.u64()?, number: frame.u64()? }))?;
        decoder.finish()?;
        Ok(probe)
    }
}

impl Answer {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new();
        encoder.frame(|encoder| {
            encoder.u64(self.process);
            encoder.u64(self.number);
            encoder.u32(self.node.get());
            encoder.list(self.seeds.iter(), |encoder, seed| encoder.string(seed));
            match &self.state {
                SeedState::Empty => encoder.u8(0),
                SeedState::Promised { cluster, disk, coordinator } => {
                    encoder.u8(1);
                    encoder.raw(&cluster.0);
                    encoder.u64(*disk);
                    encode_coordinator(encoder, *coordinator);
                }
                SeedState::Formed { cluster, members } => {
                    encoder.u8(2);
                    encoder.raw(&cluster.0);
                    encode_members(encoder, members);
                }
            }
        });
        encoder.finish()
    }

    /// Reads it.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let answer = decoder.frame(Self::decode_fields)?;
        decoder.finish()?;
        Ok(answer)
    }

    fn decode_fields(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        let (process, number) = (decoder.u64()?, decoder.u64()?);
        let node = NodeId::new(decoder.u32()?).ok_or_else(|| decoder.error("no node id"))?;
        let seeds = decoder.list(4, Decoder::string)?.into_iter().collect();
        let state = match decoder.u8()? {
            0 => SeedState::Empty,
            1 => {
                let (cluster, disk) = (cluster(decoder)?, decoder.u64()?);
                SeedState::Promised { cluster, disk, coordinator: decode_coordinator(decoder)? }
            }
            2 => SeedState::Formed { cluster: cluster(decoder)?, members: decode_members(decoder)? },
            _ => return Err(decoder.error("unknown state of a seed")),
        };
        Ok(Self { process, number, node, seeds, state })
    }
}

pub(super) fn cluster(decoder: &mut Decoder) -> Result<ClusterId, DecodeError> {
    let bytes = decoder.raw(16)?;
    Ok(ClusterId(bytes.as_ref().try_into().expect("raw gives as many bytes as asked")))
}

/// The last field of its frame: 0 and nothing mean that nobody is named.
pub(super) fn encode_coordinator(encoder: &mut Encoder, coordinator: Option<NodeId>) {
    encoder.u32(coordinator.map_or(0, NodeId::get));
}

pub(super) fn decode_coordinator(decoder: &mut Decoder) -> Result<Option<NodeId>, DecodeError> {
    if decoder.remaining() == 0 { Ok(None) } else { Ok(NodeId::new(decoder.u32()?)) }
}

pub(super) fn encode_members(encoder: &mut Encoder, members: &BTreeMap<NodeId, u64>) {
    encoder.list(members.iter(), |encoder, (node, disk)| {
        encoder.u32(node.get());
        encoder.u64(*disk);
    });
}

pub(super) fn decode_members(decoder: &mut Decoder) -> Result<BTreeMap<NodeId, u64>, DecodeError> {
    let member = |decoder: &mut Decoder| {
        let node = NodeId::new(decoder.u32()?).ok_or_else(|| decoder.error("no node id"))?;
        Ok((node, decoder.u64()?))
    };
    Ok(decoder.list(12, member)?.into_iter().collect())
}
