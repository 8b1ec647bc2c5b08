//! Fault rows 27, 29 and 30: the log, in which votes and acknowledged entries are, is gone while the rest of the data directory is there, or the
//! whole directory is put back to what it was before.

use std::{fs, net::TcpStream, path::Path, process::Command, time::Duration};

use varve_tests::{
    clients::{create_topic, kcat, varve_json},
    cluster::Cluster,
    faults::files_below,
    marked::line,
    node::{Node, Options},
    raw::list_offset,
    tool::Tool,
    wait_for,
};

use crate::{
    damage::is_read,
    rot::{fill, is_served, produce, storage},
};

const TOPIC: &str = "kept";

fn value(number: u64) -> String {
    line(number, 200)
}

fn is_healthy(node: &Node) -> bool {
    varve_json(node, &["cluster", "health"]).0
}

fn check_all(node: &Node, written: u64) {
    let read = kcat(node, &["-C", "-q", "-e", "-t", TOPIC, "-p", "0", "-o", "0"], b"");
    let read = String::from_utf8(read).unwrap();
    let expected: Vec<String> = (0..written).map(value).collect();
    assert!(read.lines().eq(&expected), "{} of {written} records are there", read.lines().count());
}

/// What a founder must not do without its log: the third replica lags, the second has lost what it acknowledged, the first is dead.
fn a_voter_without_its_log_elects_nobody(lose: impl Fn(&Node)) {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &[]);
    wait_for("a healthy cluster", 60, || is_healthy(&cluster.nodes[0]));
    cluster.nodes[2].kill();
    let load = cluster.start_load(TOPIC, value);
    std::thread::sleep(Duration::from_secs(2));
    let written = load.finish();
    cluster.nodes[..2].iter_mut().for_each(Node::kill);
    lose(&cluster.nodes[1]);
    cluster.nodes[1].launch();
    cluster.nodes[2].launch();
    // Ten elections' time: these two would be a quorum.
    for _ in 0..10 {
        std::thread::sleep(Duration::from_secs(1));
        // A node serves clients once it knows that the cluster knows it.
        let is_served = TcpStream::connect(cluster.nodes[2].kafka()).is_ok();
        assert!(!is_served, "two nodes act as a quorum, and one has lost what it acknowledged");
    }
    cluster.nodes[0].launch();
    cluster.nodes.iter_mut().for_each(Node::wait_ready);
    wait_for("the node to hold everything again", 120, || cluster.nodes.iter().all(is_healthy));
    assert!(cluster.nodes[1].log().contains("joins its cluster anew"));
    cluster.nodes.iter().for_each(|node| check_all(node, written));
    // It votes again, under a number of its own, and stays what it is at the next start.
    cluster.nodes[1].kill();
    cluster.nodes[1].restart();
    cluster.nodes[0].kill();
    let leader = cluster.wait_leader(1, TOPIC, 0, Some(0));
    assert!(leader > 0);
    check_all(&cluster.nodes[1], written);
}

#[test]
fn fault_29_a_founder_whose_log_was_wiped_is_not_counted_as_the_voter_that_it_was() {
    a_voter_without_its_log_elects_nobody(|node| fs::remove_dir_all(node.data().join("wal")).unwrap());
}

#[test]
fn fault_27_a_founder_whose_votes_were_deleted_refuses_to_vote_until_it_has_joined_again() {
    a_voter_without_its_log_elects_nobody(|node| {
        files_below(&node.data().join("wal"))
            .iter()
            .filter(|path| path.extension().is_some_and(|suffix| suffix == "wal"))
            .for_each(|path| fs::remove_file(path).unwrap());
    });
}

