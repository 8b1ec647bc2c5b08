//! How a node plans.

use std::time::Duration;

use crate::{Hot, Merge, Pressure};

/// The node's choices. Those of a topic are in `GroupOptions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// Whether there is an object store that every node of the cluster reaches; without one nothing is published.
    pub has_store: bool,
    /// A partition's checkpoint is published when so many segments are new in the bucket.
    pub publish_segments: u32,
    /// And when the first of them is this old.
    pub publish_age: Duration,
    /// Two publications of a partition lie at least so far apart, however many segments an outage has left to upload. The
    /// log's bound does not suffer: under pressure it is cut as far as is safe, whatever is published.
    pub publish_interval: Duration,
    /// The metadata's checkpoint is published at most this long after a change.
    pub publish_metadata_age: Duration,
    /// A local checkpoint is taken after so many applied bytes: it bounds what a restart replays.
    pub checkpoint_bytes: u64,
    /// And after so many applied commands.
    pub checkpoint_changes: u64,
    /// Uploads that one partition has on its way.
    pub uploads_max: usize,
    /// After so many failed uploads in a row a pressed group seals its ranges instead of waiting for the store.
    pub stranded_failures: u32,
    /// Objects live this long after nothing needs them any more: longer than any upload, clock skew or read takes.
    pub delete_grace: Duration,
    /// How often retention is looked at.
    pub retention_interval: Duration,
    /// The state of the log.
    pub pressure: Pressure,
    /// What of the room for hot data is left for the group.
    pub hot: Hot,
    /// Which small segments are merged, and what that may cost now.
    pub merge: Merge,
    /// When so many bytes of a partition's log wait for a file for other systems, one is made.
    pub archive_bytes_max: u64,
    /// The node stops: what is open is rolled, uploaded and published now, and checkpoints are taken, so that the
    /// bucket is complete and the next start replays nothing.
    pub draining: bool,
}

/// Beside the time that a publication takes, a second is short for whoever restores, and long for who pays for requests.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            has_store: true,
            publish_segments: 8,
            publish_age: Duration::from_secs(3_600),
            publish_interval: PUBLISH_INTERVAL,
            publish_metadata_age: Duration::from_secs(60),
            checkpoint_bytes: 64 << 20,
            checkpoint_changes: 20_000,
            uploads_max: 2,
            stranded_failures: 3,
            delete_grace: Duration::from_secs(600),
            retention_interval: Duration::from_secs(300),
            pressure: Pressure::default(),
            hot: Hot::default(),
            merge: Merge::default(),
            archive_bytes_max: crate::archive::cut::FILE_BYTES_MAX,
            draining: false,
        }
    }
}
