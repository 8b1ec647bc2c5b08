//! CreatePartitions: more partitions for topics that exist. Records stay where they are; keys may go elsewhere from now on.

use std::{collections::BTreeMap, sync::Arc};

use varve_protocol::{
    ErrorCode,
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, StrBytes,
        create_partitions_request::CreatePartitionsTopic,
        create_partitions_response::CreatePartitionsTopicResult,
    },
};
use varve_replica::metadata::Topic;

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
    groups,
    partitions::TopicRef,
    topics::{self, TopicRefusal},
};
use crate::{
    net::Context,
    node::{MetadataRefusal, Node},
};

pub async fn answer(
    node: &Node,
    context: &Context,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.as_str()).or_default() += 1;
    }
    let mut response = CreatePartitionsResponse::default();
    for topic in &request.topics {
        let outcome = match times.remove(topic.name.as_str()) {
            Some(1) => extend(node, context, topic, request.validate_only).await,
            Some(_) => Err(refused(ErrorCode::InvalidRequest, "Duplicate topic name.")),
            // A name that stands twice is answered once.
            None => continue,
        };
        let mut result = CreatePartitionsTopicResult::default();
        result.name = topic.name.clone();
        if let Err(Refused { code, message }) = outcome {
            (result.error_code, result.error_message) = (code.number(), message.map(StrBytes::from));
        }
        response.results.push(result);
    }
    response
}

struct Refused {
    code: ErrorCode,
    message: Option<String>,
}

fn refused(code: ErrorCode, message: impl Into<String>) -> Refused {
    Refused { code, message: Some(message.into()) }
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None }
    }
}

impl From<TopicRefusal> for Refused {
    fn from(refusal: TopicRefusal) -> Self {
        Self { code: refusal.code(), message: Some(refusal.to_string()) }
    }
}

async fn extend(
    node: &Node,
    context: &Context,
    asked: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Refused> {
    let name = asked.name.as_str();
    authorize(context, Operation::Alter, Resource::Topic(name))?;
    if groups::is_internal(name) {
        let why = "groups are found by the number of this topic's partitions: more would lose what they have committed";
        return Err(refused(ErrorCode::InvalidPartitions, why));
    }
    let image = node.backend.image();
    let topic = TopicRef::Name(name.to_owned()).find(&image)?;
    let replicas = plan(node, topic, asked)?;
    if !validate_only {
        let made = node.backend.create_partitions(topic.id, topic.partitions.len(), replicas).await;
        made.map_err(|refusal: MetadataRefusal| refused(refusal.code(), refusal.to_string()))?;
    }
    Ok(())
}

/// Where the new partitions go. What is refused is told as Kafka tells it.
fn plan(
    node: &Node,
    topic: &Arc<Topic>,
    asked: &CreatePartitionsTopic,
) -> Result<Vec<Vec<varve_common::NodeId>>, Refused> {
    let invalid = |message: String| Err(refused(ErrorCode::InvalidPartitions, message));
    let now = i32::try_from(topic.partitions.len()).expect("topics are bounded");
    if asked.count == now {
        return invalid(format!("Topic already has {now} partition(s)."));
    }
    if asked.count < now {
        return invalid(format!(
            "The topic {} currently has {now} partition(s); {} would not be an increase.",
            topic.name, asked.count
        ));
    }
    if asked.count > topics::PARTITIONS_MAX {
        return Err(TopicRefusal::Partitions(asked.count).into());
    }
    let factor = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
    let more = asked.count - now;
    let Some(assignments) = &asked.assignments else {
        return Ok(topics::place(node, more, factor)?);
    };
    if usize::try_from(more) != Ok(assignments.len()) {
        return Err(refused(
            ErrorCode::InvalidReplicaAssignment,
            format!(
                "Attempted to add {more} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            ),
        ));
    }
    let numbered: Vec<(i32, Vec<i32>)> =
        (now..).zip(assignments).map(|(index, one)| (index, one.broker_ids.clone())).collect();
    Ok(topics::assigned(node, &numbered, now, Some(factor))?)
}
