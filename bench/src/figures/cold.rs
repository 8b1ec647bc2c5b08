//! Reads and uploads of the tier against a raw client of the same S3 server, and what cold scans cost hot producers.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use varve_common::ObjectKey;

use super::{Bench, create_topic, read::drain};
use crate::{
    process::Broker,
    report::{Figure, Goal, median},
    store::Store,
    wire::{self, Load},
};

/// A chunk, as the broker asks for it.
const CHUNK_BYTES: u64 = 4 << 20;
/// How many chunks it has on their way for one sequential reader: the window of a cache of 64 MiB.
const AT_A_TIME: usize = 4;
const FETCH_BYTES: i32 = 4 << 20;
/// The latency of a bucket that is not on this machine.
const LATENCY: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(300);
/// How many different batches there are.
const BATCHES: u64 = 16;

/// A part of an object.
type Chunk = (ObjectKey, Range<u64>);

/// First bytes, from a store beside the broker and from one that is far away.
pub fn first_bytes(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    Ok(vec![first_byte(bench, None)?, first_byte(bench, Some(LATENCY))?])
}

fn start(bench: &Bench, store: &Store, name: &str) -> anyhow::Result<Broker> {
    // A log so short that what was written has left it, and no cache on disk: every pair reads from the store.
    let log = format!("varve.wal.bytes.max={}", bench.scale.cold_bytes / 4);
    let settings = [&log, "varve.cold.cache.disk.bytes=0", "varve.tier.max.age.ms=2s"];
    let mut arguments = store.arguments();
    arguments.extend(settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting.to_owned()]));
    bench.broker_with(name, &arguments, store.environment())
}

/// Writes so many bytes that compress to nothing less. No two batches of a block are the same: those would.
fn fill(address: SocketAddr, topic: &str, bytes: u64) -> anyhow::Result<i64> {
    let batches: Vec<_> = (1..=BATCHES).map(|seed| wire::noise_batch(256, 1000, seed)).collect();
    let mut client = wire::Client::connect(address)?;
    let mut frames: Vec<_> = batches.iter().map(|batch| wire::produce(topic, &[0], batch)).collect();
    let count = bytes / batches[0].len() as u64 + 1;
    let begin = Instant::now();
    for number in 0..count {
        let frame = &mut frames[(number % BATCHES) as usize];
        while let Err(error) = wire::check_produced(client.call(frame)?) {
            // A full log keeps producers waiting until it is tiered.
            ensure!(begin.elapsed() < LIMIT, "{error}");
        }
    }
    Ok(count as i64 * 256)
}

/// Waits until the log has let go of the first records, and gives how far: the rest may be read from this node.
fn wait_until_cold(address: SocketAddr, topic: &str, wanted: i64) -> anyhow::Result<i64> {
    let begin = Instant::now();
    loop {
        let local_start = wire::local_start(address, topic)?;
        if local_start >= wanted {
            return Ok(local_start);
        }
        ensure!(begin.elapsed() < LIMIT, "the log holds on to {topic} from {local_start} on");
        // Checkpoints follow records, and the log is cut behind them.
        fill(address, topic, 1 << 20)?;
        thread::sleep(Duration::from_millis(200));
    }
}

/// One partition from its beginning on, alone and beside a producer.
pub fn scan(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let store = Store::start(None)?;
    let broker = start(bench, &store, "scan")?;
    create_topic(broker.address, "t", 1, &[])?;
    let written = fill(broker.address, "t", bench.scale.cold_bytes)?;
    let end = wait_until_cold(broker.address, "t", written / 2)?;
    let mut chunks = Vec::new();
    for segment in store.segments()?.iter().filter(|segment| base(segment.key.as_str()) < end) {
        let starts = (0..segment.bytes).step_by(CHUNK_BYTES as usize);
        chunks.extend(starts.map(|at| (segment.key.clone(), at..(at + CHUNK_BYTES).min(segment.bytes))));
    }
    let mut figures = vec![against_raw(bench, &broker, &store, (&chunks, end))?];
    figures.extend(beside(bench, &broker, &store, (&chunks, end))?);
    Ok(figures)
}

/// What is below an offset, read by a consumer and by a raw client.
fn against_raw(
    bench: &Bench,
    broker: &Broker,
    store: &Store,
    (chunks, end): (&[Chunk], i64),
) -> anyhow::Result<Figure> {
    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.pairs {
        let (bytes, seconds) = drain(broker.address, "t", 0, (0, end), FETCH_BYTES)?;
        let raw = bytes_of(chunks) as f64 / store.read(chunks.to_vec(), AT_A_TIME)?;
        ratios.push(bytes as f64 / seconds / raw);
        ours.push(bytes as f64 / seconds);
        theirs.push(raw);
    }
    Ok(Figure {
        name: "cold read of one partition against raw ranged GETs, 4 at a time".to_owned(),
        ratios,
        goal: Goal::AtLeast(0.7),
        detail: format!("{:.0} MB/s, raw {:.0} MB/s", median(&ours) * 1e-6, median(&theirs) * 1e-6),
    })
}

