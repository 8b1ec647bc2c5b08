//! Nodes come to a cluster that is formed, leave it, and come back without their disks; under load, with stock clients.

use serde_json::Value;
use varve_tests::{
    clients::{java, topic_id, varve_json},
    cluster::{Cluster, check_all, value},
    faults::files_below,
    node::{Node, Options},
    tool::Tool,
    wait_for,
};

const TOPIC: &str = "moving";

fn info(node: &Node) -> Value {
    varve_json(node, &["cluster", "info"]).1
}

/// A figure of each node that the cluster knows, by their order.
fn figures(node: &Node, field: &str) -> Vec<u64> {
    let info = info(node);
    let nodes = info["nodes"].as_array().cloned().unwrap_or_default();
    nodes.iter().map(|node| node[field].as_u64().unwrap_or(u64::MAX)).collect()
}

fn role(node: &Node, id: u64) -> String {
    let info = info(node);
    let mut nodes = info["nodes"].as_array().into_iter().flatten();
    let found = nodes.find(|node| node["node"].as_u64() == Some(id));
    found.and_then(|node| node["metadata_role"].as_str()).unwrap_or_default().to_owned()
}

fn is_healthy(node: &Node) -> bool {
    varve_json(node, &["cluster", "health"]).0
}

fn replicas(node: &Node, topic: &str) -> Vec<Vec<u64>> {
    let (_, rows) = varve_json(node, &["cluster", "partitions", topic]);
    let ids = |row: &Value| row["replicas"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    rows.as_array().map(|rows| rows.iter().map(ids).collect()).unwrap_or_default()
}

#[test]
fn a_fourth_node_joins_and_gets_its_share_under_load() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &[]);
    cluster.create_topic("others", 8, 3, &[]);
    wait_for("a healthy cluster", 30, || is_healthy(&cluster.nodes[0]));
    let load = cluster.start_load(TOPIC, value);
    let fourth = cluster.add(&Options::small());
    cluster.nodes[fourth].restart();
    assert_eq!(role(&cluster.nodes[fourth], 4), "learner");
    let added = varve_json(&cluster.nodes[0], &["cluster", "add-node", "4", "--timeout", "120"]);
    assert!(added.0 && added.1["status"] == "added", "{added:?}");
    for figure in ["replicas", "leaders"] {
        let (least, most) = if figure == "replicas" { (6, 7) } else { (2, 3) };
        wait_for("a fair share for all", 60, || {
            let shares = figures(&cluster.nodes[0], figure);
            println!("{figure} {shares:?}");
            shares.len() == 4 && shares.iter().all(|share| (least..=most).contains(share))
        });
    }
    wait_for("a healthy cluster of four", 60, || cluster.nodes.iter().all(is_healthy));
    let written = load.finish();
    cluster.nodes.iter().for_each(|node| check_all(node, TOPIC, written));
    // It is part of the cluster, also after a restart.
    cluster.nodes[fourth].kill();
    cluster.nodes[fourth].restart();
    wait_for("a healthy cluster of four again", 60, || cluster.nodes.iter().all(is_healthy));
    check_all(&cluster.nodes[fourth], TOPIC, written);
}

#[test]
fn a_wiped_founder_comes_back_with_everything() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &[]);
    wait_for("a healthy cluster", 30, || is_healthy(&cluster.nodes[0]));
    let load = cluster.start_load(TOPIC, value);
    for wiped in [0, 2] {
        cluster.nodes[wiped].kill();
        cluster.nodes[wiped].wipe();
        cluster.nodes[wiped].restart();
        wait_for("the wiped one to hold everything again", 120, || {
            let node = &cluster.nodes[wiped];
            is_healthy(node) && ["voter", "leader"].contains(&role(node, wiped as u64 + 1).as_str())
        });
    }
    let written = load.finish();
    // Those two alone are a quorum, and have all of it.
    cluster.nodes[1].kill();
    wait_for("the wiped ones to lead", 60, || cluster.leader(0, TOPIC, 0).is_some_and(|leader| leader != 1));
    check_all(&cluster.nodes[0], TOPIC, written);
    check_all(&cluster.nodes[2], TOPIC, written);
}

/// The node that [`four_nodes`] adds to three.
const FOURTH: usize = 3;

fn four_nodes() -> Cluster {
    let mut cluster = Cluster::start(3, &Options::small());
    assert_eq!(cluster.add(&Options::small()), FOURTH);
    cluster.nodes[FOURTH].restart();
    cluster
}

/// Kafka's tool, asked to move the topic's partition.
fn reassign(node: &Node, wanted: [u64; 3], mode: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.json");
    let partition = serde_json::json!({"topic": TOPIC, "partition": 0, "replicas": wanted});
    std::fs::write(&plan, serde_json::json!({"version": 1, "partitions": [partition]}).to_string()).unwrap();
    let plan = plan.display().to_string();
    let arguments = ["--reassignment-json-file", &plan, mode];
    java(node, "reassign.ReassignPartitionsCommand", &arguments, b"")
}

fn begin_move(node: &Node, wanted: [u64; 3]) {
    let begun = reassign(node, wanted, "--execute");
    assert!(begun.contains("Successfully started partition reassignment"), "{begun}");
}

