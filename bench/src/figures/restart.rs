//! Restart after kill -9: it must not depend on how much is on the disk.

use std::time::Duration;

use super::{Bench, create_topic};
use crate::{
    process::Broker,
    report::{Figure, Goal, median},
    wire::{self, Load},
};

/// Restart with 4 GiB of un-tiered local data against 0.25 GiB.
pub fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let (few, many) = bench.scale.restart_bytes;
    let mut little = filled(bench, "restart-little", few)?;
    let mut much = filled(bench, "restart-much", many)?;
    let (mut ratios, mut times) = (Vec::new(), Vec::new());
    for _ in 0..bench.pairs {
        little.kill()?;
        let small = little.restart(bench.binary(), "t", 3)?;
        much.kill()?;
        let large = much.restart(bench.binary(), "t", 3)?;
        ratios.push(large / small);
        times.push(large);
    }
    let seconds = median(&times);
    Ok(vec![Figure {
        name: "restart after kill -9: 4 GiB un-tiered against 0.25 GiB".to_owned(),
        ratios,
        goal: Goal::AtMost(1.2),
        detail: format!("{:.0} ms until a batch is acknowledged with 4 GiB", seconds * 1e3),
    }])
}

fn filled(bench: &Bench, name: &str, bytes: u64) -> anyhow::Result<Broker> {
    let broker = bench.broker(name, &["--set", "varve.wal.bytes.max=16GiB"])?;
    create_topic(broker.address, "t", 4, &[("remote.storage.enable", "false")])?;
    let mut frames: Vec<_> =
        (0..4).map(|partition| wire::produce("t", &[partition], &wire::batch(256, 1000))).collect();
    let mut written = 0;
    while written < bytes {
        let load = Load { in_flight: 8, time: bench.time.min(Duration::from_secs(1)) };
        written += wire::closed_loop(broker.address, &mut frames, load, wire::check_produced)?.bytes;
    }
    Ok(broker)
}
