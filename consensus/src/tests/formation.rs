//! Three seeds, their disks and a bucket: killed at each step, wiped, slow. Never a second cluster.

mod seeds;

use self::seeds::{Cluster, Frame, Outcome, SEEDS, node};
use super::simulation::Dice;
use crate::formation::{Formation, FormationInput, FormationRecord, Refused, SeedSet, Waiting};

#[test]
fn empty_seeds_form_one_cluster_in_whatever_order_they_start() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        for with_bucket in [false, true] {
            let mut cluster = Cluster::new(with_bucket);
            for seed in order {
                cluster.start(seed);
                cluster.ticks(40);
            }
            let id = *cluster.clusters().first().unwrap();
            assert_eq!(cluster.outcomes(), vec![Some(Outcome::Started(id)); 3]);
            assert_eq!(cluster.claim.is_some(), with_bucket);
            cluster.check();
        }
    }
}

#[test]
fn formation_killed_at_each_step_goes_on_to_one_cluster() {
    let steps = {
        let mut cluster = Cluster::new(true);
        (0..3).for_each(|seed| cluster.start(seed));
        cluster.ticks(30);
        cluster.steps
    };
    assert!(steps > 20, "{steps}");
    for kill_at in 1..=steps {
        for wiped in [false, true] {
            let mut cluster = Cluster::new(true);
            cluster.kill_at = Some(kill_at);
            (0..3).for_each(|seed| cluster.start(seed));
            let mut killed = None;
            for _ in 0..40 {
                cluster.tick();
                killed = (0..3).find(|seed| cluster.seeds[*seed].process.is_none());
                if killed.is_some() {
                    break;
                }
            }
            let Some(killed) = killed else { continue };
            if wiped {
                cluster.wipe(killed);
            }
            cluster.start(killed);
            cluster.ticks(80);
            cluster.check();
            if !wiped {
                assert_eq!(cluster.starts.len(), 3, "killed at {kill_at}");
            }
        }
    }
}

#[test]
fn two_of_three_wiped_and_the_third_slow_never_found_a_second_cluster() {
    for (slow, name) in SEEDS.into_iter().enumerate() {
        let mut cluster = Cluster::formed();
        let id = *cluster.clusters().first().unwrap();
        cluster.kill(slow);
        let wiped: Vec<usize> = (0..3).filter(|seed| *seed != slow).collect();
        wiped.iter().for_each(|seed| {
            cluster.wipe(*seed);
            cluster.start(*seed);
        });
        cluster.ticks(500);
        for seed in &wiped {
            let waiting = cluster.seeds[*seed].process.as_ref().unwrap().waiting();
            assert_eq!(waiting, Some(&Waiting::Answers(vec![name.to_owned()])));
        }
        cluster.start(slow);
        cluster.ticks(40);
        for seed in 0..3 {
            let expected = if seed == slow { Outcome::Started(id) } else { Outcome::Joined(id) };
            assert_eq!(cluster.seeds[seed].outcome, Some(expected));
        }
        cluster.check();
    }
}

#[test]
fn disks_wiped_one_after_the_other_join_and_remember() {
    let mut cluster = Cluster::formed();
    let id = *cluster.clusters().first().unwrap();
    for seed in [1, 2] {
        cluster.wipe(seed);
        cluster.start(seed);
        cluster.ticks(40);
        assert_eq!(cluster.seeds[seed].outcome, Some(Outcome::Joined(id)));
    }
    cluster.wipe(0);
    (0..3).for_each(|seed| cluster.kill(seed));
    (0..3).for_each(|seed| cluster.start(seed));
    cluster.ticks(100);
    cluster.check();
    assert_eq!(cluster.outcomes(), vec![Some(Outcome::Joined(id)); 3]);
}

#[test]
fn all_wiped_find_the_claim_and_refuse() {
    let mut cluster = Cluster::new(true);
    (0..3).for_each(|seed| cluster.start(seed));
    cluster.ticks(30);
    let id = *cluster.clusters().first().unwrap();
    (0..3).for_each(|seed| cluster.wipe(seed));
    (0..3).for_each(|seed| cluster.start(seed));
    cluster.ticks(100);
    assert_eq!(cluster.outcomes(), vec![Some(Outcome::Refused(Refused::Claimed(id))); 3]);
    assert!(Refused::Claimed(id).to_string().contains("varve restore"));
    cluster.check();
}

