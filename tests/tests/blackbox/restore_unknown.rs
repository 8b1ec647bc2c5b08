//! What a restore does where the bucket's own books do not tell it: metadata that is older than what was made, partitions that never
//! held a record, checkpoints that are damaged or gone.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use varve_tests::{
    clients::{kcat, topic_id, varve},
    cluster::{check_all, value},
    node::Node,
    tool::Tool,
    wait_for,
};

use crate::restore::{
    GROUP, at_once, command, committed, objects, produce, restore, restored, told, wait_tiered, written,
};

/// The metadata's checkpoints of a life, as they are now.
fn books(bucket: &Path, life: u32) -> BTreeMap<PathBuf, Vec<u8>> {
    let found = objects(bucket, &[&format!("meta/i{life:010}"), ".ckpt"]);
    found.into_iter().filter_map(|path| Some((path.clone(), fs::read(path).ok()?))).collect()
}

/// Only these are there, as if the cluster had ended before it published others.
fn turn_back(bucket: &Path, life: u32, books: &BTreeMap<PathBuf, Vec<u8>>) {
    objects(bucket, &[&format!("meta/i{life:010}"), ".ckpt"])
        .into_iter()
        .for_each(|path| fs::remove_file(path).unwrap());
    books.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn find<'a>(plan: &'a Value, topic: &str) -> Vec<&'a Value> {
    plan["partitions"].as_array().unwrap().iter().filter(|at| at["topic"] == topic).collect()
}

fn refused(bucket: &Path, data: &Path, arguments: &[&str]) -> String {
    let output = command(bucket, data, arguments).output().unwrap();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Partitions that were added, and the groups' own topic, after the metadata's checkpoint are there again, with their records and
/// commits; and a partition or topic that never held a record keeps no later life from being restored.
#[test]
fn partitions_that_the_metadata_does_not_know_yet_come_back_and_those_without_a_record_are_empty() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let (mut node, bucket, id) = written(250);
    let books = books(&bucket, 1);
    drop(varve(&node, &["topic", "add-partitions", "orders", "--num", "3"]));
    let lines: String = (0..50).map(|number| value(number) + "\n").collect();
    drop(kcat(&node, &["-P", "-t", "orders", "-p", "3"], lines.as_bytes()));
    drop(varve(&node, &["group", "seek", GROUP, "orders", "-p", "3", "--to", "30"]));
    assert_eq!(committed_in(&node, 3), Some(30));
    wait_for("what is new is in the bucket", 60, || {
        !objects(&bucket, &[&id, "/00003/", "/seg/"]).is_empty()
            && objects(&bucket, &["/seg/"]).iter().any(|path| !path.to_string_lossy().contains(&id))
    });
    node.kill();
    turn_back(&bucket, 1, &books);
    let data = node.folder().join("restored");
    let plan = restore(&bucket, &data, &["--plan"]);
    let added = &plan["partitions_added"][0];
    assert_eq!(
        (added["topic"].as_str(), added["from"].as_i64(), added["to"].as_i64()),
        (Some("orders"), Some(1), Some(4)),
        "{plan:#}"
    );
    assert_eq!(told(&plan, "orders", 3)["end"].as_u64(), Some(50));
    assert_eq!(told(&plan, "orders", 1)["from"].as_str(), Some("nothing"));
    // Their number says where a group is looked for. The configuration's 50 are not what it was: its group is in the first of fewer.
    assert_eq!(plan["topics_without_configuration"][0].as_str(), Some("__consumer_offsets"));
    assert_eq!((find(&plan, "__consumer_offsets").len(), &plan["strayed"]), (1, &serde_json::json!([])));
    let done = command(&bucket, &data, &["--yes", "--wait", "0", "-o", "json"])
        .env("VARVE_OFFSETS_TOPIC_NUM_PARTITIONS", "2")
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let done: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(
        find(&done, "__consumer_offsets").len(),
        2,
        "as many as the cluster had, not as have objects: {done:#}"
    );
    let mut again = restored(&bucket, &data);
    check_all(&again, "orders", 250);
    let read = kcat(&again, &["-C", "-q", "-e", "-t", "orders", "-p", "3", "-o", "beginning"], b"");
    assert_eq!(String::from_utf8(read).unwrap(), lines);
    assert_eq!(committed_in(&again, 3), Some(30));

    drop(varve(&again, &["topic", "add-partitions", "orders", "--num", "1"]));
    drop(varve(&again, &["topic", "create", "silent", "-p", "2"]));
    let knows = |plan: &Value| find(plan, "silent").len() == 2 && find(plan, "orders").len() == 5;
    wait_for("the second life's metadata knows them", 60, || {
        knows(&restore(&bucket, node.folder(), &["--plan"]))
    });
    again.kill();
    let third = node.folder().join("third");
    let done = at_once(&bucket, &third);
    assert_eq!(
        (done["incarnation"].as_u64(), told(&done, "orders", 4)["from"].as_str()),
        (Some(3), Some("nothing"))
    );
    let last = restored(&bucket, &third);
    check_all(&last, "orders", 250);
    drop(kcat(&last, &["-P", "-t", "silent", "-p", "1"], b"a word\n"));
}

