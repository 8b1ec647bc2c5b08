//! What may happen to a manifest, as pure functions on its root.

use varve_common::Offset;

use super::{Entry, FanOut, NodeReference, Root, sums::check_sums};
use crate::limits::NODE_LEVEL_MAX;

/// Where the root says that an offset or a time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// In this range.
    Entry(&'a Entry),
    /// Below this node.
    Node(&'a NodeReference),
}

impl Place<'_> {
    /// The first offset that it covers.
    #[must_use]
    pub const fn base(&self) -> Offset {
        match self {
            Self::Entry(entry) => entry.base,
            Self::Node(node) => node.base,
        }
    }

    /// The first offset behind it.
    #[must_use]
    pub const fn end(&self) -> Offset {
        match self {
            Self::Entry(entry) => entry.end(),
            Self::Node(node) => node.end(),
        }
    }

    /// The largest record timestamp in it.
    #[must_use]
    pub const fn max_timestamp(&self) -> i64 {
        match self {
            Self::Entry(entry) => entry.max_timestamp,
            Self::Node(node) => node.max_timestamp,
        }
    }
}

/// Why entries cannot be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A range would be held nowhere.
    #[error("gap: the manifest ends at {end}, the entry begins at {base}")]
    Gap {
        /// The manifest's end.
        end: Offset,
        /// Where the entry begins.
        base: Offset,
    },
    /// A range would be held twice.
    #[error("overlap: the manifest ends at {end}, the entry begins at {base}")]
    Overlap {
        /// The manifest's end.
        end: Offset,
        /// Where the entry begins.
        base: Offset,
    },
    /// An entry ends before it begins.
    #[error("the entry at {base} holds nothing")]
    Empty {
        /// Where the entry begins.
        base: Offset,
    },
}

/// Why entries cannot be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// The entries that go are not neighbours in the root, in order.
    #[error("the replaced entries are not adjacent in the root")]
    NotAdjacent,
    /// What comes does not cover exactly what goes.
    #[error("the new entries do not cover the range of the old ones")]
    Range,
}

/// Why a leaf cannot take the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// The root refers to no such leaf.
    #[error("the root refers to no leaf {0:016x}")]
    NoSuchLeaf(u64),
    /// The new one covers another range, or is no leaf.
    #[error("the leaf {base}-{last} is none of that range")]
    Range {
        /// The new leaf's first offset.
        base: Offset,
        /// The new leaf's last offset.
        last: Offset,
    },
    /// What comes in is no run of the leaf's range, or does not cover exactly what goes.
    #[error("what is exchanged within the leaf is not the same range")]
    Exchange,
    /// The new leaf's sums are not the old one's with the exchange.
    #[error("the sums of the leaf {base}-{last} are not those of what it replaces")]
    Sums {
        /// The new leaf's first offset.
        base: Offset,
        /// The new leaf's last offset.
        last: Offset,
    },
}

/// Why a node cannot take the place of what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// No run of the root's entries or references is what the node covers.
    #[error("node {base}-{last} of level {level} does not cover a run of the root")]
    NoSuchRun {
        /// The node's first offset.
        base: Offset,
        /// The node's last offset.
        last: Offset,
        /// The node's level.
        level: u8,
    },
    /// The node's sums differ from those of what it covers.
    #[error("the sums of node {base}-{last} differ from those of what it covers")]
    Sums {
        /// The node's first offset.
        base: Offset,
        /// The node's last offset.
        last: Offset,
    },
}

/// What leaves the root for a node of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoldPlan {
    /// The oldest entries, for a leaf.
    Leaf(Vec<Entry>),
    /// A run of references, for a node of this level.
    Inner {
        /// One above the highest level among them.
        level: u8,
        /// The run.
        references: Vec<NodeReference>,
    },
}

/// What fell below the log start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Whole nodes: their objects, and all that they name, are garbage.
    pub nodes: Vec<NodeReference>,
    /// Entries: their objects are garbage.
    pub entries: Vec<Entry>,
}

impl NodeReference {
    /// The first offset behind it.
    #[must_use]
    pub const fn end(&self) -> Offset {
        self.last.next()
    }

    /// Bytes of the log below it, as far as it is known: a reference from before it was said counts what its segments take in
    /// the bucket.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.batch_bytes.unwrap_or(self.segment_bytes)
    }
}

impl Root {
    /// The first offset that nobody has tiered: where the next entry begins.
    #[must_use]
    pub fn end(&self) -> Offset {
        match (self.entries.last(), self.nodes.last()) {
            (Some(entry), _) => entry.end(),
            (None, Some(node)) => node.end(),
            (None, None) => self.start,
        }
    }

    /// The first offset that is in the bucket, `None` where nothing is.
    #[must_use]
    pub fn first(&self) -> Option<Offset> {
        self.places().next().map(|place| place.base())
    }

