//! Rot in the logs of several nodes: fault row 25 and T13. A log that has lost something of a partition speaks for nothing of it, whoever
//! else is there.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use varve_tests::{
    clients::varve_json,
    cluster::Cluster,
    faults::{files_below, flip_at},
    marked,
    node::{Node, Options},
    raw::{fetch, fetch_stored},
    tool::Tool,
    wait_for,
};

use crate::{
    rot::{STORAGE_ERROR, flip, is_served, produce, value},
    scrub::{outcomes, scrub},
};

const TOPIC: &str = "rotting";
/// Large records, several to a sealed file.
const LARGE: i64 = 900;
const LARGE_BYTES: usize = 48 << 10;

/// Whoever leads may hand over at any time: then nothing was written.
fn write(cluster: &Cluster, asked: usize, records: std::ops::Range<usize>) {
    for number in records {
        let leader = || cluster.leader(asked, TOPIC, 0);
        let is_written =
            || leader().is_some_and(|leader| produce(&cluster.nodes[leader], TOPIC, number) == 0);
        wait_for("a record to be acknowledged", 30, is_written);
    }
}

/// A bit of a record rots in the log of a node that is down.
fn rot_stopped(node: &Node, record: usize) {
    // Once or more: a leader that changed meanwhile wrote it again.
    assert!(flip(&node.data().join("wal"), &value(TOPIC, record)[..600]) > 0);
}

/// A bit of a record rots in a node's log while it is down.
fn rot(node: &mut Node, record: usize) {
    node.kill();
    rot_stopped(node, record);
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

/// Three logs that have lost something each, of which no two lack the same: nobody has all, and nobody speaks for it.
#[test]
fn row_26_logs_that_rot_in_three_places_stop_their_partition_aloud_and_no_other() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &["remote.storage.enable=false", "retention.ms=-1"]);
    cluster.create_topic("healthy", 1, 3, &[]);
    write(&cluster, 0, 0..200);
    wait_for("all to be in sync", 60, || cluster.in_sync(0, TOPIC, 0) == [0, 1, 2]);
    cluster.nodes.iter_mut().for_each(Node::kill);
    let rotten = [60, 120, 180];
    for (node, record) in cluster.nodes.iter().zip(rotten) {
        rot_stopped(node, record);
    }
    for _ in 0..2 {
        cluster.launch_all();
        for (node, record) in cluster.nodes.iter().zip(rotten) {
            wait_for("the damage to be counted", 30, || {
                node.metric("varve_cluster_partitions_damaged") == 1.0
            });
            let (status, said) = node.http("/readyz").unwrap();
            assert!(status == 200 && said.contains("rotting-0"), "{status} {said}");
            assert!(!is_served(node.kafka(), TOPIC, record), "what has rotten is served");
        }
        for number in 0..3 {
            assert!(
                !cluster.acknowledges(number, TOPIC, "to nobody"),
                "a partition that has stopped took one"
            );
            assert!(!varve_json(&cluster.nodes[number], &["cluster", "health"]).0, "it is called healthy");
            wait_for("the other one to go on", 60, || cluster.acknowledges(number, "healthy", "one more"));
        }
        // It stays so.
        cluster.nodes.iter_mut().for_each(Node::kill);
    }
}

/// Three nodes with sealed files that are nowhere else, the same ones everywhere, and whose records are in no log any more.
fn start_sealed() -> (Cluster, Vec<Vec<PathBuf>>) {
    // Nothing by itself: what is tested is what was asked for.
    let options = Options::small().env("VARVE_SCRUB_INTERVAL_MS", "-1");
    let mut cluster = Cluster::start(3, &options);
    let configs = ["remote.storage.enable=false", "retention.ms=-1", "segment.bytes=262144"];
    cluster.create_topic(TOPIC, 1, 3, &configs);
    let first = cluster.wait_leader(0, TOPIC, 0, None);
    cluster.lead(first, TOPIC, 0);
    marked::fill_led(&cluster, first, TOPIC, 0..LARGE, LARGE_BYTES);
    let sealed = |node: &Node| {
        let mut files = files_below(&node.data().join("segments"));
        files.retain(|file| file.extension().is_some_and(|suffix| suffix == "seg"));
        files
    };
    let early = |number: i64| marked::value(TOPIC, number, LARGE_BYTES)[..600].to_vec();
    wait_for("sealed files everywhere, and the first records in no log", 120, || {
        let is_cut = |node: &Node| {
            (0..40).step_by(4).all(|number| count(&node.data().join("wal"), &early(number)) == 0)
        };
        cluster.nodes.iter().all(|node| sealed(node).len() >= 40 && is_cut(node))
    });
    // Nothing is served from memory.
    cluster.nodes.iter_mut().for_each(|node| assert!(node.terminate().success()));
    cluster.launch_all();
    let files = cluster.nodes.iter().map(sealed).collect();
    (cluster, files)
}

