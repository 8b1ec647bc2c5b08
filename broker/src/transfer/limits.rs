//! The bounds of what moves between nodes, and how they relate.

use std::time::Duration;

use crate::peers::limits::CALL_BYTES_MAX;

/// A piece of a file, in bytes: what a transfer holds in memory at either end.
pub const PIECE_BYTES: u64 = 1 << 20;

/// Groups that bring something to this node at a time.
pub const MOVES_MAX: usize = 4;

/// Pieces that this node reads for others at a time.
pub const SERVED_PIECES_MAX: usize = 4;

/// How long a piece may take, the other node's pace included.
pub const PIECE_PATIENCE: Duration = Duration::from_secs(30);

/// The pause before the next node is asked where one has none, or does not answer.
pub const ASK_AGAIN: Duration = Duration::from_millis(200);

/// How often each node is asked anew before a transfer fails; its group tries again later.
pub const ROUNDS_MAX: usize = 3;

/// Sealed files whose marks are written together: so many,
pub const BATCH_FILES: usize = 64;

/// or so many bytes.
pub const BATCH_BYTES: u64 = 64 << 20;

/// The slowest pace, in bytes a second: a piece must come within its patience, after those that wait before it.
pub const PACE_MIN: u64 = 1 << 20;

/// What a segment file may have beside its batches, in bytes: the tables of producers, transactions and blocks.
pub const FILE_OVERHEAD_MAX: u64 = 256 << 20;

const _: () = assert!(2 * PIECE_BYTES <= CALL_BYTES_MAX as u64);
const _: () =
    assert!(PIECE_BYTES * (SERVED_PIECES_MAX + MOVES_MAX) as u64 / PACE_MIN < PIECE_PATIENCE.as_secs());
