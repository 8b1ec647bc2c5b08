//! When checkpoints are published, and how far the log is cut.

use super::*;

fn local(index: u64) -> LocalCheckpoint {
    LocalCheckpoint { index: LogIndex(index), term: Term(3), file: String::new(), sha256: Default::default() }
}

#[test]
fn a_checkpoint_is_published_by_segments_or_by_age() {
    let dirty = GroupStatus { publish_dirty: true, ..idle() };
    let publish = Action::PublishCheckpoint { uid: 77 };
    assert_eq!(planned(&dirty).actions, []);
    let many = GroupStatus { unpublished_segments: 8, ..dirty.clone() };
    assert!(planned(&many).actions.contains(&publish));
    let old =
        GroupStatus { unpublished_segments: 1, first_unpublished_ms: Some(NOW_MS - 60 * MINUTE), ..dirty };
    assert!(planned(&old).actions.contains(&publish));
}

/// Uploads of an outage come in at a hundred a second; each publication takes forty milliseconds.
#[test]
fn after_an_outage_checkpoints_are_published_no_faster_than_their_interval() {
    let options = PlanOptions { publish_segments: 1, ..PlanOptions::default() };
    let mut status = GroupStatus { publish_dirty: true, first_unpublished_ms: Some(NOW_MS), ..idle() };
    let (mut published_at, mut running_until) = (Vec::new(), 0);
    let mut looks_again = None;
    for ms in (NOW_MS..NOW_MS + 10_000).step_by(10) {
        status.unpublished_segments += 1;
        if ms < running_until {
            continue;
        }
        let now = Now { wall_ms: ms, ..now() };
        let plan = plan(&status, &options, now, &Counter);
        looks_again = plan.look_again_after;
        if plan.actions.contains(&Action::PublishCheckpoint { uid: 77 }) {
            published_at.push(ms);
            running_until = ms + 40;
            status.published = vec![published(1, 0, ms)];
            status.unpublished_segments = 0;
        }
    }
    assert!((8..=11).contains(&published_at.len()), "{published_at:?}");
    assert!(
        looks_again.is_some_and(|after| after <= options.publish_interval),
        "what is left is not forgotten"
    );
    let pressure = Pressure { groups: [status.group].into(), urgent: true, disk: false };
    let pressed = PlanOptions { pressure, ..options.clone() };
    let due = |options: &PlanOptions, wall_ms| {
        let now = Now { wall_ms, ..now() };
        plan(&status, options, now, &Counter).actions.contains(&Action::PublishCheckpoint { uid: 77 })
    };
    let last = published_at[published_at.len() - 1];
    // Under pressure the log is cut as far as is safe, whatever is published: no reason to hurry.
    assert!(!due(&pressed, last + 999) && due(&pressed, last + 1_000));
    let draining = PlanOptions { draining: true, ..options.clone() };
    assert!(due(&draining, last + 1), "who stops does not wait");
    assert!(due(&options, last - 60_000), "nor does who has set the clock back");
}

#[test]
fn the_log_is_cut_behind_the_second_newest_checkpoint_and_under_pressure_as_far_as_is_safe() {
    let status = GroupStatus {
        cut_limit: (LogIndex(90), Term(3)),
        published: vec![published(40, 0, 0), published(80, 0, 0)],
        ..idle()
    };
    assert_eq!(planned(&status).actions, [Action::Cut { index: LogIndex(40), term: Term(3) }]);
    assert!(pressed(&status).contains(&Action::Cut { index: LogIndex(90), term: Term(3) }));
    let unpublished = GroupStatus { published: Vec::new(), ..status };
    assert_eq!(planned(&unpublished).actions, []);
}

#[test]
fn a_pressed_group_at_rest_moves_on_so_that_its_older_checkpoint_lets_go() {
    let status =
        GroupStatus { releasable: LogIndex(90), local_checkpoints: vec![local(50), local(100)], ..idle() };
    assert_eq!(pressed(&status), [Action::Advance]);
    let first = GroupStatus { local_checkpoints: vec![local(100)], ..status.clone() };
    assert_eq!(pressed(&first), [Action::Advance]);
    let free = GroupStatus { local_checkpoints: vec![local(90), local(100)], ..status.clone() };
    assert_eq!(pressed(&free), []);
    // A follower asks its leader for the same, and asks again.
    let follows = GroupStatus { role: Role::Follower, ready: false, ..status.clone() };
    assert_eq!(pressed(&follows), [Action::Advance]);
    let seeks = GroupStatus { role: Role::Candidate, ..follows };
    assert_eq!(pressed(&seeks), []);
    let nothing_to_gain = GroupStatus { truncated: (LogIndex(90), Term(3)), ..status };
    assert_eq!(pressed(&nothing_to_gain), []);
}

