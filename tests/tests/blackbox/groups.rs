//! Groups of consumers, with stock clients as they come: they share, go on where they were, and lose nothing when members
//! and coordinators die.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use varve_tests::{
    clients::{create_topic, java, kcat, script, varve, varve_json},
    cluster::Cluster,
    node::{Node, Options},
    tool::{self, Tool},
    wait_for,
    wire::Client,
};

const TOPIC: &str = "shared";
const PARTITIONS: u32 = 4;
const GROUP: &str = "members";
/// Where the offsets of a group are.
const OFFSETS: &str = "__consumer_offsets";

pub(super) fn quick() -> Options {
    Options::small()
        .env("VARVE_OFFSETS_TOPIC_NUM_PARTITIONS", "3")
        .env("VARVE_GROUP_INITIAL_REBALANCE_DELAY_MS", "500")
}

/// Writes lines `from..until`, spread over the partitions.
fn write(node: &Node, from: u64, until: u64) {
    for partition in 0..u64::from(PARTITIONS) {
        let mine = (from..until).filter(|number| number % u64::from(PARTITIONS) == partition);
        let lines: String = mine.map(|number| format!("line-{number}\n")).collect();
        if !lines.is_empty() {
            drop(kcat(node, &["-P", "-t", TOPIC, "-p", &partition.to_string()], lines.as_bytes()));
        }
    }
}

pub(super) fn lines(range: std::ops::Range<u64>) -> BTreeSet<String> {
    range.map(|number| format!("line-{number}")).collect()
}

fn values(told: &[Value]) -> BTreeSet<String> {
    told.iter().map(|line| line["value"].as_str().expect("a record has a value").to_owned()).collect()
}

/// So many records as a member of `group`, which then leaves.
fn read(node: &Node, client: &str, group: &str, records: u64) -> BTreeSet<String> {
    let count = records.to_string();
    match client {
        "kafkajs" => values(&script("group_reader.js", node, &[group, TOPIC, &count])),
        "kcat" => {
            let arguments = ["-G", group, "-c", &count, "-q", "-X", "auto.offset.reset=earliest", TOPIC];
            let read = kcat(node, &arguments, b"");
            String::from_utf8(read).unwrap().lines().map(str::to_owned).collect()
        }
        "java" => {
            let arguments =
                ["--topic", TOPIC, "--group", group, "--from-beginning", "--max-messages", &count];
            let read = java(node, "consumer.ConsoleConsumer", &arguments, b"");
            read.lines().filter(|line| line.starts_with("line-")).map(str::to_owned).collect()
        }
        library => values(&script("group_reader.py", node, &[library, group, TOPIC, &count])),
    }
}

#[test]
fn every_client_reads_in_a_group_and_goes_on_where_it_was_after_a_kill() {
    if !Tool::need(&[Tool::Kcat, Tool::Python, Tool::Node, Tool::Java]) {
        return;
    }
    let mut node = Node::start(quick());
    create_topic(&node, TOPIC, PARTITIONS, &[]);
    write(&node, 0, 200);
    let clients = ["confluent", "kafka-python", "aiokafka", "kafkajs", "kcat", "java"];
    for client in clients {
        assert_eq!(read(&node, client, client, 200), lines(0..200), "{client}");
    }
    node.kill();
    node.restart();
    write(&node, 200, 240);
    for client in clients {
        assert_eq!(read(&node, client, client, 40), lines(200..240), "{client} goes on where it was");
    }
}

fn consumer_groups(node: &Node, arguments: &[&str]) -> String {
    java(node, "consumer.group.ConsumerGroupCommand", arguments, b"")
}

