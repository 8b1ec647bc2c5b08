//! The bounds of this room, and how they relate.

use varve_formats::limits::{BLOCK_BYTES_SOFT_MAX, SUFFIX_BYTES};

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
/// The farthest that a sequential reader is read ahead for.
pub const READ_AHEAD_BYTES_MAX: u64 = 64 << 20;
/// Of the chunk cache, the part that one reader's read-ahead may fill: one in this many.
pub const READ_AHEAD_CACHE_SHARE: u64 = 4;
/// How many sequential readers are remembered.
pub const CURSORS_MAX: usize = 4096;
/// How much a search by time reads at a time.
pub const SCAN_BYTES: usize = 1 << 20;

const _: () = assert!(CHUNK_BYTES > SUFFIX_BYTES && CHUNK_BYTES < READ_AHEAD_BYTES_MAX);
const _: () = assert!(SCAN_BYTES >= BLOCK_BYTES_SOFT_MAX);
