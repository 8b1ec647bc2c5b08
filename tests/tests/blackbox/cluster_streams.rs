//! Records that are on nodes only: whoever lags behind what the others have cut, has lost its disk, or one of its files, has it from
//! them. Under load, with kills in the middle, and every replica read to its end.

use std::{fs, path::PathBuf};

use varve_tests::{
    clients::{kcat, varve_json},
    cluster::Cluster,
    marked::line,
    node::{Node, Options},
    tool::Tool,
    wait_for,
};

use crate::scrub::{outcomes, scrub};

const TOPIC: &str = "here";
const VALUE_BYTES: usize = 1_500;
const SEGMENT: &str = "segment.bytes=1048576";
/// More than twice what a log of 16 MiB holds, in bytes of sealed files, which are small where the log is short of room: some of it was not
/// sealed yet when it was counted.
const BEYOND_THE_LOG: u64 = 36 << 20;
const PACE: &str = "VARVE_MOVE_BYTES_PER_SECOND";

fn value(number: u64) -> String {
    line(number, VALUE_BYTES)
}

/// Files come faster than the load.
fn options() -> Options {
    Options::small().env(PACE, "8MiB")
}

fn is_healthy(node: &Node) -> bool {
    varve_json(node, &["cluster", "health"]).0
}

/// Sealed files of all groups of a node.
fn sealed(node: &Node) -> Vec<PathBuf> {
    let folders = fs::read_dir(node.data().join("segments")).into_iter().flatten().flatten();
    let files = folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten());
    let mut files: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|suffix| suffix == "seg"));
    files.sort();
    files
}

fn sealed_bytes(node: &Node) -> u64 {
    sealed(node).iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum()
}

fn from_peers(node: &Node) -> f64 {
    node.metric_of("varve_bootstrap_bytes_total", "source=\"peer\"")
}

/// Whether a file came whole, and more are to come.
fn is_receiving(node: &Node, before: usize) -> bool {
    sealed(node).len() > before && node.metric("varve_bootstrap_lacking_bytes") > 0.0
}

fn wait_healthy(cluster: &Cluster, seconds: u64) {
    wait_for("a healthy cluster", seconds, || cluster.nodes.iter().all(is_healthy));
}

/// Every record once and in order, from each replica: only who leads is read.
fn check_replicas(cluster: &Cluster, written: u64) {
    for place in 0..cluster.nodes.len() {
        let id = (place + 1).to_string();
        wait_for("it to lead", 60, || {
            let to = ["cluster", "transfer-leader", "here-0", "--to", id.as_str()];
            let _ = varve_json(&cluster.nodes[0], &to);
            cluster.leader(place, TOPIC, 0) == Some(place)
        });
        let from_start = ["-C", "-q", "-e", "-t", TOPIC, "-p", "0", "-o", "0", "-X", "check.crcs=true"];
        let read = String::from_utf8(kcat(&cluster.nodes[place], &from_start, b"")).unwrap();
        assert_eq!(cluster.leader(place, TOPIC, 0), Some(place), "it led all the while");
        let mut lines = read.lines();
        for number in 0..written {
            assert_eq!(lines.next(), Some(value(number).as_str()), "replica {id}: record {number}");
        }
        assert_eq!(lines.next(), None, "replica {id} has more than was written");
    }
}

/// A follower is killed, misses more than the logs hold, comes back, is killed while files come, and comes back. Until it is killed
/// what it lacks takes longer than half a minute, however seldom this process is given a turn to look.
fn lag_and_return(cluster: &mut Cluster) {
    let leads = cluster.wait_leader(0, TOPIC, 0, None);
    let lags = (leads + 1) % cluster.nodes.len();
    cluster.nodes[lags].kill();
    let (had, behind) = (sealed(&cluster.nodes[lags]).len(), sealed_bytes(&cluster.nodes[leads]));
    wait_for("the others to cut what it lacks", 180, || {
        sealed_bytes(&cluster.nodes[leads]) > behind + BEYOND_THE_LOG
    });
    cluster.nodes[lags].options().environment.push((PACE.to_owned(), "1MiB".to_owned()));
    cluster.nodes[lags].launch();
    wait_for("some of its files to have come", 120, || is_receiving(&cluster.nodes[lags], had));
    cluster.nodes[lags].kill();
    let _ = cluster.nodes[lags].options().environment.pop();
    let kept = sealed(&cluster.nodes[lags]).len();
    println!("killed with {kept} files, {had} before, {} elsewhere", sealed(&cluster.nodes[leads]).len());
    cluster.nodes[lags].restart();
    wait_healthy(cluster, 180);
    wait_for("the metrics", 20, || from_peers(&cluster.nodes[lags]) > 0.0);
    assert!(sealed(&cluster.nodes[lags]).len() >= kept, "what came is kept");
    assert_eq!(cluster.nodes[lags].metric_of("varve_bootstrap_bytes_total", "source=\"bucket\""), 0.0);
}

/// A file goes, and another is damaged; both are found and come back.
fn lose_files(cluster: &Cluster, place: usize) {
    let node = &cluster.nodes[place];
    let files = sealed(node);
    let (gone, damaged) = (files[0].clone(), files[1].clone());
    let bytes = [&gone, &damaged].map(|file| fs::read(file).unwrap());
    fs::remove_file(&gone).unwrap();
    let mut other = bytes[1].clone();
    let middle = other.len() / 2;
    other[middle] ^= 0xff;
    fs::write(&damaged, other).unwrap();
    let (_, report) = scrub(node);
    println!("scrub: {report}");
    wait_for("both files to be whole again", 120, || {
        [&gone, &damaged]
            .iter()
            .zip(&bytes)
            .all(|(file, bytes)| fs::read(file).is_ok_and(|now| now == *bytes))
    });
    assert!(outcomes(&report, "sealed file").iter().any(|outcome| outcome == "repaired"), "{report}");
}

fn replace_all(cluster: &mut Cluster) {
    for place in 0..cluster.nodes.len() {
        cluster.nodes[place].kill();
        cluster.nodes[place].wipe();
        cluster.nodes[place].restart();
        wait_healthy(cluster, 240);
        let node = &cluster.nodes[place];
        wait_for("the metrics", 20, || from_peers(node) > 0.0);
        println!("node {} has {} bytes from others", place + 1, from_peers(node));
    }
}

fn survives(mut cluster: Cluster, configs: &[&str]) {
    let configs: Vec<&str> = [SEGMENT].iter().chain(configs).copied().collect();
    cluster.create_topic(TOPIC, 1, 3, &configs);
    wait_healthy(&cluster, 60);
    let load = cluster.start_load(TOPIC, value);
    wait_for("sealed files everywhere", 120, || cluster.nodes.iter().all(|node| sealed(node).len() >= 4));
    lag_and_return(&mut cluster);
    let follows = (cluster.wait_leader(0, TOPIC, 0, None) + 1) % cluster.nodes.len();
    lose_files(&cluster, follows);
    replace_all(&mut cluster);
    let written = load.finish();
    wait_healthy(&cluster, 120);
    check_replicas(&cluster, written);
}

#[test]
fn a_cluster_without_a_bucket_survives_what_one_with_a_bucket_does() {
    if Tool::need(&[Tool::Kcat, Tool::Python]) {
        survives(Cluster::start_without_bucket(3, &options()), &[]);
    }
}

#[test]
fn a_topic_that_does_not_tier_survives_what_one_that_does() {
    if Tool::need(&[Tool::Kcat, Tool::Python]) {
        survives(Cluster::start(3, &options()), &["remote.storage.enable=false"]);
    }
}
