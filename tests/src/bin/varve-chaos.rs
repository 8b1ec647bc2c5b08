//! `varve-chaos [--minutes N] [--seed S] [--out FOLDER]`: see `varve_tests::chaos`. Exit status 1 where something was wrong.

use std::{
    panic,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use varve_tests::chaos::{Wanted, report::Report, run};

const USAGE: &str = "usage: varve-chaos [--minutes N] [--seed S] [--out FOLDER]";

fn main() -> ExitCode {
    let Some(wanted) = wanted() else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    println!("chaos: {} minutes of seed {}, report in {}", wanted.minutes, wanted.seed, wanted.out.display());
    let report = panic::catch_unwind(|| run(&wanted)).unwrap_or_else(|why| {
        let text = why.downcast_ref::<String>().cloned();
        let text = text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let violations = vec![format!("the run broke off: {}", text.unwrap_or_default())];
        Report { seed: wanted.seed, minutes: wanted.minutes, violations, ..Report::default() }
    });
    println!("\n{}", report.text());
    if let Err(error) = report.write(&wanted.out) {
        eprintln!("{}: {error}", wanted.out.display());
        return ExitCode::FAILURE;
    }
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn wanted() -> Option<Wanted> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let mut wanted = Wanted { minutes: 10.0, seed: now.as_secs(), out: "target/chaos".into() };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?;
        match name.as_str() {
            "--minutes" => wanted.minutes = value.parse().ok()?,
            "--seed" => wanted.seed = value.parse().ok()?,
            "--out" => wanted.out = value.into(),
            _ => return None,
        }
    }
    Some(wanted)
}
