//! `storage status|scrub|recover`: what is damaged on a node's disk and in its bucket, repairing it, and giving it up.

mod scrub;

use std::net::SocketAddr;

use serde_json::{Value, json};
use varve_broker::{
    config::{Config, Sources},
    storage::{LockError, Loss, Storage, StorageError},
};

use crate::{
    admin,
    args::{AdminFlag, StorageCommand},
    failure::Failure,
    output::{self, Format, Table},
};

pub fn run(command: StorageCommand, sources: Sources) -> Result<(), Failure> {
    match command {
        StorageCommand::Status { store, admin, output } => {
            let config = store.load(sources)?;
            let storage = match find(admin, &config)? {
                Found::Running(node) => return status_of_running(&node, output.format()),
                Found::Stopped(storage) => storage,
            };
            let losses: Vec<Loss> = storage.losses().cloned().collect();
            show(&losses, output.format(), false)?;
            if losses.is_empty() { Ok(()) } else { Err(Failure::Reported) }
        }
        StorageCommand::Scrub { store, admin, output } => {
            let config = store.load(sources)?;
            let report = match find(admin, &config)? {
                Found::Running(node) => scrub::of_running(&node)?,
                Found::Stopped(mut storage) => scrub::of_stopped(&mut storage, &config)?,
            };
            scrub::show(&report, output.format())
        }
        StorageCommand::Recover { store, accept_loss: _, partitions, output } => {
            let config = store.load(sources)?;
            let losses = match Storage::open(&config) {
                Err(StorageError::LogLost(_)) if partitions.is_empty() => Storage::give_up_log(&config),
                opened => opened.and_then(|mut storage| storage.accept_loss(&partitions)),
            };
            let losses = losses.map_err(failed)?;
            Ok(show(&losses, output.format(), true)?)
        }
    }
}

/// A node that runs, and why that is thought.
struct Running {
    address: SocketAddr,
    /// Its data directory is in use; `None` where `--admin` says that it runs.
    taken: Option<LockError>,
}

enum Found {
    Running(Running),
    Stopped(Box<Storage>),
}

/// Whoever names an admin address means the node behind it, on whatever machine; else the data directory says whether its
/// node runs.
fn find(flag: AdminFlag, config: &Config) -> Result<Found, Failure> {
    if let Some(address) = flag.address {
        return Ok(Found::Running(Running { address, taken: None }));
    }
    match Storage::open(config) {
        Err(StorageError::Lock(taken)) => {
            Ok(Found::Running(Running { address: config.admin_listen, taken: Some(taken) }))
        }
        opened => Ok(Found::Stopped(Box::new(opened.map_err(failed)?))),
    }
}

impl Running {
    /// It does not answer there: whether it runs, or the address is another, only the user knows.
    fn is_silent(&self, error: &std::io::Error) -> Failure {
        let address = self.address;
        match &self.taken {
            Some(taken) => Failure::failed(
                format!("{taken}, and its admin address {address} does not answer: {error}"),
                "name the address with --admin, or stop the node",
            ),
            None => Failure::failed(
                format!("no node answers at {address}: {error}"),
                "name its admin.listen, or leave --admin out where the node is stopped",
            ),
        }
    }
}

fn status_of_running(node: &Running, format: Format) -> Result<(), Failure> {
    let storage = admin::storage(node.address).map_err(|error| node.is_silent(&error))?;
    let damaged = storage["damaged"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let table = || {
        let mut table = Table::new(&["PARTITION", "STATE", "CAUSE"]);
        for row in &damaged {
            table.row([text(&row["partition"]), "offline".to_owned(), text(&row["cause"])]);
        }
        let partitions = if damaged.is_empty() { "nothing is damaged\n".to_owned() } else { table.render() };
        format!("{partitions}scrub: {}\n", scrub::line(&storage["scrub"]))
    };
    let row = |row: &Value| json!({"partition": row["partition"], "cause": row["cause"], "state": "offline"});
    output::print(format, table, || damaged.iter().map(row).collect())?;
    let unrepaired = storage["scrub"]["unrepaired"].as_u64().unwrap_or(0);
    if damaged.is_empty() && unrepaired == 0 { Ok(()) } else { Err(Failure::Reported) }
}

fn failed(error: StorageError) -> Failure {
    let advice = match error {
        StorageError::Lock(_) => "stop the node first",
        StorageError::LogLost(_) => {
            "bring the log back if it is elsewhere; it is given up as a whole, without --partition"
        }
        StorageError::JoinsAnew => "start it",
        StorageError::Absent(_) => "name the directory with --data-dir",
        StorageError::Whole(_) => "see varve storage status",
        StorageError::Groundless(_) => {
            "leave it offline, name the others with --partition, or delete the topic"
        }
        _ => "nothing was given up",
    };
    Failure::failed(error, advice)
}

fn show(losses: &[Loss], format: Format, is_accepted: bool) -> std::io::Result<()> {
    output::print(format, || table(losses, is_accepted), || rows(losses, is_accepted))
}

fn table(losses: &[Loss], is_accepted: bool) -> String {
    if losses.is_empty() {
        return "nothing is damaged\n".to_owned();
    }
    let mut table = Table::new(&["PARTITION", "CAUSE", "LAST-INDEX", "LEFT", "LOST", "FILES-LOST", "STATE"]);
    for loss in losses {
        table.row([
            loss.name.clone(),
            loss.cause.clone().unwrap_or_else(|| "segment".to_owned()),
            loss.last_index.0.to_string(),
            format!("{}..{}", loss.left.start.0, loss.left.end.0),
            lost(loss),
            loss.files
                .iter()
                .map(|range| format!("{}..{}", range.start.0, range.end.0))
                .collect::<Vec<_>>()
                .join(" "),
            state(loss, is_accepted).to_owned(),
        ]);
    }
    table.render()
}

/// From where on, and to where as far as anybody knows: what was acknowledged since the newest checkpoint is counted nowhere.
fn lost(loss: &Loss) -> String {
    let known = if loss.known_end > loss.left.end { loss.known_end.0.to_string() } else { String::new() };
    if loss.cause.is_none() { "-".to_owned() } else { format!("{}..{known}", loss.left.end.0) }
}

const fn state(loss: &Loss, is_accepted: bool) -> &'static str {
    match (is_accepted, loss.is_recoverable) {
        (true, _) => "accepted",
        (false, true) => "recoverable",
        (false, false) => "groundless",
    }
}

fn rows(losses: &[Loss], is_accepted: bool) -> Value {
    let row = |loss: &Loss| {
        json!({
            "partition": loss.name,
            "group": loss.group.0,
            "cause": loss.cause,
            "last_index": loss.last_index.0,
            "log_start_offset": loss.left.start.0,
            "left_end_offset": loss.left.end.0,
            "lost_from_offset": loss.cause.as_ref().map(|_| loss.left.end.0),
            "known_end_offset": loss.known_end.0,
            "lost_files": loss.files.iter().map(|range| json!({"base": range.start.0, "end": range.end.0})).collect::<Vec<_>>(),
            "state": state(loss, is_accepted),
        })
    };
    losses.iter().map(row).collect()
}
