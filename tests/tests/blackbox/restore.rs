//! A cluster from its bucket alone: everything that ran, and every disk, is gone; `varve restore` makes the next life.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use varve_tests::{
    clients::{kcat, topic_id, varve, varve_json},
    cluster::{Cluster, check_all, value},
    node::{Node, Options},
    tool::{self, Tool},
    wait_for,
};

pub(crate) const GROUP: &str = "readers";

pub(crate) fn quick() -> Options {
    Options::small()
        .env("VARVE_OFFSETS_TOPIC_NUM_PARTITIONS", "2")
        .env("VARVE_TIER_MAX_AGE_MS", "500")
        .env("VARVE_SNAPSHOT_MAX_AGE_MS", "1000")
}

pub(crate) fn command(bucket: &Path, data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(tool::varve());
    command.arg("restore").args(arguments).arg("--object-store").arg(bucket).arg("--data-dir").arg(data);
    tool::without_our_variables(&mut command);
    command.stdin(Stdio::null());
    command
}

/// What it would restore, or has restored.
pub(crate) fn restore(bucket: &Path, data: &Path, arguments: &[&str]) -> Value {
    let output = command(bucket, data, arguments).args(["-o", "json"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn at_once(bucket: &Path, data: &Path) -> Value {
    restore(bucket, data, &["--yes", "--wait", "0"])
}

/// What is told of a partition.
pub(crate) fn told<'a>(plan: &'a Value, topic: &str, partition: i64) -> &'a Value {
    let partitions = plan["partitions"].as_array().unwrap();
    let is = |at: &&Value| at["topic"] == topic && at["partition"] == partition;
    partitions.iter().find(is).unwrap_or_else(|| panic!("nothing of {topic}-{partition}: {plan:#}"))
}

pub(crate) fn below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let each = entries.flatten().map(|entry| entry.path());
    each.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}

/// Objects whose keys hold all of these.
pub(crate) fn objects(bucket: &Path, parts: &[&str]) -> Vec<PathBuf> {
    let mut found = below(bucket);
    found.retain(|path| parts.iter().all(|part| path.to_string_lossy().contains(part)));
    found.sort();
    found
}

/// Where the segments of partition 0 end, as their names say, from the first that is there on without a gap.
pub(crate) fn tiered_end(bucket: &Path, id: &str) -> u64 {
    let mut ranges = BTreeMap::new();
    for path in objects(bucket, &[id, "/00000/", "seg/"]) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut numbers = name.split('-').map(|part| part.parse::<u64>().unwrap_or_default());
        let (base, last) = (numbers.next().unwrap(), numbers.next().unwrap());
        let known = ranges.entry(base).or_insert(last);
        *known = last.max(*known);
    }
    let mut end = ranges.keys().next().copied().unwrap_or_default();
    while let Some((_, last)) = ranges.range(..=end).rfind(|(_, last)| **last >= end) {
        end = last + 1;
    }
    end
}

pub(crate) fn produce(node: &Node, topic: &str, numbers: std::ops::Range<u64>) {
    let lines: String = numbers.map(|number| value(number) + "\n").collect();
    drop(kcat(node, &["-P", "-t", topic, "-p", "0"], lines.as_bytes()));
}

/// Offset of the group in a partition.
pub(crate) fn committed(node: &Node, topic: &str, partition: i64) -> Option<i64> {
    let (_, described) = varve_json(node, &["group", "describe", GROUP]);
    let text = described.to_string();
    let rows = find_rows(&described)?;
    let row = rows.iter().find(|row| row["topic"] == topic && row["partition"] == partition)?;
    row["committed"].as_i64().or_else(|| row["offset"].as_i64()).or_else(|| panic!("{text}"))
}

fn find_rows(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(rows) if rows.iter().any(|row| row.get("partition").is_some()) => Some(rows.clone()),
        Value::Array(values) => values.iter().find_map(find_rows),
        Value::Object(fields) => fields.values().find_map(find_rows),
        _ => None,
    }
}

pub(crate) fn describe(node: &Node, topic: &str) -> Value {
    let (_, described) = varve_json(node, &["topic", "describe", topic, "-p", "-c"]);
    if described.is_array() { described[0].clone() } else { described }
}

fn epoch(node: &Node, topic: &str) -> i64 {
    let rows = find_rows(&describe(node, topic)).unwrap();
    rows[0]["leader_epoch"].as_i64().or_else(|| rows[0]["epoch"].as_i64()).expect("a leader has an epoch")
}

