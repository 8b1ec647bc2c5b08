//! `archive ls|cat|export`: history from the object store, without a broker. Of that store only reads and listings are asked.

mod cat;
mod export;
mod json_lines;
mod ls;

use std::sync::Arc;

use tokio::runtime::Handle;
use varve_broker::config::Sources;
use varve_common::{PartitionIndex, clock::BoxFuture};
use varve_compactor::history::{History, HistoryError, PartitionHistory, ReadRecordsError, Stop};
use varve_replica::metadata::Topic;
use varve_tiering::Spawn;

use super::snapshot::open_store;
use crate::{
    args::{ArchiveCommand, StoreFlags},
    failure::Failure,
};

pub fn run(command: ArchiveCommand, sources: Sources) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match command {
            ArchiveCommand::Ls { topic, store, output } => {
                ls::run(&open(&store, sources).await?, topic.as_deref(), output).await
            }
            ArchiveCommand::Export(flags) => {
                let config = flags.store.load(sources.clone())?;
                let (store, order) = (flags.store.clone(), export::Order::parse(flags)?);
                export::run(&open(&store, sources).await?, order, &config).await
            }
            ArchiveCommand::Cat(flags) => {
                // What is wrong with the command line is told before anything is read.
                let order = cat::Order::parse(&flags)?;
                cat::run(&open(&flags.store, sources).await?, order).await
            }
        }
    })
}

/// Reads ahead beside the command.
pub struct Beside(pub Handle);

impl Spawn for Beside {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }
}

/// The history that the flags name; newer metadata that is damaged is told.
pub async fn open(store: &StoreFlags, sources: Sources) -> Result<Arc<History>, Failure> {
    let (store, prefix) = open_store(&store.load(sources)?)?;
    let history = History::open(store, &prefix).await.map_err(failed)?;
    for damaged in &history.metadata().damaged {
        warn(&format!("{}: {}; the one before it is used", damaged.candidate.key, damaged.damage));
    }
    Ok(Arc::new(history))
}

/// A partition's history; what is wrong with it, and does not keep it from being read, is told.
pub async fn partition(
    history: &History,
    topic: &Topic,
    partition: PartitionIndex,
) -> Result<PartitionHistory, Failure> {
    let found = history.partition(topic, partition).await.map_err(failed)?;
    for trouble in troubles(&found) {
        warn(&format!("{}-{}: {trouble}", topic.name, partition.0));
    }
    Ok(found)
}

/// What is wrong with a partition that can be read all the same.
pub fn troubles(found: &PartitionHistory) -> Vec<String> {
    let mut troubles = Vec::new();
    for damaged in &found.damaged {
        troubles.push(format!("{}: {}; the one before it is used", damaged.candidate.key, damaged.damage));
    }
    for (key, trouble) in &found.tail.passed {
        troubles.push(format!("{key}: {trouble}; another of the same range is used"));
    }
    match &found.tail.stop {
        Stop::End => {}
        Stop::Gap { end, next } => {
            troubles.push(format!("nothing holds {end} to {next}: what is behind is not read"))
        }
        Stop::Fork { base, keys } => {
            let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
            troubles.push(format!("what begins at {base} is there in two versions: {}", keys.join(", ")));
        }
        Stop::Broken { key, trouble } => {
            troubles.push(format!("{key}: {trouble}: it and what is behind are not read"))
        }
        Stop::Stray(key) => {
            troubles.push(format!("{key} is of another lineage: it and what is behind are not read"))
        }
    }
    let (end, known) = (found.end(), found.known_end());
    if known > end {
        troubles
            .push(format!("records {end} to {known} were on nodes only, and are not in the object store"));
    }
    troubles
}

pub fn warn(what: &str) {
    eprintln!("warning: {what}");
}

pub fn failed(error: HistoryError) -> Failure {
    let advice = match &error {
        HistoryError::Nobody => "name the store of a cluster with --data-dir or --object-store",
        HistoryError::NoTopic(_) | HistoryError::NoPartition { .. } => "see `varve archive ls`",
        error if error.is_damage() => "see `varve bucket verify`",
        _ => "try again when the object store answers, and check --object-store and its credentials",
    };
    Failure::failed(error, advice)
}

/// Records that cannot be read.
pub fn unreadable(error: ReadRecordsError) -> Failure {
    Failure::failed(error, "see `varve bucket verify --deep`")
}
