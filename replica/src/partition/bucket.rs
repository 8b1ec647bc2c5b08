//! Bucket class: what of a partition is in the bucket, and what is on its way there or out of it (TIERING.md 3, 9).
//!
//! Every command is fenced at apply: by the term of its entry, and, where it changes the manifest, by the manifest's
//! sequence. One that misses its fence does nothing and is counted. A zombie can therefore waste an object, never a
//! range.

use std::{collections::BTreeSet, sync::Arc};

use varve_common::{Incarnation, LogIndex, Offset, Term};
use varve_formats::{
    command::{
        CkptPublished, Command, Fence, IntentExpired, NodeFolded, PublishedCheckpoint, TierAppend,
        TierIntent, TierReaped, TierReplace, TierTrim,
    },
    manifest::{Entry, NodeReference, Root},
    state::{Intent, Tombstone},
};

use super::{RecordState, records::Place};
use crate::{
    bugs::{Bug, is_seeded},
    limits::PUBLISHED_KEPT,
};

/// State of bucket class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketState {
    /// The first offset that exists.
    pub log_start: Offset,
    /// Where the next upload must begin: the end of what is in the bucket, or, where the log start has passed that, the
    /// base of the range that holds the log start.
    pub tiered_end: Offset,
    /// The roll (index, term) that closed the last tiered range.
    pub tiered_roll: (LogIndex, Term),
    /// Counts the changes of the manifest.
    pub manifest_seq: u64,
    /// The manifest's root.
    pub root: Arc<Root>,
    /// Announced uploads, by base.
    pub intents: Arc<Vec<Intent>>,
    /// What must be deleted, oldest first.
    pub tombstones: Arc<Vec<Tombstone>>,
    /// The newest verified checkpoints, oldest first.
    pub published: Arc<Vec<PublishedCheckpoint>>,
}

/// A manifest node to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoldContents {
    /// A leaf of entries.
    Entries(Vec<Entry>),
    /// A node of references to nodes of the level below.
    Nodes {
        /// The level of the new node.
        level: u8,
        /// What it names.
        nodes: Vec<NodeReference>,
    },
}

impl BucketState {
    /// Applies a command of bucket class; whether it took effect. `incarnation` names the keys of given-up uploads.
    pub(crate) fn apply(
        &mut self,
        place: Place,
        command: &Command,
        records: &RecordState,
        incarnation: Incarnation,
    ) -> bool {
        match command {
            Command::TierIntent(intent) => self.intent(place, intent, records),
            Command::TierAppend(append) => self.append(place, append),
            Command::TierReplace(replace) => self.replace(place, replace),
            Command::TierTrim(trim) => self.trim(place, trim, records),
            Command::NodeFolded(folded) => self.folded(place, folded),
            Command::CkptPublished(published) => self.published(place, published),
            Command::IntentExpired(expired) => self.expired(place, expired, incarnation),
            Command::TierReaped(reaped) => self.reaped(place, reaped),
            Command::Records(_) | Command::Roll(_) | Command::ProducerExpired(_) | Command::Metadata(_) => {
                unreachable!("the caller dispatches by class")
            }
        }
    }

    fn in_term(place: Place, term: Term) -> bool {
        term == place.term || is_seeded(Bug::FenceIgnored)
    }

    fn passes(&self, place: Place, fence: Fence) -> bool {
        is_seeded(Bug::FenceIgnored) || (fence.term == place.term && fence.manifest_seq == self.manifest_seq)
    }

    fn intent(&mut self, place: Place, intent: &TierIntent, records: &RecordState) -> bool {
        let known = records.rolls.iter().any(|roll| roll.base == intent.base && roll.end == intent.end);
        let taken = self.intents.iter().any(|live| live.uid == intent.uid || live.base == intent.base);
        if !Self::in_term(place, intent.term) || !known || taken {
            return false;
        }
        let intents = Arc::make_mut(&mut self.intents);
        let at = intents.partition_point(|live| live.base < intent.base);
        intents.insert(
            at,
            Intent {
                uid: intent.uid,
                term: intent.term,
                base: intent.base,
                end: intent.end,
                announced_ms: place.append_time_ms,
            },
        );
        true
    }

    /// Whether `entries` follow the tiered end without gap or overlap, each with its live intent.
    #[must_use]
    pub fn can_append(&self, entries: &[Entry]) -> bool {
        let mut next = self.tiered_end;
        let follows = |entry: &Entry| {
            let announced = self.intents.iter().any(|intent| {
                (intent.uid, intent.term, intent.base, intent.end)
                    == (entry.uid, entry.term, entry.base, entry.end())
            });
            let fits = entry.base == next && entry.base <= entry.last;
            next = entry.end();
            announced && fits
        };
        !entries.is_empty() && entries.iter().all(follows)
    }

