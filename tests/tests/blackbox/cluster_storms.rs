//! Three nodes whose machines are slow, whose disks stall or lie, and whose operators are in a hurry.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use varve_tests::{
    clients::{try_varve, varve_json},
    cluster::{Cluster, Load, check_all, value},
    faults::Failing,
    node::Options,
    raw::list_offset,
    tool::Tool,
    wait_for,
};

const TOPIC: &str = "stormy";

struct Rig {
    cluster: Cluster,
    load: Load,
}

impl Rig {
    fn start() -> Option<Self> {
        if !Tool::need(&[Tool::Kcat, Tool::Python]) {
            return None;
        }
        let cluster = Cluster::start(3, &Options::small());
        cluster.create_topic(TOPIC, 1, 3, &[]);
        let load = cluster.start_load(TOPIC, value);
        let rig = Self { cluster, load };
        rig.go_on(0, 500);
        Some(rig)
    }

    fn end(&self, asked: usize) -> i64 {
        let leader = self.cluster.leader(asked, TOPIC, 0);
        let told = leader.map(|leader| list_offset(self.cluster.nodes[leader].kafka(), TOPIC, 0, -1));
        told.and_then(Result::ok).unwrap_or(-1)
    }

    fn go_on(&self, asked: usize, more: i64) {
        let before = self.end(asked);
        wait_for("records to be acknowledged", 60, || self.end(asked) >= before.max(0) + more);
    }

    fn leader(&self) -> usize {
        self.cluster.wait_leader(0, TOPIC, 0, None)
    }

    fn settle(&self) {
        wait_for("all to be in sync", 120, || self.cluster.in_sync(0, TOPIC, 0) == [0, 1, 2]);
    }

    /// How often somebody wanted to lead, over all nodes and groups.
    fn elections(&self) -> f64 {
        self.cluster.nodes.iter().map(|node| node.metric("varve_raft_elections_total")).sum()
    }

    fn finish(self) {
        self.settle();
        let written = self.load.finish();
        self.cluster.each_leads(TOPIC, |node| check_all(node, TOPIC, written));
    }
}

#[test]
fn row_20_a_leader_whose_disk_does_twenty_things_a_second_is_slow_or_gives_up_leading_once() {
    let Some(rig) = Rig::start() else { return };
    let leader = rig.leader();
    let calls = "fdatasync,pwrite64";
    let Some(strace) = Failing::injected(rig.cluster.nodes[leader].pid(), calls, "delay_exit=50000") else {
        return;
    };
    let before = rig.elections();
    let begin = Instant::now();
    rig.go_on((leader + 1) % 3, 500);
    thread::sleep(Duration::from_secs(5).saturating_sub(begin.elapsed()));
    let more = rig.elections() - before;
    println!("{more} elections beside a slow disk");
    // Two groups: each moves once at the most, and one of them may have to try again.
    assert!(more <= 3.0, "{more} elections");
    drop(strace);
    rig.finish();
}

#[test]
fn row_21_one_follower_with_a_slow_disk_slows_nobody() {
    let Some(rig) = Rig::start() else { return };
    let leader = rig.leader();
    let slow = (leader + 1) % 3;
    let Some(strace) = Failing::injected(rig.cluster.nodes[slow].pid(), "fdatasync", "delay_exit=500000")
    else {
        return;
    };
    let before = rig.end(leader);
    thread::sleep(Duration::from_secs(6));
    // Some hundred at the pace of the slow one.
    let more = rig.end(leader) - before;
    assert!(more > 1000, "{more} records in six seconds");
    drop(strace);
    rig.finish();
}

#[test]
fn row_22_a_leader_whose_disk_stands_still_holds_nothing_up_for_good() {
    let Some(rig) = Rig::start() else { return };
    let leader = rig.leader();
    let Some(strace) = Failing::injected(rig.cluster.nodes[leader].pid(), "fdatasync", "delay_exit=10000000")
    else {
        return;
    };
    let begin = Instant::now();
    rig.go_on((leader + 1) % 3, 200);
    println!("records {:?} after the leader's disk stood still", begin.elapsed());
    drop(strace);
    rig.finish();
}

#[test]
fn row_12_a_disk_that_lies_loses_nothing_while_it_is_the_only_fault() {
    let Some(mut rig) = Rig::start() else { return };
    let liar = (rig.leader() + 1) % 3;
    let Some(strace) = Failing::injected(rig.cluster.nodes[liar].pid(), "fdatasync", "retval=0") else {
        return;
    };
    rig.go_on(0, 1000);
    drop(strace);
    rig.cluster.nodes[liar].kill();
    rig.cluster.nodes[liar].restart();
    rig.go_on(liar, 200);
    rig.finish();
}

/// Processes that want all of the machine.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start(count: usize) -> Self {
        let hog = || {
            let mut hog = Command::new("sh");
            hog.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap()
        };
        Self((0..count).map(|_| hog()).collect())
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ = (hog.kill(), hog.wait());
        }
    }
}

