//! Checkpoints in the place of a log, at inconvenient moments: T4 and T11.

use std::{thread, time::Duration};

use varve_tests::{
    clients::varve_json,
    cluster::Cluster,
    links::Weather,
    marked,
    node::{Node, Options},
    raw::{Answer, Request, Socket},
    tool::Tool,
    wait_for,
};

use crate::cluster_faults::{LARGE_BYTES, check_large};

const TOPIC: &str = "jumping";
const CONFIGS: [&str; 3] = ["segment.bytes=1048576", "local.retention.bytes=1048576", "retention.ms=-1"];
/// Whoever is told to move may lose its leadership before it has begun to.
const TRIES: usize = 6;

fn is_healthy(node: &Node) -> bool {
    varve_json(node, &["cluster", "health"]).0
}

/// AlterPartitionReassignments: partition 0 is to be on these nodes, or what was begun is given up. Whether it was taken.
fn reassign(node: &Node, replicas: Option<&[usize]>) -> bool {
    let request = Request::flexible(45, 0).i32(10_000).i8(2).compact(TOPIC).i8(2).i32(0);
    let request = match replicas {
        Some(places) => {
            let count = request.i8(places.len() as i8 + 1);
            places.iter().fold(count, |request, place| request.i32(*place as i32 + 1))
        }
        None => request.i8(0),
    };
    let mut socket = Socket::connect(node.kafka());
    socket.send_frame(&request.i8(0).i8(0).i8(0).0);
    let Answer::Frame(frame) = socket.answer() else { return false };
    // correlation id 4, tags 1, throttle 4: error 2, message 1 where there is none, topics 1, name 1 + n, partitions 1, index 4: error 2
    let code = |at: usize| frame.get(at..at + 2).map(|code| i16::from_be_bytes([code[0], code[1]]));
    code(9) == Some(0) && code(9 + 2 + 1 + 1 + 1 + TOPIC.len() + 1 + 4) == Some(0)
}

fn held_by(node: &Node) -> Vec<usize> {
    let (_, rows) = varve_json(node, &["cluster", "partitions", TOPIC]);
    let replicas = rows[0]["replicas"].as_array().cloned().unwrap_or_default();
    let mut places: Vec<usize> =
        replicas.iter().filter_map(|id| usize::try_from(id.as_u64()? - 1).ok()).collect();
    places.sort_unstable();
    places
}

fn controller(node: &Node) -> Option<usize> {
    let (_, info) = varve_json(node, &["cluster", "info"]);
    usize::try_from(info["controller"].as_u64()?).ok()?.checked_sub(1)
}

fn uncommitted(node: &Node) -> f64 {
    node.metric("varve_raft_log_end_entries") - node.metric("varve_raft_committed_entries")
}

/// A leader that nobody hears, and that hears for a moment that its partition is to move: it writes that into its log alone.
fn leave_a_change_behind(cluster: &Cluster, leads: usize, follows: [usize; 2], comes: usize) -> bool {
    cluster.lead(leads, TOPIC, 0);
    let decides = follows[0];
    wait_for("another node to decide", 60, || {
        let to = ["cluster", "transfer-leader", "metadata", "--to", &(decides + 1).to_string()];
        let _ = varve_json(&cluster.nodes[decides], &to);
        controller(&cluster.nodes[decides]) == Some(decides)
    });
    wait_for("nothing to be under way", 30, || uncommitted(&cluster.nodes[leads]) == 0.0);
    let links = cluster.links();
    (0..4).filter(|&to| to != leads).for_each(|to| links.set((leads, to), Weather::CUT));
    let is_told = reassign(&cluster.nodes[decides], Some(&[leads, decides, comes]));
    thread::sleep(Duration::from_millis(400)); // its leadership lasts a second
    let is_given_up = reassign(&cluster.nodes[decides], None);
    links.isolate(leads);
    // Its figures are those of some seconds ago.
    thread::sleep(Duration::from_secs(6));
    is_told && is_given_up && uncommitted(&cluster.nodes[leads]) >= 1.0
}