fn bytes_of(chunks: &[Chunk]) -> u64 {
    chunks.iter().map(|(_, range)| range.end - range.start).sum()
}

/// The first offset in a segment's key.
fn base(key: &str) -> i64 {
    let name = key.rsplit('/').next().unwrap_or_default();
    name.split('-').next().and_then(|base| base.parse().ok()).unwrap_or(i64::MAX)
}

/// Hot produce at 30 % of what it can: alone, beside two scans of what is cold, and beside two raw clients that read the same
/// objects at the same pace. The last is what the machine itself takes from producers, with nothing of the broker's in it.
fn beside(
    bench: &Bench,
    broker: &Broker,
    store: &Store,
    (chunks, end): (&[Chunk], i64),
) -> anyhow::Result<Vec<Figure>> {
    let address = broker.address;
    create_topic(address, "hot", 1, &[])?;
    let mut frames = vec![wire::produce("hot", &[0], &wire::batch(1, 1024))];
    let load = Load { in_flight: 64, time: bench.time };
    let rate = 0.3 * wire::closed_loop(address, &mut frames, load, wire::check_produced)?.rate();
    let (mut alone, mut scanned, mut raw, mut rates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.pairs {
        let hot = |frame: &mut [u8]| Ok(wire::open_loop(address, frame, rate, bench.time)?.percentile(0.99));
        alone.push(hot(&mut frames[0])?);
        // A scan that fails shows in the figure before this one.
        let (p99, bytes) =
            beside_two(|stop| drain_until(address, end, stop).unwrap_or(0), || hot(&mut frames[0]))?;
        scanned.push(p99);
        rates.push(bytes);
        let pace = (bytes / 2.0).max(1.0);
        let read = |stop: &AtomicBool| read_until(store, chunks, pace, stop).unwrap_or(0);
        raw.push(beside_two(read, || hot(&mut frames[0]))?.0);
    }
    let ratios =
        |over: &[f64], under: &[f64]| over.iter().zip(under).map(|(over, under)| over / under).collect();
    let ms = |values: &[f64]| median(values) * 1e3;
    let detail = format!(
        "{:.2} ms beside scans of {:.0} MB/s, {:.2} ms beside raw reads of as much, {:.2} ms alone, {rate:.0} requests/s",
        ms(&scanned),
        median(&rates) * 1e-6,
        ms(&raw),
        ms(&alone),
    );
    let figure =
        |name: &str, ratios, goal| Figure { name: name.to_owned(), ratios, goal, detail: detail.clone() };
    Ok(vec![
        figure(
            "hot produce p99, open loop at 30 %, two cold scans beside it against none",
            ratios(&scanned, &alone),
            Goal::AtMost(1.5),
        ),
        figure(
            "the same, beside two scans against beside two raw readers",
            ratios(&scanned, &raw),
            Goal::AtMost(1.5),
        ),
    ])
}

/// Runs `hot` while two of `load` run; what it gives, and the bytes a second that the two read.
fn beside_two<T>(
    load: impl Fn(&AtomicBool) -> u64 + Sync,
    hot: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, f64)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let begin = Instant::now();
        let readers = [(); 2].map(|()| scope.spawn(|| load(&stop)));
        let run = hot();
        stop.store(true, Ordering::Relaxed);
        let bytes: u64 = readers.map(|reader| reader.join().expect("a reader does not panic")).iter().sum();
        Ok((run?, bytes as f64 / begin.elapsed().as_secs_f64()))
    })
}

/// Reads records up to an offset, over and over; gives their bytes.
fn drain_until(address: SocketAddr, end: i64, stop: &AtomicBool) -> anyhow::Result<u64> {
    let mut client = wire::Client::connect(address)?;
    let (mut offset, mut bytes) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let mut request = wire::fetch("t", 0, offset, Duration::from_millis(500), FETCH_BYTES);
        let records = wire::fetched(client.call(&mut request)?)?;
        bytes += records.len() as u64;
        offset = wire::next_offset(records).filter(|next| *next < end).unwrap_or(0);
    }
    Ok(bytes)
}

/// Reads chunks from the store at so many bytes a second, over and over; gives their bytes.
fn read_until(store: &Store, chunks: &[Chunk], pace: f64, stop: &AtomicBool) -> anyhow::Result<u64> {
    let (begin, mut bytes) = (Instant::now(), 0);
    for window in chunks.chunks(AT_A_TIME).cycle() {
        thread::sleep(Duration::from_secs_f64(bytes as f64 / pace).saturating_sub(begin.elapsed()));
        if stop.load(Ordering::Relaxed) {
            break;
        }
        store.read(window.to_vec(), AT_A_TIME)?;
        bytes += bytes_of(window);
    }
    Ok(bytes)
}

