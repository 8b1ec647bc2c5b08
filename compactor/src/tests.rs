use std::{collections::BTreeMap, sync::Arc};

use varve_common::{LogIndex, Monotonic, NodeId, Offset, ReplicaId, Term};
use varve_formats::{
    command::{PublishedCheckpoint, TrimCause},
    manifest::{Entry, EntryKind, NodeReference, Root},
    state::{Intent, NAMED_EVER, RollEntry, Tombstone},
};
use varve_replica::{
    GroupOptions, JobsStatus, LocalCheckpoint, LocalRetention, OpenRange, ReapPass, Role, RollCause,
};

use super::*;

const MINUTE: i64 = 60_000;
const NOW_MS: i64 = 1_000 * MINUTE;

struct Counter;

impl Entropy for Counter {
    fn next_u64(&self) -> u64 {
        77
    }
}

fn now() -> Now {
    Now { monotonic: Monotonic(Duration::from_secs(3_600)), wall_ms: NOW_MS }
}

fn idle() -> GroupStatus {
    GroupStatus {
        group: GroupId(5),
        replica: ReplicaId::new(NodeId::new(1).unwrap(), 1).unwrap(),
        identity: None,
        options: GroupOptions::default(),
        role: Role::Leader,
        term: Term(3),
        ready: true,
        applied: (LogIndex(100), Term(3)),
        truncated: (LogIndex(0), Term(0)),
        cut_limit: (LogIndex(0), Term(0)),
        releasable: LogIndex(0),
        log_bytes: 0,
        bytes_since_checkpoint: 0,
        changes_since_checkpoint: 0,
        log_start: Offset(0),
        high_watermark: Offset(0),
        open: OpenRange::default(),
        rolls: Arc::default(),
        seals: Arc::default(),
        tiered_end: Offset(0),
        root: Arc::default(),
        manifest_seq: 0,
        intents: Arc::default(),
        uploading: Default::default(),
        uploaded: Default::default(),
        appendable: false,
        upload_failed: Default::default(),
        deletions: Arc::default(),
        reaped_early: Default::default(),
        tombstones: Arc::default(),
        published: Vec::new(),
        local_checkpoints: Vec::new(),
        unpublished_segments: 0,
        first_unpublished_ms: None,
        publish_dirty: false,
        publication_pending: false,
        checkpoint_wanted: false,
        needed_above: LogIndex(u64::MAX),
        has_peers: false,
        reached_by_all: None,
        roll_pending: false,
        fence_pending: false,
        inflight_bytes: 0,
        producers: 0,
        oldest_producer_ms: None,
        fenced_commands: 0,
        jobs: JobsStatus::default(),
    }
}

fn planned(status: &GroupStatus) -> Plan {
    plan(status, &PlanOptions::default(), now(), &Counter)
}

fn pressed(status: &GroupStatus) -> Vec<Action> {
    let pressure = Pressure { groups: [status.group].into(), urgent: false, disk: false };
    plan(status, &PlanOptions { pressure, ..PlanOptions::default() }, now(), &Counter).actions
}

fn seal(base: u64, end: u64) -> varve_replica::SealMark {
    varve_replica::SealMark {
        base: Offset(base),
        end: Offset(end),
        first_index: LogIndex(1),
        last_index: LogIndex(9),
        last_term: Term(1),
        bytes: 100,
        sha256: Default::default(),
    }
}

fn open(bytes: u64, age_ms: i64) -> OpenRange {
    OpenRange { bytes, first_index: LogIndex(9), first_append_ms: NOW_MS - age_ms, ..OpenRange::default() }
}

fn roll(base: u64, end: u64) -> RollEntry {
    RollEntry {
        base: Offset(base),
        end: Offset(end),
        bytes: 100,
        max_timestamp: NOW_MS,
        batch_crcs: 0,
        first_index: LogIndex(base),
        roll_index: LogIndex(end),
        roll_term: Term(3),
        rolled_ms: NOW_MS,
    }
}

