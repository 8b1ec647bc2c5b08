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

/// Terms and indexes above this come from no log that ever was.
pub const POSITION_MAX: u64 = 1 << 62;

const _: () = assert!(ENVELOPE_BYTES_MAX > ENTRY_BYTES_MAX + MESSAGE_BYTES_MAX as usize + 4096);
const _: () = assert!(UNCOMMITTED_BYTES_MAX as usize >= ENTRY_BYTES_MAX);
