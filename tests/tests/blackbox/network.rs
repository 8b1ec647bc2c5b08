//! The network between three nodes, as bad as networks are: rows 32 to 42 of the fault matrix, under a load that must not lose a record.
//! The weather is made by [`varve_tests::links`].

use std::{thread, time::Duration};

use varve_tests::{
    batch::{Batch, produce_code},
    clients::kcat,
    cluster::{Cluster, Load, check_all, value},
    links::Weather,
    node::{Node, Options},
    raw::list_offset,
    scale,
    tool::Tool,
    wait_for,
};

const TOPIC: &str = "weathered";
/// What one weather lasts.
const SPELL: Duration = Duration::from_secs(6);

/// Three nodes, their network, and a producer at work.
struct Rig {
    cluster: Cluster,
    load: Load,
}

impl Rig {
    fn start() -> Option<Self> {
        if !Tool::need(&[Tool::Kcat, Tool::Python]) {
            return None;
        }
        let seed = scale("VARVE_SEED", 8);
        let cluster = Cluster::start_linked(3, &Options::small(), seed);
        cluster.create_topic(TOPIC, 1, 3, &[]);
        let load = cluster.start_load(TOPIC, value);
        let rig = Self { cluster, load };
        rig.go_on(0, 500);
        Some(rig)
    }

    fn leader(&self) -> usize {
        self.cluster.wait_leader(0, TOPIC, 0, None)
    }

    /// Where the log ends, as its leader says; by what a node knows of the cluster.
    fn end(&self, asked: usize) -> i64 {
        let leader = self.cluster.leader(asked, TOPIC, 0);
        leader.map_or(-1, |leader| self.end_at(leader).unwrap_or(-1))
    }

    fn end_at(&self, node: usize) -> Result<i64, i16> {
        list_offset(self.cluster.nodes[node].kafka(), TOPIC, 0, -1)
    }

    /// Waits for so many more records.
    fn go_on(&self, asked: usize, more: i64) {
        let before = self.end(asked);
        wait_for("records to be acknowledged", 60, || self.end(asked) >= before.max(0) + more);
    }

    fn terms(&self) -> f64 {
        self.cluster.nodes.iter().map(|node| node.metric("varve_raft_term")).fold(0.0, f64::max)
    }

    /// A weather for a while; the highest term grows by no more than so many.
    fn endure(&self, terms_max: f64) {
        let before = self.terms();
        thread::sleep(SPELL);
        let after = self.terms();
        assert!(after <= before + terms_max, "from term {before} to {after} in {SPELL:?}");
    }

    fn heal(&self) {
        self.cluster.links().heal();
        wait_for("all to be in sync again", 60, || self.cluster.in_sync(0, TOPIC, 0) == [0, 1, 2]);
        self.go_on(0, 200);
    }

    /// Every record, once and in order, from each replica as the leader.
    fn finish(self) {
        let written = self.load.finish();
        self.cluster.each_leads(TOPIC, |node| check_all(node, TOPIC, written));
    }
}

/// Every record once and in order, beside one that nobody may count on. Whether that is in.
#[must_use]
fn check_but_extra(node: &Node, written: u64) -> bool {
    let read = kcat(node, &["-C", "-q", "-e", "-t", TOPIC, "-p", "0", "-o", "0"], b"");
    let read = String::from_utf8(read).unwrap();
    let kept: Vec<&str> = read.lines().filter(|line| *line != "extra").collect();
    assert_eq!(kept.len() as u64, written);
    assert!(kept.iter().zip(0..).all(|(line, number)| **line == value(number)));
    read.lines().any(|line| line == "extra")
}

