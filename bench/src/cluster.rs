//! Three brokers as one cluster on this machine, and a client that follows its leaders without a library's back-off.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    figures::Bench,
    process::{Broker, lasting_addresses},
    wire,
};

/// Nodes of a cluster.
pub const NODES: usize = 3;
/// How long a cluster may take for what it does by itself.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the client waits for one answer before it looks for another leader.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The pause before it asks once more.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// Three running brokers.
pub struct Cluster {
    /// By place; the node ids are one more.
    pub nodes: Vec<Broker>,
}

impl Cluster {
    /// Starts three nodes over emptied directories and waits until they know each other.
    pub fn start(bench: &Bench, name: &str) -> anyhow::Result<Self> {
        let addresses = lasting_addresses(3 * NODES)?;
        let (peers, others) = addresses.split_at(NODES);
        let seeds: Vec<String> = peers.iter().map(ToString::to_string).collect();
        let mut nodes = Vec::new();
        for (place, peer) in peers.iter().enumerate() {
            let data = bench.directory.join(format!("{name}-{place}"));
            if data.exists() {
                std::fs::remove_dir_all(&data)?;
            }
            let id = (place + 1).to_string();
            let peer = peer.to_string();
            let arguments =
                ["--node-id", &id, "--peer-listen", &peer, "--seeds", &seeds.join(","), "--insecure"];
            let arguments = arguments.map(str::to_owned).to_vec();
            let places = (others[2 * place], others[2 * place + 1]);
            nodes.push(Broker::launch(bench.binary(), &data, places, arguments, Vec::new())?);
        }
        nodes.iter_mut().try_for_each(Broker::wait_until_it_listens)?;
        let cluster = Self { nodes };
        until("three nodes that know each other", || Ok(cluster.metadata(0, "")?.brokers.len() == NODES))?;
        Ok(cluster)
    }

    /// What a node tells of a topic.
    pub fn metadata(&self, asked: usize, topic: &str) -> anyhow::Result<wire::Metadata> {
        let mut client = wire::Client::connect_within(self.nodes[asked].address, ANSWER_LIMIT)?;
        wire::Metadata::parse(client.call(&mut wire::metadata(topic))?)
    }

    /// Who leads a partition, as the first node says that tells of a leader beside `not`.
    pub fn leader(&self, topic: &str, partition: i32, not: Option<usize>) -> Option<usize> {
        let asked = (0..NODES).filter(|asked| Some(*asked) != not);
        let mut told = asked.filter_map(|asked| {
            let state = self.metadata(asked, topic).ok()?.partitions.remove(&partition)?;
            usize::try_from(state.leader - 1).ok()
        });
        told.find(|leader| Some(*leader) != not)
    }

    /// Waits until all partitions of a topic have all replicas in sync.
    pub fn wait_in_sync(&self, topic: &str) -> anyhow::Result<()> {
        until("all replicas in sync", || {
            let partitions = self.metadata(0, topic)?.partitions;
            Ok(!partitions.is_empty()
                && partitions.values().all(|state| state.in_sync == NODES && state.leader > 0))
        })
    }

    /// The sum of a metric over the nodes.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        self.nodes.iter().map(|node| node.metric(name, "")).sum()
    }
}

/// Asks every few milliseconds.
pub fn until(what: &str, mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        match done() {
            Ok(true) => return Ok(()),
            Ok(false) if begin.elapsed() > PATIENCE => bail!("there was no {what}"),
            Err(error) if begin.elapsed() > PATIENCE => return Err(error.context(what.to_owned())),
            Ok(false) | Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// A producer that asks for the leader itself, at once and again and again.
pub struct Follower {
    addresses: Vec<SocketAddr>,
    topic: String,
    frame: Vec<u8>,
    client: Option<wire::Client>,
    /// Seconds between two acknowledgements, the longest so far.
    pub longest_gap: f64,
    last: Option<Instant>,
}

impl Follower {
    /// Writes batches of one record of 1 KiB to partition 0.
    pub fn new(cluster: &Cluster, topic: &str) -> Self {
        Self {
            addresses: cluster.nodes.iter().map(|node| node.address).collect(),
            topic: topic.to_owned(),
            frame: wire::produce(topic, &[0], &wire::batch(1, 1024)),
            client: None,
            longest_gap: 0.0,
            last: None,
        }
    }

    /// A request each millisecond, one at a time, until `end`; gives up where nothing is acknowledged for long.
    pub fn run(&mut self, end: Instant) -> anyhow::Result<()> {
        let (begin, mut number) = (Instant::now(), 0_u32);
        while Instant::now() < end {
            let due = begin + Duration::from_millis(1) * number;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            number = number.max(begin.elapsed().as_millis() as u32) + 1;
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        while self.attempt().is_err() {
            self.client = None;
            ensure!(begin.elapsed() < PATIENCE, "nothing was acknowledged for {PATIENCE:?}");
            thread::sleep(RETRY_PAUSE);
        }
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.longest_gap = self.longest_gap.max((now - last).as_secs_f64());
        }
        Ok(())
    }

    fn attempt(&mut self) -> anyhow::Result<()> {
        if self.client.is_none() {
            self.client = Some(self.connect()?);
        }
        let client = self.client.as_mut().context("it was just connected")?;
        wire::check_produced(client.call(&mut self.frame)?)
    }

    /// To whom the nodes call the leader; where they differ, to the one that is told by the later answer.
    fn connect(&self) -> anyhow::Result<wire::Client> {
        let mut leaders = BTreeMap::new();
        for address in &self.addresses {
            let Ok(mut client) = wire::Client::connect_within(*address, ANSWER_LIMIT) else { continue };
            let Ok(told) = client.call(&mut wire::metadata(&self.topic)).and_then(wire::Metadata::parse)
            else {
                continue;
            };
            if let Some(state) = told.partitions.get(&0).filter(|state| state.leader > 0) {
                leaders.insert(state.epoch, state.leader as usize - 1);
            }
        }
        let (_, leader) = leaders.last_key_value().context("nobody knows a leader")?;
        wire::Client::connect_within(self.addresses[*leader], ANSWER_LIMIT)
    }
}