    fn append(&mut self, place: Place, append: &TierAppend) -> bool {
        let legal =
            self.can_append(&append.entries) || (is_seeded(Bug::FenceIgnored) && !append.entries.is_empty());
        if !self.passes(place, append.fence) || !legal {
            return false;
        }
        let uids: BTreeSet<u64> = append.entries.iter().map(|entry| entry.uid).collect();
        Arc::make_mut(&mut self.intents).retain(|intent| !uids.contains(&intent.uid));
        Arc::make_mut(&mut self.root).entries.extend(append.entries.iter().cloned());
        let last = &append.entries[append.entries.len() - 1];
        self.tiered_end = last.end();
        self.tiered_roll = (last.roll_index, last.roll_term);
        self.manifest_seq += 1;
        true
    }

    fn replace(&mut self, place: Place, replace: &TierReplace) -> bool {
        let entries = &self.root.entries;
        let start = entries.iter().position(|entry| Some(&entry.uid) == replace.removed.first());
        let Some(start) = start else { return false };
        let end = start + replace.removed.len();
        let run = entries.get(start..end).unwrap_or_default();
        let named =
            run.len() == replace.removed.len() && run.iter().map(|entry| &entry.uid).eq(&replace.removed);
        if !self.passes(place, replace.fence) || !named || !covers_the_same(run, &replace.added) {
            return false;
        }
        let gone: Vec<Tombstone> = run.iter().map(|entry| self.tombstone(place, entry)).collect();
        Arc::make_mut(&mut self.root).entries.splice(start..end, replace.added.iter().cloned());
        Arc::make_mut(&mut self.tombstones).extend(gone);
        self.manifest_seq += 1;
        true
    }

    fn trim(&mut self, place: Place, trim: &TierTrim, records: &RecordState) -> bool {
        let legal = trim.log_start > self.log_start && trim.log_start <= records.log_end;
        if !self.passes(place, trim.fence) || !legal {
            return false;
        }
        self.log_start = trim.log_start;
        let (nodes, entries) = (
            self.root.nodes.iter().take_while(|node| node.last < trim.log_start).count(),
            self.root.entries.iter().take_while(|entry| entry.end() <= trim.log_start).count(),
        );
        let mut gone: Vec<Tombstone> =
            self.root.nodes[..nodes].iter().map(|node| self.node_tombstone(place, node)).collect();
        gone.extend(self.root.entries[..entries].iter().map(|entry| self.tombstone(place, entry)));
        if !gone.is_empty() {
            let root = Arc::make_mut(&mut self.root);
            root.nodes.drain(..nodes);
            root.entries.drain(..entries);
            Arc::make_mut(&mut self.tombstones).extend(gone);
        }
        self.skip_trimmed(records);
        self.manifest_seq += 1;
        true
    }

    /// Where the log start has passed the tiered end, the next upload begins with the range that holds it: a gap
    /// between the two must not wedge uploads for ever (T39).
    fn skip_trimmed(&mut self, records: &RecordState) {
        if self.log_start <= self.tiered_end {
            return;
        }
        let passed = records.rolls.iter().rfind(|roll| roll.end <= self.log_start);
        if let Some(roll) = passed {
            self.tiered_end = roll.end;
            self.tiered_roll = (roll.roll_index, roll.roll_term);
        }
        let root = Arc::make_mut(&mut self.root);
        if root.nodes.is_empty() && root.entries.is_empty() {
            root.start = self.tiered_end;
        }
    }

    fn folded(&mut self, place: Place, folded: &NodeFolded) -> bool {
        if !self.passes(place, folded.fence) {
            return false;
        }
        let node = &folded.node;
        let root = Arc::make_mut(&mut self.root);
        let range = if node.level == 0 {
            run(&root.entries, node, |entry| (entry.base, entry.last)).filter(|range| range.start == 0)
        } else {
            run(&root.nodes, node, |below| (below.base, below.last))
                .filter(|range| root.nodes[range.clone()].iter().all(|below| below.level + 1 == node.level))
        };
        match range {
            Some(range) if node.level == 0 => {
                root.entries.drain(range);
                root.nodes.push(node.clone());
            }
            Some(range) => drop(root.nodes.splice(range, [node.clone()])),
            None => return false,
        }
        self.manifest_seq += 1;
        true
    }

