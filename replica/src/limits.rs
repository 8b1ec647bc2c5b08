//! The bounds of this crate, and how they relate.

use std::time::Duration;

/// Batches remembered per producer: what Kafka's producers have in flight at most.
pub const DEDUP_BATCHES: usize = 5;

/// Bytes proposed and not yet applied, per group; above it requests wait.
pub const INFLIGHT_BYTES_MAX: u64 = 16 << 20;

/// Bytes of requests that wait for the leader's own no-op, or behind what is under way, per group; above it they are answered by
/// `Throttled`. Their memory is that of the connections' budget. A disk that takes 10 MB a second has all of it within the half
/// minute for which clients wait.
pub const QUEUED_BYTES_MAX: u64 = 128 << 20;

/// Requests that wait so, per group.
pub const QUEUED_REQUESTS_MAX: usize = 4096;

/// Waiting requests in all: what one group may hold before it refuses.
pub const PENDING_ENTRIES_MAX: usize = 16 * 1024;

/// Producers of one group of which a refused first batch is remembered; above it those that nobody knows must begin at 0 for a
/// while.
pub const MISSED_PRODUCERS_MAX: usize = 1024;

/// States frozen at rolls that one group holds; beyond it the middle is thinned, the ends stay.
pub const FROZEN_MAX: usize = 64;

/// Verified bucket checkpoints that the state names: the two newest.
pub const PUBLISHED_KEPT: usize = 2;

/// Local checkpoints that are kept.
pub const LOCAL_CHECKPOINTS_KEPT: usize = 2;

/// Uploads of one group at a time.
pub const UPLOADS_MAX: usize = 4;

/// Tombstones that one deletion takes.
pub const DELETE_BATCH_MAX: usize = 256;

/// Partitions of one topic.
pub const PARTITIONS_MAX: usize = 100_000;

/// The largest topic name, in bytes, as in Kafka.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// A learner that lags by no more than this many entries becomes a voter.
pub const PROMOTION_LAG_MAX: u64 = 200;

/// A learner that makes no progress for this long does not hold the log's cut up any more.
pub const PIN_LEASE: std::time::Duration = std::time::Duration::from_secs(60);

/// A member that was sent to a checkpoint in the bucket so many times in a row, and did not come back, is not to be served from there.
pub const SENT_IN_VAIN: u32 = 3;

/// Groups that one partition of `__consumer_offsets` coordinates.
pub const GROUPS_MAX: usize = 50_000;

/// What all groups of one partition take in a checkpoint, at most: one section of it holds them.
pub const GROUPS_BYTES_MAX: usize = 128 << 20;

/// Offsets of one group.
pub const GROUP_OFFSETS_MAX: usize = 100_000;

/// Bytes that the members of one group say of themselves, and are given, together: one entry of the log holds them.
pub const GROUP_BYTES_MAX: usize = 4 << 20;

/// Bytes of the keys and values of one commit: one entry of the log holds them.
pub const COMMIT_BYTES_MAX: usize = 4 << 20;

/// Times that are told apart of what is tiered and waits for its file (`varve.archive.parquet`).
pub const UNARCHIVED_MAX: usize = 64;

/// Characters of a client's name that its members' ids begin with.
pub const MEMBER_PREFIX_MAX: usize = 249;

/// The least that a rebalance waits for members, whatever they say.
pub const REBALANCE_MIN: Duration = Duration::from_secs(1);

/// Members of one group that were given an id and have not come again with it.
pub const EXPECTED_MEMBERS_MAX: usize = 4096;

/// Offsets that one look for old ones lets go of.
pub const EXPIRED_AT_ONCE_MAX: usize = 10_000;

/// Groups that one look for old offsets looks at; the next goes on behind them after [`EXPIRY_PAUSE`].
pub const EXPIRED_GROUPS_MAX: usize = 1_000;

/// How long it rests before it looks at the rest.
pub const EXPIRY_PAUSE: Duration = Duration::from_secs(1);

const _: () = assert!(GROUP_BYTES_MAX as u64 * 2 <= INFLIGHT_BYTES_MAX);
const _: () = assert!(GROUP_BYTES_MAX * 2 <= varve_consensus::limits::ENTRY_BYTES_MAX);
const _: () = assert!(COMMIT_BYTES_MAX * 2 <= varve_consensus::limits::ENTRY_BYTES_MAX);
// What is on its way comes on top of what was looked at, and empty groups on top of that.
const _: () = assert!(
    GROUPS_BYTES_MAX + INFLIGHT_BYTES_MAX as usize + varve_consensus::limits::ENTRY_BYTES_MAX
        < varve_formats::limits::CHECKPOINT_SECTION_BYTES_MAX
);
const _: () = assert!(INFLIGHT_BYTES_MAX <= varve_consensus::limits::UNCOMMITTED_BYTES_MAX);
const _: () = assert!(FROZEN_MAX >= 4);
