//! Commands of the metadata group, and their stored form.

use std::collections::BTreeMap;

use varve_common::{
    Digest, GroupId, LogIndex, ReplicaId, TopicId,
    codec::{DecodeError, Decoder, Encoder},
};

use super::decode_replica;
use crate::stored::{Stored, decode_list, decode_option, encode_list, encode_option};

/// A change of the metadata group's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataCommand {
    /// A broker (re)started.
    RegisterBroker(BrokerRegistration),
    /// A topic with ready-made ids, groups and replicas: what was decided is in the command.
    CreateTopic(CreateTopic),
    /// A topic goes; its groups are destroyed and its objects collected by a journaled job.
    DeleteTopic {
        /// Which.
        id: TopicId,
    },
    /// A deleted topic's objects and local files are gone: its journal entry ends.
    TopicReaped {
        /// Which.
        id: TopicId,
    },
    /// Sets (or with `None` removes) topic configuration values.
    SetTopicConfigs {
        /// Which.
        id: TopicId,
        /// Name and value.
        configs: Vec<(String, Option<String>)>,
        /// What the topic says before it, by [`digest_of`]: with anything else nothing changes. `None` where that does not matter,
        /// or was written before it was said.
        expected: Option<Digest>,
    },
    /// Sets (or with `None` removes) configuration values of one broker, or of all.
    SetBrokerConfigs {
        /// Which broker, as a number; 0 for all of them.
        node: u32,
        /// Name and value.
        configs: Vec<(String, Option<String>)>,
        /// As of a topic.
        expected: Digest,
    },
    /// Adds partitions behind those that a topic has.
    CreatePartitions {
        /// Which topic.
        id: TopicId,
        /// How many it has: with another number than this nothing is added.
        first: u32,
        /// The new ones.
        partitions: Vec<PartitionAssignment>,
    },
    /// Hands out the next `count` producer ids.
    AllocateProducerIds {
        /// How many.
        count: u32,
    },
    /// Hands out the next `count` replica counters of a node.
    AllocateReplicaIds {
        /// Which node, as a number.
        node: u32,
        /// How many.
        count: u32,
    },
    /// Raises a named feature level.
    SetFeature {
        /// Its name.
        name: String,
        /// Its level.
        level: u16,
    },
    /// A partition's replicas are to become these. Whoever leads it brings it about, and says `MembersChanged` when it is so.
    /// Those that it has now: what is under way is given up.
    Reassign {
        /// The partition's group.
        group: GroupId,
        /// The replicas to be, in order of preference; their counters are handed out by `AllocateReplicaIds`.
        target: Vec<ReplicaId>,
    },
    /// A group has come to its target.
    MembersChanged {
        /// The group.
        group: GroupId,
        /// The target that it came to; with another than the present one nothing changes.
        members: Vec<ReplicaId>,
        /// The journal's entry in which it stands: the same target may be asked for, given up and asked for again.
        version: LogIndex,
    },
    /// The disk of a node is lost: all replicas on it whose counters are lower than this are to be replaced by new ones there.
    ReplaceReplicas {
        /// Which node, as a number.
        node: u32,
        /// The first counter of the new disk: that of its metadata replica.
        below: u64,
    },
    /// A node joins, or its disk was lost: it hosts a new replica of the metadata, in the place of any other on that node. Its
    /// counter is handed out with it.
    HostMetadata {
        /// Which node, as a number.
        node: u32,
        /// Its disk's random number: who asks again with the same one is told the same; 0 where it was not said.
        disk: u64,
    },
    /// A node leaves the cluster for good. It must not have replicas of partitions any more.
    RemoveBroker {
        /// Which node, as a number.
        node: u32,
    },
}

/// How a broker presents itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// Its node id, as a number.
    pub node: u32,
    /// Where clients reach it; empty: at the address they connected to.
    pub advertised: Vec<String>,
    /// Its rack, for placement and nearest-replica reads.
    pub rack: Option<String>,
    /// Where other nodes reach it, `host:port`; `None` where it has no peers, or wrote this before it could.
    pub peer: Option<String>,
    /// Its disk's random number, by which the cluster knows it; 0 where it was not said.
    pub disk: u64,
    /// The newest level of [`METADATA_FEATURE`] that it knows; 0 in what was written before there were levels.
    pub level: u16,
}