fn replicas_in_sync(node: &Node, topic: &str) -> Vec<usize> {
    let rows = find_rows(&describe(node, topic)).unwrap_or_default();
    let in_sync = |row: &Value| {
        let in_sync = row["in_sync"].as_array().or_else(|| row["isr"].as_array());
        in_sync.map_or(0, Vec::len)
    };
    rows.iter().map(in_sync).collect()
}

/// Waits until the bucket holds a topic's partition 0 up to `end`.
pub(crate) fn wait_tiered(bucket: &Path, id: &str, end: u64) {
    wait_for("the bucket has the records", 60, || tiered_end(bucket, id) >= end);
}

/// Three nodes under load, then all processes and disks gone. Every tiered acknowledged record, the offsets of the group and
/// the configuration are there again, on three nodes, and the cluster goes on.
#[test]
fn a_cluster_of_three_comes_back_from_its_bucket_alone() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = Cluster::start(3, &quick());
    let bucket = PathBuf::from(cluster.bucket());
    cluster.create_topic("orders", 1, 3, &["retention.ms=-1", "max.message.bytes=1234567"]);
    cluster.create_topic("local", 1, 3, &["remote.storage.enable=false"]);
    let id = topic_id(&cluster.nodes[0], "orders");
    drop(varve(&cluster.nodes[0], &["group", "seek", GROUP, "orders", "-p", "0", "--to", "0"]));
    let load = cluster.start_load("orders", value);
    produce(&cluster.nodes[0], "local", 0..10);
    wait_tiered(&bucket, &id, 2_000);
    drop(varve(&cluster.nodes[0], &["group", "seek", GROUP, "orders", "-p", "0", "--to", "1234"]));
    wait_for("the commit is in the bucket, and the metadata", 120, || {
        let plan = restore(&bucket, cluster.nodes[0].folder(), &["--plan"]);
        let topics = plan["topics_without_configuration"].as_array().unwrap();
        let offsets = plan["partitions"].as_array().unwrap().iter();
        let commits = offsets.filter(|at| at["topic"] == "__consumer_offsets");
        topics.is_empty() && commits.map(|at| at["end"].as_u64().unwrap()).sum::<u64>() >= 2
    });
    let before = epoch(&cluster.nodes[0], "orders");
    cluster.nodes.iter_mut().for_each(Node::kill);
    drop(load);
    cluster.nodes.iter_mut().for_each(Node::wipe);

    let end = tiered_end(&bucket, &id);
    let data = cluster.nodes[0].data();
    let plan = restore(&bucket, &data, &["--plan"]);
    assert!(objects(&bucket, &["claim/0000000002"]).is_empty() && !data.exists(), "a plan writes nothing");
    assert_eq!(told(&plan, "orders", 0)["end"].as_u64(), Some(end), "{plan:#}");
    let done = at_once(&bucket, &data);
    assert_eq!((done["incarnation"].as_u64(), &done["partitions"]), (Some(2), &plan["partitions"]));
    assert!(done["duration_ms"].as_i64().unwrap() > 0);

    cluster.nodes[0].restart();
    check_all(&cluster.nodes[0], "orders", end);
    assert_eq!(committed(&cluster.nodes[0], "orders", 0), Some(1234));
    let told = describe(&cluster.nodes[0], "orders").to_string();
    assert!(told.contains("1234567"), "{told}");
    assert!(epoch(&cluster.nodes[0], "orders") > before, "leader epochs never go back");
    let node = &cluster.nodes[0];
    assert!(node.metric("varve_restore_duration_seconds") > 0.0, "the time that it took is told");
    assert!(node.metric("varve_restore_record_age_seconds") > 0.0, "and how old the newest record was");

    cluster.nodes[1].restart();
    cluster.nodes[2].restart();
    for topic in ["orders", "local", "__consumer_offsets"] {
        wait_for("every partition has three replicas", 120, || {
            replicas_in_sync(&cluster.nodes[0], topic).iter().all(|replicas| *replicas == 3)
        });
    }
    assert!(cluster.acknowledges(1, "orders", &value(end)));
    cluster.nodes[0].kill();
    wait_for("the others go on without the node that was restored", 60, || {
        cluster.acknowledges(1, "orders", &value(end + 1))
    });
    check_all(&cluster.nodes[1], "orders", end + 2);
    wait_for("and know what the group had read", 60, || {
        committed(&cluster.nodes[1], "orders", 0) == Some(1234)
    });
}

