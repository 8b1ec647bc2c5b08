//! Small adjacent segments become larger ones, lazily and within a share of what is uploaded (TIERING.md 12).
//!
//! A partition with little to say tiers a small segment every few minutes. Sixteen thousand of those are as many objects
//! to list, to open and to ask for; but to write everything twice costs as much again. So a run is merged when it is long,
//! no member outweighs the others, and the node has uploaded ten times its bytes since it was started: busy partitions,
//! whose segments are large from the start, pay for the quiet ones. Each merge multiplies sizes, so that a byte is written
//! a handful of times at most until its segment is large.

use varve_formats::manifest::{Entry, EntryKind};
use varve_replica::{Action, JobKind};

use crate::Planner;

/// What may be saved up while nothing is there to merge: a few merges.
const SAVED_BYTES_MAX: u64 = 1 << 30;

/// Which runs are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// No run is shorter.
    pub segments_min: usize,
    /// No merged segment is larger.
    pub bytes_max: u64,
    /// One in so many bytes that are uploaded may be written once more.
    pub one_in: u64,
    /// So many bytes may be written now.
    pub room: u64,
}

impl Default for Merge {
    fn default() -> Self {
        Self { segments_min: 8, bytes_max: 64 << 20, one_in: 10, room: 0 }
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
}

impl MergeGauge {
    /// So many bytes were uploaded.
    pub fn uploaded(&mut self, bytes: u64, options: &Merge) {
        self.uploaded = (self.uploaded + bytes).min(SAVED_BYTES_MAX.saturating_mul(options.one_in));
    }

    /// These are merged, whether that succeeds or not.
    pub fn merging(&mut self, entries: &[Entry], options: &Merge) {
        let bytes: u64 = entries.iter().map(|entry| entry.length).sum();
        self.uploaded = self.uploaded.saturating_sub(bytes.saturating_mul(options.one_in));
    }

    /// So many bytes may be merged now.
    #[must_use]
    pub const fn room(&self, options: &Merge) -> u64 {
        self.uploaded / options.one_in
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
        let Some(run @ [first, .., last]) = self.options.merge.find(&status.root.entries) else { return };
        let bytes: u64 = run.iter().map(|entry| entry.length).sum();
        if bytes <= self.options.merge.room && self.may_try(JobKind::Merge) {
            let uid = self.uid();
            self.act(Action::Announce { uid, base: first.base, end: last.end() });
        }
    }
}
