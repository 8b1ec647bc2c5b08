//! What a reader must know of a partition.

use std::sync::Arc;

use varve_common::{GroupId, Offset};
use varve_formats::{
    PartitionIdentity,
    manifest::Root,
    state::{RollEntry, SealEntry},
};

/// One partition as it was at one instant: borrowed from the view that the core published.
///
/// ```text
/// log_start                  root.end()            last roll's end       below
///     |  bucket (root)           |  rolls (sealed or in the WAL)  |  WAL    |
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PartitionExtent<'a> {
    /// Its group: names it in the write-ahead log, the tail cache and the directory of sealed files.
    pub group: GroupId,
    /// Whose objects and files they are.
    pub identity: &'a PartitionIdentity,
    /// The first offset that exists.
    pub log_start: Offset,
    /// What is in the bucket.
    pub root: &'a Arc<Root>,
    /// Rolled ranges that are neither tiered nor trimmed, in order.
    pub rolls: &'a [RollEntry],
    /// Sealed files of this node, in order.
    pub seals: &'a [SealEntry],
}

impl<'a> PartitionExtent<'a> {
    /// The sealed file that covers an offset.
    #[must_use]
    pub fn seal(&self, offset: Offset) -> Option<&'a SealEntry> {
        let place = self.seals.partition_point(|seal| seal.end <= offset);
        self.seals.get(place).filter(|seal| seal.base <= offset)
    }
}