fn copy_all(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// A snapshot of a machine that is put back: what it acknowledged and voted for since is not on it.
#[test]
fn row_30_an_older_copy_of_a_disk_never_speaks_for_the_voter_that_it_was() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &[]);
    wait_for("a healthy cluster", 60, || is_healthy(&cluster.nodes[0]));
    cluster.nodes[2].kill();
    let copies = tempfile::tempdir().unwrap();
    let (data, copy) = (cluster.nodes[2].data(), copies.path().join("data"));
    copy_all(&data, &copy);
    cluster.nodes[2].restart();
    let load = cluster.start_load(TOPIC, value);
    cluster.wait_end(0, TOPIC, 500);
    let written = load.finish();
    wait_for("all of it to be on all of them", 60, || cluster.in_sync(0, TOPIC, 0) == [0, 1, 2]);
    cluster.nodes[2].kill();
    fs::remove_dir_all(&data).unwrap();
    copy_all(&copy, &data);
    cluster.nodes[2].launch();
    assert!(!cluster.nodes[2].wait_exit(60).success());
    let log = cluster.nodes[2].log();
    assert!(log.contains("it is an older copy of the one with which this node ran last"), "{log}");
    cluster.nodes[2].restart();
    wait_for("the node to hold everything again", 120, || cluster.nodes.iter().all(is_healthy));
    assert!(cluster.nodes[2].log().contains("joins its cluster anew"));
    check_all(&cluster.nodes[2], written);
}

#[test]
fn fault_29_a_node_that_is_alone_does_not_start_without_its_log_until_the_loss_is_accepted() {
    let mut node = Node::start(Options::default());
    create_topic(&node, "t", 1, &[]);
    fill(&node, "t", 0..20);
    node.kill();
    fs::remove_dir_all(node.data().join("wal")).unwrap();
    for _ in 0..2 {
        node.launch();
        assert!(!node.wait_exit(60).success());
        let log = node.log();
        assert!(
            log.contains("write-ahead log in") && log.contains("varve storage recover --accept-loss"),
            "{log}"
        );
    }
    let (code, text) = storage(&node, &["status"]);
    assert!(code != 0 && text.contains("recover --accept-loss"), "{text}");
    let (code, text) = storage(&node, &["recover", "--accept-loss"]);
    assert!(code == 0 && text.contains("metadata"), "{text}");
    node.restart();
    // So young a log had all there was.
    create_topic(&node, "t", 1, &[]);
    fill(&node, "t", 0..20);
    node.kill();
    node.restart();
    assert!((0..20).all(|number| is_served(node.kafka(), "t", number)));
}

#[test]
fn fault_29_what_is_in_checkpoints_and_sealed_files_outlives_the_log() {
    let mut node = Node::start(Options::small());
    create_topic(&node, "t", 2, &["retention.ms=-1"]);
    fill(&node, "t", 0..300);
    // A stop leaves everything in files and in the bucket.
    assert!(node.terminate().success());
    node.restart();
    node.kill();
    fs::remove_dir_all(node.data().join("wal")).unwrap();
    node.launch();
    assert!(!node.wait_exit(60).success());
    let (code, text) = storage(&node, &["recover", "--accept-loss"]);
    println!("{text}");
    assert_eq!(code, 0, "{text}");
    node.restart();
    let end = list_offset(node.kafka(), "t", 0, -1).unwrap();
    // What was written before the stop is in files, in checkpoints and in the bucket.
    assert_eq!(end, 300, "{text}");
    assert!((0..end).all(|number| is_read(&node, "t", number as usize)), "what is left is not read");
    assert_eq!(produce(&node, "t", end as usize), 0);
    node.kill();
    node.restart();
    assert!(is_served(node.kafka(), "t", end as usize));
}

#[test]
fn a_data_directory_of_an_earlier_release_opens_as_it_did_and_is_told_apart_from_then_on() {
    let mut node = Node::start(Options::default());
    create_topic(&node, "t", 1, &[]);
    fill(&node, "t", 0..20);
    node.kill();
    let numbers = [node.data().join("born"), node.data().join("wal/born")];
    numbers.iter().for_each(|path| fs::remove_file(path).unwrap());
    node.restart();
    assert!((0..20).all(|number| is_served(node.kafka(), "t", number)));
    assert!(numbers.iter().all(|path| path.exists()));
    node.kill();
    fs::remove_file(&numbers[1]).unwrap();
    node.launch();
    assert!(!node.wait_exit(60).success());
}
