//! When a range is closed.

use super::*;

#[test]
fn a_full_range_is_rolled_once() {
    let full = GroupStatus { open: open(64 << 20, 0), ..idle() };
    assert_eq!(planned(&full).actions, [Action::Roll { cause: RollCause::Bytes }]);
    assert_eq!(planned(&GroupStatus { roll_pending: true, ..full }).actions, []);
}

#[test]
fn a_quiet_range_is_rolled_when_its_upload_age_has_passed() {
    let young = GroupStatus { open: open(1, 9 * MINUTE), ..idle() };
    assert_eq!(
        planned(&young),
        Plan { actions: Vec::new(), look_again_after: Some(Duration::from_secs(60)) }
    );
    let old = GroupStatus { open: open(1, 10 * MINUTE), ..idle() };
    assert_eq!(planned(&old).actions, [Action::Roll { cause: RollCause::Age }]);
}

#[test]
fn a_range_of_which_no_record_is_to_be_kept_is_rolled_for_retention_to_take_it() {
    let options = GroupOptions { tiered: false, retention_ms: Some(60_000), ..GroupOptions::default() };
    let of = |newest_age_ms, age_ms| {
        let open = OpenRange { max_timestamp: NOW_MS - newest_age_ms, ..open(1, age_ms) };
        planned(&GroupStatus { options: options.clone(), open, ..idle() })
    };
    let rolled = [Action::Roll { cause: RollCause::Age }];
    assert_eq!(of(MINUTE + 1, 6 * MINUTE).actions, rolled);
    let young = Plan { actions: Vec::new(), look_again_after: Some(Duration::from_millis(1)) };
    assert_eq!(of(MINUTE, 6 * MINUTE), young);
    // Old records that are written now are looked at no more often than any.
    let again = Plan { actions: Vec::new(), look_again_after: Some(Duration::from_secs(240)) };
    assert_eq!(of(900 * MINUTE, MINUTE), again);
    let without = OpenRange { max_timestamp: -1, ..open(1, 6 * MINUTE) };
    assert_eq!(planned(&GroupStatus { options: options.clone(), open: without, ..idle() }).actions, []);
}

#[test]
fn jitter_rolls_each_range_at_a_time_of_its_own_before_segment_ms() {
    let options = GroupOptions {
        tiered: false,
        segment_ms: 10_000,
        segment_jitter_ms: 4_000,
        ..GroupOptions::default()
    };
    let waits = |group| {
        let status =
            GroupStatus { group: GroupId(group), options: options.clone(), open: open(1, 0), ..idle() };
        planned(&status).look_again_after.unwrap().as_millis()
    };
    let times: std::collections::BTreeSet<u128> = (1..=20).map(waits).collect();
    assert!(times.len() > 15 && times.iter().all(|wait| (6_000..=10_000).contains(wait)), "{times:?}");
    assert_eq!(waits(3), waits(3), "it does not change from one look to the next");
}
