//! Groups of consumers, and what their producers and readers rely on, over three nodes with the driver, the log and the jobs of
//! production.

use std::sync::LazyLock;

use varve_common::{GroupId, NodeId};
use varve_consensus::bugs as consensus;
use varve_replica::bugs as replica;
use varve_sim::{
    cluster::{World, bugs::Bug, consumers::run_consumers, run::Setup, world::Counts},
    trace::Trace,
    violation::Violation,
};

fn run_all(seeds: std::ops::Range<u64>) -> Vec<Counts> {
    let run = |seed| {
        let outcome = run_consumers(seed, Setup::default(), Trace::default());
        assert_eq!(outcome.violation, None, "seed {seed}");
        outcome.counts
    };
    seeds.map(run).collect()
}

static FIRST: LazyLock<Vec<Counts>> = LazyLock::new(|| run_all(0..8));
static SECOND: LazyLock<Vec<Counts>> = LazyLock::new(|| run_all(8..16));

#[test]
fn g1_g2_g3_g5_groups_keep_their_word_over_fail_overs_power_losses_and_cuts() {
    assert_eq!(FIRST.len(), 8);
}

#[test]
fn t16_t33_more_groups_keep_their_word() {
    assert_eq!(SECOND.len(), 8);
}

#[test]
fn the_seeds_of_groups_reach_what_they_are_for() {
    let all = || FIRST.iter().chain(SECOND.iter());
    let sum = |of: fn(&Counts) -> u64| all().map(of).sum::<u64>();
    let reached = [
        sum(|counts| counts.offsets.0),
        sum(|counts| counts.offsets.1),
        sum(|counts| counts.offsets.2),
        sum(|counts| counts.leaders as u64),
        sum(|counts| counts.crashes),
        sum(|counts| counts.cuts),
    ];
    println!("commits, fetches, assignments, leaders, crashes, cuts: {reached:?}");
    let least = [300, 500, 150, 100, 80, 100];
    assert!(reached.iter().zip(least).all(|(reached, least)| *reached >= least), "{reached:?}");
}

#[test]
fn the_same_seed_of_groups_leaves_the_same_trace() {
    let hash = |seed| run_consumers(seed, Setup::default(), Trace::default()).hash;
    assert_eq!(hash(900), hash(900));
}

/// The violation that some seed from `first` on shows: seeds that reach what it takes are rare, and named.
fn found(bug: Bug, first: u64, checkers: &[&str]) {
    let setup = Setup { bug: Some(bug), ..Setup::default() };
    let seen = (first..300)
        .find_map(|seed| run_consumers(seed, setup, Trace::default()).violation.map(|seen| (seed, seen)));
    println!("{seen:?}");
    let (_, seen) = seen.unwrap_or_else(|| panic!("no seed finds {bug:?}"));
    assert!(checkers.contains(&seen.checker), "{bug:?} is found by {seen}");
}

#[test]
fn g1_finds_a_commit_that_is_answered_before_the_log_has_it() {
    found(Bug::Replica(replica::Bug::CommitAnsweredEarly), 0, &["G1"]);
}

#[test]
fn g2_finds_a_commit_of_an_old_generation() {
    found(Bug::Replica(replica::Bug::OldGenerationsCommit), 67, &["G2"]);
}

#[test]
fn g3_finds_an_assignment_that_is_told_before_the_log_has_it() {
    found(Bug::Replica(replica::Bug::AssignmentToldEarly), 0, &["G3"]);
}

#[test]
fn s3_finds_a_checkpoint_without_groups() {
    found(Bug::Replica(replica::Bug::GroupsDroppedFromCheckpoint), 0, &["R9", "S3", "G1"]);
}

