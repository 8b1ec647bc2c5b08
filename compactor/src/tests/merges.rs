//! Which small segments become one, and what that may cost.

use super::*;

fn merges(lengths: &[u64], room: u64) -> Option<(u64, u64)> {
    let entries =
        lengths.iter().zip(0..).map(|(length, at)| Entry { length: *length, ..entry(at * 10, at * 10 + 10) });
    let root = Root { entries: entries.collect(), ..Root::default() };
    let tiered_end = root.end();
    let status = GroupStatus { root: Arc::new(root), tiered_end, ..idle() };
    let merge = Merge { segments_min: 4, bytes_max: 400, one_in: 10, given_per_second: 0, room };
    let options = PlanOptions { merge, ..PlanOptions::default() };
    plan(&status, &options, now(), &Counter).actions.into_iter().find_map(|action| match action {
        Action::Announce { base, end, .. } => Some((base.0 / 10, end.0 / 10)),
        _ => None,
    })
}

#[test]
fn small_segments_are_merged_when_they_are_many_and_alike_and_there_is_room() {
    assert_eq!(merges(&[10; 3], 1_000), None, "too few");
    assert_eq!(merges(&[10; 4], 1_000), Some((0, 4)));
    assert_eq!(merges(&[10; 4], 39), None, "no room");
    assert_eq!(merges(&[10, 10, 300, 10, 10, 10], 1_000), None, "what is large parts them");
    assert_eq!(merges(&[10, 300, 10, 10, 10, 10], 1_000), Some((2, 6)));
    assert_eq!(merges(&[90, 10, 10, 10], 1_000), None, "one outweighs the others");
    assert_eq!(merges(&[90, 10, 10, 10, 10], 1_000), Some((1, 5)), "it waits for its like");
    assert_eq!(merges(&[90, 90, 90, 90, 90], 1_000), Some((0, 4)), "no more than fits");
    assert_eq!(merges(&[], 1_000), None);
}

#[test]
fn a_leaf_of_small_segments_becomes_one_when_the_root_has_none_to_merge() {
    let leaf = |base: u64, entries: u64, segment_bytes: u64| NodeReference {
        level: 0,
        incarnation: 1,
        uid: base + 500,
        base: Offset(base),
        last: Offset(base + 99),
        entries,
        segment_bytes,
        max_timestamp: 0,
        length: 100,
        sha256: Default::default(),
        batch_bytes: None,
    };
    let announced = |nodes: Vec<NodeReference>, entries: Vec<Entry>, log_start| {
        let root = Root { nodes, entries, ..Root::default() };
        let (tiered_end, log_start) = (root.end(), Offset(log_start));
        let status = GroupStatus { root: Arc::new(root), tiered_end, log_start, ..idle() };
        let merge = Merge { segments_min: 4, bytes_max: 400, one_in: 10, given_per_second: 0, room: 400 };
        let options = PlanOptions { merge, ..PlanOptions::default() };
        plan(&status, &options, now(), &Counter).actions.into_iter().find_map(|action| match action {
            Action::Announce { base, end, .. } => Some((base.0, end.0)),
            _ => None,
        })
    };
    let (small, few, large) = (leaf(100, 8, 400), leaf(0, 3, 30), leaf(200, 8, 401));
    let inner = NodeReference { level: 1, ..leaf(0, 8, 100) };
    assert_eq!(announced(vec![few.clone(), small.clone(), large.clone()], vec![], 0), Some((100, 200)));
    assert_eq!(announced(vec![few, large], vec![], 0), None, "too few, too large");
    assert_eq!(announced(vec![inner, small.clone()], vec![], 0), Some((100, 200)), "of leaves alone");
    assert_eq!(announced(vec![small.clone()], vec![], 101), None, "retention has begun with it");
    let run = (20..24).map(|at| Entry { length: 10, ..entry(at * 10, at * 10 + 10) }).collect();
    assert_eq!(announced(vec![small], run, 0), Some((200, 240)), "the root's first");
}

#[test]
fn merging_spends_a_share_of_what_is_uploaded() {
    let (mut gauge, options) = (MergeGauge::default(), Merge::default());
    (0..5).for_each(|_| gauge.uploaded(1_000, &options));
    assert_eq!(gauge.room(&options), 500);
    gauge.merging(200, &options);
    assert_eq!(gauge.room(&options), 300);
    gauge.uploaded(u64::MAX / 2, &options);
    assert_eq!(gauge.room(&options), 1 << 30, "what is saved up is bounded");
}

#[test]
fn a_node_at_rest_merges_a_little_all_the_same() {
    let (mut gauge, options) = (MergeGauge::default(), Merge { given_per_second: 100, ..Merge::default() });
    let at = |millis| Monotonic(Duration::from_millis(millis));
    gauge.passed(at(5_000), &options);
    assert_eq!(gauge.room(&options), 0, "nothing for the time before the start");
    (1..=20).for_each(|step| gauge.passed(at(5_000 + step * 250), &options));
    assert_eq!(gauge.room(&options), 500);
    gauge.uploaded(1_000, &options);
    gauge.merging(550, &options);
    assert_eq!(gauge.room(&options), 50, "what time gave is spent first");
    gauge.passed(at(u64::MAX / 2), &options);
    assert_eq!(gauge.room(&options), options.bytes_max + 50, "what is saved up is bounded");
}

#[test]
fn a_run_without_room_is_looked_at_when_time_has_given_it() {
    let entries: Vec<Entry> =
        (0..8).map(|at| Entry { length: 1_000, ..entry(at * 10, at * 10 + 10) }).collect();
    let root = Root { entries, ..Root::default() };
    let tiered_end = root.end();
    let status = GroupStatus { root: Arc::new(root), tiered_end, ..idle() };
    let look = |given_per_second, room| {
        let merge = Merge { given_per_second, room, ..Merge::default() };
        let plan = plan(&status, &PlanOptions { merge, ..PlanOptions::default() }, now(), &Counter);
        (plan.look_again_after, plan.actions.len())
    };
    let (rest, none) = look(100, 8_000);
    assert_eq!(none, 1, "there is room");
    let waits = |seconds| {
        Some(rest.map_or(Duration::from_secs(seconds), |rest| rest.min(Duration::from_secs(seconds))))
    };
    assert_eq!(look(100, 2_000), (waits(60), 0));
    assert_eq!(look(0, 2_000), (waits(3_600), 0));
}

#[test]
fn a_merge_that_was_announced_runs_holds_no_upload_up_and_is_expired_with_its_run() {
    let root = Root { entries: vec![entry(0, 10), entry(10, 20)], ..Root::default() };
    let merging = Intent { kind: EntryKind::Merged, ..intent(7, 3, 0, 20) };
    let status = GroupStatus {
        root: Arc::new(root),
        tiered_end: Offset(20),
        rolls: Arc::new(vec![roll(20, 30), roll(30, 40)]),
        intents: Arc::new(vec![merging]),
        ..idle()
    };
    let announce = |base, end| Action::Announce { uid: 77, base: Offset(base), end: Offset(end) };
    assert_eq!(planned(&status).actions, [announce(20, 30), announce(30, 40), Action::Upload { uid: 7 }]);
    let folded = GroupStatus { root: Arc::default(), rolls: Arc::default(), uploaded: [7].into(), ..status };
    assert_eq!(planned(&folded).actions, [Action::Expire { uids: vec![7] }]);
}
