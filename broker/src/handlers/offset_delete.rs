//! OffsetDelete: a group forgets what it has committed in some partitions.

use varve_protocol::{
    ErrorCode,
    messages::{
        OffsetDeleteRequest, OffsetDeleteResponse,
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
    },
};
use varve_replica::coordinator::{Answer, GroupError, Request};

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
    groups,
};
use crate::{net::Context, node::Node};

pub async fn answer(node: &Node, context: &Context, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let mut response = OffsetDeleteResponse::default();
    match delete(node, context, &request).await {
        Ok(outcomes) => {
            let mut outcomes = outcomes.into_iter();
            for asked in &request.topics {
                let mut topic = OffsetDeleteResponseTopic::default();
                topic.name = asked.name.clone();
                for partition in &asked.partitions {
                    let mut answer = OffsetDeleteResponsePartition::default();
                    answer.partition_index = partition.partition_index;
                    let code = match check(node, context, &asked.name, partition.partition_index) {
                        Ok(()) => outcomes.next().and_then(Result::err).map_or(ErrorCode::None, |e| e.code()),
                        Err(code) => code,
                    };
                    answer.error_code = code.number();
                    topic.partitions.push(answer);
                }
                response.topics.push(topic);
            }
        }
        Err(code) => response.error_code = code.number(),
    }
    response
}

fn check(node: &Node, context: &Context, topic: &str, partition: i32) -> Result<(), ErrorCode> {
    authorize(context, Operation::Read, Resource::Topic(topic))?;
    let image = node.backend.image();
    let topic = image.topic_by_name(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let is_there = usize::try_from(partition).is_ok_and(|index| index < topic.partitions.len());
    if is_there { Ok(()) } else { Err(ErrorCode::UnknownTopicOrPartition) }
}

async fn delete(
    node: &Node,
    context: &Context,
    request: &OffsetDeleteRequest,
) -> Result<Vec<Result<(), GroupError>>, ErrorCode> {
    let group = request.group_id.as_str();
    authorize(context, Operation::Delete, Resource::Group(group))?;
    groups::check_name(group)?;
    let mut partitions = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            if check(node, context, &topic.name, partition.partition_index).is_ok() {
                partitions.push((topic.name.as_str().to_owned(), partition.partition_index));
            }
        }
    }
    let request = Request::DeleteOffsets { group: group.to_owned(), partitions };
    match groups::ask(node, group, request).await {
        Ok(Answer::OffsetsDeleted(outcomes)) => Ok(outcomes),
        Ok(answer) => Err(groups::unexpected(&answer)),
        Err(error) => Err(error.code()),
    }
}
