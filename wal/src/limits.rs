//! The bounds of this room, and how they relate.

/// The alignment of everything that `O_DIRECT` writes, and the size of a file's header and trailer.
pub use varve_common::aligned::BLOCK_BYTES;
/// The alignment of batches and records in a buffered file.
pub const ALIGNMENT: u64 = 8;
/// The smallest WAL file; production uses 64 MiB.
pub const FILE_BYTES_MIN: u64 = 8 * BLOCK_BYTES;
/// The largest WAL file, also after it was widened for one large batch: places in a file are 32-bit numbers.
pub const FILE_BYTES_MAX: u64 = 1 << 30;
/// The largest batch that one append writes.
pub const BATCH_BYTES_MAX: u64 = 256 << 20;
/// Entries are split into records of about this size, so that a read of one entry checks no more than this.
pub const RECORD_BYTES_TARGET: usize = 256 << 10;
/// Neighbouring records of a group are one run in the index up to this many bytes.
pub const RUN_BYTES_MAX: u64 = 64 << 10;
/// Two reads closer than this become one.
pub const COALESCE_GAP_BYTES: u64 = 8 << 10;
/// One read is at most this long, unless one record is longer.
pub const READ_BYTES_MAX: u64 = 1 << 20;
/// Reads from this length on use memory again, and go past the cache where they are told to. Such memory is as long as the longest
/// read, so what holds a shorter one holds at most twice its bytes.
pub const LONG_READ_BYTES: u64 = READ_BYTES_MAX / 2;
/// So much of it is kept.
pub const READ_BUFFERS_KEPT: usize = 4;
/// A file without an index is read in pieces of this length.
pub const SCAN_BYTES: u64 = 1 << 20;
/// The forward rewrite copies about this much per batch.
pub const REWRITE_BATCH_BYTES: u64 = 1 << 20;
/// Files below `bytes_max` that entries do not take: what frees space must not need space that is gone. The last of
/// them is the forward rewrite's alone.
pub const RESERVE_FILES: u64 = 2;
/// Files kept for reuse, the reserve among them: so many in a small log, and up to so many where they are this share of it. A
/// checkpoint frees several files at once, and a new one would have to be written twice: with zeros first.
pub const SPARE_FILES: std::ops::RangeInclusive<u64> = 3..=16;
/// Rounds without work, 50 ms each, after which the spares beyond the least go: 20 s.
pub const SPARES_QUIET_ROUNDS: u32 = 400;
/// One spare for so many files of `bytes_max`.
pub const FILES_PER_SPARE: u64 = 8;
/// Entries that readers could not read and that the writer has not looked at again; more are found anew.
pub const SUSPECTS_MAX: usize = 1024;
/// A place that the disk does not give is tried so often by the forward rewrite before it counts as rotten.
pub const UNREADABLE_TRIES: u32 = 8;
/// Damaged groups together keep at most this share of `bytes_max` in the log; the rest of theirs is set aside, so that
/// they never keep the others from writing.
pub const DAMAGED_SHARE: u64 = 8;
/// Where setting aside was refused (no room), so many rounds of housekeeping pass before the next try.
pub const ASIDE_PAUSE_ROUNDS: u32 = 256;
/// Zeros are written ahead of the batches in pieces of this size, each with its own sync.
pub const FILL_BYTES: u64 = 1 << 20;
/// Batches that the disk makes durable at the same time, the production threads. More would split what one sync serves.
pub const LANES: usize = 2;
/// A second sync begins beside one in flight only for so much: what it would serve of small batches, the next one serves as well.
pub const SECOND_SYNC_BYTES: u64 = 256 << 10;
/// Memory of batches is kept for so many of them, one a lane and one that is being encoded,
pub const BUFFERS_KEPT: usize = LANES + 1;
/// and none larger than this. Most batches are smaller.
pub const BUFFER_BYTES_KEPT: usize = 5 << 20;
/// The production threads' queue, in bytes; whoever submits beyond it waits.
pub const QUEUE_BYTES_MAX: u64 = 64 << 20;
/// A production thread writes at most this much per batch.
pub const GROUP_COMMIT_BYTES_MAX: u64 = 8 << 20;

const _: () = assert!(GROUP_COMMIT_BYTES_MAX < QUEUE_BYTES_MAX && QUEUE_BYTES_MAX < BATCH_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX < FILE_BYTES_MAX && FILE_BYTES_MAX <= u32::MAX as u64);
const _: () = assert!(RESERVE_FILES >= 2);
const _: () = assert!(BLOCK_BYTES.is_multiple_of(ALIGNMENT) && RECORD_BYTES_TARGET as u64 <= READ_BYTES_MAX);
