//! What is known of the other nodes, when they come and go.

use std::collections::BTreeSet;

use varve_common::GroupId;

use super::nodes::{CLUSTER, node};
use crate::{NodeConfig, Peers, limits::WAKES_PER_TICK_MAX};

const G: GroupId = GroupId(7);

/// Node 1, with these peers.
fn peers(of: &[u32]) -> Peers {
    let mut peers = Peers::new(NodeConfig::new(CLUSTER, node(1), 1));
    set(&mut peers, of);
    peers
}

fn set(peers: &mut Peers, of: &[u32]) {
    let nodes: BTreeSet<_> = of.iter().copied().map(node).collect();
    peers.set(&nodes);
}

#[test]
fn a_peer_that_is_added_again_is_heard_at_once() {
    let (mut ours, mut theirs) = (peers(&[2]), Peers::new(NodeConfig::new(CLUSTER, node(2), 1)));
    let mut cross = |ours: &mut Peers, ticks: usize| {
        for _ in 0..ticks {
            ours.tick();
            theirs.tick();
            for (_, pulse) in ours.take_pulses() {
                theirs.hear(node(1), &pulse).unwrap();
            }
        }
        theirs.is_alive(node(1))
    };
    cross(&mut ours, 100);
    set(&mut ours, &[]);
    assert!(!cross(&mut ours, 20));
    set(&mut ours, &[2]);
    assert!(cross(&mut ours, 4));
}

#[test]
fn groups_that_rest_with_a_node_that_is_dropped_wake() {
    let mut peers = peers(&[2, 3]);
    peers.rests(G, Some(node(2)));
    assert_eq!(peers.take_wakes(), []);
    set(&mut peers, &[3]);
    assert_eq!(peers.take_wakes(), [G]);
}

#[test]
fn a_group_that_comes_to_rest_with_a_dead_or_unknown_node_wakes() {
    let mut peers = peers(&[2]);
    (0..20).for_each(|_| drop(peers.tick()));
    assert!(!peers.is_alive(node(2)));
    for id in [2, 9] {
        peers.rests(G, Some(node(id)));
        assert_eq!(peers.take_wakes(), [G], "with {id}");
        peers.rests(G, None);
    }
}

#[test]
fn a_new_life_of_a_node_wakes_a_bounded_number_of_groups_at_a_time() {
    let mut ours = peers(&[2]);
    let all = 2 * WAKES_PER_TICK_MAX + 1;
    (1..=all as u64).for_each(|group| ours.rests(GroupId(group), Some(node(2))));
    let mut theirs = Peers::new(NodeConfig::new(CLUSTER, node(2), 2));
    set(&mut theirs, &[1]);
    (0..2).for_each(|_| drop(theirs.tick()));
    let (_, pulse) = theirs.take_pulses().remove(0);
    assert_eq!(ours.hear(node(2), &pulse).unwrap().wake, []);
    let wakes: Vec<usize> = (0..3).map(|_| ours.take_wakes().len()).collect();
    assert_eq!(wakes, [WAKES_PER_TICK_MAX, WAKES_PER_TICK_MAX, 1]);
}
