//! A node that was away leads again what it is to lead, by itself, and under load.

use varve_tests::{
    clients::varve_json,
    cluster::{Cluster, value},
    node::{Node, Options},
    tool::Tool,
    wait_for,
};

const TOPIC: &str = "preferred";
const PARTITIONS: u64 = 6;

/// The partitions that stand first on a node, and those that it leads.
fn shares(cluster: &Cluster, asked: usize, node: u64) -> (usize, usize) {
    let (_, rows) = varve_json(&cluster.nodes[asked], &["cluster", "partitions", TOPIC]);
    let rows = rows.as_array().cloned().unwrap_or_default();
    let first = rows.iter().filter(|row| row["replicas"][0].as_u64() == Some(node)).count();
    (first, rows.iter().filter(|row| row["leader"].as_u64() == Some(node)).count())
}

#[test]
fn a_node_that_was_away_leads_again_what_it_stands_first_for() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let options = Options::small().env("VARVE_LEADER_IMBALANCE_CHECK_INTERVAL_SECONDS", "2");
    let mut cluster = Cluster::start(3, &options);
    cluster.create_topic(TOPIC, PARTITIONS as u32, 3, &[]);
    let spread = |cluster: &Cluster, asked| {
        (1..=3).all(|node| {
            let (first, leads) = shares(cluster, asked, node);
            first == leads && first == PARTITIONS as usize / 3
        })
    };
    wait_for("leaders to be spread", 60, || spread(&cluster, 0));
    let load = cluster.start_load(TOPIC, value);
    for away in [0, 2] {
        let asked = (away + 1) % 3;
        cluster.nodes[away].kill();
        wait_for("others to lead", 60, || shares(&cluster, asked, away as u64 + 1).1 == 0);
        cluster.nodes[away].restart();
        wait_for("it to lead again", 120, || spread(&cluster, asked));
    }
    let returned = |node: &Node| node.metric("varve_raft_leaders_returned_total");
    assert!(cluster.nodes.iter().map(returned).sum::<f64>() >= 2.0);
    // Every record was acknowledged, whoever led.
    assert!(load.finish() > 0);
}
