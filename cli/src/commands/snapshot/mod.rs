//! `snapshot list|show|verify|drill`: the bucket read directly, without a broker, and never written.

mod catalog;
mod deep;
mod drill;
mod read_only;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use serde_json::{Value, json};
use varve_broker::config::Sources;
use varve_formats::checkpoint::CheckpointHeader;
use varve_snapshot::verify::{Counts, Report, ReportError};

use self::catalog::{Catalog, Snapshot};
use crate::{
    args::{SnapshotCommand, StoreFlags},
    failure::Failure,
    output::{self, Format, OutputFlags, Table, human_age, human_bytes},
};

pub(super) use self::catalog::{open_other, open_store};

pub fn run(command: SnapshotCommand, sources: Sources) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (store, output) = match &command {
        SnapshotCommand::Drill(flags) => return drill::run(flags, sources),
        SnapshotCommand::List { store, output, .. }
        | SnapshotCommand::Show { store, output, .. }
        | SnapshotCommand::Verify { store, output, .. } => (store, *output),
    };
    runtime.block_on(async {
        if let SnapshotCommand::Verify { id, deep: true, .. } = &command {
            return deep::run(&store.load(sources)?, id.as_deref(), output).await;
        }
        let catalog = open(store, sources).await?;
        match &command {
            SnapshotCommand::List { topic, .. } => list(&catalog, topic.as_deref(), output).await,
            SnapshotCommand::Show { id, .. } => show(&catalog, id, output).await,
            SnapshotCommand::Drill(_) => unreachable!("it was run above"),
            SnapshotCommand::Verify { id, .. } => verify(&catalog, id.as_deref(), output.format()).await,
        }
    })
}

async fn open(store: &StoreFlags, sources: Sources) -> Result<Catalog, Failure> {
    Catalog::open(&store.load(sources)?).await
}

/// A snapshot with what it says of itself, where that can be read.
struct Row {
    snapshot: Snapshot,
    header: Option<CheckpointHeader>,
}

impl Row {
    /// By name, else by id; `(metadata)` for the metadata group.
    fn topic(&self) -> String {
        match (&self.header, self.snapshot.partition) {
            (_, None) => "(metadata)".to_owned(),
            (Some(header), Some(_)) => header.identity.topic.clone(),
            (None, Some((id, _))) => id.to_string(),
        }
    }

    fn is_of(&self, topic: &str) -> bool {
        self.snapshot.partition.is_some_and(|(id, _)| id.to_string() == topic) || self.topic() == topic
    }

    fn partition(&self) -> Option<i32> {
        self.snapshot.partition.map(|(_, partition)| partition)
    }

    fn age_ms(&self, now_ms: i64) -> Option<i64> {
        self.header.as_ref().map(|header| now_ms - header.append_time_ms)
    }

    fn cells(&self, now_ms: i64) -> [String; 8] {
        let dash = || "-".to_owned();
        let state = |header: &CheckpointHeader| format!("{}@{}", header.state.index.0, header.state.offset.0);
        [
            self.snapshot.uid(),
            self.topic(),
            self.partition().map_or_else(dash, |partition| partition.to_string()),
            self.snapshot.incarnation.to_string(),
            self.header.as_ref().map_or_else(|| "unreadable".to_owned(), state),
            self.snapshot.name.applied_index.0.to_string(),
            human_bytes(self.snapshot.bytes),
            self.age_ms(now_ms).map_or_else(dash, human_age),
        ]
    }

    fn to_json(&self, now_ms: i64) -> Value {
        let header = self.header.as_ref();
        json!({
            "id": self.snapshot.uid(),
            "key": self.snapshot.key.as_str(),
            "kind": if self.snapshot.partition.is_some() { "partition" } else { "metadata" },
            "topic": self.snapshot.partition.map(|_| self.topic()),
            "topic_id": self.snapshot.partition.map(|(id, _)| id.to_string()),
            "partition": self.partition(),
            "incarnation": self.snapshot.incarnation,
            "state_index": header.map(|header| header.state.index.0),
            "state_offset": header.map(|header| header.state.offset.0),
            "applied_index": self.snapshot.name.applied_index.0,
            "bytes": self.snapshot.bytes,
            "append_time_ms": header.map(|header| header.append_time_ms),
            "age_ms": self.age_ms(now_ms),
        })
    }
}

const LIST_HEAD: [&str; 8] =
    ["ID", "TOPIC", "PARTITION", "INCARNATION", "STATE (S@OFFSET)", "APPLIED (A)", "SIZE", "AGE"];

async fn list(catalog: &Catalog, topic: Option<&str>, output: OutputFlags) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for snapshot in catalog.snapshots().await? {
        let header = catalog.peek(&snapshot).await?;
        rows.push(Row { snapshot, header });
    }
    rows.retain(|row| topic.is_none_or(|topic| row.is_of(topic)));
    let now_ms = super::now_ms();
    let table = || {
        let mut table = Table::new(&LIST_HEAD);
        rows.iter().for_each(|row| table.row(row.cells(now_ms)));
        table.render()
    };
    Ok(output::print(output.format(), table, || rows.iter().map(|row| row.to_json(now_ms)).collect())?)
}

async fn show(catalog: &Catalog, id: &str, output: OutputFlags) -> Result<(), Failure> {
    let snapshot = catalog.find(id).await?;
    let report = catalog.report(&snapshot).await.map_err(catalog::unreadable)?;
    output::print(output.format(), || report_text(&snapshot, &report), || report_json(&snapshot, &report))?;
    if report.damage.is_some() { Err(Failure::Reported) } else { Ok(()) }
}

