//! The metadata's state as a section of a checkpoint.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use varve_common::{
    ClusterId, GroupId, Incarnation, LogIndex, NodeId, PartitionIndex, ReplicaId,
    codec::{DecodeError, Decoder, Encoder},
};
use varve_formats::{
    command::expect_voter,
    stored::{decode_list, encode_list},
};

use super::{Broker, Deletion, Image, MetadataState, Partition, Topic};

/// The section of a metadata checkpoint that holds everything.
pub type MetadataSections = Bytes;

impl MetadataState {
    /// The state's bytes: the same on every replica that applied the same index.
    #[must_use]
    pub fn encode(&self) -> MetadataSections {
        let mut encoder = Encoder::new();
        encoder.frame(|frame| {
            frame.index(self.index);
            frame.term(self.term);
            frame.i64(self.append_time_ms);
            encode_list(frame, &self.published);
            encode_image(frame, &self.image);
        });
        encoder.finish()
    }

    /// Reads what [`MetadataState::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let state = decoder.frame(|frame| {
            Ok(Self {
                index: frame.index()?,
                term: frame.term()?,
                append_time_ms: frame.i64()?,
                published: decode_list(frame)?,
                image: decode_image(frame)?,
            })
        })?;
        decoder.finish()?;
        Ok(state)
    }

    pub(super) fn hashed_bytes(&self) -> Bytes {
        self.encode()
    }
}

fn encode_image(frame: &mut Encoder, image: &Image) {
    frame.raw(&image.cluster.0);
    frame.u32(image.incarnation.0);
    frame.index(image.index);
    frame.list(image.brokers.values(), |frame, broker| {
        frame.frame(|frame| {
            frame.u32(broker.node.get());
            frame.u64(broker.epoch);
            frame.list(broker.advertised.iter(), |frame, address| frame.string(address));
            frame.bool(broker.rack.is_some());
            frame.string(broker.rack.as_deref().unwrap_or_default());
            // A frame that ends here has none: nothing is written for that while no field follows.
            if broker.peer.is_some() || broker.level != 0 {
                frame.string(broker.peer.as_deref().unwrap_or_default());
            }
            if broker.level != 0 {
                frame.u16(broker.level);
            }
        });
    });
    frame.list(image.topics.values(), |frame, topic| encode_topic(frame, topic));
    frame.list(image.deletions.values(), |frame, deletion| {
        frame.frame(|frame| {
            encode_topic(frame, &deletion.topic);
            frame.i64(deletion.since_ms);
            frame.index(deletion.index);
        });
    });
    frame.list(image.features.iter(), |frame, (name, level)| {
        frame.string(name);
        frame.u16(*level);
    });
    frame.list(image.replica_counters.iter(), |frame, (node, next)| {
        frame.u32(node.get());
        frame.u64(*next);
    });
    frame.i64(image.next_producer_id);
    frame.u64(image.next_group);
    // As above: a list that is empty is left out where none follows.
    let has_configs = !image.broker_configs.is_empty();
    let has_disks = !image.disks.is_empty() || has_configs;
    if !image.metadata_replicas.is_empty() || has_disks {
        frame.list(image.metadata_replicas.iter(), |frame, (node, replica)| {
            frame.u32(node.get());
            frame.u64(replica.map_or(0, ReplicaId::get));
        });
    }
    if has_disks {
        frame.list(image.disks.iter(), |frame, (node, disk)| {
            frame.u32(node.get());
            frame.u64(*disk);
        });
    }
    if has_configs {
        frame.list(image.broker_configs.iter(), |frame, (whose, configs)| {
            frame.u32(whose.map_or(0, NodeId::get));
            encode_configs(frame, configs);
        });
    }
}

fn encode_configs(frame: &mut Encoder, configs: &BTreeMap<String, String>) {
    frame.list(configs.iter(), |frame, (name, value)| {
        frame.string(name);
        frame.string(value);
    });
}

fn decode_configs(frame: &mut Decoder) -> Result<BTreeMap<String, String>, DecodeError> {
    let configs = frame.list(8, |frame| Ok((frame.string()?, frame.string()?)))?;
    Ok(configs.into_iter().collect())
}

