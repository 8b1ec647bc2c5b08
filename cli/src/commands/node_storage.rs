//! `storage status|recover`: what is damaged on the disk of a stopped node, and giving it up.

use serde_json::{Value, json};
use varve_broker::{
    config::Sources,
    storage::{Loss, Storage, StorageError},
};

use crate::{
    args::StorageCommand,
    failure::Failure,
    output::{self, Format, Table},
};

pub fn run(command: StorageCommand, sources: Sources) -> Result<(), Failure> {
    match command {
        StorageCommand::Status { store, output } => {
            let storage = Storage::open(&store.load(sources)?).map_err(failed)?;
            let losses: Vec<Loss> = storage.losses().cloned().collect();
            show(&losses, output.format(), false)?;
            if losses.is_empty() { Ok(()) } else { Err(Failure::Reported) }
        }
        StorageCommand::Recover { store, accept_loss: _, partitions, output } => {
            let mut storage = Storage::open(&store.load(sources)?).map_err(failed)?;
            let losses = storage.accept_loss(&partitions).map_err(failed)?;
            Ok(show(&losses, output.format(), true)?)
        }
    }
}

fn failed(error: StorageError) -> Failure {
    let advice = match error {
        StorageError::Lock(_) => "stop the node first",
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
