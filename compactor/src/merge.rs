//! Small adjacent segments become larger ones, lazily and within a share of what is uploaded (TIERING.md 12).
//!
//! A partition with little to say tiers a small segment every few minutes. Sixteen thousand of those are as many objects
//! to list, to open and to ask for; but to write everything twice costs as much again. So a run is merged when it is long,
//! no member outweighs the others, and the node has uploaded ten times its bytes since it was started: busy partitions,
//! whose segments are large from the start, pay for the quiet ones. Where none is busy a little is given with time, so that
//! what a partition leaves behind when it comes to rest becomes few objects too; and what was folded into a leaf before
//! there was room becomes one, if it is no larger than one may be. Each merge multiplies sizes, so that a
//! byte is written a handful of times at most until its segment is large.

use std::time::Duration;

use varve_common::{Monotonic, Offset};
use varve_formats::manifest::{Entry, EntryKind, NodeReference};
use varve_replica::{Action, JobKind};

use crate::Planner;

/// What may be saved up while nothing is there to merge: a few merges.
const SAVED_BYTES_MAX: u64 = 1 << 30;
/// A run that waits for time to give it room is looked at again no sooner and no later.
const LOOK_AGAIN_MIN: Duration = Duration::from_secs(1);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(3_600);

/// Which runs are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// No run is shorter.
    pub segments_min: usize,
    /// No merged segment is larger.
    pub bytes_max: u64,
    /// One in so many bytes that are uploaded may be written once more.
    pub one_in: u64,
    /// So many bytes a second may be written however little is uploaded; one merge of them is saved up at most.
    pub given_per_second: u64,
    /// So many bytes may be written now.
    pub room: u64,
}

impl Default for Merge {
    fn default() -> Self {
        Self { segments_min: 8, bytes_max: 64 << 20, one_in: 10, given_per_second: 16 << 10, room: 0 }
    }
}

impl Merge {
    /// What is as large as this or larger stays as it is: so many of them would not fit.
    const fn member_bytes_max(&self) -> u64 {
        self.bytes_max / self.segments_min as u64
    }

    fn takes(&self, entry: &Entry) -> bool {
        let known = matches!(entry.kind, EntryKind::Raw | EntryKind::Merged);
        known && entry.store_id == 0 && entry.position == 0 && entry.length <= self.member_bytes_max()
    }

    /// What was folded while there was no room: its entries are not known here, but that they are many, and how large all
    /// of them are together. Where they fit into one segment they become one.
    const fn takes_leaf(&self, leaf: &NodeReference) -> bool {
        leaf.level == 0 && leaf.entries >= self.segments_min as u64 && leaf.segment_bytes <= self.bytes_max
    }

    /// The first run of entries that is worth it.
    fn find<'a>(&self, entries: &'a [Entry]) -> Option<&'a [Entry]> {
        let (mut start, mut bytes) = (0, 0);
        for (at, entry) in entries.iter().enumerate() {
            if !self.takes(entry) || bytes + entry.length > self.bytes_max {
                if let Some(run) = self.worthwhile(&entries[start..at], bytes) {
                    return Some(run);
                }
                (start, bytes) = if self.takes(entry) { (at, 0) } else { (at + 1, 0) };
            }
            if self.takes(entry) {
                bytes += entry.length;
            }
        }
        self.worthwhile(&entries[start..], bytes)
    }

    /// The longest end of a stretch that is long enough and in which none outweighs the others: what was merged before waits for
    /// its like.
    fn worthwhile<'a>(&self, stretch: &'a [Entry], mut bytes: u64) -> Option<&'a [Entry]> {
        if stretch.len() < self.segments_min {
            return None;
        }
        let mut largest_from: Vec<u64> = stretch.iter().map(|entry| entry.length).collect();
        for at in (1..largest_from.len()).rev() {
            largest_from[at - 1] = largest_from[at - 1].max(largest_from[at]);
        }
        for (at, entry) in stretch.iter().enumerate() {
            if stretch.len() - at < self.segments_min {
                return None;
            }
            if largest_from[at] * (self.segments_min as u64 / 2) <= bytes {
                return Some(&stretch[at..]);
            }
            bytes -= entry.length;
        }
        None
    }
}

/// What the node may spend on merging.
#[derive(Clone, Copy, Debug, Default)]
pub struct MergeGauge {
    /// Bytes of uploads that no merge has used up.
    uploaded: u64,
    /// Bytes that time has given and no merge has used up.
    given: u64,
    /// When that was counted last.
    counted: Option<Monotonic>,
}

impl MergeGauge {
    /// So many bytes were uploaded.
    pub fn uploaded(&mut self, bytes: u64, options: &Merge) {
        self.uploaded = (self.uploaded + bytes).min(SAVED_BYTES_MAX.saturating_mul(options.one_in));
    }

    /// Time has passed.
    pub fn passed(&mut self, now: Monotonic, options: &Merge) {
        let since = now.since(*self.counted.get_or_insert(now)).as_micros();
        let gained = since.saturating_mul(u128::from(options.given_per_second)) / 1_000_000;
        if gained > 0 {
            // What is less than a byte is lost now and then: nobody counts on it.
            let gained = u64::try_from(gained).unwrap_or(u64::MAX);
            (self.given, self.counted) =
                (self.given.saturating_add(gained).min(options.bytes_max), Some(now));
        }
    }

    /// A job begins that writes so many bytes once more, whether it succeeds or not. What time gave is spent first.
    pub fn merging(&mut self, bytes: u64, options: &Merge) {
        let given = bytes.min(self.given);
        self.given -= given;
        self.uploaded = self.uploaded.saturating_sub((bytes - given).saturating_mul(options.one_in));
    }

    /// So many bytes may be merged now.
    #[must_use]
    pub const fn room(&self, options: &Merge) -> u64 {
        self.uploaded / options.one_in + self.given
    }
}

impl Planner<'_> {
    /// One run at a time, when nothing more urgent is asked of the store.
    pub(crate) fn merge(&mut self) {
        let status = self.status;
        let merging = status.intents.iter().any(|intent| intent.kind != EntryKind::Raw);
        if !status.ready || !status.options.tiered || self.options.draining || self.is_pressed() || merging {
            return;
        }
        let Some((base, end, bytes)) = self.mergeable() else { return };
        let Merge { room, given_per_second, .. } = self.options.merge;
        if bytes > room {
            let seconds = (bytes - room).checked_div(given_per_second);
            let wait = seconds.map_or(LOOK_AGAIN_MAX, Duration::from_secs);
            self.look_after(wait.clamp(LOOK_AGAIN_MIN, LOOK_AGAIN_MAX));
        } else if self.may_try(JobKind::Merge) && self.may_try(JobKind::Mend) {
            let uid = self.uid();
            self.act(Action::Announce { uid, base, end });
        }
    }

    /// The range that is worth it, and its bytes: a run of the root's, or else all of a leaf.
    fn mergeable(&self) -> Option<(Offset, Offset, u64)> {
        let (options, status) = (&self.options.merge, self.status);
        if let Some(run @ [first, .., last]) = options.find(&status.root.entries) {
            return Some((first.base, last.end(), run.iter().map(|entry| entry.length).sum()));
        }
        let worthwhile = |leaf: &&NodeReference| leaf.base >= status.log_start && options.takes_leaf(leaf);
        let leaf = status.root.nodes.iter().find(worthwhile)?;
        Some((leaf.base, leaf.end(), leaf.segment_bytes))
    }
}
