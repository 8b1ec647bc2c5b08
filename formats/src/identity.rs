//! Whose bytes these are: every object names its cluster, its incarnation, its topic and its partition.

use varve_common::{
    ClusterId, Incarnation, PartitionIndex, TopicId,
    codec::{DecodeError, Decoder, Encoder},
};

use crate::claim::{decode_life, encode_life};

/// A partition in one life of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionIdentity {
    /// Whose.
    pub cluster: ClusterId,
    /// In which life.
    pub incarnation: Incarnation,
    /// The topic; all zero for the metadata group.
    pub topic_id: TopicId,
    /// The topic's name when the object was written; for people and for restore.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
}

impl PartitionIdentity {
    pub(crate) fn encode(&self, frame: &mut Encoder) {
        encode_life(frame, self.cluster, self.incarnation);
        frame.topic_id(self.topic_id);
        frame.string(&self.topic);
        frame.i32(self.partition.0);
    }

    pub(crate) fn decode(frame: &mut Decoder) -> Result<Self, DecodeError> {
        let (cluster, incarnation) = decode_life(frame)?;
        let (topic_id, topic) = (frame.topic_id()?, frame.string()?);
        Ok(Self { cluster, incarnation, topic_id, topic, partition: PartitionIndex(frame.i32()?) })
    }

    /// Whether both are the same partition of the same cluster, in whatever life and under whatever name.
    #[must_use]
    pub fn same_partition(&self, other: &Self) -> bool {
        (self.cluster, self.topic_id, self.partition) == (other.cluster, other.topic_id, other.partition)
    }
}

#[cfg(test)]
pub(crate) mod tests_support {
    use super::*;

    /// Partition 4 of a topic.
    pub(crate) fn identity() -> PartitionIdentity {
        PartitionIdentity {
            cluster: ClusterId::from_random(9),
            incarnation: Incarnation(1),
            topic_id: TopicId::from_random(77),
            topic: "orders".into(),
            partition: PartitionIndex(4),
        }
    }
}