#[test]
fn kafkas_own_tool_lists_describes_resets_and_deletes() {
    if !Tool::need(&[Tool::Kcat, Tool::Python, Tool::Java]) {
        return;
    }
    let node = Node::start(quick());
    create_topic(&node, TOPIC, PARTITIONS, &[]);
    write(&node, 0, 40);
    assert_eq!(read(&node, "confluent", GROUP, 40), lines(0..40));
    let listed = consumer_groups(&node, &["--list", "--state"]);
    assert!(listed.lines().any(|line| line.starts_with(GROUP) && line.contains("Empty")), "{listed}");
    let described = |offset: &str, lag: &str| {
        let told = consumer_groups(&node, &["--describe", "--group", GROUP]);
        let row = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let rows: Vec<Vec<String>> =
            told.lines().map(row).filter(|row| row.len() > 5 && row[1] == TOPIC).collect();
        assert_eq!(rows.len(), PARTITIONS as usize, "{told}");
        assert!(rows.iter().all(|row| row[3] == offset && row[4] == "10" && row[5] == lag), "{told}");
    };
    described("10", "0");
    let reset = ["--group", GROUP, "--topic", TOPIC, "--reset-offsets", "--to-offset", "4", "--execute"];
    drop(consumer_groups(&node, &reset));
    described("4", "6");
    let deleted = consumer_groups(&node, &["--delete", "--group", GROUP]);
    assert!(deleted.contains("successful"), "{deleted}");
    assert!(!consumer_groups(&node, &["--list"]).contains(GROUP));
}

#[test]
fn varve_group_lists_describes_seeks_and_deletes() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let begin = Instant::now();
    let node = Node::start(quick());
    create_topic(&node, TOPIC, PARTITIONS, &[]);
    write(&node, 0, 40);
    assert_eq!(read(&node, "kcat", GROUP, 40), lines(0..40));
    let listed = varve_json(&node, &["group", "list"]);
    let row = json!({"group": GROUP, "state": "Empty", "protocol_type": "consumer", "coordinator": 1});
    assert_eq!(listed, (true, json!([row])));
    let lags = || {
        let (done, told) = varve_json(&node, &["group", "describe", GROUP, "--lag"]);
        assert!(done, "{told}");
        let offsets = told[0]["offsets"].as_array().unwrap();
        let lag = |at: &Value| (at["partition"].as_u64().unwrap(), at["lag"].as_u64().unwrap());
        offsets.iter().map(lag).collect::<BTreeMap<u64, u64>>()
    };
    assert_eq!(lags(), BTreeMap::from([(0, 0), (1, 0), (2, 0), (3, 0)]));
    let _ = varve(&node, &["group", "seek", GROUP, TOPIC, "--to", "start", "--dry-run"]);
    let _ = varve(&node, &["group", "seek", GROUP, TOPIC, "--partition", "1,2", "--to", "-3"]);
    assert_eq!(lags(), BTreeMap::from([(0, 0), (1, 3), (2, 3), (3, 0)]));
    let (_, told) = varve_json(&node, &["group", "describe", GROUP, "--time-lag"]);
    let ages: Vec<u64> =
        told[0]["offsets"].as_array().unwrap().iter().map(|at| at["time_lag_ms"].as_u64().unwrap()).collect();
    let old = |age: u64| (1..u64::try_from(begin.elapsed().as_millis()).unwrap()).contains(&age);
    assert!(ages[0] == 0 && old(ages[1]) && old(ages[2]) && ages[3] == 0, "{told}");
    // Whoever reads on has what the seek gave back, and no more.
    assert_eq!(read(&node, "kcat", GROUP, 6).len(), 6);
    assert_eq!(lags(), BTreeMap::from([(0, 0), (1, 0), (2, 0), (3, 0)]));
    let (done, told) = varve_json(&node, &["group", "delete", GROUP, "nobody"]);
    assert!(!done && told.to_string().contains("GROUP_ID_NOT_FOUND"), "{told}");
    assert_eq!(varve_json(&node, &["group", "list"]), (true, json!([])));
}