/// A new topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    /// Its id, drawn by the proposer.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// Its partitions, from 0.
    pub partitions: Vec<PartitionAssignment>,
    /// Configuration values that differ from the defaults.
    pub configs: Vec<(String, String)>,
}

/// One partition's group and replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionAssignment {
    /// The group's number; the state machine assigns it (proposals carry 0).
    pub group: u64,
    /// The voters.
    pub replicas: Vec<ReplicaId>,
}

/// The feature that says which kinds of metadata commands all brokers know.
pub const METADATA_FEATURE: &str = "metadata.commands";
/// Its newest level: what this release knows.
pub const METADATA_LEVEL: u16 = 3;
/// What the names of configurations begin with that make partitions write `ArchivePlanned` and `Archived`: who has not heard of
/// those must not be given them, so these names are of level 3.
const ARCHIVE_CONFIGS: &str = "varve.archive.";

/// Reads what is reserved at the end of a broker's frame for its role: 0, as what ends before it, is a voter's, and there are no others yet.
///
/// # Errors
/// Another role is there.
pub fn expect_voter(frame: &mut Decoder) -> Result<(), DecodeError> {
    if !frame.is_empty() && frame.u8()? != 0 {
        return Err(frame.error("a broker has a role that only a later release knows"));
    }
    Ok(())
}

/// What stands for configuration values where a command says on which of them it builds.
#[must_use]
pub fn digest_of(configs: &BTreeMap<String, String>) -> Digest {
    let mut encoder = Encoder::new();
    encoder.list(configs.iter(), |encoder, (name, value)| {
        encoder.string(name);
        encoder.string(value);
    });
    Digest::of(&encoder.finish())
}

fn archives(name: &str) -> bool {
    name.starts_with(ARCHIVE_CONFIGS)
}

impl MetadataCommand {
    /// The level of [`METADATA_FEATURE`] above which this may be written: an earlier release stops where it meets it.
    #[must_use]
    pub fn level(&self) -> u16 {
        match self {
            Self::CreateTopic(CreateTopic { configs, .. })
                if configs.iter().any(|(name, _)| archives(name)) =>
            {
                3
            }
            Self::SetTopicConfigs { configs, .. } if configs.iter().any(|(name, _)| archives(name)) => 3,
            Self::SetBrokerConfigs { .. } | Self::SetTopicConfigs { expected: Some(_), .. } => 2,
            Self::Reassign { .. }
            | Self::MembersChanged { .. }
            | Self::ReplaceReplicas { .. }
            | Self::HostMetadata { .. }
            | Self::RemoveBroker { .. } => 1,
            Self::RegisterBroker(_)
            | Self::CreateTopic(_)
            | Self::DeleteTopic { .. }
            | Self::TopicReaped { .. }
            | Self::SetTopicConfigs { expected: None, .. }
            | Self::CreatePartitions { .. }
            | Self::AllocateProducerIds { .. }
            | Self::AllocateReplicaIds { .. }
            | Self::SetFeature { .. } => 0,
        }
    }

    const REGISTER_BROKER: u8 = 1;
    const CREATE_TOPIC: u8 = 2;
    const DELETE_TOPIC: u8 = 3;
    const TOPIC_REAPED: u8 = 4;
    const SET_TOPIC_CONFIGS: u8 = 5;
    const ALLOCATE_PRODUCER_IDS: u8 = 6;
    const ALLOCATE_REPLICA_IDS: u8 = 7;
    const SET_FEATURE: u8 = 8;
    const CREATE_PARTITIONS: u8 = 9;
    const REASSIGN: u8 = 10;
    const MEMBERS_CHANGED: u8 = 11;
    const REPLACE_REPLICAS: u8 = 12;
    const HOST_METADATA: u8 = 13;
    const REMOVE_BROKER: u8 = 14;
    const SET_BROKER_CONFIGS: u8 = 15;

