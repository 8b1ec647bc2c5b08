//! Of which rolls a checkpoint can still be made.

use super::*;

/// With records on nodes only, what is published is as of any entry. Whoever is elected with records behind its last roll gives a
/// member that lags a checkpoint as of that roll, or commits nothing.
#[test]
fn the_newest_roll_stays_frozen_when_what_is_published_goes_beyond_it() {
    let mut log = Log::new();
    let mut rolls = Vec::new();
    for first in [0, 5] {
        log.records(first, 5);
        rolls.push(log.roll());
    }
    log.records(10, 5);
    for _ in 0..3 {
        log.publish(None);
    }
    let is_frozen =
        |state: &PartitionState| rolls.iter().map(|roll| state.frozen_at(roll.end).is_some()).collect();
    let frozen: Vec<bool> = is_frozen(&log.state);
    assert_eq!(frozen, [false, true]);
    let local = log.state.encode(&[], |_| ConfState::default());
    let restarted = PartitionState::decode(log.state.identity().clone(), local).unwrap();
    let frozen: Vec<bool> = is_frozen(&restarted);
    assert_eq!(frozen, [false, true]);

    // Another roll takes its place.
    let last = log.roll();
    log.publish(None);
    assert!(log.state.frozen_at(rolls[1].end).is_none() && log.state.frozen_at(last.end).is_some());
}

/// Who jumped to a checkpoint of its leader's files may be elected next, and be all that a member that lags can begin with.
#[test]
fn who_begins_with_a_checkpoint_as_of_a_roll_can_give_one_as_of_it() {
    let mut log = Log::new();
    log.records(0, 5);
    let roll = log.roll();
    let s = log.state.records().clone();
    log.records(5, 5);
    let mut jumped = log.seeded(&s);
    log.replay(&mut jumped, log.end());
    assert_eq!(jumped.hash(), log.state.hash());
    let frozen =
        |state: &PartitionState| state.frozen_at(roll.end).map(|frozen| (frozen.index, frozen.log_end));
    assert_eq!(frozen(&jumped), Some((roll.roll_index, roll.end)));
    assert_eq!(frozen(&jumped), frozen(&log.state));
}
