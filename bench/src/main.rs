//! Measures Varve against the floor: `cargo run --release -p varve-bench -- [--pairs N] [--seconds S] [--json FILE] [FIGURE…]`.
//!
//! Every figure is a ratio of two things measured in turn within one run on one disk, so that a slow or busy machine
//! slows both. The floor ([`floor`]) is the least that an acknowledged append can cost; the client ([`wire`]) is the same on both
//! sides. The release binary must be built: `cargo build --release`.

mod figures;
mod floor;
mod process;
mod report;
mod wire;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};

use figures::{Bench, memory, partitions, produce, read, restart};

type Measure = fn(&Bench) -> anyhow::Result<Vec<report::Figure>>;

const FIGURES: [(&str, Measure); 5] = [
    ("produce", produce::measure),
    ("partitions", partitions::measure),
    ("read", read::measure),
    ("restart", restart::measure),
    ("memory", memory::measure),
];

fn main() -> anyhow::Result<()> {
    let mut bench = Bench {
        binary: std::env::current_exe()?.with_file_name("varve"),
        directory: std::env::temp_dir().join(format!("varve-bench-{}", std::process::id())),
        pairs: 10,
        time: Duration::from_secs(2),
    };
    let (mut json, mut wanted) = (None, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--pairs" => bench.pairs = value()?.parse()?,
            "--seconds" => bench.time = Duration::from_secs_f64(value()?.parse()?),
            "--directory" => bench.directory = value()?.into(),
            "--binary" => bench.binary = value()?.into(),
            "--json" => json = Some(PathBuf::from(value()?)),
            name if FIGURES.iter().any(|(known, _)| *known == name) => wanted.push(name.to_owned()),
            _ => bail!("unknown argument {argument}; figures: {}", FIGURES.map(|(name, _)| name).join(" ")),
        }
    }
    std::fs::create_dir_all(&bench.directory)?;
    let mut figures = Vec::new();
    for (name, measure) in FIGURES {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            eprintln!("measuring {name} …");
            figures.extend(measure(&bench).with_context(|| format!("measure {name}"))?);
        }
    }
    std::fs::remove_dir_all(&bench.directory)?;
    report::print(&figures);
    if let Some(path) = json {
        std::fs::write(path, report::document(&figures))?;
    }
    Ok(())
}
