//! A raw Kafka client: frames made once, sent as fast as the window allows, answers read and checked.
//!
//! It is written by hand and shares no code with the broker, so that what it measures is the broker alone and what it
//! checks is not checked against itself. Produce version 7 and Fetch version 4 are the plainest that every broker of
//! today still speaks.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use varve_common::crc32c;

/// Where the correlation id stands in a framed request.
const CORRELATION_AT: usize = 8;

/// Writes a string.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as i16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A request's length prefix and header, version 1.
pub fn framed(api_key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 4];
    frame.extend(api_key.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(0_i32.to_be_bytes());
    string(&mut frame, "varve-bench");
    frame.extend(body);
    let length = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// The present, as producers stamp it: records of another time fall to retention.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    since.as_millis() as i64
}

/// One uncompressed record batch (v2) of `count` records, each with a value of `value_bytes`.
pub fn batch(count: usize, value_bytes: usize) -> Vec<u8> {
    batch_of(count, |delta| (0..value_bytes).map(|place| (place * 31 + delta) as u8).collect())
}

/// The same with values that compress to nothing less.
pub fn noise_batch(count: usize, value_bytes: usize, seed: u64) -> Vec<u8> {
    batch_of(count, |delta| noise(value_bytes, seed.wrapping_mul(1 << 20).wrapping_add(delta as u64 + 1)))
}

fn batch_of(count: usize, value: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let mut records = Vec::new();
    for delta in 0..count {
        let mut record = vec![0];
        varint(&mut record, 0);
        varint(&mut record, delta as i64);
        varint(&mut record, -1);
        let value = value(delta);
        varint(&mut record, value.len() as i64);
        record.extend(value);
        varint(&mut record, 0);
        varint(&mut records, record.len() as i64);
        records.extend(record);
    }
    let mut checked = Vec::new();
    checked.extend(0_i16.to_be_bytes());
    checked.extend((count as i32 - 1).to_be_bytes());
    checked.extend(now_ms().to_be_bytes());
    checked.extend(now_ms().to_be_bytes());
    checked.extend((-1_i64).to_be_bytes());
    checked.extend((-1_i16).to_be_bytes());
    checked.extend((-1_i32).to_be_bytes());
    checked.extend((count as i32).to_be_bytes());
    checked.extend(records);
    let mut batch = Vec::new();
    batch.extend(0_i64.to_be_bytes());
    batch.extend((checked.len() as i32 + 9).to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend(crc32c(&checked).to_be_bytes());
    batch.extend(checked);
    batch
}

/// Bytes that compress to nothing less, the same for the same seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_be_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A Produce request (acks=all) of one batch to each of `partitions`.
pub fn produce(topic: &str, partitions: &[i32], batch: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((-1_i16).to_be_bytes());
    body.extend((-1_i16).to_be_bytes());
    body.extend(30_000_i32.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    string(&mut body, topic);
    body.extend((partitions.len() as i32).to_be_bytes());
    for partition in partitions {
        body.extend(partition.to_be_bytes());
        body.extend((batch.len() as i32).to_be_bytes());
        body.extend(batch);
    }
    framed(0, 7, &body)
}

/// A Fetch request for one partition from `offset`.
pub fn fetch(topic: &str, partition: i32, offset: i64, max_wait: Duration, max_bytes: i32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((-1_i32).to_be_bytes());
    body.extend((max_wait.as_millis() as i32).to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend(max_bytes.to_be_bytes());
    body.push(0);
    body.extend(1_i32.to_be_bytes());
    string(&mut body, topic);
    body.extend(1_i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
    body.extend(offset.to_be_bytes());
    body.extend(max_bytes.to_be_bytes());
    framed(1, 4, &body)
}

/// A CreateTopics request, version 2.
pub fn create_topic(topic: &str, partitions: i32, replicas: i16, configs: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(1_i32.to_be_bytes());
    string(&mut body, topic);
    body.extend(partitions.to_be_bytes());
    body.extend(replicas.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    body.extend((configs.len() as i32).to_be_bytes());
    for (name, value) in configs {
        string(&mut body, name);
        string(&mut body, value);
    }
    body.extend(60_000_i32.to_be_bytes());
    body.push(0);
    framed(19, 2, &body)
}

/// A DeleteTopics request, version 1.
pub fn delete_topic(topic: &str) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(1_i32.to_be_bytes());
    string(&mut body, topic);
    body.extend(60_000_i32.to_be_bytes());
    framed(20, 1, &body)
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    correlation: i32,
    answer: Vec<u8>,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        Self::connect_within(address, Duration::from_secs(60))
    }

    /// Connects; nothing takes longer than `patience`.
    pub fn connect_within(address: SocketAddr, patience: Duration) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(Self { stream, correlation: 0, answer: Vec::new() })
    }

    /// Sends a frame under the next correlation id.
    pub fn send(&mut self, frame: &mut [u8]) -> anyhow::Result<()> {
        self.correlation = self.correlation.wrapping_add(1);
        frame[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&self.correlation.to_be_bytes());
        self.stream.write_all(frame)?;
        Ok(())
    }

    /// Reads the next answer: its correlation id and body.
    pub fn receive(&mut self) -> anyhow::Result<(i32, &[u8])> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        self.answer.resize(u32::from_be_bytes(length) as usize, 0);
        self.stream.read_exact(&mut self.answer)?;
        let (head, body) = self.answer.split_at(4);
        Ok((i32::from_be_bytes(head.try_into()?), body))
    }

    /// Sends one frame and reads its answer.
    pub fn call(&mut self, frame: &mut [u8]) -> anyhow::Result<&[u8]> {
        self.send(frame)?;
        Ok(self.receive()?.1)
    }
}

/// What a run of requests took.
pub struct Run {
    /// Seconds of each request, in the order of the answers.
    pub latencies: Vec<f64>,
    /// Seconds of the whole run.
    pub seconds: f64,
    /// Bytes sent in frames.
    pub bytes: u64,
}

impl Run {
    /// The latency below which `share` of the requests stayed, in seconds.
    pub fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() as f64 * share) as usize).min(sorted.len() - 1)]
    }

    /// Requests in a second.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    /// Bytes in a second.
    pub fn bytes_rate(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }
}