#[test]
fn the_log_waits_for_followers_that_keep_up_and_goes_on_behind_the_newest_checkpoint() {
    let status = GroupStatus {
        cut_limit: (LogIndex(90), Term(3)),
        published: vec![published(40, 0, 0), published(80, 0, 0)],
        has_peers: true,
        needed_above: LogIndex(30),
        ..idle()
    };
    let cut = |index| Action::Cut { index: LogIndex(index), term: Term(3) };
    assert_eq!(planned(&status).actions, []);
    assert_eq!(planned(&GroupStatus { needed_above: LogIndex(40), ..status.clone() }).actions, [cut(40)]);
    assert!(pressed(&status).contains(&cut(80)));
    let urgent = Pressure { groups: [status.group].into(), urgent: true, disk: false };
    let urgent = PlanOptions { pressure: urgent, ..PlanOptions::default() };
    let cuts_urgently = |status: &GroupStatus, index| {
        assert!(plan(status, &urgent, now(), &Counter).actions.contains(&cut(index)), "{index}");
    };
    cuts_urgently(&status, 90);
    // Who is elected next may need somebody to go on from a checkpoint that it can make without having committed anything.
    let lasting_end = Some((LogIndex(85), Term(3)));
    let follows = GroupStatus { lasting_end, role: Role::Follower, ready: false, ..status.clone() };
    cuts_urgently(&follows, 85);
    cuts_urgently(&GroupStatus { lasting_end: Some((LogIndex(60), Term(3))), ..follows.clone() }, 80);
    cuts_urgently(&GroupStatus { truncated: (LogIndex(86), Term(3)), ..follows.clone() }, 90);
    cuts_urgently(&GroupStatus { broken: [Offset(5)].into(), ..follows }, 90);
    // Nobody is sent to a checkpoint whose records are on nodes only: what a member has not is kept.
    let options = GroupOptions { tiered: false, ..GroupOptions::default() };
    let untiered = GroupStatus { options, ..status };
    assert!(pressed(&untiered).contains(&cut(90)));
    let lags = GroupStatus { reached_by_all: Some((LogIndex(60), Term(3))), ..untiered };
    assert!(pressed(&lags).contains(&cut(60)));
    cuts_urgently(&lags, 90);
}

#[test]
fn a_member_behind_the_log_gets_a_checkpoint_published_though_nothing_changed() {
    let published_ago = |ms: i64| {
        let one = PublishedCheckpoint { published_ms: NOW_MS - ms, ..published(80, 0, 0) };
        GroupStatus { checkpoint_wanted: true, published: vec![one], ..idle() }
    };
    let publishes = |status: &GroupStatus| {
        planned(status).actions.iter().any(|action| matches!(action, Action::PublishCheckpoint { .. }))
    };
    assert!(publishes(&published_ago(11_000)));
    assert!(!publishes(&published_ago(3_000)));
    assert!(publishes(&GroupStatus { publish_dirty: true, ..published_ago(3_000) }));
    assert!(!publishes(&GroupStatus { checkpoint_wanted: false, ..published_ago(11_000) }));
}

#[test]
fn a_follower_drains_at_once_and_a_leader_when_all_is_in_the_bucket() {
    let leads = GroupStatus { changes_since_checkpoint: 1, open: open(10, 0), ..idle() };
    assert!(!is_drained(&leads));
    assert!(is_drained(&GroupStatus { role: Role::Follower, ready: false, ..leads }));
}

#[test]
fn who_was_just_elected_gives_a_checkpoint_to_whoever_it_needs_to_commit_anything() {
    let elected = GroupStatus {
        ready: false,
        checkpoint_wanted: true,
        offer_end: Some((LogIndex(90), Term(2))),
        ..idle()
    };
    let offers = |status: &GroupStatus| planned(status).actions.contains(&Action::OfferCheckpoint);
    assert!(offers(&elected));
    assert!(!offers(&GroupStatus { role: Role::Follower, ..elected.clone() }));
    assert!(!offers(&GroupStatus { checkpoint_wanted: false, ..elected }));
}

/// Its log was cut, in need of room, above the last range that has a file here: the ranges behind that get theirs for who lags.
#[test]
fn who_was_just_elected_seals_what_its_checkpoint_is_to_reach() {
    let elected = GroupStatus {
        ready: false,
        checkpoint_wanted: true,
        offer_end: Some((LogIndex(10), Term(2))),
        truncated: (LogIndex(12), Term(2)),
        rolls: Arc::new(vec![roll(12, 20)]),
        ..idle()
    };
    let seal = Action::Seal { base: Offset(12) };
    let acts = |status: &GroupStatus| planned(status).actions;
    assert!(acts(&elected).contains(&seal));
    assert!(acts(&GroupStatus { offer_end: None, ..elected.clone() }).contains(&seal));
    let reaches = GroupStatus { offer_end: Some((LogIndex(20), Term(2))), ..elected.clone() };
    assert!(!acts(&reaches).contains(&seal) && acts(&reaches).contains(&Action::OfferCheckpoint));
    assert!(!acts(&GroupStatus { role: Role::Follower, ..elected }).contains(&seal));
}

/// What it lacks is cut behind the newest tiered roll, by commands, and nobody fills the open range: it would wait for its age.
#[test]
fn the_open_range_is_rolled_for_who_waits_for_a_checkpoint_that_the_log_goes_on_from() {
    let waits = GroupStatus {
        checkpoint_wanted: true,
        has_peers: true,
        published: vec![published(80, 0, 0), published(85, 0, 0)],
        truncated: (LogIndex(90), Term(3)),
        open: open(100, 10),
        ..idle()
    };
    let roll = Action::Roll { cause: RollCause::Checkpoint };
    let acts = |status: &GroupStatus| planned(status).actions;
    assert!(acts(&waits).contains(&roll));
    let reaches = GroupStatus { offer_end: Some((LogIndex(90), Term(3))), ..waits.clone() };
    assert!(!acts(&reaches).contains(&roll));
    assert!(!acts(&GroupStatus { checkpoint_wanted: false, ..waits.clone() }).contains(&roll));
    assert!(!acts(&GroupStatus { ready: false, ..waits }).contains(&roll));
}