#[test]
fn row_47_the_node_from_which_a_replica_moves_dies_and_the_move_comes_to_its_end() {
    if !Tool::need(&[Tool::Kcat, Tool::Python, Tool::Java]) {
        return;
    }
    let mut cluster = four_nodes();
    cluster.create_topic(TOPIC, 1, 3, &[]);
    let placed = replicas(&cluster.nodes[0], TOPIC).remove(0);
    let comes = (1..=4).find(|id| !placed.contains(id)).expect("three of four have it");
    let load = cluster.start_load(TOPIC, value);
    cluster.wait_end(0, TOPIC, 500);
    // It leads, and so brings the move about, and is to go.
    let source = cluster.wait_leader(0, TOPIC, 0, None);
    let gone = source as u64 + 1;
    let wanted: Vec<u64> = placed.iter().map(|id| if *id == gone { comes } else { *id }).collect();
    let asked = wanted[1] as usize - 1;
    begin_move(&cluster.nodes[asked], wanted.clone().try_into().unwrap());
    cluster.nodes[source].kill();
    let is_moved = || replicas(&cluster.nodes[asked], TOPIC) == [wanted.clone()];
    wait_for("the others to bring it to its end", 90, is_moved);
    let before = cluster.end_of(asked, TOPIC);
    cluster.wait_end(asked, TOPIC, before.max(0) + 200);
    cluster.nodes[source].restart();
    wait_for("a healthy cluster of four", 60, || cluster.nodes.iter().all(is_healthy));
    let written = load.finish();
    wanted.iter().for_each(|id| check_all(&cluster.nodes[*id as usize - 1], TOPIC, written));
}

#[test]
fn kafkas_own_tool_moves_partitions_and_nodes_leave() {
    if !Tool::need(&[Tool::Kcat, Tool::Python, Tool::Java]) {
        return;
    }
    let mut cluster = four_nodes();
    cluster.create_topic(TOPIC, 1, 3, &[]);
    wait_for("a healthy cluster of four", 60, || cluster.nodes.iter().all(is_healthy));
    let load = cluster.start_load(TOPIC, value);
    for wanted in [[2, 3, 4], [4, 1, 3]] {
        begin_move(&cluster.nodes[0], wanted);
        let done = || reassign(&cluster.nodes[0], wanted, "--verify").contains("is completed");
        wait_for("the move to be done", 120, done);
        assert_eq!(replicas(&cluster.nodes[1], TOPIC), [wanted.to_vec()]);
    }
    let drained = varve_json(&cluster.nodes[1], &["cluster", "drain", "4"]);
    assert!(drained.0, "{drained:?}");
    wait_for("the fourth to lead nothing", 30, || figures(&cluster.nodes[0], "leaders").get(3) == Some(&0));
    let removed = varve_json(&cluster.nodes[1], &["cluster", "remove-node", "4", "--timeout", "120"]);
    assert!(removed.0 && removed.1["status"] == "removed", "{removed:?}");
    cluster.nodes[FOURTH].kill();
    wait_for("a healthy cluster of three", 60, || {
        cluster.nodes[..3].iter().all(is_healthy) && figures(&cluster.nodes[0], "replicas").len() == 3
    });
    let mut held = replicas(&cluster.nodes[0], TOPIC).remove(0);
    held.sort_unstable();
    assert_eq!(held, [1, 2, 3]);
    let written = load.finish();
    cluster.nodes[..3].iter().for_each(|node| check_all(node, TOPIC, written));
}

#[test]
fn a_second_machine_with_the_number_of_a_living_node_does_not_take_its_place() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = four_nodes();
    cluster.create_topic(TOPIC, 1, 3, &[]);
    wait_for("a healthy cluster", 60, || cluster.nodes.iter().all(is_healthy));
    let load = cluster.start_load(TOPIC, value);
    // A founder, and one that joined.
    for number in [1, FOURTH] {
        let mut double = cluster.double(number, &Options::small());
        double.launch();
        assert!(!double.wait_exit(90).success());
        assert!(double.log().contains(&format!("node {} is alive", number + 1)), "{}", double.log());
    }
    wait_for("nobody to be disturbed", 30, || cluster.nodes.iter().all(is_healthy));
    // Once it is dead the other machine is what a wiped disk is.
    cluster.nodes[FOURTH].kill();
    let mut double = cluster.double(FOURTH, &Options::small());
    double.restart();
    wait_for("it to hold everything", 120, || is_healthy(&cluster.nodes[0]) && is_healthy(&double));
    let written = load.finish();
    check_all(&double, TOPIC, written);
}

/// Nothing of the topic is in the bucket: what one disk after the other has, and what comes meanwhile, is on nodes alone, and
/// goes from node to node.
#[test]
fn t44_every_disk_is_replaced_before_anything_was_uploaded() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &["remote.log.copy.disable=true", "segment.bytes=262144"]);
    wait_for("a healthy cluster", 30, || is_healthy(&cluster.nodes[0]));
    let id = topic_id(&cluster.nodes[0], TOPIC);
    let load = cluster.start_load(TOPIC, value);
    for wiped in [1, 2, 0] {
        cluster.wait_end((wiped + 1) % 3, TOPIC, 3_000 * (wiped as i64 + 1));
        cluster.nodes[wiped].kill();
        cluster.nodes[wiped].wipe();
        cluster.nodes[wiped].restart();
        wait_for("the new disk to hold everything", 180, || {
            let node = &cluster.nodes[wiped];
            is_healthy(node) && ["voter", "leader"].contains(&role(node, wiped as u64 + 1).as_str())
        });
    }
    let written = load.finish();
    wait_for("all replicas to be in sync", 60, || cluster.in_sync(0, TOPIC, 0).len() == 3);
    cluster.nodes.iter().for_each(|node| check_all(node, TOPIC, written));
    let objects = files_below(std::path::Path::new(&cluster.bucket()));
    let names: Vec<_> =
        objects.iter().map(|path| path.to_string_lossy()).filter(|name| name.contains(&id)).collect();
    assert!(names.iter().any(|name| name.contains("/ckpt/")), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("/seg/")), "{names:?}");
}
