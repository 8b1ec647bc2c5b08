//! Runs seeds: `varve-sim --seeds 0..100 [--long] [--nodes 3 [--log-files 24]] [--bug NAME] [--trace]`.

use std::process::ExitCode;

use clap::Parser;
use varve_sim::{
    bugs::Bug,
    cluster,
    plan::Length,
    run::{Outcome, run},
    trace::Trace,
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

fn report(outcome: &Outcome) {
    outcome.lines.iter().for_each(|line| println!("{line}"));
    let verdict = outcome.violation.as_ref().map_or("ok".to_owned(), ToString::to_string);
    println!("seed {:>6} hash {:016x} {:?} {verdict}", outcome.seed, outcome.hash, outcome.counts);
}

fn run_clusters(seeds: std::ops::Range<u64>, arguments: &Arguments) -> ExitCode {
    let mut found = 0_u64;
    for seed in seeds {
        let trace = if arguments.trace { Trace::verbose() } else { Trace::default() };
        let setup = cluster::run::Setup { log_files: arguments.log_files, ..Default::default() };
        let outcome = cluster::run::run_as(seed, arguments.nodes, setup, trace);
        found += u64::from(outcome.violation.is_some());
        outcome.lines.iter().for_each(|line| println!("{line}"));
        let verdict = outcome.violation.as_ref().map_or("ok".to_owned(), ToString::to_string);
        println!("seed {seed:>6} hash {:016x} {:?} {verdict}", outcome.hash, outcome.counts);
    }
    println!("{found} seeds with a violation");
    if found > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
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
    if arguments.nodes > 1 {
        return run_clusters(seeds, &arguments);
    }
    let length = if arguments.long { Length::Long } else { Length::Short };
    let mut found = 0_u64;
    for seed in seeds {
        let trace = if arguments.trace { Trace::verbose() } else { Trace::default() };
        let outcome = run(seed, length, bug, trace);
        found += u64::from(outcome.violation.is_some());
        report(&outcome);
    }
    println!("{found} seeds with a violation");
    if (found > 0) == bug.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
