//! Three nodes over the driver, the log and the jobs of production.

use varve_common::{GroupId, NodeId};
use varve_sim::{
    cluster::{World, run::run},
    trace::Trace,
};

fn node(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

/// Three nodes that lead each other, and a topic of one or two partitions.
fn cluster(seed: u64) -> World {
    let mut world = World::new(seed, 3, Trace::default()).keeping_logs();
    (1..=3).for_each(|id| assert!(world.start(node(id)).unwrap()));
    world.elect().unwrap();
    let topic = world.clients.create_topic(&mut world.random, Some(false));
    world.operate(topic).unwrap();
    world.settle().unwrap();
    world.elect().unwrap();
    world
}

fn produce(world: &mut World, batches: usize) {
    let before = world.counts.acknowledged;
    for _ in 0..100 * batches {
        world.ask().unwrap();
        world.round().unwrap();
        if world.counts.acknowledged >= before + batches as u64 {
            return;
        }
    }
    panic!("only {} batches are acknowledged", world.counts.acknowledged - before);
}

fn partitions(world: &World) -> Vec<GroupId> {
    let leader = world.leader(GroupId::METADATA).unwrap();
    world.machines[&leader].image.as_ref().unwrap().groups.keys().copied().collect()
}

#[test]
fn three_nodes_elect_lose_their_leader_and_come_together_again() {
    for seed in 0..5 {
        let mut world = cluster(seed);
        produce(&mut world, 20);
        let group = partitions(&world)[0];
        let dead = world.leader(group).unwrap();
        world.crash(dead, true).unwrap();
        let before = world.counts.acknowledged;
        world.elect().unwrap();
        assert_ne!(world.leader(group), Some(dead));
        produce(&mut world, 20);
        assert!(world.counts.acknowledged >= before + 20);
        assert!(world.start(dead).unwrap());
        produce(&mut world, 20);
        world.make_peace().unwrap();
        assert!(world.is_together());
        assert!(world.counts.reads >= 3, "every replica was read");
    }
}

#[test]
fn clusters_break_no_invariant_whatever_happens_to_them() {
    let mut leaders = 0;
    for seed in 0..60 {
        let outcome = run(seed, 3, Trace::default());
        assert_eq!(outcome.violation, None, "seed {seed}");
        leaders += outcome.counts.leaders;
    }
    assert!(leaders > 300, "{leaders}");
}

#[test]
fn the_same_seed_leaves_the_same_trace() {
    let hash = |seed| run(seed, 3, Trace::default()).hash;
    assert_eq!(hash(900), hash(900));
    assert_ne!(hash(900), hash(901));
}