    /// All places, in the order of their offsets.
    pub fn places(&self) -> impl Iterator<Item = Place<'_>> {
        self.nodes.iter().map(Place::Node).chain(self.entries.iter().map(Place::Entry))
    }

    /// How many segments the manifest names, all levels. What nodes say of themselves is not to be trusted that far: it
    /// was decoded, and adds up to no more than there can be.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.nodes.iter().map(|node| node.entries).fold(self.entries.len() as u64, u64::saturating_add)
    }

    /// Bytes of the segments that the manifest names, likewise.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        let nodes = self.nodes.iter().map(|node| node.segment_bytes);
        nodes.chain(self.entries.iter().map(|entry| entry.length)).fold(0, u64::saturating_add)
    }

    /// Whether `entries` may follow: each begins where the one before ends. Between the manifest's end and the first
    /// entry nothing may be missing but what lies below the log start (un-tiered data may be trimmed).
    pub fn check_append(&self, entries: &[Entry], log_start: Offset) -> Result<(), AppendError> {
        let mut end = self.end();
        for entry in entries {
            let base = entry.base;
            if entry.last < base {
                return Err(AppendError::Empty { base });
            }
            if base < end {
                return Err(AppendError::Overlap { end, base });
            }
            if base > end && base > log_start {
                return Err(AppendError::Gap { end, base });
            }
            end = entry.end();
        }
        Ok(())
    }

    /// Appends all of `entries` or, on an error, none.
    pub fn append(&mut self, entries: Vec<Entry>, log_start: Offset) -> Result<(), AppendError> {
        self.check_append(&entries, log_start)?;
        self.entries.extend(entries);
        Ok(())
    }

    /// Puts `added` in the place of the root's entries with the uids `removed`, which it gives back.
    pub fn replace(&mut self, removed: &[u64], added: Vec<Entry>) -> Result<Vec<Entry>, ReplaceError> {
        let first = removed.first().ok_or(ReplaceError::NotAdjacent)?;
        let start =
            self.entries.iter().position(|entry| entry.uid == *first).ok_or(ReplaceError::NotAdjacent)?;
        let run = self.entries.get(start..start + removed.len()).ok_or(ReplaceError::NotAdjacent)?;
        if !run.iter().map(|entry| entry.uid).eq(removed.iter().copied()) {
            return Err(ReplaceError::NotAdjacent);
        }
        let mut end = run[0].base;
        for entry in &added {
            if entry.base != end || entry.last < entry.base {
                return Err(ReplaceError::Range);
            }
            end = entry.end();
        }
        if end != run[run.len() - 1].end() {
            return Err(ReplaceError::Range);
        }
        Ok(self.entries.splice(start..start + removed.len(), added).collect())
    }

    /// The first place that ends behind `offset`: the one that holds it, or, where it lies below what is there, the
    /// first. `None` at or behind the end.
    #[must_use]
    pub fn find(&self, offset: Offset) -> Option<Place<'_>> {
        let node = self.nodes.partition_point(|node| node.last < offset);
        if let Some(node) = self.nodes.get(node) {
            return Some(Place::Node(node));
        }
        let entry = self.entries.partition_point(|entry| entry.last < offset);
        self.entries.get(entry).map(Place::Entry)
    }

    /// The first place that ends behind `from` and has a record with a timestamp of at least `timestamp`. That record
    /// may lie below `from`: then the caller asks again from the place's end.
    #[must_use]
    pub fn find_timestamp(&self, timestamp: i64, from: Offset) -> Option<Place<'_>> {
        self.places().find(|place| place.end() > from && place.max_timestamp() >= timestamp)
    }

    /// What should leave the root: entries first, then references. One node at a time; ask again after it is applied.
    #[must_use]
    pub fn plan_fold(&self, fan_out: FanOut) -> Option<FoldPlan> {
        let fan_out = (fan_out.0 as usize).max(2);
        if self.entries.len() > fan_out {
            return Some(FoldPlan::Leaf(self.entries[..fan_out].to_vec()));
        }
        if self.nodes.len() <= fan_out {
            return None;
        }
        let run = self.run_to_fold(fan_out);
        let references = self.nodes[run].to_vec();
        let level = references.iter().map(|node| node.level).max()?.checked_add(1)?;
        (level <= NODE_LEVEL_MAX).then_some(FoldPlan::Inner { level, references })
    }

    /// The longest run of references of one level, the newest of equals; where all differ, the last two. So the tree
    /// stays as shallow as its fan-out allows: only the newest edge holds short nodes.
    fn run_to_fold(&self, fan_out: usize) -> std::ops::Range<usize> {
        let mut best = 0..1;
        let mut start = 0;
        for place in 0..self.nodes.len() {
            if self.nodes[place].level != self.nodes[start].level {
                start = place;
            }
            if place + 1 - start >= best.len() {
                best = start..place + 1;
            }
        }
        if best.len() < 2 {
            return self.nodes.len() - 2..self.nodes.len();
        }
        best.start..best.end.min(best.start + fan_out)
    }

    /// Whether all that a plan would take out of the root still stands there as it was.
    #[must_use]
    pub fn holds(&self, plan: &FoldPlan) -> bool {
        match plan {
            FoldPlan::Leaf(entries) => self.entries.starts_with(entries),
            FoldPlan::Inner { references, .. } => {
                let start =
                    references.first().and_then(|first| self.nodes.iter().position(|node| node == first));
                start.is_some_and(|start| self.nodes[start..].starts_with(references))
            }
        }
    }

    /// Puts a written node in the place of what it covers.
    pub fn fold(&mut self, node: &NodeReference) -> Result<(), FoldError> {
        let (base, last, level) = (node.base, node.last, node.level);
        if level == 0 {
            // A node stands before every entry, so only the oldest entries can leave.
            let count = self.entries.partition_point(|entry| entry.last <= last);
            let run = &self.entries[..count];
            if count == 0 || run[0].base != base || run[count - 1].last != last {
                return Err(FoldError::NoSuchRun { base, last, level });
            }
            check_sums(node, &FoldPlan::Leaf(run.to_vec()))?;
            self.entries.drain(..count);
            self.nodes.push(node.clone());
            return Ok(());
        }
        let start = self.nodes.partition_point(|below| below.base < base);
        let end = self.nodes.partition_point(|below| below.last <= last);
        let run = self.nodes.get(start..end).unwrap_or_default();
        let matches = run.len() > 1 && run[0].base == base && run[run.len() - 1].last == last;
        if !matches || run.iter().any(|below| below.level >= level) {
            return Err(FoldError::NoSuchRun { base, last, level });
        }
        check_sums(node, &FoldPlan::Inner { level, references: run.to_vec() })?;
        self.nodes.splice(start..end, [node.clone()]);
        Ok(())
    }

    /// The leaf of the root that covers [base, end) whole.
    #[must_use]
    pub fn leaf_over(&self, base: Offset, end: Offset) -> Option<&NodeReference> {
        let node = self.nodes.get(self.nodes.partition_point(|node| node.last < base))?;
        (node.level == 0 && node.base <= base && base < end && end <= node.end()).then_some(node)
    }

    /// Puts the leaf `node` in the place of the one with the uid `removed`, which it gives back. Both name the same entries
    /// but for those `gone` and those `added`.
    pub fn replace_leaf(
        &mut self,
        removed: u64,
        node: &NodeReference,
        gone: &[Entry],
        added: &[Entry],
    ) -> Result<NodeReference, LeafError> {
        let (base, last) = (node.base, node.last);
        let at = self.nodes.iter().position(|known| known.uid == removed && known.level == 0);
        let old = at.map(|at| &mut self.nodes[at]).ok_or(LeafError::NoSuchLeaf(removed))?;
        if node.level != 0 || (base, last) != (old.base, old.last) || node.uid == removed {
            return Err(LeafError::Range { base, last });
        }
        if run_of(gone) != run_of(added) || !(within(gone, old) && within(added, old)) {
            return Err(LeafError::Exchange);
        }
        let bytes = |entries: &[Entry]| entries.iter().map(|entry| entry.length).sum::<u64>();
        let counts =
            old.entries.checked_add(added.len() as u64) == node.entries.checked_add(gone.len() as u64);
        let lengths =
            old.segment_bytes.checked_add(bytes(added)) == node.segment_bytes.checked_add(bytes(gone));
        let log_bytes = |entries: &[Entry]| entries.iter().map(|entry| entry.batch_bytes).sum::<u64>();
        let batches = old
            .batch_bytes
            .zip(node.batch_bytes)
            .is_none_or(|(old, new)| old.checked_add(log_bytes(added)) == new.checked_add(log_bytes(gone)));
        if !counts || !lengths || !batches || old.max_timestamp != node.max_timestamp {
            return Err(LeafError::Sums { base, last });
        }
        Ok(std::mem::replace(old, node.clone()))
    }

    /// Drops what lies wholly below `log_start`. The end stays where it is: what follows still begins there.
    pub fn trim(&mut self, log_start: Offset) -> Trimmed {
        self.start = self.end().min(log_start).max(self.start);
        let nodes = self.nodes.partition_point(|node| node.end() <= log_start);
        let entries = self.entries.partition_point(|entry| entry.end() <= log_start);
        Trimmed {
            nodes: self.nodes.drain(..nodes).collect(),
            entries: self.entries.drain(..entries).collect(),
        }
    }
}

/// The range that entries cover one after the other; `None` where there are none.
fn run_of(entries: &[Entry]) -> Option<Result<(Offset, Offset), ()>> {
    let (first, last) = (entries.first()?, entries.last()?);
    let adjacent = entries.windows(2).all(|pair| pair[0].end() == pair[1].base);
    let hold = entries.iter().all(|entry| entry.base <= entry.last);
    Some(if adjacent && hold { Ok((first.base, last.end())) } else { Err(()) })
}

fn within(entries: &[Entry], leaf: &NodeReference) -> bool {
    match run_of(entries) {
        None => true,
        Some(Err(())) => false,
        Some(Ok((base, end))) => leaf.base <= base && end <= leaf.end(),
    }
}
