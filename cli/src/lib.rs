//! What people type: the process that serves, and the client commands.
//!
//! ```text
//!  arguments -> args (clap) -> commands/* -> varve_broker::run          serve, dev
//!                                         -> client (blocking sockets)  topic, produce, consume
//!                                         -> varve_objects (read only)  snapshot
//!                                         -> varve_compactor (the same) archive, bucket
//!                                         -> varve_objects              doctor: below probe/, and removed again
//!                                         -> tables of the broker       config, docs, version
//! ```
//! - [`args`] is the whole grammar; `docs/cli.md`, the man page and completions are made from it. Flags of `serve` come
//!   from the table of keys in `broker::config`, so that no flag is without a key.
//! - `client` speaks to any Kafka broker, not only to ours: it negotiates versions and names topics by name.
//! - `record`, `pattern` and `place` are the words of `produce` and `consume`: JSON lines, `-f`, `-o`.
//! - `failure` is what a command ends with. Exit codes: 0 done, 1 it went wrong or something is damaged, 2 the
//!   command line is wrong, 3 what was to be verified could not be read. An error is one line on standard error and says who acts.
//!
//! It touches the terminal, sockets to brokers, and through `objects` the bucket, where only `doctor` writes. The
//! environment is read by `broker::config`. What it prints with `-o json` keeps its field names.

mod admin;
mod args;
mod base64;
mod client;
mod commands;
mod failure;
mod limits;
mod output;
mod pattern;
mod place;
mod progress;
mod record;
mod signals;

use std::process::ExitCode;

use clap::Parser as _;
use varve_broker::config::Sources;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match commands::run(cli, Sources::of_process()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