fn committed_in(node: &Node, partition: i64) -> Option<i64> {
    let mut at = None;
    wait_for("the group's coordinator answers", 60, || {
        at = committed(node, "orders", partition);
        at.is_some()
    });
    at
}

/// One partition of which every checkpoint is damaged, and one of which all were removed: the rest waits for a word for each, and then
/// both go on behind what is known to have been given out.
#[test]
fn what_is_lost_of_one_partition_keeps_the_others_only_until_that_is_accepted() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let (mut node, bucket, id) = written(500);
    drop(varve(&node, &["topic", "create", "other", "-p", "1", "-c", "retention.ms=-1"]));
    drop(varve(&node, &["topic", "create", "whole", "-p", "1", "-c", "retention.ms=-1"]));
    let (other, whole) = (topic_id(&node, "other"), topic_id(&node, "whole"));
    for (topic, id) in [("other", &other), ("whole", &whole)] {
        produce(&node, topic, 0..100);
        wait_tiered(&bucket, id, 100);
    }
    wait_for("all have checkpoints, and the metadata knows them", 60, || {
        let plan = restore(&bucket, node.folder(), &["--plan"]);
        ["orders", "other", "whole"]
            .iter()
            .all(|topic| find(&plan, topic).first().is_some_and(|at| at["from"] == "checkpoint"))
            && plan["topics_without_configuration"].as_array().unwrap().is_empty()
    });
    node.kill();
    objects(&bucket, &[&id, "/ckpt/"]).iter().for_each(|path| flip(path));
    // Its checkpoints are gone, and what they named is not all there as it was rolled.
    objects(&bucket, &[&other, "/ckpt/"]).iter().for_each(|path| fs::remove_file(path).unwrap());
    let first = objects(&bucket, &[&other, "/seg/"]).remove(0);
    fs::rename(&first, first.with_file_name(moved(&first))).unwrap();
    let data = node.folder().join("restored");
    let why = refused(&bucket, &data, &["--plan"]);
    assert!(
        why.contains("orders-0 (") && why.contains("other-0 (") && why.contains("--accept-loss"),
        "{why}"
    );
    let why = refused(&bucket, &data, &["--yes", "--wait", "0", "--accept-loss", "orders-0"]);
    assert!(why.contains("other-0 (") && !why.contains("orders-0 ("), "{why}");
    let why = refused(&bucket, &data, &["--plan", "--accept-loss", "nothing"]);
    assert!(why.contains("nothing"), "{why}");
    assert!(objects(&bucket, &["claim/0000000002"]).is_empty() && !data.exists(), "nothing is begun");

    let accepted = ["--yes", "--wait", "0", "--accept-loss", "orders-0", "--accept-loss", "other"];
    let done = restore(&bucket, &data, &accepted);
    for (topic, end) in [("orders", 500), ("other", 100)] {
        let at = told(&done, topic, 0);
        assert_eq!(at["lost"]["accepted"].as_bool(), Some(true), "{done:#}");
        assert!(at["end"].as_u64() >= Some(end), "{done:#}");
    }
    let again = restored(&bucket, &data);
    check_all(&again, "whole", 100);
    for topic in ["orders", "other"] {
        let at = told(&done, topic, 0);
        let (start, end) = (at["start"].as_u64().unwrap(), at["end"].as_u64().unwrap());
        produce(&again, topic, end..end + 1);
        let read = kcat(&again, &["-C", "-q", "-e", "-t", topic, "-o", "beginning", "-f", "%o %s\n"], b"");
        let wanted: String = (start..=end).map(|at| format!("{at} {}\n", value(at))).collect();
        assert_eq!(
            String::from_utf8(read).unwrap(),
            wanted,
            "what is left is what was, and nothing is given out twice"
        );
    }
}

/// The name of a segment that begins one offset later.
fn moved(segment: &Path) -> String {
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    let (base, rest) = name.split_once('-').unwrap();
    format!("{:020}-{rest}", base.parse::<u64>().unwrap() + 1)
}
