//! What goes for good: records, objects, deleted topics.

use super::*;

#[test]
fn a_topic_that_forgets_its_tier_is_trimmed_to_what_is_asked_to_be_here() {
    let local_retention = LocalRetention::Explicit { ms: None, bytes: None };
    let options = GroupOptions { tiered: false, forgets_tiered: true, ..GroupOptions::default() };
    let entries = vec![entry(0, 10), entry(10, 20), entry(20, 30)];
    let root = Root { entries, ..Root::default() };
    let status = GroupStatus { root: Arc::new(root), tiered_end: Offset(30), options, ..idle() };
    let trim = |log_start| Action::Trim { log_start: Offset(log_start), cause: TrimCause::Disabled };
    assert_eq!(planned(&status).actions, [trim(30)]);
    let pending = GroupStatus { fence_pending: true, ..status.clone() };
    assert!(planned(&pending).actions.is_empty());
    let done = GroupStatus { root: Arc::default(), log_start: Offset(30), ..status.clone() };
    assert!(planned(&done).actions.is_empty());
    let kept_here = GroupStatus {
        seals: Arc::new(vec![seal(0, 10), seal(20, 30), seal(30, 40)]),
        options: GroupOptions { local_retention, ..status.options.clone() },
        ..status
    };
    assert_eq!(planned(&kept_here).actions, [trim(20)], "a gap in what is here hides what lies before it");
}

#[test]
fn retention_passes_whole_ranges_from_the_oldest_on() {
    let old = RollEntry { max_timestamp: NOW_MS, ..roll(0, 10) };
    let now_ms = NOW_MS + 8 * 24 * 60 * MINUTE;
    let status = GroupStatus {
        rolls: Arc::new(vec![old, RollEntry { max_timestamp: now_ms, ..roll(10, 20) }]),
        ..idle()
    };
    let later = Now { wall_ms: now_ms, ..now() };
    let actions = plan(&status, &PlanOptions::default(), later, &Counter).actions;
    assert!(actions.contains(&Action::Trim { log_start: Offset(10), cause: TrimCause::Retention }));
}

#[test]
fn retention_counts_the_logs_bytes_however_small_they_are_in_the_bucket() {
    // Ranges of a hundred bytes of batches, which take ten in the bucket: four in a leaf, four in the root, one not tiered.
    let small = |base: u64| Entry { length: 10, ..entry(base, base + 10) };
    let leaf = FoldPlan::Leaf((0..4).map(|n| small(n * 10)).collect());
    let root = Root {
        nodes: vec![leaf.reference(1, 500, (1, Default::default()))],
        entries: (4..8).map(|n| small(n * 10)).collect(),
        ..Root::default()
    };
    let held = GroupStatus { root: Arc::new(root), rolls: Arc::new(vec![roll(80, 90)]), ..idle() };
    let trimmed_to = |retention_bytes: u64| {
        let options = GroupOptions {
            retention_ms: None,
            retention_bytes: Some(retention_bytes),
            ..held.options.clone()
        };
        let status = GroupStatus { options, open: open(50, 0), ..held.clone() };
        planned(&status).actions.into_iter().find_map(|action| match action {
            Action::Trim { log_start, cause: TrimCause::Retention } => Some(log_start.0),
            _ => None,
        })
    };
    assert_eq!((trimmed_to(950), trimmed_to(551)), (None, None), "a leaf goes as a whole");
    assert_eq!((trimmed_to(550), trimmed_to(351), trimmed_to(350)), (Some(40), Some(50), Some(60)));
}

/// The first ten offsets' segment, which a trim left behind.
fn trimmed_since(since_ms: i64) -> Tombstone {
    Tombstone {
        uid: 9,
        node_level: None,
        alone: false,
        kind: EntryKind::Raw,
        incarnation: 1,
        term: Term(1),
        base: Offset(0),
        last: Offset(9),
        since_ms,
        log_start: Offset(10),
        named: NAMED_EVER,
    }
}

