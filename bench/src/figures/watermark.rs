//! How far a follower's watermark is behind the leader's while a producer writes: two consumers wait at the end of one partition,
//! one at its leader and one at a follower, and each notes when it is told of an offset.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::{Bench, create_replicated};
use crate::{
    cluster::{Cluster, NODES},
    report::{Figure, Goal},
    wire::{self, Client, Fields},
};

const TOPIC: &str = "watermark";
/// Requests of one record of 1 KiB a second.
const RATE: f64 = 1_000.0;
const FETCH_BYTES: i32 = 1 << 20;
/// How long a consumer waits at the end for something new.
const MAX_WAIT: Duration = Duration::from_millis(500);
const GOAL_SECONDS: f64 = 0.1;

/// Watermarks that a consumer was told, and when.
type Told = Vec<(i64, Instant)>;

/// One round for each pair that is asked for: the p99, in seconds, over all records of the round.
pub fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let cluster = Cluster::start(bench, "watermark")?;
    create_replicated(cluster.nodes[0].address, TOPIC, (1, NODES as i16), &[])?;
    cluster.wait_in_sync(TOPIC)?;
    let (mut behind, mut longest, mut records) = (Vec::new(), 0.0_f64, 0);
    for _ in 0..bench.pairs {
        let mut round = round(bench, &cluster)?;
        round.sort_by(f64::total_cmp);
        records += round.len();
        behind.push(round[(round.len() - 1) * 99 / 100]);
        longest = longest.max(round[round.len() - 1]);
    }
    Ok(vec![Figure {
        name: format!("a follower's watermark behind the leader's at {RATE:.0} requests/s: p99, seconds"),
        ratios: behind,
        goal: Goal::AtMost(GOAL_SECONDS),
        detail: format!("{records} records, the longest {:.1} ms", longest * 1e3),
    }])
}

/// Seconds by which each record of a steady load was told later by a follower than by the leader.
fn round(bench: &Bench, cluster: &Cluster) -> anyhow::Result<Vec<f64>> {
    let leader = cluster.leader(TOPIC, 0, None).context("the topic has a leader")?;
    let [from_leader, from_follower] = [leader, (leader + 1) % NODES].map(|node| cluster.nodes[node].address);
    let begin = watermark(from_leader, 0)?;
    let stop = Arc::new(AtomicBool::new(false));
    let watchers = [from_leader, from_follower].map(|address| {
        let stop = Arc::clone(&stop);
        thread::spawn(move || watch(address, begin, &stop))
    });
    let mut frame = wire::produce(TOPIC, &[0], &wire::batch(1, 1024));
    let load = wire::open_loop(from_leader, &mut frame, RATE, bench.time);
    stop.store(true, Ordering::Relaxed);
    let [at_leader, at_follower] = watchers.map(|watcher| watcher.join().expect("a consumer does not panic"));
    load?;
    let (at_leader, at_follower) = (at_leader?, at_follower?);
    let end = at_leader.last().context("the leader told of something")?.0;
    let told = at_follower.last().map_or(begin, |(watermark, _)| *watermark);
    // Both were given time after the load: what is missing then is no delay but a follower that stands.
    ensure!(told >= end, "the follower told of {told}, the leader of {end}");
    Ok((begin + 1..=end)
        .map(|wanted| {
            let at = |told: &Told| told[told.partition_point(|(watermark, _)| *watermark < wanted)].1;
            at(&at_follower).saturating_duration_since(at(&at_leader)).as_secs_f64()
        })
        .collect())
}

/// Notes each watermark that a node tells, until nothing new came for a whole wait after the load ended.
fn watch(address: SocketAddr, mut offset: i64, stop: &AtomicBool) -> anyhow::Result<Told> {
    let mut client = Client::connect(address)?;
    let mut told = Vec::new();
    loop {
        let ended = stop.load(Ordering::Relaxed);
        let watermark = fetched(client.call(&mut fetch(offset))?)?;
        if watermark > offset {
            told.push((watermark, Instant::now()));
            offset = watermark;
        } else if ended {
            return Ok(told);
        }
    }
}

fn watermark(address: SocketAddr, offset: i64) -> anyhow::Result<i64> {
    fetched(Client::connect(address)?.call(&mut fetch(offset))?)
}

/// A Fetch request, version 11: the first that followers answer.
fn fetch(offset: i64) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((-1_i32).to_be_bytes());
    body.extend((MAX_WAIT.as_millis() as i32).to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend(FETCH_BYTES.to_be_bytes());
    body.push(0);
    // No session: id 0, epoch -1.
    body.extend(0_i32.to_be_bytes());
    body.extend((-1_i32).to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    wire::string(&mut body, TOPIC);
    body.extend(1_i32.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    // Whatever the leader's epoch is.
    body.extend((-1_i32).to_be_bytes());
    body.extend(offset.to_be_bytes());
    body.extend((-1_i64).to_be_bytes());
    body.extend(FETCH_BYTES.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    wire::string(&mut body, "");
    wire::framed(1, 11, &body)
}

/// The high watermark in the answer.
fn fetched(body: &[u8]) -> anyhow::Result<i64> {
    // throttle i32 | error i16 | session i32 | topics i32 | name string | partitions i32 | index i32 | error i16 | high i64 | …
    let mut rest = Fields(body);
    rest.i32()?;
    let error = rest.i16()?;
    ensure!(error == 0, "fetch answered error {error}");
    rest.take(8)?;
    rest.string()?;
    rest.take(8)?;
    let error = rest.i16()?;
    ensure!(error == 0, "fetch answered error {error} for the partition");
    Ok(i64::from_be_bytes(rest.take(8)?.try_into()?))
}
