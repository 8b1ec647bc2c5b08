//! The bounds of this room, and how they relate.

use std::time::Duration;

use varve_formats::limits::{BLOCK_BYTES_SOFT_MAX, BLOCK_BYTES_TARGET, SUFFIX_BYTES};

/// How much of the write-ahead log one step of an upload or a seal reads.
pub const SOURCE_READ_BYTES: u64 = 1 << 20;
/// What a segment takes beside its batches: block headers, index, sections and footer of a segment of 64 MiB.
pub const SEGMENT_OVERHEAD_BYTES: u64 = 1 << 20;
/// A segment file is written in pieces of about this size.
pub const SEAL_WRITE_BYTES: usize = 1 << 20;
/// How many segment files of this node are open at a time.
pub const OPEN_FILES_MAX: usize = 256;
/// The alignment and size of a chunk of a bucket object (TIERING.md 10).
pub const CHUNK_BYTES: u64 = 4 << 20;
/// What a first look into a segment brings: a quarter of it before the place where the batch is supposed, and a quarter behind
/// what is wanted there, of which it takes up to a half. So a block more lies on both sides of what Kafka's consumers ask of a
/// partition.
pub const GLIMPSE_BYTES: usize = 2 << 20;
/// So many of them are kept until their readers have come again.
pub const GLIMPSES_MAX: usize = 4;
/// The farthest that a sequential reader is read ahead for.
pub const READ_AHEAD_BYTES_MAX: u64 = 64 << 20;
/// Of the chunk cache, the part that one reader's read-ahead may fill: one in this many. All readers' together take twice
/// of it at most.
pub const READ_AHEAD_CACHE_SHARE: u64 = 4;
/// How many chunks are on their way from the store at a time: memory beside the caches.
pub const FILLS_MAX: usize = 32;
/// Of these, how many that nobody waits for yet.
pub const FILLS_AHEAD_MAX: usize = 16;
/// Among so many of the last reads those are counted that share the room for read-ahead.
pub const READERS_WINDOW: usize = 32;
/// How many sequential readers are remembered.
pub const CURSORS_MAX: usize = 4096;
/// How many tasks are at the slab file at a time: the other threads never wait for its disk.
pub const SLAB_USERS_MAX: usize = 2;
/// A read or a write of the slab that takes so long says that its disk has no time for it.
pub const SLAB_SLOW: Duration = Duration::from_millis(250);
/// How long it is passed by then.
pub const SLAB_REST: Duration = Duration::from_secs(10);
/// So many failures in a row end the cache until the next start.
pub const SLAB_FAILURES_MAX: u32 = 3;
/// Of the disk, the part that must stay free beside the slab: one in this many,
pub const SLAB_FREE_SHARE: u64 = 10;
/// or so many bytes, where that is less.
pub const SLAB_FREE_BYTES: u64 = 8 << 30;
/// A chunk that is asked for again within so many times the slab's frames comes in.
pub const SLAB_HORIZON: usize = 4;
/// How much a search by time reads at a time.
pub const SCAN_BYTES: usize = 1 << 20;
/// How many ways from segment to segment are tried where a manifest's leaf is made again, and how many steps it takes to
/// find them: what was replaced, or given up, is beside what the leaf named.
pub const CHAINS_MAX: usize = 16;
/// See [`CHAINS_MAX`].
pub const CHAIN_STEPS_MAX: usize = 1 << 20;

const _: () = assert!(CHUNK_BYTES > SUFFIX_BYTES && CHUNK_BYTES < READ_AHEAD_BYTES_MAX);
const _: () = assert!(GLIMPSE_BYTES / 4 >= BLOCK_BYTES_TARGET && (GLIMPSE_BYTES as u64) < CHUNK_BYTES);
const _: () = assert!(FILLS_AHEAD_MAX < FILLS_MAX);
const _: () = assert!(SCAN_BYTES >= BLOCK_BYTES_SOFT_MAX);
