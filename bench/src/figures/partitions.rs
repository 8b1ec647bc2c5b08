//! The same bytes over 1,000 partitions as over one: one fsync must serve all groups.

use super::{Bench, create_topic};
use crate::{
    cluster::until,
    report::{Figure, Goal, median},
    wire::{self, Load, Run},
};

/// Batches in one request, so that both sides send frames of one size.
const BATCHES: i32 = 20;
/// A log with room for the pairs: one that is short of it refuses producers, which is another figure.
const LOG: [&str; 2] = ["--set", "varve.wal.bytes.max=12GiB"];
/// Of the log's bound: what may be left in it when a pair begins. From there on partitions let go of what they hold.
const LIVE_SHARE: f64 = 0.5;

/// Bytes per second over 1,000 partitions against one partition.
pub fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let broker = bench.broker("partitions", &LOG)?;
    let partitions = bench.scale.shared_partitions;
    create_topic(broker.address, "many", partitions, &[])?;
    create_topic(broker.address, "one", 1, &[])?;
    let batch = wire::batch(16, 1000);
    let mut many: Vec<_> = (0..partitions / BATCHES)
        .map(|group| {
            wire::produce("many", &(group * BATCHES..(group + 1) * BATCHES).collect::<Vec<_>>(), &batch)
        })
        .collect();
    let mut one = vec![wire::produce("one", &[0], &wire::batch(16 * BATCHES as usize, 1000))];
    let load = Load { in_flight: 8, time: bench.time };
    let (mut spread, mut single) = (Vec::new(), Vec::new());
    for _ in 0..bench.pairs {
        let live = || broker.metric("varve_wal_live_bytes", "");
        let bound = broker.metric("varve_wal_limit_bytes", "")? * LIVE_SHARE;
        until("room in the log", || Ok(live()? < bound))?;
        single.push(wire::closed_loop(broker.address, &mut one, load, wire::check_produced)?);
        spread.push(wire::closed_loop(broker.address, &mut many, load, wire::check_produced)?);
    }
    let rates = |runs: &[Run]| runs.iter().map(Run::bytes_rate).collect::<Vec<_>>();
    Ok(vec![Figure {
        name: format!("produce: {partitions} partitions against 1, bytes/s"),
        ratios: spread.iter().zip(&single).map(|(many, one)| many.bytes_rate() / one.bytes_rate()).collect(),
        goal: Goal::AtLeast(0.8),
        detail: format!(
            "{:.0} and {:.0} MB/s",
            median(&rates(&spread)) * 1e-6,
            median(&rates(&single)) * 1e-6
        ),
    }])
}
