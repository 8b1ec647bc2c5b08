//! Leaves of the manifest that give way to others (TIERING.md 12), at fan-out 4.

use varve_formats::{manifest::FoldPlan, state::Intent};

use super::*;

/// A leaf of the ranges 0..2, 2..4, 4..6 and 6..8 under uids 1 to 4, and the range 8..10 beside it.
fn folded() -> Node {
    let mut node = Node::ready();
    (0..5).for_each(|n| node.tier_next(n));
    node.fold(50);
    node
}

impl Node {
    fn leaf(&self) -> NodeReference {
        self.status().root.nodes[0].clone()
    }

    fn mend_job(&self) -> Option<Job> {
        let started = |effect: &Effect| match effect {
            Effect::Start(job @ Job::Mend { .. }) => Some(job.clone()),
            _ => None,
        };
        self.effects.iter().rev().find_map(started)
    }

    /// The leaf that a mend job would put, of these entries.
    fn sealed(&self, uid: u64, entries: &[Entry]) -> NodeReference {
        let identity = self.status().identity.unwrap();
        varve_formats::node::Node { identity, body: FoldPlan::Leaf(entries.to_vec()) }.seal(uid).1
    }

    fn graves(&self) -> Vec<(u64, bool)> {
        self.status().tombstones.iter().map(|tombstone| (tombstone.uid, tombstone.alone)).collect()
    }

    /// Announces that a range in the leaf is put there once more, or merged; its job.
    fn within_leaf(&mut self, uid: u64, base: u64, end: u64) -> Option<(u64, Intent)> {
        self.take_effects();
        self.act(Action::Announce { uid, base: Offset(base), end: Offset(end) });
        self.act(Action::Upload { uid });
        match self.mend_job()? {
            Job::Mend { uid, range: Some((intent, _)), .. } => Some((uid, intent)),
            _ => None,
        }
    }
}

/// What the job of [`Node::within_leaf`] finds in the old leaf, and what it puts.
fn entries(node: &Node) -> Vec<Entry> {
    let one = node.status().root.entries[0].clone();
    (0..4_u64)
        .map(|n| Entry { uid: n + 1, base: Offset(2 * n), last: Offset(2 * n + 1), ..one.clone() })
        .collect()
}

#[test]
fn row_60_a_damaged_leaf_gives_way_to_one_of_the_same_entries_and_goes_alone() {
    let mut node = folded();
    let before = node.status();
    node.act(Action::MendLeaf { uid: 60, leaf: 50 });
    let Some(Job::Mend { uid: 60, leaf, range: None, .. }) = node.mend_job() else { panic!() };
    assert_eq!(leaf, node.leaf());
    let mended = Mended { removed: 50, node: NodeReference { uid: 60, ..leaf }, exchanged: None };
    node.done(JobOutcome::Mended(Box::new(mended)));
    let status = node.status();
    assert_eq!((node.leaf().uid, status.manifest_seq), (60, before.manifest_seq + 1));
    assert_eq!((status.root.segments(), node.graves()), (5, vec![(50, true)]));
    let after = node.reopen().status();
    assert_eq!((after.root, after.tombstones), (status.root, status.tombstones));
}

#[test]
fn b1_a_leaf_that_gives_way_while_it_is_folded_is_not_named_again() {
    let mut node = folded();
    let mut n = 5;
    while node.status().root.nodes.len() < 5 {
        node.tier_next(n);
        n += 1;
        if node.status().root.entries.len() > 4 {
            node.fold(100 + n);
        }
    }
    let (plan, inner) = node.start_fold(200).unwrap();
    let FoldPlan::Inner { references, .. } = plan else { panic!() };
    assert_eq!(references[0].uid, 50);
    node.act(Action::MendLeaf { uid: 60, leaf: 50 });
    let leaf = NodeReference { uid: 60, ..references[0].clone() };
    node.done(JobOutcome::Mended(Box::new(Mended { removed: 50, node: leaf, exchanged: None })));
    node.done(JobOutcome::Folded { node: inner });
    let uids: Vec<u64> = node.status().root.nodes.iter().map(|node| node.uid).collect();
    assert_eq!((uids[0], uids.len()), (60, 5), "the damaged leaf would have come back below the inner node");
    let (again, inner) = node.start_fold(201).unwrap();
    let FoldPlan::Inner { references, .. } = again else { panic!() };
    assert_eq!(references[0].uid, 60);
    node.done(JobOutcome::Folded { node: inner });
    assert_eq!(node.status().root.nodes[0].uid, 201);
}

