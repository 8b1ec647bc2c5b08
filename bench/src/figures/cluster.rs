//! Three nodes on one machine: against the floor with two followers, and what clients notice when leaders go.
//!
//! Gaps are measured by a client of our own that asks for the leader every two milliseconds ([`Follower`]): a library's back-off
//! would be measured instead.

use std::{
    hint::black_box,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::{
    Bench, create_replicated, create_topic,
    produce::{Shape, best_floor, run},
};
use crate::{
    cluster::{Cluster, Follower, NODES, until},
    floor::{self, Method},
    report::{Figure, Goal, median},
    wire::{self, Run},
};

const TOPIC: &str = "bench";
const REPLICAS: i16 = NODES as i16;
/// Kills for each pair that is asked for.
const KILLS_PER_PAIR: usize = 3;
/// Load before something happens.
const BEFORE: Duration = Duration::from_millis(500);
/// Load afterwards: longer than any gap that would be a good one.
const AFTER: Duration = Duration::from_secs(4);
const HOGS: usize = 2;

/// One small request at a time, and large ones, on three nodes, against floors of as many; and the same of one node.
pub fn produce(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let cluster = Cluster::start(bench, "cluster")?;
    create_replicated(cluster.nodes[0].address, TOPIC, (1, REPLICAS), &[])?;
    cluster.wait_in_sync(TOPIC)?;
    let leader = cluster.leader(TOPIC, 0, None).context("the topic has a leader")?;
    let alone = bench.broker("one-of-one", &[])?;
    create_topic(alone.address, TOPIC, 1, &[])?;
    let start = |begin: fn(&std::path::Path, Method) -> anyhow::Result<_>| {
        let of = |method: &Method| Ok((*method, begin(&bench.directory, *method)?));
        Method::ALL.iter().map(of).collect::<anyhow::Result<Vec<_>>>()
    };
    let (three, one) = (start(floor::start_replicated)?, start(floor::start)?);
    let small = Shape {
        name: "1 KiB, one in flight",
        batch: wire::batch(1, 1024),
        in_flight: 1,
        better: |run| 1.0 / run.percentile(0.5),
    };
    let large = Shape {
        name: "256 KiB requests, 8 in flight",
        batch: wire::batch(256, 1000),
        in_flight: 8,
        better: Run::bytes_rate,
    };
    let ours = cluster.nodes[leader].address;
    let mut figures = Vec::new();
    let best = best_floor(bench, &three, &small)?.1;
    let pairs = pairs(bench, &[(best, false), (ours, true)], &small)?;
    for (share, name, goal) in [(0.5, "p50", 2.0), (0.99, "p99", 3.0)] {
        figures.push(figure(
            &format!("three nodes, {}: {name} against the 3-replica floor", small.name),
            Goal::AtMost(goal),
            pairs.iter().map(|runs| runs[1].percentile(share) / runs[0].percentile(share)).collect(),
            format!("ours {:.2} ms", 1e3 * middle(&pairs, 1, |run| run.percentile(share))),
        ));
    }
    let best = (best_floor(bench, &three, &large)?.1, best_floor(bench, &one, &large)?.1);
    let sides = [(best.0, false), (ours, true), (best.1, false), (alone.address, true)];
    let runs = self::pairs(bench, &sides, &large)?;
    let rate = Run::bytes_rate;
    figures.push(figure(
        &format!("three nodes, {}: bytes/s against the 3-replica floor", large.name),
        Goal::AtLeast(0.5),
        runs.iter().map(|runs| rate(&runs[1]) / rate(&runs[0])).collect(),
        format!("ours {:.0}, floor {:.0} MB/s", 1e-6 * middle(&runs, 1, rate), 1e-6 * middle(&runs, 0, rate)),
    ));
    figures.push(figure(
        "three nodes against one of ours, of the floors' own ratio",
        Goal::AtLeast(0.8),
        runs.iter().map(|r| (rate(&r[1]) / rate(&r[3])) / (rate(&r[0]) / rate(&r[2]))).collect(),
        format!(
            "one node {:.0}, its floor {:.0} MB/s",
            1e-6 * middle(&runs, 3, rate),
            1e-6 * middle(&runs, 2, rate)
        ),
    ));
    Ok(figures)
}

/// Each side in turn, as often as pairs are asked for; the answers of those that are brokers are checked.
fn pairs(
    bench: &Bench,
    sides: &[(std::net::SocketAddr, bool)],
    shape: &Shape,
) -> anyhow::Result<Vec<Vec<Run>>> {
    let one = |(address, is_broker): &(_, bool)| {
        let check = if *is_broker { wire::check_produced } else { |_: &[u8]| Ok(()) };
        run(*address, shape, bench.time, check)
    };
    (0..bench.pairs).map(|_| sides.iter().map(one).collect()).collect()
}

fn middle(runs: &[Vec<Run>], side: usize, of: impl Fn(&Run) -> f64) -> f64 {
    median(&runs.iter().map(|runs| of(&runs[side])).collect::<Vec<_>>())
}

/// The longest gap without an acknowledgement, in seconds, when the leader is killed at 1,000 requests a second.
pub fn failover(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut cluster = replicated(bench, "failover", 1)?;
    let mut gaps = Vec::new();
    for _ in 0..bench.pairs * KILLS_PER_PAIR {
        let leader = cluster.leader(TOPIC, 0, None).context("the topic has a leader")?;
        gaps.push(gap(&mut cluster, |cluster| cluster.nodes[leader].kill())?);
        cluster.nodes[leader].again(bench.binary())?;
        cluster.wait_in_sync(TOPIC)?;
    }
    Ok(worst_and_median("kill -9 of the leader at 1,000 requests/s: longest gap, seconds", &gaps, (1.0, 2.5)))
}

/// The same when leadership is handed over as planned, and when each node is restarted in turn.
pub fn handover(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut cluster = replicated(bench, "handover", 1)?;
    let (mut transfers, mut restarts) = (Vec::new(), Vec::new());
    for _ in 0..bench.pairs * KILLS_PER_PAIR {
        let leader = cluster.leader(TOPIC, 0, None).context("the topic has a leader")?;
        let to = (leader + 1) % NODES;
        transfers.push(gap(&mut cluster, |cluster| transfer(bench, cluster, to))?);
        ensure!(cluster.leader(TOPIC, 0, None) == Some(to), "the leadership was handed over");
    }
    for _ in 0..bench.pairs {
        for node in 0..NODES {
            restarts.push(gap(&mut cluster, |cluster| {
                cluster.nodes[node].stop()?;
                cluster.nodes[node].again(bench.binary())
            })?);
            cluster.wait_in_sync(TOPIC)?;
        }
    }
    let mut figures = worst_and_median("planned transfer: longest gap, seconds", &transfers, (0.1, 0.1));
    figures.extend(worst_and_median("rolling restart: longest gap, seconds", &restarts, (0.1, 0.1)));
    Ok(figures)
}

fn transfer(bench: &Bench, cluster: &Cluster, to: usize) -> anyhow::Result<()> {
    let brokers = cluster.nodes[0].address.to_string();
    let done = Command::new(bench.binary())
        .args(["cluster", "transfer-leader", "--to", &(to + 1).to_string(), "-b", &brokers])
        .arg(format!("{TOPIC}-0"))
        .output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Seconds until every partition of a dead node takes a batch again.
pub fn dead_node(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let partitions = bench.scale.led_partitions * NODES as i32;
    let mut cluster = replicated(bench, "dead-node", partitions)?;
    let mut seconds = Vec::new();
    let rounds = bench.pairs.div_ceil(3);
    let mut led = 0;
    for round in 0..rounds {
        let (dead, asked) = (round % NODES, (round + 1) % NODES);
        let before = cluster.metadata(asked, TOPIC)?.partitions;
        led = before.values().filter(|state| state.leader as usize == dead + 1).count();
        let begin = Instant::now();
        cluster.nodes[dead].kill()?;
        let mut waiting: Vec<i32> = before.keys().copied().collect();
        until("leader of every partition", || {
            waiting = not_taken(&cluster, (asked, dead), &waiting)?;
            Ok(waiting.is_empty())
        })?;
        seconds.push(begin.elapsed().as_secs_f64());
        cluster.nodes[dead].again(bench.binary())?;
        cluster.wait_in_sync(TOPIC)?;
    }
    Ok(vec![figure(
        "partitions of a dead node led again, seconds",
        Goal::AtMost(3.0),
        seconds,
        format!("{led} of {partitions} were led by the last that died; each takes a batch"),
    )])
}

/// Which of `waiting` take no batch yet, from the leaders that a living node tells of.
fn not_taken(cluster: &Cluster, (asked, dead): (usize, usize), waiting: &[i32]) -> anyhow::Result<Vec<i32>> {
    let told = cluster.metadata(asked, TOPIC)?.partitions;
    let mut left = Vec::new();
    for node in 0..NODES {
        let leads = |index: &&i32| told.get(index).is_some_and(|state| state.leader as usize == node + 1);
        let led: Vec<i32> = waiting.iter().filter(leads).copied().collect();
        if node == dead {
            left.extend(led);
        } else if !led.is_empty() {
            let mut client = wire::Client::connect(cluster.nodes[node].address)?;
            let body = client.call(&mut wire::produce(TOPIC, &led, &wire::batch(1, 100)))?;
            left.extend(
                wire::produced(body)?.iter().filter(|(_, error)| *error != 0).map(|(index, _)| *index),
            );
        }
    }
    let is_led = |index: &&i32| told.get(index).is_some_and(|state| state.leader > 0);
    left.extend(waiting.iter().filter(|index| !is_led(index)));
    Ok(left)
}

/// Elections a minute while two processors are kept busy and the cluster writes.
pub fn hogs(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let cluster = replicated(bench, "hogs", 30)?;
    let stop = Arc::new(AtomicBool::new(false));
    let hogs: Vec<_> = (0..HOGS)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    black_box(0);
                }
            })
        })
        .collect();
    let time = bench.time * 30;
    let before = cluster.metric("varve_raft_elections_total")?;
    let mut follower = Follower::new(&cluster, TOPIC);
    let ran = follower.run(Instant::now() + time);
    let elections = cluster.metric("varve_raft_elections_total")? - before;
    stop.store(true, Ordering::Relaxed);
    hogs.into_iter().for_each(|hog| hog.join().expect("it only spins"));
    ran?;
    Ok(vec![figure(
        "elections a minute beside two hogs of the processors",
        Goal::AtMost(1.0),
        vec![elections * 60.0 / time.as_secs_f64()],
        format!(
            "in {:.0} s; the longest gap of a writer was {:.2} s",
            time.as_secs_f64(),
            follower.longest_gap
        ),
    )])
}

