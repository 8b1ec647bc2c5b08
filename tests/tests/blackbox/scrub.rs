//! Scrub: what rots unread is found, on the node and in its bucket, and repaired from wherever a good copy is, beside a stopped node and in a
//! running one. Fault row 60, and the repairs of rows 23 and 28.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use varve_tests::{
    clients::{create_topic, script},
    faults::{files_below, flip_at},
    node::{Node, Options},
    raw::list_offset,
    tool::Tool,
    wait_for,
};

use crate::{
    damage::is_read,
    rot::{STORAGE_ERROR, fill, flip, produce, storage, value},
};

/// Runs a scrub of the running node; exit code and report.
pub fn scrub(node: &Node) -> (i32, Value) {
    scrub_with(node, &["scrub", "-o", "json", "--admin", &node.admin().to_string()])
}

/// The same of the files of a stopped one.
fn scrub_files(node: &Node) -> (i32, Value) {
    scrub_with(node, &["scrub", "-o", "json"])
}

fn scrub_with(node: &Node, arguments: &[&str]) -> (i32, Value) {
    let (code, text) = storage(node, arguments);
    let report = text.find('{').and_then(|begin| serde_json::from_str(&text[begin..]).ok());
    (code, report.unwrap_or_else(|| panic!("{code} {text}")))
}

/// What a report says of damage in a place: the outcomes.
pub fn outcomes(report: &Value, place: &str) -> Vec<String> {
    let rows = report["damaged"].as_array().unwrap().iter().filter(|row| row["place"] == place);
    rows.map(|row| row["outcome"].as_str().unwrap().to_owned()).collect()
}

fn objects(node: &Node, part: &str) -> Vec<PathBuf> {
    let files = files_below(&node.data().join("objects/data")).into_iter();
    files.filter(|file| file.to_string_lossy().contains(part)).collect()
}

/// The segment object that begins at an offset.
fn object_at(node: &Node, offset: usize) -> PathBuf {
    let holds = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let number = |at: usize| name.get(at..at + 20).and_then(|digits| digits.parse::<usize>().ok());
        number(0).is_some_and(|base| base <= offset) && number(21).is_some_and(|last| last >= offset)
    };
    objects(node, "/seg/").into_iter().find(holds).expect("the range is tiered")
}

fn middle(file: &Path) -> u64 {
    fs::metadata(file).unwrap().len() / 2
}

fn tiered_last(node: &Node) -> i64 {
    list_offset(node.kafka(), "t", 0, -5).unwrap_or(-1)
}

fn settings() -> Options {
    // Nothing by itself: what is tested is what was asked for.
    Options::default()
        .env("VARVE_WAL_BYTES_MAX", "64MiB")
        .env("VARVE_WAL_FILE_BYTES", "1MiB")
        .env("VARVE_SNAPSHOT_SEGMENTS", "2")
        .env("VARVE_SCRUB_INTERVAL_MS", "-1")
}

/// 2,000 records of 1 kB; all but the newest are in the bucket and, as asked, in sealed files.
fn start_tiered(options: Options) -> Node {
    let node = Node::start(options);
    create_topic(&node, "t", 1, &["segment.bytes=262144", "local.retention.bytes=-1", "retention.ms=-1"]);
    fill(&node, "t", 0..2_000);
    wait_for("the tier", 60, || tiered_last(&node) > 1_700);
    wait_for("checkpoints in the bucket", 60, || {
        objects(&node, "/p/").iter().any(|key| key.to_string_lossy().contains("/ckpt/"))
    });
    node
}

fn check_all(node: &Node, records: usize) {
    assert!((0..records).step_by(61).all(|number| is_read(node, "t", number)), "a record is not read");
    assert_eq!(node.metric("varve_cluster_partitions_damaged"), 0.0);
    assert_eq!(list_offset(node.kafka(), "t", 0, -2), Ok(0));
}

