//! Groups of consumers, and the topic that they are kept in.

use varve_replica::coordinator;

use super::Reader;

/// How groups are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// The topic.
    pub topic: GroupTopic,
    /// Each of its partitions.
    pub coordinator: coordinator::Options,
}

/// How the topic of groups comes to be, when the first is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupTopic {
    /// Its partitions.
    pub partitions: i32,
    /// Its replicas, as far as there are brokers.
    pub replication_factor: i16,
    /// Its `segment.bytes`.
    pub segment_bytes: u64,
}

impl Reader<'_> {
    pub(super) fn groups(&self) -> Groups {
        let topic = GroupTopic {
            partitions: self.number("offsets.topic.num.partitions") as i32,
            replication_factor: self.number("offsets.topic.replication.factor") as i16,
            segment_bytes: self.bytes("offsets.topic.segment.bytes"),
        };
        let minutes = u64::from(self.number("offsets.retention.minutes"));
        let coordinator = coordinator::Options {
            session_min: self.span("group.min.session.timeout.ms"),
            session_max: self.span("group.max.session.timeout.ms"),
            initial_delay: self.span("group.initial.rebalance.delay.ms"),
            members_max: self.number("group.max.size") as usize,
            metadata_bytes_max: self.number("offset.metadata.max.bytes") as usize,
            retention: std::time::Duration::from_secs(minutes * 60),
            expiry_interval: self.span("offsets.retention.check.interval.ms"),
            ..coordinator::Options::default()
        };
        Groups { topic, coordinator }
    }
}
