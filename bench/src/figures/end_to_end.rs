//! Sent to consumed: a steady 1,000 records a second, one in a request, with a consumer that waits at the tail.

use std::{
    net::SocketAddr,
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{Bench, create_topic};
use crate::{
    report::{Figure, Goal, median},
    wire::{self, Run},
};

const PERIOD: Duration = Duration::from_millis(1);
const TOPIC: &str = "end-to-end";

/// From sent to consumed against from sent to acknowledged, at the 99th percentile: stricter than from acknowledged to
/// consumed, which can be negative.
pub fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let broker = bench.broker("end-to-end", &[])?;
    create_topic(broker.address, TOPIC, 1, &[])?;
    let (mut ratios, mut consumed, mut acknowledged, mut offset) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..bench.pairs {
        let (acks, fetches) = round(broker.address, offset, bench.time)?;
        offset += acks.latencies.len() as i64;
        let (ack, seen) = (acks.percentile(0.99), fetches.percentile(0.99));
        ratios.push(seen / ack);
        acknowledged.push(ack);
        consumed.push(seen);
    }
    Ok(vec![Figure {
        name: "sent to consumed p99 at 1,000 records/s against produce p99".to_owned(),
        ratios,
        goal: Goal::AtMost(1.5),
        detail: format!(
            "consumed after {:.2} ms, acknowledged after {:.2} ms",
            median(&consumed) * 1e3,
            median(&acknowledged) * 1e3
        ),
    }])
}

/// Latencies of one run: until acknowledged, and until consumed.
fn round(address: SocketAddr, offset: i64, time: Duration) -> anyhow::Result<(Run, Run)> {
    let count = (time.as_nanos() / PERIOD.as_nanos()).max(1) as usize;
    let (sender, sent) = channel();
    let consumer = thread::spawn(move || consume(address, offset, count, &sent));
    let mut client = wire::Client::connect(address)?;
    let mut frame = wire::produce(TOPIC, &[0], &wire::batch(1, 1000));
    let begin = Instant::now();
    let mut acks = Run { latencies: Vec::new(), seconds: 0.0, bytes: 0 };
    for number in 0..count {
        let due = begin + PERIOD * number as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let start = Instant::now();
        // The consumer is gone only after an error, which it returns.
        let _ = sender.send(start);
        wire::check_produced(client.call(&mut frame)?)?;
        acks.latencies.push(start.elapsed().as_secs_f64());
    }
    drop(sender);
    let fetches = consumer.join().expect("the consumer does not panic")?;
    Ok((acks, fetches))
}

fn consume(
    address: SocketAddr,
    mut offset: i64,
    count: usize,
    sent: &Receiver<Instant>,
) -> anyhow::Result<Run> {
    let mut client = wire::Client::connect(address)?;
    let end = offset + count as i64;
    let mut run = Run { latencies: Vec::new(), seconds: 0.0, bytes: 0 };
    while offset < end {
        let mut request = wire::fetch(TOPIC, 0, offset, Duration::from_millis(500), 1 << 20);
        let records = wire::fetched(client.call(&mut request)?)?;
        let Some(next) = wire::next_offset(records) else { continue };
        for _ in offset..next {
            let start = sent.recv().context("the producer has stopped")?;
            run.latencies.push(start.elapsed().as_secs_f64());
        }
        offset = next;
    }
    Ok(run)
}
