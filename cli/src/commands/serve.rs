//! `serve` and `dev`.

use varve_broker::config::{Config, Sources};

use crate::{args::ServerFlags, failure::Failure, output};

/// Serves until it is told to stop.
pub fn serve(flags: &ServerFlags, sources: Sources) -> Result<(), Failure> {
    run_broker(flags.load(sources)?)
}

/// As `serve`, in a directory that goes with the process.
pub fn dev(mut flags: ServerFlags, sources: Sources) -> Result<(), Failure> {
    let directory = tempfile::Builder::new()
        .prefix("varve-dev-")
        .tempdir()
        .map_err(|cause| Failure::failed(format!("temporary directory: {cause}"), "set TMPDIR to one"))?;
    let data = directory.path().display().to_string();
    flags.values.push(("data.dir".into(), data.clone()));
    let config = flags.load(sources)?;
    let address =
        config.listeners.first().map_or_else(String::new, |listener| client_address(listener.address));
    output::text(&dev_banner(&data, &address))?;
    let outcome = run_broker(config);
    directory
        .close()
        .map_err(|cause| Failure::failed(format!("{data}: {cause}"), "remove the directory by hand"))?;
    outcome
}

/// What a client on this machine connects to.
fn client_address(mut address: std::net::SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address.to_string()
}

fn dev_banner(data: &str, address: &str) -> String {
    format!(
        "Everything is in {data} and goes when this process ends.\n\
         \n  varve topic create hello -b {address}\
         \n  echo 'hello, world' | varve produce hello -b {address}\
         \n  varve consume hello -b {address} --exit\
         \n  varve topic describe-storage hello -b {address}\
         \n  kcat -b {address} -L\n\n"
    )
}

/// The one place where the command line meets the broker.
fn run_broker(_config: Config) -> Result<(), Failure> {
    Err(Failure::failed("this build serves nothing yet", "use a build with varve_broker::run wired in"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_of_dev_holds_commands_that_parse() {
        let banner = dev_banner("/tmp/x", &client_address("0.0.0.0:9092".parse().unwrap()));
        let commands: Vec<&str> =
            banner.lines().filter_map(|line| line.find("varve ").map(|at| &line[at..])).collect();
        assert_eq!(commands.len(), 4);
        for command in commands {
            let words = command.split_whitespace();
            <crate::args::Cli as clap::Parser>::try_parse_from(words).unwrap();
            assert!(command.contains("127.0.0.1:9092"));
        }
    }
}