/// A coordinator does not run while the others elect another, and that takes commits; then it is asked.
fn asks_a_coordinator_that_was_away(bug: Option<Bug>) -> Result<(), Violation> {
    let mut world = cluster(7, false);
    world.found_groups()?;
    consume(&mut world, 100);
    let group = world.offsets_partition().unwrap();
    let away = world.leader(group).unwrap();
    world.machine(away).stalled = 1_000;
    let others: Vec<NodeId> = world.ids().into_iter().filter(|id| *id != away).collect();
    world.network.cut.extend(others.iter().flat_map(|other| [(away, *other), (*other, away)]));
    world.until("another leads", |world| world.leader(group).is_some_and(|leader| leader != away))?;
    let before = world.counts.offsets.0;
    for _ in 0..1_000 {
        consume(&mut world, 1);
        if world.counts.offsets.0 > before + 10 {
            break;
        }
    }
    assert!(world.counts.offsets.0 > before);
    Bug::plant(bug);
    let asked = (0..8).try_for_each(|who| world.fetch_at(who, away));
    Bug::plant(None);
    asked?;
    world.machine(away).stalled = 0;
    world.make_peace()?;
    world.settle_groups()
}

#[test]
fn t15_g1_a_coordinator_that_was_away_tells_no_old_offsets() {
    asks_a_coordinator_that_was_away(None).unwrap();
    let found = asks_a_coordinator_that_was_away(Some(Bug::Consensus(consensus::Bug::ReadsAlone)));
    assert_eq!(found.expect_err("one that asks nobody is found").checker, "G1");
}

fn consume(world: &mut World, times: usize) {
    for _ in 0..times {
        world.consume().unwrap();
        world.round().unwrap();
    }
}

fn node(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

/// Three nodes that lead each other, and a topic of one or two partitions.
fn cluster(seed: u64, tiers: bool) -> World {
    let world = World::new(seed, 3, Trace::default());
    let mut world = if tiers { world } else { world.keeping_logs() };
    (1..=3).for_each(|id| assert!(world.start(node(id)).unwrap()));
    world.elect().unwrap();
    let topic = world.clients.create_topic(&mut world.random, Some(tiers));
    world.operate(topic).unwrap();
    world.settle().unwrap();
    world.elect().unwrap();
    world
}

fn produce(world: &mut World, batches: u64) {
    let before = world.counts.acknowledged;
    for _ in 0..100 * batches {
        world.ask().unwrap();
        world.round().unwrap();
        if world.counts.acknowledged >= before + batches {
            return;
        }
    }
    panic!("only {} batches are acknowledged", world.counts.acknowledged - before);
}

fn data_partition(world: &World) -> GroupId {
    let leader = world.leader(GroupId::METADATA).unwrap();
    let image = world.machines[&leader].image.as_ref().unwrap();
    *image.groups.keys().find(|group| !world.clients.internal.contains(group)).unwrap()
}

/// The leader goes, by a kill or a power loss, and comes back once another leads.
fn fail_over(world: &mut World, group: GroupId, power: bool) {
    let dead = world.leader(group).unwrap();
    world.crash(dead, power).unwrap();
    world.until("another leads", |world| world.leader(group).is_some_and(|leader| leader != dead)).unwrap();
    assert!(world.start(dead).unwrap());
    world.elect().unwrap();
}

/// Batches are under way when the leader goes, and are tried again with the next: the log holds each once (H2, H7 at the end).
#[test]
fn t28_batches_that_are_tried_again_over_fail_overs_are_stored_once() {
    for seed in 0..4 {
        let mut world = cluster(seed, false);
        produce(&mut world, 5);
        let group = data_partition(&world);
        for round in 0..4 {
            for _ in 0..20 {
                world.ask().unwrap();
            }
            let leader = world.leader(group).unwrap();
            world.append(leader, usize::MAX).unwrap();
            world.sync(leader).unwrap();
            fail_over(&mut world, group, round % 2 == 0);
            produce(&mut world, 3);
        }
        world.make_peace().unwrap();
    }
}

/// A node that began from a checkpoint of the bucket leads, and is asked for what it never took in itself.
#[test]
fn t30_what_producers_did_outlives_cuts_and_checkpoints() {
    for seed in 0..3 {
        let mut world = cluster(seed, true);
        let group = data_partition(&world);
        produce(&mut world, 10);
        let leader = world.leader(group).unwrap();
        let lags = world.ids().into_iter().find(|id| *id != leader).unwrap();
        world.crash(lags, true).unwrap();
        let jumps = world.counts.jumps;
        for _ in 0..80 {
            produce(&mut world, 5);
        }
        assert!(world.start(lags).unwrap());
        for _ in 0..600 {
            world.round().unwrap();
            if world.counts.jumps > jumps {
                break;
            }
        }
        assert!(world.counts.jumps > jumps, "seed {seed}: it starts over from a checkpoint");
        // Each leads once; producers have five batches under way at each change.
        for _ in 0..4 {
            for _ in 0..20 {
                world.ask().unwrap();
            }
            fail_over(&mut world, group, true);
            produce(&mut world, 3);
        }
        world.make_peace().unwrap();
    }
}

/// Reads of all replicas are compared with what was committed, over cuts of the log, sealed files and the bucket.
#[test]
fn t19_t20_offsets_stay_where_they_were_on_every_replica() {
    let mut world = cluster(2, true);
    for _ in 0..60 {
        produce(&mut world, 5);
    }
    assert!(world.counts.cuts > 0);
    world.make_peace().unwrap();
    let group = data_partition(&world);
    let shown: Vec<_> = world
        .machines
        .values()
        .map(|machine| &machine.views[&group])
        .map(|view| (view.log_start, view.high_watermark, view.log_end))
        .collect();
    assert!(shown.windows(2).all(|pair| pair[0] == pair[1]) && world.counts.reads >= 3, "{shown:?}");
    assert!(shown.iter().all(|(_, watermark, end)| watermark == end), "{shown:?}");
}

/// Where each epoch begins is the same on all nodes, before and after restarts, and the newest does not begin behind what was
/// acknowledged in it.
#[test]
fn t21_where_epochs_begin_is_the_same_after_restarts() {
    let mut world = cluster(4, false);
    let group = data_partition(&world);
    for _ in 0..4 {
        produce(&mut world, 3);
        fail_over(&mut world, group, true);
    }
    produce(&mut world, 3);
    world.make_peace().unwrap();
    let epochs = |world: &World| {
        let of = |id: &NodeId| world.machines[id].views[&group].epochs.as_ref().clone();
        world.ids().iter().map(of).collect::<Vec<_>>()
    };
    let before = epochs(&world);
    assert!(before[0].len() > 3 && before.windows(2).all(|pair| pair[0] == pair[1]), "{before:?}");
    for id in world.ids() {
        world.crash(id, true).unwrap();
    }
    for id in world.ids() {
        assert!(world.start(id).unwrap());
    }
    world.elect().unwrap();
    world.make_peace().unwrap();
    let after = epochs(&world);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before[..], after[..before.len()], "the lineage only grows");
    }
}