/// A minute is the shortest that can be asked for. Offsets go once it has passed since the last member left, and with them the group; those of
/// a group with a member stay, however old they are.
#[test]
fn offsets_go_when_nobody_was_in_their_group_for_as_long_as_they_are_kept() {
    const RETENTION: Duration = Duration::from_secs(60);
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let options = quick().env("VARVE_OFFSETS_RETENTION_MINUTES", "1");
    let mut node = Node::start(options.env("VARVE_OFFSETS_RETENTION_CHECK_INTERVAL_MS", "500"));
    create_topic(&node, TOPIC, PARTITIONS, &[]);
    write(&node, 0, 40);
    let committed = |node: &Node, group: &str| {
        let (_, told) = varve_json(node, &["group", "describe", group]);
        let offsets = told[0]["offsets"].as_array().cloned().unwrap_or_default();
        offsets.iter().filter(|at| at["committed"].as_i64() == Some(10)).count()
    };
    let all = PARTITIONS as usize;
    let mut member = Command::new("kcat");
    let bootstrap = node.kafka().to_string();
    member.args(["-b", &bootstrap, "-q", "-X", "auto.offset.reset=earliest", "-G", "attended", TOPIC]);
    let mut member = member.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the member to commit", 60, || committed(&node, "attended") == all);
    assert_eq!(read(&node, "kcat", GROUP, 40), lines(0..40));
    let left = Instant::now();
    assert_eq!(committed(&node, GROUP), all);
    wait_for("the offsets of the group without members to go", 120, || committed(&node, GROUP) == 0);
    // The client's last word was a moment before it ended.
    assert!(left.elapsed() + Duration::from_secs(10) > RETENTION, "they went after {:?}", left.elapsed());
    let groups = |node: &Node| varve_json(node, &["group", "list"]).1.to_string();
    assert!(!groups(&node).contains(GROUP) && groups(&node).contains("attended"), "{}", groups(&node));
    assert_eq!(committed(&node, "attended"), all, "its member is still there");
    node.kill();
    node.restart();
    wait_for("the coordinator to be back", 60, || committed(&node, "attended") == all);
    assert!(!groups(&node).contains(GROUP), "it came back");
    member.kill().unwrap();
    member.wait().unwrap();
    assert_eq!(read(&node, "kcat", GROUP, 40), lines(0..40), "it begins anew");
}

#[test]
fn a_group_of_another_kind_is_served_and_listed_by_its_state_and_takes_no_consumers() {
    if !Tool::need(&[Tool::Java]) {
        return;
    }
    let node = Node::start(quick());
    let mut client = Client::connect(node.kafka(), Duration::from_secs(10)).unwrap();
    wait_for("a coordinator", 60, || client.find_coordinator("workers").is_ok_and(|code| code == 0));
    let mut joined = Err(0);
    // The coordinator may have been made this moment.
    wait_for("the group", 60, || {
        joined = client.join(("workers", "connect"), "", b"leader=http://here:8083").unwrap();
        joined.is_ok()
    });
    let member = joined.unwrap();
    assert_eq!(client.sync("workers", &member).unwrap(), 0);
    let (done, listed) = varve_json(&node, &["group", "list"]);
    assert!(done && listed[0]["protocol_type"] == "connect" && listed[0]["state"] == "Stable", "{listed}");
    const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
    let mut other = Client::connect(node.kafka(), Duration::from_secs(10)).unwrap();
    let refused = other.join(("workers", "consumer"), "", b"").unwrap();
    assert_eq!(refused.map(|_| ()), Err(INCONSISTENT_GROUP_PROTOCOL));
    let groups = |more: &[&str]| java(&node, "GroupsCommand", &[&["--list"], more].concat(), b"");
    let all = groups(&[]);
    assert!(all.contains("workers") && all.contains("connect"), "{all}");
    assert!(groups(&["--protocol", "connect"]).contains("workers"));
    assert!(!groups(&["--protocol", "consumer"]).contains("workers"));
    // What Kafka's tool lists as groups of consumers, and by their state, is asked of the broker.
    assert!(!consumer_groups(&node, &["--list", "--state", "Empty"]).contains("workers"));
}

