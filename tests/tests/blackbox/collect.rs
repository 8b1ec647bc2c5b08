//! What nothing needs any more goes: from the bucket, from the disk, and for good.

use std::{fs, path::Path};

use varve_tests::{
    clients::{create_topic, kcat, script, topic_id, varve},
    node::{Node, Options},
    raw::list_offset,
    s3::Store,
    tool::Tool,
    wait_for,
};

const SEGMENT_BYTES: u64 = 64 << 10;

/// The keys below a folder of which `part` is a part.
fn files(folder: &Path, part: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let found = entries.flatten().flat_map(|entry| {
        let path = entry.path();
        if path.is_dir() { files(&path, part) } else { vec![path.display().to_string()] }
    });
    found.filter(|path| path.contains(part)).collect()
}

/// A topic with two partitions and at least eight segments in the tier.
fn fill(node: &Node, topic: &str) {
    create_topic(node, topic, 2, &[&format!("segment.bytes={SEGMENT_BYTES}")]);
    // Round by round: what comes in one go is one range, however long.
    let lines: Vec<u8> = (0..100).flat_map(|_| [[b'x'; 999].as_slice(), b"\n"].concat()).collect();
    for _ in 0..6 {
        for partition in ["0", "1"] {
            let _ = kcat(node, &["-P", "-t", topic, "-p", partition], &lines);
        }
    }
}

fn wait_for_objects(least: usize, list: impl Fn() -> Vec<String>) {
    wait_for("segments to be in the tier", 60, || {
        list().iter().filter(|key| key.ends_with(".seg")).count() >= least
    });
}

/// Deletes a full topic; the node is killed in the middle twice. In the end nothing is left of it.
fn a_deleted_topic_goes(node: &mut Node, list: impl Fn(&str) -> Vec<String>) {
    fill(node, "kept");
    fill(node, "gone");
    let (kept, gone) = (topic_id(node, "kept"), topic_id(node, "gone"));
    wait_for_objects(8, || list(&gone));
    wait_for_objects(8, || list(&kept));
    let files_before = files(&node.data().join("segments"), ".seg").len();
    let _ = varve(node, &["topic", "delete", "gone"]);
    node.kill();
    node.restart();
    wait_for("the deletion to begin", 60, || {
        let left = list(&gone).len();
        left == 0 || node.metric("varve_tier_deleted_objects_total") > 0.0
    });
    node.kill();
    node.restart();
    assert_eq!(node.metric("varve_cluster_topics"), 1.0);
    wait_for("the deletion to end", 90, || node.log().contains("pass=Final"));
    assert_eq!(list(&gone), Vec::<String>::new(), "objects of a deleted topic are left");
    wait_for("its journal entry to go", 20, || node.metric("varve_cluster_topic_deletions") == 0.0);
    assert!(list(&kept).iter().any(|key| key.ends_with(".seg")), "the other topic lost its objects");
    assert!(files(&node.data().join("segments"), ".seg").len() <= files_before, "its files are left");
    let groups = fs::read_dir(node.data().join("segments")).map_or(0, |entries| entries.flatten().count());
    assert!(groups <= 2, "folders of {groups} groups are left, two live");
    let read = kcat(node, &["-C", "-q", "-e", "-t", "kept", "-o", "beginning", "-f", "%o\n"], b"");
    assert_eq!(read.iter().filter(|byte| **byte == b'\n').count(), 1_200);
}

#[test]
fn a_deleted_topic_leaves_an_empty_prefix_and_a_free_disk_through_kills() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut node = Node::start(Options::small());
    let objects = node.data().join("objects");
    a_deleted_topic_goes(&mut node, |part| files(&objects, part));
}

#[test]
fn a_deleted_topic_leaves_an_empty_prefix_in_s3_through_kills() {
    if !Tool::need(&[Tool::Kcat, Tool::Python, Tool::Minio]) {
        return;
    }
    let store = Store::start();
    let mut node = Node::start(store.options(Options::small(), "deleted"));
    a_deleted_topic_goes(&mut node, |part| store.keys(part));
}

