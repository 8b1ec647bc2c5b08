//! The project's own tasks, run as `cargo xtask <task>`: the gate and what it stands on.
//!
//! - `test`: the README's test command and the whole gate: [`setup`], formatting, lints, [`tidy`], dependency walls, tests, the release
//!   binary, black-box tests against it, and every command that the README shows ([`readme`]). [`gate`] is its table of steps.
//! - `setup`: installs the pinned tools and clients that tests drive, into `~/.cache/varve-tools`; quick when they are there.
//! - `tidy`: what no other tool checks: sizes, prose, arrows between rooms, forbidden words, stale generated documents.
//! - `chaos`: three release binaries under load, faults drawn from a seed, every replica read and checked at the end.
//! - `librdkafka`: librdkafka's own test suite, as far as `tests/librdkafka.toml` lists it, against the release binary.
//! - `docs`: writes the generated documents afresh from the binary.
//!
//! It depends on nothing but the standard library, so that it builds in seconds on a machine that has nothing else.
//! It owns no rule twice: what clippy, rustfmt or cargo-deny can check is theirs.

mod blackbox;
mod chaos;
mod gate;
mod librdkafka;
mod readme;
mod setup;
mod shell;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <task>
  test [--skip STEP]... [--only STEP]...   the whole gate; `cargo xtask test --list` names its steps
  setup [TOOL]...                          install the pinned tools of the tests (all, or those named)
  tidy                                     sizes, prose, arrows, words, generated documents
  docs                                     write docs/config.md, docs/metrics.md, docs/api-versions.md from the binary
  readme                                   run the README's commands, word for word
  chaos [--minutes N] [--seed S] [--out FOLDER]   three real nodes, faults by a seed, checkers, and a report
  librdkafka [--gate] [TEST]...            librdkafka's own tests against real nodes (tests/librdkafka.toml)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let outcome = match arguments.first().map(String::as_str) {
        Some("test") => gate::run(rest),
        Some("setup") => setup::run(rest),
        Some("tidy") => tidy::run(),
        Some("docs") => tidy::generated::write_all(),
        Some("readme") => readme::run(),
        Some("chaos") => chaos::run(rest),
        Some("librdkafka") => librdkafka::run(rest),
        _ => Err(shell::Failure(USAGE.to_owned())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
