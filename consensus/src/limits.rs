//! The bounds of this crate, and how they relate.

/// The largest entry that may be proposed, in bytes.
pub const ENTRY_BYTES_MAX: usize = 8 << 20;

/// Entries in one append message, in bytes; a single larger entry still travels, alone.
pub const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// The encoded length of one message from a peer, in bytes.
pub const ENVELOPE_BYTES_MAX: usize = 10 << 20;

/// Entries in one message from a peer.
pub const MESSAGE_ENTRIES_MAX: usize = 1 << 16;

/// The context that a heartbeat or a forced vote may carry, in bytes.
pub const CONTEXT_BYTES_MAX: usize = 64;

/// Append messages on their way to one follower.
pub const INFLIGHT_MESSAGES_MAX: usize = 64;

/// Append messages on their way to one follower, in bytes.
pub const INFLIGHT_BYTES_MAX: usize = 8 << 20;

/// Reads that wait for the next round, per group.
pub const READS_MAX: usize = 16 * 1024;

/// What a snapshot message may say of where its checkpoint lies, in bytes.
pub const POINTER_BYTES_MAX: usize = 4096;

/// Proposed and not yet committed, per group, in bytes.
pub const UNCOMMITTED_BYTES_MAX: u64 = 32 << 20;

/// Committed entries handed out in one ready, in bytes; a single larger entry still goes, alone.
pub const COMMITTED_BYTES_MAX: u64 = 8 << 20;

/// Readies given out and not yet reported durable, per group.
pub const READIES_IN_FLIGHT_MAX: usize = 256;

/// Applied entries that a group with peers keeps in memory for followers that lag a little, in bytes.
pub const RECENT_BYTES_MAX: usize = 1 << 20;

/// Log reads that wait for the disk, per group.
pub const FETCHES_MAX: usize = 32;

/// The encoded length of one pulse, in bytes.
pub const PULSE_BYTES_MAX: usize = 4 << 20;

/// Beats, and as many answers, in one pulse; more go in another at once.
pub const PULSE_BEATS_MAX: usize = 8192;

/// Reports of leaders in one pulse.
pub const REPORTS_MAX: usize = 1024;

/// Groups at rest that one pulse asks the peer to confirm.
pub const RESTING_MAX: usize = 64;

/// Groups that one pulse asks its receiver to write something to; more are asked for again.
pub const PRESSED_MAX: usize = 64;

/// Groups that the death of a node wakes in one tick.
pub const WAKES_PER_TICK_MAX: usize = 256;

/// The least that a replica waits for an election once its leader's process has ended: the other members learn of it by dialling
/// in vain, which takes them a moment.
pub const GONE_TICKS: usize = 2;
/// Late ticks in a row that start timers anew instead of elections.
pub const LATE_TICKS_FORGIVEN: u32 = 2;

/// Ticks in which the replica that is to lead a new group asks for votes.
pub const FIRST_ROUNDS: u32 = 10;

/// A seed asks the others each so many ticks.
pub const PROBE_TICKS: u64 = 5;

/// A seed's answer counts for so many ticks.
pub const ANSWER_TICKS: u64 = 30;

/// Terms and indexes above this come from no log that ever was.
pub const POSITION_MAX: u64 = 1 << 62;

const _: () = assert!(ENVELOPE_BYTES_MAX > ENTRY_BYTES_MAX + MESSAGE_BYTES_MAX as usize + 4096);
const _: () =
    assert!(PULSE_BYTES_MAX > 2 * PULSE_BEATS_MAX * (45 + CONTEXT_BYTES_MAX) + REPORTS_MAX * 128 + 65_536);
const _: () = assert!(ANSWER_TICKS >= 4 * PROBE_TICKS);
const _: () = assert!(INFLIGHT_BYTES_MAX as u64 >= MESSAGE_BYTES_MAX);
const _: () = assert!(UNCOMMITTED_BYTES_MAX as usize >= ENTRY_BYTES_MAX);
