//! Three nodes, their real processes, stock clients: leaders die, all die, disks stay.

use varve_tests::{
    clients::kcat,
    cluster::{Cluster, check_all, value},
    node::{Node, Options},
    tool::Tool,
    wait_for,
};

const TOPIC: &str = "replicated";

#[test]
fn a_cluster_loses_its_leader_in_the_middle_and_no_record() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &[]);
    let load = cluster.start_load(TOPIC, value);
    let first = cluster.wait_leader(0, TOPIC, 0, None);
    let asked = (first + 1) % 3;
    cluster.wait_end(asked, TOPIC, 1_000);
    cluster.nodes[first].kill();
    let second = cluster.wait_leader(asked, TOPIC, 0, Some(first));
    let before = cluster.end_of(asked, TOPIC);
    cluster.wait_end(asked, TOPIC, before + 1_000);
    cluster.nodes[first].restart();
    wait_for("the dead one to be in sync again", 60, || cluster.in_sync(second, TOPIC, 0) == [0, 1, 2]);
    let written = load.finish();
    cluster.nodes.iter().for_each(|node| check_all(node, TOPIC, written));
}

#[test]
fn all_nodes_die_at_once_and_come_back_with_everything() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &["segment.bytes=65536"]);
    let load = cluster.start_load(TOPIC, value);
    cluster.wait_end(0, TOPIC, 3_000);
    let written = load.finish();
    for _ in 0..2 {
        cluster.nodes.iter_mut().for_each(Node::kill);
        cluster.nodes.iter_mut().for_each(Node::launch);
        cluster.nodes.iter_mut().for_each(Node::wait_ready);
        let _ = cluster.wait_leader(0, TOPIC, 0, None);
        check_all(&cluster.nodes[1], TOPIC, written);
    }
}

#[test]
fn without_a_quorum_nothing_is_acknowledged_and_with_one_it_goes_on() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &[]);
    let load = cluster.start_load(TOPIC, value);
    cluster.wait_end(0, TOPIC, 500);
    let written = load.finish();
    let leader = cluster.wait_leader(0, TOPIC, 0, None);
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    others.iter().for_each(|&other| cluster.nodes[other].kill());
    assert!(!cluster.acknowledges(leader, TOPIC, "nobody else has this"), "one of three acknowledged");
    cluster.nodes[others[0]].restart();
    cluster.wait_end(others[0], TOPIC, i64::try_from(written).unwrap() - 1);
    let read = kcat(&cluster.nodes[others[0]], &["-C", "-q", "-e", "-t", TOPIC, "-p", "0", "-o", "0"], b"");
    let read = String::from_utf8(read).unwrap();
    let kept: Vec<&str> = read.lines().take(usize::try_from(written).unwrap()).collect();
    assert!(
        kept.iter().zip(0..).all(|(line, number)| **line == value(number)),
        "what was acknowledged is there"
    );
    assert_eq!(kept.len() as u64, written);
}
