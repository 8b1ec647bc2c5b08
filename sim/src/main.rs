//! Runs seeds: `varve-sim --seeds 0..100 [--long] [--nodes 3 [--log-files 24]] [--moving] [--groups] [--streaming] [--bug NAME] [--trace]`.

use std::process::ExitCode;

use clap::Parser;
use varve_sim::{
    bugs::Bug,
    cluster::{
        self,
        consumers::run_consumers,
        moving::{run_moving, run_streaming},
        run::{Setup, run_as},
    },
    plan::Length,
    run::{Outcome, run},
    trace::Trace,
    violation::Violation,
};

#[derive(Parser)]
#[command(about = "Seeded simulation of a node")]
struct Arguments {
    /// Which seeds: `A..B`, or one.
    #[arg(long, default_value = "0..100")]
    seeds: String,
    /// Longer lives, and more of them.
    #[arg(long)]
    long: bool,
    /// A cluster of so many nodes; 1 is a node alone.
    #[arg(long, default_value = "1")]
    nodes: u32,
    /// How many files the log of each node of a cluster may take, whatever the seed says.
    #[arg(long)]
    log_files: Option<u64>,
    /// Three nodes that become four, while replicas move and disks are lost.
    #[arg(long, conflicts_with_all = ["long", "nodes", "log_files", "bug"])]
    moving: bool,
    /// Records are on nodes only, and every other seed has no store at all; with --nodes or --moving.
    #[arg(long)]
    streaming: bool,
    /// Three nodes, and members of groups of consumers.
    #[arg(long, conflicts_with_all = ["long", "nodes", "log_files", "bug", "moving", "streaming"])]
    groups: bool,
    /// Seeds a bug; the run succeeds when some seed finds it.
    #[arg(long)]
    bug: Option<String>,
    /// Prints everything that happens.
    #[arg(long)]
    trace: bool,
}

fn parse_seeds(text: &str) -> Option<std::ops::Range<u64>> {
    match text.split_once("..") {
        Some((from, to)) => Some(from.parse().ok()?..to.parse().ok()?),
        None => text.parse().ok().map(|seed: u64| seed..seed + 1),
    }
}

/// What is told of a seed.
struct Told {
    hash: u64,
    counts: String,
    violation: Option<Violation>,
    lines: Vec<String>,
}

impl Arguments {
    /// Runs one seed as they say.
    fn run(&self, seed: u64, bug: Option<Bug>) -> Told {
        let trace = if self.trace { Trace::verbose() } else { Trace::default() };
        let outcome = if self.groups {
            run_consumers(seed, Setup::default(), trace)
        } else if self.moving && self.streaming {
            run_streaming(seed, trace)
        } else if self.moving {
            run_moving(seed, trace)
        } else if self.nodes > 1 {
            let streaming = self.streaming.then(|| seed.is_multiple_of(2));
            let setup = Setup { log_files: self.log_files, streaming, ..Setup::default() };
            run_as(seed, self.nodes, setup, trace)
        } else {
            let length = if self.long { Length::Long } else { Length::Short };
            let Outcome { hash, counts, violation, lines, .. } = run(seed, length, bug, trace);
            return Told { hash, counts: format!("{counts:?}"), violation, lines };
        };
        let cluster::run::Outcome { hash, counts, violation, lines, .. } = outcome;
        Told { hash, counts: format!("{counts:?}"), violation, lines }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(seeds) = parse_seeds(&arguments.seeds) else {
        eprintln!("--seeds takes A..B or a number");
        return ExitCode::from(2);
    };
    let bug = match arguments.bug.as_deref().map(Bug::named) {
        Some(None) => {
            eprintln!("bugs: {}", Bug::ALL.iter().map(|bug| bug.name()).collect::<Vec<_>>().join(", "));
            return ExitCode::from(2);
        }
        bug => bug.flatten(),
    };
    let mut found = 0_u64;
    for seed in seeds {
        let Told { hash, counts, violation, lines } = arguments.run(seed, bug);
        found += u64::from(violation.is_some());
        lines.iter().for_each(|line| println!("{line}"));
        let verdict = violation.map_or("ok".to_owned(), |violation| violation.to_string());
        println!("seed {seed:>6} hash {hash:016x} {counts} {verdict}");
    }
    println!("{found} seeds with a violation");
    if (found > 0) == bug.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
