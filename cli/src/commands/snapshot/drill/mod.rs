//! `snapshot drill`: a cluster is restored from the bucket into a scratch directory, started, read from end to end and held
//! against the bucket.
//!
//! ```text
//!  survey     the bucket: what there is, what of it is damaged
//!  copy       into a store in the scratch directory, every object held against its checksum; restore there
//!  start      a broker on loopback
//!  compare    every partition by count and SHA-256, what groups have committed, topics and their configurations
//!  survey     once more: a cluster that lives goes on meanwhile, and what differs is right as of either look
//! ```
//! Of the bucket only reads and listings are asked. The scratch goes, however the drill ends, but for what no process survives (SIGKILL, a crash).

mod broker;
mod compare;
mod expected;
mod report;
mod tally;
mod trial;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use varve_broker::{
    config::{Config, Sources},
    restore::{self, Bucket, Options, RestoreError},
};
use varve_common::{NodeId, PartitionIndex};

use self::{broker::Broker, compare::Comparison, expected::Expected, report::Report};
use super::open_store;
use crate::{
    args::{Drill, ServerFlags},
    commands::restore::Bar,
    failure::Failure,
    output,
    signals::Signals,
};

/// How long writes that were begun have to end before the scratch is removed.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(flags: &Drill, sources: Sources) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let config = flags.store.load(sources.clone())?;
    // Before there is anything that would stay.
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let scratch = scratch(flags)?;
    let done = runtime.block_on(async {
        tokio::select! {
            done = drill(flags, &config, &sources, &scratch) => done,
            signal = signals.come() => Err(Failure::Ended(signal)),
        }
    });
    // What was on its way to the disk is not written behind the removal.
    runtime.shutdown_timeout(PATIENCE);
    let root = scratch.path().display().to_string();
    scratch.close().map_err(|why| Failure::failed(format!("{root}: {why}"), "remove it by hand"))?;
    let report = done?;
    output::print(flags.output.format(), || report.text(), || report.json())?;
    report.verdict()
}

/// A directory of its own, also where somebody said which.
fn scratch(flags: &Drill) -> Result<TempDir, Failure> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("varve-drill-");
    let made = match &flags.scratch {
        Some(parent) => std::fs::create_dir_all(parent).and_then(|()| builder.tempdir_in(parent)),
        None => builder.tempdir(),
    };
    made.map_err(|why| Failure::failed(format!("scratch directory: {why}"), "name one with --scratch"))
}

/// Which partitions: all of groups' offsets, and of the others what was asked for.
fn is_chosen(flags: &Drill, topic: &str, partition: PartitionIndex) -> bool {
    let is_of = flags.topics.is_empty() || flags.topics.iter().any(|name| name == topic);
    is_of && flags.partitions.holds(partition.0)
}

async fn drill(
    flags: &Drill,
    config: &Config,
    sources: &Sources,
    scratch: &TempDir,
) -> Result<Report, Failure> {
    let began = Instant::now();
    let (store, prefix) = open_store(config)?;
    let bucket = Bucket { store, prefix };
    let mut report = Report::default();
    let Some(first) = look(&bucket, &mut report).await? else { return Ok(report) };
    first.check_asked(flags)?;
    report.begin(&first.survey);
    report.durations.survey = began.elapsed();
    let data = scratch.path().join("data");
    let target = target(data.clone())?;
    let groups = varve_replica::coordinator::TOPIC;
    let chosen = |topic: &str, at: PartitionIndex| topic == groups || is_chosen(flags, topic, at);
    let source = (bucket.clone(), first.survey.offsets_partitions());
    let copied = match trial::rehearse(&target, source, &chosen).await? {
        Ok(copied) => copied,
        Err((kind, why)) => {
            report.problem(kind, "", why);
            return Ok(report);
        }
    };
    report.durations.restore = began.elapsed() - report.durations.survey;
    let mut broker = Broker::start(&data, scratch.path(), sources)?;
    let seeds = broker.ready().await?;
    report.durations.rto = began.elapsed();
    let chosen: Vec<_> =
        copied.partitions.into_iter().filter(|at| is_chosen(flags, &at.topic, at.partition)).collect();
    let Some(second) = look(&bucket, &mut report).await? else { return Ok(report) };
    report.look_again(&first.survey, &second.survey);
    let mut comparison = Comparison { first, second, seeds, report };
    comparison.records(&chosen).await?;
    comparison.state(&chosen).await?;
    let mut report = comparison.report;
    drop(broker);
    report.durations.read = began.elapsed() - report.durations.rto;
    Ok(report)
}

/// Reads what the bucket holds. Damage that keeps all of it from being restored is a result, not an error.
async fn look(bucket: &Bucket, report: &mut Report) -> Result<Option<Expected>, Failure> {
    // As many partitions of the groups' own topic as its groups say: nobody says what the cluster was given.
    let options = Options::default();
    let survey = restore::survey(bucket, &options, crate::commands::now_ms(), &Bar::default()).await;
    let whole = survey.and_then(|survey| match survey.unaccepted() {
        lost if lost.is_empty() => Ok(survey),
        lost => Err(RestoreError::Lost(lost)),
    });
    let expected = match whole {
        Ok(survey) => Expected::new(bucket, survey).await.map_err(RestoreError::from),
        Err(why) => Err(why),
    };
    match expected {
        Ok(expected) => Ok(Some(expected)),
        Err(why) => {
            let (kind, why) = trial::judge(why)?;
            report.problem(kind, "", why);
            Ok(None)
        }
    }
}

/// A node alone, with its store in its directory. Nothing of what configures this machine's broker is its.
fn target(data: PathBuf) -> Result<Config, Failure> {
    let values = [("data.dir", data.display().to_string()), ("insecure", "true".to_owned())];
    let values = values.into_iter().map(|(key, text)| (key.to_owned(), text)).collect();
    let mut config = ServerFlags { file: None, values }.load(Sources::default())?;
    config.node = NodeId::new(1).expect("1 is a node's number");
    Ok(config)
}