/// Members of one group, each with a file of what it has read.
struct Members {
    bootstrap: String,
    folder: tempfile::TempDir,
    running: BTreeMap<usize, Child>,
    started: usize,
}

impl Members {
    fn new(bootstrap: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { bootstrap, folder, running: BTreeMap::new(), started: 0 }
    }

    fn start(&mut self, library: &str) -> usize {
        let number = self.started;
        self.started += 1;
        let mut command = Command::new(tool::python());
        command.arg(tool::scripts().join("group_member.py")).args([&self.bootstrap, library]);
        command.arg(self.file(number)).args([GROUP, TOPIC]).env("PYTHONDONTWRITEBYTECODE", "1");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.running.insert(number, child.unwrap());
        number
    }

    fn file(&self, number: usize) -> PathBuf {
        self.folder.path().join(number.to_string())
    }

    fn signal(&self, number: usize, signal: &str) {
        let pid = self.running[&number].id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn kill(&mut self, number: usize) {
        let mut child = self.running.remove(&number).expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// What all of them together have read, every record at its place.
    fn read(&self) -> BTreeMap<(u32, u64), String> {
        let mut read = BTreeMap::new();
        for number in 0..self.started {
            read_file(&self.file(number), &mut read);
        }
        read
    }

    fn has_read(&self, until: u64) -> bool {
        let values: BTreeSet<String> = self.read().into_values().collect();
        lines(0..until).is_subset(&values)
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // One that ended by itself, or is stopped, is gone as well.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

pub(super) fn read_file(path: &Path, read: &mut BTreeMap<(u32, u64), String>) {
    // A line that its member was killed in is no record that it had read.
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let mut words = line.split(' ');
        let place = (words.next().unwrap().parse().unwrap(), words.next().unwrap().parse().unwrap());
        let value = words.next().unwrap().to_owned();
        let before = read.insert(place, value.clone());
        assert!(before.is_none_or(|before| before == value), "two records at {place:?}");
    }
}

/// What the group has committed, by partition.
fn committed(node: &Node) -> BTreeMap<u64, i64> {
    let told = script("admin.py", node, &["group-offsets", GROUP, TOPIC]);
    let row = |line: &Value| Some((line["partition"].as_u64()?, line["offset"].as_i64()?));
    told.iter().filter_map(row).collect()
}

/// G3, as whoever coordinates tells it: in a generation that all have taken up each partition has one owner.
fn is_shared(node: &Node) -> bool {
    let told = script("admin.py", node, &["group-owners", GROUP]);
    let Some(group) = told.first().filter(|group| group["state"] == "STABLE") else { return false };
    let owners = group["owners"].as_array().unwrap();
    let mut owned: Vec<u64> = owners.iter().map(|owner| owner["partition"].as_u64().unwrap()).collect();
    owned.sort_unstable();
    assert!(owned.windows(2).all(|pair| pair[0] < pair[1]), "G3: two own one partition: {group}");
    // Members that share gradually give up what others get first, and take it up in the next generation.
    owned.len() == PARTITIONS as usize
}

/// At-least-once, over what members wrote down: every record below a committed offset was read by somebody.
fn check_at_least_once(node: &Node, members: &Members) {
    let read = members.read();
    for (partition, offset) in committed(node) {
        for below in 0..u64::try_from(offset).unwrap_or(0) {
            let place = (u32::try_from(partition).unwrap(), below);
            assert!(
                read.contains_key(&place),
                "{place:?} is below the committed {offset}, and nobody read it"
            );
        }
    }
}

#[test]
fn g1_g5_members_that_are_killed_or_stopped_are_replaced_and_nothing_is_skipped() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let node = Node::start(quick());
    create_topic(&node, TOPIC, PARTITIONS, &[]);
    let mut members = Members::new(node.bootstrap());
    let (first, second) = (members.start("confluent"), members.start("confluent"));
    write(&node, 0, 400);
    wait_for("the first records", 60, || members.has_read(400));
    members.kill(first);
    write(&node, 400, 800);
    wait_for("one to read for both", 60, || members.has_read(800));
    check_at_least_once(&node, &members);
    let third = members.start("confluent");
    members.signal(second, "-STOP");
    write(&node, 800, 1_200);
    wait_for("the third to read for the one that is stopped", 60, || members.has_read(1_200));
    members.signal(second, "-CONT");
    write(&node, 1_200, 1_600);
    wait_for("all records", 60, || members.has_read(1_600));
    members.signal(third, "-TERM");
    write(&node, 1_600, 1_800);
    wait_for("the one that is left to read", 60, || members.has_read(1_800));
    wait_for("all to be committed", 60, || committed(&node).values().sum::<i64>() == 1_800);
    check_at_least_once(&node, &members);
}

#[test]
fn g1_g3_members_go_on_when_their_coordinator_is_killed_and_offsets_survive_the_loss_of_disks() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let options = quick().env("VARVE_OFFSETS_TOPIC_NUM_PARTITIONS", "1");
    let mut cluster = Cluster::start(3, &options);
    cluster.create_topic(TOPIC, PARTITIONS, 3, &[]);
    let mut members = Members::new(cluster.bootstrap());
    let _ = (members.start("confluent"), members.start("kafka-python"));
    write(&cluster.nodes[0], 0, 400);
    wait_for("the first records", 90, || members.has_read(400));
    let coordinator = cluster.wait_leader(0, OFFSETS, 0, None);
    wait_for("replicas of the offsets", 60, || cluster.in_sync(0, OFFSETS, 0) == [0, 1, 2]);
    let asked = (coordinator + 1) % 3;
    let killed = Instant::now();
    cluster.nodes[coordinator].kill();
    let _ = cluster.wait_leader(asked, OFFSETS, 0, Some(coordinator));
    write(&cluster.nodes[asked], 400, 800);
    wait_for("members to go on", 90, || members.has_read(800));
    let sum = |cluster: &Cluster| committed(&cluster.nodes[asked]).values().sum::<i64>();
    wait_for("their commits", 90, || sum(&cluster) == 800);
    println!("members went on, and committed, within {:?} of the kill", killed.elapsed());
    wait_for("each partition to be owned", 90, || is_shared(&cluster.nodes[asked]));
    check_at_least_once(&cluster.nodes[asked], &members);
    // The disk of the dead one is lost: it comes back from the bucket and its peers, and then coordinates.
    cluster.nodes[coordinator].wipe();
    cluster.nodes[coordinator].launch();
    cluster.nodes[coordinator].wait_ready();
    wait_for("the wiped one to be in sync", 120, || cluster.in_sync(asked, OFFSETS, 0) == [0, 1, 2]);
    let id = (coordinator + 1).to_string();
    let place = format!("{OFFSETS}-0");
    let _ = varve(&cluster.nodes[asked], &["cluster", "transfer-leader", &place, "--to", &id]);
    wait_for("it to coordinate", 60, || cluster.leader(asked, OFFSETS, 0) == Some(coordinator));
    assert_eq!(sum(&cluster), 800);
    write(&cluster.nodes[asked], 800, 1_000);
    wait_for("members to go on with it", 90, || members.has_read(1_000));
    wait_for("their commits to it", 90, || sum(&cluster) == 1_000);
    wait_for("each partition to be owned", 90, || is_shared(&cluster.nodes[asked]));
    check_at_least_once(&cluster.nodes[asked], &members);
    drop(members);
    // All at once, in the middle of nothing.
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::launch);
    cluster.nodes.iter_mut().for_each(Node::wait_ready);
    let _ = cluster.wait_leader(asked, OFFSETS, 0, None);
    wait_for("the offsets of before", 60, || sum(&cluster) == 1_000);
}