fn encode_replicas(frame: &mut Encoder, replicas: &[ReplicaId]) {
    frame.list(replicas.iter(), |frame, replica| frame.u64(replica.get()));
}

fn decode_replicas(frame: &mut Decoder) -> Result<Vec<ReplicaId>, DecodeError> {
    frame.list(8, |frame| {
        let raw = frame.u64()?;
        ReplicaId::from_raw(raw).ok_or_else(|| frame.error("replica id out of range"))
    })
}

fn encode_topic(frame: &mut Encoder, topic: &Topic) {
    frame.frame(|frame| {
        frame.topic_id(topic.id);
        frame.string(&topic.name);
        frame.i64(topic.created_ms);
        frame.list(topic.partitions.iter(), |frame, partition| {
            frame.frame(|frame| {
                frame.u64(partition.group.0);
                encode_replicas(frame, &partition.replicas);
                // A frame that ends here was never reassigned: nothing is written for that while no field follows.
                if partition.version != LogIndex::ZERO {
                    encode_replicas(frame, &partition.target);
                    encode_replicas(frame, &partition.founders);
                    encode_replicas(frame, &partition.left);
                    encode_replicas(frame, &partition.leaving);
                    frame.index(partition.version);
                }
            });
        });
        encode_configs(frame, &topic.configs);
    });
}

fn decode_node(frame: &mut Decoder) -> Result<NodeId, DecodeError> {
    let id = frame.u32()?;
    NodeId::new(id).ok_or_else(|| frame.error("node id out of range"))
}

fn decode_broker(frame: &mut Decoder) -> Result<Broker, DecodeError> {
    frame.frame(|frame| {
        let node = decode_node(frame)?;
        let epoch = frame.u64()?;
        let advertised = frame.list(4, Decoder::string)?;
        let has_rack = frame.bool()?;
        let rack = frame.string()?;
        let peer = if frame.is_empty() { None } else { Some(frame.string()?) };
        let peer = peer.filter(|peer| !peer.is_empty());
        let level = if frame.is_empty() { 0 } else { frame.u16()? };
        expect_voter(frame)?;
        Ok(Broker { node, epoch, advertised, rack: has_rack.then_some(rack), peer, level })
    })
}

fn decode_topic(frame: &mut Decoder) -> Result<Arc<Topic>, DecodeError> {
    frame.frame(|frame| {
        Ok(Arc::new(Topic {
            id: frame.topic_id()?,
            name: frame.string()?.into(),
            created_ms: frame.i64()?,
            partitions: frame.list(16, |frame| {
                frame.frame(|frame| {
                    let group = GroupId(frame.u64()?);
                    let mut partition = Partition::new(group, decode_replicas(frame)?);
                    if !frame.is_empty() {
                        partition.target = decode_replicas(frame)?;
                        partition.founders = decode_replicas(frame)?;
                        partition.left = decode_replicas(frame)?;
                        partition.leaving = decode_replicas(frame)?;
                        partition.version = frame.index()?;
                    }
                    Ok(partition)
                })
            })?,
            configs: decode_configs(frame)?,
        }))
    })
}

