//! How much of what is tiered may stay on this node besides (`varve.hot.bytes.max`): the sealed files of all groups
//! together, and whose go first where they do not fit.
//!
//! What is in the bucket nowhere is kept whatever it takes; what is asked to stay goes oldest first, over all groups,
//! as soon as the next range would not fit.

use std::collections::{BTreeMap, BTreeSet};

use varve_common::GroupId;
use varve_replica::{GroupStatus, SealMark};

use crate::seal;

/// What a group may do with the room for hot data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hot {
    /// So many bytes more may be kept.
    pub room: u64,
    /// Something of somebody can go, so that waiting for room is not in vain.
    pub can_free: bool,
    /// The group gives up its oldest tiered file.
    pub give_up: bool,
}

impl Default for Hot {
    fn default() -> Self {
        Self { room: u64::MAX, can_free: false, give_up: false }
    }
}

/// What is known of one group.
#[derive(Clone, Copy, Debug)]
struct Share {
    bytes: u64,
    /// The largest timestamp of its oldest file, where that is tiered.
    oldest_ms: Option<i64>,
    /// What its next range takes.
    wanted: u64,
}

/// Adds up what the groups keep.
#[derive(Clone, Debug)]
pub struct HotGauge {
    bytes_max: u64,
    /// The disk itself is short: nothing but what must stay does.
    disk_is_short: bool,
    shares: BTreeMap<GroupId, Share>,
    /// The groups whose oldest file can go, by its age: asked for with every group that is planned.
    by_age: BTreeSet<(i64, GroupId)>,
    held: u64,
    wanted: u64,
}

impl HotGauge {
    /// A gauge for sealed files of at most `bytes_max`.
    #[must_use]
    pub const fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            disk_is_short: false,
            shares: BTreeMap::new(),
            by_age: BTreeSet::new(),
            held: 0,
            wanted: 0,
        }
    }

    /// Takes in whether the disk itself is short.
    pub const fn press(&mut self, disk_is_short: bool) {
        self.disk_is_short = disk_is_short;
    }

    const fn bytes_max(&self) -> u64 {
        if self.disk_is_short { 0 } else { self.bytes_max }
    }

    /// Takes in what a group says of itself.
    pub fn note(&mut self, status: &GroupStatus) {
        self.forget(status.group);
        let wanted = seal::next_kept(status).map_or(0, |roll| file_bytes(roll.bytes));
        if status.seals.is_empty() && wanted == 0 {
            return;
        }
        let oldest = status.seals.first().filter(|seal| seal.end <= status.tiered_end);
        let share = Share {
            bytes: status.seals.iter().map(|seal| seal.bytes).sum(),
            oldest_ms: oldest.map(|seal| max_timestamp(status, seal)),
            // What can never fit drives nothing out.
            wanted: if wanted <= self.bytes_max() { wanted } else { 0 },
        };
        (self.held, self.wanted) = (self.held + share.bytes, self.wanted + share.wanted);
        self.by_age.extend(share.oldest_ms.map(|ms| (ms, status.group)));
        self.shares.insert(status.group, share);
    }

    /// A group that is not here any more keeps nothing.
    pub fn forget(&mut self, group: GroupId) {
        if let Some(share) = self.shares.remove(&group) {
            (self.held, self.wanted) = (self.held - share.bytes, self.wanted - share.wanted);
            share.oldest_ms.map(|ms| self.by_age.remove(&(ms, group)));
        }
    }

    /// Who gives something up now: whoever has the oldest file that can go; `None` while all fits.
    #[must_use]
    pub fn oldest(&self) -> Option<GroupId> {
        let is_full = self.held + self.wanted > self.bytes_max();
        self.by_age.first().filter(|_| is_full).map(|(_, group)| *group)
    }

    /// What a group is told.
    #[must_use]
    pub fn look(&self, group: GroupId) -> Hot {
        let oldest = self.oldest();
        Hot {
            room: self.bytes_max().saturating_sub(self.held),
            can_free: oldest.is_some(),
            give_up: oldest == Some(group),
        }
    }
}

/// About what a range takes as a file: its batches, and an index of them.
pub(crate) const fn file_bytes(range_bytes: u64) -> u64 {
    range_bytes + range_bytes / 64 + (16 << 10)
}

/// The largest timestamp in a sealed range, -1 where none is known: of the range itself as long as the manifest's root
/// names it, else of the node into which it was folded, which is no older.
pub(crate) fn max_timestamp(status: &GroupStatus, seal: &SealMark) -> i64 {
    let root = &status.root;
    let roll = status.rolls.iter().find(|roll| roll.base == seal.base).map(|roll| roll.max_timestamp);
    let entry = || {
        let place = root.entries.partition_point(|entry| entry.last < seal.base);
        root.entries.get(place).filter(|entry| entry.base <= seal.base).map(|entry| entry.max_timestamp)
    };
    let node = || {
        let place = root.nodes.partition_point(|node| node.last < seal.base);
        root.nodes.get(place).filter(|node| node.base <= seal.base).map(|node| node.max_timestamp)
    };
    roll.or_else(entry).or_else(node).unwrap_or(-1)
}
