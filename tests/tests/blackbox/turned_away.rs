//! A node that is cut off from the others, and not from its clients: row 32 of the fault matrix, as a stock client sees it.

use std::{
    io::{ErrorKind, Read as _},
    net::TcpStream,
    time::Duration,
};

use varve_tests::{
    cluster::{Cluster, check_all, value},
    node::{Node, Options},
    raw::list_offset,
    tool::Tool,
    wait_for,
};

const TOPIC: &str = "elsewhere";

/// Whether a connection that is made now is closed again at once.
fn turns_away(node: &Node) -> bool {
    let Ok(mut socket) = TcpStream::connect(node.kafka()) else { return true };
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    match socket.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn row_32_a_node_that_is_cut_off_sends_its_clients_to_the_others_and_takes_them_back() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let cluster = Cluster::start_linked(3, &Options::small(), 8);
    cluster.create_topic(TOPIC, 1, 3, &[]);
    let load = cluster.start_load(TOPIC, value);
    let first = cluster.wait_leader(0, TOPIC, 0, None);
    let asked = (first + 1) % 3;
    let end = || {
        let leader = cluster.leader(asked, TOPIC, 0)?;
        list_offset(cluster.nodes[leader].kafka(), TOPIC, 0, -1).ok()
    };
    wait_for("records", 120, || end().is_some_and(|end| end >= 500));
    cluster.links().isolate(first);
    wait_for("the one that is cut off to turn clients away", 60, || turns_away(&cluster.nodes[first]));
    let second = cluster.wait_leader(asked, TOPIC, 0, Some(first));
    assert_ne!(second, first);
    let before = end().unwrap_or(0);
    // The producer had a connection to the one that led.
    wait_for("the producer to go on elsewhere", 120, || end().is_some_and(|end| end >= before + 200));
    cluster.links().heal();
    wait_for("it to take clients back", 60, || !turns_away(&cluster.nodes[first]));
    let written = load.finish();
    cluster.each_leads(TOPIC, |node| check_all(node, TOPIC, written));
}

/// A node that came later follows the metadata as a learner: it is never elected, and its raft never gives the leader up.
#[test]
fn row_32_a_fourth_node_that_is_cut_off_turns_clients_away_as_a_founder_does() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let mut cluster = Cluster::start_linked(3, &Options::small(), 9);
    let fourth = cluster.add(&Options::small());
    cluster.nodes[fourth].restart();
    cluster.create_topic(TOPIC, 1, 3, &[]);
    assert!(!turns_away(&cluster.nodes[fourth]));
    cluster.links().isolate(fourth);
    wait_for("the one that is cut off to turn clients away", 25, || turns_away(&cluster.nodes[fourth]));
    assert!(!cluster.nodes[..3].iter().any(turns_away), "the others are a quorum");
    assert!(cluster.acknowledges(0, TOPIC, "elsewhere"));
    cluster.links().heal();
    wait_for("it to take clients back", 25, || !turns_away(&cluster.nodes[fourth]));
    assert!(cluster.acknowledges(fourth, TOPIC, "and by the one that was cut off"));
}
