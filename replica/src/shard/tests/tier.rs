//! What is in the bucket and what may therefore go (TIERING.md 3, 6).

use super::*;

#[test]
fn b4_nothing_is_cut_before_its_append_is_applied() {
    let mut node = Node::ready();
    let range = node.roll((9, 0, 0), 5);
    let entry = node.announce(1, range);
    node.checkpoint();
    node.send((9, 0, 5), 1);
    node.settle();
    node.checkpoint();
    let first = node.status().rolls[0].first_index;
    assert!(node.status().cut_limit.0 < first, "announced is not tiered");
    node.done(JobOutcome::Uploaded { uid: 1, entry });
    assert!(node.status().cut_limit.0 < first, "uploaded is not tiered");
    node.act(Action::Append);
    let status = node.status();
    assert_eq!(status.tiered_end, range.end);
    assert!(status.cut_limit.0 >= first && status.cut_limit.0 <= status.local_checkpoints[0].index);
    node.act(Action::Cut { index: status.cut_limit.0, term: status.cut_limit.1 });
    assert_eq!(node.status().truncated, status.cut_limit);
    assert!(
        node.effects.iter().any(|effect| matches!(effect, Effect::Mark { mark: Mark::Truncated { .. }, .. }))
    );
}

#[test]
fn b4_a_sealed_range_counts_only_when_its_mark_is_fsynced() {
    let mut node = Node::ready();
    let range = node.roll((9, 0, 0), 5);
    node.checkpoint();
    node.send((9, 0, 5), 1);
    node.settle();
    node.checkpoint();
    node.act(Action::Seal { base: range.base });
    let Job::Seal { roll, .. } = node.job() else { panic!("not a seal") };
    let seal = seal_of(&roll);
    node.step(Input::JobDone { group: GROUP, outcome: JobOutcome::Sealed(seal) });
    assert!(node.status().cut_limit.0 < roll.first_index);
    node.settle();
    assert!(node.status().cut_limit.0 >= roll.roll_index);
}

#[test]
fn a_group_at_rest_advances_until_its_older_checkpoint_lets_go() {
    let mut node = Node::ready();
    let range = node.roll((9, 0, 0), 5);
    node.tier(1, range);
    node.checkpoint();
    let status = node.status();
    assert_eq!((status.cut_limit, status.changes_since_checkpoint), (status.truncated, 0));
    assert!(status.releasable > status.truncated.0, "checkpoints alone keep it");
    node.act(Action::Advance);
    assert_eq!(node.status().changes_since_checkpoint, 1, "the next checkpoint has an index of its own");
    node.checkpoint();
    let status = node.status();
    assert!(status.local_checkpoints[0].index >= status.releasable);
    assert!(status.cut_limit.0 >= status.releasable);
}

/// A quorum may take its time, and the planner asks again with every turn until it sees what it asked for.
#[test]
fn what_is_proposed_is_not_proposed_again_before_it_is_applied() {
    let mut node = Node::ready();
    let (first, second) = (node.roll((9, 0, 0), 5), node.roll((9, 0, 5), 5));
    let persisted = |node: &Node| {
        let entries = |effect: &Effect| match effect {
            Effect::Persist { entries, .. } => entries.len(),
            _ => 0,
        };
        node.effects.iter().map(entries).sum::<usize>()
    };
    let ask = |node: &mut Node, actions: &[Action]| {
        node.take_effects();
        for action in actions.iter().chain(actions) {
            node.step(Input::Act { group: GROUP, action: action.clone() });
        }
        let before = persisted(node);
        node.settle();
        before
    };
    let announce = |uid, range: &RollRange| Action::Announce { uid, base: range.base, end: range.end };
    assert_eq!(ask(&mut node, &[announce(1, &first), announce(2, &second)]), 2);
    assert_eq!(node.status().intents.len(), 2);
    node.act(Action::Upload { uid: 1 });
    node.done(JobOutcome::UploadFailed { uid: 1, stall: Stall::NoAnswer, why: "gone".into() });
    assert_eq!(ask(&mut node, &[Action::Expire { uids: vec![1] }]), 1);
    assert_eq!(node.status().intents.len(), 1);
}

