//! Records that are on nodes only: whoever lags behind what is cut has checkpoints and sealed files from other nodes (TIERING.md 11c).

use std::path::Path;

use varve_common::{Disk, GroupId, NodeId, ReplicaId};
use varve_formats::command::MetadataCommand;
use varve_objects::testing::FaultRates;
use varve_replica::SealMark;
use varve_sim::{
    cluster::{World, moving, run},
    jobs,
    trace::Trace,
};

fn node(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

/// What does not hold is told with the last that happened.
fn told<T>(world: &World, result: Result<T, impl std::fmt::Display>) -> T {
    result.unwrap_or_else(|why| {
        let lines = world.trace.lines();
        panic!("{}\n{why}", lines[lines.len().saturating_sub(150)..].join("\n"))
    })
}

fn until(world: &mut World, what: &str, holds: impl Fn(&World) -> bool) {
    let ended = world.until(what, holds);
    told(world, ended);
}

fn produce(world: &mut World, batches: u64) {
    world.clients.quiet = false;
    let wanted = world.counts.acknowledged + batches;
    for _ in 0..400 * batches {
        let asked = world.ask();
        told(world, asked);
        let passed = world.round();
        told(world, passed);
        if world.counts.acknowledged >= wanted {
            return;
        }
    }
    told(world, Err::<(), _>(format!("not acknowledged: {}", world.describe())));
}

fn partitions(world: &World) -> Vec<GroupId> {
    let leader = world.leader(GroupId::METADATA).unwrap();
    world.machines[&leader].image.as_ref().unwrap().groups.keys().copied().collect()
}

fn seals(world: &World, id: NodeId, group: GroupId) -> Vec<SealMark> {
    let node = world.machines[&id].node.as_ref();
    node.and_then(|node| node.driver.shard().holdings(group)).map_or(Vec::new(), |held| held.seals.to_vec())
}

/// The first index that everybody who runs still has.
fn truncated(world: &World, group: GroupId) -> u64 {
    let running = world.machines.values().filter_map(|machine| machine.node.as_ref());
    let truncated = running.filter_map(|node| node.driver.shard().replica(group));
    truncated.map(|replica| replica.truncated.0.0).min().unwrap_or(0)
}

/// Three nodes, and a topic whose records do not tier.
fn cluster(seed: u64, has_store: bool) -> World {
    founded(World::new(seed, 3, Trace::verbose()).streaming(has_store), false)
}

fn founded(mut world: World, tiers: bool) -> World {
    (1..=3).for_each(|id| assert!(world.start(node(id)).unwrap()));
    world.elect().unwrap();
    for id in 1..=4 {
        world.change(MetadataCommand::AllocateReplicaIds { node: id, count: 1_000 }).unwrap();
    }
    world.round().unwrap();
    let topic = world.clients.create_topic(&mut world.random, Some(tiers));
    world.operate(topic).unwrap();
    world.settle().unwrap();
    world.elect().unwrap();
    world
}

/// Goes on until the logs of all partitions were cut above `than`, on every node that runs.
fn cut(world: &mut World, than: &[u64]) -> Vec<u64> {
    let groups = partitions(world);
    for _ in 0..400 {
        produce(world, 5);
        let now: Vec<u64> = groups.iter().map(|group| truncated(world, *group)).collect();
        if now.iter().enumerate().all(|(at, now)| *now > than.get(at).copied().unwrap_or(0)) {
            return now;
        }
    }
    told(world, Err(format!("the logs are never cut: {}", world.describe())))
}

fn peace(world: &mut World) {
    let made = world.make_peace();
    told(world, made);
}

#[test]
fn a_voter_that_lags_past_truncation_has_files_from_others() {
    for seed in 0..3 {
        let mut world = cluster(seed, seed % 2 == 0);
        let first = cut(&mut world, &[]);
        let lags = node(1 + (seed % 3) as u32);
        world.crash(lags, true).unwrap();
        world.elect().unwrap();
        let last: Vec<u64> = partitions(&world).iter().map(|group| end(&world, *group)).collect();
        assert!(last.iter().zip(&first).all(|(last, first)| last >= first));
        cut(&mut world, &last);
        let jumps = world.counts.jumps;
        assert!(world.start(lags).unwrap());
        until(&mut world, "it is like the others", |world| {
            world.is_settled() && partitions(world).iter().all(|group| end_on(world, lags, *group) > 0)
        });
        peace(&mut world);
        assert!(world.counts.pieces > 0, "seed {seed}: files came from others");
        assert!(world.counts.jumps > jumps, "seed {seed}");
    }
}

fn end(world: &World, group: GroupId) -> u64 {
    world.machines.keys().map(|id| end_on(world, *id, group)).max().unwrap_or(0)
}

fn end_on(world: &World, id: NodeId, group: GroupId) -> u64 {
    let node = world.machines[&id].node.as_ref();
    node.and_then(|node| node.driver.shard().replica(group)).map_or(0, |replica| replica.last.0)
}

#[test]
fn all_three_nodes_are_replaced_one_by_one_under_load() {
    for seed in 0..2 {
        let mut world = cluster(seed, seed % 2 == 0);
        let mut above = cut(&mut world, &[]);
        for lost in [1, 2, 3].map(node) {
            world.crash(lost, true).unwrap();
            world.elect().unwrap();
            produce(&mut world, 3);
            let wiped = world.wipe(lost);
            told(&world, wiped);
            assert!(world.start(lost).unwrap());
            for _ in 0..60 {
                produce(&mut world, 2);
                if is_back(&world, lost) {
                    break;
                }
            }
            until(&mut world, "its replicas vote again", |world| world.is_settled() && is_back(world, lost));
            above = cut(&mut world, &above);
        }
        peace(&mut world);
        assert!(world.counts.pieces > 0, "seed {seed}: files came from others");
    }
}

/// Whether a node that was wiped votes in every group under a new id, beside two others.
fn is_back(world: &World, id: NodeId) -> bool {
    let first = world.machines[&id].metadata;
    let fresh = |group: GroupId| {
        let leads = world.leader(group).and_then(|leads| world.machines[&leads].node.as_ref());
        let members = leads.and_then(|node| node.driver.shard().membership(group)).unwrap_or_default();
        let own = |replica: &ReplicaId| replica.node() == id && replica.counter() >= first;
        !members.is_joint() && members.voters.len() == 3 && members.voters.iter().any(own)
    };
    partitions(world).into_iter().chain([GroupId::METADATA]).all(fresh)
}

#[test]
fn a_sealed_file_that_is_lost_or_damaged_comes_back_from_another_node() {
    for seed in 0..6 {
        let mut world = cluster(seed, seed % 2 == 0);
        cut(&mut world, &[]);
        let hit = node(1 + (seed % 3) as u32);
        let group = partitions(&world)[0];
        while seals(&world, hit, group).is_empty() {
            produce(&mut world, 5);
        }
        let mark = seals(&world, hit, group)[0].clone();
        let path = format!("/data/segments/{:016x}/{:020}-{:020}.seg", group.0, mark.base.0, mark.end.0);
        let disk = world.machines[&hit].disk.clone();
        if seed < 3 {
            disk.remove(Path::new(&path)).unwrap();
        } else {
            let file = disk.open(Path::new(&path), varve_common::Access::Buffered).unwrap();
            file.write_at(&[0xff; 64], mark.bytes / 2).unwrap();
        }
        let local = world.machines[&hit].node.as_ref().unwrap().cold.surroundings.local.clone();
        // The scrub reads it, or somebody looks for it.
        assert!(local.verify(group, &mark).is_err());
        world.machine(hit).node.as_mut().unwrap().tell_of_files();
        assert!(!seals(&world, hit, group).contains(&mark), "nobody is sent to it");
        until(&mut world, "the file is whole again", |world| {
            let known = seals(world, hit, group);
            let again = known.iter().find(|seal| seal.base == mark.base);
            again.is_some_and(|again| local.check(group, again).is_ok())
        });
        produce(&mut world, 5);
        peace(&mut world);
    }
}

#[test]
fn b4_a_file_that_is_lost_when_the_checkpoint_is_here_comes_again_before_the_jump() {
    let mut lost = 0;
    // Whether the moment comes hangs on the order of events: until it has come twice.
    for seed in 0..24 {
        let mut world = cluster(seed, seed % 2 == 0);
        cut(&mut world, &[]);
        let lags = node(1 + (seed % 3) as u32);
        world.crash(lags, true).unwrap();
        world.elect().unwrap();
        let last: Vec<u64> = partitions(&world).iter().map(|group| end(&world, *group)).collect();
        cut(&mut world, &last);
        world.rots = 2;
        assert!(world.start(lags).unwrap());
        until(&mut world, "it is like the others", |world| {
            world.is_settled() && partitions(world).iter().all(|group| end_on(world, lags, *group) > 0)
        });
        peace(&mut world);
        lost += 2 - world.rots;
        if lost > 1 {
            return;
        }
    }
    panic!("no file was lost");
}

#[test]
fn with_the_store_away_who_lags_has_from_others_what_the_bucket_would_give() {
    for seed in 0..3 {
        let mut world = tiering(seed);
        // Everything is in the bucket, and a checkpoint that names it.
        while partitions(&world).iter().any(|group| published(&world, *group) < 2) {
            produce(&mut world, 5);
        }
        let lost = node(1 + (seed % 3) as u32);
        world.crash(lost, true).unwrap();
        world.elect().unwrap();
        world.remote.1.set_rates(FaultRates { error_before: 1_000, ..jobs::rates(0) });
        let wiped = world.wipe(lost);
        told(&world, wiped);
        assert!(world.start(lost).unwrap());
        let mut waited = 0;
        while !is_back(&world, lost) {
            waited += 1;
            let passed = world.round();
            told(&world, passed);
            if waited > 3_000 {
                told(&world, Err::<(), _>(format!("it is not taken back: {}", world.describe())));
            }
        }
        assert!(world.counts.pieces > 0, "seed {seed}: files came from others");
        peace(&mut world);
    }
}

/// Three nodes, and a topic that tiers, in logs that are never short of room.
fn tiering(seed: u64) -> World {
    let mut world = World::new(seed, 3, Trace::verbose()).keeping_logs();
    world.plan.tiered = Some(true);
    founded(world, true)
}

/// How many checkpoints of a partition are in the bucket.
fn published(world: &World, group: GroupId) -> usize {
    let leads = world.leader(group).and_then(|leads| world.machines[&leads].node.as_ref());
    leads.and_then(|node| node.driver.shard().status(group)).map_or(0, |status| status.published.len())
}

#[test]
fn clusters_whose_records_are_on_nodes_only_break_no_invariant() {
    for seed in 0..8 {
        let setup = run::Setup { streaming: Some(seed % 2 == 0), ..run::Setup::default() };
        assert_eq!(run::run_as(seed, 3, setup, Trace::default()).violation, None, "seed {seed}");
    }
}

/// Seed 411152: files of a checkpoint were trimmed by their leader while they came. What jumped there showed them, as the checkpoint
/// does, and had them in no place.
#[test]
fn b7_what_was_trimmed_while_its_files_came_is_not_shown() {
    let setup = run::Setup { streaming: Some(true), ..run::Setup::default() };
    assert_eq!(run::run_as(411_152, 3, setup, Trace::default()).violation, None);
}

/// Seed 611030: checkpoints of the partition were published beyond its last roll, and the state as of that roll was forgotten. Who was
/// elected had nothing to give to the one voter that it needed, and two waited for the third for ever.
#[test]
fn two_of_three_go_on_where_what_is_published_is_beyond_the_last_roll() {
    let setup = run::Setup { streaming: Some(true), ..run::Setup::default() };
    assert_eq!(run::run_as(611_030, 3, setup, Trace::default()).violation, None);
}

#[test]
fn clusters_whose_replicas_move_without_a_bucket_break_no_invariant() {
    for seed in 0..4 {
        assert_eq!(moving::run_streaming(seed, Trace::default()).violation, None, "seed {seed}");
    }
}