#[test]
fn t4_who_jumps_to_a_checkpoint_forgets_a_change_of_members_that_was_never_committed() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = Cluster::start_linked(3, &Options::small(), 4);
    assert_eq!(cluster.add(&Options::small()), 3);
    cluster.nodes[3].restart();
    cluster.create_topic(TOPIC, 1, 3, &CONFIGS);
    wait_for("a healthy cluster of four", 60, || cluster.nodes.iter().all(is_healthy));
    let held = held_by(&cluster.nodes[0]);
    // Those who vote about the metadata are to go on without the one that is cut off.
    let leads = *held.iter().find(|place| **place < 3).unwrap();
    let others: Vec<usize> = held.iter().copied().filter(|place| *place != leads).collect();
    let follows: [usize; 2] = others.try_into().unwrap();
    let comes = (0..4).find(|place| !held.contains(place)).unwrap();
    marked::fill_led(&cluster, leads, TOPIC, 0..20, LARGE_BYTES);
    cluster.lead(leads, TOPIC, 0);
    let is_left = (0..TRIES).any(|attempt| {
        let is_left = leave_a_change_behind(&cluster, leads, follows, comes);
        println!("attempt {attempt}: {is_left}, {} not committed", uncommitted(&cluster.nodes[leads]));
        if !is_left {
            cluster.links().heal();
            wait_for("a healthy cluster", 60, || cluster.nodes.iter().all(is_healthy));
        }
        is_left
    });
    assert!(is_left, "no change was left behind");
    let before = cluster.nodes[leads].metric("varve_raft_seeds_total");
    let _ = cluster.wait_leader(follows[0], TOPIC, 0, Some(leads));
    marked::fill_led(&cluster, follows[0], TOPIC, 20..900, LARGE_BYTES);
    let second = cluster.wait_leader(follows[0], TOPIC, 0, Some(leads));
    wait_for("checkpoints", 60, || cluster.nodes[second].metric("varve_raft_snapshots_total") >= 2.0);
    cluster.links().heal();
    wait_for("it to jump to a checkpoint", 60, || {
        cluster.nodes[leads].metric("varve_raft_seeds_total") > before
    });
    wait_for("a healthy cluster", 120, || cluster.nodes.iter().all(is_healthy));
    wait_for("its members to be told as they were", 30, || {
        cluster.nodes.iter().all(|node| held_by(node) == held)
    });
    // The one that never came goes, and one of the three: two of them are a quorum, and were none with the one that was to come.
    cluster.lead(leads, TOPIC, 0);
    cluster.nodes[comes].kill();
    wait_for("the metadata to be led", 60, || controller(&cluster.nodes[leads]).is_some());
    let dies = follows.into_iter().find(|place| *place != 3).unwrap();
    cluster.nodes[dies].kill();
    wait_for("records to be acknowledged", 60, || cluster.acknowledges(leads, TOPIC, "one more"));
}

#[test]
fn t11_one_checkpoint_after_the_other_takes_the_place_of_a_log_and_nothing_breaks() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let cluster = Cluster::start_linked(3, &Options::small(), 11);
    cluster.create_topic(TOPIC, 1, 3, &CONFIGS);
    wait_for("all to be in sync", 60, || cluster.in_sync(0, TOPIC, 0) == [0, 1, 2]);
    let leads = cluster.wait_leader(0, TOPIC, 0, None);
    let lags = (leads + 1) % 3;
    cluster.lead(leads, TOPIC, 0);
    marked::fill_led(&cluster, leads, TOPIC, 0..20, LARGE_BYTES);
    let process = cluster.nodes[lags].pid();
    let seeds = || cluster.nodes[lags].metric("varve_raft_seeds_total");
    let mut written = 20;
    for _ in 0..4 {
        // It is cut off again as soon as it has jumped: what was on its way meets what comes next time.
        cluster.links().isolate(lags);
        let before = seeds();
        let _ = cluster.wait_leader(leads, TOPIC, 0, Some(lags));
        // More than a log holds.
        marked::fill_led(&cluster, leads, TOPIC, written..written + 500, LARGE_BYTES);
        written += 500;
        cluster.links().heal();
        wait_for("it to jump to a checkpoint", 90, || seeds() > before);
    }
    wait_for("all to be in sync again", 120, || cluster.in_sync(leads, TOPIC, 0) == [0, 1, 2]);
    assert_eq!(cluster.nodes[lags].pid(), process);
    cluster.each_leads(TOPIC, |node| check_large(node, TOPIC, written));
}
