//! Nodes that prove to each other who they are: a cluster of them, a node that joins it, one that takes another's place, and strangers.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use varve_tests::{
    clients::varve_json,
    cluster::{Cluster, check_all, value},
    node::{Node, Options},
    tool::{self, Tool},
    wait_for,
};

const TOPIC: &str = "proven";
const DAYS: u64 = 90;

/// Certificates for nodes, by the command that people have for it.
fn make(folder: &Path, nodes: &str) {
    let mut command = Command::new(tool::varve());
    command.args(["cluster", "certificates"]).arg(folder).args([
        "--nodes",
        nodes,
        "--days",
        &DAYS.to_string(),
    ]);
    let made = tool::without_our_variables(&mut command).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// What a node is given of a folder.
fn proves(folder: &Path, id: usize) -> Options {
    let file = |name: String| folder.join(name).display().to_string();
    Options::small()
        .env("VARVE_PEER_TLS_CA", file("authority.pem".to_owned()))
        .env("VARVE_PEER_TLS_CERTIFICATE", file(format!("node-{id}.pem")))
        .env("VARVE_PEER_TLS_KEY", file(format!("node-{id}.key")))
}

fn is_healthy(node: &Node) -> bool {
    varve_json(node, &["cluster", "health"]).0
}

#[test]
fn nodes_that_prove_who_they_are_make_a_cluster_and_let_nobody_else_in() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), "1,2,3");
    let mut cluster = Cluster::start_each(3, |id| proves(folder.path(), id));
    cluster.create_topic(TOPIC, 1, 3, &[]);
    let load = cluster.start_load(TOPIC, value);
    cluster.wait_end(0, TOPIC, 500);
    let first = cluster.wait_leader(0, TOPIC, 0, None);
    let asked = (first + 1) % 3;
    cluster.nodes[first].kill();
    let _ = cluster.wait_leader(asked, TOPIC, 0, Some(first));
    let before = cluster.end_of(asked, TOPIC);
    cluster.wait_end(asked, TOPIC, before + 500);
    // What is no TLS does not get as far as a word.
    let mut stranger = TcpStream::connect(cluster.peer_address(asked)).unwrap();
    stranger.write_all(b"\0\0\0\0\x01\x01 is this a hello?").unwrap();
    let mut heard = Vec::new();
    let _ = stranger.read_to_end(&mut heard);
    assert!(!heard.windows(4).any(|bytes| bytes == b"node"), "{heard:?}");
    wait_for("the stranger to be counted", 30, || {
        cluster.nodes[asked].metric_of("varve_peer_refused_total", "no secure connection") > 0.0
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let left = cluster.nodes[asked].metric("varve_peer_certificate_expiry_timestamp_seconds") - now;
    assert!((0.9..=1.0).contains(&(left / (DAYS * 86_400) as f64)), "it ends in {left} s");
    let written = load.finish();
    check_all(&cluster.nodes[asked], TOPIC, written);
}

#[test]
fn a_fourth_node_proves_itself_and_takes_the_place_of_another() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let (folder, strange) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make(folder.path(), "1,2,3");
    make(strange.path(), "4");
    let mut cluster = Cluster::start_each(3, |id| proves(folder.path(), id));
    cluster.create_topic(TOPIC, 1, 3, &[]);
    cluster.create_topic("others", 5, 3, &[]);
    wait_for("a healthy cluster", 60, || is_healthy(&cluster.nodes[0]));
    let load = cluster.start_load(TOPIC, value);
    // Whom another authority has signed is let in by nobody.
    let fourth = cluster.add(&proves(strange.path(), 4));
    cluster.nodes[fourth].launch();
    wait_for("the stranger to be turned away", 60, || {
        cluster.nodes[..3].iter().any(|node| node.metric("varve_peer_refused_total") > 0.0)
    });
    cluster.nodes[fourth].kill();
    // The authority's key was kept: it signs for nodes that come later.
    make(folder.path(), "4");
    let own = proves(folder.path(), 4).environment;
    cluster.nodes[fourth].options().environment.extend(own);
    cluster.nodes[fourth].wipe();
    cluster.nodes[fourth].restart();
    let replaced =
        varve_json(&cluster.nodes[0], &["cluster", "replace-node", "2", "--with", "4", "--timeout", "180"]);
    assert!(replaced.0 && replaced.1["status"] == "replaced", "{replaced:?}");
    cluster.nodes[1].kill();
    let stays = [0, 2, fourth];
    wait_for("a healthy cluster of those that stay", 60, || {
        stays.iter().all(|node| is_healthy(&cluster.nodes[*node]))
    });
    let (_, rows) = varve_json(&cluster.nodes[0], &["cluster", "partitions"]);
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 6);
    for row in rows {
        let mut held: Vec<u64> =
            row["replicas"].as_array().unwrap().iter().filter_map(serde_json::Value::as_u64).collect();
        held.sort_unstable();
        assert_eq!(held, [1, 3, 4], "{row}");
    }
    let written = load.finish();
    stays.iter().for_each(|node| check_all(&cluster.nodes[*node], TOPIC, written));
}
