//! What the commands do, one file each.

pub mod archive;
pub mod bucket;
pub mod cluster;
pub mod config;
pub mod consume;
pub mod dev;
pub mod docs;
pub mod doctor;
pub mod group;
mod import;
pub mod node_storage;
pub mod produce;
pub mod restore;
pub mod serve;
pub mod snapshot;
pub mod storage;
pub mod topic;
mod trim;

use std::time::{SystemTime, UNIX_EPOCH};

use clap::CommandFactory as _;
use serde_json::json;
use varve_broker::config::Sources;

use crate::{
    args::{BrokerFlags, Cli, Command, Shell},
    client::Client,
    failure::Failure,
    output,
};

/// Where a broker is, if nobody says.
const BROKER_DEFAULT: &str = "127.0.0.1:9092";

/// Runs one command.
pub fn run(cli: Cli, sources: Sources) -> Result<(), Failure> {
    match cli.command {
        None => serve::serve(&cli.server, sources),
        Some(Command::Serve(flags)) => serve::serve(&flags, sources),
        Some(Command::Dev(flags)) => dev::run(flags, sources),
        Some(Command::DevNode(flags)) => dev::node(&flags, sources),
        Some(Command::Topic(command)) => topic::run(command, &sources),
        Some(Command::Group(command)) => group::run(command, &sources),
        Some(Command::Cluster(command)) => cluster::run(command, &sources),
        Some(Command::Produce(flags)) => produce::run(flags, &sources),
        Some(Command::Consume(flags)) => consume::run(&flags, &sources),
        Some(Command::Snapshot(command)) => snapshot::run(command, sources),
        Some(Command::Archive(command)) => archive::run(command, sources),
        Some(Command::Bucket(command)) => bucket::run(command, sources),
        Some(Command::Restore(flags)) => restore::run(&flags, sources),
        Some(Command::Doctor(command)) => doctor::run(&command, sources),
        Some(Command::Storage(command)) => node_storage::run(command, sources),
        Some(Command::Config(command)) => config::run(command, sources),
        Some(Command::Version(flags)) => version(flags),
        Some(Command::Completion { shell }) => completion(shell),
        Some(Command::Man { command }) => man(&command),
        Some(Command::Docs { page }) => Ok(output::text(&docs::page(page))?),
    }
}

/// A client of the brokers that flags or environment name.
fn client(flags: &BrokerFlags, sources: &Sources) -> Client {
    Client::new(brokers(flags, sources))
}

fn brokers(flags: &BrokerFlags, sources: &Sources) -> Vec<String> {
    let named = |text: &str| -> Vec<String> {
        text.split(',').map(|seed| seed.trim().to_owned()).filter(|seed| !seed.is_empty()).collect()
    };
    let flagged: Vec<String> = flags.brokers.iter().flat_map(|text| named(text)).collect();
    if !flagged.is_empty() {
        return flagged;
    }
    let told = sources.environment.get("VARVE_BROKERS").map(|text| named(text)).unwrap_or_default();
    if told.is_empty() { vec![BROKER_DEFAULT.to_owned()] } else { told }
}

/// The wall clock: stamps of records, ages of snapshots, relative times of `consume`.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

fn version(flags: output::OutputFlags) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    output::print(
        flags.format(),
        || format!("varve {version} ({target})\n"),
        || json!({"name": "varve", "version": version, "target": target}),
    )?;
    Ok(())
}

fn completion(shell: Shell) -> Result<(), Failure> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::Powershell => clap_complete::Shell::PowerShell,
    };
    Ok(output::text(&completion_script(shell))?)
}

/// The script that makes `shell` complete `varve`.
pub fn completion_script(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "varve", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn man(path: &[String]) -> Result<(), Failure> {
    Ok(output::text(&man_page(path)?)?)
}

fn man_page(path: &[String]) -> Result<String, Failure> {
    let mut command = Cli::command();
    command.build();
    for name in path {
        let found = command.find_subcommand(name).cloned();
        command = found.ok_or_else(|| Failure::usage(format!("no command {}", path.join(" "))))?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_come_from_the_flag_then_the_environment_then_loopback() {
        let mut sources = Sources::default();
        let none = BrokerFlags { brokers: Vec::new() };
        assert_eq!(brokers(&none, &sources), ["127.0.0.1:9092"]);
        sources.environment.insert("VARVE_BROKERS".into(), "a:1, b:2".into());
        assert_eq!(brokers(&none, &sources), ["a:1", "b:2"]);
        assert_eq!(brokers(&BrokerFlags { brokers: vec!["c:3".into()] }, &sources), ["c:3"]);
    }

    #[test]
    fn every_shell_gets_a_script() {
        use clap_complete::Shell as Of;
        for shell in [Of::Bash, Of::Zsh, Of::Fish, Of::PowerShell] {
            let script = completion_script(shell);
            assert!(script.contains("describe-storage"), "{shell}");
        }
    }

    #[test]
    fn the_manual_page_renders() {
        let path = ["topic".to_owned(), "create".to_owned()];
        for page in [man_page(&[]).unwrap(), man_page(&path).unwrap()] {
            assert!(page.contains(".SH SYNOPSIS"), "{page}");
        }
        assert_eq!(man_page(&["bogus".into()]).unwrap_err().exit_code(), 2);
    }
}
