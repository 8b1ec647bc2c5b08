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
    time::{Duration, Instant},
};

use crate::{
    clients::{kcat, varve, varve_json},
    links::Links,
    marked::line,
    node::{Node, Options, free_address},
    raw::list_offset,
    tool, wait_for,
    wire::{Client, Partition},
};

/// How long a node is given to say what it knows.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a healthy cluster may take to change a leader.
const LEAD_MAX: Duration = Duration::from_secs(60);

/// Nodes with one directory as their bucket.
pub struct Cluster {
    /// In order of their ids, from 1.
    pub nodes: Vec<Node>,
    peers: Vec<Place>,
    extra: Vec<Place>,
    /// What names the seeds, where they are not named one by one.
    service: Option<String>,
    /// `None` where records are on nodes only.
    bucket: Option<tempfile::TempDir>,
    links: Option<Links>,
}

/// Where a node listens for the others, and where they look for it.
#[derive(Clone, Copy)]
struct Place {
    own: SocketAddr,
    told: SocketAddr,
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
        let mut cluster = Self::stopped_each(count, options, None);
        cluster.launch_all();
        cluster
    }

    /// The same without a bucket: records are on nodes only.
    #[must_use]
    pub fn start_without_bucket(count: usize, options: &Options) -> Self {
        let mut cluster = Self::stopped_over(count, None, None, |_| options.clone(), None);
        cluster.launch_all();
        cluster
    }

    /// The same with a network of its own between the nodes.
    #[must_use]
    pub fn start_linked(count: usize, options: &Options, seed: u64) -> Self {
        Self::start_linked_each(count, |_| options.clone(), seed)
    }

    /// The same, with options of its own for each node, by its id.
    #[must_use]
    pub fn start_linked_each(count: usize, options: impl Fn(usize) -> Options, seed: u64) -> Self {
        let mut cluster = Self::stopped_each(count, options, Some(Links::start(seed)));
        cluster.launch_all();
        cluster
    }

    /// Starts all of them and waits until they are ready.
    pub fn launch_all(&mut self) {
        self.nodes.iter_mut().for_each(Node::launch);
        self.nodes.iter_mut().for_each(Node::wait_ready);
    }

    /// Nodes that are not started yet.
    #[must_use]
    pub fn stopped(count: usize, options: &Options) -> Self {
        Self::stopped_each(count, |_| options.clone(), None)
    }

    /// Nodes that are not started yet, and whose seeds a service names.
    #[must_use]
    pub fn stopped_behind(count: usize, service: &str, options: &Options) -> Self {
        Self::stopped_with(count, Some(service.to_owned()), |_| options.clone(), None)
    }

    fn stopped_each(count: usize, options: impl Fn(usize) -> Options, links: Option<Links>) -> Self {
        Self::stopped_with(count, None, options, links)
    }

    fn stopped_with(
        count: usize,
        service: Option<String>,
        options: impl Fn(usize) -> Options,
        links: Option<Links>,
    ) -> Self {
        let bucket = tempfile::Builder::new().prefix("varve-bucket-").tempdir().unwrap();
        Self::stopped_over(count, service, Some(bucket), options, links)
    }

    fn stopped_over(
        count: usize,
        service: Option<String>,
        bucket: Option<tempfile::TempDir>,
        options: impl Fn(usize) -> Options,
        links: Option<Links>,
    ) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            peers: (0..count).map(|number| place(links.as_ref(), number)).collect(),
            extra: Vec::new(),
            service,
            bucket,
            links,
        };
        let stopped = |number| Node::stopped(cluster.options(number, &options(number + 1)));
        cluster.nodes = (0..count).map(stopped).collect();
        (0..count).for_each(|number| cluster.introduce(number));
        cluster
    }

    fn options(&self, number: usize, options: &Options) -> Options {
        self.options_at(number, self.place(number), options)
    }

    fn options_at(&self, number: usize, place: Place, options: &Options) -> Options {
        let seeds: Vec<String> = self.peers.iter().map(|place| place.told.to_string()).collect();
        let seeds = self.service.clone().unwrap_or_else(|| seeds.join(","));
        let (id, listen) = ((number + 1).to_string(), place.own.to_string());
        let options = options.clone().args(&["--node-id", &id, "--peer-listen", &listen]);
        let options = options.args(&["--seeds", &seeds]);
        let told = |options: Options| options.env("VARVE_PEER_ADVERTISE", place.told.to_string());
        let options = if place.told == place.own { options } else { told(options) };
        let has_bucket = options.arguments.iter().any(|argument| argument == "--object-store");
        match &self.bucket {
            Some(_) if !has_bucket => options.args(&["--object-store", &self.bucket()]),
            _ => options,
        }
    }

    /// The directory that is the nodes' bucket, unless their options name another.
    #[must_use]
    pub fn bucket(&self) -> String {
        let bucket = self.bucket.as_ref().expect("the cluster was started with a bucket");
        bucket.path().display().to_string()
    }

    /// The network tells whose connections are whose.
    fn introduce(&self, number: usize) {
        if let Some(links) = &self.links {
            links.know(number, self.nodes[number].process());
        }
    }

    /// The network between the nodes of a cluster that was started with one.
    #[must_use]
    pub fn links(&self) -> &Links {
        self.links.as_ref().expect("the cluster was started with a network of its own")
    }

    /// Adds a node with the next number, an empty disk and the same seeds, and does not start it. Its place.
    pub fn add(&mut self, options: &Options) -> usize {
        let number = self.nodes.len();
        self.extra.push(place(self.links.as_ref(), number));
        let options = self.options(number, options);
        self.nodes.push(Node::stopped(options));
        self.introduce(number);
        number
    }

    /// A second machine with the number of a node, and an empty disk.
    #[must_use]
    pub fn double(&self, number: usize, options: &Options) -> Node {
        let own = free_address();
        Node::stopped(self.options_at(number, Place { own, told: own }, options))
    }

    /// Where a node listens for the others.
    #[must_use]
    pub fn peer_address(&self, number: usize) -> SocketAddr {
        self.place(number).own
    }

    fn place(&self, number: usize) -> Place {
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
    pub fn leader(&self, asked: usize, topic: &str, partition: i32) -> Option<usize> {
        place_of(self.partition(asked, topic, partition)?.leader?)
    }

    /// Nothing where it does not answer soon: a node that died, or stands still, is no failure of the test.
    fn partition(&self, asked: usize, topic: &str, partition: i32) -> Option<Partition> {
        let mut client = Client::connect(self.nodes[asked].kafka(), PATIENCE).ok()?;
        client.metadata(topic).ok()?.partitions.remove(&partition)
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
    pub fn wait_leader(&self, asked: usize, topic: &str, partition: i32, other: Option<usize>) -> usize {
        let mut found = None;
        wait_for("a leader", 30, || {
            found = self.leader(asked, topic, partition).filter(|leader| Some(*leader) != other);
            found.is_some()
        });
        found.expect("it was waited for")
    }

    /// The nodes in sync with a partition's leader, as a node tells; their places in [`Cluster::nodes`].
    #[must_use]
    pub fn in_sync(&self, asked: usize, topic: &str, partition: i32) -> Vec<usize> {
        let nodes = self.partition(asked, topic, partition).unwrap_or_default().in_sync;
        let mut places: Vec<usize> = nodes.into_iter().filter_map(place_of).collect();
        places.sort_unstable();
        places
    }

    /// Lets one node after another lead a partition 0 and looks at it there: what is read comes from that replica.
    pub fn each_leads(&self, topic: &str, mut look: impl FnMut(&Node)) {
        for (number, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_running()) {
            self.lead(number, topic, 0);
            look(node);
        }
    }

    /// Lets a node lead a partition.
    ///
    /// # Panics
    /// It does not come to that.
    pub fn lead(&self, number: usize, topic: &str, partition: i32) {
        let (name, to) = (format!("{topic}-{partition}"), (number + 1).to_string());
        let begin = Instant::now();
        loop {
            let told = varve_json(&self.nodes[number], &["cluster", "transfer-leader", &name, "--to", &to]);
            if told.0 && self.leader(number, topic, partition) == Some(number) {
                return;
            }
            assert!(begin.elapsed() < LEAD_MAX, "node {to} does not come to lead {name}: {told:?}");
            thread::sleep(Duration::from_millis(50));
        }
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

    /// Lines that go on until they are told to end, from one idempotent producer that knows all nodes: confluent-kafka, for kcat ends itself
    /// when it has lost every connection once.
    #[must_use]
    pub fn start_load(&self, topic: &str, line: impl Fn(u64) -> String + Send + 'static) -> Load {
        let mut client = Command::new(tool::python());
        client.arg(tool::scripts().join("lines.py")).args([&self.bootstrap(), topic]);
        client.env("PYTHONDONTWRITEBYTECODE", "1");
        let said = tempfile::NamedTempFile::new().unwrap();
        let stderr = said.reopen().unwrap();
        let mut client = client.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let mut stdin = client.stdin.take().expect("it is piped");
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let feeder = thread::spawn(move || {
            let mut next = 0;
            while !told.load(Ordering::Relaxed) {
                let lines: String = (next..next + 20).map(|number| line(number) + "\n").collect();
                if stdin.write_all(lines.as_bytes()).is_err() {
                    // It has ended, and says so itself.
                    break;
                }
                next += 20;
                // The pace of the load: some thousand records a second.
                thread::sleep(Duration::from_millis(10));
            }
            next
        });
        Load { client, feeder: Some(feeder), ends, said }
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

fn place_of(node: i32) -> Option<usize> {
    usize::try_from(node).ok()?.checked_sub(1)
}

fn place(links: Option<&Links>, number: usize) -> Place {
    let own = free_address();
    Place { own, told: links.map_or(own, |links| links.before(number, own)) }
}

/// A producer at work; ended when it is dropped.
#[derive(Debug)]
pub struct Load {
    client: Child,
    feeder: Option<JoinHandle<u64>>,
    ends: Arc<AtomicBool>,
    said: tempfile::NamedTempFile,
}

impl Load {
    /// Ends it; every record was acknowledged. How many there are.
    #[must_use]
    pub fn finish(mut self) -> u64 {
        let written = self.end();
        let status = self.client.wait().unwrap();
        assert!(status.success(), "the producer: {status}: {}", self.said());
        written
    }

    fn end(&mut self) -> u64 {
        self.ends.store(true, Ordering::Relaxed);
        let feeder = self.feeder.take().expect("it is ended once");
        feeder.join().expect("the feeder does not panic")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.said.path()).unwrap_or_default()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if self.feeder.is_some() {
            let _ = self.client.kill();
            let _ = self.end();
            let _ = self.client.wait();
            if thread::panicking() {
                eprintln!("--- the producer said\n{}", self.said());
            }
        }
    }
}
