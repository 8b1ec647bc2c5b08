//! How much one peer may ask of this room.

/// The largest frame of a Produce request: Kafka's `socket.request.max.bytes`.
pub const PRODUCE_FRAME_BYTES_MAX: usize = 100 * 1024 * 1024;

/// The largest frame of any other request. `kafka-wire` may take 65 bytes of heap for a hostile byte, so this
/// bounds one such request to some 65 MiB.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Elements of one array in a Produce request. Arrays nest twice (topics, partitions) and an element costs at least
/// eight bytes of frame, so this bounds what a hostile frame makes of it.
pub const PRODUCE_ARRAY_ELEMENTS_MAX: usize = 4096;

/// Elements of one array in any other request.
pub const ARRAY_ELEMENTS_MAX: usize = 65_536;

/// Bytes of one string: what a non-compact length can say.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Unknown tagged fields in one structure, and the bytes of them.
pub const TAGGED_FIELDS_MAX: usize = 64;
/// See [`TAGGED_FIELDS_MAX`].
pub const TAG_BYTES_MAX: usize = 64 * 1024;

/// The largest batch by default: Kafka's `max.message.bytes`, 1 MiB and its twelve bytes of log overhead.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024 + 12;

/// The most that one batch may decompress to by default.
pub const DECOMPRESSED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most decompressed bytes per compressed byte. zstd and gzip reach some thousands on constant data; deflate's
/// own bound is 1032, zstd has none.
pub const DECOMPRESSION_RATIO_MAX: usize = 4096;

/// Output that is allowed whatever the ratio, so that small batches of constant data pass.
pub const DECOMPRESSION_FREE_BYTES: usize = 1024 * 1024;

/// The largest zstd window, 2^23 = 8 MiB: what the zstd format asks every decoder to support.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Bytes decompressed at a time, so that memory grows with real output.
pub const DECOMPRESSION_CHUNK_BYTES: usize = 32 * 1024;

/// Chunks of records up to this many bytes are copied into the answer to a Fetch: a piece of its own costs the kernel
/// about as much as copying that.
pub const CHUNK_COPIED_MAX: usize = 2 * 1024;

/// Records of refused batches that a producer is told of one by one, in one answer.
pub const REJECTED_RECORDS_MAX: usize = 1024;

/// Headers of one record.
pub const RECORD_HEADERS_MAX: usize = 65_536;

const _: () = assert!(FRAME_BYTES_MAX <= PRODUCE_FRAME_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX <= PRODUCE_FRAME_BYTES_MAX);
const _: () = assert!(DECOMPRESSION_FREE_BYTES <= DECOMPRESSED_BYTES_MAX);
const _: () = assert!(DECOMPRESSION_CHUNK_BYTES <= DECOMPRESSION_FREE_BYTES);
const _: () = assert!(1 << ZSTD_WINDOW_LOG_MAX <= DECOMPRESSED_BYTES_MAX);
