//! History without a broker: export and deep verification of a bucket against raw GETs of the same objects, and what they ask of the store.
//!
//! The bucket is filled by a broker and then left alone. All sides read it from the same server in this process: ours by the code of `varve
//! archive export` and `varve bucket verify`; beside it whole GETs, and the Parquet encoder over the segments' records, with nothing around them.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use bytes::Bytes;
use tokio::runtime::Handle;
use varve_common::{Digest, Offset, PartitionIndex, clock::BoxFuture};
use varve_compactor::{
    archive::{About, Exporter, Format as _, Parquet, Row, cut::FILE_BYTES_MAX},
    history::{History, Reader},
    verify::{Depth, Silent, Verifier},
};
use varve_formats::{PartitionIdentity, keys::Prefix, segment::verify_batches};
use varve_objects::{Counters, Counting, Operation, testing::MemoryStore};
use varve_protocol::batch::{BatchHeader, Caps, Records};
use varve_tiering::Spawn;

use super::{Bench, create_topic};
use crate::{
    report::{Figure, Goal, median},
    store::{PREFIX, Store},
    wire::{self, Load},
};

const TOPIC: &str = "t";
const TIERED_WITHIN: Duration = Duration::from_secs(300);
/// Whole objects that the raw client has on their way: as many as verification has.
const AT_A_TIME: usize = 4;
/// Export reads chunks of 4 MiB, 256 of them a GiB, and verification whole segments of 64 MiB, 16 of them; and each what opens the
/// bucket, and indices.
const EXPORT_GETS_PER_GIB: f64 = 300.0;
const VERIFY_GETS_PER_GIB: f64 = 40.0;
const LISTS_PER_GIB: f64 = 20.0;
const GIB: f64 = (1_u64 << 30) as f64;

/// See the module.
pub fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    // As the commands have: a thread for each core.
    let store = Store::start_with(None, thread::available_parallelism()?.get())?;
    fill(bench, &store)?;
    let mut sides = Sides::default();
    for _ in 0..bench.pairs {
        let (raw, segments) = store.read_whole(AT_A_TIME)?;
        let (export, requests) = store.run(export(&store))?;
        let encode = encode(&segments)?;
        let verify = store.run(verify(&store))?;
        sides.bytes = segments.iter().map(|segment| segment.len() as f64).sum();
        sides.exported.push((raw + encode) / export);
        sides.verified.push(raw / verify.0);
        sides.times.push([raw, encode, export, verify.0]);
        (sides.export_requests, sides.verify_requests) = (requests, verify.1);
    }
    Ok(sides.figures())
}

#[derive(Default)]
struct Sides {
    bytes: f64,
    exported: Vec<f64>,
    verified: Vec<f64>,
    /// GET, encode, export, verify: seconds.
    times: Vec<[f64; 4]>,
    export_requests: Requests,
    verify_requests: Requests,
}

#[derive(Clone, Copy, Debug, Default)]
struct Requests {
    gets: f64,
    lists: f64,
}

impl Requests {
    fn of(counters: &Counters) -> Self {
        let counted = counters.snapshot();
        let of = |operation: Operation| counted.get(&operation).map_or(0.0, |count| count.requests as f64);
        let gets = [Operation::Get, Operation::GetRange, Operation::GetSuffix, Operation::Head].map(of);
        Self { gets: gets.iter().sum(), lists: of(Operation::List) }
    }
}

impl Sides {
    fn figures(self) -> Vec<Figure> {
        let rate = |side: usize| {
            let seconds: Vec<f64> = self.times.iter().map(|times| times[side]).collect();
            self.bytes / median(&seconds) * 1e-6
        };
        let speeds = format!(
            "GET {:.0} MB/s, encoding {:.0}, export {:.0}, verify --deep {:.0}",
            rate(0),
            rate(1),
            rate(2),
            rate(3)
        );
        let requests = |name: &str, requests: Requests, gets_max: f64| {
            let gib = self.bytes / GIB;
            [
                Figure {
                    name: format!("GETs of {name} per GiB"),
                    ratios: vec![requests.gets / gib],
                    goal: Goal::AtMost(gets_max),
                    detail: format!(
                        "{} for {gib:.2} GiB, ranged ones and looks at lengths included",
                        requests.gets
                    ),
                },
                Figure {
                    name: format!("LISTs of {name} per GiB"),
                    ratios: vec![requests.lists / gib],
                    goal: Goal::AtMost(LISTS_PER_GIB),
                    detail: format!("{} for {gib:.2} GiB; of a bucket, not of its bytes", requests.lists),
                },
            ]
        };
        let mut figures = vec![
            Figure {
                name: "archive export against GET plus Parquet encoding of the same bytes".to_owned(),
                ratios: self.exported.clone(),
                goal: Goal::AtLeast(0.7),
                detail: speeds.clone(),
            },
            Figure {
                name: "bucket verify --deep against GET of the same objects".to_owned(),
                ratios: self.verified.clone(),
                goal: Goal::AtLeast(0.8),
                detail: speeds,
            },
        ];
        figures.extend(requests("archive export", self.export_requests, EXPORT_GETS_PER_GIB));
        figures.extend(requests("bucket verify --deep", self.verify_requests, VERIFY_GETS_PER_GIB));
        figures
    }
}

