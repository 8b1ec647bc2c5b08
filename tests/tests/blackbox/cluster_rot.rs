//! Rot in the logs of several nodes: fault row 25 and T13. A log that has lost something of a partition speaks for nothing of it, whoever
//! else is there.

use varve_tests::{
    cluster::Cluster,
    node::{Node, Options},
    tool::Tool,
    wait_for,
};

use crate::rot::{flip, is_served, produce, value};

const TOPIC: &str = "rotting";

/// Whoever leads may hand over at any time: then nothing was written.
fn write(cluster: &Cluster, asked: usize, records: std::ops::Range<usize>) {
    for number in records {
        let leader = || cluster.leader(asked, TOPIC, 0);
        let is_written =
            || leader().is_some_and(|leader| produce(&cluster.nodes[leader], TOPIC, number) == 0);
        wait_for("a record to be acknowledged", 30, is_written);
    }
}

/// A bit of a record rots in a node's log while it is down.
fn rot(node: &mut Node, record: usize) {
    node.kill();
    assert_eq!(flip(&node.data().join("wal"), &value(TOPIC, record)[..600]), 1);
    node.restart();
    wait_for("the damage to be counted", 20, || node.metric("varve_cluster_partitions_damaged") == 1.0);
}

#[test]
fn row_25_t13_logs_that_rot_neither_lead_nor_are_counted_and_nothing_rotten_is_served() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &["remote.storage.enable=false", "retention.ms=-1"]);
    let first = cluster.wait_leader(0, TOPIC, 0, None);
    let (second, third) = ((first + 1) % 3, (first + 2) % 3);
    write(&cluster, first, 0..200);
    wait_for("all to be in sync", 60, || cluster.in_sync(first, TOPIC, 0) == [0, 1, 2]);
    rot(&mut cluster.nodes[first], 120);
    // With the other that is whole it would be two of three.
    cluster.nodes[second].kill();
    assert!(!cluster.acknowledges(third, TOPIC, "by one of three"));
    cluster.nodes[second].restart();
    let leads = cluster.wait_leader(third, TOPIC, 0, Some(first));
    write(&cluster, third, 200..210);
    assert!((0..210).all(|number| is_served(cluster.nodes[leads].kafka(), TOPIC, number)));
    // Rot in a second place, in what is in no sealed file yet: one log is whole, and is no quorum.
    write(&cluster, third, 210..216);
    rot(&mut cluster.nodes[second], 212);
    assert!(!cluster.acknowledges(third, TOPIC, "by the only whole one"));
    // Who led before is told of for a while; it gives nothing that has rotten, as the first does not.
    assert!(!is_served(cluster.nodes[first].kafka(), TOPIC, 120), "what has rotten is served");
    assert!(!is_served(cluster.nodes[second].kafka(), TOPIC, 212), "what has rotten is served");
}
