//! The log stays within `varve.wal.bytes.max`, whatever happens to the tier.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use varve_tests::{
    clients::{create_topic, kcat, read_with_confluent, script, varve},
    ledger::{Ledger, Repeats, Seen},
    node::{Node, Options},
    s3::Store,
    scale,
    tool::Tool,
    wait_for,
};

use crate::proof::{check_all, create_topics, finish_writers, start_writers, stop_writers};

const BOUND: u64 = 256 << 20;
const VALUE_BYTES: u64 = 64 << 10;

fn options() -> Options {
    Options::default().env("VARVE_WAL_BYTES_MAX", "256MiB").env("VARVE_WAL_FILE_BYTES", "16MiB")
}

/// Writes more than the bound, several times by default, while the disk is watched; then reads it all back, and again after a kill: a log that
/// is full of what cannot leave must not keep a node from starting.
fn write_past_the_bound(node: &mut Node, configs: &[&str], while_writing: impl FnOnce() + Send) {
    let wanted = (scale("VARVE_WAL_BOUND_MIB", 2048) << 20) / VALUE_BYTES;
    create_topic(node, "bound", 4, configs);
    let path = node.folder().join("bound");
    let (size, records) = (VALUE_BYTES.to_string(), wanted.to_string());
    let arguments = [path.to_str().unwrap(), "w", "bound", &records, "--codec", "none", "--size", &size];
    let (is_done, most) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                most.fetch_max(node.disk_bytes("wal"), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(20));
            }
        });
        scope.spawn(while_writing);
        println!("{}", script("writer.py", node, &arguments)[0]);
        is_done.store(true, Ordering::Relaxed);
    });
    let most = most.into_inner();
    println!("the log took {} MiB at most", most >> 20);
    assert!(most <= BOUND, "the log took {most} bytes, {BOUND} is the bound");
    let mut ledger = Ledger::default();
    ledger.add("w", &path);
    assert_eq!(ledger.acknowledged() as u64, wanted, "all that was sent is acknowledged");
    let out = node.folder().join("read");
    read_with_confluent(node, &["bound"], &out);
    ledger.check(&Seen::load(&out), Repeats::Never);
    node.kill();
    node.restart();
    read_with_confluent(node, &["bound"], &out);
    ledger.check(&Seen::load(&out), Repeats::Never);
}

#[test]
fn the_log_stays_within_its_bound_while_tiered() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = Node::start(options());
    let configs = ["segment.bytes=16777216", "local.retention.bytes=67108864"];
    write_past_the_bound(&mut node, &configs, || {});
}

/// Also where a test fails: whoever looks until then would look for ever.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A thousand partitions in one log: every file holds a little of each, and all of it must be let go of before the file goes.
#[test]
fn the_log_of_a_thousand_partitions_stays_within_its_bound_and_its_files_go() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    const BOUND: u64 = 64 << 20;
    let options = Options::default().env("VARVE_WAL_BYTES_MAX", "64MiB").env("VARVE_WAL_FILE_BYTES", "2MiB");
    let mut node = Node::start(options);
    let _ = varve(&node, &["topic", "create", "many", "--partitions", "1000"]);
    let records = (scale("VARVE_WAL_BOUND_MIB", 2048) << 20) / 6 / 1024;
    let filler = "x".repeat(1024 - 9);
    let lines: String = (0..records).map(|number| format!("{number:08}{filler}\n")).collect();
    let (is_done, most) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                most.fetch_max(node.disk_bytes("wal"), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(20));
            }
        });
        // Any partition for each record; what is refused for want of room is sent again, and stored once.
        let everywhere = ["-X", "partitioner=random", "-X", "sticky.partitioning.linger.ms=0"];
        let once = ["-X", "enable.idempotence=true", "-X", "queue.buffering.max.messages=20000"];
        let arguments = [&["-P", "-t", "many"][..], &everywhere, &once].concat();
        let _end = SetAtEnd(&is_done);
        let _ = kcat(&node, &arguments, lines.as_bytes());
    });
    let most = most.into_inner();
    println!("{} MiB were written, the log took {} MiB at most", records >> 10, most >> 20);
    assert!(most <= BOUND, "the log took {most} bytes, {BOUND} is the bound");
    for _ in 0..2 {
        let read = kcat(&node, &["-C", "-q", "-e", "-t", "many", "-o", "beginning"], b"");
        let mut numbers: Vec<u64> = read
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| std::str::from_utf8(&line[..8]).unwrap().parse().unwrap())
            .collect();
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..records), "{} of {records} records", numbers.len());
        node.kill();
        node.restart();
    }
}

#[test]
fn the_log_stays_within_its_bound_without_a_tier() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = Node::start(options());
    write_past_the_bound(&mut node, &["segment.bytes=16777216", "remote.storage.enable=false"], || {});
}

#[test]
fn the_log_stays_within_its_bound_while_the_store_is_stopped() {
    if !Tool::need(&[Tool::Python, Tool::Minio]) {
        return;
    }
    let mut store = Store::start();
    let mut node = Node::start(store.options(options(), "bound"));
    write_past_the_bound(&mut node, &["segment.bytes=16777216"], || store.stop());
}

/// Nobody writes any more, so nothing but the node itself moves its groups on: checkpoints at rest must let go, and ranges far
/// below `segment.bytes` must be rolled.
#[test]
fn the_log_comes_below_its_mark_by_itself_when_producers_stop() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let node = Node::start(options());
    create_topic(&node, "idle", 3, &["remote.storage.enable=false"]);
    let path = node.folder().join("idle");
    let (size, records) = (VALUE_BYTES.to_string(), ((160 << 20) / VALUE_BYTES).to_string());
    let arguments = [path.to_str().unwrap(), "w", "idle", &records, "--codec", "none", "--size", &size];
    println!("{}", script("writer.py", &node, &arguments)[0]);
    wait_for("the log to fall below half of its bound", 60, || {
        (node.metric("varve_wal_disk_bytes") as u64) < BOUND / 2
    });
}

/// Each life of the process begins a file of its own: lives too short for a cut of the log must not fill it for good, or the next one
/// could not even say that it is there.
#[test]
fn lives_too_short_to_free_anything_do_not_jam_the_log() {
    if !Tool::need(&[Tool::Python, Tool::Kcat]) {
        return;
    }
    let mut node = Node::start(Options::small());
    create_topics(&node);
    let writers = start_writers(&node, 36_000_000, 3600);
    for _ in 0..scale("VARVE_SHORT_LIVES_ROUNDS", 2) {
        thread::sleep(Duration::from_secs(4));
        for _ in 0..40 {
            node.kill();
            node.launch();
            thread::sleep(Duration::from_millis(150));
        }
        node.kill();
        println!("the log takes {} MiB", node.disk_bytes("wal") >> 20);
        node.restart();
    }
    stop_writers(&node);
    check_all(&node, &finish_writers(&node, writers));
}
