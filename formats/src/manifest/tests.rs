use std::collections::BTreeMap;

use proptest::prelude::*;
use varve_common::{Digest, Offset};

use super::{tests_support::entry, *};
use crate::{
    Stored,
    fixtures::{self, Form},
};

/// The tree beside a plain list of all entries.
#[derive(Default)]
struct Model {
    root: Root,
    objects: BTreeMap<u64, FoldPlan>,
    entries: Vec<Entry>,
    log_start: Offset,
    next_uid: u64,
}

impl Model {
    fn append(&mut self, lengths: &[(u64, i64)]) {
        let mut base = self.root.end();
        let mut entries = Vec::new();
        for (length, timestamp) in lengths {
            let mut new = entry(base.0, base.0 + length - 1);
            self.next_uid += 1;
            new.uid = self.next_uid;
            new.max_timestamp = *timestamp;
            base = new.end();
            entries.push(new);
        }
        self.entries.extend(entries.iter().cloned());
        self.root.append(entries, self.log_start).unwrap();
    }

    fn fold_all(&mut self, fan_out: FanOut) {
        while let Some(plan) = self.root.plan_fold(fan_out) {
            self.next_uid += 1;
            let node = plan.reference(1, self.next_uid, (1, Digest::default()));
            self.root.fold(&node).unwrap();
            self.objects.insert(node.uid, plan);
        }
    }

    fn trim(&mut self, log_start: Offset) {
        self.log_start = self.log_start.max(log_start);
        self.root.trim(self.log_start);
        self.entries.retain(|entry| entry.end() > self.log_start);
    }

    fn below(&self, node: &NodeReference) -> Vec<Entry> {
        match &self.objects[&node.uid] {
            FoldPlan::Leaf(entries) => entries.clone(),
            FoldPlan::Inner { references, .. } => {
                references.iter().flat_map(|node| self.below(node)).collect()
            }
        }
    }

    fn flat(&self) -> Vec<Entry> {
        let one = |place: Place<'_>| match place {
            Place::Entry(entry) => vec![entry.clone()],
            Place::Node(node) => self.below(node),
        };
        self.root.places().flat_map(one).filter(|entry| entry.end() > self.log_start).collect()
    }

    fn holds(&self, place: Place<'_>, wanted: &Entry) -> bool {
        place.base() <= wanted.base && wanted.end() <= place.end()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(u64, i64)>),
    Trim(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = prop::collection::vec((1..20_u64, 0..1_000_i64), 1..6).prop_map(Step::Append);
    let step = prop_oneof![4 => append, 1 => (0..100_u64).prop_map(Step::Trim)];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// B2: ranges in order, no gap, no overlap, and the tree names what a plain list names.
    #[test]
    fn b2_the_tree_equals_a_plain_list(steps in steps(), probe in 0..1_500_u64, timestamp in 0..1_000_i64) {
        let fan_out = FanOut(4);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Append(lengths) => model.append(&lengths),
                Step::Trim(percent) => {
                    let end = model.root.end().0;
                    model.trim(Offset(end * percent / 100));
                }
            }
            let end = model.root.end();
            model.fold_all(fan_out);
            prop_assert_eq!(model.root.end(), end);
            prop_assert!(model.root.nodes.len() <= 4 && model.root.entries.len() <= 4);
            prop_assert_eq!(model.flat(), model.entries.clone());
        }
        let offset = Offset(probe).max(model.log_start);
        let naive = model.entries.iter().find(|entry| entry.last >= offset);
        let found = model.root.find(offset);
        prop_assert_eq!(found.is_some(), naive.is_some());
        if let (Some(found), Some(naive)) = (found, naive) {
            prop_assert!(model.holds(found, naive));
        }
        let naive = model.entries.iter().find(|entry| entry.max_timestamp >= timestamp);
        if let Some(naive) = naive {
            // A node may begin with trimmed entries whose timestamps count too: the search goes on behind it.
            let mut from = model.log_start;
            loop {
                let found = model.root.find_timestamp(timestamp, from).unwrap();
                prop_assert!(found.base() <= naive.base);
                if model.holds(found, naive) { break; }
                from = found.end();
            }
        } else {
            prop_assert!(model.root.entries.iter().all(|entry| entry.max_timestamp < timestamp));
        }
        let bytes = model.root.to_bytes();
        prop_assert_eq!(Root::from_bytes(bytes).unwrap(), model.root);
    }
}

#[test]
fn gaps_and_overlaps_are_refused_and_change_nothing() {
    let mut root = Root::default();
    root.append(vec![entry(0, 9)], Offset(0)).unwrap();
    let before = root.clone();
    let (end, gap, overlap) = (Offset(10), Offset(11), Offset(9));
    let both = vec![entry(10, 10), entry(12, 13)];
    assert_eq!(root.append(both, Offset(0)), Err(AppendError::Gap { end: Offset(11), base: Offset(12) }));
    assert_eq!(root.append(vec![entry(11, 20)], Offset(0)), Err(AppendError::Gap { end, base: gap }));
    assert_eq!(root.append(vec![entry(9, 20)], Offset(0)), Err(AppendError::Overlap { end, base: overlap }));
    assert_eq!(root, before);
}

