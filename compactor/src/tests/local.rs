//! What has a file of this node, and for how long.

use super::*;

#[test]
fn t39_the_range_that_holds_the_log_start_is_sealed_like_any() {
    let status = GroupStatus {
        tiered_end: Offset(10),
        log_start: Offset(15),
        rolls: Arc::new(vec![roll(10, 20), roll(20, 30)]),
        options: GroupOptions { tiered: false, ..GroupOptions::default() },
        ..idle()
    };
    let actions = pressed(&status);
    assert!(actions.contains(&Action::Seal { base: Offset(10) }), "{actions:?}");
}

#[test]
fn a_pressed_topic_that_does_not_tier_is_sealed_in_order() {
    let options = GroupOptions { tiered: false, ..GroupOptions::default() };
    let status = GroupStatus { rolls: Arc::new(vec![roll(0, 10), roll(10, 20)]), options, ..idle() };
    assert!(!planned(&status).actions.contains(&Action::Seal { base: Offset(0) }));
    assert!(pressed(&status).contains(&Action::Seal { base: Offset(0) }));
    let jobs = JobsStatus { sealing: [Offset(0)].into(), ..JobsStatus::default() };
    assert!(
        !pressed(&GroupStatus { jobs, ..status }).iter().any(|action| matches!(action, Action::Seal { .. }))
    );
}

#[test]
fn a_topic_that_tiers_is_sealed_too_before_producers_wait() {
    let status = GroupStatus { rolls: Arc::new(vec![roll(0, 10)]), ..idle() };
    let seal = Action::Seal { base: Offset(0) };
    assert!(!pressed(&status).contains(&seal));
    let pressure = Pressure { groups: [status.group].into(), urgent: true, disk: false };
    let options = PlanOptions { pressure, ..PlanOptions::default() };
    assert!(plan(&status, &options, now(), &Counter).actions.contains(&seal));
}

#[test]
fn a_pressed_range_is_rolled_once_what_was_rolled_before_is_sealed() {
    let options = GroupOptions { tiered: false, ..GroupOptions::default() };
    let rolls = Arc::new(vec![roll(0, 10)]);
    let waiting = GroupStatus { open: open(1, 0), rolls, options, ..idle() };
    let rolled = Action::Roll { cause: RollCause::Pressure };
    assert!(!pressed(&waiting).contains(&rolled));
    let sealed = GroupStatus { seals: Arc::new(vec![seal(0, 10)]), ..waiting };
    assert!(pressed(&sealed).contains(&rolled));
}

#[test]
fn t38_a_sealed_file_goes_only_when_it_is_tiered_and_not_asked_for() {
    let sealed = GroupStatus { seals: Arc::new(vec![seal(0, 10)]), ..idle() };
    let unseal = Action::Unseal { base: Offset(0) };
    assert!(!planned(&sealed).actions.contains(&unseal));
    let tiered = GroupStatus { tiered_end: Offset(10), ..sealed };
    assert!(planned(&tiered).actions.contains(&unseal));
    let local_retention = LocalRetention::Explicit { ms: None, bytes: Some(1_000) };
    let kept = GroupStatus { options: GroupOptions { local_retention, ..GroupOptions::default() }, ..tiered };
    assert!(!planned(&kept).actions.contains(&unseal));
}

fn keeping(ms: Option<u64>, bytes: Option<u64>) -> GroupOptions {
    let local_retention = LocalRetention::Explicit { ms, bytes };
    GroupOptions { local_retention, ..GroupOptions::default() }
}

#[test]
fn what_local_retention_asks_for_has_a_file_before_the_bucket_counts() {
    let rolled = GroupStatus {
        rolls: Arc::new(vec![roll(0, 10)]),
        intents: Arc::new(vec![intent(1, 3, 0, 10)]),
        uploaded: [1].into(),
        appendable: true,
        options: keeping(None, Some(1_000)),
        ..idle()
    };
    let seal_it = Action::Seal { base: Offset(0) };
    assert_eq!(planned(&rolled).actions, [seal_it]);
    let sealed = GroupStatus { seals: Arc::new(vec![seal(0, 10)]), ..rolled.clone() };
    assert_eq!(planned(&sealed).actions, [Action::Append]);
    let failures: BTreeMap<_, _> = [(JobKind::Seal, (1, now().monotonic))].into();
    let failed = GroupStatus { jobs: JobsStatus { failures, ..JobsStatus::default() }, ..rolled.clone() };
    assert_eq!(planned(&failed).actions, [Action::Append], "a disk that takes no file holds nothing up");
    let full = PlanOptions { hot: Hot { room: 0, ..Hot::default() }, ..PlanOptions::default() };
    assert_eq!(plan(&rolled, &full, now(), &Counter).actions, [Action::Append]);
    let window = GroupStatus { options: GroupOptions::default(), ..rolled };
    assert_eq!(planned(&window).actions, [Action::Append]);
}

#[test]
fn whole_files_go_while_what_is_left_is_as_large_as_asked_or_when_they_are_too_old() {
    let kept = GroupStatus {
        seals: Arc::new(vec![seal(0, 10), seal(10, 20), seal(20, 30)]),
        tiered_end: Offset(30),
        rolls: Arc::new(vec![roll(0, 10)]),
        ..idle()
    };
    let unseals = |options: GroupOptions, now: Now| {
        let status = GroupStatus { options, ..kept.clone() };
        plan(&status, &PlanOptions::default(), now, &Counter)
            .actions
            .contains(&Action::Unseal { base: Offset(0) })
    };
    assert!(!unseals(keeping(None, Some(201)), now()) && unseals(keeping(None, Some(200)), now()));
    let later = Now { wall_ms: NOW_MS + 1_000, ..now() };
    assert!(!unseals(keeping(Some(1_000), None), now()) && unseals(keeping(Some(1_000), None), later));
    assert!(!unseals(keeping(None, None), later));
}

#[test]
fn beyond_the_hot_limit_the_oldest_tiered_file_of_all_groups_goes_first() {
    let of = |group: u64, tiered_end: u64| GroupStatus {
        group: GroupId(group),
        seals: Arc::new(vec![seal(0, 10), seal(10, 20)]),
        rolls: Arc::new(vec![RollEntry { max_timestamp: NOW_MS - group as i64, ..roll(0, 10) }]),
        tiered_end: Offset(tiered_end),
        ..idle()
    };
    let mut gauge = HotGauge::new(500);
    gauge.note(&of(1, 20));
    gauge.note(&of(2, 20));
    assert_eq!((gauge.oldest(), gauge.look(GroupId(1)).room), (None, 100));
    gauge.note(&of(3, 0));
    assert_eq!(gauge.oldest(), Some(GroupId(2)), "what the bucket does not have stays");
    assert!(gauge.look(GroupId(2)).give_up && !gauge.look(GroupId(1)).give_up);
    gauge.forget(GroupId(1));
    assert_eq!(gauge.oldest(), None);
}