#[test]
fn b8_deleted_records_are_gone_at_once_and_their_objects_after_two_checkpoints() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut node = Node::start(Options::small());
    fill(&node, "trimmed");
    let id = topic_id(&node, "trimmed");
    let objects = node.data().join("objects");
    let segments = |node: &Node| {
        let folder = node.data().join("objects");
        files(&folder, &id).into_iter().filter(|key| key.ends_with(".seg")).collect::<Vec<_>>()
    };
    wait_for_objects(8, || files(&objects, &id));
    let delete = |node: &Node, partition: &str, offset: &str| {
        script("admin.py", node, &["delete-records", "trimmed", partition, offset])[0].clone()
    };
    assert_eq!(delete(&node, "0", "300")["low_watermark"], 300);
    assert_eq!(list_offset(node.kafka(), "trimmed", 0, -2), Ok(300));
    assert_eq!(delete(&node, "0", "601")["error"], "OFFSET_OUT_OF_RANGE");
    assert_eq!(delete(&node, "1", "-1")["low_watermark"], 600);
    node.kill();
    node.restart();
    assert_eq!(list_offset(node.kafka(), "trimmed", 0, -2), Ok(300));
    // Keys hold the last offset: what lies wholly below the log start goes, nothing else does.
    let is_below = |key: &str| {
        let name = key.rsplit('/').next().unwrap_or_default();
        let last: u64 = name.split('-').nth(1).and_then(|last| last.parse().ok()).expect("a segment's name");
        last < if key.contains("/00001/") { 600 } else { 300 }
    };
    wait_for("objects below the log start to go", 90, || !segments(&node).iter().any(|key| is_below(key)));
    let read =
        kcat(&node, &["-C", "-q", "-e", "-t", "trimmed", "-p", "0", "-o", "beginning", "-f", "%o\n"], b"");
    let offsets: Vec<u64> =
        String::from_utf8(read).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(offsets, (300..600).collect::<Vec<u64>>());
}

#[test]
fn objects_that_nothing_names_are_reported_and_deleted_only_on_demand() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut node = Node::start(Options::small().env("VARVE_ORPHANS_INTERVAL_MS", "1000"));
    fill(&node, "watched");
    let id = topic_id(&node, "watched");
    let objects = node.data().join("objects");
    wait_for_objects(8, || files(&objects, &id));
    let segment = files(&objects, &id).into_iter().find(|key| key.ends_with(".seg")).unwrap();
    // The same range, as another leader's upload that no command ever named.
    let (range, _) = segment.rsplit_once('-').unwrap();
    let orphan = format!("{range}-00000000000000aa.seg");
    fs::copy(&segment, &orphan).unwrap();
    wait_for("the orphan to be reported", 60, || node.metric("varve_tier_orphans") == 1.0);
    assert!(node.log().contains("00000000000000aa.seg"), "the log does not name it");
    assert!(Path::new(&orphan).exists(), "a dry run deletes nothing");
    assert!(node.metric("varve_tier_orphans_bytes") > 0.0);
    wait_for("bytes and cost to be counted", 15, || {
        let cost = node.metric("varve_s3_cost_estimate_dollars_total");
        let (sent, received) =
            (node.metric("varve_s3_sent_bytes_total"), node.metric("varve_s3_received_bytes_total"));
        // A few hundred requests.
        cost > 0.000_05 && cost < 0.01 && sent > 1_000.0 && received > 0.0
    });

    assert!(node.terminate().success());
    let options = node.options();
    *options = std::mem::take(options).env("VARVE_ORPHANS_MODE", "delete");
    node.restart();
    wait_for("the orphan to go", 60, || !Path::new(&orphan).exists());
    wait_for("the next look to find none", 60, || {
        node.metric("varve_tier_orphans_deleted_total") == 1.0 && node.metric("varve_tier_orphans") == 0.0
    });
    assert!(Path::new(&segment).exists(), "what the manifest names stays");
    let read = kcat(&node, &["-C", "-q", "-e", "-t", "watched", "-o", "beginning", "-f", "%o\n"], b"");
    assert_eq!(read.iter().filter(|byte| **byte == b'\n').count(), 1_200);
}