/// Kills what it started before it could wait for its end.
pub(crate) struct Started(pub(crate) Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node that wrote so many records to `orders`, all in its bucket with the metadata; it is killed.
pub(crate) fn written(records: u64) -> (Node, PathBuf, String) {
    let node = Node::stopped(quick());
    let bucket = node.folder().join("bucket");
    fs::create_dir(&bucket).unwrap();
    let mut node = node;
    *node.options() = quick().args(&["--object-store", &bucket.display().to_string()]);
    node.restart();
    drop(varve(
        &node,
        &["topic", "create", "orders", "-p", "1", "-c", "retention.ms=-1", "-c", "segment.bytes=65536"],
    ));
    let id = topic_id(&node, "orders");
    // Round by round: what comes in one go is one range.
    for from in (0..records).step_by(250) {
        produce(&node, "orders", from..from + 250);
    }
    wait_tiered(&bucket, &id, records);
    wait_for("the bucket knows the topic", 60, || {
        let plan = restore(&bucket, node.folder(), &["--plan"]);
        plan["topics_without_configuration"].as_array().unwrap().is_empty()
    });
    (node, bucket, id)
}

/// A node on a directory that was restored.
pub(crate) fn restored(bucket: &Path, data: &Path) -> Node {
    let mut options = quick().args(&["--object-store", &bucket.display().to_string()]);
    options.data = Some(data.to_owned());
    Node::start(options)
}

/// The incomplete life is resumed, from another directory and by another node; the one before is a dead lineage from then on:
/// records of it that came meanwhile are in no later life.
#[test]
fn a_restore_that_was_killed_half_way_is_resumed_elsewhere_and_the_dead_lineage_is_never_used() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let (mut node, bucket, id) = written(1_000);
    node.kill();
    let first = node.folder().join("first");
    let child = command(&bucket, &first, &["--yes", "--wait", "600"]).stdout(Stdio::null()).spawn().unwrap();
    let mut child = Started(child);
    wait_for("it has claimed", 30, || !objects(&bucket, &["claim/0000000002"]).is_empty());
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    // Nobody runs on what is half there.
    let mut serve = Command::new(tool::varve());
    tool::without_our_variables(serve.args(["serve", "--data-dir"]).arg(&first));
    let refused = serve.output().unwrap();
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("varve restore"), "{why}");

    let second = node.folder().join("second");
    let done = restore(&bucket, &second, &["--yes", "--wait", "0", "--node", "2"]);
    assert_eq!((done["incarnation"].as_u64(), done["resumes"].as_bool()), (Some(2), Some(true)));
    // As if it had been killed before it said that the life is complete: what it published is used again.
    let published = objects(&bucket, &[&id, "i0000000002", ".ckpt"]);
    for marker in objects(&bucket, &["claim/0000000002.complete"]) {
        fs::remove_file(marker).unwrap();
    }
    let third = node.folder().join("third");
    let done = at_once(&bucket, &third);
    assert_eq!((done["incarnation"].as_u64(), done["resumes"].as_bool()), (Some(2), Some(true)));
    assert_eq!(objects(&bucket, &[&id, "i0000000002", ".ckpt"]), published);
    let mut again = restored(&bucket, &third);
    check_all(&again, "orders", 1_000);
    produce(&again, "orders", 1_000..1_100);
    wait_tiered(&bucket, &id, 1_100);
    again.kill();
    let plan = restore(&bucket, node.folder(), &["--plan"]);
    assert_eq!((plan["incarnation"].as_u64(), plan["from_incarnation"].as_u64()), (Some(3), Some(2)));
    assert_eq!(told(&plan, "orders", 0)["end"].as_u64(), Some(1_100));
    // A directory that somebody has is left alone.
    let taken = command(&bucket, &third, &["--yes", "--wait", "0"]).output().unwrap();
    assert!(!taken.status.success(), "it restored into a directory that is in use");
}

/// Whoever comes back from before the restore finds the claim and ends; what it has is not in the new life, which goes on.
#[test]
fn the_old_cluster_that_comes_back_stops_acknowledging() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let (mut node, bucket, _) = written(500);
    let data = node.folder().join("restored");
    // In place, while it runs: it sees the claim and stops before the restore goes on.
    let child = command(&bucket, &data, &["--yes", "--wait", "45"]).stdout(Stdio::null()).spawn().unwrap();
    let mut child = Started(child);
    node.wait_exit(60);
    assert!(node.log().contains("restored as incarnation 2"), "{}", node.log());
    assert!(child.0.wait().unwrap().success());
    let again = restored(&bucket, &data);
    node.launch();
    node.wait_exit(60);
    check_all(&again, "orders", 500);
    produce(&again, "orders", 500..600);
    check_all(&again, "orders", 600);
}

