//! Nodes that die, one after another or all at once, and come back: with their disks, without, and too late for the log.

use std::{thread, time::Duration};

use varve_tests::{
    batch::{Batch, produce_code},
    clients::{kcat, varve_json},
    cluster::{Cluster, check_all, value},
    ledger::{KCAT_FORMAT, Seen, hash},
    marked,
    node::{Node, Options},
    raw::{fetch, list_offset},
    tool::Tool,
    wait_for,
};

const TOPIC: &str = "dying";

fn end_of(cluster: &Cluster, asked: usize) -> i64 {
    let leader = cluster.leader(asked, TOPIC, 0);
    leader.map_or(-1, |leader| list_offset(cluster.nodes[leader].kafka(), TOPIC, 0, -1).unwrap_or(-1))
}

fn go_on(cluster: &Cluster, asked: usize, more: i64) {
    let before = end_of(cluster, asked).max(0);
    wait_for("records to be acknowledged", 60, || end_of(cluster, asked) >= before + more);
}

fn wait_in_sync(cluster: &Cluster, asked: usize) {
    wait_for("all to be in sync", 120, || cluster.in_sync(asked, TOPIC, 0) == [0, 1, 2]);
}

pub(crate) const LARGE_BYTES: usize = 48 << 10;

/// Every large record, once and in order. A consumer that is told that its place is out of range does not go on at the end.
pub(crate) fn check_large(node: &Node, topic: &str, count: i64) {
    let read = ["-C", "-q", "-e", "-t", topic, "-p", "0", "-o", "0", "-X", "check.crcs=true"];
    let read = [read.as_slice(), &["-X", "auto.offset.reset=error"]].concat();
    let read = kcat(node, &[read.as_slice(), &["-f", KCAT_FORMAT]].concat(), b"");
    let seen = Seen::of_kcat(topic, &read).0;
    assert_eq!(seen.len() as i64, count);
    for (number, ((_, _, offset), found)) in (0..count).zip(seen) {
        let sent = hash(None, Some(&marked::value(topic, number, LARGE_BYTES)), &[]);
        assert!(offset == number && found == sent, "record {number} is lost or other");
    }
}

/// One dies; the others write several times what their log may hold, so that it is cut far beyond what the dead one has; it comes back.
fn comes_back_behind_the_log(is_wiped: bool) {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(
        TOPIC,
        1,
        3,
        &["segment.bytes=1048576", "local.retention.bytes=1048576", "retention.ms=-1"],
    );
    wait_in_sync(&cluster, 0);
    let leader = cluster.wait_leader(0, TOPIC, 0, None);
    marked::fill_led(&cluster, leader, TOPIC, 0..20, LARGE_BYTES);
    let dead = (leader + 1) % 3;
    cluster.nodes[dead].kill();
    let count = 900;
    marked::fill_led(&cluster, leader, TOPIC, 20..count, LARGE_BYTES);
    let leader = cluster.wait_leader(leader, TOPIC, 0, None);
    let checkpoints = || cluster.nodes[leader].metric("varve_raft_snapshots_total");
    wait_for("checkpoints", 60, || checkpoints() >= 2.0);
    if is_wiped {
        cluster.nodes[dead].wipe();
    }
    cluster.nodes[dead].restart();
    // The log does not reach that far back. (Who was away for less than the lag that is allowed never left the in-sync set.)
    let seeds = || cluster.nodes[dead].metric("varve_raft_seeds_total");
    wait_for("it to begin with a checkpoint", 60, || seeds() >= 1.0);
    wait_in_sync(&cluster, leader);
    cluster.each_leads(TOPIC, |node| check_large(node, TOPIC, count));
    // It goes on as a member like any: without another one it is half of the quorum.
    let other = (dead + 1) % 3;
    cluster.nodes[other].kill();
    wait_for("records to be acknowledged", 60, || cluster.acknowledges(dead, TOPIC, "one more"));
}

#[test]
fn a_node_that_comes_back_behind_a_cut_log_with_its_disk_is_as_the_others() {
    comes_back_behind_the_log(false);
}

#[test]
fn row_29_a_node_that_comes_back_behind_a_cut_log_without_its_disk_is_as_the_others() {
    comes_back_behind_the_log(true);
}

