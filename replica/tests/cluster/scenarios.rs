//! The interleavings that have a name.

use varve_common::{LogIndex, NodeId};
use varve_replica::{Action, Input};

use super::{
    node::{GROUP, node_id},
    world::World,
};

/// A world with a leader, tiered segments, and a checkpoint whose S lies below its A.
fn tiered(seed: u64) -> World {
    let mut world = World::new(seed, 3);
    for _ in 0..4 {
        let leader = world.elect();
        (0..3).for_each(|_| world.produce(leader));
        world.settle();
        for which in [0, 1, 2, 2] {
            world.plan(leader, which);
            world.settle();
        }
    }
    let leader = world.elect();
    (0..3).for_each(|_| world.produce(leader));
    world.plan(leader, 6);
    world.settle();
    world.plan(leader, 3);
    world.settle();
    world
}

fn applied(world: &World, id: u32) -> LogIndex {
    world.nodes[&node_id(id)].shard.as_ref().unwrap().replica(GROUP).unwrap().applied
}

#[test]
fn a_pre_seeded_learner_goes_through_an_election_a_leader_truncation_and_a_crash() {
    for seed in 0..10 {
        let mut world = tiered(seed);
        let leader = world.elect();
        let joins = world.ids().into_iter().find(|id| *id != leader).unwrap();
        world.wipe(joins);
        // Until it has started from the checkpoint; it has not caught up yet.
        for _ in 0..20 {
            world.join_step(joins);
            if world.nodes[&joins].shard.is_some() {
                break;
            }
            world.round();
        }
        assert!(!world.nodes[&joins].disk.snapshots.is_empty(), "it is seeded");
        // The leader crashes with entries that nobody else has, comes back, and finds another's in their place.
        let others = world.ids();
        world.cut = others.iter().map(|other| (leader, *other)).collect();
        (0..3).for_each(|_| world.produce(leader));
        world.sync(leader);
        world.crash(leader, 2);
        world.cut.clear();
        world.crash(joins, 1);
        world.start(joins);
        world.start(leader);
        world.elect();
        world.make_peace();
        assert!(applied(&world, joins.get()) > LogIndex(20));
    }
}

/// A seeded learner takes a local checkpoint after every entry between S and A, and restarts from it.
pub fn restarts_between_the_clocks(seed: u64) -> usize {
    let mut world = tiered(seed);
    let leader = world.elect();
    let joins = world.ids().into_iter().find(|id| *id != leader).unwrap();
    world.wipe(joins);
    let (mut restarts, mut seen) = (0, LogIndex::ZERO);
    for inch in 0..3_000 {
        world.inch();
        if inch % 20 == 0 {
            world.ids().into_iter().for_each(|id| world.tick(id));
            world.join_step(joins);
        }
        let Some(shard) = &world.nodes[&joins].shard else { continue };
        let between = shard.state_hash(GROUP).is_none();
        let now = applied(&world, joins.get());
        if now <= seen || !(between || restarts == 0) {
            continue;
        }
        seen = now;
        world.plan(joins, 4);
        while world.run_job(joins) || world.sync(joins) {}
        world.crash(joins, usize::MAX);
        world.start(joins);
        restarts += 1;
    }
    world.make_peace();
    restarts
}

/// TIERING.md 5: a local checkpoint taken between S and A keeps A; a restart goes on ignoring bucket class up to it.
#[test]
fn reseeded_local_checkpoint() {
    let restarts = restarts_between_the_clocks(3);
    assert!(restarts > 2, "{restarts}");
}

#[test]
fn a_bucket_checkpoint_must_not_replace_an_acknowledged_tail() {
    // RAFT.md 1: A leads, A and B acknowledged; B starts from the bucket; A dies; B must not vote the tail away.
    let mut world = tiered(5);
    let a = world.elect();
    let others: Vec<_> = world.ids().into_iter().filter(|id| *id != a).collect();
    let (b, c) = (others[0], others[1]);
    for other in world.ids() {
        world.cut.extend([(c, other), (other, c)]);
    }
    let before = world.acknowledged();
    (0..5).for_each(|_| world.produce(a));
    world.settle();
    assert_eq!(world.acknowledged(), before + 5);
    world.crash(b, usize::MAX);
    assert!(world.start_from_bucket(b), "the log holds all above S");
    world.crash(a, usize::MAX);
    world.cut.clear();
    world.elect();
    world.start(a);
    world.make_peace();
}

#[test]
fn a_checkpoint_stands_in_above_a_durable_commit_that_lags() {
    let mut world = tiered(5);
    let leader = world.elect();
    let voter = world.ids().into_iter().find(|id| *id != leader).unwrap();
    world.crash(voter, usize::MAX);
    // Whoever acknowledges entries need not have made durable that they were committed.
    world.nodes.get_mut(&voter).unwrap().disk.hard_state.commit = LogIndex(1);
    assert!(world.start_from_bucket(voter), "the log holds all above S");
    world.make_peace();
}

/// A leader is cut off and does not notice; the others elect another and acknowledge; then the old one is read.
pub fn reads_at_a_leader_cut_off() {
    let mut world = World::new(1, 3);
    let old = world.elect();
    let others: Vec<_> = world.ids().into_iter().filter(|id| *id != old).collect();
    world.cut = others.iter().flat_map(|other| [(old, *other), (*other, old)]).collect();
    for _ in 0..60 {
        others.iter().for_each(|id| world.tick(*id));
        world.settle();
    }
    let new = world.leader().unwrap();
    assert_ne!(new, old);
    let before = world.acknowledged();
    (0..3).for_each(|_| world.produce(new));
    world.settle();
    assert_eq!(world.acknowledged(), before + 3);
    world.read(old);
    (0..30).for_each(|_| world.tick(old));
    world.make_peace();
}

#[test]
fn a_leader_that_stops_or_goes_answers_its_reads() {
    let ends: [fn(&mut World, NodeId); 3] = [
        |world, leader| world.input(leader, Input::PersistFailed),
        |world, leader| world.input(leader, Input::Close { group: GROUP }),
        World::forge,
    ];
    for (which, end) in ends.into_iter().enumerate() {
        let mut world = World::new(1, 3);
        let leader = world.elect();
        (0..3).for_each(|_| world.read(leader));
        assert_eq!(world.unanswered(), 3);
        end(&mut world, leader);
        assert_eq!(world.unanswered(), 0, "after end {which}");
        if world.nodes[&leader].shard.as_ref().unwrap().replica(GROUP).is_some_and(|status| status.stopped) {
            // The checker would not look at a replica that stopped.
            continue;
        }
        world.read(leader);
        assert_eq!(world.unanswered(), 0, "begun after end {which}");
    }
}

#[test]
fn t15_f3_a_leader_cut_off_answers_no_read() {
    reads_at_a_leader_cut_off();
}

#[test]
fn a_follower_whose_log_is_pressed_has_its_leader_write_something_also_at_rest() {
    let mut world = tiered(3);
    let leader = world.elect();
    let follows = world.ids().into_iter().find(|id| *id != leader).unwrap();
    let rests = |world: &World| world.nodes[&follows].shard.as_ref().unwrap().replica(GROUP).unwrap().resting;
    for _ in 0..200 {
        world.round();
    }
    assert!(rests(&world), "nothing is written");
    let before = applied(&world, follows.get());
    world.input(follows, Input::Act { group: GROUP, action: Action::Advance });
    for _ in 0..10 {
        world.round();
    }
    assert!(world.ids().iter().all(|id| applied(&world, id.get()) == before.next()));
    world.make_peace();
}