/// What three nodes do while nobody asks anything of their 10,000 groups.
pub fn idle(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    const TOPICS: i32 = 10;
    let cluster = Cluster::start(bench, "idle")?;
    let partitions = bench.scale.idle_partitions;
    for topic in 0..TOPICS {
        let name = format!("idle-{topic}");
        create_replicated(cluster.nodes[0].address, &name, (partitions / TOPICS, REPLICAS), &[])?;
        cluster.wait_in_sync(&name)?;
    }
    let resting = f64::from(partitions) * NODES as f64;
    until("rest", || Ok(cluster.metric("varve_raft_groups_resting")? >= resting * 0.99))?;
    let time = bench.time * 10;
    let used =
        || cluster.nodes.iter().map(crate::process::Broker::cpu_seconds).collect::<anyhow::Result<Vec<_>>>();
    let (before, sent) = (used()?, cluster.metric("varve_raft_messages_sent_total")?);
    thread::sleep(time);
    let (after, now) = (used()?, cluster.metric("varve_raft_messages_sent_total")?);
    let shares =
        before.iter().zip(&after).map(|(before, after)| (after - before) / time.as_secs_f64()).collect();
    let pairs = (NODES * (NODES - 1) / 2) as f64;
    Ok(vec![
        figure(
            &format!("part of a core that each idle node uses with {partitions} groups"),
            Goal::AtMost(0.05),
            shares,
            "three nodes, nobody asks".to_owned(),
        ),
        figure(
            "messages a second between two idle nodes",
            Goal::AtMost(10.0),
            vec![(now - sent) / time.as_secs_f64() / pairs],
            "both directions".to_owned(),
        ),
    ])
}

