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
