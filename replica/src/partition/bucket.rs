//! Bucket class: what of a partition is in the bucket, and what is on its way there or out of it (TIERING.md 3, 9).
//!
//! Every command is fenced at apply: by the term of its entry, and, where it changes the manifest, by the manifest's
//! sequence. One that misses its fence does nothing and is counted. A zombie can therefore waste an object, never a
//! range. What may happen to the manifest itself is `formats::manifest`'s; what may be deleted is [`super::tombstones`].

use std::sync::Arc;

use varve_common::{Incarnation, LogIndex, Offset, Term};
use varve_formats::{
    command::{
        CkptPublished, Command, Fence, IntentExpired, LeafReplaced, NodeFolded, PublishedCheckpoint,
        TierAppend, TierIntent, TierReaped, TierReplace, TierTrim,
    },
    manifest::{Entry, EntryKind, Root},
    state::{ArchiveState, Intent, Tombstone},
};

use super::{RecordState, records::Place, tombstones};
use crate::{
    bugs::{Bug, is_seeded},
    limits::PUBLISHED_KEPT,
};

/// State of bucket class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketState {
    /// The first offset that exists.
    pub log_start: Offset,
    /// Where the next upload must begin, always the manifest's end: the end of what is in the bucket, or, where the log
    /// start has passed that, the base of the range that holds the log start.
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
    /// The applied indexes of all checkpoints in the bucket as of the newest publication, the grid's too; `None` where
    /// that did not learn them.
    pub kept: Option<Arc<Vec<LogIndex>>>,
    /// How far it is in files for other systems; `None` where none was ever announced.
    pub archive: Option<ArchiveState>,
}