/// A topic whose history is in the bucket, and a snapshot that names it.
fn fill(bench: &Bench, store: &Store) -> anyhow::Result<()> {
    let mut arguments = store.arguments();
    for setting in ["varve.tier.max.age.ms=1000", "varve.snapshot.max.age.ms=1000"] {
        arguments.extend(["--set".to_owned(), setting.to_owned()]);
    }
    let mut broker = bench.broker_with("archive", &arguments, store.environment())?;
    create_topic(broker.address, TOPIC, 1, &[("retention.ms", "-1")])?;
    let batches: Vec<_> = (1..=16).map(|seed| wire::noise_batch(256, 1000, seed)).collect();
    let mut frames: Vec<_> = batches.iter().map(|batch| wire::produce(TOPIC, &[0], batch)).collect();
    let (mut written, begin) = (0, Instant::now());
    while written < bench.scale.cold_bytes {
        let load = Load { in_flight: 8, time: bench.time.min(Duration::from_millis(500)) };
        let run = wire::closed_loop(broker.address, &mut frames, load, wire::check_produced)?;
        // What segments are made of: the frames around batches are not in them.
        written += (run.latencies.len() * batches[0].len()) as u64;
    }
    while broker.metric("varve_tier_untiered_bytes", "")? > 0.0
        || broker.metric("varve_tier_uploaded_bytes_total", "")? < written as f64
    {
        ensure!(begin.elapsed() < TIERED_WITHIN, "uploads do not follow");
        thread::sleep(Duration::from_millis(500));
    }
    broker.stop()
}

/// Reads ahead beside whoever waits.
struct Beside(Handle);

impl Spawn for Beside {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }
}

fn prefix() -> Prefix {
    Prefix::new(PREFIX)
}

/// All of the topic into memory; the seconds it took, and what it asked for.
async fn export(store: &Store) -> anyhow::Result<(f64, Requests)> {
    let counting = Counting::new(store.raw());
    let counters = counting.counters();
    let begin = Instant::now();
    let history = Arc::new(History::open(Arc::new(counting), &prefix()).await?);
    let topic = Arc::clone(history.topic(TOPIC)?);
    let view = history.partition(&topic, PartitionIndex(0)).await?.view();
    let reader = Reader::new(&history, Arc::new(Beside(Handle::current())));
    let (into, keys) = (Arc::new(MemoryStore::default()), prefix().cluster(history.keys().cluster()));
    let exporter = Exporter::new(Arc::clone(&history), reader, into, keys, Arc::new(Parquet));
    let files = exporter.export(&view, Offset::ZERO..view.end(), &|_| {}).await?;
    ensure!(files.last().is_some_and(|file| file.offsets.end == view.end()), "not all was exported");
    Ok((begin.elapsed().as_secs_f64(), Requests::of(&counters)))
}

async fn verify(store: &Store) -> anyhow::Result<(f64, Requests)> {
    let counting = Counting::new(store.raw());
    let counters = counting.counters();
    let begin = Instant::now();
    let opened = varve_compactor::verify::opened(Arc::new(counting), &prefix()).await;
    let history = opened.map_err(|report| anyhow!("{:?}", report.findings))?;
    let spawn = Arc::new(Beside(Handle::current()));
    let verifier = Verifier::new(Arc::clone(&history), Depth::Content, spawn, Arc::new(Silent));
    let topic = Arc::clone(history.topic(TOPIC)?);
    let report = verifier.partition(&topic, PartitionIndex(0)).await;
    ensure!(report.looked.segments_read == report.looked.segments, "{:?}", report.looked);
    Ok((begin.elapsed().as_secs_f64(), Requests::of(&counters)))
}

/// The records of segments that are in memory, as files of the same size; the seconds it took.
fn encode(segments: &[Bytes]) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let mut encoding = Encoding::default();
    for segment in segments {
        let mut failed = None;
        let verified = verify_batches(segment, |_, batch| {
            if failed.is_none() {
                failed = encoding.batch(batch).err();
            }
            Ok(())
        });
        failed.map_or(Ok(()), Err)?;
        verified.map_err(|error| anyhow!("{error}"))?;
    }
    encoding.finish()?;
    Ok(begin.elapsed().as_secs_f64())
}

#[derive(Default)]
struct Encoding {
    open: Option<Box<dyn varve_compactor::archive::Encoder>>,
    bytes: u64,
    records: u64,
}

impl Encoding {
    fn batch(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let batch = BatchHeader::read(bytes).map_err(|error| anyhow!("{error}"))?;
        let records = Records::read(&batch, Caps::default()).map_err(|error| anyhow!("{error}"))?;
        if self.bytes + records.bytes() as u64 > FILE_BYTES_MAX {
            self.finish()?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Parquet.begin(&nobody())?,
        };
        for record in records.iter() {
            let record = record.map_err(|error| anyhow!("{error}"))?;
            open.row(&Row { meta: batch.meta(), record: &record })?;
            self.records += 1;
        }
        (self.open, self.bytes) = (Some(open), self.bytes + records.bytes() as u64);
        Ok(())
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let about = About {
            identity: nobody(),
            offsets: Offset::ZERO..Offset(self.records.max(1)),
            records: self.records,
            times: None,
            source_sha256: Digest::default(),
        };
        let file = open.finish(&about).context("encode")?;
        // As whoever puts it does.
        let _ = Digest::of(&file);
        (self.bytes, self.records) = (0, 0);
        Ok(())
    }
}

/// The encoder does not look at it but for the footer.
fn nobody() -> PartitionIdentity {
    PartitionIdentity {
        cluster: varve_common::ClusterId::from_random(1),
        incarnation: varve_common::Incarnation::FIRST,
        topic_id: varve_common::TopicId::from_random(1),
        topic: TOPIC.to_owned(),
        partition: PartitionIndex(0),
    }
}
