//! Produce against the floor: latency of one, requests of many, bytes of large ones.

use std::{net::SocketAddr, time::Duration};

use super::{Bench, create_topic};
use crate::{
    floor::{self, Method},
    report::{Figure, Goal, median},
    wire::{self, Load, Run},
};

pub(super) struct Shape {
    pub name: &'static str,
    pub batch: Vec<u8>,
    pub in_flight: usize,
    pub better: fn(&Run) -> f64,
}

/// All three, against the best of the floor's methods.
pub fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let broker = bench.broker("produce", &[])?;
    create_topic(broker.address, "bench", 1, &[])?;
    let floors = Method::ALL
        .iter()
        .map(|method| Ok((*method, floor::start(&bench.directory, *method)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let shapes = [
        Shape {
            name: "1 KiB, one in flight",
            batch: wire::batch(1, 1024),
            in_flight: 1,
            better: |run| 1.0 / run.percentile(0.5),
        },
        Shape {
            name: "one-record requests, 64 in flight",
            batch: wire::batch(1, 1024),
            in_flight: 64,
            better: Run::rate,
        },
        Shape {
            name: "16 KiB requests, 64 in flight",
            batch: wire::batch(16, 1000),
            in_flight: 64,
            better: Run::bytes_rate,
        },
        Shape {
            name: "256 KiB requests, 8 in flight",
            batch: wire::batch(256, 1000),
            in_flight: 8,
            better: Run::bytes_rate,
        },
    ];
    let mut figures = Vec::new();
    for shape in &shapes {
        let best = best_floor(bench, &floors, shape)?;
        figures.extend(pairs(bench, broker.address, best, shape)?);
    }
    Ok(figures)
}

pub(super) fn run(
    address: SocketAddr,
    shape: &Shape,
    time: Duration,
    check: fn(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Run> {
    let mut frames = vec![wire::produce("bench", &[0], &shape.batch)];
    wire::closed_loop(address, &mut frames, Load { in_flight: shape.in_flight, time }, check)
}

/// The method that serves this shape best, on this disk, now.
pub(super) fn best_floor(
    bench: &Bench,
    floors: &[(Method, SocketAddr)],
    shape: &Shape,
) -> anyhow::Result<(Method, SocketAddr)> {
    let mut best = None;
    for (method, address) in floors {
        let figure = (shape.better)(&run(*address, shape, bench.time, |_| Ok(()))?);
        if best.as_ref().is_none_or(|(_, held)| figure > *held) {
            best = Some(((*method, *address), figure));
        }
    }
    Ok(best.expect("there are three methods").0)
}

fn pairs(
    bench: &Bench,
    broker: SocketAddr,
    floor: (Method, SocketAddr),
    shape: &Shape,
) -> anyhow::Result<Vec<Figure>> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..bench.pairs {
        theirs.push(run(floor.1, shape, bench.time, |_| Ok(()))?);
        ours.push(run(broker, shape, bench.time, wire::check_produced)?);
    }
    let figure = |name: &str, goal, of: &dyn Fn(&Run) -> f64, unit: &str, scale: f64| Figure {
        name: format!("produce, {}: {name} against the floor", shape.name),
        ratios: ours.iter().zip(&theirs).map(|(our, their)| of(our) / of(their)).collect(),
        goal,
        detail: format!(
            "ours {:.2} {unit}, floor ({:?}) {:.2} {unit}",
            median(&ours.iter().map(of).collect::<Vec<_>>()) * scale,
            floor.0,
            median(&theirs.iter().map(of).collect::<Vec<_>>()) * scale
        ),
    };
    Ok(match shape.in_flight {
        1 => vec![
            figure("p50", Goal::AtMost(2.0), &|run| run.percentile(0.5), "ms", 1e3),
            figure("p99", Goal::AtMost(3.0), &|run| run.percentile(0.99), "ms", 1e3),
        ],
        _ if shape.batch.len() < 2048 => {
            vec![figure("requests/s", Goal::AtLeast(0.4), &Run::rate, "/s", 1.0)]
        }
        _ => vec![figure("bytes/s", Goal::AtLeast(0.5), &Run::bytes_rate, "MB/s", 1e-6)],
    })
}
