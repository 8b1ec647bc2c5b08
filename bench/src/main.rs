//! Measures Varve against the floor:
//! `cargo run --release -p varve-bench -- [--quick] [--pairs N] [--seconds S] [--json FILE] [FIGURE…]`.
//!
//! Every figure is a ratio of two things measured in turn within one run on one disk, so that a slow or busy machine
//! slows both. The floor ([`floor`]) is the least that an acknowledged append can cost; the client ([`wire`]) is the same on both
//! sides. The release binary must be built: `cargo build --release`. `--quick` runs every figure once over little data: it
//! says nothing about speed, and fails where something does not work.

mod cluster;
mod figures;
mod floor;
mod group;
mod process;
mod report;
mod store;
mod wire;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};

use figures::{
    Bench, Scale, archive, cold, cost, end_to_end, groups, manifest, memory, partitions, produce, read,
    restart, restore,
};

type Measure = fn(&Bench) -> anyhow::Result<Vec<report::Figure>>;

/// By name; the first part of one means all that begin so.
const FIGURES: [(&str, Measure); 24] = [
    ("produce", produce::measure),
    ("partitions", partitions::measure),
    ("read", read::measure),
    ("cold-upload", cold::upload),
    ("cold-scan", cold::scan),
    ("cold-first-byte", cold::first_bytes),
    ("end-to-end", end_to_end::measure),
    ("restart", restart::measure),
    ("restore", restore::measure),
    ("memory", memory::measure),
    ("cost", cost::measure),
    ("manifest", manifest::measure),
    ("groups-idempotence", groups::idempotence),
    ("groups-commits", groups::commits),
    ("groups-rebalance", groups::rebalances),
    ("groups-failover", groups::failover),
    ("archive", archive::measure),
    ("cluster-produce", figures::cluster::produce),
    ("cluster-failover", figures::cluster::failover),
    ("cluster-handover", figures::cluster::handover),
    ("cluster-dead-node", figures::cluster::dead_node),
    ("cluster-watermark", figures::watermark::measure),
    ("cluster-hogs", figures::cluster::hogs),
    ("cluster-idle", figures::cluster::idle),
];

fn main() -> anyhow::Result<()> {
    let mut bench = Bench {
        binary: std::env::current_exe()?.with_file_name("varve"),
        directory: std::env::temp_dir().join(format!("varve-bench-{}", std::process::id())),
        pairs: 10,
        time: Duration::from_secs(2),
        scale: Scale::WHOLE,
    };
    let (mut json, mut wanted) = (None, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--pairs" => bench.pairs = value()?.parse()?,
            "--seconds" => bench.time = Duration::from_secs_f64(value()?.parse()?),
            "--quick" => bench = bench.quick(),
            "--directory" => bench.directory = value()?.into(),
            "--binary" => bench.binary = value()?.into(),
            "--json" => json = Some(PathBuf::from(value()?)),
            name if FIGURES.iter().any(|(known, _)| known.starts_with(name)) => wanted.push(name.to_owned()),
            _ => bail!("unknown argument {argument}; figures: {}", FIGURES.map(|(name, _)| name).join(" ")),
        }
    }
    std::fs::create_dir_all(&bench.directory)?;
    let figures = measure(&bench, &wanted);
    // Floors write there until the process ends.
    drop(std::fs::remove_dir_all(&bench.directory));
    let figures = figures?;
    if let Some(path) = json {
        std::fs::write(path, report::document(&figures))?;
    }
    Ok(())
}

/// Measures what is wanted, or all of it.
fn measure(bench: &Bench, wanted: &[String]) -> anyhow::Result<Vec<report::Figure>> {
    let mut figures = Vec::new();
    report::print_head();
    for (name, measure) in FIGURES {
        if wanted.is_empty() || wanted.iter().any(|one| name.starts_with(one)) {
            eprintln!("measuring {name} …");
            let measured = measure(bench).with_context(|| format!("measure {name}"))?;
            report::print(&measured);
            figures.extend(measured);
        }
    }
    Ok(figures)
}
