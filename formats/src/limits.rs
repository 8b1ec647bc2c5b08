//! Bounds of the stored formats, and how they relate.

/// A block of a segment is closed before the batch that would carry it past this many bytes…
pub const BLOCK_BYTES_TARGET: usize = 1 << 19;

/// …unless it holds fewer than this many yet.
pub const BLOCK_BYTES_MIN: usize = 1 << 18;

/// What a block of several batches holds at most; one batch that is larger is a block of its own.
pub const BLOCK_BYTES_SOFT_MAX: usize = 1 << 20;

/// What a reader lets one block hold, and so the largest batch that can be tiered.
pub const BLOCK_BYTES_MAX: usize = 128 << 20;

/// What a reader lets one section of a segment hold, expanded.
pub const SEGMENT_SECTION_BYTES_MAX: usize = 64 << 20;

/// What a reader lets a segment's footer take.
pub const FOOTER_BYTES_MAX: usize = 1 << 20;

/// How many bytes of a segment's end a reader asks for first: footer and block index of most segments.
pub const SUFFIX_BYTES: u64 = 64 << 10;

/// What a reader lets one section of a checkpoint hold, expanded.
pub const CHECKPOINT_SECTION_BYTES_MAX: usize = 256 << 20;

/// What a reader lets all sections of a checkpoint hold, expanded.
pub const CHECKPOINT_BYTES_MAX: usize = 1 << 30;

/// How many sections a checkpoint may have.
pub const CHECKPOINT_SECTIONS_MAX: u32 = 256;

/// What a reader lets a manifest node take.
pub const NODE_BYTES_MAX: usize = 16 << 20;

/// The highest level of a manifest node: with two children a node already more than any partition needs.
pub const NODE_LEVEL_MAX: u8 = 32;

/// Expanding reserves at most this much ahead of the bytes that it has produced.
pub const EXPAND_STEP_BYTES: usize = 1 << 20;

/// zstd frames that ask for a larger window than 2^this are refused.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Compressing a segment's blocks must save at least one part in this many to go on.
pub const COMPRESSION_PAYS_ONE_IN: usize = 10;

const _: () = assert!(BLOCK_BYTES_MIN < BLOCK_BYTES_TARGET && BLOCK_BYTES_TARGET < BLOCK_BYTES_SOFT_MAX);
const _: () = assert!(BLOCK_BYTES_SOFT_MAX < BLOCK_BYTES_MAX && BLOCK_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(CHECKPOINT_SECTION_BYTES_MAX <= CHECKPOINT_BYTES_MAX);
const _: () = assert!(CHECKPOINT_BYTES_MAX <= u32::MAX as usize);
