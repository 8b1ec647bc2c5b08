//! Consumers that read from the replica in their rack: stock clients, followers that lag, leaders that die, and records that only the
//! bucket has.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use varve_tests::{
    clients::{java, kcat, varve_json},
    cluster::{Cluster, value},
    node::Options,
    raw::{Answer, Request, Socket, fetch_near, list_offset},
    tool::Tool,
    wait_for,
};

const TOPIC: &str = "near";
const VALUE_BYTES: usize = 200;
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const FOLLOWED: &str = "varve_kafka_fetch_follower_bytes_total";

/// Three nodes in the racks r1, r2 and r3, and a topic on all of them.
fn start(options: &Options, configs: &[&str]) -> Cluster {
    let cluster = Cluster::start_each(3, |id| options.clone().args(&["--broker-rack", &format!("r{id}")]));
    cluster.create_topic(TOPIC, 1, 3, configs);
    wait_for("all in sync", 30, || cluster.in_sync(0, TOPIC, 0) == [0, 1, 2]);
    cluster
}

fn write(cluster: &Cluster, numbers: std::ops::Range<u64>) {
    let lines: String = numbers.map(|number| value(number) + "\n").collect();
    let asked = ["-P", "-t", TOPIC, "-p", "0", "-X", "acks=all", "-X", "enable.idempotence=true"];
    let _ = kcat(&cluster.nodes[0], &asked, lines.as_bytes());
}

fn rack(number: usize) -> String {
    format!("client.rack=r{}", number + 1)
}

/// A consumer that stands in a node's rack, and goes on until it is killed.
struct Consumer {
    kcat: Child,
    read: PathBuf,
}

impl Consumer {
    fn start(cluster: &Cluster, near: usize, folder: &Path) -> Self {
        let read = folder.join("read");
        let mut kcat = Command::new("kcat");
        kcat.args(["-b", &cluster.bootstrap(), "-C", "-q", "-u", "-t", TOPIC, "-p", "0", "-o", "0"]);
        kcat.args(["-X", "check.crcs=true", "-X", &rack(near), "-X", "socket.timeout.ms=3000"]);
        kcat.args(["-X", "topic.metadata.refresh.interval.ms=1000"]);
        let out = File::create(&read).unwrap();
        let kcat = kcat.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn().unwrap();
        Self { kcat, read }
    }

    fn lines(&self) -> u64 {
        let read = std::fs::read(&self.read).unwrap();
        read.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    fn wait(&self, lines: u64) {
        wait_for(&format!("{lines} records to be read"), 120, || self.lines() >= lines);
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.kcat.kill();
        let _ = self.kcat.wait();
    }
}

/// Every record once and in order.
fn check(read: &str, written: u64) {
    let mut lines = read.lines();
    for number in 0..written {
        assert_eq!(lines.next(), Some(value(number).as_str()), "record {number} is lost or other");
    }
    assert_eq!(lines.next(), None, "there is more than was written");
}

fn check_file(consumer: &Consumer, written: u64) {
    consumer.wait(written);
    check(&std::fs::read_to_string(&consumer.read).unwrap(), written);
}

const RECORDS: u64 = 3_000;
const WHOLE: f64 = (RECORDS * VALUE_BYTES as u64) as f64;

fn served(cluster: &Cluster) -> Vec<f64> {
    cluster.nodes.iter().map(|node| node.metric("varve_kafka_fetch_bytes_total")).collect()
}

/// Reads everything near a follower until that has served all of it, and nobody else any: where machines are slow leadership may
/// move meanwhile.
fn read_near(cluster: &Cluster, step: usize, read: impl Fn(usize) -> String) {
    wait_for("the replica in the rack to serve alone", 180, || {
        let near = (cluster.wait_leader(0, TOPIC, 0, None) + step) % 3;
        let node = &cluster.nodes[near];
        // Its end is that of whoever reads until there is no more.
        let end = i64::try_from(RECORDS).unwrap();
        wait_for("it to have everything", 60, || fetch_near(node.kafka(), TOPIC, end, "", 0).0 == 0);
        let (before, followed) = (served(cluster), node.metric(FOLLOWED));
        check(&read(near), RECORDS);
        let after = served(cluster);
        let alone = (0..3).filter(|other| *other != near).all(|other| before[other] == after[other]);
        alone && node.metric(FOLLOWED) >= followed + WHOLE
    });
}

#[test]
fn stock_consumers_read_from_the_replica_in_their_rack() {
    if !Tool::need(&[Tool::Kcat, Tool::Python, Tool::Java]) {
        return;
    }
    let cluster = start(&Options::small(), &[]);
    write(&cluster, 0..RECORDS);
    let reading = ["-C", "-q", "-e", "-t", TOPIC, "-p", "0", "-o", "0", "-X", "check.crcs=true", "-X"];
    let with_kcat = |rack: &str| {
        String::from_utf8(kcat(&cluster.nodes[0], &[&reading[..], &[rack]].concat(), b"")).unwrap()
    };
    read_near(&cluster, 1, |near| with_kcat(&rack(near)));
    let folder = tempfile::tempdir().unwrap();
    let properties = folder.path().join("consumer.properties");
    let (file, count) = (properties.display().to_string(), RECORDS.to_string());
    read_near(&cluster, 2, |near| {
        std::fs::write(&properties, rack(near)).unwrap();
        let reading =
            ["--topic", TOPIC, "--partition", "0", "--offset", "earliest", "--max-messages", &count];
        let reading = [&reading[..], &["--command-config", &file]].concat();
        java(&cluster.nodes[0], "consumer.ConsoleConsumer", &reading, b"")
    });
    let redirects = cluster.nodes.iter().map(|node| node.metric("varve_kafka_fetch_redirects_total"));
    assert!(redirects.sum::<f64>() >= 2.0);

    // Where nobody stands the leader serves, and the clients learn who stands where.
    let followed = || cluster.nodes.iter().map(|node| node.metric(FOLLOWED)).sum::<f64>();
    let before = followed();
    check(&with_kcat("client.rack=elsewhere"), RECORDS);
    assert_eq!(followed(), before);
    let (_, info) = varve_json(&cluster.nodes[0], &["cluster", "info"]);
    let racks: Vec<_> = info["nodes"].as_array().unwrap().iter().map(|node| node["rack"].as_str()).collect();
    assert_eq!(racks, [Some("r1"), Some("r2"), Some("r3")]);
}

#[test]
fn a_consumer_near_a_follower_loses_nothing_when_the_leader_dies() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = start(&Options::small(), &[]);
    let leader = cluster.wait_leader(0, TOPIC, 0, None);
    let near = (leader + 1) % 3;
    let folder = tempfile::tempdir().unwrap();
    let consumer = Consumer::start(&cluster, near, folder.path());
    let load = cluster.start_load(TOPIC, value);
    consumer.wait(2_000);
    assert!(cluster.nodes[near].metric(FOLLOWED) > 0.0);
    cluster.nodes[leader].kill();
    let _ = cluster.wait_leader(near, TOPIC, 0, Some(leader));
    consumer.wait(consumer.lines() + 2_000);
    cluster.nodes[leader].restart();
    wait_for("the dead one to be in sync again", 60, || cluster.in_sync(near, TOPIC, 0) == [0, 1, 2]);
    consumer.wait(consumer.lines() + 1_000);
    check_file(&consumer, load.finish());
}

