//! Three nodes, their real processes, stock clients: leaders die, all die, disks stay.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
};

use varve_tests::{
    clients::kcat,
    cluster::{Cluster, check_all, value},
    node::{Node, Options},
    raw::list_offset,
    tool::Tool,
    wait_for,
};

const TOPIC: &str = "replicated";

fn end_of(cluster: &Cluster, asked: usize) -> i64 {
    cluster.leader(asked, TOPIC, 0).map_or(-1, |leader| {
        let leader = &cluster.nodes[leader];
        list_offset(leader.kafka(), TOPIC, 0, -1).unwrap_or(-1)
    })
}

fn wait_end(cluster: &Cluster, asked: usize, beyond: i64) {
    wait_for("records to be acknowledged", 60, || end_of(cluster, asked) > beyond);
}

#[test]
fn a_cluster_loses_its_leader_in_the_middle_and_no_record() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &[]);
    let load = cluster.start_load(TOPIC, value);
    let first = cluster.wait_leader(0, TOPIC, 0, None);
    let asked = (first + 1) % 3;
    wait_end(&cluster, asked, 1_000);
    cluster.nodes[first].kill();
    let second = cluster.wait_leader(asked, TOPIC, 0, Some(first));
    let before = end_of(&cluster, asked);
    wait_end(&cluster, asked, before + 1_000);
    cluster.nodes[first].restart();
    wait_for("the dead one to be in sync again", 60, || cluster.in_sync(second, TOPIC, 0) == [0, 1, 2]);
    let written = load.finish();
    cluster.nodes.iter().for_each(|node| check_all(node, TOPIC, written));
}

#[test]
fn all_nodes_die_at_once_and_come_back_with_everything() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &["segment.bytes=65536"]);
    let load = cluster.start_load(TOPIC, value);
    wait_end(&cluster, 0, 3_000);
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
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &[]);
    let load = cluster.start_load(TOPIC, value);
    wait_end(&cluster, 0, 500);
    let written = load.finish();
    let leader = cluster.wait_leader(0, TOPIC, 0, None);
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    others.iter().for_each(|&other| cluster.nodes[other].kill());
    assert!(!cluster.acknowledges(leader, TOPIC, "nobody else has this"), "one of three acknowledged");
    cluster.nodes[others[0]].restart();
    wait_end(&cluster, others[0], i64::try_from(written).unwrap() - 1);
    let read = kcat(&cluster.nodes[others[0]], &["-C", "-q", "-e", "-t", TOPIC, "-p", "0", "-o", "0"], b"");
    let read = String::from_utf8(read).unwrap();
    let kept: Vec<&str> = read.lines().take(usize::try_from(written).unwrap()).collect();
    assert!(
        kept.iter().zip(0..).all(|(line, number)| **line == value(number)),
        "what was acknowledged is there"
    );
    assert_eq!(kept.len() as u64, written);
}

/// A node's certificate, in a folder that `make.sh` filled.
fn proves(folder: &Path, id: usize) -> Options {
    let file = |name: &str| folder.join(name).display().to_string();
    let own = file(&format!("node-{id}.pem"));
    Options::small()
        .env("VARVE_PEER_TLS_CA", file("authority.pem"))
        .env("VARVE_PEER_TLS_CERTIFICATE", &own)
        .env("VARVE_PEER_TLS_KEY", own)
}

#[test]
fn nodes_that_prove_who_they_are_make_a_cluster_and_let_nobody_else_in() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../broker/src/peers/tests/certificates/make.sh");
    let made = Command::new("sh").arg(script).arg(folder.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut cluster = Cluster::start_each(3, |id| proves(folder.path(), id));
    cluster.create_topic(TOPIC, 1, 3, &[]);
    let load = cluster.start_load(TOPIC, value);
    wait_end(&cluster, 0, 500);
    let first = cluster.wait_leader(0, TOPIC, 0, None);
    let asked = (first + 1) % 3;
    cluster.nodes[first].kill();
    let _ = cluster.wait_leader(asked, TOPIC, 0, Some(first));
    let before = end_of(&cluster, asked);
    wait_end(&cluster, asked, before + 500);
    // What is no TLS does not get as far as a word.
    let mut stranger = TcpStream::connect(cluster.peer_address(asked)).unwrap();
    stranger.write_all(b"\0\0\0\0\x01\x01 is this a hello?").unwrap();
    let mut heard = Vec::new();
    let _ = stranger.read_to_end(&mut heard);
    assert!(!heard.windows(4).any(|bytes| bytes == b"node"), "{heard:?}");
    wait_for("the stranger to be counted", 30, || {
        cluster.nodes[asked].metric_of("varve_peer_refused_total", "no secure connection") > 0.0
    });
    let written = load.finish();
    check_all(&cluster.nodes[asked], TOPIC, written);
}
