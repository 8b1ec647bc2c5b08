//! The bounds of the network layer.

use std::time::Duration;

use varve_replica::limits::{INFLIGHT_BYTES_MAX, QUEUED_BYTES_MAX};

use crate::config::{Budgets, Connections};

/// The least that a connection's buffer has room for.
pub const READ_BYTES_MIN: usize = 4 << 10;

/// The most that a connection's buffer has room for before a frame is known to need more; from there on it doubles as
/// bytes arrive.
pub const READ_BYTES: usize = 64 << 10;

/// How many requests of one connection run or wait at once; then its socket is not read.
pub const PIPELINE_MAX: usize = 128;

/// Bytes of the requests of one connection that run at once; then its socket is not read. A quarter of what one partition has
/// under way, and what goes beyond that waits there: it takes dozens of producers together until one of them is refused.
pub const PIPELINE_BYTES_MAX: usize = 4 << 20;

/// How many buffers one write passes to the kernel.
pub const WRITE_SLICES_MAX: usize = 256;

/// Bytes of responses that wait behind one write; then no further answer is taken up. It is also the most that one call hands
/// to the kernel, which copies it while the thread's other connections wait.
pub const WRITE_BYTES_MAX: usize = 256 << 10;

/// Connections that wait to be accepted.
pub const BACKLOG: u32 = 1024;

/// How long accepting pauses when there are no file descriptors left.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a frame waits for the budget before it may be the one that goes beyond it.
pub const BEYOND_WAIT: Duration = Duration::from_secs(1);

/// How often one kind of complaint about strangers is logged.
pub const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

const _: () = assert!(READ_BYTES_MIN <= READ_BYTES);
const _: () = assert!(WRITE_SLICES_MAX <= 1024, "IOV_MAX");
const _: () = assert!(4 * PIPELINE_BYTES_MAX as u64 <= INFLIGHT_BYTES_MAX);
const _: () = assert!(32 * PIPELINE_BYTES_MAX as u64 <= QUEUED_BYTES_MAX);
const _: () = assert!(PIPELINE_MAX > 5, "an idempotent producer has five requests in flight");

/// What may vary: by configuration, and in tests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all.
    pub total_max: usize,
    /// Connections from one address.
    pub per_address_max: usize,
    /// The largest frame.
    pub frame_bytes_max: usize,
    /// Memory for frames that arrive or are in flight, over all connections; a frame that is larger than all of it comes alone.
    pub budget_bytes: usize,
    /// Until a connection's first request is there.
    pub first_request_max: Duration,
    /// Until a frame that began is there; a frame that keeps `rate_bytes_min` gets the time that it needs.
    pub frame_max: Duration,
    /// The least that a frame must arrive at, in bytes per second, beyond `frame_max`.
    pub rate_bytes_min: u64,
    /// Between requests.
    pub idle_max: Duration,
    /// Until a client takes more of its answer.
    pub write_stall_max: Duration,
    /// Until answers in flight have left, at shutdown.
    pub drain_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total_max: 10_000,
            per_address_max: 2_000,
            frame_bytes_max: 100 << 20,
            budget_bytes: 512 << 20,
            first_request_max: Duration::from_secs(10),
            frame_max: Duration::from_secs(30),
            rate_bytes_min: 64 << 10,
            idle_max: Duration::from_secs(600),
            write_stall_max: Duration::from_secs(30),
            drain_max: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// The configured limits; deadlines that nobody needs to change stay as they are.
    #[must_use]
    pub fn from_config(connections: &Connections, memory: &Budgets) -> Self {
        Self {
            total_max: connections.total_max,
            per_address_max: connections.per_address_max,
            frame_bytes_max: connections.frame_bytes_max,
            budget_bytes: memory.requests as usize,
            idle_max: connections.idle_max,
            ..Self::default()
        }
    }
}