fn entry(base: u64, end: u64) -> Entry {
    Entry {
        store_id: 0,
        kind: EntryKind::Raw,
        incarnation: 1,
        term: Term(3),
        uid: base + 1,
        position: 0,
        length: 100,
        base: Offset(base),
        last: Offset(end - 1),
        count: end - base,
        min_timestamp: NOW_MS,
        max_timestamp: NOW_MS,
        first_index: LogIndex(base),
        roll_index: LogIndex(end),
        roll_term: Term(3),
        terms: (Term(3), Term(3)),
        txn_index_empty: true,
        delete_horizon_ms: 0,
        batch_bytes: 100,
        sha256: Default::default(),
    }
}

fn intent(uid: u64, term: u64, base: u64, end: u64) -> Intent {
    Intent {
        uid,
        term: Term(term),
        base: Offset(base),
        end: Offset(end),
        announced_ms: NOW_MS,
        kind: EntryKind::Raw,
    }
}

fn published(state: u64, log_start: u64, published_ms: i64) -> PublishedCheckpoint {
    PublishedCheckpoint {
        uid: state,
        key_term: Term(3),
        state_index: LogIndex(state),
        state_term: Term(3),
        state_offset: Offset(state),
        applied_index: LogIndex(state + 1),
        log_start: Offset(log_start),
        bytes: 1,
        sha256: Default::default(),
        published_ms,
    }
}

fn local(index: u64) -> LocalCheckpoint {
    LocalCheckpoint { index: LogIndex(index), term: Term(3), file: String::new(), sha256: Default::default() }
}

#[test]
fn a_group_at_rest_wants_nothing() {
    assert_eq!(planned(&idle()), Plan::default());
}

#[test]
fn a_stopping_node_rolls_uploads_and_publishes_what_is_left() {
    let draining = PlanOptions { draining: true, ..PlanOptions::default() };
    let actions = |status: &GroupStatus| plan(status, &draining, now(), &Counter).actions;
    let open = GroupStatus { open: open(1, 0), changes_since_checkpoint: 1, ..idle() };
    assert_eq!(actions(&open), [Action::Roll { cause: RollCause::Shutdown }, Action::CheckpointLocal]);
    let tiered = GroupStatus { unpublished_segments: 1, publish_dirty: true, ..idle() };
    assert_eq!(actions(&tiered), [Action::PublishCheckpoint { uid: 77 }]);
    assert!(!is_drained(&open) && !is_drained(&tiered) && is_drained(&idle()));
}

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
fn a_failed_upload_backs_off() {
    let failures: BTreeMap<_, _> = [(JobKind::Upload, (3, Monotonic(Duration::from_secs(3_600))))].into();
    let jobs = JobsStatus { failures, ..JobsStatus::default() };
    let status = GroupStatus { rolls: Arc::new(vec![roll(0, 10)]), jobs, ..idle() };
    let plan = planned(&status);
    assert_eq!((plan.actions.len(), plan.look_again_after), (0, Some(Duration::from_millis(800))));
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
    assert!(plan(&status, &urgent, now(), &Counter).actions.contains(&cut(90)));
    // Nobody is sent to a checkpoint whose records are on nodes only: what a member has not is kept.
    let options = GroupOptions { tiered: false, ..GroupOptions::default() };
    let untiered = GroupStatus { options, ..status };
    assert!(pressed(&untiered).contains(&cut(90)));
    let lags = GroupStatus { reached_by_all: Some((LogIndex(60), Term(3))), ..untiered };
    assert!(pressed(&lags).contains(&cut(60)));
    assert!(plan(&lags, &urgent, now(), &Counter).actions.contains(&cut(90)));
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
fn a_pressed_group_at_rest_moves_on_so_that_its_older_checkpoint_lets_go() {
    let status =
        GroupStatus { releasable: LogIndex(90), local_checkpoints: vec![local(50), local(100)], ..idle() };
    assert_eq!(pressed(&status), [Action::Advance]);
    let first = GroupStatus { local_checkpoints: vec![local(100)], ..status.clone() };
    assert_eq!(pressed(&first), [Action::Advance]);
    let free = GroupStatus { local_checkpoints: vec![local(90), local(100)], ..status.clone() };
    assert_eq!(pressed(&free), []);
    let nothing_to_gain = GroupStatus { truncated: (LogIndex(90), Term(3)), ..status };
    assert_eq!(pressed(&nothing_to_gain), []);
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