/// How many files of a folder hold some bytes.
fn count(folder: &Path, needle: &[u8]) -> usize {
    let files = files_below(folder).into_iter().filter_map(|file| fs::read(file).ok());
    files.filter(|bytes| bytes.windows(needle.len()).any(|window| window == needle)).count()
}

fn spoil(file: &Path) {
    flip_at(file, fs::metadata(file).unwrap().len() / 2);
}

/// What a fetch of a large record brings: the record, or Kafka's code.
fn fetched(node: &Node, number: i64) -> Result<(), i16> {
    let (code, records) = fetch_stored(node.kafka(), TOPIC, number);
    if code != 0 {
        return Err(code);
    }
    let wanted = marked::value(TOPIC, number, LARGE_BYTES);
    assert!(records.windows(wanted.len()).any(|window| window == wanted), "record {number} is other");
    Ok(())
}

#[test]
fn row_26_files_that_rot_in_another_place_on_each_node_are_each_repaired_from_another() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let (cluster, files) = start_sealed();
    let spoiled: Vec<&PathBuf> =
        files.iter().enumerate().map(|(number, files)| &files[3 * number + 1]).collect();
    let whole: Vec<Vec<u8>> = spoiled.iter().map(|file| fs::read(file).unwrap()).collect();
    spoiled.iter().for_each(|file| spoil(file));
    for node in &cluster.nodes {
        let (_, report) = scrub(node);
        assert_eq!(outcomes(&report, "sealed file"), ["repaired"], "{report}");
    }
    for (file, whole) in spoiled.iter().zip(&whole) {
        assert!(fs::read(file).is_ok_and(|now| now == *whole), "{} is not what it was", file.display());
    }
    cluster.each_leads(TOPIC, |node| {
        (0..LARGE).for_each(|number| assert_eq!(fetched(node, number), Ok(()), "record {number}"));
        assert_eq!(node.metric("varve_cluster_partitions_damaged"), 0.0);
    });
}

#[test]
fn row_26_a_file_that_rots_on_every_node_is_not_served_and_everything_else_goes_on() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let (cluster, files) = start_sealed();
    files.iter().for_each(|files| spoil(&files[1]));
    // Each of them finds it when it leads and is asked.
    for (number, node) in cluster.nodes.iter().enumerate() {
        wait_for("it to be found here", 60, || {
            let to = ["cluster", "transfer-leader", "rotting-0", "--to", &(number + 1).to_string()];
            let _ = varve_json(node, &to);
            let _ = (0..40).find(|number| fetch(node.kafka(), TOPIC, *number).0 == STORAGE_ERROR);
            node.log().contains("bytes on the local disk are not those that were written")
        });
    }
    wait_for("all others to be asked in vain", 90, || {
        cluster.nodes.iter().any(|node| node.log().contains("no node gave it"))
    });
    let changes =
        || -> f64 { cluster.nodes.iter().map(|node| node.metric("varve_raft_leader_changes_total")).sum() };
    thread::sleep(Duration::from_secs(20)); // every node tried once
    let before = changes();
    thread::sleep(Duration::from_secs(20));
    let more = changes() - before;
    println!("{more} changes of leaders in 20 s");
    assert!(more <= 3.0, "{more}: nobody has it, and leadership goes around for it");
    let leads = cluster.wait_leader(0, TOPIC, 0, None);
    let lost: Vec<i64> =
        (0..LARGE).filter(|number| fetched(&cluster.nodes[leads], *number) == Err(STORAGE_ERROR)).collect();
    assert!((1..=8).contains(&lost.len()), "{lost:?} are lost, of one file");
    for number in 0..3 {
        assert!(cluster.acknowledges(number, TOPIC, "one more"), "nothing is taken any more");
    }
}
