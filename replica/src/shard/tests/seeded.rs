//! Each seeded bug breaks what the other tests hold.

use super::*;
use crate::bugs::{Bug, seed, set_roll_bytes};

#[test]
fn a_dedup_table_dropped_from_a_checkpoint_stores_a_retry_twice() {
    seed(Some(Bug::DedupDroppedFromCheckpoint));
    let mut node = Node::ready();
    node.send((9, 0, 0), 4);
    node.settle();
    let mut node = node.restart_from_checkpoint();
    let retry = node.send((9, 0, 0), 4);
    node.settle();
    seed(None);
    assert!(matches!(node.reply(retry), Some(Reply::Produced { base_offset: Offset(4), .. })));
}

#[test]
fn a_dedup_window_of_one_refuses_a_legal_retry() {
    seed(Some(Bug::DedupWindowOne));
    let mut node = Node::ready();
    node.send((9, 0, 0), 1);
    node.send((9, 0, 1), 1);
    let retry = node.send((9, 0, 0), 1);
    node.settle();
    seed(None);
    assert!(matches!(node.reply(retry), Some(Reply::Refused(Refusal::OutOfOrderSequence { .. }))));
}

#[test]
fn a_cut_before_the_append_takes_the_only_copy() {
    let mut node = Node::ready();
    let range = node.roll((9, 0, 0), 5);
    node.announce(1, range);
    node.checkpoint();
    node.send((9, 0, 5), 1);
    node.settle();
    node.checkpoint();
    let sound = node.status().cut_limit.0;
    seed(Some(Bug::CutBeforeAppend));
    let broken = node.status().cut_limit.0;
    seed(None);
    assert!(sound < node.status().rolls[0].first_index && broken > sound);
}

#[test]
fn a_roll_by_a_local_rule_stops_the_group_when_it_is_replayed() {
    seed(Some(Bug::RollByLocalRule));
    let mut node = Node::ready();
    for n in 0..100 {
        node.send((9, 0, n), 1);
    }
    node.settle();
    node.act(Action::Roll { cause: RollCause::Bytes });
    set_roll_bytes(3000);
    let restarted = node.restart(GroupState::New, LogIndex::ZERO);
    set_roll_bytes(4096);
    seed(None);
    assert!(node.shard.status(GROUP).is_some() && restarted.shard.status(GROUP).is_none());
    assert!(restarted.effects.iter().any(|effect| matches!(effect, Effect::Stopped { .. })));
}
