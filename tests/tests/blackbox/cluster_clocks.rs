//! Clocks that jump, and clocks that run at another pace: rows 44 and 45 of the fault matrix. Nothing that nodes agree on is counted by the
//! time of day, and what a leader tells is never older for its slow clock.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use varve_tests::{
    clients::{kcat, varve_json},
    clocks::{OwnClock, SAME_PACE},
    cluster::{Cluster, check_all, value},
    links::Weather,
    node::{Node, Options},
    raw::{fetch, list_offset},
    tool::{self, Tool},
    wait_for,
};

const TOPIC: &str = "timed";
/// Its records are stamped by their leader.
const STAMPED: &str = "stamped";
const GROUP: &str = "sitting";
const HOUR_MS: i64 = 3_600_000;

fn elections(cluster: &Cluster) -> f64 {
    cluster.nodes.iter().map(|node| node.metric("varve_raft_elections_total")).sum()
}

fn go_on(cluster: &Cluster, asked: usize, more: i64) {
    let before = cluster.end_of(asked, TOPIC).max(0);
    cluster.wait_end(asked, TOPIC, before + more);
}

/// A member of a group, which stays one until it is killed.
struct Member(Child);

impl Member {
    fn start(cluster: &Cluster) -> Self {
        let mut member = Command::new(tool::python());
        member.arg(tool::scripts().join("group_member.py")).args([&cluster.bootstrap(), "confluent"]);
        member.args(["/dev/null", GROUP, TOPIC]).env("PYTHONDONTWRITEBYTECODE", "1");
        let quiet = member.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().unwrap())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

/// The one member that the group has; a new one, or the same one once more, has another id.
fn sits(node: &Node) -> Option<String> {
    let (_, told) = varve_json(node, &["group", "describe", GROUP]);
    let members = told[0]["members"].as_array().filter(|members| members.len() == 1)?;
    (told[0]["state"] == "Stable").then(|| members[0]["member_id"].as_str().map(str::to_owned))?
}

/// When the newest record was taken, as its leader says, against the clock of this process.
fn stamped_ahead_ms(cluster: &Cluster, number: usize) -> i64 {
    cluster.lead(number, STAMPED, 0);
    let node = &cluster.nodes[number];
    let _ = kcat(node, &["-P", "-t", STAMPED, "-p", "0"], b"now\n");
    let read = kcat(node, &["-C", "-q", "-e", "-t", STAMPED, "-p", "0", "-o", "-1", "-f", "%T\n"], b"");
    let stamp: i64 = String::from_utf8(read).unwrap().trim().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    stamp - now.as_millis() as i64
}

#[test]
fn row_44_wall_clocks_that_jump_change_stamps_and_nothing_else() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let clocks: Vec<OwnClock> = (0..3).filter_map(|_| OwnClock::of(SAME_PACE)).collect();
    if clocks.len() < 3 {
        return;
    }
    // Younger than its retention by any of these clocks.
    let kept = ["retention.ms=10800000", "segment.bytes=262144"];
    let mut cluster = Cluster::start_each(3, |id| clocks[id - 1].told_to(Options::small()));
    cluster.create_topic(TOPIC, 1, 3, &kept);
    cluster.create_topic(STAMPED, 1, 3, &["message.timestamp.type=LogAppendTime"]);
    let load = cluster.start_load(TOPIC, value);
    cluster.wait_end(0, TOPIC, 500);
    let _member = Member::start(&cluster);
    let mut first = None;
    wait_for("the member to sit", 60, || {
        first = sits(&cluster.nodes[0]);
        first.is_some()
    });
    let before = elections(&cluster);
    for (number, clock) in clocks.iter().enumerate() {
        for ahead in [HOUR_MS, -HOUR_MS] {
            clock.set_ahead(ahead);
            go_on(&cluster, number, 500);
        }
        let begin = Instant::now();
        for round in 0.. {
            clock.set_ahead(if round % 2 == 0 { HOUR_MS } else { -HOUR_MS });
            thread::sleep(Duration::from_millis(20));
            if begin.elapsed() > Duration::from_secs(3) {
                break;
            }
        }
        // Three clocks of which each is an hour from the next.
        clock.set_ahead(HOUR_MS * (number as i64 - 1));
        go_on(&cluster, number, 500);
    }
    thread::sleep(Duration::from_secs(7)); // longer than the member's session
    let more = elections(&cluster) - before;
    println!("{more} elections while clocks jumped");
    // None by the clocks; a busy machine may bring one.
    assert!(more <= 2.0, "{more} elections");
    assert_eq!(sits(&cluster.nodes[0]), first, "the member's session ended");
    for number in 0..3 {
        let ahead = stamped_ahead_ms(&cluster, number);
        let told = HOUR_MS * (number as i64 - 1);
        assert!((ahead - told).abs() < HOUR_MS / 10, "stamped {ahead} ms ahead, {told} were told");
    }
    let written = load.finish();
    // Whoever starts by a clock that has gone back finds what it wrote in the future.
    clocks[2].set_ahead(-HOUR_MS);
    cluster.nodes[2].kill();
    cluster.nodes[2].restart();
    cluster.each_leads(TOPIC, |node| check_all(node, TOPIC, written));
}

