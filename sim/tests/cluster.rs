//! Three nodes over the driver, the log and the jobs of production.

use std::{sync::LazyLock, time::Duration};

use varve_common::{Clock, GroupId, NodeId};
use varve_consensus::bugs as consensus;
use varve_sim::{
    bugs,
    cluster::{
        World,
        bugs::Bug,
        run::{Setup, run, run_as},
        world::Counts,
    },
    trace::Trace,
    violation::Violation,
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
fn what_all_three_are_to_have_is_acknowledged_when_they_have_it_and_refused_when_one_is_out_of_sync() {
    for seed in 0..4 {
        let mut world = cluster(seed);
        world.clients.replicas_min = 3;
        produce(&mut world, 10);
        let leader = world.leader(partitions(&world)[0]).unwrap();
        let away = world.ids().into_iter().find(|id| *id != leader).unwrap();
        let others: Vec<NodeId> = world.ids().into_iter().filter(|id| *id != away).collect();
        world.network.cut.extend(others.iter().flat_map(|other| [(away, *other), (*other, away)]));
        // What was on its way when it went may have reached it.
        let rounds = |world: &mut World, count: usize| {
            let before = world.counts.acknowledged;
            for _ in 0..count {
                world.ask().unwrap();
                world.round().unwrap();
            }
            world.counts.acknowledged - before
        };
        rounds(&mut world, 30);
        assert_eq!(
            rounds(&mut world, 200),
            0,
            "seed {seed}: a quorum has it, and one that keeps up does not"
        );
        // Two are in sync then, and whoever waited was told so.
        rounds(&mut world, 150);
        world.clients.replicas_min = 2;
        assert!(rounds(&mut world, 200) > 0, "seed {seed}");
        world.clients.replicas_min = 3;
        world.network.cut.clear();
        world.elect().unwrap();
        produce(&mut world, 10);
        world.make_peace().unwrap();
    }
}

#[test]
fn row_22_a_leader_whose_disk_stands_still_hands_over_all_that_waits_for_it() {
    for seed in 0..5 {
        let mut world = cluster(seed);
        produce(&mut world, 5);
        let group = partitions(&world)[0];
        for led in [group, GroupId::METADATA] {
            let stands = world.leader(led).unwrap();
            world.machine(stands).stands = true;
            let topic = world.clients.create_topic(&mut world.random, Some(false));
            world.operate(topic).unwrap();
            let elsewhere = |world: &World| {
                let groups = partitions(world).into_iter().chain([GroupId::METADATA]);
                let all = groups.filter(|group| *group == led || *group == GroupId::METADATA);
                all.filter_map(|group| world.leader(group)).all(|leader| leader != stands)
            };
            let before = world.counts.acknowledged;
            for round in 0.. {
                assert!(round < 300, "seed {seed}: {led} waits for {stands}: {}", world.describe());
                world.ask().unwrap();
                world.round().unwrap();
                if world.counts.acknowledged >= before + 10 && (led == group || elsewhere(&world)) {
                    break;
                }
            }
            world.machine(stands).stands = false;
            produce(&mut world, 5);
        }
        world.make_peace().unwrap();
        assert!(world.is_together());
    }
}

/// Whoever was away learns of both in one turn: what is to be closed must not be opened behind that.
#[test]
fn a_topic_that_came_and_went_leaves_nothing_on_a_node_that_was_away() {
    for seed in 0..5 {
        let mut world = cluster(seed);
        let leader = world.leader(GroupId::METADATA).unwrap();
        let away = world.ids().into_iter().find(|id| *id != leader).unwrap();
        let others: Vec<NodeId> = world.ids().into_iter().filter(|id| *id != away).collect();
        world.network.cut.extend(others.iter().flat_map(|other| [(away, *other), (*other, away)]));
        for _ in 0..3 {
            let topic = world.clients.create_topic(&mut world.random, Some(false));
            world.operate(topic).unwrap();
            world.settle().unwrap();
        }
        for _ in 0..4 {
            let image = world.machines[&leader].image.clone().unwrap();
            let topic = world.clients.delete_topic(&image, &mut world.random).unwrap();
            world.operate(topic).unwrap();
            world.settle().unwrap();
        }
        world.network.cut.clear();
        let groups = |world: &World, id| world.machines[&id].node.as_ref().unwrap().driver.shard().groups();
        let alike = |world: &World| world.ids().iter().all(|id| groups(world, *id) == [GroupId::METADATA]);
        world.until("nobody has any of it", alike).unwrap();
        world.crash(away, true).unwrap();
        assert!(world.start(away).unwrap());
        world.make_peace().unwrap();
        assert!(alike(&world));
    }
}

#[test]
fn a_node_that_stops_hands_over_what_it_leads() {
    let mut world = cluster(3);
    produce(&mut world, 3);
    let group = partitions(&world)[0];
    let stops = world.leader(group).unwrap();
    let began = world.clock.monotonic();
    world.machine(stops).node.as_mut().unwrap().driver.drain();
    world.until("another leads", |world| world.leader(group).is_some_and(|leader| leader != stops)).unwrap();
    assert!(world.clock.monotonic().since(began) < Duration::from_secs(1), "nobody waits for a time-out");
    world
        .until("it may stop", |world| world.machines[&stops].node.as_ref().unwrap().driver.is_drained())
        .unwrap();
    world.crash(stops, false).unwrap();
    produce(&mut world, 3);
    world.make_peace().unwrap();
}

/// Three nodes that cut their logs, and a topic that tiers; whose partition, and who leads it.
fn cutting_cluster(seed: u64) -> (World, GroupId, NodeId) {
    let mut world = World::new(seed, 3, Trace::verbose());
    (1..=3).for_each(|id| assert!(world.start(node(id)).unwrap()));
    world.elect().unwrap();
    let topic = world.clients.create_topic(&mut world.random, Some(true));
    world.operate(topic).unwrap();
    world.settle().unwrap();
    world.elect().unwrap();
    produce(&mut world, 10);
    let group = partitions(&world)[0];
    let leader = world.leader(group).unwrap();
    (world, group, leader)
}

/// The others go on and cut their logs while a voter is away; then it comes back.
fn comes_back_behind_the_cut(world: &mut World, group: GroupId, lags: NodeId) {
    let end = |world: &World, id| world.machines[&id].model.durable.0[&group].last().0;
    let before = end(world, lags);
    let truncated = |world: &World| {
        let leads = world.leader(group)?;
        Some(world.machines[&leads].node.as_ref()?.driver.shard().replica(group)?.truncated.0)
    };
    for _ in 0..100 {
        produce(world, 5);
        if truncated(world).is_some_and(|truncated| truncated > before) {
            break;
        }
    }
    assert!(truncated(world) > Some(before), "the log is cut beyond what the voter holds");
    assert!(world.start(lags).unwrap());
    let caught_up = world.until("it catches up", |world| end(world, lags) >= truncated(world).unwrap());
    if let Err(why) = caught_up {
        let lines = world.trace.lines();
        panic!("{}\n{why}", lines[lines.len().saturating_sub(200)..].join("\n"));
    }
    assert!(world.counts.jumps > 0);
}

/// TIERING.md 11b: a voter that lags behind what the others have cut starts over from a checkpoint in the bucket.
#[test]
fn a_voter_behind_the_cut_is_sent_to_a_checkpoint() {
    for seed in 0..5 {
        let (mut world, group, leader) = cutting_cluster(seed);
        let lags = world.ids().into_iter().find(|id| *id != leader).unwrap();
        world.crash(lags, true).unwrap();
        comes_back_behind_the_cut(&mut world, group, lags);
        world.crash(lags, true).unwrap();
        assert!(world.start(lags).unwrap());
        produce(&mut world, 5);
        world.make_peace().unwrap();
    }
}

/// Until the jump is durable the log still holds what nobody but its old leader ever had: none of that is applied.
#[test]
fn a_checkpoint_takes_the_place_of_entries_that_were_never_committed() {
    for seed in 0..3 {
        let (mut world, group, alone) = cutting_cluster(seed);
        let links = |id: NodeId| [(alone, id), (id, alone)];
        world.network.cut = world.ids().into_iter().flat_map(links).collect();
        let end = |world: &World| world.machines[&alone].model.durable.0[&group].last().0;
        let committed = end(&world);
        for _ in 0..20 {
            world.ask().unwrap();
            world.append(alone, usize::MAX).unwrap();
            world.sync(alone).unwrap();
        }
        assert!(end(&world) > committed, "it writes what nobody hears of");
        world.crash(alone, true).unwrap();
        world.network.cut.clear();
        world.elect().unwrap();
        comes_back_behind_the_cut(&mut world, group, alone);
        produce(&mut world, 5);
        world.make_peace().unwrap();
    }
}

fn run_all(seeds: std::ops::Range<u64>) -> Vec<Counts> {
    let run = |seed| {
        let outcome = run(seed, 3, None, Trace::default());
        assert_eq!(outcome.violation, None, "seed {seed}");
        outcome.counts
    };
    seeds.map(run).collect()
}

/// Run once, in parts, for all tests that look at them.
static FIRST: LazyLock<Vec<Counts>> = LazyLock::new(|| run_all(0..20));
static SECOND: LazyLock<Vec<Counts>> = LazyLock::new(|| run_all(20..40));
static THIRD: LazyLock<Vec<Counts>> = LazyLock::new(|| run_all(40..60));

#[test]
fn the_first_clusters_break_no_invariant() {
    assert_eq!(FIRST.len(), 20);
}

#[test]
fn more_clusters_break_no_invariant() {
    assert_eq!(SECOND.len(), 20);
}

#[test]
fn yet_more_clusters_break_no_invariant() {
    assert_eq!(THIRD.len(), 20);
}

/// Their logs were cut between the commands behind a roll, or at rest behind the last one: who was elected had no checkpoint to give to
/// the one voter that it needed, and two waited for the third for ever.
#[test]
fn two_of_three_go_on_where_the_log_was_cut_behind_a_roll() {
    for (seed, log_files) in [(600_153, None), (601_025, Some(10)), (601_099, Some(10))] {
        let setup = Setup { log_files, ..Setup::default() };
        assert_eq!(run_as(seed, 3, setup, Trace::default()).violation, None, "seed {seed}");
    }
}

/// The leader that had a producer's first batch was cut off; the next leader knew nothing of the producer, and took its second batch for
/// the first.
#[test]
fn h7_what_follows_a_batch_that_hangs_at_the_leader_before_waits_for_it() {
    let setup = Setup { log_files: Some(10), ..Setup::default() };
    assert_eq!(run_as(610_329, 3, setup, Trace::default()).violation, None);
}

#[test]
fn the_seeds_reach_what_they_are_for() {
    let all = || FIRST.iter().chain(SECOND.iter()).chain(THIRD.iter());
    let sum = |of: fn(&Counts) -> u64| all().map(of).sum::<u64>();
    let reached = [
        sum(|counts| counts.leaders as u64),
        sum(|counts| counts.jumps),
        sum(|counts| counts.cuts),
        sum(|counts| counts.confirmed),
        sum(|counts| counts.acknowledged),
    ];
    println!("leaders, jumps, cuts, confirmed, acknowledged: {reached:?}");
    let least = [300, 3, 100, 100, 5_000];
    assert!(reached.iter().zip(least).all(|(reached, least)| *reached >= least), "{reached:?}");
}

#[test]
fn the_same_seed_leaves_the_same_trace() {
    let hash = |seed| run(seed, 3, None, Trace::default()).hash;
    assert_eq!(hash(900), hash(900));
    assert_ne!(hash(900), hash(901));
}

/// The violation that some seed shows.
fn found(bug: Bug, checkers: &[&str]) {
    found_from(0, bug, checkers);
}

/// In runs from a seed on, where the first ones would take long.
fn found_from(first: u64, bug: Bug, checkers: &[&str]) {
    let seen = (first..first + 1_000).find_map(|seed| run(seed, 3, Some(bug), Trace::default()).violation);
    let seen = seen.unwrap_or_else(|| panic!("no seed finds {bug:?}"));
    assert!(checkers.contains(&seen.checker), "{bug:?} is found by {seen}");
}

#[test]
fn replicas_that_speak_before_they_are_durable_are_found() {
    found(
        Bug::Consensus(consensus::Bug::SpeaksBeforeDurable),
        &["R1", "R3", "R4", "R6", "H1", "H3", "H10", "S4", "panic"],
    );
}

/// A leader does not run while the others elect another and acknowledge; then it is asked whether it leads.
fn asks_a_leader_that_was_away(bug: Option<Bug>) -> Result<(), Violation> {
    let mut world = cluster(7);
    produce(&mut world, 5);
    let group = partitions(&world)[0];
    let away = world.leader(group).unwrap();
    world.machine(away).stalled = 1_000;
    let others: Vec<NodeId> = world.ids().into_iter().filter(|id| *id != away).collect();
    world.network.cut.extend(others.iter().flat_map(|other| [(away, *other), (*other, away)]));
    world.until("another leads", |world| world.leader(group).is_some_and(|leader| leader != away))?;
    produce(&mut world, 3);
    Bug::plant(bug);
    let asked = world.confirm(away);
    Bug::plant(None);
    assert!(asked.is_err() || world.counts.asked > 0, "it believes that it leads");
    asked?;
    world.make_peace()
}

#[test]
fn a_leader_that_was_away_confirms_nothing() {
    asks_a_leader_that_was_away(None).unwrap();
    let found = asks_a_leader_that_was_away(Some(Bug::Consensus(consensus::Bug::ReadsAlone)));
    assert_eq!(found.expect_err("a read that asks nobody is found").checker, "F3");
}

#[test]
fn a_log_that_says_synced_too_early_is_found() {
    found(Bug::Log(bugs::Bug::AckBeforeFsync), &["W1", "W2", "R5", "R3", "H3"]);
}

#[test]
fn metadata_that_is_acted_on_while_it_is_replayed_is_found() {
    found_from(
        699,
        Bug::OldMetadataActs,
        &["W1", "W6", "R3", "R5", "B7", "R4", "H3", "H10", "S4", "L", "panic"],
    );
}
