//! The manifest: what of a partition is in the bucket, as a tree of immutable nodes (TIERING.md 4).

mod algebra;
mod codec;
mod sums;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod tests_support;

pub use algebra::{AppendError, FoldError, FoldPlan, LeafError, Place, ReplaceError, Trimmed};
pub use sums::Sums;

use varve_common::{Digest, LogIndex, Offset, Term};

/// What kind of object holds a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// One rolled segment.
    Raw = 1,
    /// Several adjacent segments merged.
    Merged = 2,
    /// Compacted: offsets inside may be missing.
    Compacted = 3,
    /// A part of an object that several partitions share.
    Pack = 4,
}

/// One range in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which store, 0 the first.
    pub store_id: u16,
    /// What holds it.
    pub kind: EntryKind,
    /// The life of the cluster in which it was written: part of the key.
    pub incarnation: u32,
    /// Part of the key.
    pub term: Term,
    /// Part of the key.
    pub uid: u64,
    /// Where the segment begins in its object (packs).
    pub position: u64,
    /// The segment's length in bytes.
    pub length: u64,
    /// The first offset that the range covers.
    pub base: Offset,
    /// The last offset that the range covers (inclusive, as in the key).
    pub last: Offset,
    /// How many records are there.
    pub count: u64,
    /// The smallest record timestamp, -1 where there is none.
    pub min_timestamp: i64,
    /// The largest record timestamp, -1 where there is none.
    pub max_timestamp: i64,
    /// Raft index of the first entry of the range.
    pub first_index: LogIndex,
    /// Raft index of the roll that closed it: the log may be cut up to and with it.
    pub roll_index: LogIndex,
    /// The term of the entry at `roll_index`.
    pub roll_term: Term,
    /// First and last term of the records.
    pub terms: (Term, Term),
    /// Whether no transaction was aborted in the range.
    pub txn_index_empty: bool,
    /// When tombstones in it may go, 0 where none (compaction).
    pub delete_horizon_ms: i64,
    /// Bytes of the record batches in it, before compression of blocks.
    pub batch_bytes: u64,
    /// SHA-256 of the segment.
    pub sha256: Digest,
}

impl Entry {
    /// The first offset behind the range.
    #[must_use]
    pub const fn end(&self) -> Offset {
        self.last.next()
    }
}

/// A node of the tree, in an object of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReference {
    /// 0 for a leaf of entries, else a node of references to lower levels.
    pub level: u8,
    /// The life of the cluster in which it was written: part of the key.
    pub incarnation: u32,
    /// Part of the key.
    pub uid: u64,
    /// The first offset that it covers.
    pub base: Offset,
    /// The last offset that it covers.
    pub last: Offset,
    /// Entries below it, all levels.
    pub entries: u64,
    /// Bytes of the segments below it.
    pub segment_bytes: u64,
    /// The largest record timestamp below it.
    pub max_timestamp: i64,
    /// Its length in bytes.
    pub length: u64,
    /// Its SHA-256.
    pub sha256: Digest,
    /// Bytes of the record batches below it; `None` where it was written before references knew.
    pub batch_bytes: Option<u64>,
}

/// How many entries a root holds inline, and how many references, before they are folded into a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FanOut(pub u32);

impl FanOut {
    /// What production uses (TIERING.md 4).
    pub const DEFAULT: Self = Self(1024);
}

/// The root: the only part of the tree that is held in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Root {
    /// The end of what was trimmed: where an empty manifest ends, and the next entry begins.
    pub start: Offset,
    /// Older ranges, in order.
    pub nodes: Vec<NodeReference>,
    /// Newer ranges, in order, behind those of `nodes`.
    pub entries: Vec<Entry>,
}
