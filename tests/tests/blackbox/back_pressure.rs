//! Producers that are faster than the disk: they wait, and nothing is refused that there is room for.

use std::{collections::BTreeMap, thread};

use varve_tests::{
    clients::{create_topic, kcat},
    faults::Failing,
    node::{Node, Options},
    tool::Tool,
};

/// Producers that are at work at once.
const PRODUCERS: u32 = 8;
/// Records of each, of 100 kB: together they are several times what a partition has under way.
const RECORDS: usize = 100;

#[test]
fn producers_that_are_faster_than_the_disk_are_slowed_down_and_keep_their_order() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    // A log that has room for all of it.
    let node = Node::start(Options::default().env("VARVE_WAL_BYTES_MAX", "2GiB"));
    create_topic(&node, "fast", 1, &[]);
    let Some(strace) = Failing::injected(node.pid(), "fdatasync", "delay_exit=300000") else { return };
    let lines = |producer: u32| -> Vec<String> {
        let line = |number| format!("{producer} {number} {}", "x".repeat(100_000));
        (0..RECORDS).map(line).collect()
    };
    thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (node, lines) = (&node, lines(producer).join("\n"));
            // Not idempotent: what is refused and comes again is behind what was sent after it.
            let arguments = ["-P", "-t", "fast", "-p", "0", "-X", "batch.size=1000000", "-X", "linger.ms=20"];
            scope.spawn(move || drop(kcat(node, &arguments, lines.as_bytes())));
        }
    });
    drop(strace);
    let refused = node.metric_of("varve_kafka_request_errors_total", "\"Produce\"");
    assert!(refused == 0.0, "{refused} batches were refused, though there was room");
    let read = kcat(&node, &["-C", "-q", "-e", "-t", "fast", "-p", "0", "-o", "0"], b"");
    let mut written: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for line in String::from_utf8(read).unwrap().lines() {
        let producer = line.split(' ').next().unwrap().parse().unwrap();
        written.entry(producer).or_default().push(line.to_owned());
    }
    for producer in 0..PRODUCERS {
        assert!(written[&producer] == lines(producer), "producer {producer} lost records, or their order");
    }
}
