//! Groups of consumers, and producers with an identity: what they cost, and how long they wait.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::{
    Bench, create_topic,
    produce::{Shape, best_floor},
};
use crate::{
    cluster::{Cluster, until},
    floor::{self, Method},
    group::{self, Identity, Member, rebalance},
    report::{Figure, Goal, median},
    wire::{self, Client, Load, Run},
};

const TOPIC: &str = "bench";
/// The topic that groups are kept in, and the group whose coordinator dies.
const OFFSETS: &str = "__consumer_offsets";
const GROUP: &str = "failing-over";
/// Requests that an idempotent producer has on the way.
const PRODUCER_IN_FLIGHT: usize = 5;
/// Commits on the way: each of a group and a connection of its own.
const COMMITTERS: usize = 64;
const GROUPS: usize = 100;
const MEMBERS: usize = 10;
/// Members of the group whose coordinator dies.
const FEW: usize = 3;
/// The pause before a member asks again, and how long it waits for an answer.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes a second of a producer with an identity against one without.
pub fn idempotence(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let broker = bench.broker("idempotence", &[])?;
    create_topic(broker.address, TOPIC, 1, &[])?;
    let mut figures = Vec::new();
    for (name, records, bytes) in
        [("1 KiB requests", 1, 1024), ("16 KiB requests", 16, 1000), ("256 KiB requests", 256, 1000)]
    {
        let batch = wire::batch(records, bytes);
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..bench.pairs {
            without.push(produce(bench, broker.address, &batch, None)?.bytes_rate());
            let identity = Identity::new(broker.address)?;
            with.push(produce(bench, broker.address, &batch, Some((identity, records as i32)))?.bytes_rate());
        }
        figures.push(Figure {
            name: format!("produce, {name}, {PRODUCER_IN_FLIGHT} in flight: idempotent against not"),
            ratios: with.iter().zip(&without).map(|(with, without)| with / without).collect(),
            goal: Goal::AtLeast(0.95),
            detail: format!(
                "idempotent {:.1}, not {:.1} MB/s",
                1e-6 * median(&with),
                1e-6 * median(&without)
            ),
        });
    }
    Ok(figures)
}

/// A checksum is made for each request on both sides: it is the client's work, not the broker's.
fn produce(
    bench: &Bench,
    address: SocketAddr,
    batch: &[u8],
    mut identity: Option<(Identity, i32)>,
) -> anyhow::Result<Run> {
    let mut frames = vec![wire::produce(TOPIC, &[0], batch)];
    let batch_at = frames[0].len() - batch.len();
    let load = Load { in_flight: PRODUCER_IN_FLIGHT, time: bench.time };
    let prepare = |frame: &mut [u8]| match &mut identity {
        Some((identity, records)) => identity.sign(&mut frame[batch_at..], *records),
        None => group::seal(&mut frame[batch_at..]),
    };
    wire::closed_loop_with(address, &mut frames, load, prepare, wire::check_produced)
}

