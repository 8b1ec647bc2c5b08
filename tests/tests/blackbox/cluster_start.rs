//! What a node of a cluster says of itself before it serves: how far its start has come, and what it waits for.

use varve_tests::{
    clients::varve_json,
    cluster::Cluster,
    dns::Dns,
    node::{Node, Options},
    tool::Tool,
    wait_for,
};

/// Whether `/readyz` says so much that is not ready, and `/livez` that the process turns.
fn waits(node: &Node, what: &[&str]) -> bool {
    let live = node.http("/livez").is_some_and(|(status, _)| status == 200);
    let ready = node.http("/readyz");
    live && ready.is_some_and(|(status, said)| status == 503 && what.iter().all(|what| said.contains(what)))
}

fn stage(node: &Node, stage: &str) -> f64 {
    node.metric_of("varve_start_stage", &format!("\"{stage}\""))
}

#[test]
fn nodes_that_a_dns_service_names_form_one_cluster_once_all_are_named() {
    if !Tool::need(&[]) {
        return;
    }
    let dns = Dns::start();
    let plain = Options::small().env("VARVE_DNS_SERVER", dns.address.to_string());
    // The embedded store is its node's: a claim that would refuse a second cluster is nowhere.
    let options = plain.clone().env("VARVE_FOUND", "true");
    let service = "dns+srv://_peers._tcp.varve.test?nodes=3";
    let mut cluster = Cluster::stopped_behind(3, service, &options);
    let record = |cluster: &Cluster, number: usize| ("localhost", cluster.peer_address(number).port());
    let all: Vec<_> = (0..3).map(|number| record(&cluster, number)).collect();
    cluster.nodes[0].launch();
    let said = "start not ready: forming";
    wait_for("the first to wait for names", 30, || waits(&cluster.nodes[0], &[said, "DNS names 0 nodes"]));
    // Those that come first are two: they found no cluster of their own.
    dns.name(&all[..2]);
    cluster.nodes[1].launch();
    for node in &cluster.nodes[..2] {
        wait_for("both to wait for the third", 30, || waits(node, &[said, "DNS names 2 nodes, and 3"]));
    }
    dns.name(&all);
    cluster.nodes[2].launch();
    cluster.nodes.iter_mut().for_each(Node::wait_ready);
    wait_for("a healthy cluster", 30, || varve_json(&cluster.nodes[0], &["cluster", "health"]).0);

    // One that comes later is named as well, and joins. The names of the others are those of nobody any more.
    let fourth = cluster.add(&plain);
    let named = [all[1], all[2], record(&cluster, fourth)];
    dns.name(&[all[0], named[0], named[1], named[2]]);
    cluster.nodes[fourth].restart();
    dns.name(&named[1..]);
    let health = |node: &Node| varve_json(node, &["cluster", "health"]).0;
    wait_for("a healthy cluster of four", 60, || cluster.nodes.iter().all(health));
    // Who was formed needs no directory to come back.
    dns.name(&[]);
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::launch);
    cluster.nodes.iter_mut().for_each(Node::wait_ready);
    wait_for("all of them again", 60, || cluster.nodes.iter().all(health));
    let (_, info) = varve_json(&cluster.nodes[0], &["cluster", "info"]);
    assert_eq!(info["nodes"].as_array().map(Vec::len), Some(4), "{info}");
}

#[test]
fn a_node_that_forms_or_joins_a_cluster_says_what_it_waits_for() {
    if !Tool::need(&[]) {
        return;
    }
    let mut cluster = Cluster::stopped(3, &Options::small());
    cluster.nodes[0].launch();
    let second = cluster.peer_address(1).to_string();
    wait_for("the first to say whom it waits for", 30, || {
        waits(&cluster.nodes[0], &["start not ready: forming", &second])
    });
    assert_eq!((stage(&cluster.nodes[0], "forming"), stage(&cluster.nodes[0], "serving")), (1.0, 0.0));
    cluster.nodes[1..].iter_mut().for_each(Node::launch);
    cluster.nodes.iter_mut().for_each(Node::wait_ready);
    assert_eq!((stage(&cluster.nodes[0], "forming"), stage(&cluster.nodes[0], "serving")), (0.0, 1.0));
    wait_for("a healthy cluster", 30, || varve_json(&cluster.nodes[0], &["cluster", "health"]).0);

    // Without two of three nobody can give a new node its place.
    cluster.nodes[1..].iter_mut().for_each(Node::kill);
    let fourth = cluster.add(&Options::small());
    cluster.nodes[fourth].launch();
    wait_for("the new one to say what it waits for", 30, || {
        waits(&cluster.nodes[fourth], &["start not ready: joining"])
    });
    cluster.nodes[1..3].iter_mut().for_each(Node::launch);
    cluster.nodes.iter_mut().for_each(Node::wait_ready);
    let added = varve_json(&cluster.nodes[0], &["cluster", "add-node", "4", "--timeout", "120"]);
    assert!(added.0, "{added:?}");
    let (_, info) = varve_json(&cluster.nodes[0], &["cluster", "info"]);
    let joining = info["nodes"].as_array().unwrap().iter().map(|node| node["joining_replicas"].as_u64());
    assert_eq!(joining.collect::<Vec<_>>(), [Some(0); 4], "{info}");

    // Two of three that are down leave the third without anybody who leads the metadata.
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes[0].launch();
    wait_for("the first to say that nobody leads", 30, || {
        waits(&cluster.nodes[0], &["start not ready: registering", "waiting for whoever leads"])
    });
}