/// A topic that does not tier is a gap, never an empty topic without a word; and no group is beyond what is left.
#[test]
fn g4_t46_records_on_nodes_alone_are_a_gap_and_no_group_is_beyond_the_end() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let (mut node, bucket, _) = written(500);
    drop(varve(&node, &["topic", "create", "local", "-p", "1", "-c", "remote.storage.enable=false"]));
    produce(&node, "local", 0..50);
    // What comes now is in no bucket, and the group has read it.
    drop(varve(&node, &["topic", "alter-config", "orders", "--set", "remote.log.copy.disable=true"]));
    produce(&node, "orders", 500..700);
    for topic in ["orders", "local"] {
        drop(varve(&node, &["group", "seek", GROUP, topic, "--to", "end"]));
    }
    assert_eq!((committed(&node, "orders", 0), committed(&node, "local", 0)), (Some(700), Some(50)));
    let data = node.folder().join("restored");
    let mut plan = Value::Null;
    wait_for("the commits and the checkpoint are in the bucket", 120, || {
        plan = restore(&bucket, &data, &["--plan"]);
        let local = plan["partitions"].as_array().unwrap().iter().find(|at| at["topic"] == "local");
        plan["clamped"].as_array().is_some_and(|all| !all.is_empty())
            && local.is_some_and(|local| !local["gap"].is_null())
    });
    node.kill();
    let clamped = &plan["clamped"][0];
    let of = (clamped["topic"].as_str(), clamped["from"].as_i64(), clamped["to"].as_i64());
    assert_eq!(of, (Some("orders"), Some(700), Some(500)));
    let local = told(&plan, "local", 0);
    assert_eq!((local["records_local"].as_bool(), &local["gap"]["to"]), (Some(true), &50.into()), "{plan:#}");
    drop(at_once(&bucket, &data));
    let again = restored(&bucket, &data);
    assert_eq!((committed(&again, "orders", 0), committed(&again, "local", 0)), (Some(500), Some(50)));
    check_all(&again, "orders", 500);
    // No offset of the gap is given out twice.
    produce(&again, "local", 0..1);
    let read = kcat(&again, &["-C", "-q", "-e", "-t", "local", "-o", "beginning", "-f", "%o"], b"");
    assert_eq!(String::from_utf8(read).unwrap(), "50");
}

/// The newest checkpoints are damaged, after records were deleted and their objects collected: the one before is used, and what
/// it does not know follows from the segments behind it.
#[test]
fn the_newest_checkpoint_may_be_damaged_after_trims_and_collection() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let (mut node, bucket, id) = written(1_500);
    let segments = objects(&bucket, &[&id, "/seg/"]).len();
    drop(varve_tests::clients::script("admin.py", &node, &["delete-records", "orders", "0", "700"]));
    let mut next = 1_500;
    wait_for("what was deleted is collected", 120, || {
        produce(&node, "orders", next..next + 400);
        next += 400;
        wait_tiered(&bucket, &id, next);
        let oldest = objects(&bucket, &[&id, "/seg/00000000000000000000-"]);
        oldest.is_empty() && objects(&bucket, &[&id, ".ckpt"]).len() > 1
    });
    assert!(segments > 1);
    node.kill();
    for folder in [format!("{id}/00000/i0000000001/ckpt"), "meta/i0000000001".to_owned()] {
        let newest = objects(&bucket, &[&folder]).pop().unwrap();
        let mut bytes = fs::read(&newest).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&newest, bytes).unwrap();
    }
    let data = node.folder().join("restored");
    let done = at_once(&bucket, &data);
    let orders = told(&done, "orders", 0);
    assert_eq!(
        (orders["damaged"].as_array().unwrap().len(), orders["end"].as_u64()),
        (1, Some(next)),
        "{done:#}"
    );
    assert_eq!(done["metadata_damaged"].as_array().unwrap().len(), 1);
    let again = restored(&bucket, &data);
    let start = orders["start"].as_u64().unwrap();
    assert!(start >= 700);
    let read = kcat(&again, &["-C", "-q", "-e", "-t", "orders", "-o", "beginning"], b"");
    let lines: Vec<String> = String::from_utf8(read).unwrap().lines().map(str::to_owned).collect();
    let wanted: Vec<String> = (start..next).map(value).collect();
    assert!(lines == wanted, "{} lines from {start} to {next}", lines.len());
}
