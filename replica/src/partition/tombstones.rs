//! What must be deleted from the bucket, and when it may be (TIERING.md 9, B8).
//!
//! A checkpoint names what its manifest named at A. An object is in the manifest from an append, which comes after the
//! roll of its range, to the command that takes it out; so whether a checkpoint may name it follows from A alone.
//!
//! ```text
//!  applied index --- roll --- append ---------- trim or replace ---->
//!                        [------- named --------)
//! ```

use varve_common::{Incarnation, LogIndex, Offset, Term};
use varve_formats::{
    manifest::{Entry, EntryKind, NodeReference},
    state::{Intent, NAMED_EVER, Tombstone},
};

use super::{BucketState, records::Place};
use crate::limits::PUBLISHED_KEPT;

/// Of an entry that leaves the manifest. Indexes of an earlier life of the cluster say nothing about its checkpoints.
pub(super) fn of_entry(
    place: Place,
    log_start: Offset,
    entry: &Entry,
    incarnation: Incarnation,
) -> Tombstone {
    let named =
        if entry.incarnation == incarnation.0 { entry.roll_index.next()..place.index } else { NAMED_EVER };
    Tombstone {
        uid: entry.uid,
        node_level: None,
        alone: false,
        kind: entry.kind,
        incarnation: entry.incarnation,
        term: entry.term,
        base: entry.base,
        last: entry.last,
        since_ms: place.append_time_ms,
        log_start,
        named,
    }
}

/// Of a manifest node that leaves the root, with all that it names.
pub(super) fn of_node(place: Place, log_start: Offset, node: &NodeReference) -> Tombstone {
    Tombstone {
        uid: node.uid,
        node_level: Some(node.level),
        alone: false,
        kind: EntryKind::Raw,
        incarnation: node.incarnation,
        term: Term::ZERO,
        base: node.base,
        last: node.last,
        since_ms: place.append_time_ms,
        log_start,
        named: NAMED_EVER,
    }
}

/// Of a leaf that another one stands in for: what it names is named on. Any checkpoint of this life before may name it.
pub(super) fn of_leaf_alone(
    place: Place,
    log_start: Offset,
    node: &NodeReference,
    incarnation: Incarnation,
) -> Tombstone {
    let named = if node.incarnation == incarnation.0 { LogIndex::ZERO..place.index } else { NAMED_EVER };
    Tombstone { alone: true, named, ..of_node(place, log_start, node) }
}

/// Of an upload that was given up: no manifest ever named it.
pub(super) fn of_intent(
    place: Place,
    log_start: Offset,
    intent: &Intent,
    incarnation: Incarnation,
) -> Tombstone {
    given_up(place.append_time_ms, log_start, intent, incarnation)
}

/// The same as of a time: `incarnation` is the life in which it was announced.
pub(crate) fn given_up(
    since_ms: i64,
    log_start: Offset,
    intent: &Intent,
    incarnation: Incarnation,
) -> Tombstone {
    Tombstone {
        uid: intent.uid,
        node_level: None,
        alone: false,
        kind: intent.kind,
        incarnation: incarnation.0,
        term: intent.term,
        base: intent.base,
        last: Offset(intent.end.0.saturating_sub(1)),
        since_ms,
        log_start,
        named: LogIndex::ZERO..LogIndex::ZERO,
    }
}

impl BucketState {
    /// Whether an object may go (B8): the manifest does not name it, and either the two newest verified checkpoints
    /// carry a log start above it, or none that is kept names it. The grace is the planner's to wait.
    #[must_use]
    pub fn may_delete(&self, tombstone: &Tombstone) -> bool {
        let named = self.root.entries.iter().any(|entry| entry.uid == tombstone.uid)
            || self.root.nodes.iter().any(|node| node.uid == tombstone.uid);
        !named && (self.is_below(tombstone) || self.is_unnamed(tombstone))
    }

    /// Checkpoints of the grid serve restore only: they hold nothing below the log start.
    fn is_below(&self, tombstone: &Tombstone) -> bool {
        self.published.len() == PUBLISHED_KEPT
            && self.published.iter().all(|checkpoint| checkpoint.log_start > tombstone.last)
    }

    /// No checkpoint in the bucket names it; not known unless the last publication told which are there.
    fn is_unnamed(&self, tombstone: &Tombstone) -> bool {
        if tombstone.named.is_empty() {
            return true;
        }
        let Some(kept) = &self.kept else { return false };
        let newest = self.published.iter().map(|checkpoint| &checkpoint.applied_index);
        self.published.len() == PUBLISHED_KEPT
            && kept.iter().chain(newest).all(|applied| !tombstone.named.contains(applied))
    }
}