#[test]
fn a_gap_wholly_below_the_log_start_is_no_gap() {
    let mut root = Root::default();
    root.append(vec![entry(0, 9)], Offset(0)).unwrap();
    root.trim(Offset(15));
    assert_eq!((root.end(), root.first()), (Offset(10), None));
    root.append(vec![entry(15, 20)], Offset(15)).unwrap();
    assert_eq!(root.end(), Offset(21));
}

#[test]
fn an_emptied_manifest_keeps_its_end() {
    let mut root = Root::default();
    root.append(vec![entry(0, 9)], Offset(0)).unwrap();
    let trimmed = root.trim(Offset(10));
    assert_eq!(trimmed.entries, [entry(0, 9)]);
    assert_eq!(root.end(), Offset(10));
    let overlap = AppendError::Overlap { end: Offset(10), base: Offset(5) };
    assert_eq!(root.append(vec![entry(5, 12)], Offset(10)), Err(overlap));
    assert_eq!(Root::from_bytes(root.to_bytes()), Ok(root));
}

#[test]
fn replacing_keeps_the_range() {
    let mut root = Root::default();
    root.append(vec![entry(0, 9), entry(10, 19), entry(20, 29)], Offset(0)).unwrap();
    let mut merged = entry(10, 29);
    merged.kind = EntryKind::Merged;
    merged.uid = 5;
    let uids = [entry(10, 19).uid, entry(20, 29).uid];
    assert_eq!(root.clone().replace(&uids[1..], vec![merged.clone()]), Err(ReplaceError::Range));
    assert_eq!(root.clone().replace(&[1], vec![merged.clone()]), Err(ReplaceError::NotAdjacent));
    assert_eq!(root.replace(&uids, vec![merged.clone()]), Ok(vec![entry(10, 19), entry(20, 29)]));
    assert_eq!(root.entries, [entry(0, 9), merged]);
}

#[test]
fn a_node_that_lies_about_what_it_covers_is_refused() {
    let mut root = Root::default();
    root.append(vec![entry(0, 9), entry(10, 19)], Offset(0)).unwrap();
    let mut node = tests_support::node(0, 0, 9);
    node.entries = 2;
    assert!(matches!(root.fold(&node), Err(FoldError::Sums { .. })));
    node.last = Offset(12);
    assert!(matches!(root.fold(&node), Err(FoldError::NoSuchRun { .. })));
    node = tests_support::node(0, 10, 19);
    assert!(matches!(root.fold(&node), Err(FoldError::NoSuchRun { .. })), "not the oldest");
    root.fold(&tests_support::node(0, 0, 9)).unwrap();
    assert_eq!(root.find(Offset(3)), Some(Place::Node(&tests_support::node(0, 0, 9))));
    assert_eq!(root.find(Offset(10)), Some(Place::Entry(&entry(10, 19))));
    assert_eq!(root.find(Offset(20)), None);
}

#[test]
fn a_root_round_trips_and_matches_its_fixture() {
    let root =
        Root { start: Offset(5), nodes: vec![tests_support::node(1, 0, 99)], entries: vec![entry(100, 199)] };
    let bytes = fixtures::check("manifest_root", Form::Exact, &root.to_bytes());
    assert_eq!(Root::from_bytes(bytes), Ok(root));
}

#[test]
fn a_reference_that_counts_the_logs_bytes_round_trips_and_matches_its_fixture() {
    let node = NodeReference { batch_bytes: Some(600), ..tests_support::node(1, 0, 99) };
    let bytes = fixtures::check("manifest_reference", Form::Exact, &node.to_bytes());
    assert_eq!(NodeReference::from_bytes(bytes), Ok(node));
}

#[test]
fn a_reference_from_before_it_counted_the_logs_bytes_folds_and_counts_the_buckets() {
    let mut root = Root::default();
    let entries: Vec<Entry> = (0..3).map(|place| entry(place * 10, place * 10 + 9)).collect();
    root.append(entries.clone(), Offset(0)).unwrap();
    let old = NodeReference { batch_bytes: None, ..leaf(&entries[0..1], 70) };
    let lies = NodeReference { batch_bytes: Some(599), ..leaf(&entries[1..3], 71) };
    root.fold(&old).unwrap();
    assert!(matches!(root.fold(&lies), Err(FoldError::Sums { .. })));
    root.fold(&leaf(&entries[1..3], 71)).unwrap();
    assert_eq!(root.nodes.iter().map(NodeReference::log_bytes).collect::<Vec<_>>(), [500, 2 * 600]);
    let plan = FoldPlan::Inner { level: 1, references: root.nodes.clone() };
    root.fold(&plan.reference(1, 72, (300, Digest([4; 32])))).unwrap();
    assert_eq!(root.nodes[0].log_bytes(), 500 + 2 * 600);
}

