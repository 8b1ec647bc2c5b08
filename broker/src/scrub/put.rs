//! A segment that its group was asked to put into the bucket once more: what became of it.

use std::collections::BTreeSet;

use varve_common::Offset;
use varve_formats::{
    manifest::{Entry, Root},
    state::Tombstone,
};
use varve_replica::{GroupStatus, uid_of_leaf};

use super::Outcome;

const NO_COPY: &str = "this node has no copy of it: its records are lost unless the object comes back";
const OVERTAKEN: &str =
    "another change took the place of the leaf that names it meanwhile; the next pass tries again";

/// What the group was asked for.
#[derive(Clone, Copy, Debug)]
pub struct PutAgain {
    uid: u64,
    base: Offset,
    end: Offset,
    /// The leaf that names the damaged segment, where it is not the root itself.
    leaf: Option<u64>,
}

/// What of a group tells.
#[derive(Clone, Copy)]
struct Seen<'a> {
    root: &'a Root,
    tombstones: &'a [Tombstone],
    upload_failed: &'a BTreeSet<u64>,
}

impl PutAgain {
    /// The segment of `entry`, which `root` names, is put there again under `uid`.
    #[must_use]
    pub fn of(uid: u64, entry: &Entry, root: &Root) -> Self {
        let (base, end) = (entry.base, entry.end());
        Self { uid, base, end, leaf: root.leaf_over(base, end).map(|leaf| leaf.uid) }
    }

    /// What can be said of it; `None` while it is under way.
    #[must_use]
    pub fn outcome(&self, status: &GroupStatus) -> Option<Outcome> {
        self.seen(Seen {
            root: &status.root,
            tombstones: &status.tombstones,
            upload_failed: &status.upload_failed,
        })
    }

    fn seen(&self, seen: Seen<'_>) -> Option<Outcome> {
        let own = seen.tombstones.iter().find(|gone| gone.uid == self.uid);
        let given_up =
            seen.upload_failed.contains(&self.uid) || own.is_some_and(|gone| gone.named.is_empty());
        let is_placed = self.is_named(seen) || own.is_some_and(|gone| !gone.named.is_empty());
        if is_placed {
            return Some(Outcome::Repaired("put there once more from this node's copy, under a new key"));
        }
        let leaf = seen.root.leaf_over(self.base, self.end).map(|leaf| leaf.uid);
        let why = if leaf == self.leaf { NO_COPY } else { OVERTAKEN };
        given_up.then(|| Outcome::Unrepaired(why.to_owned()))
    }

    /// Whether the manifest came to name the new segment: in the root, or in the leaf that was put beside it. That another leaf stands
    /// there than before says nothing: any change of the leaf brings one.
    fn is_named(&self, seen: Seen<'_>) -> bool {
        let leaf = uid_of_leaf(self.uid);
        seen.root.entries.iter().any(|known| known.uid == self.uid)
            || seen.root.nodes.iter().any(|node| node.uid == leaf)
            // It gave way in its turn; what it named is named on.
            || seen.tombstones.iter().any(|gone| gone.uid == leaf && gone.alone)
    }
}

#[cfg(test)]
mod tests {
    use varve_common::{Digest, LogIndex, Term};
    use varve_formats::{
        manifest::{EntryKind, FoldPlan},
        state::NAMED_EVER,
    };

    use super::*;

    const UID: u64 = 70;
    const LEAF: u64 = 50;

    fn entry(n: u64) -> Entry {
        Entry {
            store_id: 0,
            kind: EntryKind::Raw,
            incarnation: 1,
            term: Term(3),
            uid: n + 1,
            position: 0,
            length: 100,
            base: Offset(n * 10),
            last: Offset(n * 10 + 9),
            count: 10,
            min_timestamp: 0,
            max_timestamp: 0,
            first_index: LogIndex(n + 1),
            roll_index: LogIndex(n + 2),
            roll_term: Term(3),
            terms: (Term(3), Term(3)),
            txn_index_empty: true,
            delete_horizon_ms: 0,
            batch_bytes: 100,
            sha256: Digest::default(),
        }
    }

    /// A root with a leaf over the first three segments.
    fn with_leaf(uid: u64) -> Root {
        let leaf = FoldPlan::Leaf((0..3).map(entry).collect());
        Root { nodes: vec![leaf.reference(1, uid, (1, Digest::default()))], ..Root::default() }
    }

    fn tombstone(uid: u64, node_level: Option<u8>, named: std::ops::Range<LogIndex>) -> Tombstone {
        Tombstone {
            uid,
            node_level,
            alone: node_level.is_some(),
            kind: EntryKind::Raw,
            incarnation: 1,
            term: Term(3),
            base: Offset(0),
            last: Offset(29),
            since_ms: 0,
            log_start: Offset(0),
            named,
        }
    }

    fn seen(root: &Root, tombstones: &[Tombstone]) -> Option<Outcome> {
        let put = PutAgain::of(UID, &entry(1), &with_leaf(LEAF));
        put.seen(Seen { root, tombstones, upload_failed: &BTreeSet::new() })
    }

    fn is_repaired(outcome: Option<Outcome>) -> bool {
        matches!(outcome, Some(Outcome::Repaired(_)))
    }

    #[test]
    fn row_60_a_leaf_that_gave_way_to_another_change_repairs_nothing() {
        assert_eq!(seen(&with_leaf(LEAF), &[]), None);
        // What is asked for is not announced yet, or its leaf is being put; the one that it was to replace has gone.
        assert_eq!(seen(&with_leaf(99), &[]), None);
    }

    #[test]
    fn row_60_a_segment_is_repaired_once_its_own_leaf_is_named() {
        assert!(is_repaired(seen(&with_leaf(uid_of_leaf(UID)), &[])));
        // And that leaf may have given way to another one since.
        let followed = tombstone(uid_of_leaf(UID), Some(0), LogIndex(0)..LogIndex(9));
        assert!(is_repaired(seen(&with_leaf(99), &[followed])));
        let root = Root { entries: vec![Entry { uid: UID, ..entry(1) }], ..Root::default() };
        assert!(is_repaired(seen(&root, &[])));
    }

    #[test]
    fn row_60_what_was_given_up_says_whether_its_leaf_has_gone_meanwhile() {
        let given_up = [tombstone(UID, None, LogIndex(0)..LogIndex(0))];
        let why = |leaf: u64| match seen(&with_leaf(leaf), &given_up) {
            Some(Outcome::Unrepaired(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!((why(LEAF), why(99)), (NO_COPY.to_owned(), OVERTAKEN.to_owned()));
        assert!(is_repaired(seen(&with_leaf(99), &[tombstone(UID, None, NAMED_EVER)])), "and merged since");
    }
}