fn decode_image(frame: &mut Decoder) -> Result<Image, DecodeError> {
    let cluster = ClusterId(frame.raw(16)?[..].try_into().expect("sixteen bytes were read"));
    let mut image = Image::new(cluster, Incarnation(frame.u32()?));
    image.index = frame.index()?;
    let brokers = frame.list(4, decode_broker)?;
    image.brokers = Arc::new(brokers.into_iter().map(|broker| (broker.node, broker)).collect());
    let topics = frame.list(4, decode_topic)?;
    image.names = Arc::new(topics.iter().map(|topic| (Arc::clone(&topic.name), topic.id)).collect());
    image.groups = Arc::new(topics.iter().flat_map(|topic| groups_of(topic)).collect());
    image.topics = Arc::new(topics.into_iter().map(|topic| (topic.id, topic)).collect());
    let deletions = frame.list(4, |frame| {
        frame.frame(|frame| {
            let (topic, since_ms) = (decode_topic(frame)?, frame.i64()?);
            // An earlier release did not say which entry it was; none behind this one.
            let index = if frame.is_empty() { image.index } else { frame.index()? };
            Ok(Deletion { topic, since_ms, index })
        })
    })?;
    image.deletions = Arc::new(deletions.into_iter().map(|deletion| (deletion.topic.id, deletion)).collect());
    image.features =
        Arc::new(frame.list(6, |frame| Ok((frame.string()?, frame.u16()?)))?.into_iter().collect());
    let counters = frame.list(12, |frame| Ok((decode_node(frame)?, frame.u64()?)))?;
    image.replica_counters = Arc::new(counters.into_iter().collect());
    image.next_producer_id = frame.i64()?;
    image.next_group = frame.u64()?;
    if !frame.is_empty() {
        let replicas =
            frame.list(12, |frame| Ok((decode_node(frame)?, ReplicaId::from_raw(frame.u64()?))))?;
        image.metadata_replicas = Arc::new(replicas.into_iter().collect());
    }
    if !frame.is_empty() {
        let disks = frame.list(12, |frame| Ok((decode_node(frame)?, frame.u64()?)))?;
        image.disks = Arc::new(disks.into_iter().collect());
    }
    if !frame.is_empty() {
        let configs = frame.list(8, |frame| Ok((NodeId::new(frame.u32()?), decode_configs(frame)?)))?;
        image.broker_configs = Arc::new(configs.into_iter().collect());
    }
    // Reserved: object stores beside the first, whose number entries of the manifest give.
    if !frame.is_empty() && !frame.list(4, |frame| frame.frame(|_| Ok(())))?.is_empty() {
        return Err(frame.error("there is an object store that only a later release knows"));
    }
    Ok(image)
}

fn groups_of(topic: &Topic) -> impl Iterator<Item = (GroupId, (varve_common::TopicId, PartitionIndex))> + '_ {
    (0_i32..)
        .zip(&topic.partitions)
        .map(|(number, partition)| (partition.group, (topic.id, PartitionIndex(number))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(
        write: impl FnOnce(&mut Encoder),
        decode: impl FnOnce(&mut Decoder) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let mut encoder = Encoder::new();
        write(&mut encoder);
        decode(&mut Decoder::new(encoder.finish()))
    }

    #[test]
    fn a_broker_of_a_role_to_come_is_refused_and_a_voter_is_read_with_or_without_one() {
        let with = |role: Option<u8>| {
            let write = |frame: &mut Encoder| {
                frame.frame(|frame| {
                    frame.u32(7);
                    frame.u64(3);
                    frame.list([].iter(), |frame, address: &String| frame.string(address));
                    frame.bool(false);
                    frame.string("");
                    frame.string("host:9093");
                    frame.u16(3);
                    role.into_iter().for_each(|role| frame.u8(role));
                });
            };
            read(write, decode_broker)
        };
        assert_eq!(with(None).unwrap(), with(Some(0)).unwrap());
        assert!(with(Some(1)).unwrap_err().to_string().contains("role"));
    }

    #[test]
    fn a_registry_of_stores_to_come_is_refused_and_an_empty_one_is_read() {
        let mut image = Image::new(ClusterId([7; 16]), Incarnation(1));
        image.broker_configs = Arc::new([(None, BTreeMap::new())].into());
        let with = |stores: Option<u32>| {
            let write = |frame: &mut Encoder| {
                frame.frame(|frame| {
                    encode_image(frame, &image);
                    stores.into_iter().for_each(|stores| {
                        frame.list(0..stores, |frame, store| frame.frame(|frame| frame.u32(store)));
                    });
                });
            };
            read(write, |decoder| decoder.frame(decode_image))
        };
        assert_eq!(with(None).unwrap(), with(Some(0)).unwrap());
        assert!(with(Some(1)).unwrap_err().to_string().contains("object store"));
    }
}
