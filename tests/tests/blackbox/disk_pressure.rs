//! Disks that fill, under a quota and for real: what is acknowledged stays, reads go on, producers wait, and the node recovers by itself
//! (TIERING.md 6; fault rows 16 and 17).

use std::{fs, time::Duration};

use varve_tests::{
    batch::{Batch, produce_code},
    clients::{create_topic, read_with_confluent, script},
    faults::SmallDisk,
    ledger::{Ledger, Repeats, Seen},
    node::{Node, Options},
    tool::Tool,
    wait_for,
};

use crate::{
    damage::is_read,
    rot::{fill, is_served, value},
};

const MIB: u64 = 1 << 20;
/// NOT_ENOUGH_REPLICAS and KAFKA_STORAGE_ERROR: clients come again.
const RETRIABLE: [i16; 2] = [19, 56];

/// Everything but a directory store lies on the small disk.
fn on(disk: &SmallDisk, store: &std::path::Path) -> Options {
    let mut options = Options::small().env("VARVE_WAL_BYTES_MAX", "64MiB");
    options.data = Some(disk.data());
    options.args(&["--object-store", store.to_str().unwrap()])
}

/// Writes so many records of 10 kB; all must be acknowledged. Gives their ledger.
fn write(node: &Node, topic: &str, name: &str, records: u64) -> Ledger {
    let path = node.folder().join(name);
    let records = records.to_string();
    let arguments = [path.to_str().unwrap(), name, topic, &records, "--codec", "none", "--size", "10000"];
    println!("{}", script("writer.py", node, &arguments)[0]);
    let mut ledger = Ledger::default();
    ledger.add(name, &path);
    assert_eq!((ledger.acknowledged().to_string(), ledger.failed()), (records, 0));
    ledger
}

/// Writes records from `next` on, until clients are told to come again; the end of what was acknowledged.
fn write_until_refused(node: &Node, topic: &str, mut next: usize, most: usize) -> usize {
    let mut refused = 0;
    while refused < 20 {
        let batch = Batch::of(&[&value(topic, next)]).encode();
        match produce_code(node.kafka(), topic, -1, &batch) {
            Some(0) => next += 1,
            Some(code) if RETRIABLE.contains(&code) => refused += 1,
            // No answer in time: it waits in the log, and may yet be written.
            None => break,
            other => panic!("record {next}: {other:?}"),
        }
        assert!(next < most, "a full disk takes everything");
    }
    next
}

fn check(node: &Node, topic: &str, ledger: &Ledger) {
    let out = node.folder().join("read");
    read_with_confluent(node, &[topic], &out);
    ledger.check(&Seen::load(&out), Repeats::Never);
}

/// The log's own limit is far away: what binds is the file system. What is tiered leaves it, so that producers hardly notice.
#[test]
fn on_a_disk_that_fills_what_is_tiered_makes_room_and_all_is_acknowledged() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let Some(disk) = SmallDisk::mount(128 * MIB) else { return };
    let store = tempfile::tempdir().unwrap();
    let mut node = Node::start(on(&disk, store.path()));
    // All of it should stay on the node, if only it could.
    create_topic(&node, "full", 2, &["segment.bytes=1048576", "local.retention.bytes=-1", "retention.ms=-1"]);
    disk.leave(24 * MIB);
    let ledger = write(&node, "full", "w", 8_000);
    assert!(node.log().contains("the disk is nearly full"), "80 MB went onto 24 MiB and nobody noticed");
    check(&node, "full", &ledger);
    node.kill();
    node.restart();
    check(&node, "full", &ledger);
    disk.make_room();
    wait_for("the pressure to end", 30, || node.metric("varve_storage_disk_short") == 0.0);
}