/// How much load, and for how long.
#[derive(Clone, Copy)]
pub struct Load {
    /// Requests on the way at any time.
    pub in_flight: usize,
    /// The run ends after this time.
    pub time: Duration,
}

/// Sends `frames` in turn, keeping `load.in_flight` on the way, and hands each answer's body to `check`.
pub fn closed_loop(
    address: SocketAddr,
    frames: &mut [Vec<u8>],
    load: Load,
    check: fn(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Run> {
    closed_loop_with(address, frames, load, |_| {}, check)
}

/// The same, with something done to each frame before it leaves.
pub fn closed_loop_with(
    address: SocketAddr,
    frames: &mut [Vec<u8>],
    load: Load,
    mut prepare: impl FnMut(&mut [u8]),
    check: fn(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Run> {
    let mut client = Client::connect(address)?;
    let mut sent = VecDeque::new();
    let mut run = Run { latencies: Vec::new(), seconds: 0.0, bytes: 0 };
    let begin = Instant::now();
    let mut next = 0;
    loop {
        while sent.len() < load.in_flight && begin.elapsed() < load.time {
            sent.push_back(Instant::now());
            let at = next % frames.len();
            prepare(&mut frames[at]);
            client.send(&mut frames[at])?;
            run.bytes += frames[at].len() as u64;
            next += 1;
        }
        let Some(start) = sent.pop_front() else { break };
        let (_, body) = client.receive()?;
        check(body)?;
        run.latencies.push(start.elapsed().as_secs_f64());
    }
    run.seconds = begin.elapsed().as_secs_f64();
    ensure!(!run.latencies.is_empty(), "no request was answered");
    Ok(run)
}

/// Sends one frame over and over at a fixed rate, whatever the answers do; latencies count from when each was due.
pub fn open_loop(address: SocketAddr, frame: &mut [u8], rate: f64, time: Duration) -> anyhow::Result<Run> {
    let mut client = Client::connect(address)?;
    let mut answers = Client { stream: client.stream.try_clone()?, correlation: 0, answer: Vec::new() };
    let count = (time.as_secs_f64() * rate).max(1.0) as u32;
    let (period, begin) = (Duration::from_secs_f64(1.0 / rate), Instant::now());
    let reader = thread::spawn(move || {
        let mut latencies = Vec::with_capacity(count as usize);
        for number in 0..count {
            check_produced(answers.receive()?.1)?;
            latencies.push((begin.elapsed().saturating_sub(period * number)).as_secs_f64());
        }
        anyhow::Ok(latencies)
    });
    for number in 0..count {
        thread::sleep((begin + period * number).saturating_duration_since(Instant::now()));
        client.send(frame)?;
    }
    let latencies = reader.join().expect("the reader does not panic")?;
    let bytes = frame.len() as u64 * u64::from(count);
    Ok(Run { latencies, seconds: begin.elapsed().as_secs_f64(), bytes })
}

/// The first offset of partition 0 that this node's own log holds (ListOffsets version 9, time -4).
pub fn local_start(address: SocketAddr, topic: &str) -> anyhow::Result<i64> {
    // An empty set of tags behind the header and behind each part; compact lengths are one more than what follows.
    let mut body = vec![0];
    body.extend((-1_i32).to_be_bytes());
    body.extend([0, 2, topic.len() as u8 + 1]);
    body.extend(topic.as_bytes());
    body.push(2);
    body.extend(0_i32.to_be_bytes());
    body.extend((-1_i32).to_be_bytes());
    body.extend((-4_i64).to_be_bytes());
    body.extend([0, 0, 0]);
    let mut client = Client::connect(address)?;
    let answer = client.call(&mut framed(2, 9, &body))?;
    // tags 1 | throttle i32 | topics 1 | name 1 + n | partitions 1 | index i32 | error i16 | time i64 | offset i64
    let at = 1 + 4 + 1 + 1 + topic.len() + 1 + 4;
    let error = i16::from_be_bytes(answer[at..at + 2].try_into()?);
    ensure!(error == 0, "list offsets answered error {error}");
    Ok(i64::from_be_bytes(answer[at + 10..at + 18].try_into()?))
}

/// Refuses a Produce answer (version 7) that carries an error.
pub fn check_produced(body: &[u8]) -> anyhow::Result<()> {
    // topics i32 | name string | partitions i32 | (index i32 | error i16 | …)
    let name = i16::from_be_bytes(body[4..6].try_into()?) as usize;
    let at = 4 + 2 + name + 4 + 4;
    let error = i16::from_be_bytes(body[at..at + 2].try_into()?);
    ensure!(error == 0, "produce answered error {error}");
    Ok(())
}

/// The record bytes of a Fetch answer (version 4) for one partition.
pub fn fetched(body: &[u8]) -> anyhow::Result<&[u8]> {
    // throttle i32 | topics i32 | name string | partitions i32 | index i32 | error i16 | high i64 | stable i64 | aborted i32 | records
    let name = i16::from_be_bytes(body[8..10].try_into()?) as usize;
    let at = 10 + name + 4 + 4;
    let error = i16::from_be_bytes(body[at..at + 2].try_into()?);
    ensure!(error == 0, "fetch answered error {error}");
    let aborted = i32::from_be_bytes(body[at + 18..at + 22].try_into()?);
    ensure!(aborted <= 0, "no transactions here");
    let length = i32::from_be_bytes(body[at + 22..at + 26].try_into()?);
    Ok(&body[at + 26..at + 26 + length.max(0) as usize])
}

/// The offset behind the last batch in `records`, skipping a cut one at the end.
pub fn next_offset(records: &[u8]) -> Option<i64> {
    let (mut at, mut next) = (0, None);
    while at + 61 <= records.len() {
        let base = i64::from_be_bytes(records[at..at + 8].try_into().ok()?);
        let length = i32::from_be_bytes(records[at + 8..at + 12].try_into().ok()?) as usize;
        if at + 12 + length > records.len() {
            break;
        }
        let last_delta = i32::from_be_bytes(records[at + 23..at + 27].try_into().ok()?);
        next = Some(base + i64::from(last_delta) + 1);
        at += 12 + length;
    }
    next
}

/// A Metadata request, version 7, for one topic, or for none where the name is empty; nothing is created by it.
pub fn metadata(topic: &str) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(i32::from(!topic.is_empty()).to_be_bytes());
    if !topic.is_empty() {
        string(&mut body, topic);
    }
    body.push(0);
    framed(3, 7, &body)
}

/// What a Metadata answer says.
#[derive(Default)]
pub struct Metadata {
    /// Ids of the brokers.
    pub brokers: Vec<i32>,
    /// Of the topic that was asked for.
    pub partitions: BTreeMap<i32, Partition>,
}

/// A partition as a broker tells of it.
pub struct Partition {
    /// -1 where there is none.
    pub leader: i32,
    /// The leader's epoch.
    pub epoch: i32,
    /// How many replicas are in sync.
    pub in_sync: usize,
}

impl Metadata {
    /// Version 7: `throttle | brokers (id, host, port, rack) | cluster | controller | topics (error, name, internal, partitions
    /// (error, index, leader, epoch, replicas, in sync, offline))`.
    pub fn parse(body: &[u8]) -> anyhow::Result<Self> {
        let mut rest = Fields(body);
        rest.i32()?;
        let mut metadata = Self::default();
        for _ in 0..rest.i32()? {
            metadata.brokers.push(rest.i32()?);
            rest.string()?;
            rest.i32()?;
            rest.string()?;
        }
        rest.string()?;
        rest.i32()?;
        for _ in 0..rest.i32()? {
            rest.i16()?;
            rest.string()?;
            rest.take(1)?;
            for _ in 0..rest.i32()? {
                rest.i16()?;
                let (index, leader, epoch) = (rest.i32()?, rest.i32()?, rest.i32()?);
                rest.list()?;
                let in_sync = rest.list()?;
                rest.list()?;
                metadata.partitions.insert(index, Partition { leader, epoch, in_sync });
            }
        }
        Ok(metadata)
    }
}

/// The errors of a Produce answer (version 7) for one topic, by partition; zero is none.
pub fn produced(body: &[u8]) -> anyhow::Result<Vec<(i32, i16)>> {
    let mut rest = Fields(body);
    rest.i32()?;
    rest.string()?;
    let count = rest.i32()?;
    // index | error | base offset | append time | log start
    (0..count)
        .map(|_| {
            let told = (rest.i32()?, rest.i16()?);
            rest.take(24)?;
            Ok(told)
        })
        .collect()
}

/// What is left of an answer.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// So many bytes.
    pub fn take(&mut self, bytes: usize) -> anyhow::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes).context("the answer is short")?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number.
    pub fn i16(&mut self) -> anyhow::Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    /// A number.
    pub fn i32(&mut self) -> anyhow::Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    /// Nullable: nothing is empty.
    pub fn string(&mut self) -> anyhow::Result<String> {
        let length = self.i16()?.max(0) as usize;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    /// How many numbers it holds.
    fn list(&mut self) -> anyhow::Result<usize> {
        let count = self.i32()?.max(0) as usize;
        self.take(count * 4)?;
        Ok(count)
    }
}
