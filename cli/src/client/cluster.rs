//! What a cluster says of its nodes and of the logs behind its partitions.

use std::collections::{BTreeMap, BTreeSet};

use varve_protocol::{
    Request, Response, election,
    messages::{
        AlterPartitionReassignmentsRequest, DescribeClusterRequest, DescribeQuorumRequest,
        ElectLeadersRequest, ListPartitionReassignmentsRequest, UnregisterBrokerRequest,
        alter_partition_reassignments_request, describe_quorum_request, describe_quorum_response,
        elect_leaders_request,
    },
};

use super::{Client, ClientError, address, error};
use crate::limits;

/// A topic's partition.
pub type Place = (String, i32);

/// What became of a partition.
pub type Outcome = (Place, Result<(), ClientError>);

/// A node as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub id: i32,
    pub address: String,
    pub rack: Option<String>,
    pub is_up: bool,
}

/// The log behind a partition as its leader sees it, in entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quorum {
    pub leader: i32,
    pub epoch: i32,
    pub commit: i64,
    /// Log ends of those that vote, by node.
    pub voters: BTreeMap<i32, i64>,
    /// Log ends of those that learn.
    pub learners: BTreeMap<i32, i64>,
}

impl Quorum {
    /// How many entries a node lacks.
    pub fn lag(&self, node: i32) -> Option<i64> {
        let end = |node: i32| self.voters.get(&node).or_else(|| self.learners.get(&node)).copied();
        Some((end(self.leader)? - end(node)?).max(0))
    }
}

impl Client {
    /// Every node that was ever registered, whether it is up or not.
    pub fn nodes(&mut self) -> Result<Vec<Node>, ClientError> {
        let mut request = DescribeClusterRequest::default();
        request.include_fenced_brokers = true;
        let Response::DescribeCluster(response) = self.ask(&Request::DescribeCluster(request))? else {
            unreachable!("a response is of its request's key");
        };
        error::check("cluster", response.error_code, response.error_message.as_deref())?;
        let mut nodes: Vec<Node> = response
            .brokers
            .into_iter()
            .map(|broker| Node {
                id: broker.broker_id,
                address: address(&broker.host, broker.port),
                rack: broker.rack.map(|rack| rack.to_string()),
                is_up: !broker.is_fenced,
            })
            .collect();
        nodes.sort_by_key(|node| node.id);
        Ok(nodes)
    }

    /// The logs behind these partitions; one whose leader does not answer is missing.
    pub fn quorums(&mut self, places: &[Place]) -> Result<BTreeMap<Place, Quorum>, ClientError> {
        let mut quorums = BTreeMap::new();
        for part in places.chunks(limits::QUORUMS_MAX) {
            let request = Request::DescribeQuorum(describe_quorum(part));
            let Response::DescribeQuorum(response) = self.ask(&request)? else {
                unreachable!("a response is of its request's key");
            };
            error::check("quorums", response.error_code, response.error_message.as_deref())?;
            for topic in response.topics {
                let led = topic.partitions.into_iter().filter(|partition| partition.error_code == 0);
                quorums.extend(led.map(|partition| {
                    ((topic.topic_name.to_string(), partition.partition_index), Quorum::from(partition))
                }));
            }
        }
        Ok(quorums)
    }

    /// Asks for partitions to be held by these nodes. What became of each request; whether it is brought about shows later.
    pub fn reassign(&mut self, wanted: &[(Place, Vec<i32>)]) -> Result<Vec<Outcome>, ClientError> {
        let topic = |((name, index), nodes): &(Place, Vec<i32>)| {
            let mut partition = alter_partition_reassignments_request::ReassignablePartition::default();
            (partition.partition_index, partition.replicas) = (*index, Some(nodes.clone()));
            let mut topic = alter_partition_reassignments_request::ReassignableTopic::default();
            (topic.name, topic.partitions) = (name.as_str().into(), vec![partition]);
            topic
        };
        let mut request = AlterPartitionReassignmentsRequest::default();
        request.timeout_ms = limits::BROKER_TIMEOUT_MS;
        request.topics = wanted.iter().map(topic).collect();
        let request = Request::AlterPartitionReassignments(request);
        let Response::AlterPartitionReassignments(response) = self.ask(&request)? else {
            unreachable!("a response is of its request's key");
        };
        error::check("reassignment", response.error_code, response.error_message.as_deref())?;
        let mut outcomes = Vec::new();
        for topic in response.responses {
            for partition in topic.partitions {
                let subject = format!("{}-{}", topic.name, partition.partition_index);
                let outcome =
                    error::check(&subject, partition.error_code, partition.error_message.as_deref());
                outcomes.push(((topic.name.to_string(), partition.partition_index), outcome));
            }
        }
        Ok(outcomes)
    }

