//! A small Kafka client, blocking, one request at a time: what a command line needs, against any Kafka broker.
//!
//! ```text
//!  commands -> Client (brokers, metadata, leaders) -> Connection (one socket, negotiated versions) -> varve-protocol
//!      producer, fetch, offsets, topics: one file per thing that is asked
//! ```
//! Versions are negotiated per connection with ApiVersions first. Requests that can name a topic by name or by id use
//! names: Produce and Fetch stay below 13, DeleteTopics below 6. Only `varve-protocol` encodes and decodes.

pub mod cluster;
mod connection;
pub mod error;
pub mod fetch;
pub mod groups;
pub mod offsets;
mod partitioner;
pub mod producer;
#[cfg(test)]
pub mod test_server;
#[cfg(test)]
mod tests;
pub mod topics;

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use varve_protocol::{
    ErrorCode, Request, Response,
    messages::{MetadataRequest, MetadataResponse, Uuid, metadata_request, metadata_response},
};

use self::connection::Connection;
pub use self::error::{ClientError, Code};
use crate::limits;

/// Where a cluster may be found, and the way to each of its brokers.
pub struct Client {
    seeds: Vec<String>,
    brokers: BTreeMap<i32, String>,
    connections: BTreeMap<i32, Connection>,
    seed: Option<Connection>,
}

/// A broker as the cluster names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub node: i32,
    pub address: String,
}

/// What a broker does about a topic that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Makes it, if it may.
    Create,
    /// Says so.
    Report,
}

/// What Metadata says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    pub id: Option<String>,
    pub controller: i32,
    pub brokers: Vec<Broker>,
    pub topics: Vec<Topic>,
}

/// A topic as Metadata describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    /// Absent below Metadata 10.
    pub id: Option<Uuid>,
    pub is_internal: bool,
    pub partitions: BTreeMap<i32, Partition>,
    pub error: Option<Code>,
}

/// A partition as Metadata describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub leader: i32,
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
}

impl Client {
    /// Over the first of `seeds` that answers, later over any broker that they named. Connects when something is asked.
    pub fn new(seeds: Vec<String>) -> Self {
        Self { seeds, brokers: BTreeMap::new(), connections: BTreeMap::new(), seed: None }
    }

    /// Asks any broker.
    pub fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        if self.seed.is_none() {
            self.seed = Some(self.connect_any()?);
        }
        let connection = self.seed.as_mut().expect("it was connected above");
        let answer = connection.call(request);
        if answer.as_ref().is_err_and(ClientError::is_of_connection) {
            self.seed = None;
        }
        answer
    }

    /// Asks the broker of this id.
    pub fn ask_node(&mut self, node: i32, request: &Request) -> Result<Response, ClientError> {
        let answer = self.on(node)?.call(request);
        if answer.as_ref().is_err_and(ClientError::is_of_connection) {
            self.connections.remove(&node);
        }
        answer
    }

    /// Tells the broker of this id something that it does not answer.
    pub fn tell_node(&mut self, node: i32, request: &Request) -> Result<(), ClientError> {
        self.on(node)?.send(request).map(drop)
    }

    fn on(&mut self, node: i32) -> Result<&mut Connection, ClientError> {
        if !self.connections.contains_key(&node) {
            let address = self.brokers.get(&node).ok_or(ClientError::NoBroker { node })?;
            self.connections.insert(node, Connection::open(address)?);
        }
        Ok(self.connections.get_mut(&node).expect("it was connected above"))
    }

    fn connect_any(&self) -> Result<Connection, ClientError> {
        let mut refused = None;
        for seed in self.seeds.iter().chain(self.brokers.values()) {
            match Connection::open(seed) {
                Ok(connection) => return Ok(connection),
                Err(cause) => refused = Some(cause),
            }
        }
        Err(refused.unwrap_or(ClientError::NoSeeds))
    }

    /// Brokers and the named topics, all where `topics` is `None`. `missing` says what is done about others.
    pub fn metadata(&mut self, topics: Option<&[&str]>, missing: Missing) -> Result<Cluster, ClientError> {
        let mut request = MetadataRequest::default();
        request.allow_auto_topic_creation = missing == Missing::Create;
        request.topics = topics.map(|names| names.iter().map(|name| by_name(name)).collect());
        let Response::Metadata(response) = self.ask(&Request::Metadata(request))? else {
            unreachable!("a response is of its request's key");
        };
        error::check("metadata", response.error_code, None)?;
        let cluster = Cluster::from(response);
        self.brokers = cluster.brokers.iter().map(|b| (b.node, b.address.clone())).collect();
        Ok(cluster)
    }

    /// One topic, once all of its partitions have leaders.
    pub fn topic(&mut self, name: &str, missing: Missing) -> Result<Topic, ClientError> {
        let deadline = Instant::now() + limits::METADATA_WAIT_MAX;
        loop {
            let cluster = self.metadata(Some(&[name]), missing)?;
            let topic = cluster.topics.into_iter().find(|topic| topic.name == name);
            let topic = topic.ok_or_else(|| ClientError::NoTopic { topic: name.to_owned() })?;
            let code = match topic.error {
                None if topic.partitions.values().all(|partition| partition.leader >= 0) => return Ok(topic),
                None => Code(ErrorCode::LeaderNotAvailable.number()),
                Some(code) => code,
            };
            let is_late = Instant::now() >= deadline;
            if code == ErrorCode::UnknownTopicOrPartition && (is_late || missing == Missing::Report) {
                return Err(ClientError::NoTopic { topic: name.to_owned() });
            }
            if is_late || !code.is_retriable() {
                return Err(ClientError::refused(format!("topic {name}"), code, None));
            }
            thread::sleep(limits::RETRY_BACKOFF);
        }
    }
}

