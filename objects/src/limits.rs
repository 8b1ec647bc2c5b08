//! The bounds of this room, and how they relate.

use std::time::Duration;

/// The longest key, in bytes: S3's bound.
pub const KEY_BYTES_MAX: usize = 1024;
/// The longest part of a key between slashes, in bytes: what a local file system takes as a name.
pub const KEY_PART_BYTES_MAX: usize = 255;
/// The largest object that is put in one request. S3 takes 5 GiB; nothing here is multipart below 128 MiB.
pub const OBJECT_BYTES_MAX: u64 = 128 << 20;
/// The most keys in one page of a listing: S3's own page.
pub const LIST_PAGE_MAX: usize = 1000;

/// A directory's reads from [`DIRECT_READ_BYTES_MIN`] to this length go past the page cache, into memory that is used again and
/// as long as the longest of them: what holds a shorter one holds at most twice its bytes. The cache of chunks reads 4 MiB.
pub const DIRECT_READ_BYTES_MAX: u64 = 4 << 20;
/// See [`DIRECT_READ_BYTES_MAX`].
pub const DIRECT_READ_BYTES_MIN: u64 = DIRECT_READ_BYTES_MAX / 2;
/// So much memory for such reads is kept while none is under way.
pub const READ_BUFFERS_KEPT: usize = 8;
/// A directory writes an object past the page cache in pieces of this length.
pub const DIRECT_WRITE_BYTES: u64 = 1 << 20;

/// The longest wait for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that one request may take with its body: 64 MiB over a link of 4 Mbit/s with time to spare.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(180);

/// The longest pause between two pieces of an answer.
pub const READ_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The most tries of one request.
pub const ATTEMPTS_MAX: u32 = 5;
/// The pause after the first failed try, before jitter.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest pause between two tries, before jitter.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The longest that one try may take as the retrying decorator sees it.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(200);
/// How often bytes that do not match their checksum are fetched before they are called corrupt.
pub const VERIFIED_READS_MAX: u32 = 3;

/// Requests a second that a node makes unless told otherwise: below what S3 answers for one prefix (5,500 reads).
pub const REQUESTS_PER_SECOND: u32 = 5_000;
/// How often at most the pace is cut: answers to what was under way at the last cut say nothing new.
pub const SLOW_DOWN_EVERY: Duration = Duration::from_secs(1);
/// How long the store must not have asked before the pace grows again.
pub const SLOW_DOWN_REST: Duration = Duration::from_secs(2);
/// The slowest pace, in requests a second: slower, and nobody would find out that the store has recovered.
pub const SLOW_DOWN_FLOOR: f64 = 10.0;

/// How many writers the probe and the conformance suite let race for one key.
pub const RACING_WRITERS: usize = 8;

// The client gives up first, so that its error, which says more, is the one that is seen.
const _: () = assert!(ATTEMPT_TIMEOUT.as_millis() > REQUEST_TIMEOUT.as_millis());
const _: () = assert!(CONNECT_TIMEOUT.as_millis() < REQUEST_TIMEOUT.as_millis());
const _: () = assert!(BACKOFF_FIRST.as_millis() < BACKOFF_MAX.as_millis());
const _: () = assert!(SLOW_DOWN_EVERY.as_millis() < SLOW_DOWN_REST.as_millis());
const _: () = assert!(KEY_PART_BYTES_MAX < KEY_BYTES_MAX);
// An object of the largest size passes in time over a link of 1 MiB/s.
const _: () = assert!(OBJECT_BYTES_MAX / (1 << 20) <= REQUEST_TIMEOUT.as_secs());