#[test]
fn a_coordinator_that_was_wiped_after_a_promise_waits_for_ever() {
    let mut cluster = Cluster::promised();
    assert!(cluster.starts.is_empty());
    cluster.frames.clear();
    cluster.wipe(0);
    cluster.start(0);
    cluster.ticks(300);
    assert!(cluster.starts.is_empty());
    let waiting = cluster.seeds[0].process.as_ref().unwrap().waiting();
    assert!(matches!(waiting, Some(Waiting::Wiped(_))), "{waiting:?}");
}

#[test]
fn nobody_decides_in_the_place_of_a_coordinator_that_is_away() {
    for name in [SEEDS[0], "d:9093"] {
        let mut cluster = Cluster::decided_alone();
        let away = cluster.replace_coordinator(name);
        assert_eq!(cluster.starts.len(), 1, "two decided on one cluster: {:?}", cluster.starts);
        let waiting = |seed: usize| cluster.seeds[seed].process.as_ref().unwrap().waiting();
        let decider = Waiting::Decider { seed: SEEDS[1].to_owned(), coordinator: 1 };
        assert_eq!(waiting(0), Some(&decider));
        let expected =
            if name == SEEDS[0] { decider } else { Waiting::SeedsChanged(SEEDS.map(str::to_owned).into()) };
        assert_eq!(waiting(1), Some(&expected));
        // The old one returns, and all is as it decided.
        (cluster.names, cluster.nodes[0]) = (SEEDS, node(0));
        cluster.sets = vec![SEEDS.map(str::to_owned).into(); 3];
        cluster.seeds[0] = away;
        for seed in 0..3 {
            cluster.kill(seed);
            cluster.start(seed);
        }
        cluster.ticks(100);
        cluster.check();
        assert_eq!(cluster.starts.len(), 3);
    }
}

#[test]
fn seeds_that_name_different_sets_form_nothing() {
    let mut cluster = Cluster::new(false);
    cluster.sets[2] = ["a:9093", "b:9093", "c:9093", "d:9093"].map(str::to_owned).into();
    (0..3).for_each(|seed| cluster.start(seed));
    cluster.ticks(100);
    assert!(cluster.starts.is_empty());
    let waiting = cluster.seeds[0].process.as_ref().unwrap().waiting();
    assert_eq!(waiting, Some(&Waiting::OtherSeeds(SEEDS[2].to_owned())));
}

#[test]
fn row_31_another_nodes_disk_is_refused() {
    let mut cluster = Cluster::formed();
    cluster.kill(0);
    cluster.seeds[0].record = cluster.seeds[1].record.clone();
    cluster.start(0);
    assert_eq!(cluster.seeds[0].outcome, Some(Outcome::Refused(Refused::OtherNode(2))));
}

/// Kills, wipes, loss, delay and repetition while a cluster is formed, and after. Once a node started, some disk remembers.
fn run(seed: u64, with_bucket: bool) -> bool {
    run_with(seed, Cluster::new(with_bucket))
}

fn run_with(seed: u64, mut cluster: Cluster) -> bool {
    let mut dice = Dice(seed);
    let mut wiped = false;
    for _ in 0..600 {
        let at = dice.roll(3);
        match dice.roll(40) {
            0..3 if cluster.seeds[at].process.is_none() => cluster.start(at),
            3 => cluster.kill(at),
            4 if cluster.others_remember(at) && dice.roll(4) == 0 => {
                cluster.wipe(at);
                wiped = true;
            }
            5..8 if cluster.with_directory => {
                // Some of the names, or one too many.
                let named = SEEDS.iter().chain(&["d:1"]).filter(|_| dice.roll(4) > 0);
                cluster.name(at, named.map(|name| (*name).to_owned()).collect());
            }
            5..12 => {
                if let Some(process) = cluster.process(at) {
                    cluster.step(at, process, FormationInput::Tick);
                }
            }
            _ if !cluster.frames.is_empty() => {
                let place = dice.roll(cluster.frames.len());
                let frame = cluster.frames.swap_remove(place);
                // The network loses things; a disk or a bucket that never answers would be a dead process.
                let crosses = matches!(frame, Frame::Ask { .. } | Frame::Answer { .. });
                if !crosses || dice.roll(10) > 0 {
                    cluster.deliver(frame);
                }
            }
            _ => {}
        }
        cluster.check();
    }
    for seed in 0..3 {
        if cluster.seeds[seed].process.is_none() {
            cluster.start(seed);
        }
        cluster.name(seed, SEEDS.map(str::to_owned).into());
    }
    cluster.ticks(100);
    cluster.check();
    if !wiped {
        assert_eq!(cluster.starts.len(), 3, "seed {seed}: {:?}", cluster.outcomes());
    }
    !cluster.starts.is_empty()
}

