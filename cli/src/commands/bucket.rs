//! `bucket verify`, and `snapshot verify --deep`: whether the object store holds all that it should. Of it only reads and
//! listings are asked.

use std::{fmt::Write as _, sync::Arc};

use serde_json::{Value, json};
use tokio::{runtime::Handle, task::JoinSet};
use varve_broker::config::Sources;
use varve_common::PartitionIndex;
use varve_compactor::{
    history::{History, HistoryError},
    verify::{Depth, Finding, Report, Severity, Verifier, opened},
};
use varve_replica::metadata::Topic;

use super::{archive::Beside, snapshot::open_store};
use crate::{
    args::BucketCommand,
    failure::Failure,
    limits::ARCHIVE_PARTITIONS_AT_ONCE,
    output::{self, OutputFlags, Table, human_bytes},
    progress::Bytes,
};

/// How many findings a table shows.
const SHOWN_MAX: usize = 100;

pub fn run(command: BucketCommand, sources: Sources) -> Result<(), Failure> {
    let BucketCommand::Verify { topic, deep, store, output } = command;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (store, prefix) = open_store(&store.load(sources)?)?;
        let history = match opened(store, &prefix).await {
            Ok(history) => history,
            Err(report) => return tell(&report, output),
        };
        let depth = if deep { Depth::Content } else { Depth::Names };
        let bar = Arc::new(Bytes::new("verifying"));
        let spawn = Arc::new(Beside(Handle::current()));
        let verifier = Verifier::new(Arc::clone(&history), depth, spawn, Arc::clone(&bar) as _);
        let report = verify(&verifier, topic.as_deref()).await;
        bar.clear();
        tell(&report?, output)
    })
}

async fn verify(verifier: &Verifier, only: Option<&str>) -> Result<Report, Failure> {
    let history = verifier.history();
    let mut report = Report::default();
    let mut waiting = match only {
        None => {
            report.add(verifier.around().await);
            history.partitions().map(|(topic, number, _)| (Arc::clone(topic), number)).collect::<Vec<_>>()
        }
        Some(name) => partitions(history, name)?,
    };
    waiting.reverse();
    let mut running = JoinSet::new();
    while !waiting.is_empty() || !running.is_empty() {
        while running.len() < ARCHIVE_PARTITIONS_AT_ONCE
            && let Some((topic, partition)) = waiting.pop()
        {
            let verifier = verifier.clone();
            running.spawn(async move { verifier.partition(&topic, partition).await });
        }
        if let Some(one) = running.join_next().await {
            report.add(one.map_err(|why| Failure::failed(why, "report this"))?);
        }
    }
    report.findings.sort_unstable();
    Ok(report)
}

fn partitions(history: &History, name: &str) -> Result<Vec<(Arc<Topic>, PartitionIndex)>, Failure> {
    let topic = history.topic(name).map_err(|error: HistoryError| super::archive::failed(error))?;
    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    Ok((0..count).map(|number| (Arc::clone(topic), PartitionIndex(number))).collect())
}

/// Prints a report, and ends as bad as what is in it.
pub fn tell(report: &Report, output: OutputFlags) -> Result<(), Failure> {
    output::print(output.format(), || text(report), || to_json(report))?;
    match report.severity() {
        None | Some(Severity::Notice) => Ok(()),
        Some(Severity::Unread) => Err(Failure::Unread),
        Some(Severity::Damage) => Err(Failure::Reported),
    }
}

const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Notice => "notice",
        Severity::Unread => "unread",
        Severity::Damage => "damage",
    }
}

fn count(report: &Report, severity: Severity) -> usize {
    report.findings.iter().filter(|finding| finding.kind.severity() == severity).count()
}

fn text(report: &Report) -> String {
    let mut table = Table::new(&["", "WHAT", "PARTITION", "OBJECT", "WHY"]);
    let mut findings: Vec<&Finding> = report.findings.iter().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.kind.severity()));
    for finding in findings.iter().take(SHOWN_MAX) {
        let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let (severity, kind) = (word(finding.kind.severity()), finding.kind.name());
        table.row([
            severity.to_owned(),
            kind.to_owned(),
            dash(&finding.of),
            dash(&finding.key),
            finding.what.clone(),
        ]);
    }
    let mut text = if findings.is_empty() { String::new() } else { table.render() };
    if findings.len() > SHOWN_MAX {
        let _ = writeln!(text, "and {} more: see them with --json", findings.len() - SHOWN_MAX);
    }
    let looked = &report.looked;
    let _ = writeln!(
        text,
        "{} snapshots, {} nodes, {} segments ({}) named, {} of them read; {} objects listed",
        looked.snapshots,
        looked.nodes,
        looked.segments,
        human_bytes(looked.segment_bytes),
        looked.segments_read,
        looked.listed
    );
    let [damaged, unread, notices] =
        [Severity::Damage, Severity::Unread, Severity::Notice].map(|severity| count(report, severity));
    let _ = writeln!(text, "{damaged} damaged, {unread} could not be read, {notices} notices");
    text
}

fn to_json(report: &Report) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "severity": word(finding.kind.severity()),
            "kind": finding.kind.name(),
            "partition": finding.of,
            "key": finding.key,
            "what": finding.what,
        })
    };
    let looked = &report.looked;
    json!({
        "ok": report.severity().is_none_or(|worst| worst == Severity::Notice),
        "damaged": count(report, Severity::Damage),
        "unread": count(report, Severity::Unread),
        "notices": count(report, Severity::Notice),
        "snapshots": looked.snapshots,
        "nodes": looked.nodes,
        "segments": looked.segments,
        "segment_bytes": looked.segment_bytes,
        "segments_read": looked.segments_read,
        "objects_listed": looked.listed,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}