#[test]
fn row_32_a_leader_that_is_cut_off_acknowledges_nothing_and_tells_of_no_end() {
    let Some(rig) = Rig::start() else { return };
    let first = rig.leader();
    let asked = (first + 1) % 3;
    // The load ends first: a client that has a connection to the cut-off node alone stays with it.
    let Rig { cluster, load } = rig;
    let written = load.finish();
    cluster.links().isolate(first);
    let node = &cluster.nodes[first];
    let end = |node: &Node| list_offset(node.kafka(), TOPIC, 0, -1);
    let extra = Batch::of(&[b"extra"]).encode();
    for _ in 0..3 {
        assert_ne!(produce_code(node.kafka(), TOPIC, -1, &extra), Some(0), "one of three acknowledged");
        let told = end(node);
        assert!(told.is_err() || told.is_ok_and(|end| end as u64 >= written), "{told:?} of {written}");
    }
    let second = cluster.wait_leader(asked, TOPIC, 0, Some(first));
    let more: String = (written..written + 500).map(|number| value(number) + "\n").collect();
    let producer = ["-P", "-t", TOPIC, "-p", "0", "-X", "enable.idempotence=true"];
    let _ = kcat(&cluster.nodes[second], &producer, more.as_bytes());
    let told = end(node);
    assert!(told.is_err(), "{told:?}: what was written elsewhere is not its own to tell");
    cluster.links().heal();
    wait_for("all to be in sync again", 60, || cluster.in_sync(asked, TOPIC, 0) == [0, 1, 2]);
    // Refused in time or not, nobody was told that the extra one is in.
    cluster.each_leads(TOPIC, |node| {
        let _ = check_but_extra(node, written + 500);
    });
}

#[test]
fn row_33_a_way_that_is_cut_in_one_direction_brings_no_endless_election() {
    let Some(rig) = Rig::start() else { return };
    let leader = rig.leader();
    let other = (leader + 1) % 3;
    for way in [(leader, other), (other, leader)] {
        rig.cluster.links().set(way, Weather::CUT);
        rig.endure(6.0);
        rig.go_on((leader + 2) % 3, 200);
        rig.heal();
    }
    // A node that hears everybody and that nobody hears.
    let links = rig.cluster.links();
    (0..3).filter(|&to| to != other).for_each(|to| links.set((other, to), Weather::CUT));
    rig.endure(6.0);
    rig.go_on((other + 1) % 3, 200);
    rig.heal();
    rig.finish();
}

#[test]
fn row_34_two_that_meet_at_a_third_alone_go_on_by_it() {
    let Some(rig) = Rig::start() else { return };
    let leader = rig.leader();
    for bridge in [leader, (leader + 1) % 3] {
        rig.cluster.links().set_between((bridge + 1) % 3, (bridge + 2) % 3, Weather::CUT);
        rig.endure(8.0);
        rig.go_on(bridge, 200);
        rig.heal();
    }
    rig.finish();
}

#[test]
fn row_35_a_link_that_flaps_costs_few_terms() {
    let Some(rig) = Rig::start() else { return };
    let leader = rig.leader();
    let before = rig.terms();
    for round in 0..16 {
        let weather = if round % 2 == 0 { Weather::CUT } else { Weather::FINE };
        rig.cluster.links().set_between(leader, (leader + 1) % 3, weather);
        thread::sleep(Duration::from_millis(500));
    }
    assert!(rig.terms() <= before + 8.0, "from term {before} to {}", rig.terms());
    rig.go_on((leader + 2) % 3, 200);
    rig.heal();
    rig.finish();
}

#[test]
fn rows_36_37_twenty_percent_loss_and_a_hundred_milliseconds_are_slower_and_nothing_else() {
    let Some(rig) = Rig::start() else { return };
    for weather in [
        Weather::lossy(20),
        Weather::late(100),
        Weather { loss_percent: 20, ..Weather::late(100) },
        Weather { swap_permille: 50, repeat_permille: 50, ..Weather::late(20) },
    ] {
        rig.cluster.links().set_all(weather);
        thread::sleep(SPELL);
        rig.go_on(0, 50);
    }
    let counts = rig.cluster.links().counts();
    println!("{counts:?}");
    rig.heal();
    rig.finish();
}