#[test]
fn scrub_of_a_running_node_repairs_files_checkpoints_and_objects_from_their_good_copies() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = start_tiered(settings());
    // Two local checkpoints of the partition.
    for _ in 0..2 {
        assert!(node.terminate().success());
        node.restart();
        assert_eq!(produce(&node, "t", 2_000), 0);
    }
    let (code, report) = scrub(&node);
    assert_eq!(
        (code, &report["damaged"], &report["state"]),
        (0, &Value::Array(vec![]), &"done".into()),
        "{report}"
    );

    let sealed = files_below(&node.data().join("segments")).remove(1);
    let whole = fs::read(&sealed).unwrap();
    flip_at(&sealed, middle(&sealed));
    let local: Vec<_> = files_below(&node.data().join("groups")).into_iter().collect();
    let local = local.iter().rfind(|file| file.to_string_lossy().contains("0000000001/")).unwrap();
    flip_at(local, middle(local));
    let published =
        objects(&node, "/ckpt/").into_iter().rfind(|key| key.to_string_lossy().contains("/p/")).unwrap();
    flip_at(&published, middle(&published));
    let object = object_at(&node, 900);
    flip_at(&object, middle(&object));
    let lost = object_at(&node, 1_300);
    fs::remove_file(&lost).unwrap();

    let (code, report) = scrub(&node);
    assert_eq!(outcomes(&report, "sealed file"), ["repaired"], "{report}");
    assert_eq!(fs::read(&sealed).unwrap(), whole);
    assert_eq!(outcomes(&report, "local checkpoint"), ["repaired"], "{report}");
    assert_eq!(outcomes(&report, "bucket checkpoint"), ["repaired"], "{report}");
    assert_eq!(outcomes(&report, "segment"), ["repaired", "repaired"], "{report}");
    assert_eq!((code, report["unrepaired"].as_u64()), (0, Some(0)));
    assert_eq!(objects(&node, "/mseg/").len(), 2, "a key is never written twice");
    assert!(node.metric("varve_scrub_damage_total") >= 5.0);
    assert!(node.log().contains("scrub found damage and repaired it"));
    let (code, text) = storage(&node, &["status", "--admin", &node.admin().to_string()]);
    assert!(code == 0 && text.contains("nothing is damaged") && text.contains("5 damaged"), "{code} {text}");

    // From the bucket alone: the repaired objects are as good as the first.
    check_all(&node, 2_000);
    assert!(node.terminate().success());
    for file in files_below(&node.data().join("segments")) {
        fs::remove_file(file).unwrap();
    }
    node.restart();
    check_all(&node, 2_000);
    let (_, report) = scrub(&node);
    assert_eq!(outcomes(&report, "segment"), Vec::<String>::new(), "{report}");
}

#[test]
fn scrub_beside_a_stopped_node_repairs_files_and_says_what_waits_for_the_node() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = start_tiered(settings());
    assert!(node.terminate().success());
    assert_eq!(scrub_files(&node).0, 0);
    let sealed = files_below(&node.data().join("segments")).remove(1);
    let whole = fs::read(&sealed).unwrap();
    flip_at(&sealed, middle(&sealed));
    let (code, report) = scrub_files(&node);
    assert_eq!((code, outcomes(&report, "sealed file")), (0, vec!["repaired".to_owned()]), "{report}");
    assert_eq!(fs::read(&sealed).unwrap(), whole);

    let object = object_at(&node, 900);
    flip_at(&object, middle(&object));
    let (code, report) = scrub_files(&node);
    assert_eq!((code, outcomes(&report, "segment")), (1, vec!["unrepaired".to_owned()]), "{report}");
    node.restart();
    let (code, report) = scrub(&node);
    assert_eq!((code, outcomes(&report, "segment")), (0, vec!["repaired".to_owned()]), "{report}");
    check_all(&node, 2_000);
}

#[test]
fn scrub_goes_on_by_itself_within_its_interval() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let node = start_tiered(settings().env("VARVE_SCRUB_INTERVAL_MS", "2s"));
    let object = object_at(&node, 900);
    flip_at(&object, middle(&object));
    wait_for("the repair", 60, || {
        objects(&node, "/mseg/").len() == 1 && node.metric("varve_scrub_damage_total") > 0.0
    });
    wait_for("the end of a pass that finds nothing", 60, || {
        node.metric("varve_scrub_last_timestamp_seconds") > 0.0
            && node.metric("varve_scrub_unrepaired") == 0.0
    });
    check_all(&node, 2_000);
}

/// Closed leaves: what the root of a manifest has handed on to an object of its own.
#[test]
fn scrub_makes_a_leaf_of_the_manifest_again_and_puts_a_segment_that_it_names_there_once_more() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = start_tiered(settings().env("VARVE_MANIFEST_FAN_OUT", "4"));
    wait_for("a leaf", 60, || objects(&node, "/node/").len() == 1);
    let leaf = objects(&node, "/node/").remove(0);
    let whole = fs::read(&leaf).unwrap();
    flip_at(&leaf, middle(&leaf));
    let (code, report) = scrub(&node);
    assert_eq!((code, outcomes(&report, "manifest node")), (0, vec!["repaired".to_owned()]), "{report}");
    let leaves = objects(&node, "/node/");
    let again: Vec<_> = leaves.iter().filter(|key| **key != leaf).collect();
    assert_eq!((leaves.len(), fs::read(again[0]).unwrap()), (2, whole), "not the same under a new key");

    // Gone altogether, and a segment that it names as well: that one is named by a third.
    fs::remove_file(again[0]).unwrap();
    let (code, report) = scrub(&node);
    assert_eq!((code, outcomes(&report, "manifest node")), (0, vec!["repaired".to_owned()]), "{report}");
    let object = object_at(&node, 100);
    flip_at(&object, middle(&object));
    let (code, report) = scrub(&node);
    assert_eq!((code, outcomes(&report, "segment")), (0, vec!["repaired".to_owned()]), "{report}");
    assert_eq!(objects(&node, "/mseg/").len(), 1);

    // From the bucket alone, by a node that remembers nothing.
    assert!(node.terminate().success());
    for file in files_below(&node.data().join("segments")) {
        fs::remove_file(file).unwrap();
    }
    node.restart();
    check_all(&node, 2_000);
    let (code, report) = scrub(&node);
    assert_eq!(code, 0, "{report}");
    assert_eq!(outcomes(&report, "segment"), Vec::<String>::new(), "{report}");
    assert_eq!(outcomes(&report, "manifest node"), Vec::<String>::new(), "{report}");
}