    pub(crate) fn published(&mut self, place: Place, published: &CkptPublished) -> bool {
        let checkpoint = &published.checkpoint;
        let newest = self.published.last().map_or(LogIndex::ZERO, |newest| newest.applied_index);
        if !Self::in_term(place, published.term) || checkpoint.applied_index <= newest {
            return false;
        }
        let kept = Arc::make_mut(&mut self.published);
        kept.push(checkpoint.clone());
        kept.drain(..kept.len().saturating_sub(PUBLISHED_KEPT));
        true
    }

    fn expired(&mut self, place: Place, expired: &IntentExpired, incarnation: Incarnation) -> bool {
        let named = |intent: &&Intent| expired.uids.contains(&intent.uid);
        if !Self::in_term(place, expired.term) || !self.intents.iter().any(|intent| named(&intent)) {
            return false;
        }
        let gone: Vec<Tombstone> = self
            .intents
            .iter()
            .filter(named)
            .map(|intent| Tombstone {
                uid: intent.uid,
                node_level: None,
                incarnation: incarnation.0,
                term: intent.term,
                base: intent.base,
                last: Offset(intent.end.0.saturating_sub(1)),
                since_ms: place.append_time_ms,
                log_start: self.log_start,
            })
            .collect();
        Arc::make_mut(&mut self.intents).retain(|intent| !named(&intent));
        Arc::make_mut(&mut self.tombstones).extend(gone);
        true
    }

    fn reaped(&mut self, place: Place, reaped: &TierReaped) -> bool {
        if !Self::in_term(place, reaped.term) {
            return false;
        }
        let before = self.tombstones.len();
        Arc::make_mut(&mut self.tombstones).retain(|tombstone| !reaped.uids.contains(&tombstone.uid));
        self.tombstones.len() < before
    }

    fn tombstone(&self, place: Place, entry: &Entry) -> Tombstone {
        Tombstone {
            uid: entry.uid,
            node_level: None,
            incarnation: entry.incarnation,
            term: entry.term,
            base: entry.base,
            last: entry.last,
            since_ms: place.append_time_ms,
            log_start: self.log_start,
        }
    }

    fn node_tombstone(&self, place: Place, node: &NodeReference) -> Tombstone {
        Tombstone {
            uid: node.uid,
            node_level: Some(node.level),
            incarnation: node.incarnation,
            term: Term::ZERO,
            base: node.base,
            last: node.last,
            since_ms: place.append_time_ms,
            log_start: self.log_start,
        }
    }

    /// Whether the two newest verified checkpoints carry the log start under which a tombstone was made, and no
    /// manifest names its object (B8). The grace is the planner's to wait.
    #[must_use]
    pub fn may_delete(&self, tombstone: &Tombstone) -> bool {
        let carried = self.published.len() == PUBLISHED_KEPT
            && self.published.iter().all(|checkpoint| checkpoint.log_start >= tombstone.log_start);
        let never_visible = tombstone.last >= self.log_start && tombstone.node_level.is_none();
        let named = self.root.entries.iter().any(|entry| entry.uid == tombstone.uid);
        !named && (carried || never_visible)
    }

    /// What the next fold would move out of the root: the oldest `fan_out` entries, or nodes of one level, where there
    /// are more than that.
    #[must_use]
    pub fn foldable(&self, fan_out: usize) -> Option<FoldContents> {
        if self.root.entries.len() > fan_out {
            return Some(FoldContents::Entries(self.root.entries[..fan_out].to_vec()));
        }
        if self.root.nodes.len() <= fan_out {
            return None;
        }
        // Levels fall from old to new: the lowest full level is the last run.
        let level_of = |node: &NodeReference| node.level;
        let lowest = self.root.nodes.iter().map(level_of).min()?;
        (lowest..=self.root.nodes[0].level).find_map(|level| {
            let nodes: Vec<_> =
                self.root.nodes.iter().filter(|node| node.level == level).take(fan_out).cloned().collect();
            (nodes.len() == fan_out).then_some(FoldContents::Nodes { level: level + 1, nodes })
        })
    }
}

/// The run of `items` that begins and ends where `node` does.
fn run<T>(
    items: &[T],
    node: &NodeReference,
    range: impl Fn(&T) -> (Offset, Offset),
) -> Option<std::ops::Range<usize>> {
    let start = items.iter().position(|item| range(item).0 == node.base)?;
    let length = items[start..].iter().position(|item| range(item).1 == node.last)? + 1;
    Some(start..start + length)
}

/// Whether `added` covers the range of `removed` without gap or overlap.
fn covers_the_same(removed: &[Entry], added: &[Entry]) -> bool {
    let (Some(first), Some(last)) = (removed.first(), removed.last()) else { return false };
    let mut next = first.base;
    let contiguous = added.iter().all(|entry| {
        let fits = entry.base == next && entry.base <= entry.last;
        next = entry.end();
        fits
    });
    contiguous && next == last.end()
}