    pub(super) fn encode(&self, frame: &mut Encoder) {
        match self {
            Self::RegisterBroker(broker) => {
                frame.u8(Self::REGISTER_BROKER);
                broker.encode(frame);
            }
            Self::CreateTopic(topic) => {
                frame.u8(Self::CREATE_TOPIC);
                topic.encode(frame);
            }
            Self::DeleteTopic { id } => {
                frame.u8(Self::DELETE_TOPIC);
                frame.topic_id(*id);
            }
            Self::TopicReaped { id } => {
                frame.u8(Self::TOPIC_REAPED);
                frame.topic_id(*id);
            }
            Self::SetTopicConfigs { id, configs, expected } => {
                frame.u8(Self::SET_TOPIC_CONFIGS);
                frame.topic_id(*id);
                encode_configs(frame, configs, *expected);
            }
            Self::SetBrokerConfigs { node, configs, expected } => {
                frame.u8(Self::SET_BROKER_CONFIGS);
                frame.u32(*node);
                encode_configs(frame, configs, Some(*expected));
            }
            Self::CreatePartitions { id, first, partitions } => {
                frame.u8(Self::CREATE_PARTITIONS);
                frame.topic_id(*id);
                frame.u32(*first);
                encode_list(frame, partitions);
            }
            Self::AllocateProducerIds { count } => {
                frame.u8(Self::ALLOCATE_PRODUCER_IDS);
                frame.u32(*count);
            }
            Self::AllocateReplicaIds { node, count } => {
                frame.u8(Self::ALLOCATE_REPLICA_IDS);
                frame.u32(*node);
                frame.u32(*count);
            }
            Self::SetFeature { name, level } => {
                frame.u8(Self::SET_FEATURE);
                frame.string(name);
                frame.u16(*level);
            }
            Self::Reassign { group, target } => encode_members(frame, Self::REASSIGN, *group, target),
            Self::MembersChanged { group, members, version } => {
                encode_members(frame, Self::MEMBERS_CHANGED, *group, members);
                frame.u64(version.0);
            }
            Self::ReplaceReplicas { node, below } => {
                frame.u8(Self::REPLACE_REPLICAS);
                frame.u32(*node);
                frame.u64(*below);
            }
            Self::HostMetadata { node, disk } => {
                frame.u8(Self::HOST_METADATA);
                frame.u32(*node);
                // A frame that ends here does not say it: nothing is written for that while no field follows.
                if *disk != 0 {
                    frame.u64(*disk);
                }
            }
            Self::RemoveBroker { node } => {
                frame.u8(Self::REMOVE_BROKER);
                frame.u32(*node);
            }
        }
    }

    pub(super) fn decode(frame: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(match frame.u8()? {
            Self::REGISTER_BROKER => Self::RegisterBroker(BrokerRegistration::decode(frame)?),
            Self::CREATE_TOPIC => Self::CreateTopic(CreateTopic::decode(frame)?),
            Self::DELETE_TOPIC => Self::DeleteTopic { id: frame.topic_id()? },
            Self::TOPIC_REAPED => Self::TopicReaped { id: frame.topic_id()? },
            Self::SET_TOPIC_CONFIGS => {
                let (id, configs) = (frame.topic_id()?, decode_configs(frame)?);
                let expected = if frame.is_empty() { None } else { Some(frame.digest()?) };
                Self::SetTopicConfigs { id, configs, expected }
            }
            Self::SET_BROKER_CONFIGS => Self::SetBrokerConfigs {
                node: frame.u32()?,
                configs: decode_configs(frame)?,
                expected: frame.digest()?,
            },
            Self::CREATE_PARTITIONS => Self::CreatePartitions {
                id: frame.topic_id()?,
                first: frame.u32()?,
                partitions: decode_list(frame)?,
            },
            Self::ALLOCATE_PRODUCER_IDS => Self::AllocateProducerIds { count: frame.u32()? },
            Self::ALLOCATE_REPLICA_IDS => {
                Self::AllocateReplicaIds { node: frame.u32()?, count: frame.u32()? }
            }
            Self::SET_FEATURE => Self::SetFeature { name: frame.string()?, level: frame.u16()? },
            Self::REASSIGN => Self::Reassign { group: GroupId(frame.u64()?), target: decode_members(frame)? },
            Self::MEMBERS_CHANGED => Self::MembersChanged {
                group: GroupId(frame.u64()?),
                members: decode_members(frame)?,
                version: LogIndex(frame.u64()?),
            },
            Self::REPLACE_REPLICAS => Self::ReplaceReplicas { node: frame.u32()?, below: frame.u64()? },
            Self::HOST_METADATA => {
                let node = frame.u32()?;
                Self::HostMetadata { node, disk: if frame.is_empty() { 0 } else { frame.u64()? } }
            }
            Self::REMOVE_BROKER => Self::RemoveBroker { node: frame.u32()? },
            _ => return Err(frame.error("unknown kind of metadata command")),
        })
    }
}

