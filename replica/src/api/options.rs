//! How a partition is run: the topic's configuration, validated and with its defaults.

use varve_formats::manifest::FanOut;

use crate::{coordinator, limits::QUEUED_BYTES_MAX};

/// What stays on the node beyond the WAL's window (`local.retention.*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalRetention {
    /// -2: what the WAL window and the cache hold.
    Window,
    /// Explicit: what is tiered stays in sealed files until either is exceeded; `None` is without limit.
    Explicit {
        /// `local.retention.ms`.
        ms: Option<u64>,
        /// `local.retention.bytes`.
        bytes: Option<u64>,
    },
}

/// A partition's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOptions {
    /// `remote.storage.enable` without `remote.log.copy.disable`: what is rolled goes to the bucket. What is there is read
    /// and retained either way.
    pub tiered: bool,
    /// `remote.log.delete.on.disable`, and `remote.storage.enable` is off: what is in the bucket alone leaves the log.
    pub forgets_tiered: bool,
    /// `segment.bytes`.
    pub segment_bytes_max: u64,
    /// `segment.ms`.
    pub segment_ms: u64,
    /// `segment.jitter.ms`: each range is rolled up to so much earlier.
    pub segment_jitter_ms: u64,
    /// `varve.tier.max.age.ms`: a quiet range of a tiered topic is rolled after this.
    pub upload_age_ms: u64,
    /// `retention.ms`; `None` for ever.
    pub retention_ms: Option<u64>,
    /// `retention.bytes`; `None` without limit.
    pub retention_bytes: Option<u64>,
    /// `local.retention.*`.
    pub local_retention: LocalRetention,
    /// `varve.archive.parquet`: how long a tiered record waits for its file at the most (`varve.archive.max.age.ms`); `None` where
    /// there are to be none.
    pub archive_age_ms: Option<u64>,
    /// `producer.id.expiration.ms`: producers that were quiet for so long are forgotten.
    pub producer_expiration_ms: u64,
    /// Bytes of requests that wait for their turn, at most [`QUEUED_BYTES_MAX`]: fewer where the log is small.
    pub queued_bytes_max: u64,
    /// The manifest root's fan-out; tests run with 4.
    pub fan_out: FanOut,
    /// How groups of consumers are run; `None` where it is no partition of `__consumer_offsets`.
    pub coordinator: Option<Box<coordinator::Options>>,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            tiered: true,
            forgets_tiered: false,
            segment_bytes_max: 64 << 20,
            segment_ms: 7 * 24 * 3_600_000,
            segment_jitter_ms: 0,
            upload_age_ms: 600_000,
            retention_ms: Some(7 * 24 * 3_600_000),
            retention_bytes: None,
            local_retention: LocalRetention::Window,
            archive_age_ms: None,
            producer_expiration_ms: 24 * 3_600_000,
            queued_bytes_max: QUEUED_BYTES_MAX,
            fan_out: FanOut::DEFAULT,
            coordinator: None,
        }
    }
}