/// A leaf is made again from what it named, byte for byte, or not at all.
#[test]
fn a_leaf_whose_segment_is_lost_too_stays_damaged_and_is_said_to_be() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = start_tiered(settings().env("VARVE_MANIFEST_FAN_OUT", "4"));
    wait_for("a leaf", 60, || objects(&node, "/node/").len() == 1);
    let leaf = objects(&node, "/node/").remove(0);
    flip_at(&leaf, middle(&leaf));
    let object = object_at(&node, 100);
    let kept = fs::read(&object).unwrap();
    fs::remove_file(&object).unwrap();
    let (code, report) = scrub(&node);
    assert_eq!((code, outcomes(&report, "manifest node")), (1, vec!["unrepaired".to_owned()]), "{report}");
    assert!(report.to_string().contains("not all there"), "{report}");
    assert_eq!(list_offset(node.kafka(), "t", 0, -2), Ok(0), "records below it must not seem to be gone");
    // It comes back, and with it the leaf.
    fs::write(&object, kept).unwrap();
    let (code, report) = scrub(&node);
    assert_eq!((code, outcomes(&report, "manifest node")), (0, vec!["repaired".to_owned()]), "{report}");
    assert!(node.terminate().success());
    node.restart();
    check_all(&node, 2_000);
}

/// What a partition that has stopped still has is read as well: it is what a recovery will begin with.
#[test]
fn scrub_reads_what_is_left_of_a_partition_that_is_offline_and_repairs_its_files() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = start_tiered(settings());
    node.kill();
    // Of the newest records, which the log alone has.
    assert!(flip(&node.data().join("wal"), &value("t", 1_990)) > 0);
    node.restart();
    assert_eq!(produce(&node, "t", 2_000), STORAGE_ERROR);
    assert_eq!(scrub(&node).1["damaged"], Value::Array(vec![]));

    let sealed = files_below(&node.data().join("segments")).remove(1);
    let whole = fs::read(&sealed).unwrap();
    flip_at(&sealed, middle(&sealed));
    let (_, report) = scrub(&node);
    assert_eq!(outcomes(&report, "sealed file"), ["repaired"], "{report}");
    assert_eq!(fs::read(&sealed).unwrap(), whole);
    let object = object_at(&node, 900);
    flip_at(&object, middle(&object));
    let (code, report) = scrub(&node);
    assert_eq!((code, outcomes(&report, "segment")), (1, vec!["unrepaired".to_owned()]), "{report}");
    assert!(is_read(&node, "t", 1_200) && is_read(&node, "t", 900), "its sealed file serves");
}

/// Nothing else holds it any more: it is said, aloud and for as long as it is so, and nothing is made up.
#[test]
fn fault_60_an_object_that_went_behind_us_is_found_by_the_scan_and_its_reads_fail_aloud() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = Node::start(Options::small().env("VARVE_SCRUB_INTERVAL_MS", "-1"));
    create_topic(&node, "t", 1, &["segment.bytes=262144", "retention.ms=-1"]);
    fill(&node, "t", 0..1_000);
    let path = node.folder().join("w");
    let arguments = [path.to_str().unwrap(), "w", "t", "20000", "--codec", "none", "--size", "1000"];
    println!("{}", script("writer.py", &node, &arguments)[0]);
    wait_for("the log to be cut", 60, || {
        list_offset(node.kafka(), "t", 0, -4).is_ok_and(|start| start > 1_000)
    });
    node.kill();
    node.restart();
    let (gone, other) = (object_at(&node, 100), object_at(&node, 700));
    assert_ne!(gone, other);
    fs::remove_file(&gone).unwrap();
    flip_at(&other, 1000);
    let (code, report) = scrub(&node);
    assert_eq!((code, outcomes(&report, "segment")), (1, vec!["unrepaired".to_owned(); 2]), "{report}");
    assert_eq!(node.metric("varve_scrub_unrepaired"), 2.0);
    let (code, text) = storage(&node, &["status", "--admin", &node.admin().to_string()]);
    assert!(code == 1 && text.contains("2 of them still"), "{code} {text}");
    assert!(!is_read(&node, "t", 100));
    assert!(node.metric("varve_tier_read_damage_total") > 0.0);
    assert_eq!(list_offset(node.kafka(), "t", 0, -2), Ok(0), "records below it must not seem to be gone");
    // The others of the same partition are read and written.
    assert!(is_read(&node, "t", 400));
    assert_eq!(produce(&node, "t", 21_000), 0);
}
