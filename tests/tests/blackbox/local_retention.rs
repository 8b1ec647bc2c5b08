//! `local.retention.*`: what is asked to stay on the node stays there beside the bucket's copy, in files of its own, and no more of it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use varve_tests::{
    clients::{create_topic, varve},
    marked::fill,
    node::{Node, Options},
    raw::{fetch, fetch_stored, list_offset},
    tool::Tool,
    wait_for,
};

const STORAGE_ERROR: i16 = 56;
const VALUE_BYTES: usize = 60_000;
const RECORDS: i64 = 300;
/// What the topic asks to keep.
const KEPT_BYTES: u64 = 4 << 20;
const SEGMENT_BYTES: u64 = 1 << 20;
/// A little more than the interval at which the node counts.
const COUNTED_WITHIN: Duration = Duration::from_secs(6);

fn is_served(node: &Node, topic: &str, number: i64) -> bool {
    let (code, records) = fetch_stored(node.kafka(), topic, number);
    let wanted = format!("<{topic} {number:06}>");
    code == 0 && records.windows(wanted.len()).any(|window| window == wanted.as_bytes())
}

fn local_start(node: &Node, topic: &str) -> i64 {
    list_offset(node.kafka(), topic, 0, -4).expect("the partition is served")
}

fn pending(node: &Node, topic: &str) -> i64 {
    list_offset(node.kafka(), topic, 0, -6).unwrap_or(-1)
}

/// Sealed files of the topic that was created first, by offset.
fn sealed(node: &Node) -> Vec<PathBuf> {
    let folder = node.data().join("segments").join(format!("{:016x}", 1));
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|suffix| suffix == "seg"));
    files.sort();
    files
}

fn range_of(file: &Path) -> (i64, i64) {
    let name = file.file_stem().unwrap().to_str().unwrap();
    let (base, end) = name.split_once('-').unwrap();
    (base.parse().unwrap(), end.parse().unwrap())
}

/// What cold reads asked the bucket for, all that were made before: it is carried over into the metrics at intervals. Its
/// requests are not counted beside those of jobs, which read claims and checkpoints.
fn gets(node: &Node) -> f64 {
    std::thread::sleep(COUNTED_WITHIN);
    node.metric("varve_tier_cache_misses_total")
}

/// What is asked to be local is read without the bucket, and is of about the size asked for.
fn check_kept(node: &Node) {
    let start = local_start(node, "kept");
    let local_bytes = (RECORDS - start) as u64 * VALUE_BYTES as u64;
    assert!(local_bytes + SEGMENT_BYTES >= KEPT_BYTES, "only {local_bytes} bytes are local");
    assert!(local_bytes <= KEPT_BYTES + 3 * SEGMENT_BYTES, "{local_bytes} bytes are local");
    let sealed_bytes: u64 = sealed(node).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!((KEPT_BYTES..KEPT_BYTES + 2 * SEGMENT_BYTES).contains(&sealed_bytes), "{sealed_bytes} in files");
    let before = gets(node);
    (start..RECORDS).for_each(|number| assert!(is_served(node, "kept", number), "{number}"));
    assert_eq!(gets(node), before, "local records were read from the bucket");
    let described = varve(node, &["topic", "describe-storage", "kept", "-o", "json"]);
    let described: serde_json::Value = serde_json::from_str(&described).unwrap();
    let count = |name: &str| described["partitions"][0][name].as_i64().unwrap();
    assert_eq!((count("local_start"), count("both") > 0), (start, true), "{described}");
    assert_eq!(count("cloud_only"), start, "{described}");
}

#[test]
fn what_local_retention_asks_for_stays_beside_the_bucket_and_minus_two_keeps_the_window_only() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = Node::start(Options::small());
    let local = format!("local.retention.bytes={KEPT_BYTES}");
    let segment = format!("segment.bytes={SEGMENT_BYTES}");
    create_topic(&node, "kept", 1, &[&segment, &local, "retention.ms=-1"]);
    create_topic(&node, "window", 1, &[&segment, "retention.ms=-1"]);
    fill(&node, "kept", 0..RECORDS, VALUE_BYTES);
    fill(&node, "window", 0..RECORDS, VALUE_BYTES);
    for topic in ["kept", "window"] {
        wait_for("everything to be in the bucket", 60, || {
            let next = pending(&node, topic);
            next == -1 || next >= RECORDS - 1
        });
    }
    assert!(node.terminate().success());
    node.restart();
    wait_for("what is too much to go", 30, || local_start(&node, "kept") > 0);
    check_kept(&node);
    let colder = local_start(&node, "window");
    assert!(colder > local_start(&node, "kept"), "the topic without local retention keeps {colder}..");
    let before = gets(&node);
    assert!(is_served(&node, "window", 0) && is_served(&node, "kept", 0));
    assert!(gets(&node) > before, "cold records did not come from the bucket");

    let kept = sealed(&node);
    node.kill();
    node.restart();
    check_kept(&node);
    assert_eq!(sealed(&node), kept, "a kill changes what is kept");
}

