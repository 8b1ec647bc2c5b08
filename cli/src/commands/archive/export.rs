//! `archive export`: history as files for other tools.

use std::{path::Path, sync::Arc};

use serde_json::{Value, json};
use tokio::{runtime::Handle, task::JoinSet};
use varve_broker::config::Config;
use varve_common::PartitionIndex;
use varve_compactor::{
    archive::{Arrow, Exported, Exporter, Format, Outcome, Parquet},
    history::{History, Reader},
};
use varve_formats::keys::{Keys, Prefix};
use varve_objects::Store;
use varve_replica::metadata::Topic;

use super::{Beside, cat::offsets, failed, json_lines::JsonLines};
use crate::{
    args::{Export, ExportFormat},
    commands::snapshot::open_other,
    failure::Failure,
    limits::EXPORT_PARTITIONS_AT_ONCE,
    output::{self, Table, human_bytes},
    place::{self, Point, Range},
    progress::Bytes,
};

/// The topic's configuration that makes brokers export it.
const FOLLOWED: &str = "varve.archive.parquet";

/// What is to be exported, and where to.
pub struct Order {
    flags: Export,
    range: Range,
}

impl Order {
    pub fn parse(flags: Export) -> Result<Self, Failure> {
        let now_ms = crate::commands::now_ms();
        let point = |text: &str| match place::parse(text, now_ms) {
            Ok(Range { from, to: None }) => Ok(from),
            Ok(_) => Err(Failure::usage(format!("{text:?}: one place, not a range"))),
            Err(why) => Err(Failure::usage(why)),
        };
        let from = flags.from.as_deref().map_or(Ok(Point::Start), point)?;
        let to = flags.to.as_deref().map(point).transpose()?;
        Ok(Self { flags, range: Range { from, to } })
    }
}

fn format(format: ExportFormat) -> Arc<dyn Format> {
    match format {
        ExportFormat::Parquet => Arc::new(Parquet),
        ExportFormat::Arrow => Arc::new(Arrow),
        ExportFormat::Jsonl => Arc::new(JsonLines),
    }
}

/// A directory, or a bucket that the configuration's credentials reach.
fn destination(config: &Config, to: &str) -> Result<(Arc<dyn Store>, Prefix), Failure> {
    let Some(place) = to.strip_prefix("s3://") else {
        let store = varve_broker::runtime::store::plain_directory(Path::new(to));
        let store =
            store.map_err(|why| Failure::failed(why, "name a directory that can be written with -o"))?;
        return Ok((store, Prefix::default()));
    };
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    Ok((open_other(config, bucket)?, Prefix::new(prefix)))
}

/// Brokers that export a topic themselves look once a term for what is there, and then make the next files: two writers in one place would
/// put the same offsets into files of different bounds.
async fn check_alone(store: &dyn Store, keys: &Keys, topic: &Topic, flags: &Export) -> Result<(), Failure> {
    let follows = topic.configs.get(FOLLOWED).is_some_and(|value| value == "true");
    if !follows || !matches!(flags.format, ExportFormat::Parquet) {
        return Ok(());
    }
    // The cluster itself lives where its metadata is, however that place was named.
    let page = store.list(&keys.metadata(), None).await;
    let page = page.map_err(|why| Failure::failed(why, "name a place that can be listed with -o"))?;
    if page.objects.is_empty() {
        return Ok(());
    }
    let (name, place) = (&topic.name, &flags.to_where);
    Err(Failure::usage(format!(
        "{name} has {FOLLOWED}=true: its brokers make the Parquet files in {place} themselves, and two writers would make files that \
         overlap; read those, name another place with -o, or another --format"
    )))
}

pub async fn run(history: &Arc<History>, order: Order, config: &Config) -> Result<(), Failure> {
    let flags = &order.flags;
    let topic = Arc::clone(history.topic(&flags.topic).map_err(failed)?);
    let (store, prefix) = destination(config, &flags.to_where)?;
    let keys = prefix.cluster(history.keys().cluster());
    check_alone(&*store, &keys, &topic, flags).await?;
    let mut waiting = flags.partitions.of(topic.partitions.len());
    waiting.reverse();
    let bar = Arc::new(Bytes::new("exporting"));
    let (mut running, mut exported) = (JoinSet::new(), Vec::new());
    while !waiting.is_empty() || !running.is_empty() {
        while running.len() < EXPORT_PARTITIONS_AT_ONCE
            && let Some(partition) = waiting.pop()
        {
            let reader = Reader::new(history, Arc::new(Beside(Handle::current())));
            let exporter = Exporter::new(
                Arc::clone(history),
                reader.clone(),
                Arc::clone(&store),
                keys.clone(),
                format(flags.format),
            );
            let one = One {
                history: Arc::clone(history),
                topic: Arc::clone(&topic),
                partition,
                range: order.range,
                reader,
                exporter,
                bar: Arc::clone(&bar),
            };
            running.spawn(one.run());
        }
        if let Some(files) = running.join_next().await {
            let files = files.map_err(|why| Failure::failed(why, "report this"))?;
            exported.extend(files.inspect_err(|_| bar.clear())?);
        }
    }
    bar.clear();
    tell(&topic, &exported, order.flags.output())
}

/// The export of one partition.
struct One {
    history: Arc<History>,
    topic: Arc<Topic>,
    partition: i32,
    range: Range,
    reader: Reader,
    exporter: Exporter,
    bar: Arc<Bytes>,
}

impl One {
    async fn run(self) -> Result<Vec<Exported>, Failure> {
        let found = super::partition(&self.history, &self.topic, PartitionIndex(self.partition)).await?;
        let view = found.view();
        let wanted = offsets(&self.reader, &view, self.range).await?;
        let done = |file: &Exported| {
            self.bar.expect(file.bytes);
            self.bar.done(file.bytes);
        };
        let files = self.exporter.export(&view, wanted, &done).await;
        files.map_err(|why| Failure::failed(why, "what was written stays; run it again to go on"))
    }
}

fn tell(topic: &Topic, files: &[Exported], output: output::OutputFlags) -> Result<(), Failure> {
    let word = |outcome: Outcome| match outcome {
        Outcome::Written => "written",
        Outcome::Kept => "kept",
    };
    let table = || {
        let mut table = Table::new(&["FILE", "OFFSETS", "RECORDS", "SIZE", ""]);
        for file in files {
            let records = file.records.map_or_else(|| "-".to_owned(), |records| records.to_string());
            let offsets = format!("{}..{}", file.offsets.start, file.offsets.end);
            let outcome = word(file.outcome).to_owned();
            table.row([file.key.to_string(), offsets, records, human_bytes(file.bytes), outcome]);
        }
        let bytes = files.iter().map(|file| file.bytes).sum();
        format!("{}{} files of {}, {}\n", table.render(), files.len(), topic.name, human_bytes(bytes))
    };
    let json = || -> Value {
        files
            .iter()
            .map(|file| {
                json!({
                    "file": file.key.as_str(),
                    "first_offset": file.offsets.start.0,
                    "last_offset": file.offsets.end.0 - 1,
                    "records": file.records,
                    "bytes": file.bytes,
                    "outcome": word(file.outcome),
                })
            })
            .collect()
    };
    Ok(output::print(output.format(), table, json)?)
}
