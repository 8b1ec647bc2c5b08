//! `cargo xtask chaos`: three real nodes, and whatever goes wrong, by a seed (`tests/src/chaos.rs`).

use crate::shell::{self, Failure, Outcome, command, run as run_command};

/// What the gate runs: the same each time, so that a failure is the commit's.
const GATE: [&str; 4] = ["--minutes", "1", "--seed", "20261122"];

/// Builds what is missing and runs it; `arguments` are its own: `--minutes N --seed S --out FOLDER`.
pub fn run(arguments: &[String]) -> Outcome {
    if std::env::var_os("VARVE_BIN").is_none() {
        run_command(command("cargo").args(["build", "--release", "--locked", "--package", "varve-cli"]))?;
    }
    let mut chaos = command("cargo");
    chaos.args(["run", "--locked", "--package", "varve-tests", "--bin", "varve-chaos", "--"]);
    if !arguments.iter().any(|argument| argument == "--out") {
        chaos.arg("--out").arg(shell::target().join("chaos"));
    }
    chaos.args(arguments).env("VARVE_BIN", shell::varve()).env("VARVE_TOOLS", shell::cache());
    run_command(&mut chaos).map_err(|Failure(why)| {
        Failure(format!("{why}: something was wrong, or the run broke off; the report says what"))
    })
}

/// A short one of a fixed seed.
pub fn gate() -> Outcome {
    run(&GATE.map(str::to_owned))
}
