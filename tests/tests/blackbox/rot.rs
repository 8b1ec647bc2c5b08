//! Bits that flip on the disk of a running node: the partition that they hit stops, everybody else is served, and the log goes on letting go.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use varve_tests::{
    batch::{Batch, produce_patiently},
    clients::{create_topic, read_with_confluent, script},
    ledger::{Ledger, Seen},
    marked,
    node::{Node, Options},
    raw::{fetch_stored, list_offset},
    tool::{self, Tool},
    wait_for,
};

pub(crate) const STORAGE_ERROR: i16 = 56;

/// A value that stands once in all files, and in which a byte can be changed.
pub(crate) fn value(topic: &str, number: usize) -> Vec<u8> {
    marked::value(topic, number as i64, format!("<{topic} {number:06}>").len() + 1000)
}

pub(crate) fn produce(node: &Node, topic: &str, number: usize) -> i16 {
    let batch = Batch::of(&[&value(topic, number)]).encode();
    produce_patiently(node.kafka(), topic, &batch).expect("the connection stays open")
}

pub(crate) fn fill(node: &Node, topic: &str, numbers: std::ops::Range<usize>) {
    numbers.for_each(|number| assert_eq!(produce(node, topic, number), 0, "{topic} {number}"));
}

/// Flips a bit of every place below `folder` that holds `needle`; how many there were. Written as a disk rots: from outside, in place.
pub(crate) fn flip(folder: &Path, needle: &[u8]) -> usize {
    use std::os::unix::fs::FileExt as _;
    let mut flipped = 0;
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            flipped += flip(&entry.path(), needle);
            continue;
        }
        // A file of the log may go between the two.
        let Ok(bytes) = fs::read(entry.path()) else { continue };
        let places = bytes.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle);
        for (at, _) in places {
            let file = fs::File::options().write(true).open(entry.path()).unwrap();
            file.write_all_at(&[needle[needle.len() - 1] ^ 4], (at + needle.len() - 1) as u64).unwrap();
            flipped += 1;
        }
    }
    flipped
}

pub(crate) fn is_served(address: SocketAddr, topic: &str, number: usize) -> bool {
    let (code, records) = fetch_stored(address, topic, number as i64);
    code == 0 && records.windows(1000).any(|window| value(topic, number).starts_with(window))
}

/// What holds once the rot was found: that partition stops and says so, the other is served.
fn check_stopped(node: &mut Node, next: &mut usize) {
    assert_eq!(produce(node, "rotten", 0), STORAGE_ERROR);
    for _ in 0..10 {
        assert_eq!(produce(node, "healthy", *next), 0);
        assert!(is_served(node.kafka(), "healthy", *next), "a record of another partition is not read back");
        *next += 1;
    }
    assert!(is_served(node.kafka(), "healthy", 0));
    let (status, body) = node.http("/readyz").unwrap();
    assert!(status == 200 && body.contains("rotten-0"), "{status} {body}");
    assert_eq!(node.exited(), None, "the process ended");
}

/// A node with 100 records in each of two partitions, written in turns.
fn start_with_both() -> Node {
    let node = Node::start(Options::default());
    create_topic(&node, "rotten", 1, &["remote.storage.enable=false", "retention.ms=-1"]);
    create_topic(&node, "healthy", 1, &["retention.ms=-1"]);
    for number in 0..100 {
        fill(&node, "rotten", number..number + 1);
        fill(&node, "healthy", number..number + 1);
    }
    node
}

fn wait_until_stopped(node: &Node) {
    wait_for("the partition to stop", 30, || node.metric("varve_cluster_partitions_damaged") > 0.0);
}

#[test]
fn rot_in_the_log_that_a_fetch_finds_stops_its_partition_only() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = start_with_both();
    // What is in memory is served from there: after a stop, which leaves nothing to replay, nothing is.
    assert!(node.terminate().success());
    node.restart();
    assert_eq!(flip(&node.data().join("wal"), &value("rotten", 50)[..600]), 1);

    assert_eq!(fetch_stored(node.kafka(), "rotten", 50).0, STORAGE_ERROR);
    wait_until_stopped(&node);
    let mut next = 100;
    check_stopped(&mut node, &mut next);
    assert!(
        is_served(node.kafka(), "rotten", 49) && is_served(node.kafka(), "rotten", 51),
        "more is lost than the rot hit"
    );
    assert_eq!(fetch_stored(node.kafka(), "rotten", 50).0, STORAGE_ERROR);
    for _ in 0..2 {
        node.kill();
        node.restart();
        check_stopped(&mut node, &mut next);
        assert_eq!(fetch_stored(node.kafka(), "rotten", 50).0, STORAGE_ERROR);
    }
    assert!(node.log().contains("rotten-0"), "the log does not name the partition");
}

