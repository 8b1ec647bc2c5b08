//! Manifest entries that leave the root for an object of their own (TIERING.md 4), at fan-out 4.

use varve_formats::manifest::FoldPlan;

use super::*;

fn node_with(ranges: u64) -> Node {
    let mut node = Node::ready();
    for n in 0..ranges {
        node.tier_next(n);
    }
    node
}

impl Node {
    /// Range `n` of two records, in the bucket under uid `n + 1`.
    pub(super) fn tier_next(&mut self, n: u64) {
        let range = self.roll((9, 0, 2 * n as i32), 2);
        self.tier(n + 1, range);
    }

    /// Starts a fold: what the node will hold, and the reference to it once it is in the bucket.
    pub(super) fn start_fold(&mut self, uid: u64) -> Option<(FoldPlan, NodeReference)> {
        self.take_effects();
        self.act(Action::Fold { uid });
        let job = |effect: &Effect| if let Effect::Start(job) = effect { Some(job.clone()) } else { None };
        let Job::Fold { contents, identity, .. } = self.effects.iter().find_map(job)? else { panic!() };
        let (_, reference) = varve_formats::node::Node { identity, body: contents.clone() }.seal(uid);
        Some((contents, reference))
    }

    pub(super) fn fold(&mut self, uid: u64) {
        let (_, node) = self.start_fold(uid).expect("there is something to fold");
        self.done(JobOutcome::Folded { node });
    }

    /// The places of the root as base..end: B2 says that they follow one another up to the tiered end.
    fn places(&self) -> Vec<(u64, u64)> {
        let status = self.status();
        let places: Vec<_> = status.root.places().map(|place| (place.base().0, place.end().0)).collect();
        assert!(places.windows(2).all(|pair| pair[0].1 == pair[1].0), "{places:?}");
        assert_eq!(places.last().map(|place| place.1), Some(status.tiered_end.0));
        places
    }
}

#[test]
fn b2_a_fold_moves_the_oldest_entries_into_a_node() {
    let mut node = node_with(4);
    assert!(node.start_fold(50).is_none(), "four fit");
    node.tier_next(4);
    let seq = node.status().manifest_seq;
    node.fold(50);
    assert_eq!(node.places(), [(0, 8), (8, 10)]);
    let status = node.status();
    assert_eq!((status.manifest_seq, status.root.segments()), (seq + 1, 5));
    assert!(node.start_fold(51).is_none());
}

#[test]
fn b2_the_root_stays_small_however_many_ranges_there_are() {
    let mut node = node_with(0);
    let mut uid = 1_000;
    for n in 0..90 {
        node.tier_next(n);
        while let Some((_, reference)) = node.start_fold(uid) {
            node.done(JobOutcome::Folded { node: reference });
            uid += 1;
        }
        let root = node.status().root;
        assert!(root.nodes.len() <= 4 && root.entries.len() <= 4, "{n}");
        assert_eq!(root.segments(), n + 1);
        node.places();
    }
    let (before, after) = (node.status().root, node.reopen().status().root);
    assert!(before.nodes.iter().any(|node| node.level >= 2));
    assert_eq!(after, before);
}

#[test]
fn b1_a_crash_between_the_nodes_put_and_its_command_folds_again_under_another_name() {
    let mut node = node_with(5);
    let (contents, _) = node.start_fold(50).unwrap();
    // The node is in the bucket; the process dies before it is told.
    let mut node = node.reopen();
    assert_eq!(node.status().root.entries.len(), 5, "what the manifest does not name does not exist");
    let (again, reference) = node.start_fold(51).unwrap();
    assert_eq!(again, contents);
    node.done(JobOutcome::Folded { node: reference });
    assert_eq!(node.places(), [(0, 8), (8, 10)]);
    assert_eq!(node.status().root.nodes[0].uid, 51);
}

#[test]
fn r6_a_fold_that_was_proposed_before_the_crash_is_in_the_log_or_never_was() {
    let mut node = node_with(5);
    let (_, reference) = node.start_fold(50).unwrap();
    node.step(Input::JobDone { group: GROUP, outcome: JobOutcome::Folded { node: reference } });
    assert_eq!(node.reopen().status().root.nodes.len(), 0, "not written: it never was");
    node.settle();
    assert_eq!(node.reopen().status().root.nodes.len(), 1);
}

#[test]
fn b3_a_fold_overtaken_by_a_trim_misses_its_run_and_changes_nothing() {
    let mut node = node_with(5);
    let (_, reference) = node.start_fold(50).unwrap();
    node.act(Action::Trim { log_start: Offset(2), cause: TrimCause::Retention });
    let before = node.status();
    node.done(JobOutcome::Folded { node: reference });
    let status = node.status();
    assert_eq!((&status.root, status.manifest_seq), (&before.root, before.manifest_seq));
    assert_eq!(status.fenced_commands, 0, "nothing is proposed that could not take effect");
    assert_eq!(node.places(), [(2, 4), (4, 6), (6, 8), (8, 10)]);
}

#[test]
fn b3_a_fold_waits_for_the_change_of_the_manifest_before_it() {
    let mut node = node_with(5);
    let (_, reference) = node.start_fold(50).unwrap();
    let range = node.roll((9, 0, 10), 2);
    let entry = node.announce(6, range);
    node.done(JobOutcome::Uploaded { uid: 6, entry });
    node.step(Input::Act { group: GROUP, action: Action::Append });
    node.step(Input::JobDone { group: GROUP, outcome: JobOutcome::Folded { node: reference } });
    let waiting = node.effects.len();
    node.step(Input::Act { group: GROUP, action: Action::Fold { uid: 51 } });
    assert!(
        !node.effects[waiting..].iter().any(|effect| matches!(effect, Effect::Start(_))),
        "one is waiting"
    );
    node.settle();
    assert_eq!((node.places(), node.status().fenced_commands), (vec![(0, 8), (8, 10), (10, 12)], 0));
}