/// A root with a leaf of three entries before another leaf and an entry, and that leaf's reference after `change`.
fn with_leaves() -> (Root, Vec<Entry>) {
    let entries: Vec<Entry> = (0..6).map(|place| entry(place * 10, place * 10 + 9)).collect();
    let mut root = Root::default();
    root.append(entries.clone(), Offset(0)).unwrap();
    for run in [0..3, 3..5] {
        let leaf = leaf(&entries[run.clone()], 70 + run.start as u64);
        root.fold(&leaf).unwrap();
    }
    (root, entries)
}

fn leaf(entries: &[Entry], uid: u64) -> NodeReference {
    let sums = FoldPlan::Leaf(entries.to_vec()).sums();
    let Sums { base, last, entries, segment_bytes, batch_bytes, max_timestamp } = sums;
    let reference = tests_support::node(0, base.0, last.0);
    let batch_bytes = Some(batch_bytes);
    NodeReference { uid, base, last, entries, segment_bytes, batch_bytes, max_timestamp, ..reference }
}

#[test]
fn a_leaf_gives_way_to_one_over_the_same_range() {
    let (root, entries) = with_leaves();
    let same = leaf(&entries[0..3], 9);
    let mut mended = root.clone();
    assert_eq!(mended.replace_leaf(70, &same, &[], &[]).map(|old| old.uid), Ok(70));
    assert_eq!((mended.nodes[0].uid, &mended.nodes[1], &mended.entries), (9, &root.nodes[1], &root.entries));

    let merged = Entry { uid: 5, kind: EntryKind::Merged, length: 700, batch_bytes: 1200, ..entry(10, 29) };
    let other = leaf(&[entries[0].clone(), merged.clone()], 9);
    let mut exchanged = root;
    assert_eq!(exchanged.replace_leaf(70, &other, &entries[1..3], &[merged]).map(|old| old.uid), Ok(70));
    assert_eq!((exchanged.segments(), exchanged.segment_bytes()), (5, 500 + 700 + 3 * 500));
}

#[test]
fn a_leaf_that_is_not_what_it_replaces_is_refused_and_changes_nothing() {
    let (root, entries) = with_leaves();
    let refused = |removed, node: &NodeReference, gone: &[Entry], added: &[Entry]| {
        let mut tried = root.clone();
        let error = tried.replace_leaf(removed, node, gone, added).unwrap_err();
        assert_eq!(tried, root);
        error
    };
    let same = leaf(&entries[0..3], 9);
    assert_eq!(refused(8, &same, &[], &[]), LeafError::NoSuchLeaf(8));
    assert!(matches!(refused(73, &same, &[], &[]), LeafError::Range { .. }), "of another leaf");
    assert!(matches!(refused(70, &leaf(&entries[0..3], 70), &[], &[]), LeafError::Range { .. }), "itself");
    let shorter = leaf(&entries[0..2], 9);
    assert!(matches!(refused(70, &shorter, &[], &[]), LeafError::Range { .. }));
    let mut heavier = same.clone();
    heavier.segment_bytes += 1;
    assert!(matches!(refused(70, &heavier, &[], &[]), LeafError::Sums { .. }));
    let mut wider = same.clone();
    wider.batch_bytes = Some(1);
    assert!(matches!(refused(70, &wider, &[], &[]), LeafError::Sums { .. }));
    let merged = Entry { uid: 5, ..entry(10, 29) };
    assert!(matches!(
        refused(70, &same, &entries[1..3], std::slice::from_ref(&merged)),
        LeafError::Sums { .. }
    ));
    for (gone, added) in [
        (&entries[1..2], vec![merged.clone()]),
        (&entries[0..0], vec![merged.clone()]),
        (&entries[1..3], vec![]),
        (&entries[2..4], vec![Entry { uid: 5, ..entry(20, 39) }]),
    ] {
        assert_eq!(refused(70, &same, gone, &added), LeafError::Exchange);
    }
    let gap = [entries[0].clone(), entries[2].clone()];
    assert_eq!(refused(70, &same, &gap, &[entry(0, 29)]), LeafError::Exchange);
}

#[test]
fn a_range_is_in_a_leaf_of_the_root_or_in_none() {
    let (root, _) = with_leaves();
    let over = |base, end| root.leaf_over(Offset(base), Offset(end)).map(|leaf| leaf.uid);
    assert_eq!((over(0, 30), over(10, 20), over(30, 50)), (Some(70), Some(70), Some(73)));
    assert_eq!((over(20, 40), over(50, 60), over(5, 5), over(60, 70)), (None, None, None, None));
}
