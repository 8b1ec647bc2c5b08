//! `cargo xtask librdkafka`: librdkafka's own test suite against real nodes (`tests/src/librdkafka.rs`).

use crate::{
    setup,
    shell::{self, Outcome, command, run as run_command},
};

/// Builds what is missing and runs it; `arguments` are its own: `[--gate] [TEST]...`.
pub fn run(arguments: &[String]) -> Outcome {
    setup::run(&["librdkafka".to_owned(), "kafka".to_owned()])?;
    if std::env::var_os("VARVE_BIN").is_none() {
        run_command(command("cargo").args(["build", "--release", "--locked", "--package", "varve-cli"]))?;
    }
    let mut suite = command("cargo");
    suite.args(["run", "--locked", "--package", "varve-tests", "--bin", "varve-librdkafka", "--"]);
    suite.args(arguments).env("VARVE_BIN", shell::varve()).env("VARVE_TOOLS", shell::cache());
    run_command(&mut suite)
}
