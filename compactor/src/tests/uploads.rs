//! What is announced, put, named and given up.

use super::*;

#[test]
fn rolled_ranges_are_announced_in_order_and_bounded() {
    let rolls = Arc::new(vec![roll(0, 10), roll(10, 20), roll(20, 30)]);
    let status = GroupStatus { rolls: rolls.clone(), ..idle() };
    let announce = |base, end| Action::Announce { uid: 77, base: Offset(base), end: Offset(end) };
    assert_eq!(planned(&status).actions, [announce(0, 10), announce(10, 20)]);
    let busy =
        GroupStatus { rolls, intents: Arc::new(vec![intent(1, 3, 0, 10)]), uploading: [1].into(), ..idle() };
    assert_eq!(planned(&busy).actions, [announce(10, 20)]);
}

#[test]
fn intents_without_a_job_are_expired_never_taken_over() {
    let status = GroupStatus {
        intents: Arc::new(vec![intent(1, 2, 0, 10), intent(2, 3, 10, 20)]),
        upload_failed: [2].into(),
        ..idle()
    };
    assert_eq!(planned(&status).actions, [Action::Expire { uids: vec![1, 2] }]);
}

#[test]
fn t39_an_intent_whose_range_was_trimmed_makes_room_for_the_next() {
    let status = GroupStatus {
        tiered_end: Offset(20),
        log_start: Offset(20),
        rolls: Arc::new(vec![roll(20, 30)]),
        intents: Arc::new(vec![intent(1, 3, 0, 10), intent(2, 3, 10, 20), intent(3, 3, 20, 30)]),
        uploaded: [1].into(),
        uploading: [3].into(),
        ..idle()
    };
    assert_eq!(planned(&status).actions, [Action::Expire { uids: vec![1, 2] }, Action::Upload { uid: 2 }]);
    let running = GroupStatus { uploading: [1, 2, 3].into(), uploaded: [].into(), ..status };
    assert_eq!(planned(&running).actions, [], "a job that runs ends by itself");
}

#[test]
fn a_switched_off_topic_ends_what_runs_and_begins_nothing() {
    let options = GroupOptions { tiered: false, ..GroupOptions::default() };
    let status = GroupStatus {
        rolls: Arc::new(vec![roll(0, 10), roll(10, 20), roll(20, 30), roll(30, 40)]),
        intents: Arc::new(vec![intent(1, 3, 0, 10), intent(2, 3, 10, 20), intent(3, 3, 20, 30)]),
        uploaded: [1].into(),
        uploading: [2].into(),
        appendable: true,
        options,
        ..idle()
    };
    assert_eq!(planned(&status).actions, [Action::Expire { uids: vec![3] }, Action::Append]);
}

#[test]
fn a_failed_upload_backs_off() {
    let failures: BTreeMap<_, _> = [(JobKind::Upload, (3, Monotonic(Duration::from_secs(3_600))))].into();
    let jobs = JobsStatus { failures, ..JobsStatus::default() };
    let status = GroupStatus { rolls: Arc::new(vec![roll(0, 10)]), jobs, ..idle() };
    let plan = planned(&status);
    assert_eq!((plan.actions.len(), plan.look_again_after), (0, Some(Duration::from_millis(800))));
}
