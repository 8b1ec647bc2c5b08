//! Reading: the tail beside the writer, and one partition out of a log that 1,000 share.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::{Bench, create_topic};
use crate::{
    report::{Figure, Goal, median},
    wire::{self, Load},
};

const FETCH_BYTES: i32 = 1 << 20;

/// Both figures.
pub fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    Ok(vec![tail(bench)?, shared(bench)?])
}

/// Reads a partition from the first of two offsets up to the other; bytes and seconds.
pub fn drain(
    address: SocketAddr,
    topic: &str,
    partition: i32,
    (mut offset, end): (i64, i64),
    fetch_bytes: i32,
) -> anyhow::Result<(u64, f64)> {
    let mut client = wire::Client::connect(address)?;
    let (mut bytes, begin) = (0, Instant::now());
    while offset < end {
        let mut request = wire::fetch(topic, partition, offset, Duration::from_millis(500), fetch_bytes);
        let records = wire::fetched(client.call(&mut request)?)?;
        bytes += records.len() as u64;
        offset = wire::next_offset(records).context("no whole batch in an answer below the end")?;
    }
    Ok((bytes, begin.elapsed().as_secs_f64()))
}

fn tail(bench: &Bench) -> anyhow::Result<Figure> {
    let broker = bench.broker("tail", &[])?;
    create_topic(broker.address, "tail", 1, &[])?;
    let (mut ratios, mut rates, mut offset) = (Vec::new(), Vec::new(), 0);
    for _ in 0..bench.pairs {
        let mut frames = vec![wire::produce("tail", &[0], &wire::batch(64, 1000))];
        let load = Load { in_flight: 16, time: bench.time };
        let run = wire::closed_loop(broker.address, &mut frames, load, wire::check_produced)?;
        let end = offset + 64 * run.latencies.len() as i64;
        let (bytes, seconds) = drain(broker.address, "tail", 0, (offset, end), FETCH_BYTES)?;
        offset = end;
        ratios.push(bytes as f64 / seconds / run.bytes_rate());
        rates.push(bytes as f64 / seconds);
    }
    Ok(Figure {
        name: "tail consume against produce of the same bytes".to_owned(),
        ratios,
        goal: Goal::AtLeast(2.0),
        detail: format!("consume {:.0} MB/s", median(&rates) * 1e-6),
    })
}

fn shared(bench: &Bench) -> anyhow::Result<Figure> {
    let wal = ["--set", "varve.wal.bytes.max=16GiB"];
    let alone = bench.broker("alone", &wal)?;
    create_topic(alone.address, "t", 1, &[("remote.storage.enable", "false")])?;
    let crowd = bench.broker("crowd", &wal)?;
    let shared = bench.scale.shared_partitions;
    create_topic(crowd.address, "t", shared, &[("remote.storage.enable", "false")])?;
    let batch = wire::batch(16, 1000);
    let batches = bench.scale.read_bytes / batch.len();
    let partition = shared / 2;
    fill(alone.address, &[0], &batch, batches)?;
    // The partition under test is written in step with a tenth of the others, in turn: a gigabyte more would only take longer.
    for round in 0..batches {
        let others =
            (0..9).map(|step| (round as i32 * 9 + step) % shared).filter(|other| *other != partition);
        let partitions: Vec<_> = others.chain([partition]).collect();
        fill(crowd.address, &partitions, &batch, 1)?;
    }
    let end = (batches * 16) as i64;
    let (mut ratios, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..bench.pairs {
        let (bytes, own) = drain(alone.address, "t", 0, (0, end), FETCH_BYTES)?;
        let (same, among) = drain(crowd.address, "t", partition, (0, end), FETCH_BYTES)?;
        ensure!(bytes == same, "both partitions hold the same batches");
        ratios.push(own / among);
        rates.push(bytes as f64 / among);
    }
    Ok(Figure {
        name: "read one partition of 1,000 in one WAL against its own WAL".to_owned(),
        ratios,
        goal: Goal::AtLeast(0.5),
        detail: format!("{:.0} MB/s among 1,000", median(&rates) * 1e-6),
    })
}

fn fill(address: SocketAddr, partitions: &[i32], batch: &[u8], times: usize) -> anyhow::Result<()> {
    let mut client = wire::Client::connect(address)?;
    let mut frame = wire::produce("t", partitions, batch);
    (0..times).try_for_each(|_| wire::check_produced(client.call(&mut frame)?))
}