fn by_name(name: &str) -> metadata_request::MetadataRequestTopic {
    let mut topic = metadata_request::MetadataRequestTopic::default();
    topic.name = Some(name.into());
    topic
}

impl From<MetadataResponse> for Cluster {
    fn from(response: MetadataResponse) -> Self {
        let broker = |b: metadata_response::MetadataResponseBroker| Broker {
            node: b.node_id,
            address: address(&b.host, b.port),
        };
        let mut topics: Vec<Topic> = response.topics.into_iter().map(Topic::from).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            id: response.cluster_id.map(|id| id.to_string()),
            controller: response.controller_id,
            brokers: response.brokers.into_iter().map(broker).collect(),
            topics,
        }
    }
}

fn address(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl From<metadata_response::MetadataResponseTopic> for Topic {
    fn from(topic: metadata_response::MetadataResponseTopic) -> Self {
        let partition = |p: metadata_response::MetadataResponsePartition| {
            let leader_epoch = p.leader_epoch;
            let (replicas, in_sync) = (p.replica_nodes, p.isr_nodes);
            (p.partition_index, Partition { leader: p.leader_id, leader_epoch, replicas, in_sync })
        };
        Self {
            name: topic.name.map(|name| name.to_string()).unwrap_or_default(),
            id: Some(topic.topic_id).filter(|id| !id.is_zero()),
            is_internal: topic.is_internal,
            partitions: topic.partitions.into_iter().map(partition).collect(),
            error: Code::of(topic.error_code),
        }
    }
}

impl Topic {
    /// The partitions of `chosen`, all where it is empty, by leader.
    pub fn by_leader(&self, chosen: &[i32]) -> Result<BTreeMap<i32, Vec<i32>>, ClientError> {
        let all: Vec<i32> = self.partitions.keys().copied().collect();
        let mut leaders: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for &partition in if chosen.is_empty() { &all } else { chosen } {
            leaders.entry(self.leader(partition)?).or_default().push(partition);
        }
        Ok(leaders)
    }

    /// Who leads this partition.
    pub fn leader(&self, partition: i32) -> Result<i32, ClientError> {
        let found = self.partitions.get(&partition);
        found.map(|found| found.leader).ok_or_else(|| ClientError::NoPartition {
            topic: self.name.clone(),
            partition,
            count: self.partitions.len(),
        })
    }
}

/// Runs `attempt` until it succeeds, fails for good, or `span` is over.
pub fn retrying<T>(
    span: Duration,
    mut attempt: impl FnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let deadline = Instant::now() + span;
    loop {
        match attempt() {
            Err(error) if error.is_retriable() && Instant::now() < deadline => {
                thread::sleep(limits::RETRY_BACKOFF);
            }
            done => return done,
        }
    }
}