#[test]
fn no_seed_of_chance_founds_two_clusters_or_lets_a_disk_vote_twice() {
    let formed = (0..3000).filter(|seed| run(*seed, seed % 2 == 0)).count();
    assert!(formed > 1500, "{formed}");
}

#[test]
fn a_directory_that_fills_founds_one_cluster_and_never_one_of_those_that_came_first() {
    let directory = |with_bucket| Cluster { with_directory: true, ..Cluster::new(with_bucket) };
    let formed = (0..3000).filter(|seed| run_with(*seed, directory(seed % 2 == 0))).count();
    assert!(formed > 1500, "{formed}");
    let mut cluster = directory(false);
    (0..3).for_each(|seed| cluster.start(seed));
    for named in [&SEEDS[..2], &[SEEDS[0], SEEDS[1], SEEDS[2], "d:1"]] {
        let named: SeedSet = named.iter().map(|name| (*name).to_owned()).collect();
        (0..3).for_each(|seed| cluster.name(seed, named.clone()));
        cluster.ticks(50);
        for seed in &cluster.seeds {
            let waiting = seed.process.as_ref().and_then(Formation::waiting);
            assert_eq!(waiting, Some(&Waiting::Count { found: named.len(), count: 3, seeds: named.clone() }));
            assert_eq!(seed.record, FormationRecord::Empty);
        }
    }
    (0..3).for_each(|seed| cluster.name(seed, SEEDS.map(str::to_owned).into()));
    cluster.ticks(50);
    assert_eq!(cluster.starts.len(), 3, "{:?}", cluster.outcomes());
}

#[test]
fn a_directory_without_a_bucket_that_all_share_founds_nothing_unless_told_and_leads_to_what_is_there() {
    let directory = |founds| Cluster { with_directory: true, founds, ..Cluster::new(false) };
    let mut cluster = directory(false);
    // A living cluster that is not ready is not named; three new disks are.
    (0..3).for_each(|seed| cluster.start(seed));
    (0..3).for_each(|seed| cluster.name(seed, SEEDS.map(str::to_owned).into()));
    cluster.ticks(50);
    assert!(cluster.starts.is_empty());
    for seed in &cluster.seeds {
        assert_eq!(seed.process.as_ref().and_then(Formation::waiting), Some(&Waiting::NobodyFormed));
        assert_eq!(seed.record, FormationRecord::Empty);
    }
    // What was begun when it was allowed is ended when it is not any more.
    let mut cluster = directory(true);
    (0..3).for_each(|seed| cluster.start(seed));
    (0..3).for_each(|seed| cluster.name(seed, SEEDS.map(str::to_owned).into()));
    cluster.ticks(50);
    assert_eq!(cluster.starts.len(), 3, "{:?}", cluster.outcomes());
    cluster.founds = false;
    (0..3).for_each(|seed| cluster.start(seed));
    cluster.ticks(50);
    assert_eq!(cluster.starts.len(), 3, "all of them come back: {:?}", cluster.outcomes());
}

/// The switch of [`crate::bugs`] weakens one rule; the seeds above find it.
#[cfg(feature = "seeded-bugs")]
#[test]
fn weakened_rules_of_formation_are_found() {
    use crate::bugs::{Bug, plant};
    let bugs = [
        (Bug::FormsWithoutAllSeeds, "a second cluster"),
        (Bug::DecisionNamesNoDisks, "a wiped disk came back as the old voter"),
    ];
    let says = |seed: u64| {
        let why = std::panic::catch_unwind(|| run(seed, false)).err()?;
        why.downcast_ref::<String>().cloned()
    };
    for (bug, expected) in bugs {
        plant(Some(bug));
        let found = (0..3000).filter_map(says).any(|why| why.contains(expected));
        plant(None);
        assert!(found, "{bug:?}");
    }
}
