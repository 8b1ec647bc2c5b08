//! Several nodes on loopback, as `varve serve --seeds` makes them one cluster.

use std::{
    io::Write as _,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

use crate::{
    clients::{kcat, varve, varve_output},
    marked::line,
    node::{Node, Options, free_address},
    raw::list_offset,
    wait_for,
};

/// Nodes with one directory as their bucket.
#[derive(Debug)]
pub struct Cluster {
    /// In order of their ids, from 1.
    pub nodes: Vec<Node>,
    peers: Vec<SocketAddr>,
    extra: Vec<SocketAddr>,
    /// What names the seeds, where they are not named one by one.
    service: Option<String>,
    /// `None` where records are on nodes only.
    bucket: Option<tempfile::TempDir>,
}

impl Cluster {
    /// Starts so many nodes at once and waits until all are ready.
    #[must_use]
    pub fn start(count: usize, options: &Options) -> Self {
        Self::start_each(count, |_| options.clone())
    }

    /// The same, with options of its own for each node, by its id.
    #[must_use]
    pub fn start_each(count: usize, options: impl Fn(usize) -> Options) -> Self {
        let mut cluster = Self::stopped_each(count, options);
        cluster.nodes.iter_mut().for_each(Node::launch);
        cluster.nodes.iter_mut().for_each(Node::wait_ready);
        cluster
    }

    /// The same without a bucket: records are on nodes only.
    #[must_use]
    pub fn start_without_bucket(count: usize, options: &Options) -> Self {
        let mut cluster = Self::stopped_over(count, None, None, |_| options.clone());
        cluster.nodes.iter_mut().for_each(Node::launch);
        cluster.nodes.iter_mut().for_each(Node::wait_ready);
        cluster
    }

    /// Nodes that are not started yet.
    #[must_use]
    pub fn stopped(count: usize, options: &Options) -> Self {
        Self::stopped_each(count, |_| options.clone())
    }

    /// Nodes that are not started yet, and whose seeds a service names.
    #[must_use]
    pub fn stopped_behind(count: usize, service: &str, options: &Options) -> Self {
        Self::stopped_with(count, Some(service.to_owned()), |_| options.clone())
    }

    fn stopped_each(count: usize, options: impl Fn(usize) -> Options) -> Self {
        Self::stopped_with(count, None, options)
    }

    fn stopped_with(count: usize, service: Option<String>, options: impl Fn(usize) -> Options) -> Self {
        let bucket = tempfile::Builder::new().prefix("varve-bucket-").tempdir().unwrap();
        Self::stopped_over(count, service, Some(bucket), options)
    }

    fn stopped_over(
        count: usize,
        service: Option<String>,
        bucket: Option<tempfile::TempDir>,
        options: impl Fn(usize) -> Options,
    ) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            peers: (0..count).map(|_| free_address()).collect(),
            extra: Vec::new(),
            service,
            bucket,
        };
        let stopped = |number| Node::stopped(cluster.options(number, &options(number + 1)));
        cluster.nodes = (0..count).map(stopped).collect();
        cluster
    }

    fn options(&self, number: usize, options: &Options) -> Options {
        self.options_at(number, self.peer_address(number), options)
    }

    fn options_at(&self, number: usize, listen: SocketAddr, options: &Options) -> Options {
        let seeds: Vec<String> = self.peers.iter().map(ToString::to_string).collect();
        let seeds = self.service.clone().unwrap_or_else(|| seeds.join(","));
        let (id, listen) = ((number + 1).to_string(), listen.to_string());
        let options = options.clone().args(&["--node-id", &id, "--peer-listen", &listen, "--seeds", &seeds]);
        match &self.bucket {
            Some(bucket) => options.args(&["--object-store", &bucket.path().display().to_string()]),
            None => options,
        }
    }

    /// Adds a node with the next number, an empty disk and the same seeds, and does not start it. Its place.
    pub fn add(&mut self, options: &Options) -> usize {
        let number = self.nodes.len();
        self.extra.push(free_address());
        let options = self.options(number, options);
        self.nodes.push(Node::stopped(options));
        number
    }

    /// A second machine with the number of a node, and an empty disk.
    #[must_use]
    pub fn double(&self, number: usize, options: &Options) -> Node {
        Node::stopped(self.options_at(number, free_address(), options))
    }

    /// Where a node listens for the others.
    #[must_use]
    pub fn peer_address(&self, number: usize) -> SocketAddr {
        // Those that came later are no seeds.
        self.peers.iter().chain(&self.extra).nth(number).copied().expect("the node was added")
    }

    /// Addresses of all nodes, for clients.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.nodes.iter().map(Node::bootstrap).collect::<Vec<_>>().join(",")
    }

    /// Creates a topic with as many replicas as it says.
    pub fn create_topic(&self, topic: &str, partitions: u32, replicas: usize, configs: &[&str]) {
        let (partitions, replicas) = (partitions.to_string(), replicas.to_string());
        let mut arguments = vec!["topic", "create", topic, "-p", &partitions, "-r", &replicas];
        configs.iter().for_each(|config| arguments.extend(["-c", config]));
        let _ = varve(&self.nodes[0], &arguments);
    }

    /// Who leads a partition, as a node tells; its place in [`Cluster::nodes`].
    #[must_use]
    pub fn leader(&self, asked: usize, topic: &str, partition: u64) -> Option<usize> {
        let found = self.partition(asked, topic, partition)?;
        usize::try_from(found["leader"].as_u64()?).ok()?.checked_sub(1)
    }

    fn partition(&self, asked: usize, topic: &str, partition: u64) -> Option<Value> {
        // It asks leaders for their offsets: one that died is no failure of the test.
        let described = varve_output(&self.nodes[asked], &["topic", "describe", topic, "-o", "json"])?;
        let described: Value = serde_json::from_str(&described).ok()?;
        let topic = described.as_array().map_or(&described, |topics| &topics[0]);
        let mut partitions = topic["partitions"].as_array()?.iter();
        partitions.find(|at| at["partition"].as_u64() == Some(partition)).cloned()
    }

    /// Where the records of partition 0 end, as the leader says of whom a node tells; -1 where nobody says it.
    #[must_use]
    pub fn end_of(&self, asked: usize, topic: &str) -> i64 {
        let leader = self.leader(asked, topic, 0).map(|leader| &self.nodes[leader]);
        leader.and_then(|leader| list_offset(leader.kafka(), topic, 0, -1).ok()).unwrap_or(-1)
    }

    /// Waits until they end behind an offset.
    pub fn wait_end(&self, asked: usize, topic: &str, beyond: i64) {
        wait_for("records to be acknowledged", 60, || self.end_of(asked, topic) > beyond);
    }

    /// Waits until a node tells of a leader that is not `other`.
    #[must_use]
    pub fn wait_leader(&self, asked: usize, topic: &str, partition: u64, other: Option<usize>) -> usize {
        let mut found = None;
        wait_for("a leader", 30, || {
            found = self.leader(asked, topic, partition).filter(|leader| Some(*leader) != other);
            found.is_some()
        });
        found.expect("it was waited for")
    }

    /// The nodes in sync with a partition's leader, as a node tells; their places in [`Cluster::nodes`].
    #[must_use]
    pub fn in_sync(&self, asked: usize, topic: &str, partition: u64) -> Vec<usize> {
        let found = self.partition(asked, topic, partition);
        let nodes = found.as_ref().and_then(|found| found["in_sync"].as_array());
        let place = |node: &Value| usize::try_from(node.as_u64()?).ok()?.checked_sub(1);
        let mut places: Vec<usize> = nodes.into_iter().flatten().filter_map(place).collect();
        places.sort_unstable();
        places
    }

    /// Whether a record that is given a few seconds is acknowledged, through a client that knows one node.
    #[must_use]
    pub fn acknowledges(&self, asked: usize, topic: &str, line: &str) -> bool {
        let mut kcat = Command::new("kcat");
        kcat.args(["-b", &self.nodes[asked].bootstrap(), "-P", "-t", topic, "-p", "0"]);
        kcat.args(["-X", "message.timeout.ms=4000", "-X", "acks=all"]);
        let mut kcat =
            kcat.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdin = kcat.stdin.take().expect("it is piped");
        writeln!(stdin, "{line}").unwrap();
        drop(stdin);
        kcat.wait().unwrap().success()
    }

    /// Lines that go on until they are told to end, from one idempotent producer that knows all nodes.
    #[must_use]
    pub fn start_load(&self, topic: &str, line: impl Fn(u64) -> String + Send + 'static) -> Load {
        let mut kcat = Command::new("kcat");
        kcat.args(["-b", &self.bootstrap(), "-P", "-t", topic, "-p", "0"]);
        kcat.args(["-X", "enable.idempotence=true", "-X", "linger.ms=2", "-X", "message.timeout.ms=60000"]);
        let mut kcat =
            kcat.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = kcat.stdin.take().expect("it is piped");
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let feeder = thread::spawn(move || {
            let mut next = 0;
            while !told.load(Ordering::Relaxed) {
                let lines: String = (next..next + 20).map(|number| line(number) + "\n").collect();
                stdin.write_all(lines.as_bytes()).expect("kcat reads");
                next += 20;
                // The pace of the load: some thousand records a second.
                thread::sleep(Duration::from_millis(10));
            }
            next
        });
        Load { kcat, feeder, ends }
    }
}

