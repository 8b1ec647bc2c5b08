//! `cargo xtask test`: the gate, one table of steps, in the order that fails soonest.

use std::{path::PathBuf, time::Instant};

use crate::{
    blackbox, chaos, readme, setup,
    shell::{self, Failure, Outcome, bash, command, run as run_command},
    tidy,
};

/// Samples of each message and version.
const FRAME_SAMPLES: &str = "20";

/// One step: its name, what it does, and the code.
struct Step {
    name: &'static str,
    about: &'static str,
    run: fn() -> Outcome,
}

const STEPS: &[Step] = &[
    Step { name: "format", about: "rustfmt finds nothing to change", run: format },
    Step { name: "tidy", about: "sizes, prose, arrows, words, generated documents", run: tidy::run },
    Step {
        name: "setup",
        about: "the pinned tools and clients of the tests are installed",
        run: || setup::run(&[]),
    },
    Step { name: "deny", about: "licences, sources and the walls of deny.toml", run: deny },
    Step { name: "clippy", about: "no warning in any target", run: clippy },
    Step { name: "tests", about: "every crate's tests but the black-box ones", run: tests },
    Step { name: "release", about: "the release binary is built", run: release },
    Step {
        name: "documents",
        about: "the generated documents are what the binary prints",
        run: tidy::generated::check,
    },
    Step {
        name: "blackbox",
        about: "real processes and real clients against the release binary",
        run: blackbox,
    },
    Step {
        name: "chaos",
        about: "a minute of faults on three real nodes, by a fixed seed",
        run: chaos::gate,
    },
    Step { name: "readme", about: "every command of the README, word for word", run: readme::run },
];

/// Runs the steps that `arguments` leave, stops at the first failure and says what each took.
pub fn run(arguments: &[String]) -> Outcome {
    if arguments.iter().any(|argument| argument == "--list") {
        STEPS.iter().for_each(|step| println!("{:10} {}", step.name, step.about));
        return Ok(());
    }
    let mut timings = Vec::new();
    for step in select(arguments)? {
        println!("\n==> {}: {}", step.name, step.about);
        let begin = Instant::now();
        let outcome = (step.run)();
        let seconds = begin.elapsed().as_secs_f64();
        timings.push(format!("{} {seconds:.0} s", step.name));
        if let Err(failure) = outcome {
            return Err(Failure(format!("==> {} FAILED after {seconds:.1} s: {failure}", step.name)));
        }
        println!("<== {}: passed in {seconds:.1} s", step.name);
    }
    println!("\ngate passed: {}", timings.join(", "));
    Ok(())
}

fn select(arguments: &[String]) -> Outcome<Vec<&'static Step>> {
    let (mut skipped, mut only) = (Vec::new(), Vec::new());
    for pair in arguments.chunks(2) {
        match pair {
            [flag, name] if flag == "--skip" => skipped.push(known(name)?),
            [flag, name] if flag == "--only" => only.push(known(name)?),
            _ => return Err(Failure(format!("unknown argument {:?}; try --list", pair[0]))),
        }
    }
    let wanted =
        |step: &&Step| (only.is_empty() || only.contains(&step.name)) && !skipped.contains(&step.name);
    Ok(STEPS.iter().filter(wanted).collect())
}

fn known(name: &str) -> Outcome<&'static str> {
    let step = STEPS.iter().find(|step| step.name == name);
    step.map(|step| step.name).ok_or_else(|| Failure(format!("no step is named {name}; try --list")))
}

fn cargo(arguments: &[&str]) -> Outcome {
    run_command(command("cargo").args(arguments))
}

fn format() -> Outcome {
    cargo(&["fmt", "--all", "--check"])
}

/// Twice: the walls of the clippy.toml files bind what ships; tests may set up files, wait, and
/// hold long tables, but nothing else is forgiven them.
fn clippy() -> Outcome {
    cargo(&["clippy", "--workspace", "--lib", "--bins", "--locked", "--", "-D", "warnings"])?;
    let free = [
        "-A",
        "clippy::disallowed_methods",
        "-A",
        "clippy::disallowed_types",
        "-A",
        "clippy::too_many_lines",
    ];
    let everything = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    cargo(&[everything.as_slice(), &free].concat())
}

fn deny() -> Outcome {
    let tool = shell::cache().join("bin/cargo-deny");
    if !tool.exists() && !shell::in_ci() {
        println!(
            "skipped: cargo-deny is not installed; `cargo xtask setup cargo-deny` does it (200 CPU-seconds)"
        );
        return Ok(());
    }
    cargo(&["fetch", "--locked"])?;
    run_command(command(tool).args(["--offline", "--workspace", "check", "bans", "licenses", "sources"]))
}

fn tests() -> Outcome {
    let mut test = command("cargo");
    test.args(["test", "--workspace", "--exclude", "varve-tests", "--locked", "--no-fail-fast"]);
    if let Some(frames) = frames()? {
        test.env("VARVE_KAFKA_FRAMES", frames);
    }
    run_command(&mut test)
}

/// Draws frames from Kafka's own schemas for the fixture test of `protocol`; the script stands beside the checkout.
fn frames() -> Outcome<Option<PathBuf>> {
    let script = shell::root().join("../shared/tools/kafka_frames.py");
    let schemas = shell::cache().join("schemas/common/message");
    if !script.exists() || !schemas.exists() {
        println!("no frames are drawn: {} or {} is missing", script.display(), schemas.display());
        return Ok(None);
    }
    let frames = shell::target().join("kafka-frames.bin");
    run_command(command("python3").arg(script).arg(schemas).arg(&frames).arg(FRAME_SAMPLES))?;
    Ok(Some(frames))
}

fn release() -> Outcome {
    cargo(&["build", "--release", "--locked", "--package", "varve-cli"])
}

fn blackbox() -> Outcome {
    blackbox::run()?;
    run_command(&mut bash(
        "! git status --porcelain | grep . || { echo 'the tests left files in the checkout'; exit 1; }",
    ))
    .or_else(|failure| if shell::in_ci() { Err(failure) } else { Ok(()) })
}