#[test]
fn rot_in_the_log_does_not_keep_the_log_from_letting_go() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    // What is still in memory would be sealed from there: little is.
    let mut node = Node::start(Options::small().env("VARVE_MEMORY_BYTES_MAX", "64MiB"));
    create_topic(&node, "rotten", 1, &["remote.storage.enable=false", "retention.ms=-1"]);
    create_topic(&node, "healthy", 1, &["segment.bytes=1048576", "retention.ms=-1"]);
    fill(&node, "rotten", 0..100);
    fill(&node, "healthy", 0..1);
    assert_eq!(flip(&node.data().join("wal"), &value("rotten", 50)[..600]), 1);
    // Several times the log's bound: what is in its oldest file must be copied or sealed, and the file must go.
    let path = node.folder().join("ledger");
    let arguments = [path.to_str().unwrap(), "w", "healthy", "64000", "--codec", "none", "--size", "1000"];
    println!("{}", script("writer.py", &node, &arguments)[0]);
    let mut ledger = Ledger::default();
    ledger.add("w", &path);
    assert_eq!((ledger.acknowledged(), ledger.failed()), (64_000, 0));
    wait_until_stopped(&node);
    assert!(node.disk_bytes("wal") <= 16 << 20);
    let check = |node: &mut Node| {
        assert_eq!(produce(node, "rotten", 0), STORAGE_ERROR);
        assert_eq!(node.exited(), None);
        let out = node.folder().join("read");
        read_with_confluent(node, &["healthy"], &out);
        assert!(Seen::load(&out).0.len() > 64_000);
    };
    check(&mut node);
    node.kill();
    node.restart();
    check(&mut node);
    fill(&node, "healthy", 1..10);
}

#[test]
fn rot_in_a_sealed_file_stops_its_partition_only() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = Node::start(Options::small());
    create_topic(
        &node,
        "rotten",
        1,
        &["remote.storage.enable=false", "segment.bytes=262144", "retention.ms=-1"],
    );
    create_topic(&node, "healthy", 1, &["retention.ms=-1"]);
    fill(&node, "healthy", 0..1);
    let path = node.folder().join("ledger");
    fill(&node, "rotten", 0..300);
    let arguments = [path.to_str().unwrap(), "w", "rotten", "30000", "--codec", "none", "--size", "1000"];
    println!("{}", script("writer.py", &node, &arguments)[0]);
    wait_for("sealed files", 30, || node.disk_bytes("segments") > 0);
    wait_for("the log to be cut", 60, || flip(&node.data().join("wal"), &value("rotten", 50)[..600]) == 0);
    node.kill();
    node.restart();
    assert!(flip(&node.data().join("segments"), &value("rotten", 50)[..600]) > 0);
    assert_eq!(fetch_stored(node.kafka(), "rotten", 50).0, STORAGE_ERROR);
    wait_until_stopped(&node);
    let mut next = 1;
    check_stopped(&mut node, &mut next);
    node.kill();
    node.restart();
    check_stopped(&mut node, &mut next);
}

/// `varve storage ...` on the node's directory: its exit code, and what it says.
pub(crate) fn storage(node: &Node, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(tool::varve());
    command.arg("storage").args(arguments).arg("--data-dir").arg(node.data());
    tool::without_our_variables(&mut command);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn an_accepted_loss_is_told_and_its_partition_goes_on_with_what_is_left() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = start_with_both();
    node.kill();
    assert_eq!(flip(&node.data().join("wal"), &value("rotten", 50)[..600]), 1);
    node.restart();
    let mut next = 100;
    check_stopped(&mut node, &mut next);
    assert_eq!(fetch_stored(node.kafka(), "rotten", 50).0, STORAGE_ERROR);
    let (code, text) = storage(&node, &["status"]);
    assert!(code == 1 && text.contains("another process"), "{code} {text}");
    assert!(node.terminate().success());

    let damaged = |text: &str| -> serde_json::Value { serde_json::from_str(text).expect(text) };
    let (code, text) = storage(&node, &["status", "-o", "json"]);
    let found = damaged(&text);
    assert_eq!((code, found.as_array().unwrap().len()), (1, 1), "{text}");
    assert_eq!(
        (found[0]["partition"].as_str(), found[0]["lost_from_offset"].as_i64()),
        (Some("rotten-0"), Some(50))
    );
    assert_eq!(storage(&node, &["recover"]).0, 2, "nothing is given up without a word");
    assert_eq!(storage(&node, &["recover", "--accept-loss", "--partition", "healthy-0"]).0, 1);
    let (code, text) = storage(&node, &["recover", "--accept-loss", "--partition", "rotten-0", "-o", "json"]);
    assert_eq!((code, damaged(&text)[0]["state"].as_str()), (0, Some("accepted")), "{text}");
    assert_eq!(storage(&node, &["status"]).0, 0);

    node.restart();
    for life in 0..3 {
        let end = 50 + life;
        assert_eq!(list_offset(node.kafka(), "rotten", 0, -2), Ok(0));
        assert_eq!(list_offset(node.kafka(), "rotten", 0, -1), Ok(end as i64));
        assert!((0..end).all(|number| is_served(node.kafka(), "rotten", number)), "{life}");
        assert!((0..next).all(|number| is_served(node.kafka(), "healthy", number)), "{life}");
        assert_eq!(node.metric("varve_cluster_partitions_damaged"), 0.0);
        fill(&node, "rotten", end..end + 1);
        if life == 1 {
            assert!(node.terminate().success())
        } else {
            node.kill()
        }
        node.restart();
    }
}
