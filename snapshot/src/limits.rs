//! Bounds of this room.

/// How often a checkpoint whose bytes are wrong is read before it counts as damaged: the way here may have spoiled it.
pub const READS_MAX: usize = 2;

/// How many claims and completions a prefix may hold: one of each a restore.
pub const CLAIMS_MAX: usize = 10_000;

/// How many checkpoints one choice looks at before it gives up on a group.
pub const CANDIDATES_MAX: usize = 64;

/// How many local checkpoints a group keeps: the log may be cut below the older of them (TIERING.md 6).
pub const LOCAL_CHECKPOINTS: usize = 2;

const _: () = assert!(READS_MAX >= 1 && CANDIDATES_MAX > LOCAL_CHECKPOINTS);
