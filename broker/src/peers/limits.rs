//! The bounds of what nodes say to each other, and how they relate.

use std::time::Duration;

use varve_consensus::limits::ENVELOPE_BYTES_MAX;

/// A greeting or its answer, in bytes.
pub const GREETING_BYTES_MAX: usize = 4 << 10;

/// A question of a seed, in bytes.
pub const PROBE_BYTES_MAX: usize = 1 << 10;

/// Its answer: the names of all seeds and members, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The body of a call, or of the reply, in bytes.
pub const CALL_BYTES_MAX: usize = 8 << 20;

/// How much a socket is read at once before a frame is known to need more; from there on the buffer doubles as bytes arrive.
pub const READ_BYTES: usize = 64 << 10;

/// How much is written at once, in bytes; a single larger frame goes alone.
pub const WRITE_BYTES: usize = 256 << 10;

/// What a buffer keeps between frames, in bytes.
pub const BUFFER_KEPT_BYTES: usize = 1 << 20;

/// Nodes that this one has a link to.
pub const LINKS_MAX: usize = 1024;

/// Connections from other nodes in all, and from one address: some hundred nodes with three connections each.
pub const INBOUND_MAX: usize = 1024;

/// See [`INBOUND_MAX`].
pub const INBOUND_PER_ADDRESS_MAX: usize = 256;

/// Connections that wait to be accepted.
pub const BACKLOG: u32 = 1024;

/// How long accepting pauses when there are no file descriptors left.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Addresses of one name that are tried.
pub const ADDRESSES_MAX: usize = 16;

/// Calls to one node that wait for their reply.
pub const CALLS_MAX: usize = 256;

/// Their bodies, in bytes.
pub const CALLS_BYTES_MAX: usize = 32 << 20;

/// Calls of one connection that are served at once, then it is not read; and their bodies, in bytes. Twice what a caller has on its
/// way: some that it has given up may still run here.
pub const SERVED_MAX: usize = 2 * CALLS_MAX;

/// See [`SERVED_MAX`].
pub const SERVED_BYTES_MAX: usize = 2 * CALLS_BYTES_MAX;

/// The longest that a call is served, whatever its caller asks for.
pub const SERVED_FOR_MAX: Duration = Duration::from_secs(60);

const _: () = assert!(WRITE_BYTES <= BUFFER_KEPT_BYTES);
const _: () = assert!(CALLS_BYTES_MAX >= 2 * CALL_BYTES_MAX);
const _: () = assert!(GREETING_BYTES_MAX <= READ_BYTES && PROBE_BYTES_MAX <= READ_BYTES);

/// What tests shorten.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Frames that wait for one peer.
    pub queue_frames_max: usize,
    /// About the memory that they hold, in bytes.
    pub queue_bytes_max: usize,
    /// From a name until the peer has said who it is.
    pub dial_max: Duration,
    /// Until a connection that was accepted has said who it is, or has asked what it wants to know.
    pub greet_max: Duration,
    /// The first pause after a connection was lost, or could not be made; it doubles.
    pub pause_min: Duration,
    /// The longest pause: a peer that returns is heard within about this.
    pub pause_max: Duration,
    /// A sender that has nothing to say says so.
    pub ping_every: Duration,
    /// A receiver to which bytes came shows that it lives, at most so often.
    pub alive_every: Duration,
    /// A peer that has shown no life for so long is gone: half-open connections end here.
    pub silent_max: Duration,
    /// Connections from others that bring nothing for so long are closed.
    pub inbound_silent_max: Duration,
    /// A connection for calls that nobody uses is closed.
    pub call_idle_max: Duration,
    /// Each so often a seed is asked again who it is: names move.
    pub seed_recheck: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_frames_max: 16 << 10,
            queue_bytes_max: 32 << 20,
            dial_max: Duration::from_secs(3),
            greet_max: Duration::from_secs(5),
            pause_min: Duration::from_millis(50),
            pause_max: Duration::from_secs(1),
            ping_every: Duration::from_secs(1),
            alive_every: Duration::from_millis(500),
            silent_max: Duration::from_secs(4),
            inbound_silent_max: Duration::from_secs(10),
            call_idle_max: Duration::from_secs(60),
            seed_recheck: Duration::from_secs(60),
        }
    }
}

impl Limits {
    /// Whether the bounds fit each other: a queue holds the largest message, and somebody who lives shows it in time.
    pub(super) fn check(&self) {
        assert!(self.queue_bytes_max > ENVELOPE_BYTES_MAX, "the largest message fits a queue");
        assert!(self.queue_frames_max > 0);
        assert!(self.ping_every + self.alive_every < self.silent_max, "who lives shows it in time");
        assert!(self.silent_max <= self.inbound_silent_max, "the sender finds out first");
        assert!(self.pause_min <= self.pause_max);
    }
}