#[test]
fn row_38_what_was_changed_on_the_way_is_refused_and_the_link_made_anew() {
    let Some(rig) = Rig::start() else { return };
    rig.cluster.links().set_all(Weather { corrupt_permille: 10, ..Weather::FINE });
    let refused =
        || -> f64 { rig.cluster.nodes.iter().map(|node| node.metric("varve_peer_refused_total")).sum() };
    wait_for("changed frames to be refused", 60, || refused() >= 3.0);
    rig.go_on(0, 200);
    rig.heal();
    println!("{} refused, {:?}", refused(), rig.cluster.links().counts());
    rig.finish();
}

#[test]
fn row_39_a_peer_that_went_without_a_word_is_missed_in_time() {
    let Some(rig) = Rig::start() else { return };
    let leader = rig.leader();
    let gone = (leader + 1) % 3;
    rig.cluster.links().isolate(gone);
    let metric = |node: usize| rig.cluster.nodes[node].metric("varve_peer_connected");
    let begin = std::time::Instant::now();
    wait_for("the others to miss it", 30, || metric(leader) <= 1.0 && metric(gone) <= 0.0);
    println!("missed after {:?}", begin.elapsed());
    rig.go_on(leader, 500);
    rig.heal();
    rig.finish();
}

#[test]
fn row_40_a_thin_line_to_one_follower_bounds_the_leaders_memory() {
    let Some(rig) = Rig::start() else { return };
    let leader = rig.leader();
    let slow = (leader + 1) % 3;
    rig.cluster.links().set((leader, slow), Weather { bytes_per_second: Some(20_000), ..Weather::FINE });
    let held = || rig.cluster.nodes[leader].metric("varve_raft_log_memory_bytes");
    let (before, begin) = (rig.end(leader), std::time::Instant::now());
    while begin.elapsed() < 2 * SPELL {
        assert!(held() < 128e6, "{} bytes of entries are held", held());
        thread::sleep(Duration::from_millis(200));
    }
    assert!(rig.end(leader) > before + 1000, "the other two go on at their own pace");
    rig.heal();
    rig.finish();
}

#[test]
fn row_41_t15_a_leader_that_stood_still_tells_and_acknowledges_nothing_old() {
    let Some(rig) = Rig::start() else { return };
    let first = rig.leader();
    let asked = (first + 1) % 3;
    let address = rig.cluster.nodes[first].kafka();
    rig.cluster.nodes[first].signal("STOP");
    // It lies in the socket of a process that stands still.
    let waiting = thread::spawn(move || produce_code(address, TOPIC, -1, &Batch::of(&[b"extra"]).encode()));
    let second = rig.cluster.wait_leader(asked, TOPIC, 0, Some(first));
    rig.go_on(asked, 1000);
    let acknowledged = rig.end_at(second).unwrap();
    rig.cluster.nodes[first].signal("CONT");
    for _ in 0..20 {
        let told = rig.end_at(first);
        assert!(told.is_err() || told.is_ok_and(|end| end >= acknowledged), "{told:?} of {acknowledged}");
    }
    let answer = waiting.join().unwrap();
    rig.heal();
    let (cluster, written) = (rig.cluster, rig.load.finish());
    cluster.each_leads(TOPIC, |node| {
        let is_in = check_but_extra(node, written);
        assert!(answer != Some(0) || is_in, "it was acknowledged and is lost");
    });
}

#[test]
fn row_42_two_of_three_that_stand_still_stop_it_and_all_goes_on_after() {
    let Some(rig) = Rig::start() else { return };
    for first in 0..3 {
        let still = [first, (first + 1) % 3];
        still.iter().for_each(|&node| rig.cluster.nodes[node].signal("STOP"));
        thread::sleep(Duration::from_secs(3));
        let alone = rig.cluster.nodes[(first + 2) % 3].kafka();
        let extra = Batch::of(&[b"extra"]).encode();
        assert_ne!(produce_code(alone, "nowhere", -1, &extra), Some(0));
        still.iter().for_each(|&node| rig.cluster.nodes[node].signal("CONT"));
        wait_for("all to be in sync again", 60, || rig.cluster.in_sync(first, TOPIC, 0) == [0, 1, 2]);
        rig.go_on(first, 200);
    }
    rig.finish();
}
