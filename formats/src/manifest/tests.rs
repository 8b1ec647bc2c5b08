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
            let Sums { base, last, entries, segment_bytes, max_timestamp } = plan.sums();
            let (level, uid) = (plan.level(), self.next_uid);
            let (length, sha256) = (1, Digest::default());
            let node = NodeReference {
                level,
                incarnation: 1,
                uid,
                base,
                last,
                entries,
                segment_bytes,
                max_timestamp,
                length,
                sha256,
            };
            self.root.fold(&node).unwrap();
            self.objects.insert(uid, plan);
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
