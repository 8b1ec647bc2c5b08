//! Memory of an idle broker, of idle partitions, and the restart with ten thousand of them.

use super::{Bench, create_topic};
use crate::report::{Figure, Goal};

const PARTITIONS: i32 = 10_000;
const PER_TOPIC: i32 = 1_000;
const IDLE_BYTES: f64 = (40 << 20) as f64;
const PARTITION_BYTES: f64 = (32 << 10) as f64;
const RESTART_SECONDS: f64 = 3.0;

/// Resident memory against its bounds, and the restart with 10,000 groups against its own.
pub fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut broker = bench.broker("memory", &[])?;
    create_topic(broker.address, "warm", 1, &[])?;
    let idle = broker.resident_bytes()? as f64;
    for topic in 0..PARTITIONS / PER_TOPIC {
        create_topic(broker.address, &format!("idle-{topic}"), PER_TOPIC, &[])?;
    }
    let each = (broker.resident_bytes()? as f64 - idle) / f64::from(PARTITIONS);
    broker.kill()?;
    let restart = broker.restart(&bench.binary)?;
    Ok(vec![
        figure("resident memory idle, of 40 MiB", idle / IDLE_BYTES, format!("{:.1} MiB", idle / 1048576.0)),
        figure(
            "memory per idle partition at 10,000, of 32 KiB",
            each / PARTITION_BYTES,
            format!("{:.1} KiB", each / 1024.0),
        ),
        figure("restart with 10,000 groups, of 3 s", restart / RESTART_SECONDS, format!("{restart:.2} s")),
    ])
}

fn figure(name: &str, ratio: f64, detail: String) -> Figure {
    Figure { name: name.to_owned(), ratios: vec![ratio], goal: Goal::AtMost(1.0), detail }
}
