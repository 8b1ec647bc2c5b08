//! Checkpoints and the two clocks (TIERING.md 5).

use super::*;

#[test]
fn s3_a_node_from_a_bucket_checkpoint_and_tail_equals_one_from_the_full_log() {
    let mut node = Node::ready();
    let first = node.roll((9, 0, 0), 5);
    node.tier(1, first);
    node.roll((9, 0, 5), 3);
    node.send((8, 0, 0), 2);
    node.settle();
    let seed = node.publish(2);
    let GroupState::Partition(state) = &seed else { panic!() };
    let (mut seeded, from) = (state.as_ref().clone(), state.applied().0);
    assert!(!seeded.is_whole());
    for entry in node.disk.log.iter().filter(|entry| entry.index > from) {
        seeded.apply(entry).unwrap();
    }
    assert!(seeded.is_whole());
    let (index, hash) = node.shard.state_hash(GROUP).unwrap();
    assert_eq!((seeded.applied().0, seeded.hash()), (index, hash));
}

#[test]
fn s1_r9_checkpoints_at_different_moments_give_the_same_state() {
    let mut node = Node::ready();
    let range = node.roll((9, 0, 0), 5);
    let early = node.checkpoint();
    node.tier(1, range);
    node.send((9, 0, 5), 2);
    node.settle();
    let late = node.checkpoint();
    let expected = node.shard.state_hash(GROUP).unwrap();
    for state in [early, late] {
        let GroupState::Partition(mut state) = state else { panic!() };
        let at = state.applied().0;
        for entry in node.disk.log.iter().filter(|entry| entry.index > at) {
            state.apply(entry).unwrap();
        }
        assert_eq!((state.applied().0, state.hash()), expected);
    }
}

/// It would lose what it cannot read with its own next checkpoint.
#[test]
fn a_checkpoint_that_needs_a_later_release_is_refused() {
    let mut node = Node::ready();
    node.act(Action::CheckpointLocal);
    let Job::CheckpointLocal { captured, .. } = node.job() else { panic!("no checkpoint") };
    let mut made = captured.checkpoint();
    assert!(checkpoint::restore(made.clone()).is_ok());
    made.header.feature_level += 1;
    let refused = checkpoint::restore(made).unwrap_err();
    assert!(refused.to_string().contains("a later release wrote this"), "{refused}");
}

#[test]
fn a_checkpoint_whose_mark_is_on_its_way_is_not_written_again() {
    // Found by the cluster's seeds: three marks for one file, and the oldest of them took it.
    let mut node = Node::ready();
    node.send((9, 0, 0), 4);
    node.settle();
    node.step(Input::Act { group: GROUP, action: Action::CheckpointLocal });
    let Job::CheckpointLocal { index, term, .. } = node.job() else { panic!("no checkpoint") };
    let file = format!("{index:020}");
    let written = LocalCheckpoint { index, term, file, sha256: Digest::default() };
    node.step(Input::JobDone { group: GROUP, outcome: JobOutcome::CheckpointWritten(written) });
    let jobs = |node: &Node| node.effects.iter().filter(|effect| matches!(effect, Effect::Start(_))).count();
    let before = jobs(&node);
    node.step(Input::Act { group: GROUP, action: Action::CheckpointLocal });
    assert_eq!(jobs(&node), before, "the mark is not durable yet");
    node.settle();
    node.act(Action::CheckpointLocal);
    assert_eq!(jobs(&node), before, "nothing changed");
}
