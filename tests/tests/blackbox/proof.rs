//! The proof from outside: what was acknowledged is there, after ten kills at random moments, from the local log and from the object store.

use std::{path::PathBuf, process::Child, thread, time::Duration};

use varve_tests::{
    chance::Chance,
    clients::{create_topic, finish, kcat, read_with_confluent, start_script},
    ledger::{KCAT_FORMAT, Ledger, Repeats, Seen},
    node::{Node, Options},
    raw::list_offset,
    scale,
    tool::Tool,
    wait_for,
};

const SEGMENT_BYTES: u64 = 256 << 10;
/// Less than any partition is written: sealed files above it go once they are tiered.
const LOCAL_BYTES: u64 = 512 << 10;

/// One writer of the proof: its topic, partitions, and how it writes.
pub struct Writer {
    pub topic: &'static str,
    pub partitions: u32,
    pub codec: &'static str,
    pub idempotence: &'static str,
}

pub const WRITERS: &[Writer] = &[
    Writer { topic: "proof-mixed", partitions: 4, codec: "mix", idempotence: "true" },
    Writer { topic: "proof-zstd", partitions: 2, codec: "zstd", idempotence: "true" },
    Writer { topic: "proof-plain", partitions: 2, codec: "gzip", idempotence: "false" },
];

pub fn create_topics(node: &Node) {
    let (segment, local) =
        (format!("segment.bytes={SEGMENT_BYTES}"), format!("local.retention.bytes={LOCAL_BYTES}"));
    for writer in WRITERS {
        create_topic(node, writer.topic, writer.partitions, &[&segment, &local]);
    }
}

/// Starts every writer: `records` in all, spread over `seconds`.
pub fn start_writers(node: &Node, records: u64, seconds: u64) -> Vec<(&'static Writer, Child)> {
    let each = records / WRITERS.len() as u64;
    let start = |writer: &'static Writer| {
        let ledger = node.folder().join(writer.topic);
        let (records, rate) = (each.to_string(), (each / seconds).max(1).to_string());
        let arguments = [ledger.to_str().unwrap(), writer.topic, writer.topic, &records];
        let until = stop_file(node);
        let until = until.to_str().unwrap();
        let how =
            ["--codec", writer.codec, "--idempotence", writer.idempotence, "--rate", &rate, "--until", until];
        (writer, start_script("writer.py", node, &[arguments.as_slice(), how.as_slice()].concat()))
    };
    WRITERS.iter().map(start).collect()
}

/// Tells the writers that it is enough.
pub fn stop_writers(node: &Node) {
    std::fs::write(stop_file(node), "").unwrap();
}

fn stop_file(node: &Node) -> PathBuf {
    node.folder().join("writers-stop")
}

/// Waits for the writers; says what they were acknowledged.
pub fn finish_writers(node: &Node, writers: Vec<(&'static Writer, Child)>) -> Vec<(&'static Writer, Ledger)> {
    let finish = |(writer, child): (&'static Writer, Child)| {
        println!("{}: {}", writer.topic, finish("writer.py", child)[0]);
        let mut ledger = Ledger::default();
        ledger.add(writer.topic, &node.folder().join(writer.topic));
        (writer, ledger)
    };
    writers.into_iter().map(finish).collect()
}

/// Reads every topic with both clients and holds it against the ledgers.
pub fn check_all(node: &Node, ledgers: &[(&'static Writer, Ledger)]) {
    for (writer, ledger) in ledgers {
        let topic = writer.topic;
        let out = node.folder().join("read");
        read_with_confluent(node, &[topic], &out);
        let by_confluent = Seen::load(&out);
        let reading =
            ["-C", "-q", "-e", "-t", topic, "-o", "beginning", "-X", "check.crcs=true", "-f", KCAT_FORMAT];
        let by_kcat = Seen::of_kcat(topic, &kcat(node, &reading, b""));
        assert!(by_confluent == by_kcat, "kcat and confluent-kafka read {topic} differently");
        let repeats = if writer.idempotence == "true" { Repeats::Never } else { Repeats::Allowed };
        ledger.check(&by_confluent, repeats);
        println!(
            "{topic}: {} acknowledged, {} read, {} failed",
            ledger.acknowledged(),
            by_kcat.0.len(),
            ledger.failed()
        );
    }
}

/// Waits until the tiered range of every partition that has one is gone from the local disk, as clients and the disk itself say.
pub fn wait_until_tiered(node: &Node) {
    let mut partitions = 0;
    for writer in WRITERS {
        for partition in 0..writer.partitions {
            let offset = |special| {
                list_offset(node.kafka(), writer.topic, partition.try_into().unwrap(), special).unwrap_or(-1)
            };
            wait_for("the local range to begin above the log's start", 120, || offset(-4) > offset(-2));
            assert!(offset(-5) + 1 >= offset(-4), "what is gone locally is not in the tier");
            partitions += 1;
        }
    }
    let allowed = partitions * (LOCAL_BYTES + 3 * SEGMENT_BYTES);
    wait_for("local segments to go", 120, || node.disk_bytes("segments") <= allowed);
}

#[test]
fn every_acknowledged_record_survives_ten_kills() {
    if !Tool::need(&[Tool::Python, Tool::Kcat]) {
        return;
    }
    let (records, kills) = (scale("VARVE_PROOF_RECORDS", 240_000), scale("VARVE_PROOF_KILLS", 10));
    let mut chance = Chance::from_environment();
    let mut node = Node::start(Options::small());
    create_topics(&node);
    let writers = start_writers(&node, records, 4 * kills);
    for _ in 0..kills {
        thread::sleep(Duration::from_millis(500 + chance.below(4000)));
        node.kill();
        node.restart();
    }
    let ledgers = finish_writers(&node, writers);
    let acknowledged: usize = ledgers.iter().map(|(_, ledger)| ledger.acknowledged()).sum();
    assert!(
        acknowledged as u64 * 100 >= records / 3 * 3 * 99,
        "only {acknowledged} of {records} were acknowledged"
    );
    node.kill();
    node.restart();
    check_all(&node, &ledgers);
    wait_until_tiered(&node);
    check_all(&node, &ledgers);
    node.kill();
    node.restart();
    check_all(&node, &ledgers);
}