/// The record of a number, as [`check_all`] looks for it: 200 bytes of text.
#[must_use]
pub fn value(number: u64) -> String {
    const VALUE_BYTES: usize = 200;
    line(number, VALUE_BYTES)
}

/// Every record of partition 0 once and in order, through a client that knows one node only.
///
/// # Panics
/// One is lost, other, or there are more.
pub fn check_all(node: &Node, topic: &str, written: u64) {
    let read =
        kcat(node, &["-C", "-q", "-e", "-t", topic, "-p", "0", "-o", "0", "-X", "check.crcs=true"], b"");
    let read = String::from_utf8(read).unwrap();
    let mut lines = read.lines();
    for number in 0..written {
        assert_eq!(lines.next(), Some(value(number).as_str()), "record {number} is lost or other");
    }
    assert_eq!(lines.next(), None, "there is more than was written");
}

/// A producer at work.
#[derive(Debug)]
pub struct Load {
    kcat: Child,
    feeder: JoinHandle<u64>,
    ends: Arc<AtomicBool>,
}

impl Load {
    /// Ends it; every record was acknowledged. How many there are.
    #[must_use]
    pub fn finish(self) -> u64 {
        self.ends.store(true, Ordering::Relaxed);
        let written = self.feeder.join().expect("the feeder does not panic");
        let output = self.kcat.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kcat: {}: {said}", output.status);
        written
    }
}
