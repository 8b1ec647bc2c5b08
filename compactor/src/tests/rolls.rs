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