/// Nothing can leave: producers are told to come again, readers are served, and when room returns all goes on by itself.
#[test]
fn fault_16_a_full_disk_makes_producers_wait_and_heals_when_there_is_room() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let Some(disk) = SmallDisk::mount(128 * MIB) else { return };
    let store = tempfile::tempdir().unwrap();
    let mut node = Node::start(on(&disk, store.path()));
    create_topic(&node, "stays", 1, &["remote.storage.enable=false", "retention.ms=-1"]);
    create_topic(&node, "goes", 1, &["segment.bytes=1048576", "retention.ms=-1"]);
    fill(&node, "stays", 0..50);
    fill(&node, "goes", 0..50);
    disk.leave(6 * MIB);
    let next = write_until_refused(&node, "stays", 50, 20_000);
    assert_eq!(node.exited(), None);
    assert!((0..next).step_by(97).all(|number| is_served(node.kafka(), "stays", number)));
    assert!(is_read(&node, "goes", 0));
    // A start finds the disk as full as it was.
    node.kill();
    node.restart();
    assert!((0..next).step_by(97).all(|number| is_served(node.kafka(), "stays", number)));

    disk.make_room();
    fill(&node, "stays", next..next + 50);
    fill(&node, "goes", 50..100);
    assert!(
        (0..next + 50).all(|number| is_served(node.kafka(), "stays", number)),
        "an acknowledged record is lost"
    );
}

/// The embedded store shares the disk with the log: there is no other place. A topic that is deleted makes room, without a word to the node.
#[test]
fn fault_16_a_disk_full_of_segments_heals_when_a_topic_goes() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let Some(disk) = SmallDisk::mount(96 * MIB) else { return };
    let mut options = Options::small().env("VARVE_WAL_BYTES_MAX", "32MiB");
    options.data = Some(disk.data());
    let mut node = Node::start(options);
    create_topic(&node, "ballast", 1, &["remote.storage.enable=false", "retention.ms=-1"]);
    create_topic(&node, "kept", 1, &["segment.bytes=1048576", "retention.ms=-1"]);
    let path = node.folder().join("b");
    let arguments = [
        path.to_str().unwrap(),
        "b",
        "ballast",
        "3000",
        "--codec",
        "none",
        "--size",
        "10000",
        "--timeout-ms",
        "60000",
    ];
    println!("{}", script("writer.py", &node, &arguments)[0]);
    fill(&node, "kept", 0..100);
    let next = write_until_refused(&node, "kept", 100, 100_000);
    assert_eq!(node.exited(), None);
    assert!((0..next).step_by(997).all(|number| is_read(&node, "kept", number)));
    let _ = script("admin.py", &node, &["delete", "ballast"]);
    fill(&node, "kept", next..next + 20);
    node.kill();
    node.restart();
    assert!((0..next + 20).step_by(997).all(|number| is_read(&node, "kept", number)));
}

#[test]
fn fault_17_where_no_checkpoint_can_be_written_the_old_ones_stay_and_the_broker_lives() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let Some(disk) = SmallDisk::mount(4 * MIB) else { return };
    let mut node = Node::stopped(Options::small());
    fs::create_dir_all(node.data()).unwrap();
    std::os::unix::fs::symlink(disk.path(), node.data().join("groups")).unwrap();
    node.restart();
    create_topic(&node, "t", 1, &["segment.bytes=1048576", "retention.ms=-1"]);
    let mut ledger = write(&node, "t", "before", 2_000);
    wait_for("two checkpoints", 60, || checkpoints(disk.path()).len() >= 2);
    // Twice: one that is on its way out gives its room back.
    for _ in 0..2 {
        std::thread::sleep(Duration::from_secs(1));
        disk.leave(0);
    }
    let old = checkpoints(disk.path());
    // As much as the log has room for without a checkpoint, and less.
    let _ = write(&node, "t", "after", 100);
    ledger.add("after", &node.folder().join("after"));
    assert_eq!(node.exited(), None);
    let kept = checkpoints(disk.path());
    assert_eq!(old, kept, "where there is no room for a new one the old ones stay");
    node.kill();
    node.restart();
    check(&node, "t", &ledger);
    disk.make_room();
    // More than the log holds: it is cut again, behind checkpoints that can be written again.
    let _ = write(&node, "t", "more", 3_000);
    assert!(node.disk_bytes("wal") <= 16 * MIB);
    check(&node, "t", &{
        ledger.add("more", &node.folder().join("more"));
        ledger
    });
}

fn checkpoints(folder: &std::path::Path) -> Vec<String> {
    let files = varve_tests::faults::files_below(folder).into_iter();
    let files = files.filter(|file| file.extension().is_some_and(|suffix| suffix == "ckpt"));
    files.map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect()
}