/// Commits a second of many groups against as many synced appends on the way as the floor serves.
pub fn commits(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let broker = bench.broker("commits", &[])?;
    create_topic(broker.address, TOPIC, 1, &[])?;
    let mut committers = (0..COMMITTERS)
        .map(|number| {
            let group = format!("committer-{number}");
            ready(broker.address, &group)?;
            Ok((Client::connect(broker.address)?, group::commit(&group, TOPIC, 1)))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let floors = Method::ALL
        .iter()
        .map(|method| Ok((*method, floor::start(&bench.directory, *method)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    // The floor writes whatever it is sent: a batch of a commit's size.
    let shape =
        Shape { name: "commits", batch: wire::batch(1, 64), in_flight: COMMITTERS, better: Run::rate };
    let (_, floor) = best_floor(bench, &floors, &shape)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..bench.pairs {
        theirs.push(super::produce::run(floor, &shape, bench.time, |_| Ok(()))?.rate());
        ours.push(commit_for(&mut committers, bench.time)?);
    }
    Ok(vec![Figure {
        name: format!("offset commits/s, {COMMITTERS} groups at once, against the floor"),
        ratios: ours.iter().zip(&theirs).map(|(our, their)| our / their).collect(),
        goal: Goal::AtLeast(0.4),
        detail: format!("ours {:.0}/s, floor {:.0}/s", median(&ours), median(&theirs)),
    }])
}

/// Each committer has one commit on the way; commits a second.
fn commit_for(committers: &mut [(Client, Vec<u8>)], time: Duration) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let mut waiting = VecDeque::new();
    for (number, (client, frame)) in committers.iter_mut().enumerate() {
        client.send(frame)?;
        waiting.push_back(number);
    }
    let mut committed = 0;
    while let Some(number) = waiting.pop_front() {
        let (client, frame) = &mut committers[number];
        group::check_committed(client.receive()?.1)?;
        committed += 1;
        if begin.elapsed() < time {
            client.send(frame)?;
            waiting.push_back(number);
        }
    }
    Ok(f64::from(committed) / begin.elapsed().as_secs_f64())
}

/// Waits until a group has a coordinator that takes requests: the topic of groups comes to be with the first.
fn ready(address: SocketAddr, group: &str) -> anyhow::Result<()> {
    until("a coordinator", || {
        let mut client = Client::connect(address)?;
        group::coordinator(&mut client, group)?;
        group::check_committed(client.call(&mut group::commit(group, TOPIC, 0))?)?;
        Ok(true)
    })
}

/// Seconds of a rebalance of all groups at once, and the memory that their members take.
pub fn rebalances(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let broker = bench.broker("rebalances", &[])?;
    create_topic(broker.address, TOPIC, 1, &[])?;
    let names: Vec<String> = (0..GROUPS).map(|number| format!("group-{number}")).collect();
    names.iter().try_for_each(|name| ready(broker.address, name))?;
    let before = broker.resident_bytes()?;
    let mut members = Vec::new();
    for name in &names {
        for _ in 0..MEMBERS {
            members.push(Member::new(broker.address, name)?);
        }
    }
    // The first generation waits for more members by configuration: it is not measured.
    rebalance(&mut members, 0)?;
    let mut seconds = Vec::new();
    for news in 1..=bench.pairs as i32 {
        let begin = Instant::now();
        rebalance(&mut members, news)?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    members.iter_mut().try_for_each(Member::beat)?;
    let taken = broker.resident_bytes()?.saturating_sub(before) as f64 / f64::from(1 << 20);
    Ok(vec![
        Figure {
            name: format!("{} members in {GROUPS} groups: seconds of a rebalance of all", members.len()),
            ratios: seconds,
            goal: Goal::AtMost(2.0),
            detail: "from the first join to the last assignment".to_owned(),
        },
        Figure {
            name: format!("{} members in {GROUPS} groups: MiB that they take", members.len()),
            ratios: vec![taken],
            goal: Goal::AtMost(64.0),
            detail: format!("with their connections, after {} generations", bench.pairs + 1),
        },
    ])
}

/// Seconds from `kill -9` of the coordinator until every member has been answered in its generation again.
pub fn failover(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut cluster = Cluster::start(bench, "group-failover")?;
    create_topic(cluster.nodes[0].address, TOPIC, 1, &[])?;
    ready_anywhere(&cluster)?;
    let (place, address) = find(&cluster, None).context("the group has a coordinator")?;
    let mut members =
        (0..FEW).map(|_| Member::new(address, GROUP)).collect::<anyhow::Result<Vec<Member>>>()?;
    rebalance(&mut members, 0)?;
    let (mut seconds, mut coordinator) = (Vec::new(), place);
    for _ in 0..bench.pairs {
        cluster.wait_in_sync(OFFSETS)?;
        let begin = Instant::now();
        cluster.nodes[coordinator].kill()?;
        let dead = coordinator;
        for member in &mut members {
            coordinator = go_on(&cluster, member, dead)?;
        }
        seconds.push(begin.elapsed().as_secs_f64());
        cluster.nodes[dead].again(bench.binary())?;
    }
    Ok(vec![Figure {
        name: "kill -9 of a group's coordinator: seconds until all members go on".to_owned(),
        ratios: seconds,
        goal: Goal::AtMost(3.0),
        detail: format!("{FEW} members, who stay in their generation"),
    }])
}

/// Waits until some node coordinates the group.
fn ready_anywhere(cluster: &Cluster) -> anyhow::Result<()> {
    until("a coordinator", || {
        let (_, address) = find(cluster, None).context("nobody coordinates")?;
        let mut client = Client::connect(address)?;
        group::check_committed(client.call(&mut group::commit(GROUP, TOPIC, 0))?)?;
        Ok(true)
    })
}

/// The coordinator of the group, as the first node says that is asked and does not name the dead one.
fn find(cluster: &Cluster, dead: Option<usize>) -> Option<(usize, SocketAddr)> {
    let asked = cluster.nodes.iter().enumerate().filter(|(place, _)| Some(*place) != dead);
    let mut told = asked.filter_map(|(_, node)| {
        let mut client = Client::connect_within(node.address, ANSWER_LIMIT).ok()?;
        let (id, address) = group::coordinator(&mut client, GROUP).ok()?;
        Some((usize::try_from(id - 1).ok()?, address))
    });
    told.find(|(place, _)| Some(*place) != dead)
}

/// A member asks until somebody answers it as one of its generation; who that is.
fn go_on(cluster: &Cluster, member: &mut Member, dead: usize) -> anyhow::Result<usize> {
    let begin = Instant::now();
    loop {
        if let Some((place, address)) = find(cluster, Some(dead))
            && member.move_to(address, ANSWER_LIMIT).and_then(|()| member.beat()).is_ok()
        {
            return Ok(place);
        }
        ensure!(begin.elapsed() < PATIENCE, "nobody coordinates the group for {PATIENCE:?}");
        std::thread::sleep(RETRY_PAUSE);
    }
}