/// Two of three have all that was acknowledged; of those two one goes, and the third comes back, behind what the other one's log holds.
/// Whoever is to lead now cannot commit anything before it has given the other a checkpoint.
fn goes_on_with_one_that_lags(configs: &[&str]) {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    let configs = [&["segment.bytes=1048576", "retention.ms=-1"], configs].concat();
    cluster.create_topic(TOPIC, 1, 3, &configs);
    wait_in_sync(&cluster, 0);
    let leader = cluster.wait_leader(0, TOPIC, 0, None);
    marked::fill_led(&cluster, leader, TOPIC, 0..20, LARGE_BYTES);
    let lags = (leader + 1) % 3;
    cluster.nodes[lags].kill();
    let count = 900;
    marked::fill_led(&cluster, leader, TOPIC, 20..count, LARGE_BYTES);
    let leader = cluster.wait_leader(leader, TOPIC, 0, Some(lags));
    let stays = 3 - leader - lags;
    wait_for("both to have cut what it lacks", 60, || {
        [leader, stays].iter().all(|&node| cluster.nodes[node].metric("varve_raft_snapshots_total") >= 2.0)
    });
    cluster.nodes[leader].kill();
    cluster.nodes[lags].launch();
    wait_for("two of three to go on", 180, || {
        let leads = cluster.leader(stays, TOPIC, 0) == Some(stays);
        leads && list_offset(cluster.nodes[stays].kafka(), TOPIC, 0, -1) == Ok(count)
    });
    marked::fill_led(&cluster, stays, TOPIC, count..count + 20, LARGE_BYTES);
    cluster.nodes[leader].restart();
    cluster.nodes[lags].wait_ready();
    wait_in_sync(&cluster, stays);
    cluster.each_leads(TOPIC, |node| check_large(node, TOPIC, count + 20));
}

#[test]
fn two_of_three_go_on_where_one_of_them_lags_behind_the_others_log() {
    goes_on_with_one_that_lags(&["local.retention.bytes=1048576"]);
}

#[test]
fn two_of_three_go_on_where_one_of_them_lags_behind_a_log_that_does_not_tier() {
    goes_on_with_one_that_lags(&["remote.storage.enable=false"]);
}

#[test]
fn row_3_all_that_die_at_once_keep_term_and_commit_and_lose_nothing() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &["segment.bytes=65536"]);
    let load = cluster.start_load(TOPIC, value);
    for _ in 0..3 {
        go_on(&cluster, 0, 1000);
        let figures =
            |name: &str| -> Vec<f64> { cluster.nodes.iter().map(|node| node.metric(name)).collect() };
        let terms = figures("varve_raft_term");
        // The commit index itself is not durable at once; what was acknowledged under it is.
        let end = end_of(&cluster, 0);
        cluster.nodes.iter_mut().for_each(Node::kill);
        cluster.launch_all();
        let _ = cluster.wait_leader(0, TOPIC, 0, None);
        wait_for("the end to be told", 30, || end_of(&cluster, 0) >= end);
        let after: Vec<f64> = cluster.nodes.iter().map(|node| node.metric("varve_raft_term")).collect();
        assert!(after.iter().zip(&terms).all(|(after, before)| after >= before), "{terms:?}, then {after:?}");
    }
    let written = load.finish();
    cluster.each_leads(TOPIC, |node| check_all(node, TOPIC, written));
}

#[test]
fn nodes_that_die_one_after_another_and_return_acknowledge_nothing_without_a_quorum() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &[]);
    let load = cluster.start_load(TOPIC, value);
    go_on(&cluster, 0, 500);
    let first = cluster.wait_leader(0, TOPIC, 0, None);
    cluster.nodes[first].kill();
    let asked = (first + 1) % 3;
    let second = cluster.wait_leader(asked, TOPIC, 0, Some(first));
    go_on(&cluster, asked, 500);
    let last = 3 - first - second;
    cluster.nodes[second].kill();
    let alone = cluster.nodes[last].kafka();
    for _ in 0..3 {
        let extra = Batch::of(&[b"extra"]).encode();
        assert_ne!(produce_code(alone, TOPIC, -1, &extra), Some(0), "one of three acknowledged");
        // Answered or refused, each within the time that a client waits.
        let told = list_offset(alone, TOPIC, 0, -1);
        let (code, records) = fetch(alone, TOPIC, 0);
        println!("alone: end {told:?}, fetch {code} with {} bytes", records.len());
        thread::sleep(Duration::from_millis(500));
    }
    let begin = std::time::Instant::now();
    cluster.nodes[second].restart();
    go_on(&cluster, last, 200);
    println!("records again {:?} after the second was started", begin.elapsed());
    cluster.nodes[first].restart();
    wait_in_sync(&cluster, last);
    let written = load.finish();
    cluster.each_leads(TOPIC, |node| check_all(node, TOPIC, written));
}

#[test]
fn row_71_a_rolling_restart_under_load_fails_no_record() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = Cluster::start(3, &Options::small());
    cluster.create_topic(TOPIC, 1, 3, &[]);
    let load = cluster.start_load(TOPIC, value);
    go_on(&cluster, 0, 500);
    for node in [0, 1, 2, 1] {
        let status = cluster.nodes[node].terminate();
        assert!(status.success(), "{status}");
        let asked = (node + 1) % 3;
        go_on(&cluster, asked, 200);
        cluster.nodes[node].restart();
        wait_in_sync(&cluster, asked);
        wait_for("a healthy cluster", 60, || varve_json(&cluster.nodes[asked], &["cluster", "health"]).0);
    }
    // Each of them acknowledged: it panics where the client gave one up.
    let written = load.finish();
    cluster.each_leads(TOPIC, |node| check_all(node, TOPIC, written));
}