#[test]
fn t39_a_trim_past_the_tiered_end_does_not_wedge_uploads() {
    let mut node = Node::ready();
    node.roll((9, 0, 0), 5);
    let second = node.roll((9, 0, 5), 5);
    node.act(Action::Trim { log_start: Offset(7), cause: TrimCause::DeleteRecords });
    assert_eq!((node.status().log_start, node.status().tiered_end), (Offset(7), Offset(5)));
    node.tier(4, second);
    assert_eq!(node.status().tiered_end, Offset(10));
    assert!(node.status().rolls.is_empty());
}

/// What a binary left behind that did not follow a range which was trimmed while it was open: nothing begins any more where
/// the next upload was expected. The range that holds the log start is committed, and what follows goes on as ever.
#[test]
fn t39_a_partition_that_an_older_binary_wedged_uploads_again() {
    let mut node = Node::ready();
    let first = node.roll((9, 0, 0), 5);
    node.tier(1, first);
    node.send((9, 0, 5), 3);
    node.settle();
    let before = node.status();
    node.act(Action::Trim { log_start: Offset(8), cause: TrimCause::DeleteRecords });
    node.act(Action::Roll { cause: RollCause::Bytes });
    let GroupState::Partition(mut state) = node.checkpoint() else { panic!() };
    assert_eq!((state.bucket.tiered_end, state.bucket.root.start), (Offset(8), Offset(8)));
    state.bucket.tiered_end = before.tiered_end;
    state.bucket.tiered_roll = (before.root.entries[0].roll_index, before.root.entries[0].roll_term);
    std::sync::Arc::make_mut(&mut state.bucket.root).start = before.tiered_end;
    let above = state.applied().0;
    let mut node = node.restart(GroupState::Partition(state), above);
    assert_eq!((node.status().log_start, node.status().tiered_end), (Offset(8), Offset(5)), "wedged");

    let range = node.roll((9, 0, 8), 5);
    let entry = node.announce(2, range);
    node.done(JobOutcome::Uploaded { uid: 2, entry });
    assert!(node.status().appendable);
    node.act(Action::Append);
    assert_eq!((node.status().tiered_end, node.status().rolls.len()), (Offset(13), 0));
    let next = node.roll((9, 0, 13), 2);
    node.tier(3, next);
    node.checkpoint();
    let status = node.reopen().status();
    assert_eq!((status.tiered_end, status.root.entries.len()), (Offset(15), 2));
    assert_eq!(status.root.find(status.log_start).map(|place| place.base()), Some(Offset(8)));
}

#[test]
fn b2_b3_only_one_change_of_the_manifest_is_in_flight() {
    let mut node = Node::ready();
    let first = node.roll((9, 0, 0), 5);
    let second = node.roll((9, 0, 5), 5);
    let later = node.announce(2, second);
    node.done(JobOutcome::Uploaded { uid: 2, entry: later });
    assert!(!node.status().appendable, "a gap");
    let entry = node.announce(1, first);
    node.done(JobOutcome::Uploaded { uid: 1, entry });
    node.step(Input::Act { group: GROUP, action: Action::Append });
    node.step(Input::Act {
        group: GROUP,
        action: Action::Trim { log_start: Offset(1), cause: TrimCause::Retention },
    });
    node.settle();
    let status = node.status();
    assert_eq!((status.manifest_seq, status.tiered_end, status.log_start), (1, Offset(10), Offset(0)));
    assert_eq!(status.root.entries.len(), 2);
}

/// Each publication deletes surplus checkpoints but for those that the state names: with several commits on their way the
/// third would delete what the first is about to name.
#[test]
fn b1_no_checkpoint_is_published_while_the_commit_of_one_is_on_its_way() {
    let mut node = Node::ready();
    let range = node.roll((9, 0, 0), 5);
    node.tier(1, range);
    node.act(Action::PublishCheckpoint { uid: 2 });
    let Job::Publish { captured, key_term, .. } = node.job() else { panic!("no publication") };
    let checkpoint = published(2, key_term, &captured);
    node.take_effects();
    let outcome = JobOutcome::CheckpointPublished { checkpoint, kept: None };
    node.step(Input::JobDone { group: GROUP, outcome });
    node.step(Input::Act { group: GROUP, action: Action::PublishCheckpoint { uid: 3 } });
    assert!(!node.effects.iter().any(|effect| matches!(effect, Effect::Start(_))));
    node.settle();
    node.act(Action::PublishCheckpoint { uid: 4 });
    assert!(matches!(node.job(), Job::Publish { uid: 4, .. }));
}