/// A fetch from the middle of a segment that nobody opened yet against a GET of one chunk of it.
fn first_byte(bench: &Bench, latency: Option<Duration>) -> anyhow::Result<Figure> {
    let store = Store::start(latency)?;
    let broker = start(bench, &store, "first-byte")?;
    let count = bench.pairs.max(4) as u64;
    create_topic(broker.address, "t", 1, &[("segment.bytes", "8388608")])?;
    fill(broker.address, "t", (count + 6) * (8 << 20) + bench.scale.cold_bytes / 4)?;
    let end = wait_until_cold(broker.address, "t", (count * (8 << 20) / 1024) as i64)?;
    let mut client = wire::Client::connect(broker.address)?;
    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    let segments = store.segments()?;
    for pair in segments.windows(2).take(bench.pairs) {
        let (first, next) = (base(pair[0].key.as_str()), base(pair[1].key.as_str()));
        ensure!(next <= end, "a segment is on this node still");
        let begin = Instant::now();
        let mut request = wire::fetch("t", 0, i64::midpoint(first, next), Duration::from_secs(30), 1 << 20);
        let records = wire::fetched(client.call(&mut request)?)?;
        let our = begin.elapsed().as_secs_f64();
        ensure!(!records.is_empty(), "a cold fetch came back empty");
        let raw = store.read(vec![(pair[1].key.clone(), 0..CHUNK_BYTES.min(pair[1].bytes))], 1)?;
        ratios.push(our / raw);
        ours.push(our);
        theirs.push(raw);
    }
    let beyond =
        latency.map_or_else(String::new, |latency| format!(" with {} ms of latency", latency.as_millis()));
    Ok(Figure {
        name: format!("first byte of a cold fetch against one raw GET of a chunk{beyond}"),
        ratios,
        goal: Goal::AtMost(1.5),
        detail: format!("{:.1} ms, raw {:.1} ms", median(&ours) * 1e3, median(&theirs) * 1e3),
    })
}

/// A backlog that an outage has left, uploaded at once.
pub fn upload(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let (mut ratios, mut ours, mut theirs, mut cores) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..bench.pairs {
        let mut store = Store::start(None)?;
        let settings = ["--set", "varve.wal.bytes.max=4GiB"].map(str::to_owned);
        let arguments: Vec<String> = store.arguments().into_iter().chain(settings).collect();
        let broker = bench.broker_with("upload", &arguments, store.environment())?;
        create_topic(broker.address, "t", 1, &[])?;
        store.stop();
        fill(broker.address, "t", bench.scale.cold_bytes)?;
        store.resume()?;
        // The last one is not full, and waits for its age.
        let whole = bench.scale.cold_bytes / (64 << 20);
        let (rate, sizes, core) = watch_uploads(&broker, &store, whole.max(2) as usize - 1)?;
        let raw = sizes.iter().sum::<u64>() as f64 / store.write(round, &sizes, AT_A_TIME)?;
        ratios.push(rate / raw);
        ours.push(rate);
        theirs.push(raw);
        cores.push(core);
    }
    let rate = Figure {
        name: "upload bytes per second of a backlog against raw PUTs of the same sizes".to_owned(),
        ratios,
        goal: Goal::AtLeast(0.7),
        detail: format!("{:.0} MB/s, raw {:.0} MB/s", median(&ours) * 1e-6, median(&theirs) * 1e-6),
    };
    let core = Figure {
        name: "part of a core that uploads at 50 MB/s take".to_owned(),
        goal: Goal::AtMost(0.15),
        detail: format!("{:.2} s of processor time a gigabyte", median(&cores) * 20.0),
        ratios: cores,
    };
    Ok(vec![rate, core])
}

/// Bytes a second from the first upload that ends to the last, the sizes of the objects, and the part of a core that
/// the broker takes for 50 MB/s.
fn watch_uploads(broker: &Broker, store: &Store, count: usize) -> anyhow::Result<(f64, Vec<u64>, f64)> {
    let cpu = broker.cpu_seconds()?;
    let first = wait_for_segments(store, 1)?;
    let begin = Instant::now();
    let all = wait_for_segments(store, count)?;
    let seconds = begin.elapsed().as_secs_f64();
    let bytes = |sizes: &[u64]| sizes.iter().sum::<u64>() as f64;
    let core = (broker.cpu_seconds()? - cpu) / bytes(&all) * 50e6;
    Ok(((bytes(&all) - bytes(&first)) / seconds, all, core))
}

/// The sizes of the segments in the bucket, as soon as there are so many.
fn wait_for_segments(store: &Store, count: usize) -> anyhow::Result<Vec<u64>> {
    let begin = Instant::now();
    loop {
        let sizes: Vec<u64> = store.segments()?.iter().map(|segment| segment.bytes).collect();
        if sizes.len() >= count {
            return Ok(sizes);
        }
        ensure!(begin.elapsed() < LIMIT, "{} of {count} segments are uploaded", sizes.len());
        thread::sleep(Duration::from_millis(20));
    }
}