impl BucketState {
    /// Applies a command of bucket class; whether it took effect. `incarnation` is this life of the cluster.
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
            Command::TierReplace(replace) => self.replace(place, replace, incarnation),
            Command::TierTrim(trim) => self.trim(place, trim, records, incarnation),
            Command::NodeFolded(folded) => self.folded(place, folded),
            Command::LeafReplaced(replaced) => self.leaf_replaced(place, replaced, incarnation),
            Command::CkptPublished(published) => self.published(place, published),
            Command::IntentExpired(expired) => self.expired(place, expired, incarnation),
            Command::TierReaped(reaped) => self.reaped(place, reaped),
            Command::ArchivePlanned(planned) => {
                Self::in_term(place, planned.term)
                    && self.archived(planned.plan.base, |archive| archive.plan(planned.plan))
            }
            Command::Archived(archived) => {
                Self::in_term(place, archived.term)
                    && self.archived(archived.base, |archive| archive.advance(archived))
            }
            Command::Records(_) | Command::Roll(_) | Command::ProducerExpired(_) | Command::Metadata(_) => {
                unreachable!("the caller dispatches by class")
            }
        }
    }

    /// Changes the archive; where nothing was ever announced it begins here.
    fn archived(&mut self, base: Offset, change: impl FnOnce(&mut ArchiveState) -> bool) -> bool {
        let mut archive = self.archive.unwrap_or_else(|| ArchiveState::starting_at(base));
        let changed = change(&mut archive);
        if changed {
            self.archive = Some(archive);
        }
        changed
    }

    fn in_term(place: Place, term: Term) -> bool {
        term == place.term || is_seeded(Bug::FenceIgnored)
    }

    fn passes(&self, place: Place, fence: Fence) -> bool {
        is_seeded(Bug::FenceIgnored) || (fence.term == place.term && fence.manifest_seq == self.manifest_seq)
    }

    /// What an upload of [base, end) would put into the bucket: a rolled range, or what replaces a run of the root's
    /// entries, or of those in a leaf that the root refers to. `None` where it could never be committed.
    #[must_use]
    pub fn kind_of_upload(&self, base: Offset, end: Offset, records: &RecordState) -> Option<EntryKind> {
        if records.rolls.iter().any(|roll| roll.base == base && roll.end == end) {
            return Some(EntryKind::Raw);
        }
        self.is_replaceable(base, end).then_some(EntryKind::Merged)
    }

    /// Whether entries over this range could give way to others. Those of a leaf are not known here: who reads it knows.
    fn is_replaceable(&self, base: Offset, end: Offset) -> bool {
        self.run(base, end).is_some() || self.root.leaf_over(base, end).is_some()
    }

    /// The entries of the root that begin at `base` and end at `end`.
    #[must_use]
    pub fn run(&self, base: Offset, end: Offset) -> Option<&[Entry]> {
        let entries = &self.root.entries;
        let first = entries.binary_search_by_key(&base, |entry| entry.base).ok()?;
        let last = entries.binary_search_by_key(&end, Entry::end).ok()?;
        entries.get(first..=last)
    }

    /// Whether an announced upload has lost its range: it was tiered or trimmed by another command.
    #[must_use]
    pub fn is_overtaken(&self, intent: &Intent) -> bool {
        intent.base < self.tiered_end
            && (intent.kind == EntryKind::Raw || !self.is_replaceable(intent.base, intent.end))
    }

    /// Whether an upload of this uid, or of a range that begins there, is announced already.
    #[must_use]
    pub fn is_announced(&self, uid: u64, base: Offset) -> bool {
        self.intents.iter().any(|live| live.uid == uid || live.base == base)
    }

    fn intent(&mut self, place: Place, intent: &TierIntent, records: &RecordState) -> bool {
        let kind = self.kind_of_upload(intent.base, intent.end, records);
        let Some(kind) = kind.filter(|_| Self::in_term(place, intent.term)) else { return false };
        if self.is_announced(intent.uid, intent.base) {
            return false;
        }
        let intents = Arc::make_mut(&mut self.intents);
        let at = intents.partition_point(|live| live.base < intent.base);
        let TierIntent { uid, term, base, end } = *intent;
        intents.insert(at, Intent { uid, term, base, end, announced_ms: place.append_time_ms, kind });
        true
    }

    /// Whether each of `entries` has its live intent.
    fn are_announced(&self, entries: &[Entry]) -> bool {
        let announced = |entry: &Entry| {
            let of = |intent: &Intent| (intent.uid, intent.term, intent.base, intent.end);
            self.intents.iter().any(|intent| of(intent) == (entry.uid, entry.term, entry.base, entry.end()))
        };
        !entries.is_empty() && entries.iter().all(announced)
    }

    fn end_intents(&mut self, entries: &[Entry]) {
        let ended = |intent: &Intent| entries.iter().any(|entry| entry.uid == intent.uid);
        Arc::make_mut(&mut self.intents).retain(|intent| !ended(intent));
    }

    /// Whether `entries` follow the tiered end without gap or overlap, each with its live intent.
    #[must_use]
    pub fn can_append(&self, entries: &[Entry]) -> bool {
        self.are_announced(entries) && self.root.check_append(entries, self.log_start).is_ok()
    }

    fn append(&mut self, place: Place, append: &TierAppend) -> bool {
        let legal = self.can_append(&append.entries) || is_seeded(Bug::FenceIgnored);
        let Some(last) = append.entries.last() else { return false };
        if !self.passes(place, append.fence) || !legal {
            return false;
        }
        self.end_intents(&append.entries);
        Arc::make_mut(&mut self.root).entries.extend(append.entries.iter().cloned());
        self.tiered_end = last.end();
        self.tiered_roll = (last.roll_index, last.roll_term);
        self.manifest_seq += 1;
        true
    }

    fn replace(&mut self, place: Place, replace: &TierReplace, incarnation: Incarnation) -> bool {
        if !self.passes(place, replace.fence) || !self.are_announced(&replace.added) {
            return false;
        }
        let root = Arc::make_mut(&mut self.root);
        let Ok(gone) = root.replace(&replace.removed, replace.added.clone()) else { return false };
        self.end_intents(&replace.added);
        let log_start = self.log_start;
        self.bury(gone.iter().map(|entry| tombstones::of_entry(place, log_start, entry, incarnation)));
        self.manifest_seq += 1;
        true
    }

    fn trim(
        &mut self,
        place: Place,
        trim: &TierTrim,
        records: &RecordState,
        incarnation: Incarnation,
    ) -> bool {
        let legal = trim.log_start > self.log_start && trim.log_start <= records.log_end;
        if !self.passes(place, trim.fence) || !legal {
            return false;
        }
        self.log_start = trim.log_start;
        let gone = Arc::make_mut(&mut self.root).trim(trim.log_start);
        self.bury(gone.nodes.iter().map(|node| tombstones::of_node(place, trim.log_start, node)));
        self.bury(
            gone.entries.iter().map(|entry| tombstones::of_entry(place, trim.log_start, entry, incarnation)),
        );
        self.skip_trimmed(records);
        self.manifest_seq += 1;
        true
    }

    fn bury(&mut self, gone: impl Iterator<Item = Tombstone>) {
        let mut gone = gone.peekable();
        if gone.peek().is_some() {
            Arc::make_mut(&mut self.tombstones).extend(gone);
        }
    }

    /// Where the log start has passed the tiered end, the next upload begins with the range that holds it: a gap
    /// between the two must not wedge uploads for ever (T39). Asked after a trim, and after each roll: the range that is
    /// closed by it may have been trimmed while it was open.
    pub(super) fn skip_trimmed(&mut self, records: &RecordState) {
        if self.log_start <= self.tiered_end {
            return;
        }
        let passed = records.rolls.iter().rfind(|roll| roll.end <= self.log_start);
        if let Some(roll) = passed.filter(|roll| roll.end > self.tiered_end) {
            self.tiered_end = roll.end;
            self.tiered_roll = (roll.roll_index, roll.roll_term);
        }
        // All that was tiered lies below the log start, so that the root is empty.
        Arc::make_mut(&mut self.root).start = self.tiered_end;
    }

    /// Where the next upload begins: at the tiered end. Older binaries left that at the base of a range which was trimmed while
    /// it was open (see [`Self::skip_trimmed`]); there nothing begins any more, and the range that holds the log start is next.
    /// Its append moves the tiered end past the gap, in every binary alike.
    pub(crate) fn next_upload(&self, records: &RecordState) -> Offset {
        match records.rolls.first() {
            Some(roll) if self.log_start > self.tiered_end => roll.base.max(self.tiered_end),
            _ => self.tiered_end,
        }
    }

    fn folded(&mut self, place: Place, folded: &NodeFolded) -> bool {
        if !self.passes(place, folded.fence) || Arc::make_mut(&mut self.root).fold(&folded.node).is_err() {
            return false;
        }
        self.manifest_seq += 1;
        true
    }

    fn leaf_replaced(&mut self, place: Place, replaced: &LeafReplaced, incarnation: Incarnation) -> bool {
        let LeafReplaced { fence, removed, node, gone, added } = replaced;
        if !self.passes(place, *fence) || !(added.is_empty() || self.are_announced(added)) {
            return false;
        }
        let root = Arc::make_mut(&mut self.root);
        let Ok(old) = root.replace_leaf(*removed, node, gone, added) else { return false };
        self.end_intents(added);
        let log_start = self.log_start;
        self.bury(gone.iter().map(|entry| tombstones::of_entry(place, log_start, entry, incarnation)));
        self.bury(std::iter::once(tombstones::of_leaf_alone(place, log_start, &old, incarnation)));
        self.manifest_seq += 1;
        true
    }

    fn published(&mut self, place: Place, published: &CkptPublished) -> bool {
        let checkpoint = &published.checkpoint;
        let newest = self.published.last().map_or(LogIndex::ZERO, |newest| newest.applied_index);
        if !Self::in_term(place, published.term) || checkpoint.applied_index <= newest {
            return false;
        }
        let newest = Arc::make_mut(&mut self.published);
        newest.push(checkpoint.clone());
        newest.drain(..newest.len().saturating_sub(PUBLISHED_KEPT));
        self.kept = published.kept.clone().map(Arc::new);
        true
    }

    fn expired(&mut self, place: Place, expired: &IntentExpired, incarnation: Incarnation) -> bool {
        let (gone, live): (Vec<Intent>, Vec<Intent>) =
            self.intents.iter().cloned().partition(|intent| expired.uids.contains(&intent.uid));
        if !Self::in_term(place, expired.term) || gone.is_empty() {
            return false;
        }
        self.intents = Arc::new(live);
        let log_start = self.log_start;
        self.bury(gone.iter().map(|intent| tombstones::of_intent(place, log_start, intent, incarnation)));
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
}
