//! What a seed's disk holds of the formation; part of the node's identity file.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use varve_common::{
    ClusterId, NodeId,
    codec::{DecodeError, Decoder, Encoder},
};

use super::wire::{SeedState, decode_coordinator, decode_members, encode_coordinator, encode_members};

/// The seeds, as all of them are configured to name them.
pub type SeedSet = BTreeSet<String>;

/// What is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FormationRecord {
    /// Nothing: new, or wiped.
    #[default]
    Empty,
    /// This disk will be a member of this cluster, if it is formed.
    Promised {
        /// Whose disk it is.
        node: NodeId,
        /// With whom.
        seeds: SeedSet,
        /// The cluster, named by the coordinator.
        cluster: ClusterId,
        /// This disk's number.
        disk: u64,
        /// The one node that may decide; `None` in promises of the first release, on which nobody decides any more.
        coordinator: Option<NodeId>,
    },
    /// The cluster is formed, with these members: this disk is one of them, or joins.
    Formed {
        /// Whose disk it is.
        node: NodeId,
        /// The seeds.
        seeds: SeedSet,
        /// The cluster.
        cluster: ClusterId,
        /// This disk's number.
        disk: u64,
        /// The first voters of group 0, each with its disk's number.
        members: BTreeMap<NodeId, u64>,
    },
}

impl FormationRecord {
    pub(super) const fn node(&self) -> Option<NodeId> {
        match self {
            Self::Empty => None,
            Self::Promised { node, .. } | Self::Formed { node, .. } => Some(*node),
        }
    }

    pub(super) const fn promised(&self) -> Option<ClusterId> {
        match self {
            Self::Empty => None,
            Self::Promised { cluster, .. } | Self::Formed { cluster, .. } => Some(*cluster),
        }
    }

    /// Who may decide on what this disk promised, and with which seeds.
    pub(super) const fn promise(&self) -> Option<(Option<NodeId>, &SeedSet)> {
        match self {
            Self::Promised { coordinator, seeds, .. } => Some((*coordinator, seeds)),
            Self::Empty | Self::Formed { .. } => None,
        }
    }

    /// The number of the disk, drawn with its promise, or when it joined.
    #[must_use]
    pub const fn disk(&self) -> Option<u64> {
        match self {
            Self::Empty => None,
            Self::Promised { disk, .. } | Self::Formed { disk, .. } => Some(*disk),
        }
    }

    /// What others are told of it.
    #[must_use]
    pub fn state(&self) -> SeedState {
        match self {
            Self::Empty => SeedState::Empty,
            Self::Promised { cluster, disk, coordinator, .. } => {
                SeedState::Promised { cluster: *cluster, disk: *disk, coordinator: *coordinator }
            }
            Self::Formed { cluster, members, .. } => {
                SeedState::Formed { cluster: *cluster, members: members.clone() }
            }
        }
    }

    /// `kind u8 | node u32 | cluster [16] | disk u64 | seeds`, then `coordinator u32` of a promise, else `members`.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new();
        encoder.frame(|encoder| {
            let (kind, node, seeds, cluster, disk, members) = match self {
                Self::Empty => return encoder.u8(0),
                Self::Promised { node, seeds, cluster, disk, .. } => (1, node, seeds, cluster, disk, None),
                Self::Formed { node, seeds, cluster, disk, members } => {
                    (2, node, seeds, cluster, disk, Some(members))
                }
            };
            encoder.u8(kind);
            encoder.u32(node.get());
            encoder.raw(&cluster.0);
            encoder.u64(*disk);
            encoder.list(seeds.iter(), |encoder, seed| encoder.string(seed));
            if let Self::Promised { coordinator, .. } = self {
                encode_coordinator(encoder, *coordinator);
            }
            if let Some(members) = members {
                encode_members(encoder, members);
            }
        });
        encoder.finish()
    }

    /// Reads it back.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let record = decoder.frame(Self::decode_fields)?;
        decoder.finish()?;
        Ok(record)
    }

    fn decode_fields(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        let kind = decoder.u8()?;
        if kind == 0 {
            return Ok(Self::Empty);
        }
        let node = NodeId::new(decoder.u32()?).ok_or_else(|| decoder.error("no node id"))?;
        let cluster = super::wire::cluster(decoder)?;
        let disk = decoder.u64()?;
        let seeds = decoder.list(4, Decoder::string)?.into_iter().collect();
        match kind {
            1 => {
                let coordinator = decode_coordinator(decoder)?;
                Ok(Self::Promised { node, seeds, cluster, disk, coordinator })
            }
            2 => Ok(Self::Formed { node, seeds, cluster, disk, members: decode_members(decoder)? }),
            _ => Err(decoder.error("unknown kind of formation record")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        let node = |id| NodeId::new(id).unwrap();
        let seeds: SeedSet = ["a:9093", "b:9093"].map(str::to_owned).into();
        let cluster = ClusterId([9; 16]);
        let coordinator = Some(node(2));
        let promised =
            FormationRecord::Promised { node: node(3), seeds: seeds.clone(), cluster, disk: 77, coordinator };
        let members = BTreeMap::from([(node(3), 77), (node(4), 88)]);
        let formed = FormationRecord::Formed { node: node(3), seeds, cluster, disk: 77, members };
        // Bytes of the first release: they stay readable.
        let fixture = [
            "510000000203000000090909090909090909090909090909094d000000000000000200000006000000613a3930393306",
            "000000623a3930393302000000030000004d00000000000000040000005800000000000000"
        ]
        .concat();
        let hex: String = formed.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, fixture);
        for record in [FormationRecord::Empty, promised.clone(), formed] {
            let bytes = record.encode();
            assert_eq!(FormationRecord::decode(bytes.clone()), Ok(record));
            assert!((0..bytes.len()).all(|cut| FormationRecord::decode(bytes.slice(..cut)).is_err()));
        }
        // A promise of the first release named no coordinator.
        let mut bytes = promised.encode().to_vec();
        bytes.truncate(bytes.len() - 4);
        bytes[0] -= 4;
        let FormationRecord::Promised { node, seeds, cluster, disk, .. } = promised else { unreachable!() };
        let old = FormationRecord::Promised { node, seeds, cluster, disk, coordinator: None };
        assert_eq!(FormationRecord::decode(bytes.into()), Ok(old));
    }
}
