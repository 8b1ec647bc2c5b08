//! What the tier costs: requests for what is tiered, and for what is idle; and what deleting a topic gives back.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::{Bench, create_topic, delete_topic};
use crate::{
    process::Broker,
    report::{Figure, Goal},
    wire::{self, Load},
};

/// As the issue asks.
const PUTS_PER_GIB: f64 = 20.0;
const FREED_SHARE: f64 = 0.85;
const FREED_WITHIN: Duration = Duration::from_secs(60);
/// How long an upload may take to follow.
const TIERED_WITHIN: Duration = Duration::from_secs(600);
/// Counters are carried over at intervals.
const COUNTED_WITHIN: Duration = Duration::from_secs(6);
/// The most that stays in an open range, a segment, and a little for what segments add to their records.
const OPEN_BYTES: f64 = (80 << 20) as f64;
const GIB: f64 = (1_u64 << 30) as f64;

/// Requests of one busy partition and of idle ones, and the disk that a deleted topic frees.
pub fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut figures = requests(bench)?;
    figures.push(idle(bench)?);
    figures.push(freed(bench)?);
    Ok(figures)
}

/// Requests of the store so far.
#[derive(Clone, Copy, Debug, Default)]
struct Requests {
    puts: f64,
    lists: f64,
    all: f64,
}

impl Requests {
    fn of(broker: &Broker) -> anyhow::Result<Self> {
        thread::sleep(COUNTED_WITHIN);
        let count = |operation: &str| {
            let label = format!("operation=\"{operation}\"");
            broker.metric("varve_s3_requests_total", &label)
        };
        Ok(Self {
            puts: count("put")?,
            lists: count("list")?,
            all: broker.metric("varve_s3_requests_total", "")?,
        })
    }

    fn since(self, before: Self) -> Self {
        Self { puts: self.puts - before.puts, lists: self.lists - before.lists, all: self.all - before.all }
    }
}

/// One busy partition, as the broker comes.
fn requests(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let broker = bench.broker("cost", &[])?;
    create_topic(broker.address, "busy", 1, &[("retention.ms", "-1")])?;
    // The listing of a group's checkpoints comes with its first publication in a term.
    tier(&broker, bench, "busy", bench.scale.tiered_bytes / 2)?;
    let tiered = broker.metric("varve_tier_uploaded_bytes_total", "")?;
    let before = Requests::of(&broker)?;
    tier(&broker, bench, "busy", bench.scale.tiered_bytes)?;
    let busy = Requests::of(&broker)?.since(before);
    let gib = (broker.metric("varve_tier_uploaded_bytes_total", "")? - tiered) / GIB;
    Ok(vec![
        Figure {
            name: "PUTs per GiB of one busy partition, checkpoints included".to_owned(),
            ratios: vec![busy.puts / gib],
            goal: Goal::AtMost(PUTS_PER_GIB),
            detail: format!("{} puts for {gib:.2} GiB", busy.puts),
        },
        Figure {
            name: "LISTs in steady state".to_owned(),
            ratios: vec![busy.lists],
            goal: Goal::AtMost(0.0),
            detail: format!("while {gib:.2} GiB were tiered"),
        },
    ])
}

/// Partitions that were written and are at rest: all that they hold is in the bucket, checkpoints too.
fn idle(bench: &Bench) -> anyhow::Result<Figure> {
    let soon = ["--set", "varve.tier.max.age.ms=1000", "--set", "varve.snapshot.max.age.ms=2000"];
    let broker = bench.broker("idle", &soon)?;
    let (partitions, time) = (bench.scale.cost_partitions, bench.time * 30);
    create_topic(broker.address, "warm", 1, &[])?;
    fill(&broker, "warm", 1)?;
    settle(&broker)?;
    let alone = over(&broker, time)?;
    create_topic(broker.address, "idle", partitions, &[])?;
    fill(&broker, "idle", partitions)?;
    settle(&broker)?;
    let uploads = broker.metric("varve_tier_uploads_total", "")?;
    ensure!(uploads >= f64::from(partitions), "only {uploads} segments are in the bucket");
    let beside = over(&broker, time)?;
    // The node's own look at its claim may fall into either: less than a tenth of a request each is nobody's.
    let each = (beside.all - alone.all).max(0.0) / f64::from(partitions);
    Ok(Figure {
        name: "requests of an idle partition".to_owned(),
        ratios: vec![(each * 10.0).floor() / 10.0],
        goal: Goal::AtMost(0.0),
        detail: format!(
            "{} requests in {:.0} s beside {partitions} idle partitions, {} before they were there",
            beside.all,
            time.as_secs_f64(),
            alone.all
        ),
    })
}