    /// The partitions that are on their way to other nodes.
    pub fn reassigning(&mut self) -> Result<BTreeSet<Place>, ClientError> {
        let mut request = ListPartitionReassignmentsRequest::default();
        (request.timeout_ms, request.topics) = (limits::BROKER_TIMEOUT_MS, None);
        let request = Request::ListPartitionReassignments(request);
        let Response::ListPartitionReassignments(response) = self.ask(&request)? else {
            unreachable!("a response is of its request's key");
        };
        error::check("reassignments", response.error_code, response.error_message.as_deref())?;
        let places = response.topics.into_iter().flat_map(|topic| {
            let name = topic.name.to_string();
            topic.partitions.into_iter().map(move |partition| (name.clone(), partition.partition_index))
        });
        Ok(places.collect())
    }

    /// Takes a node out of the cluster.
    pub fn unregister(&mut self, node: i32) -> Result<(), ClientError> {
        let mut request = UnregisterBrokerRequest::default();
        request.broker_id = node;
        let Response::UnregisterBroker(response) = self.ask(&Request::UnregisterBroker(request))? else {
            unreachable!("a response is of its request's key");
        };
        error::check(&format!("node {node}"), response.error_code, response.error_message.as_deref())
    }

    /// Lets the replicas on a node lead. What became of each.
    pub fn transfer(&mut self, places: &[Place], node: i32) -> Result<Vec<Outcome>, ClientError> {
        let topic = |(name, index): &Place| {
            let mut topic = elect_leaders_request::TopicPartitions::default();
            (topic.topic, topic.partitions) = (name.as_str().into(), vec![*index]);
            topic
        };
        let mut request = ElectLeadersRequest::default();
        request.topic_partitions = Some(places.iter().map(topic).collect());
        request.timeout_ms = limits::TRANSFER_TIMEOUT_MS;
        election::name(&mut request, node);
        let Response::ElectLeaders(response) = self.ask(&Request::ElectLeaders(request))? else {
            unreachable!("a response is of its request's key");
        };
        error::check("transfer", response.error_code, None)?;
        let mut outcomes = Vec::new();
        for topic in response.replica_election_results {
            for partition in topic.partition_result {
                let subject = format!("{}-{}", topic.topic, partition.partition_id);
                let message = partition.error_message.as_deref();
                let outcome = error::check(&subject, partition.error_code, message);
                outcomes.push(((topic.topic.to_string(), partition.partition_id), outcome));
            }
        }
        Ok(outcomes)
    }
}

fn describe_quorum(places: &[Place]) -> DescribeQuorumRequest {
    let mut request = DescribeQuorumRequest::default();
    for (name, index) in places {
        let mut partition = describe_quorum_request::PartitionData::default();
        partition.partition_index = *index;
        match request.topics.last_mut().filter(|topic| topic.topic_name.as_str() == name) {
            Some(topic) => topic.partitions.push(partition),
            None => {
                let mut topic = describe_quorum_request::TopicData::default();
                (topic.topic_name, topic.partitions) = (name.as_str().into(), vec![partition]);
                request.topics.push(topic);
            }
        }
    }
    request
}

impl From<describe_quorum_response::PartitionData> for Quorum {
    fn from(partition: describe_quorum_response::PartitionData) -> Self {
        let ends = |states: Vec<describe_quorum_response::ReplicaState>| {
            states.into_iter().map(|state| (state.replica_id, state.log_end_offset)).collect()
        };
        Self {
            leader: partition.leader_id,
            epoch: partition.leader_epoch,
            commit: partition.high_watermark,
            voters: ends(partition.current_voters),
            learners: ends(partition.observers),
        }
    }
}
