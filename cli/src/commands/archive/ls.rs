//! `archive ls`: what can be read.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use varve_common::{Offset, PartitionIndex};
use varve_compactor::history::{Found, History, PartitionHistory};
use varve_replica::metadata::Topic;

use super::{failed, troubles};
use crate::{
    failure::Failure,
    limits::ARCHIVE_PARTITIONS_AT_ONCE,
    output::{self, OutputFlags, Table, human_age, human_bytes},
};

/// One partition.
struct Row {
    partition: i32,
    start: Offset,
    end: Offset,
    segments: u64,
    bytes: u64,
    /// Of `segments`, those that no manifest names yet.
    tail: usize,
    /// The smallest first timestamp of a batch in the first segment, and the largest of all.
    times: Option<(i64, i64)>,
    /// When the checkpoint was made.
    checkpoint_ms: Option<i64>,
    troubles: Vec<String>,
}

impl Row {
    async fn read(history: &History, partition: i32, found: &PartitionHistory) -> Self {
        let (view, root) = (found.view(), found.root());
        let mut first = None;
        let mut walk = view.walk(history, view.start());
        while let Some(place) = walk.next().await {
            match place {
                Found::Node(..) => {}
                Found::Unreadable(..) => break,
                Found::Entry(entry) => {
                    first = Some(entry.min_timestamp);
                    break;
                }
            }
        }
        let newest = root.places().map(|place| place.max_timestamp()).max();
        Self {
            partition,
            start: view.start(),
            end: view.end(),
            segments: root.segments(),
            bytes: root.segment_bytes(),
            tail: found.tail.segments.len(),
            times: first.zip(newest),
            checkpoint_ms: found.checkpoint.as_ref().map(|(_, header)| header.append_time_ms),
            troubles: troubles(found),
        }
    }

    fn cells(&self, now_ms: i64) -> Vec<String> {
        let age = |ms: Option<i64>| ms.map_or_else(|| "-".to_owned(), |ms| human_age(now_ms - ms));
        vec![
            self.partition.to_string(),
            self.start.to_string(),
            self.end.to_string(),
            self.segments.to_string(),
            human_bytes(self.bytes),
            self.tail.to_string(),
            age(self.times.map(|times| times.0)),
            age(self.times.map(|times| times.1)),
            age(self.checkpoint_ms),
        ]
    }

    fn to_json(&self) -> Value {
        json!({
            "partition": self.partition,
            "start_offset": self.start.0,
            "end_offset": self.end.0,
            "segments": self.segments,
            "bytes": self.bytes,
            "tail_segments": self.tail,
            "min_timestamp": self.times.map(|times| times.0),
            "max_timestamp": self.times.map(|times| times.1),
            "checkpoint_append_time_ms": self.checkpoint_ms,
            "warnings": self.troubles,
        })
    }
}

const PARTITIONS_HEAD: [&str; 9] =
    ["PARTITION", "START", "END", "SEGMENTS", "SIZE", "TAIL", "OLDEST", "NEWEST", "CHECKPOINT"];
const TOPICS_HEAD: [&str; 7] = ["TOPIC", "PARTITIONS", "OFFSETS", "SEGMENTS", "SIZE", "NEWEST", "ID"];

pub async fn run(history: &Arc<History>, topic: Option<&str>, output: OutputFlags) -> Result<(), Failure> {
    let now_ms = crate::commands::now_ms();
    let Some(name) = topic else {
        let mut topics = Vec::new();
        for topic in history.topics() {
            topics.push((Arc::clone(topic), rows(history, topic).await?));
        }
        let table = || {
            let mut table = Table::new(&TOPICS_HEAD);
            topics.iter().for_each(|(topic, rows)| table.row(topic_cells(topic, rows, now_ms)));
            table.render()
        };
        let json = || topics.iter().map(|(topic, rows)| topic_json(topic, rows)).collect();
        return Ok(output::print(output.format(), table, json)?);
    };
    let topic = Arc::clone(history.topic(name).map_err(failed)?);
    let rows = rows(history, &topic).await?;
    let table = || {
        let mut table = Table::new(&PARTITIONS_HEAD);
        rows.iter().for_each(|row| table.row(row.cells(now_ms)));
        table.render()
    };
    Ok(output::print(output.format(), table, || topic_json(&topic, &rows))?)
}

fn topic_cells(topic: &Topic, rows: &[Row], now_ms: i64) -> Vec<String> {
    let newest = rows.iter().filter_map(|row| row.times).map(|times| times.1).max();
    vec![
        topic.name.to_string(),
        rows.len().to_string(),
        rows.iter().map(|row| row.end.since(row.start)).sum::<u64>().to_string(),
        rows.iter().map(|row| row.segments).sum::<u64>().to_string(),
        human_bytes(rows.iter().map(|row| row.bytes).sum()),
        newest.map_or_else(|| "-".to_owned(), |ms| human_age(now_ms - ms)),
        topic.id.to_string(),
    ]
}

fn topic_json(topic: &Topic, rows: &[Row]) -> Value {
    json!({
        "topic": &*topic.name,
        "topic_id": topic.id.to_string(),
        "partitions": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
    })
}

/// The partitions of a topic, some at a time; what is wrong with them is told once all are read.
async fn rows(history: &Arc<History>, topic: &Arc<Topic>) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    let mut waiting = (0..i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)).peekable();
    let mut running = JoinSet::new();
    while waiting.peek().is_some() || !running.is_empty() {
        while running.len() < ARCHIVE_PARTITIONS_AT_ONCE
            && let Some(partition) = waiting.next()
        {
            let (history, topic) = (Arc::clone(history), Arc::clone(topic));
            running.spawn(async move {
                let found = history.partition(&topic, PartitionIndex(partition)).await?;
                Ok(Row::read(&history, partition, &found).await)
            });
        }
        if let Some(row) = running.join_next().await {
            rows.push(row.map_err(|why| Failure::failed(why, "report this"))?.map_err(failed)?);
        }
    }
    rows.sort_by_key(|row: &Row| row.partition);
    for row in &rows {
        row.troubles
            .iter()
            .for_each(|trouble| super::warn(&format!("{}-{}: {trouble}", topic.name, row.partition)));
    }
    Ok(rows)
}