fn report_text(snapshot: &Snapshot, report: &Report) -> String {
    let mut text = format!("KEY          {}\nID           {}\n", snapshot.key, snapshot.uid());
    let _ = writeln!(text, "SIZE         {}", human_bytes(report.bytes));
    let _ = writeln!(text, "SHA-256      {}", report.sha256);
    let status = report.damage.map_or_else(|| "whole".to_owned(), |damage| damage.to_string());
    let _ = writeln!(text, "STATUS       {status}");
    if let Some(header) = &report.header {
        let identity = &header.identity;
        let _ = writeln!(text, "CLUSTER      {}", identity.cluster);
        let _ = writeln!(text, "INCARNATION  {}", identity.incarnation.0);
        if snapshot.partition.is_some() {
            let _ = writeln!(text, "PARTITION    {}/{}", identity.topic, identity.partition.0);
            let _ = writeln!(text, "TOPIC ID     {}", identity.topic_id);
        }
        let _ = writeln!(text, "GROUP        {}", header.group);
        let (state, applied) = (header.state, header.applied);
        let _ = writeln!(
            text,
            "STATE (S)    index {}, term {}, offset {}",
            state.index.0, state.term.0, state.offset.0
        );
        let _ = writeln!(text, "APPLIED (A)  index {}, term {}", applied.index.0, applied.term.0);
        let _ = writeln!(text, "MANIFEST     sequence {}", header.manifest_seq);
        let age = human_age(super::now_ms() - header.append_time_ms);
        let _ = writeln!(text, "WRITTEN      {} ms since 1970, {age} ago", header.append_time_ms);
    }
    if let Some(counts) = &report.counts {
        text.push('\n');
        for (name, count) in count_rows(counts) {
            let _ = writeln!(text, "{name:18}  {count}");
        }
    }
    let mut table = Table::new(&["SECTION", "NAME", "CODEC", "STORED", "EXPANDED"]);
    for section in &report.sections {
        let name = section.id.name().unwrap_or("unknown").to_owned();
        let sizes = [section.stored_bytes, section.raw_bytes].map(human_bytes);
        let codec = format!("{:?}", section.codec).to_lowercase();
        table.row([section.id.0.to_string(), name, codec].into_iter().chain(sizes));
    }
    let _ = write!(text, "\n{}", table.render());
    text
}

fn count_rows(counts: &Counts) -> [(&'static str, u64); 8] {
    [
        ("segments", counts.segments),
        ("segment_bytes", counts.segment_bytes),
        ("producers", counts.producers as u64),
        ("open_transactions", counts.open_transactions as u64),
        ("epochs", counts.epochs as u64),
        ("intents", counts.intents as u64),
        ("tombstones", counts.tombstones as u64),
        ("rolls", counts.rolls as u64),
    ]
}

fn report_json(snapshot: &Snapshot, report: &Report) -> Value {
    let section = |section: &varve_formats::checkpoint::SectionSummary| {
        json!({
            "id": section.id.0,
            "name": section.id.name(),
            "codec": format!("{:?}", section.codec).to_lowercase(),
            "stored_bytes": section.stored_bytes,
            "raw_bytes": section.raw_bytes,
        })
    };
    let row = Row { snapshot: snapshot.clone(), header: report.header.clone() };
    let mut object = row.to_json(super::now_ms());
    object["sha256"] = json!(report.sha256.to_string());
    object["damage"] = json!(report.damage.map(|damage| damage.to_string()));
    object["cluster_id"] = json!(report.header.as_ref().map(|header| header.identity.cluster.to_string()));
    object["counts"] = json!(report.counts.as_ref().map(|counts| {
        count_rows(counts)
            .into_iter()
            .map(|(name, count)| (name.to_owned(), json!(count)))
            .collect::<serde_json::Map<_, _>>()
    }));
    object["sections"] = report.sections.iter().map(section).collect();
    object
}

/// What became of one verification.
struct Verified {
    snapshot: Snapshot,
    /// What is wrong.
    trouble: Option<String>,
}

async fn verify(catalog: &Catalog, id: Option<&str>, format: Format) -> Result<(), Failure> {
    let snapshots = match id {
        Some(id) => vec![catalog.find(id).await?],
        None => catalog.snapshots().await?,
    };
    let mut verified = Vec::new();
    for snapshot in snapshots {
        if let Some(trouble) = judge(catalog.report(&snapshot).await)? {
            verified.push(Verified { snapshot, trouble });
        }
    }
    let damaged = verified.iter().filter(|verified| verified.trouble.is_some()).count();
    let json = || {
        let row = |verified: &Verified| {
            let (key, id) = (verified.snapshot.key.as_str(), verified.snapshot.uid());
            json!({"id": id, "key": key, "ok": verified.trouble.is_none(), "damage": verified.trouble})
        };
        verified.iter().map(row).collect()
    };
    output::print(format, || verified_text(&verified, damaged), json)?;
    if damaged == 0 { Ok(()) } else { Err(Failure::Reported) }
}

/// Outer `None`: the snapshot was retired between the listing and the read, as a running broker may do.
fn judge(report: Result<Report, ReportError>) -> Result<Option<Option<String>>, Failure> {
    match report {
        Ok(report) => Ok(Some(report.damage.map(|damage| damage.to_string()))),
        Err(ReportError::Get(varve_objects::GetError::NotFound)) => Ok(None),
        Err(why) => Err(catalog::unreadable(why)),
    }
}

fn verified_text(verified: &[Verified], damaged: usize) -> String {
    let mut text = String::new();
    for Verified { snapshot, trouble } in verified {
        if let Some(trouble) = trouble {
            let _ = writeln!(text, "DAMAGED  {}  {}: {trouble}", snapshot.uid(), snapshot.key);
        }
    }
    let _ = writeln!(text, "{} snapshots verified, {damaged} damaged", verified.len());
    text
}
