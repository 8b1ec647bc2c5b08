//! What an operator sees of three nodes, and tells them.

use std::{net::TcpStream, time::Duration};

use serde_json::Value;
use varve_tests::{
    clients::{finish, java, start_script, try_script, varve_json},
    cluster::Cluster,
    node::{Node, Options},
    tool::Tool,
    wait_for,
    wire::Client,
};

/// How long a node is given for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

fn health(node: &Node) -> (bool, Value) {
    varve_json(node, &["cluster", "health"])
}

fn partitions(node: &Node, topic: &str) -> Vec<Value> {
    let (_, rows) = varve_json(node, &["cluster", "partitions", topic]);
    rows.as_array().cloned().unwrap_or_default()
}

fn sum(info: &Value, field: &str) -> u64 {
    info["nodes"].as_array().unwrap().iter().map(|node| node[field].as_u64().unwrap()).sum()
}

#[test]
fn the_cluster_says_how_it_is_and_that_it_is_not_well() {
    if !Tool::need(&[]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic("spread", 9, 3, &[]);
    wait_for("all nodes to know a healthy cluster", 30, || cluster.nodes.iter().all(|node| health(node).0));
    for node in &cluster.nodes {
        let (done, info) = varve_json(node, &["cluster", "info"]);
        assert!(done && info["controller"].as_u64().is_some(), "{info}");
        assert_eq!((info["topics"].as_u64(), info["partitions"].as_u64()), (Some(1), Some(9)), "{info}");
        assert_eq!((sum(&info, "leaders"), sum(&info, "replicas")), (9, 27), "{info}");
        let voters = info["metadata"]["replicas"].as_array().unwrap();
        assert!(voters.len() == 3 && voters.iter().all(|voter| voter["voter"] == true), "{info}");
        assert!(info["nodes"].as_array().unwrap().iter().all(|node| node["up"] == true), "{info}");
    }
    cluster.nodes[2].kill();
    wait_for("the others to say that one is gone", 60, || {
        let (is_healthy, told) = health(&cluster.nodes[0]);
        let behind = told["under_replicated_partitions"].as_array().map_or(0, Vec::len);
        let leaderless = told["leaderless_partitions"].as_array().map_or(9, Vec::len);
        !is_healthy && told["nodes_down"] == serde_json::json!([3]) && behind == 9 && leaderless == 0
    });
    let metrics =
        |name: &str| -> Vec<f64> { cluster.nodes[..2].iter().map(|node| node.metric(name)).collect() };
    wait_for("the metrics to say so", 60, || {
        // The metadata's group is the tenth.
        metrics("varve_raft_leaders").iter().sum::<f64>() == 10.0
            && metrics("varve_raft_in_sync_replicas").iter().sum::<f64>() == 20.0
            && metrics("varve_raft_groups_under_replicated").iter().sum::<f64>() == 10.0
            && metrics("varve_raft_groups") == [10.0, 10.0]
            && metrics("varve_raft_term").iter().all(|term| *term >= 1.0)
    });
    assert!(
        metrics("varve_raft_elections_won_total").iter().sum::<f64>() >= 1.0,
        "what the dead one led is led"
    );
    assert!(metrics("varve_raft_leader_changes_total").iter().all(|changes| *changes >= 10.0));
    for kind in ["append", "append_response", "vote", "heartbeat"] {
        let sent = cluster.nodes[..2]
            .iter()
            .map(|node| node.metric_of("varve_raft_messages_sent_total", &format!("\"{kind}\"")));
        assert!(sent.sum::<f64>() > 0.0, "{kind}");
    }
    // What it lacks is counted.
    assert!(cluster.acknowledges(0, "spread", "one more"), "two of three acknowledge");
    let rows = partitions(&cluster.nodes[0], "spread");
    let lag = |row: &Value| {
        let mut replicas = row["log"]["replicas"].as_array().unwrap().iter();
        replicas.find(|replica| replica["node"] == 3).unwrap()["lag_entries"].as_u64().unwrap()
    };
    assert!(rows.len() == 9 && lag(&rows[0]) > 0, "{rows:?}");
    assert_eq!(
        (rows[0]["state"].as_str(), rows[0]["log_end_offset"].as_u64()),
        (Some("under-replicated"), Some(1))
    );
    cluster.nodes[2].restart();
    wait_for("a healthy cluster again", 60, || health(&cluster.nodes[2]).0);
    wait_for("it to lack nothing", 30, || {
        partitions(&cluster.nodes[1], "spread").iter().all(|row| lag(row) == 0 && row["state"] == "ok")
    });
}

#[test]
fn leadership_goes_where_it_is_sent() {
    if !Tool::need(&[Tool::Java]) {
        return;
    }
    let cluster = Cluster::start(3, &Options::small());
    cluster.create_topic("moved", 2, 3, &[]);
    wait_for("all nodes to know a healthy cluster", 30, || cluster.nodes.iter().all(|node| health(node).0));
    let leaders = || -> Vec<u64> {
        partitions(&cluster.nodes[0], "moved").iter().map(|row| row["leader"].as_u64().unwrap_or(0)).collect()
    };
    // Asked of a node that need not lead either of them.
    for to in [1, 2, 3, 2] {
        let sent = varve_json(
            &cluster.nodes[(to + 1) % 3],
            &["cluster", "transfer-leader", "moved-0", "moved-1", "metadata", "--to", &to.to_string()],
        );
        assert!(sent.0, "{sent:?}");
        wait_for("the leaders to be known", 10, || leaders() == [to as u64, to as u64]);
        wait_for("the controller to be known", 10, || {
            varve_json(&cluster.nodes[0], &["cluster", "info"]).1["controller"].as_u64() == Some(to as u64)
        });
    }
    let again = varve_json(&cluster.nodes[0], &["cluster", "transfer-leader", "moved-0", "--to", "2"]);
    assert!(again.0 && again.1[0]["status"] == "led already", "{again:?}");
    let nobody = varve_json(&cluster.nodes[0], &["cluster", "transfer-leader", "moved-0", "--to", "9"]);
    assert!(!nobody.0 && nobody.1[0]["status"] == "failed", "{nobody:?}");
    // Kafka's own tool sees the same.
    let status = java(&cluster.nodes[2], "MetadataQuorumCommand", &["describe", "--status"], b"");
    assert!(status.lines().any(|line| line.split_whitespace().eq(["LeaderId:", "2"])), "{status}");
    let told = java(&cluster.nodes[1], "MetadataQuorumCommand", &["describe", "--replication"], b"");
    assert_eq!(told.lines().filter(|line| line.contains("Follower")).count(), 2, "{told}");
}

#[test]
fn a_node_that_cannot_serve_yet_refuses_clients() {
    if !Tool::need(&[]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes[0].launch();
    let waits = |(status, said): (u16, String)| status == 503 && said.contains("waiting for whoever leads");
    wait_for("the node to wait for the others", 60, || cluster.nodes[0].http("/readyz").is_some_and(waits));
    // It is refused, and does not hang.
    assert!(TcpStream::connect(cluster.nodes[0].kafka()).is_err(), "a client could come in");
    cluster.nodes[1].launch();
    cluster.nodes[0].wait_ready();
    assert!(TcpStream::connect(cluster.nodes[0].kafka()).is_ok());
}

#[test]
fn changes_that_are_asked_for_while_nobody_leads_the_metadata_are_answered() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let cluster = Cluster::start(3, &Options::small());
    wait_for("all nodes to know a healthy cluster", 30, || cluster.nodes.iter().all(|node| health(node).0));
    let (others, alone) = (&cluster.nodes[..2], &cluster.nodes[2]);
    let told = || Client::connect(alone.kafka(), PATIENCE)?.metadata("early");
    others.iter().for_each(|node| node.signal("STOP"));
    wait_for("it to know of itself alone", 30, || {
        let Ok(told) = told() else { return false };
        let is_alone = told.nodes.len() == 1;
        // librdkafka that is told of nobody waits until brokers come or go, which an election is not.
        assert!(!is_alone || told.controller == 3, "nobody is told of whom changes could be asked: {told:?}");
        is_alone
    });
    let asked = start_script("admin.py", alone, &["create", "early", "10"]);
    others.iter().for_each(|node| node.signal("CONT"));
    assert_eq!(finish("admin.py", asked).len(), 1, "it was created once there was a quorum again");
    // Whichever node is asked, and right behind a change that another was asked for.
    for node in &cluster.nodes {
        for change in [&["delete", "early"][..], &["create", "early", "3"]] {
            let (done, said) = try_script("admin.py", node, change);
            assert!(done, "{change:?}: {said}");
        }
    }
}