#[test]
fn row_45_a_node_of_another_pace_tells_nothing_old_and_disturbs_nobody() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    // Slow, as the others are, and fast: whatever a slow one believes to have for a second it would have for four.
    let clocks: Vec<OwnClock> =
        [250, SAME_PACE, 2 * SAME_PACE].into_iter().filter_map(OwnClock::of).collect();
    if clocks.len() < 3 {
        return;
    }
    let (slow, fast) = (0, 2);
    let cluster = Cluster::start_linked_each(3, |id| clocks[id - 1].told_to(Options::small()), 45);
    cluster.create_topic(TOPIC, 1, 3, &[]);
    wait_for("all to be in sync", 60, || cluster.in_sync(0, TOPIC, 0) == [0, 1, 2]);
    let load = cluster.start_load(TOPIC, value);
    cluster.wait_end(1, TOPIC, 500);
    // A follower that counts twice as fast as its leader hears of it in time.
    for leads in [1, slow] {
        cluster.lead(leads, TOPIC, 0);
        let before = elections(&cluster);
        thread::sleep(Duration::from_secs(6));
        let more = elections(&cluster) - before;
        println!("{more} elections beside clocks of other paces, node {} leads", leads + 1);
        assert!(more <= 2.0, "{more} elections");
    }
    let written = load.finish();
    cluster.lead(slow, TOPIC, 0);
    let node = &cluster.nodes[slow];
    cluster.links().isolate(slow);
    let asked = [1, fast];
    let mut second = None;
    wait_for("the others to elect one", 30, || {
        second = asked.into_iter().find_map(|asked| cluster.leader(asked, TOPIC, 0).filter(|id| *id != slow));
        second.is_some()
    });
    let second = second.unwrap();
    let producer = ["-P", "-t", TOPIC, "-p", "0", "-X", "enable.idempotence=true"];
    let mut end = written;
    let begin = Instant::now();
    // Long before its own second has passed, and long after.
    while begin.elapsed() < Duration::from_secs(8) {
        let line = value(end) + "\n";
        let _ = kcat(&cluster.nodes[second], &producer, line.as_bytes());
        end += 1;
        let told = list_offset(node.kafka(), TOPIC, 0, -1);
        assert!(told.is_err(), "{told:?} of {end}: what was written elsewhere is not its own to tell");
        let (code, records) = fetch(node.kafka(), TOPIC, end as i64 - 1);
        assert!(code != 0 || records.is_empty(), "{code}: it does not have that");
    }
    println!("{} looks at a slow leader that was cut off", end - written);
    cluster.links().set_all(Weather::FINE);
    wait_for("all to be in sync again", 60, || cluster.in_sync(second, TOPIC, 0) == [0, 1, 2]);
    cluster.each_leads(TOPIC, |node| check_all(node, TOPIC, end));
}