/// The range of a file that is gone answers with an error, everything else as ever, and no offset moves.
fn check_damaged(node: &Node, (base, end): (i64, i64), sealed_end: i64) {
    for number in [base, (base + end) / 2, end - 1] {
        assert_eq!(fetch(node.kafka(), "local", number).0, STORAGE_ERROR, "{number}");
    }
    assert_eq!(list_offset(node.kafka(), "local", 0, -2), Ok(0));
    for number in (0..base).chain(end..sealed_end) {
        assert!(is_served(node, "local", number), "{number}");
    }
}

/// A topic that never tiers, most of it in files of which nothing is in memory.
fn start_sealed() -> Node {
    let mut node = Node::start(Options::small());
    let segment = format!("segment.bytes={SEGMENT_BYTES}");
    create_topic(&node, "local", 1, &["remote.storage.enable=false", &segment, "retention.ms=-1"]);
    fill(&node, "local", 0..RECORDS, VALUE_BYTES);
    wait_for("the log to let go", 60, || sealed(&node).len() > 6);
    // Twice: whatever was in memory is not.
    for _ in 0..2 {
        assert!(node.terminate().success());
        node.restart();
    }
    node
}

#[test]
fn a_range_whose_only_file_is_gone_is_damaged_not_absent() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = start_sealed();
    let files = sealed(&node);
    let (_, sealed_end) = range_of(files.last().unwrap());
    node.kill();
    fs::remove_file(&files[1]).unwrap();
    node.restart();
    check_damaged(&node, range_of(&files[1]), sealed_end);
}

#[test]
fn a_file_that_goes_from_under_a_running_node_is_damage_of_its_range_alone() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let node = start_sealed();
    let files = sealed(&node);
    let (_, sealed_end) = range_of(files.last().unwrap());
    fs::remove_file(&files[1]).unwrap();
    // Again when the node has found it, says so and takes no more records: what is left is read all the same.
    check_damaged(&node, range_of(&files[1]), sealed_end);
    wait_for("the damage to be told", 30, || node.metric("varve_cluster_partitions_damaged") == 1.0);
    check_damaged(&node, range_of(&files[1]), sealed_end);
    assert!(node.log().contains("local-0"));
}

#[test]
fn a_topic_that_never_tiers_has_full_retention() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    const HELD: u64 = 8 << 20;
    let mut node = start_sealed();
    let _ = varve(&node, &["topic", "alter-config", "local", "--set", &format!("retention.bytes={HELD}")]);
    wait_for("retention", 30, || list_offset(node.kafka(), "local", 0, -2) > Ok(0));
    node.kill();
    node.restart();
    let start = list_offset(node.kafka(), "local", 0, -2).unwrap();
    let held = (RECORDS - start) as u64 * VALUE_BYTES as u64;
    assert!((HELD..HELD + 3 * SEGMENT_BYTES).contains(&held), "{held} bytes are held");
    assert!((start..RECORDS).all(|number| is_served(&node, "local", number)));
    assert_ne!(fetch(node.kafka(), "local", start - 1).0, 0);
    wait_for("files below it to go", 30, || sealed(&node).iter().all(|file| range_of(file).1 > start));
    assert!(node.terminate().success());
    node.restart();
    assert_eq!(list_offset(node.kafka(), "local", 0, -2), Ok(start));
    assert!((start..RECORDS).all(|number| is_served(&node, "local", number)));
    assert_eq!(node.metric("varve_tier_uploads_total"), 0.0, "a topic that never tiers was uploaded");
}

/// Nothing is written any more, so that nothing would close the last range but its age.
#[test]
fn records_of_a_quiet_topic_go_when_their_time_is_over_in_the_bucket_and_on_the_node() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let options = Options::small().env("VARVE_LOG_RETENTION_CHECK_INTERVAL_MS", "1000");
    let node = Node::start(options.env("VARVE_DELETE_GRACE_MS", "1000"));
    let (short, segment) = ("retention.ms=10000", "segment.bytes=200000");
    let stamped = "message.timestamp.type=LogAppendTime";
    create_topic(&node, "local", 1, &[short, segment, stamped, "remote.storage.enable=false"]);
    create_topic(&node, "tiered", 1, &[short, segment, stamped]);
    create_topic(&node, "kept", 1, &["retention.ms=-1", "remote.storage.enable=false"]);
    let topics = ["local", "tiered", "kept"];
    topics.iter().for_each(|topic| fill(&node, topic, 0..20, VALUE_BYTES));
    assert!(topics.iter().all(|topic| is_served(&node, topic, 19)));
    let start = |topic| list_offset(node.kafka(), topic, 0, -2);
    wait_for("all of both to be too old", 60, || [start("local"), start("tiered")] == [Ok(20), Ok(20)]);
    assert!(is_served(&node, "kept", 0) && !is_served(&node, "local", 19));
    wait_for("their files to go", 30, || sealed(&node).is_empty());
    assert_eq!(list_offset(node.kafka(), "tiered", 0, -1), Ok(20));
}