#[test]
fn a_consumer_near_a_follower_that_stood_still_reads_on_where_it_lags() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let cluster = start(&Options::small(), &[]);
    let leader = cluster.wait_leader(0, TOPIC, 0, None);
    let near = (leader + 1) % 3;
    let signal = |name: &str| {
        let pid = cluster.nodes[near].pid().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    let folder = tempfile::tempdir().unwrap();
    let consumer = Consumer::start(&cluster, near, folder.path());
    let load = cluster.start_load(TOPIC, value);
    consumer.wait(2_000);
    signal("-STOP");
    // librdkafka stays with its replica for minutes, whatever becomes of it: it gets nothing meanwhile.
    let end = || list_offset(cluster.nodes[leader].kafka(), TOPIC, 0, -1).unwrap_or(-1);
    let before = end();
    wait_for("others to go on", 60, || end() > before + 10_000);
    wait_for("it to be out of sync", 60, || !cluster.in_sync(leader, TOPIC, 0).contains(&near));
    signal("-CONT");
    let followed = cluster.nodes[near].metric(FOLLOWED);
    wait_for("the follower to serve again", 60, || cluster.nodes[near].metric(FOLLOWED) > followed);
    check_file(&consumer, load.finish());
}

#[test]
fn a_follower_without_a_leader_serves_nobody() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut cluster = start(&Options::small(), &[]);
    write(&cluster, 0..10);
    let leader = cluster.wait_leader(0, TOPIC, 0, None);
    let (near, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let address = cluster.nodes[near].kafka();
    wait_for("the follower to serve", 30, || fetch_near(address, TOPIC, 0, "", 0).0 == 0);
    // The leader names the one in the rack, and no records.
    let sent = fetch_near(cluster.nodes[leader].kafka(), TOPIC, 0, &format!("r{}", near + 1), 0);
    assert_eq!((sent.0, sent.1, sent.2.len()), (0, near as i32 + 1, 0));
    cluster.nodes[other].kill();
    cluster.nodes[leader].kill();
    wait_for("the follower to notice", 30, || {
        fetch_near(address, TOPIC, 0, "", 0).0 == NOT_LEADER_OR_FOLLOWER
    });
}

