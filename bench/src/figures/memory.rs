//! Memory of an idle broker, of idle partitions, and the restart with ten thousand of them.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Bench, create_topic};
use crate::{
    process::Broker,
    report::{Figure, Goal, median},
};

const TOPICS: i32 = 10;
const IDLE_BYTES: f64 = (40 << 20) as f64;
const PARTITION_BYTES: f64 = (32 << 10) as f64;
const IDLE: Duration = Duration::from_secs(4);
const RESTART_SECONDS: f64 = 3.0;

/// Resident memory against its bounds, and the restart with 10,000 groups against its own.
pub fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut broker = bench.broker("memory", &[])?;
    create_topic(broker.address, "warm", 1, &[])?;
    let idle = broker.resident_bytes()? as f64;
    let partitions = bench.scale.idle_partitions;
    let mut created = Vec::new();
    for topic in 0..TOPICS {
        let begin = Instant::now();
        create_topic(broker.address, &format!("idle-{topic}"), partitions / TOPICS, &[])?;
        created.push(begin.elapsed().as_secs_f64());
    }
    let cpu = idle_share(&broker)?;
    let each = (broker.resident_bytes()? as f64 - idle) / f64::from(partitions);
    broker.kill()?;
    // Served means all of them: the last partition of the last topic takes a batch.
    let (topic, last) = (format!("idle-{}", TOPICS - 1), partitions / TOPICS - 1);
    let restart = broker.restart(&bench.binary, &topic, last)?;
    Ok(vec![
        figure("resident memory idle, of 40 MiB", idle / IDLE_BYTES, format!("{:.1} MiB", idle / 1048576.0)),
        figure(
            &format!("memory per idle partition at {partitions}, of 32 KiB"),
            each / PARTITION_BYTES,
            format!("{:.1} KiB", each / 1024.0),
        ),
        figure(
            &format!("restart with {partitions} groups, of 3 s"),
            restart / RESTART_SECONDS,
            format!(
                "{restart:.2} s until the last takes a batch; creating a tenth of them took {:.2} s, idle they use {:.1} % of a core",
                median(&created),
                cpu * 100.0
            ),
        ),
    ])
}

/// The share of a core that the broker uses while nobody asks anything.
fn idle_share(broker: &Broker) -> anyhow::Result<f64> {
    thread::sleep(IDLE / 2);
    let before = broker.cpu_seconds()?;
    thread::sleep(IDLE);
    Ok((broker.cpu_seconds()? - before) / IDLE.as_secs_f64())
}

fn figure(name: &str, ratio: f64, detail: String) -> Figure {
    Figure { name: name.to_owned(), ratios: vec![ratio], goal: Goal::AtMost(1.0), detail }
}
