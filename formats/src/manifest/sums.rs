//! What a reference to a node says of what lies below it, and holds it to.

use varve_common::{Digest, Offset};

use super::{Entry, FoldError, FoldPlan, NodeReference};

impl FoldPlan {
    /// The level of the node to write.
    #[must_use]
    pub const fn level(&self) -> u8 {
        match self {
            Self::Leaf(_) => 0,
            Self::Inner { level, .. } => *level,
        }
    }

    /// The reference to the node that was written under `uid` in this life, with its length in bytes and its digest.
    #[must_use]
    pub fn reference(&self, incarnation: u32, uid: u64, (length, sha256): (u64, Digest)) -> NodeReference {
        let Sums { base, last, entries, segment_bytes, batch_bytes, max_timestamp } = self.sums();
        let level = self.level();
        NodeReference {
            level,
            incarnation,
            uid,
            base,
            last,
            entries,
            segment_bytes,
            max_timestamp,
            length,
            sha256,
            batch_bytes: Some(batch_bytes),
        }
    }

    /// What a reference to the written node says beside its identity.
    #[must_use]
    pub fn sums(&self) -> Sums {
        match self {
            Self::Leaf(entries) => entries.iter().map(Sums::of_entry).fold(Sums::NONE, Sums::with),
            Self::Inner { references, .. } => {
                references.iter().map(Sums::of_node).fold(Sums::NONE, Sums::with)
            }
        }
    }
}

/// What a node's reference says of what lies below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    /// The first offset.
    pub base: Offset,
    /// The last offset.
    pub last: Offset,
    /// Segments, all levels.
    pub entries: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Bytes of the record batches in them.
    pub batch_bytes: u64,
    /// The largest record timestamp, -1 where there is none.
    pub max_timestamp: i64,
}

impl Sums {
    const NONE: Self = Self {
        base: Offset(u64::MAX),
        last: Offset(0),
        entries: 0,
        segment_bytes: 0,
        batch_bytes: 0,
        max_timestamp: -1,
    };

    fn of_entry(entry: &Entry) -> Self {
        Self {
            base: entry.base,
            last: entry.last,
            entries: 1,
            segment_bytes: entry.length,
            batch_bytes: entry.batch_bytes,
            max_timestamp: entry.max_timestamp,
        }
    }

    fn of_node(node: &NodeReference) -> Self {
        Self {
            base: node.base,
            last: node.last,
            entries: node.entries,
            segment_bytes: node.segment_bytes,
            batch_bytes: node.log_bytes(),
            max_timestamp: node.max_timestamp,
        }
    }

    /// What was decoded may claim any sums: none of them wraps.
    fn with(self, other: Self) -> Self {
        Self {
            base: self.base.min(other.base),
            last: self.last.max(other.last),
            entries: self.entries.saturating_add(other.entries),
            segment_bytes: self.segment_bytes.saturating_add(other.segment_bytes),
            batch_bytes: self.batch_bytes.saturating_add(other.batch_bytes),
            max_timestamp: self.max_timestamp.max(other.max_timestamp),
        }
    }
}

pub(super) fn check_sums(node: &NodeReference, plan: &FoldPlan) -> Result<(), FoldError> {
    let sums = plan.sums();
    // A reference from before it counted the log's bytes, in a log that is replayed, says nothing of them.
    let batch_bytes = node.batch_bytes.unwrap_or(sums.batch_bytes);
    if (Sums { batch_bytes, ..Sums::of_node(node) }) == sums {
        Ok(())
    } else {
        Err(FoldError::Sums { base: node.base, last: node.last })
    }
}
