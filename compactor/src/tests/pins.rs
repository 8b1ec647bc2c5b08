//! What is said to keep the log is what keeps it.

use super::*;

/// Everything up to 90 may go as far as safety says.
fn free() -> GroupStatus {
    GroupStatus {
        truncated: (LogIndex(10), Term(3)),
        cut_limit: (LogIndex(90), Term(3)),
        releasable: LogIndex(90),
        published: vec![published(40, 0, 0), published(80, 0, 0)],
        ..idle()
    }
}

fn is_cut(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Cut { .. }))
}

#[test]
fn what_pins_the_log_is_named() {
    let stuck = GroupStatus { cut_limit: (LogIndex(10), Term(3)), ..free() };
    let metadata = GroupStatus { group: GroupId::METADATA, releasable: LogIndex(0), ..stuck.clone() };
    let young = GroupStatus { published: vec![published(80, 0, 0)], ..free() };
    let old = GroupStatus { published: vec![published(9, 0, 0), published(80, 0, 0)], ..free() };
    let lagging = GroupStatus { has_peers: true, needed_above: LogIndex(20), ..free() };
    for (status, pin, pressed_pin) in [
        (free(), Pin::Nothing, Pin::Nothing),
        (GroupStatus { releasable: LogIndex(10), ..stuck.clone() }, Pin::Records, Pin::Records),
        (stuck, Pin::LocalCheckpoint, Pin::LocalCheckpoint),
        (metadata, Pin::LocalCheckpoint, Pin::LocalCheckpoint),
        (young, Pin::BucketCheckpoint, Pin::Nothing),
        (old, Pin::BucketCheckpoint, Pin::Nothing),
        (lagging, Pin::Follower, Pin::Nothing),
    ] {
        assert_eq!((Pin::of(&status, false), Pin::of(&status, true)), (pin, pressed_pin), "{status:?}");
        // Named "nothing" where the planner cuts, and only there.
        assert_eq!(is_cut(&planned(&status).actions), pin == Pin::Nothing, "{status:?}");
        assert_eq!(is_cut(&pressed(&status)), pressed_pin == Pin::Nothing, "{status:?}");
    }
}