/// A cluster with a topic that all of its nodes hold.
fn replicated(bench: &Bench, name: &str, partitions: i32) -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(bench, name)?;
    create_replicated(cluster.nodes[0].address, TOPIC, (partitions, REPLICAS), &[])?;
    cluster.wait_in_sync(TOPIC)?;
    Ok(cluster)
}

/// Seconds of the longest gap around what happens in the middle of a steady load.
fn gap(
    cluster: &mut Cluster,
    happens: impl FnOnce(&mut Cluster) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let mut follower = Follower::new(cluster, TOPIC);
    let stop = Instant::now() + BEFORE;
    follower.run(stop)?;
    let writer = thread::spawn(move || follower.run(Instant::now() + AFTER).map(|()| follower.longest_gap));
    happens(cluster)?;
    writer.join().expect("the writer does not panic")
}

fn worst_and_median(name: &str, gaps: &[f64], (median, worst): (f64, f64)) -> Vec<Figure> {
    let longest = gaps.iter().copied().fold(0.0, f64::max);
    vec![
        figure(name, Goal::AtMost(median), gaps.to_vec(), format!("{} times", gaps.len())),
        figure(&format!("{name}: the worst"), Goal::AtMost(worst), vec![longest], String::new()),
    ]
}

fn figure(name: &str, goal: Goal, ratios: Vec<f64>, detail: String) -> Figure {
    Figure { name: name.to_owned(), ratios, goal, detail }
}