fn encode_configs(frame: &mut Encoder, configs: &[(String, Option<String>)], expected: Option<Digest>) {
    frame.list(configs.iter(), |frame, (name, value)| {
        frame.string(name);
        encode_option(frame, value.as_deref(), Encoder::string);
    });
    // A frame that ends here expects nothing.
    if let Some(expected) = expected {
        frame.digest(expected);
    }
}

fn decode_configs(frame: &mut Decoder) -> Result<Vec<(String, Option<String>)>, DecodeError> {
    frame.list(5, |frame| Ok((frame.string()?, decode_option(frame, Decoder::string)?)))
}

fn encode_members(frame: &mut Encoder, kind: u8, group: GroupId, members: &[ReplicaId]) {
    frame.u8(kind);
    frame.u64(group.0);
    frame.list(members.iter(), |frame, replica| frame.u64(replica.get()));
}

fn decode_members(frame: &mut Decoder) -> Result<Vec<ReplicaId>, DecodeError> {
    frame.list(8, decode_replica)
}

impl Stored for BrokerRegistration {
    const BYTES_MIN: usize = 4 + 4 + 4 + 1;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.u32(self.node);
            frame.list(self.advertised.iter(), |frame, address| frame.string(address));
            encode_option(frame, self.rack.as_deref(), Encoder::string);
            // A frame that ends here has none: nothing is written for that while no field follows.
            let says_more = self.disk != 0 || self.level != 0;
            if self.peer.is_some() || says_more {
                frame.string(self.peer.as_deref().unwrap_or_default());
            }
            if says_more {
                frame.u64(self.disk);
                frame.u16(self.level);
            }
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            let (node, advertised) = (frame.u32()?, frame.list(4, Decoder::string)?);
            let rack = decode_option(frame, Decoder::string)?;
            let peer = if frame.is_empty() { None } else { Some(frame.string()?) };
            let peer = peer.filter(|peer| !peer.is_empty());
            let (disk, level) = if frame.is_empty() { (0, 0) } else { (frame.u64()?, frame.u16()?) };
            expect_voter(frame)?;
            Ok(Self { node, advertised, rack, peer, disk, level })
        })
    }
}

impl Stored for CreateTopic {
    const BYTES_MIN: usize = 4 + 16 + 4 + 4 + 4;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.topic_id(self.id);
            frame.string(&self.name);
            encode_list(frame, &self.partitions);
            frame.list(self.configs.iter(), |frame, (name, value)| {
                frame.string(name);
                frame.string(value);
            });
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| {
            let (id, name, partitions) = (frame.topic_id()?, frame.string()?, decode_list(frame)?);
            let configs = frame.list(8, |frame| Ok((frame.string()?, frame.string()?)))?;
            Ok(Self { id, name, partitions, configs })
        })
    }
}

impl Stored for PartitionAssignment {
    const BYTES_MIN: usize = 4 + 8 + 4;

    fn encode(&self, encoder: &mut Encoder) {
        encoder.frame(|frame| {
            frame.u64(self.group);
            frame.list(self.replicas.iter(), |frame, replica| frame.u64(replica.get()));
        });
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decoder.frame(|frame| Ok(Self { group: frame.u64()?, replicas: frame.list(8, decode_replica)? }))
    }
}
