//! `serve`.

use varve_broker::config::{Config, Sources};

use crate::{args::ServerFlags, failure::Failure};

/// Serves until it is told to stop.
pub fn serve(flags: &ServerFlags, sources: Sources) -> Result<(), Failure> {
    run_broker(flags.load(sources)?)
}

/// The one place where the command line meets the broker.
pub(super) fn run_broker(config: Config) -> Result<(), Failure> {
    varve_broker::run(config).map_err(|cause| Failure::failed(cause.to_string(), "see the log above"))
}
