//! How much the client asks for and how long it waits.

use std::time::Duration;

/// Until a connection stands.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Until a response has come, the waiting of a Fetch included.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(35);

/// What a broker may take for CreateTopics, DeleteTopics and Produce, in milliseconds.
pub const BROKER_TIMEOUT_MS: i32 = 30_000;

/// Until every partition of a topic has a leader.
pub const METADATA_WAIT_MAX: Duration = Duration::from_secs(15);

/// How long a batch is tried again before the command gives up: Kafka's `delivery.timeout.ms`.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a consumer rides out a broker that is away.
pub const FETCH_RETRY_MAX: Duration = Duration::from_secs(60);

/// Between two tries.
pub const RETRY_BACKOFF: Duration = Duration::from_millis(100);

/// How long a Fetch waits at the end of the log, in milliseconds.
pub const FETCH_WAIT_MS: i32 = 500;

/// The same where several brokers are asked in turn.
pub const FETCH_WAIT_SHARED_MS: i32 = 50;

/// The most that one Fetch brings.
pub const FETCH_BYTES_MAX: i32 = 8 * 1024 * 1024;

/// The most that one Fetch brings of a partition.
pub const FETCH_PARTITION_BYTES_MAX: i32 = 1024 * 1024;

/// The largest response: a Fetch brings at least one batch, however large.
pub const RESPONSE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Bytes read from a socket at a time.
pub const SOCKET_CHUNK_BYTES: usize = 64 * 1024;

/// Records of a batch before compression, unless one record is larger.
pub const BATCH_BYTES_MAX: usize = 512 * 1024;

/// Records of one batch.
pub const BATCH_RECORDS_MAX: u32 = 10_000;

/// How long the producer waits for more lines before it sends what it has.
pub const LINGER: Duration = Duration::from_millis(5);

/// How long a batch may stay open while lines keep coming, unless it is full.
pub const LINGER_MAX: Duration = Duration::from_millis(50);

/// Lines that are read ahead.
pub const LINES_AHEAD_MAX: usize = 10_000;

/// The longest line.
pub const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Partitions whose logs one request asks about.
pub const QUORUMS_MAX: usize = 10_000;

/// How long a broker is given to hand over what it leads.
pub const TRANSFER_TIMEOUT_MS: i32 = 10_000;

/// How much of a partition `archive cat` reads and prints at a time.
pub const ARCHIVE_READ_BYTES: usize = 4 * 1024 * 1024;

/// How many partitions are exported at a time: each holds a file in memory.
pub const EXPORT_PARTITIONS_AT_ONCE: usize = 2;

/// How many partitions' histories are looked at at a time.
pub const ARCHIVE_PARTITIONS_AT_ONCE: usize = 8;

const _: () = assert!(FETCH_WAIT_MS as u128 * 2 < RESPONSE_TIMEOUT.as_millis());
const _: () = assert!((BROKER_TIMEOUT_MS as u128) < RESPONSE_TIMEOUT.as_millis());
const _: () = assert!(LINGER.as_millis() < LINGER_MAX.as_millis());
const _: () = assert!(FETCH_PARTITION_BYTES_MAX <= FETCH_BYTES_MAX);
const _: () = assert!((FETCH_BYTES_MAX as usize) < RESPONSE_BYTES_MAX);
