//! AlterPartitionReassignments and ListPartitionReassignments: which nodes are to hold a partition, and what is on its way.
//!
//! What is asked for is journaled in the metadata group; the partition's leader brings it about, whoever that is.

use varve_common::NodeId;
use varve_protocol::{
    ErrorCode,
    messages::{
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
        ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
        alter_partition_reassignments_request::ReassignablePartition,
        alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse},
        list_partition_reassignments_response::{OngoingPartitionReassignment, OngoingTopicReassignment},
    },
};
use varve_replica::metadata::Partition;

use super::{
    access::{Operation, Resource, authorize},
    brokers::wire_id,
    errors::Coded as _,
    partitions,
};
use crate::{net::Context, node::Node};

/// From this version on a request may insist on the number of replicas, and the answer says whether it did.
const FACTOR_FROM: i16 = 1;

type Refused = (ErrorCode, String);

pub async fn alter(
    node: &Node,
    context: &Context,
    version: i16,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let mut response = AlterPartitionReassignmentsResponse::default();
    if let Err(code) = authorize(context, Operation::Alter, Resource::Cluster) {
        response.error_code = code.number();
        return response;
    }
    let may_vary = version < FACTOR_FROM || request.allow_replication_factor_change;
    if version >= FACTOR_FROM {
        response.allow_replication_factor_change = may_vary;
    }
    for topic in request.topics {
        let mut told = ReassignableTopicResponse::default();
        for asked in &topic.partitions {
            let outcome = alter_one(node, &topic.name, asked, may_vary).await;
            let mut partition = ReassignablePartitionResponse::default();
            partition.partition_index = asked.partition_index;
            if let Err((code, why)) = outcome {
                (partition.error_code, partition.error_message) = (code.number(), Some(why.into()));
            }
            told.partitions.push(partition);
        }
        told.name = topic.name;
        response.responses.push(told);
    }
    response
}

async fn alter_one(
    node: &Node,
    topic: &str,
    asked: &ReassignablePartition,
    may_vary: bool,
) -> Result<(), Refused> {
    let image = node.backend.image();
    let unknown = || (ErrorCode::UnknownTopicOrPartition, "No such partition.".to_owned());
    let found = image.topic_by_name(topic).ok_or_else(unknown)?;
    let place = usize::try_from(asked.partition_index).map_err(|_| unknown())?;
    let partition = found.partitions.get(place).ok_or_else(unknown)?;
    let nodes = match &asked.replicas {
        Some(replicas) => Some(checked(node, partition, replicas, may_vary)?),
        None if partition.target.is_empty() => {
            let why = "Unable to find any in-progress reassignment.".to_owned();
            return Err((ErrorCode::NoReassignmentInProgress, why));
        }
        None => None,
    };
    tracing::info!(topic, partition = asked.partition_index, ?nodes, "replicas are reassigned");
    let done = node.backend.reassign(partition.group, nodes).await;
    done.map_err(|refusal| (refusal.code(), refusal.to_string()))
}

fn checked(
    node: &Node,
    partition: &Partition,
    replicas: &[i32],
    may_vary: bool,
) -> Result<Vec<NodeId>, Refused> {
    let invalid = |why: String| Err((ErrorCode::InvalidReplicaAssignment, why));
    let image = node.backend.image();
    let mut nodes = Vec::with_capacity(replicas.len());
    for replica in replicas {
        let known = u32::try_from(*replica).ok().and_then(NodeId::new);
        let Some(known) = known.filter(|known| image.brokers.contains_key(known)) else {
            return invalid(format!(
                "The manual partition assignment includes broker {replica}, but no such broker is registered."
            ));
        };
        if nodes.contains(&known) {
            return invalid(format!(
                "The manual partition assignment includes the broker {replica} more than once."
            ));
        }
        // It could not catch up; one that holds its replica already may be away.
        if partition.on(known).is_none() && !node.backend.is_alive(known) {
            return invalid(format!("Broker {replica} is not heard of."));
        }
        nodes.push(known);
    }
    let factor = partition.replicas.len();
    match nodes.len() {
        0 => invalid("The manual partition assignment includes an empty replica list.".to_owned()),
        count if count != factor && !may_vary => Err((
            ErrorCode::InvalidReplicationFactor,
            format!("The replication factor is {factor}, and {count} replicas were asked for."),
        )),
        _ => Ok(nodes),
    }
}

pub fn list(
    node: &Node,
    context: &Context,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let mut response = ListPartitionReassignmentsResponse::default();
    if let Err(code) = authorize(context, Operation::Describe, Resource::Cluster) {
        response.error_code = code.number();
        return response;
    }
    let image = node.backend.image();
    let asked = request.topics.as_ref();
    let asked = asked.map(|asked| asked.iter().map(|topic| (topic.name.as_str(), &topic.partition_indexes)));
    for (name, partitions) in partitions::tell(&image, asked, ongoing) {
        let mut told = OngoingTopicReassignment::default();
        (told.name, told.partitions) = (name.into(), partitions);
        response.topics.push(told);
    }
    response
}

/// Those that it is to have first, then those that will go: what remains without these is the target.
fn ongoing(index: i32, partition: &Partition) -> Option<OngoingPartitionReassignment> {
    let id = |replica: &varve_common::ReplicaId| wire_id(replica.node().get());
    let holds: Vec<i32> = partition.replicas.iter().map(id).collect();
    let target: Vec<i32> = partition.target.iter().map(id).collect();
    if target.is_empty() {
        return None;
    }
    let mut told = OngoingPartitionReassignment::default();
    told.partition_index = index;
    told.removing_replicas = holds.iter().copied().filter(|node| !target.contains(node)).collect();
    told.adding_replicas = target.iter().copied().filter(|node| !holds.contains(node)).collect();
    told.replicas = target.into_iter().chain(told.removing_replicas.iter().copied()).collect();
    Some(told)
}