/// What a group has committed is told by each coordinator in turn (G1 at every fetch), and what is shown of a partition never
/// goes back (H10 at every view).
#[test]
fn t25_leadership_that_flaps_resets_no_offset() {
    let mut world = cluster(5, false);
    world.found_groups().unwrap();
    let group = world.offsets_partition().unwrap();
    for _ in 0..8 {
        consume(&mut world, 60);
        fail_over(&mut world, group, false);
    }
    assert!(world.counts.offsets.0 > 10 && world.counts.offsets.1 > 20, "{:?}", world.counts);
    world.make_peace().unwrap();
    world.settle_groups().unwrap();
}

/// A topic whose creation was answered is there when all have lost power, with its records and what groups have committed.
#[test]
fn t27_a_topic_that_was_just_made_is_there_after_power_is_lost_everywhere() {
    for seed in 0..3 {
        let mut world = World::new(seed, 3, Trace::default()).keeping_logs();
        (1..=3).for_each(|id| assert!(world.start(node(id)).unwrap()));
        world.elect().unwrap();
        world.found_groups().unwrap();
        let topic = world.clients.create_topic(&mut world.random, Some(false));
        world.operate(topic).unwrap();
        world.settle().unwrap();
        world.elect().unwrap();
        let group = data_partition(&world);
        produce(&mut world, 1);
        consume(&mut world, 120);
        assert!(world.counts.offsets.0 > 0);
        for id in world.ids() {
            world.crash(id, true).unwrap();
        }
        for id in world.ids() {
            assert!(world.start(id).unwrap());
        }
        world.elect().unwrap();
        assert_eq!(data_partition(&world), group);
        world.make_peace().unwrap();
        world.settle_groups().unwrap();
    }
}