#[test]
fn row_43_processes_that_want_all_of_the_machine_bring_few_elections() {
    let Some(rig) = Rig::start() else { return };
    let hogs = Hogs::start(2 * thread::available_parallelism().map_or(2, usize::from));
    let before = rig.elections();
    thread::sleep(Duration::from_secs(15));
    let after = rig.elections();
    drop(hogs);
    println!("{} elections in 15 s beside hogs", after - before);
    // Two groups; this says that it is no storm, bench/ says how many there are.
    assert!(after - before <= 6.0, "{before}, then {after} elections");
    rig.finish();
}

#[test]
fn row_48_leaders_that_are_sent_around_lose_nothing() {
    let Some(rig) = Rig::start() else { return };
    let (mut sent, name) = (0, format!("{TOPIC}-0"));
    for round in 0..30 {
        let to = (round % 3 + 1).to_string();
        let node = &rig.cluster.nodes[round % 3];
        sent +=
            usize::from(varve_json(node, &["cluster", "transfer-leader", &name, "metadata", "--to", &to]).0);
    }
    println!("{sent} of 30 transfers came to be");
    assert!(sent >= 10, "{sent} of 30 transfers came to be");
    rig.go_on(0, 500);
    rig.finish();
}

#[test]
fn row_50_topics_that_come_and_go_while_the_controller_dies_are_there_or_are_not() {
    let Some(mut rig) = Rig::start() else { return };
    let controller = |rig: &Rig, asked: usize| -> Option<usize> {
        let (_, info) = varve_json(&rig.cluster.nodes[asked], &["cluster", "info"]);
        usize::try_from(info["controller"].as_u64()?).ok()?.checked_sub(1)
    };
    for round in 0..3 {
        let mut dead = None;
        wait_for("a controller", 30, || {
            dead = controller(&rig, 0);
            dead.is_some()
        });
        let dead = dead.unwrap();
        let asked = (dead + 1) % 3;
        let (made, gone) = (format!("made-{round}"), format!("gone-{round}"));
        let create = |name: &str| try_varve(&rig.cluster.nodes[asked], &["topic", "create", name, "-p", "4"]);
        assert!(create(&gone).0);
        thread::scope(|scope| {
            let creating = scope.spawn(|| create(&made));
            let deleting =
                scope.spawn(|| try_varve(&rig.cluster.nodes[asked], &["topic", "delete", &gone, "--yes"]));
            println!("{:?} {:?}", creating.join().unwrap(), deleting.join().unwrap());
        });
        rig.cluster.nodes[dead].kill();
        let late = format!("late-{round}");
        let told = try_varve(&rig.cluster.nodes[asked], &["topic", "create", &late, "-p", "4"]);
        println!("with a dead controller: {told:?}");
        rig.cluster.nodes[dead].restart();
        rig.settle();
        // All nodes come to know the same topics, each with all of its partitions.
        wait_for("the same topics everywhere", 60, || {
            let topics = |node| varve_json(node, &["cluster", "partitions"]).1;
            let names: Vec<Vec<(String, u64)>> = rig
                .cluster
                .nodes
                .iter()
                .map(|node| {
                    let rows = topics(node).as_array().cloned().unwrap_or_default();
                    rows.iter()
                        .map(|row| (row["topic"].to_string(), row["partition"].as_u64().unwrap_or(u64::MAX)))
                        .collect()
                })
                .collect();
            let count = |name: &str| names[0].iter().filter(|(topic, _)| topic.contains(name)).count();
            names[0] == names[1]
                && names[1] == names[2]
                && [0, 4].contains(&count(&late))
                && [0, 4].contains(&count(&made))
        });
    }
    rig.finish();
}

#[test]
fn row_65_a_joiner_that_is_killed_again_and_again_comes_to_have_everything() {
    let Some(mut rig) = Rig::start() else { return };
    rig.settle();
    let joiner = (rig.leader() + 1) % 3;
    rig.cluster.nodes[joiner].kill();
    rig.cluster.nodes[joiner].wipe();
    for wait_ms in [100, 300, 700, 1500] {
        rig.cluster.nodes[joiner].launch();
        thread::sleep(Duration::from_millis(wait_ms));
        rig.cluster.nodes[joiner].kill();
    }
    rig.cluster.nodes[joiner].restart();
    rig.go_on(joiner, 200);
    rig.settle();
    // The leader dies while the next one is being filled.
    let leader = rig.leader();
    let wiped = (leader + 1) % 3;
    rig.cluster.nodes[wiped].kill();
    rig.cluster.nodes[wiped].wipe();
    rig.cluster.nodes[wiped].launch();
    thread::sleep(Duration::from_millis(500));
    rig.cluster.nodes[leader].kill();
    thread::sleep(Duration::from_secs(1));
    rig.cluster.nodes[leader].restart();
    rig.cluster.nodes[wiped].wait_ready();
    rig.finish();
}