#[test]
fn a_linearizable_follower_has_what_was_acknowledged_before() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let options = Options::small().env("VARVE_FOLLOWER_READ", "linearizable");
    let cluster = start(&options, &[]);
    write(&cluster, 0..1);
    let leader = cluster.wait_leader(0, TOPIC, 0, None);
    for number in 1..40 {
        write(&cluster, number..number + 1);
        for near in [(leader + 1) % 3, (leader + 2) % 3] {
            let (address, offset) = (cluster.nodes[near].kafka(), i64::try_from(number).unwrap());
            let mut told = fetch_near(address, TOPIC, offset, "", 0);
            // It may send us to the leader where that does not answer in time; what it must not do is answer without the record.
            wait_for("the follower to answer itself", 60, || {
                if told.0 == NOT_LEADER_OR_FOLLOWER {
                    told = fetch_near(address, TOPIC, offset, "", 0);
                }
                told.0 != NOT_LEADER_OR_FOLLOWER
            });
            let (code, _, records) = told;
            let wanted = value(number);
            let is_there = records.windows(wanted.len()).any(|window| window == wanted.as_bytes());
            assert!(code == 0 && is_there, "record {number} of node {}: {code}", near + 1);
        }
    }
}

#[test]
fn followers_serve_what_only_the_bucket_has() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let options = Options::small().env("VARVE_TIER_MAX_AGE_MS", "1000");
    let mut cluster = start(&options, &["segment.bytes=65536", "local.retention.bytes=1"]);
    const BATCH: u64 = 15_000;
    let mut written = 0;
    wait_for("a follower to have read from the bucket", 240, || {
        write(&cluster, written..written + BATCH);
        written += BATCH;
        let near = (cluster.wait_leader(0, TOPIC, 0, None) + 1) % 3;
        // Each node lets go of its log for itself. Nothing comes from the memory of an earlier life.
        cluster.nodes[near].kill();
        cluster.nodes[near].restart();
        let (node, end) = (&cluster.nodes[near], i64::try_from(written).unwrap());
        wait_for("the follower to serve", 60, || fetch_near(node.kafka(), TOPIC, end, "", 0).0 == 0);
        let arguments =
            ["-C", "-q", "-e", "-t", TOPIC, "-p", "0", "-o", "0", "-X", "check.crcs=true", "-X", &rack(near)];
        check(&String::from_utf8(kcat(node, &arguments, b"")).unwrap(), written);
        // What was asked of the bucket is counted every few seconds.
        let counted = || node.metric("varve_tier_read_bytes_total") > 0.0 && node.metric(FOLLOWED) > 0.0;
        (0..70).any(|_| {
            counted() || {
                std::thread::sleep(Duration::from_millis(100));
                false
            }
        })
    });
}

/// A consumer that tells its leader once what it wants, and then asks for what changed (KIP-227), as Java's does.
struct Session {
    socket: Socket,
    rack: String,
    id: i32,
    epoch: i32,
}

impl Session {
    /// One fetch of the session; of partition 0 from `offset` where it is the first. The replicas to go to (-1: none) of the partitions
    /// that the answer tells of.
    fn fetch(&mut self, offset: i64) -> Vec<i32> {
        let request =
            Request::new(1, 11).i32(-1).i32(0).i32(1).i32(1 << 20).i8(0).i32(self.id).i32(self.epoch);
        let request = if self.epoch > 0 {
            request.i32(0)
        } else {
            let request = request.i32(1).string(TOPIC).i32(1);
            request.i32(0).i32(-1).i64(offset).i64(-1).i32(1 << 20)
        };
        self.socket.send_frame(&request.i32(0).string(&self.rack).0);
        let Answer::Frame(frame) = self.socket.answer() else { panic!("no answer to Fetch") };
        let number = |at: usize| i32::from_be_bytes(frame[at..at + 4].try_into().expect("four bytes"));
        // correlation id 4, throttle 4, error 2, session 4, topics 4
        assert_eq!(frame[8..10], [0, 0], "the session goes on");
        self.id = number(10);
        self.epoch += 1;
        // name 2 + n, partitions 4, index 4, error 2, offsets 24, aborted 4, then the replica
        let replica = 18 + 2 + TOPIC.len() + 4 + 4 + 2 + 24 + 4;
        if number(14) == 0 { Vec::new() } else { vec![number(replica)] }
    }
}

#[test]
fn t23_the_replica_to_read_from_is_told_in_an_incremental_fetch_that_has_nothing_else_to_tell() {
    if !Tool::need(&[Tool::Kcat]) {
        return;
    }
    let mut cluster = start(&Options::default(), &[]);
    write(&cluster, 0..10);
    let leader = cluster.wait_leader(0, TOPIC, 0, None);
    let near = (leader + 1) % 3;
    cluster.nodes[near].kill();
    wait_for("the leader to go on without it", 60, || !cluster.in_sync(leader, TOPIC, 0).contains(&near));
    let address = cluster.nodes[leader].kafka();
    let end = list_offset(address, TOPIC, 0, -1).unwrap();
    let socket = Socket::connect(address);
    let mut session = Session { socket, rack: format!("r{}", near + 1), id: 0, epoch: 0 };
    assert_eq!(session.fetch(end), [-1], "nobody is nearer");
    assert!(session.fetch(end).is_empty(), "nothing has changed since");
    cluster.nodes[near].launch();
    cluster.nodes[near].wait_ready();
    // Nothing was written: what is new is only where to read. Whoever did not go there is told again.
    let told = [i32::try_from(near + 1).unwrap()];
    wait_for("the replica to be named", 60, || session.fetch(end) == told);
    assert_eq!(session.fetch(end), told);
}
