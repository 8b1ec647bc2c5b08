//! A whole cluster from its bucket, until a client has records again, against a plain LIST and GET of what it is restored from.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::ensure;

use super::{Bench, create_topic, read::drain};
use crate::{
    cluster::until,
    process::Broker,
    report::{Figure, Goal, median},
    store::Store,
    wire,
};

/// Requests that the floor has on their way: as many as a restore.
const AT_A_TIME: usize = 16;
const BATCHES: i32 = 20;
const RECORDS: i64 = 16;

/// Every pair restores the life that the one before has begun.
pub fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let store = Store::start(None)?;
    let partitions = bench.scale.shared_partitions;
    let quick = ["varve.tier.max.age.ms=1s", "varve.snapshot.max.age.ms=1s"];
    let quick = quick.into_iter().flat_map(|setting| ["--set".to_owned(), setting.to_owned()]);
    let arguments: Vec<String> = store.arguments().into_iter().chain(quick).collect();
    let mut broker = bench.broker_with("restore-source", &arguments, store.environment())?;
    create_topic(broker.address, "t", partitions, &[])?;
    let mut client = wire::Client::connect(broker.address)?;
    let batch = wire::batch(RECORDS as usize, 1000);
    for first in (0..partitions).step_by(BATCHES as usize) {
        let some: Vec<_> = (first..partitions.min(first + BATCHES)).collect();
        wire::check_produced(client.call(&mut wire::produce("t", &some, &batch))?)?;
    }
    until("a checkpoint of every partition", || Ok(store.checkpoints(1)?.len() > partitions as usize))?;
    broker.stop()?;
    let (mut ratios, mut floors, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..bench.pairs {
        let begin = Instant::now();
        let life = store.checkpoints(pair as u32 + 1)?;
        let whole = life.into_iter().map(|object| (object.key, 0..object.bytes)).collect();
        store.read(whole, AT_A_TIME)?;
        floors.push(begin.elapsed().as_secs_f64());
        times.push(restored(bench, &store, pair, &arguments)?);
        ratios.push(times[pair] / floors[pair]);
    }
    let (took, floor) = (median(&times), median(&floors));
    Ok(vec![Figure {
        name: format!(
            "restore of {partitions} partitions to the first fetch against LIST and GET of their checkpoints"
        ),
        ratios,
        goal: Goal::AtMost(3.0),
        detail: format!("{took:.2} s and {floor:.2} s"),
    }])
}

/// The seconds until a partition's records were read.
fn restored(bench: &Bench, store: &Store, pair: usize, arguments: &[String]) -> anyhow::Result<f64> {
    let data = bench.directory.join(format!("restored-{pair}"));
    let begin = Instant::now();
    let ended = Command::new(bench.binary())
        .args(["restore", "--yes", "--wait", "0", "--data-dir"])
        .arg(&data)
        .args(store.arguments())
        .envs(store.environment())
        .env_remove("VARVE_TOOLS")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    ensure!(ended.success(), "the restore ended with {ended}");
    let mut broker = Broker::start_with(bench.binary(), &data, arguments.to_vec(), store.environment())?;
    let patience = Instant::now();
    while let Err(error) = drain(broker.address, "t", 0, (0, RECORDS), 1 << 20) {
        ensure!(patience.elapsed() < Duration::from_secs(60), "{error}");
        std::thread::sleep(Duration::from_millis(1));
    }
    let seconds = begin.elapsed().as_secs_f64();
    broker.kill()?;
    Ok(seconds)
}
