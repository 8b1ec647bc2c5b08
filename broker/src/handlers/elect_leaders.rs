//! ElectLeaders: lets the preferred replica of a partition lead, or the one on a node that is named
//! ([`varve_protocol::election`]). What is refused is told as Kafka tells it.
//!
//! There are no unclean elections: a replica that lacks committed records never leads.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use varve_common::{GroupId, NodeId, ReplicaId};
use varve_protocol::{
    ErrorCode, election,
    messages::{
        ElectLeadersRequest, ElectLeadersResponse, StrBytes,
        elect_leaders_response::{PartitionResult, ReplicaElectionResult},
    },
};

use super::{
    access::{Operation, Resource, authorize},
    describe_quorum::group_of,
};
use crate::{net::Context, node::Node};

/// Before this version every election is one of the preferred replica, and the answer has no error of its own.
const TYPES_FROM: i16 = 1;
/// The longest wait, whatever the client asks.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Whom an election is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Election {
    Preferred,
    Unclean,
    /// The replica on this node, which must keep up.
    Named(NodeId),
}

impl Election {
    fn of(version: i16, request: &ElectLeadersRequest) -> Result<Self, ErrorCode> {
        match request.election_type {
            _ if version < TYPES_FROM => Ok(Self::Preferred),
            election::PREFERRED => Ok(Self::Preferred),
            election::UNCLEAN => Ok(Self::Unclean),
            // Nobody means all partitions at once.
            election::NAMED if request.topic_partitions.is_some() => {
                let node = election::named(request).and_then(|node| u32::try_from(node).ok());
                node.and_then(NodeId::new).map(Self::Named).ok_or(ErrorCode::InvalidRequest)
            }
            _ => Err(ErrorCode::InvalidRequest),
        }
    }
}

/// Which partitions of which topics are asked about.
type Asked = BTreeMap<String, Vec<i32>>;

type Refused = (ErrorCode, Option<String>);

pub async fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let mut response = ElectLeadersResponse::default();
    let election = Election::of(version, &request);
    let allowed = authorize(context, Operation::Alter, Resource::Cluster);
    let election = match allowed.and(election) {
        Ok(election) => election,
        Err(code) => {
            if version >= TYPES_FROM {
                response.error_code = code.number();
            }
            return response;
        }
    };
    let within = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)).min(WAIT_MAX);
    let is_all = request.topic_partitions.is_none();
    let asked: Asked = match request.topic_partitions {
        Some(topics) => {
            let mut asked = Asked::new();
            for one in topics {
                asked.entry(one.topic.into_string()).or_default().extend(one.partitions);
            }
            asked
        }
        None => everything(node),
    };
    let topics = asked.iter().map(async |(topic, partitions)| {
        let each = partitions.iter().map(|index| one(node, topic, *index, election, within));
        let results = partitions.iter().copied().zip(join_all(each).await);
        (topic.as_str(), results.collect::<Vec<_>>())
    });
    for (topic, results) in join_all(topics).await {
        // Of all, only those are told that had another leader.
        let unneeded =
            |result: &Result<(), Refused>| is_all && matches!(result, Err((ErrorCode::ElectionNotNeeded, _)));
        let told = results.into_iter().filter(|(_, result)| !unneeded(result));
        let mut result = ReplicaElectionResult::default();
        result.topic = topic.into();
        result.partition_result = told.map(|(index, outcome)| partition(index, outcome)).collect();
        if !result.partition_result.is_empty() {
            response.replica_election_results.push(result);
        }
    }
    response
}

fn everything(node: &Node) -> Asked {
    let image = node.backend.image();
    let topics = image.topics.values();
    topics
        .map(|topic| (topic.name.to_string(), (0..).zip(&topic.partitions).map(|(at, _)| at).collect()))
        .collect()
}

fn partition(index: i32, outcome: Result<(), Refused>) -> PartitionResult {
    let mut result = PartitionResult::default();
    result.partition_id = index;
    if let Err((code, message)) = outcome {
        (result.error_code, result.error_message) = (code.number(), message.map(StrBytes::from));
    }
    result
}

async fn one(
    node: &Node,
    topic: &str,
    index: i32,
    election: Election,
    within: Duration,
) -> Result<(), Refused> {
    let image = node.backend.image();
    let unknown = |what: String| (ErrorCode::UnknownTopicOrPartition, Some(what));
    if let Election::Named(to) = election {
        let group = group_of(&image, topic, index);
        let group = group.ok_or_else(|| unknown(format!("No such partition as {topic}-{index}")))?;
        return elect(node, group, to, within).await;
    }
    let found = image.topic_by_name(topic).ok_or_else(|| unknown(format!("No such topic as {topic}")))?;
    let partition = usize::try_from(index).ok().and_then(|index| found.partitions.get(index));
    let partition = partition.ok_or_else(|| unknown(format!("No such partition as {topic}-{index}")))?;
    match election {
        Election::Unclean if node.backend.leadership(partition.group).is_some() => Err(unneeded()),
        Election::Unclean => Err(told(
            ErrorCode::EligibleLeadersNotAvailable,
            "Eligible topic partition leaders are not available.",
        )),
        Election::Preferred | Election::Named(_) => {
            let preferred = partition.replicas.first().copied().ok_or_else(away)?;
            elect(node, partition.group, preferred.node(), within).await.map_err(|(code, message)| {
                // Kafka has words for this one.
                if code == ErrorCode::ElectionNotNeeded { (code, message) } else { away() }
            })
        }
    }
}

fn told(code: ErrorCode, message: &str) -> Refused {
    (code, Some(message.to_owned()))
}

fn unneeded() -> Refused {
    told(ErrorCode::ElectionNotNeeded, "Leader election not needed for topic partition.")
}

fn away() -> Refused {
    told(ErrorCode::PreferredLeaderNotAvailable, "The preferred leader was not available.")
}

/// Lets the replica on a node lead: one that keeps up, and whose node is heard of.
async fn elect(node: &Node, group: GroupId, to: NodeId, within: Duration) -> Result<(), Refused> {
    let refused = |why: String| (ErrorCode::EligibleLeadersNotAvailable, Some(why));
    let known = node.backend.leadership(group).ok_or_else(|| refused("nobody leads it".to_owned()))?;
    if known.leader.node() == to {
        return Err(unneeded());
    }
    let replica: Option<ReplicaId> = known.in_sync.iter().copied().find(|replica| replica.node() == to);
    let replica =
        replica.ok_or_else(|| refused(format!("node {to} has no replica of it that is in sync")))?;
    if !node.backend.is_alive(to) {
        return Err(refused(format!("node {to} is not heard of")));
    }
    let elected = node.backend.elect(group, replica, within).await;
    if elected { Ok(()) } else { Err(refused(format!("node {to} did not come to lead in time"))) }
}