#[test]
fn row_60_a_segment_of_a_leaf_is_put_once_more_and_named_by_another_leaf() {
    let mut node = folded();
    let known = entries(&node);
    let (leaf_uid, intent) = node.within_leaf(7, 2, 4).unwrap();
    assert!(leaf_uid != 7 && intent.kind == EntryKind::Merged);
    let added = Entry { uid: 7, kind: EntryKind::Merged, term: intent.term, ..known[1].clone() };
    let new = [known[0].clone(), added.clone(), known[2].clone(), known[3].clone()];
    let mended = Mended {
        removed: 50,
        node: node.sealed(leaf_uid, &new),
        exchanged: Some((vec![known[1].clone()], added)),
    };
    node.done(JobOutcome::Mended(Box::new(mended)));
    let status = node.status();
    assert_eq!((node.leaf().uid, status.intents.len(), status.uploaded.len()), (leaf_uid, 0, 0));
    assert_eq!(node.graves(), [(2, false), (50, true)]);
}

#[test]
fn b8_what_a_leaf_named_before_goes_when_no_checkpoint_names_it() {
    let mut node = folded();
    node.publish(11);
    let known = entries(&node);
    let (leaf_uid, intent) = node.within_leaf(7, 2, 8).unwrap();
    let added = Entry {
        uid: 7,
        kind: EntryKind::Merged,
        term: intent.term,
        last: Offset(7),
        length: 25,
        ..known[1].clone()
    };
    let node_reference = node.sealed(leaf_uid, &[known[0].clone(), added.clone()]);
    let exchanged = Some((known[1..4].to_vec(), added));
    node.done(JobOutcome::Mended(Box::new(Mended { removed: 50, node: node_reference, exchanged })));
    assert_eq!(node.graves(), [(2, false), (3, false), (4, false), (50, true)]);
    let may_go = |node: &mut Node, uid: u64| {
        node.take_effects();
        node.act(Action::Delete { uids: vec![uid] });
        node.effects.iter().any(|effect| matches!(effect, Effect::Start(Job::Delete { .. })))
    };
    assert!(!may_go(&mut node, 3) && !may_go(&mut node, 50), "a checkpoint names them");
    for uid in 12..15 {
        node.publish(uid);
    }
    assert!(!may_go(&mut node, 3) && !may_go(&mut node, 50), "one that is kept still does");
    node.disk.bucket.remove(0);
    node.publish(15);
    assert!(may_go(&mut node, 50));
}

#[test]
fn b3_a_leaf_that_is_no_longer_there_is_not_replaced_and_its_segment_collected() {
    let mut node = folded();
    let known = entries(&node);
    let (leaf_uid, intent) = node.within_leaf(7, 2, 4).unwrap();
    node.act(Action::Trim { log_start: Offset(8), cause: TrimCause::Retention });
    let before = node.status();
    let added = Entry { uid: 7, kind: EntryKind::Merged, term: intent.term, ..known[1].clone() };
    let new = [known[0].clone(), added.clone(), known[2].clone(), known[3].clone()];
    let node_reference = node.sealed(leaf_uid, &new);
    let exchanged = Some((vec![known[1].clone()], added));
    node.done(JobOutcome::Mended(Box::new(Mended { removed: 50, node: node_reference, exchanged })));
    assert_eq!((node.status().root, node.status().manifest_seq), (before.root, before.manifest_seq));
    node.act(Action::Expire { uids: vec![7] });
    assert!(node.status().intents.is_empty());
    assert_eq!(node.graves(), [(50, false), (7, false)]);
}

#[test]
fn a_merge_whose_run_was_folded_meanwhile_is_given_up() {
    let mut node = Node::ready();
    (0..5).for_each(|n| node.tier_next(n));
    node.act(Action::Announce { uid: 7, base: Offset(2), end: Offset(6) });
    node.act(Action::Upload { uid: 7 });
    let Job::Merge { intent, entries, .. } = node.job() else { panic!() };
    node.fold(50);
    let merged = Entry {
        uid: 7,
        kind: EntryKind::Merged,
        term: intent.term,
        base: Offset(2),
        last: Offset(5),
        ..entries[1].clone()
    };
    node.done(JobOutcome::Merged { entry: merged, segments: 2 });
    assert_eq!((node.leaf().uid, node.status().intents.len()), (50, 1));
    node.act(Action::Expire { uids: vec![7] });
    assert_eq!((node.status().intents.len(), node.graves()), (0, vec![(7, false)]));
}

#[test]
fn one_leaf_is_mended_at_a_time_and_a_failure_gives_its_range_up() {
    let mut node = folded();
    assert!(node.within_leaf(7, 2, 4).is_some());
    assert!(node.within_leaf(8, 4, 6).is_none(), "another is under way");
    node.done(JobOutcome::MendFailed { uid: Some(7), why: "no copy".into() });
    let status = node.status();
    assert!(status.upload_failed.contains(&7) && status.jobs.failures.contains_key(&JobKind::Mend));
    node.act(Action::Expire { uids: vec![7] });
    node.act(Action::Upload { uid: 8 });
    assert!(node.mend_job().is_some(), "the other's turn");
    assert!(node.within_leaf(9, 7, 9).is_none(), "no leaf covers that");
}
