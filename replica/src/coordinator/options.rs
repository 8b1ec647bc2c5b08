//! How groups are run.

use std::time::Duration;

/// Kafka's `group.*` and `offsets.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `group.min.session.timeout.ms`.
    pub session_min: Duration,
    /// `group.max.session.timeout.ms`.
    pub session_max: Duration,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members after one has come.
    pub initial_delay: Duration,
    /// `group.max.size`.
    pub members_max: usize,
    /// `offset.metadata.max.bytes`.
    pub metadata_bytes_max: usize,
    /// `offsets.retention.minutes`.
    pub retention: Duration,
    /// `offsets.retention.check.interval.ms`.
    pub expiry_interval: Duration,
    /// Groups of one partition of the topic.
    pub groups_max: usize,
    /// Offsets of one group.
    pub offsets_max: usize,
    /// Bytes that all groups of one partition take in a checkpoint.
    pub state_bytes_max: usize,
    /// Bytes that the members of one group say of themselves, and are given, together.
    pub member_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            session_min: Duration::from_secs(6),
            session_max: Duration::from_secs(30 * 60),
            initial_delay: Duration::from_secs(3),
            members_max: i32::MAX as usize,
            metadata_bytes_max: 4096,
            retention: Duration::from_secs(7 * 24 * 3_600),
            expiry_interval: Duration::from_secs(600),
            groups_max: crate::limits::GROUPS_MAX,
            offsets_max: crate::limits::GROUP_OFFSETS_MAX,
            state_bytes_max: crate::limits::GROUPS_BYTES_MAX,
            member_bytes_max: crate::limits::GROUP_BYTES_MAX,
        }
    }
}

/// A new member that waits for its first rebalance may be silent for so long: Kafka's `NEW_MEMBER_JOIN_TIMEOUT_MS`.
pub const NEW_MEMBER_PATIENCE: Duration = Duration::from_secs(5 * 60);