/// The fenced replacement of TIERING.md 3, for one entry: scrub announces its range once more.
#[test]
fn b1_a_damaged_object_is_replaced_by_what_this_node_still_holds_of_it() {
    let mut node = Node::ready();
    let range = node.roll((9, 0, 0), 5);
    node.tier(1, range);
    node.act(Action::Announce { uid: 2, base: range.base, end: range.end });
    node.act(Action::Upload { uid: 2 });
    let Job::Restore { entry, intent, .. } = node.job() else { panic!("not a restoration") };
    assert_eq!((entry.uid, intent.kind), (1, EntryKind::Merged));
    let added = Entry { uid: 2, kind: EntryKind::Merged, term: intent.term, ..entry };
    node.done(JobOutcome::Uploaded { uid: 2, entry: added.clone() });
    let status = node.status();
    assert_eq!((status.root.entries.as_slice(), status.tiered_end), ([added].as_slice(), range.end));
    assert!(status.intents.is_empty() && status.uploaded.is_empty());
    assert_eq!(status.tombstones.iter().map(|gone| gone.uid).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_restoration_that_fails_leaves_the_manifest_and_is_given_up() {
    let mut node = Node::ready();
    let range = node.roll((9, 0, 0), 5);
    node.tier(1, range);
    node.act(Action::Announce { uid: 2, base: range.base, end: range.end });
    node.act(Action::Upload { uid: 2 });
    node.done(JobOutcome::UploadFailed { uid: 2, stall: Stall::NoAnswer, why: "no copy".to_owned() });
    node.act(Action::Expire { uids: vec![2] });
    let status = node.status();
    assert_eq!((status.root.entries[0].uid, status.intents.len()), (1, 0));
    assert!(status.jobs.running.is_empty());
}

#[test]
fn fault_28_a_local_checkpoint_that_rots_lets_nothing_be_cut_until_another_is_taken() {
    let mut node = Node::ready();
    let range = node.roll((9, 0, 0), 5);
    node.tier(1, range);
    node.checkpoint();
    node.send((9, 0, 5), 1);
    node.settle();
    node.checkpoint();
    let before = node.status();
    assert!(before.cut_limit.0 > before.truncated.0);
    let index = before.local_checkpoints[1].index;
    node.step(Input::Rotten { group: GROUP, rot: Rot::Checkpoint(index) });
    node.settle();
    let status = node.status();
    assert_eq!((status.cut_limit, status.local_checkpoints.len()), (status.truncated, 1));
    assert!(status.changes_since_checkpoint > 1 << 32, "the planner is in no hurry");
    assert!(status.applied.0 > index, "the next one has an index of its own");
    node.checkpoint();
    assert!(node.status().cut_limit.0 > node.status().truncated.0);
}

/// Under pressure a range is announced and to be sealed at once; whichever ends first frees the log.
#[test]
fn a_range_that_left_the_log_for_the_bucket_before_it_was_sealed_is_no_failure() {
    let mut node = Node::ready();
    let range = node.roll((7, 0, 0), 2);
    node.act(Action::Seal { base: range.base });
    node.tier(1, range);
    let passed = || JobOutcome::SealPassed { base: range.base, why: "it is not in the log".to_owned() };
    node.done(passed());
    let jobs = node.status().jobs;
    assert!(jobs.sealing.is_empty() && !jobs.failures.contains_key(&JobKind::Seal), "{jobs:?}");

    let range = node.roll((7, 0, 2), 2);
    node.act(Action::Seal { base: range.base });
    node.done(JobOutcome::SealPassed { base: range.base, why: "it is not in the log".to_owned() });
    assert!(node.status().jobs.failures.contains_key(&JobKind::Seal), "nobody has it");
}