fn over(broker: &Broker, time: Duration) -> anyhow::Result<Requests> {
    let before = Requests::of(broker)?;
    thread::sleep(time);
    Ok(Requests::of(broker)?.since(before))
}

/// Produces so many bytes and waits until all but the last range of them, which stays open until it is old, are in the bucket.
fn tier(broker: &Broker, bench: &Bench, topic: &str, bytes: u64) -> anyhow::Result<()> {
    let before = broker.metric("varve_tier_uploaded_bytes_total", "")?;
    let written = produce(broker, bench, topic, 1, bytes)?;
    let begin = Instant::now();
    let wanted = before + (written as f64 - OPEN_BYTES).max(1.0);
    while broker.metric("varve_tier_uploaded_bytes_total", "")? < wanted {
        ensure!(begin.elapsed() < TIERED_WITHIN, "uploads do not follow");
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// One batch into each partition.
fn fill(broker: &Broker, topic: &str, partitions: i32) -> anyhow::Result<()> {
    let mut client = wire::Client::connect(broker.address)?;
    for partition in 0..partitions {
        let mut frame = wire::produce(topic, &[partition], &wire::batch(1, 100));
        wire::check_produced(client.call(&mut frame)?)?;
    }
    Ok(())
}

/// Waits until nothing is asked of the store any more but what a node asks by itself.
fn settle(broker: &Broker) -> anyhow::Result<()> {
    let begin = Instant::now();
    while over(broker, COUNTED_WITHIN)?.puts > 0.0 {
        ensure!(begin.elapsed() < TIERED_WITHIN, "the node does not come to rest");
    }
    Ok(())
}

fn produce(broker: &Broker, bench: &Bench, topic: &str, partitions: i32, bytes: u64) -> anyhow::Result<u64> {
    // Enough of them that no block of a segment holds one twice: nothing compresses.
    let mut frames: Vec<_> = (0..8 * partitions)
        .map(|number| {
            let batch = wire::noise_batch(64, 4096, u64::from(number.unsigned_abs()));
            wire::produce(topic, &[number % partitions], &batch)
        })
        .collect();
    let mut written = 0;
    while written < bytes {
        let load = Load { in_flight: 8, time: bench.time.min(Duration::from_millis(500)) };
        written += wire::closed_loop(broker.address, &mut frames, load, wire::check_produced)?.bytes;
    }
    Ok(written)
}

/// The share of a node's disk that comes back within a minute when the topic goes that holds nine tenths of it.
fn freed(bench: &Bench) -> anyhow::Result<Figure> {
    let bytes = bench.scale.tiered_bytes;
    let broker = bench.broker("freed", &[])?;
    for (topic, share) in [("kept", bytes / 10), ("gone", bytes / 10 * 9)] {
        create_topic(broker.address, topic, 4, &[("retention.ms", "-1")])?;
        produce(&broker, bench, topic, 4, share)?;
    }
    settle(&broker)?;
    let held = || disk_bytes(broker.data());
    let before = held()?;
    delete_topic(broker.address, "gone")?;
    let begin = Instant::now();
    let mut least = before;
    let mut reached = None;
    while begin.elapsed() < FREED_WITHIN {
        thread::sleep(Duration::from_millis(500));
        least = least.min(held()?);
        if reached.is_none() && share(before, least) >= FREED_SHARE {
            reached = Some(begin.elapsed());
        }
    }
    Ok(Figure {
        name: "disk freed within a minute of deleting the topic with 90 % of it".to_owned(),
        ratios: vec![share(before, least)],
        goal: Goal::AtLeast(FREED_SHARE),
        detail: format!(
            "{:.0} MiB before, {:.0} MiB after; the goal was reached {}",
            before as f64 / 1048576.0,
            least as f64 / 1048576.0,
            reached.map_or("never".to_owned(), |after| format!("after {:.1} s", after.as_secs_f64()))
        ),
    })
}

fn share(before: u64, after: u64) -> f64 {
    1.0 - after as f64 / before as f64
}

/// Allocated bytes below a directory; a file that goes meanwhile takes none.
fn disk_bytes(directory: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in
        std::fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?.flatten()
    {
        let Ok(metadata) = entry.metadata() else { continue };
        bytes +=
            if metadata.is_dir() { disk_bytes(&entry.path()).unwrap_or(0) } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