#[test]
fn b8_objects_go_only_when_two_checkpoints_carry_the_log_start_and_the_grace_has_passed() {
    let dead = trimmed_since(NOW_MS - 20 * MINUTE);
    let with = |older: u64, published_ms: i64| GroupStatus {
        tombstones: Arc::new(vec![dead.clone()]),
        published: vec![published(1, older, published_ms), published(2, 10, NOW_MS)],
        ..idle()
    };
    let delete = Action::Delete { uids: vec![9] };
    assert!(planned(&with(10, NOW_MS)).actions.contains(&delete));
    assert!(!planned(&with(0, NOW_MS)).actions.contains(&delete));
    assert!(!planned(&with(10, NOW_MS - 30 * MINUTE)).actions.contains(&delete));
}

fn metadata_with(applied_at: &[u64], deleted_at: u64, since_ms: i64) -> GroupStatus {
    let topic = Arc::new(varve_replica::metadata::Topic {
        id: varve_common::TopicId::from_random(3),
        name: "gone".into(),
        created_ms: 0,
        partitions: Vec::new(),
        configs: BTreeMap::new(),
    });
    let deletion = varve_replica::metadata::Deletion {
        topic: Arc::clone(&topic),
        since_ms,
        index: LogIndex(deleted_at),
    };
    let at = |applied: &u64| PublishedCheckpoint {
        applied_index: LogIndex(*applied),
        ..published(1, 0, NOW_MS - 10 * MINUTE)
    };
    GroupStatus {
        group: GroupId::METADATA,
        deletions: Arc::new([(topic.id, deletion)].into()),
        published: applied_at.iter().map(at).collect(),
        ..idle()
    }
}

#[test]
fn a_deleted_topic_is_reaped_when_no_newest_checkpoint_brings_it_back() {
    let topic = varve_common::TopicId::from_random(3);
    let reap = |pass| Action::Reap { topic, pass };
    let publish = Action::PublishCheckpoint { uid: 77 };
    let since = NOW_MS - MINUTE;
    assert_eq!(planned(&metadata_with(&[], 20, since)).actions, std::slice::from_ref(&publish));
    assert_eq!(planned(&metadata_with(&[19, 20], 20, since)).actions, [publish], "one is not enough");
    let mut status = metadata_with(&[20, 25], 20, since);
    assert_eq!(planned(&status).actions, [reap(ReapPass::Early)]);
    status.reaped_early = [topic].into();
    let plan = planned(&status);
    assert_eq!((plan.actions, plan.look_again_after), (vec![], Some(Duration::from_secs(9 * 60))));
    let mut status = metadata_with(&[20, 25], 20, NOW_MS - 10 * MINUTE);
    status.reaped_early = [topic].into();
    assert_eq!(planned(&status).actions, [reap(ReapPass::Final)]);
}

#[test]
fn b8_a_trim_at_rest_asks_for_the_checkpoints_that_its_objects_wait_for() {
    let tombstone = trimmed_since(NOW_MS - 61 * MINUTE);
    let status = |published: Vec<PublishedCheckpoint>, named| GroupStatus {
        tombstones: Arc::new(vec![Tombstone { named, ..tombstone.clone() }]),
        published,
        ..idle()
    };
    let publish = Action::PublishCheckpoint { uid: 77 };
    assert!(planned(&status(Vec::new(), NAMED_EVER)).actions.contains(&publish));
    let one = vec![published(1, 0, 0), published(2, 10, NOW_MS - MINUTE)];
    assert!(planned(&status(one, NAMED_EVER)).actions.contains(&publish));
    let both = vec![published(1, 10, NOW_MS - 2 * MINUTE), published(2, 10, NOW_MS - MINUTE)];
    assert_eq!(planned(&status(both, NAMED_EVER)).actions, [Action::Delete { uids: vec![9] }]);
    let given_up = status(Vec::new(), LogIndex::ZERO..LogIndex::ZERO);
    assert_eq!(planned(&given_up).actions, [Action::Delete { uids: vec![9] }], "an upload that was given up");
}
