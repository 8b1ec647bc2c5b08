//! Several shards in one process: a seeded network, seeded disks, a bucket, and every invariant looked at after every step.
//!
//! ```text
//!  world: what happens (delivery, loss, repetition, cuts of links, power cuts, wipes, joins, jobs, clients), by a seed
//!    node: a production Shard, its disk (what is synced, what is being written), its jobs
//!    checker: R1-R6, R8-R10, H1-H6, H10, F1, F3, and that it all comes together again (L)
//! ```
//! Seeded bugs show that each of these is looked at.

mod bugs;
mod checker;
mod node;
mod scenarios;
mod world;

use world::World;

#[test]
fn three_nodes_keep_every_invariant_for_every_seed() {
    let done: usize = (0..100).map(|seed| World::run(seed, 3, 3000).acknowledged()).sum();
    println!("{done} batches acknowledged");
    assert!(done > 100 * 10, "{done}: the runs make progress");
}

#[test]
fn five_nodes_keep_every_invariant_for_every_seed() {
    let done: usize = (0..50).map(|seed| World::run(seed, 5, 3000).acknowledged()).sum();
    assert!(done > 50 * 5, "{done}: the runs make progress");
}

#[test]
fn joins_seeds_and_stand_ins_happen_within_the_seeds() {
    let mut seen = world::Seen::default();
    for seed in 0..60 {
        seen.add(&World::run(seed, 3, 3000).seen);
    }
    println!("{seen:?}");
    assert!(seen.reads_confirmed > 60, "{seen:?}");
    assert!(seen.seeded_between_clocks > 0, "a learner restarts or runs between S and A");
    assert!(
        seen.joined > 5 && seen.stood_in > 0 && seen.leaders > 120 && seen.truncated_tails > 0,
        "{seen:?}"
    );
}

#[test]
fn the_same_seed_leaves_the_same_trace() {
    for seed in 500..505 {
        assert_eq!(World::run(seed, 3, 1200).trace, World::run(seed, 3, 1200).trace);
    }
    assert_ne!(World::run(500, 3, 1200).trace, World::run(501, 3, 1200).trace);
}
