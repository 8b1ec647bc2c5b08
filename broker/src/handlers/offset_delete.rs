//! OffsetDelete: a group forgets what it has committed in some partitions.

use varve_protocol::{
    ErrorCode,
    messages::{
        OffsetDeleteRequest, OffsetDeleteResponse,
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
    },
};
use varve_replica::coordinator::{Answer, Request};

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
    groups,
};
use crate::{net::Context, node::Node};

pub async fn answer(node: &Node, context: &Context, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let mut response = OffsetDeleteResponse::default();
    let group = request.group_id.as_str();
    let refused = authorize(context, Operation::Delete, Resource::Group(group));
    if let Err(code) = refused.and_then(|()| groups::check_name(group)) {
        response.error_code = code.number();
        return response;
    }
    let partitions = checked(node, context, &request, &mut response);
    let request = Request::DeleteOffsets { group: group.to_owned(), partitions };
    let outcome = match groups::ask(node, group, request).await {
        Ok(Answer::OffsetsDeleted(outcomes)) => Ok(outcomes),
        Ok(answer) => Err(groups::unexpected(&answer)),
        Err(error) => Err(error.code()),
    };
    match outcome {
        Ok(outcomes) => {
            // Those that were refused here have their code; the others take theirs in the same order.
            let answers = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            let open = answers.filter(|answer| answer.error_code == ErrorCode::None.number());
            for (answer, outcome) in open.zip(outcomes) {
                answer.error_code = outcome.map_or_else(|error| error.code(), |()| ErrorCode::None).number();
            }
        }
        Err(code) => {
            response.topics.clear();
            response.error_code = code.number();
        }
    }
    response
}

/// What goes to the coordinator; what is refused here has its code in the answer.
fn checked(
    node: &Node,
    context: &Context,
    request: &OffsetDeleteRequest,
    response: &mut OffsetDeleteResponse,
) -> Vec<(String, i32)> {
    let mut partitions = Vec::new();
    for asked in &request.topics {
        let mut topic = OffsetDeleteResponseTopic::default();
        topic.name = asked.name.clone();
        for partition in &asked.partitions {
            let mut answer = OffsetDeleteResponsePartition::default();
            answer.partition_index = partition.partition_index;
            match check(node, context, &asked.name, partition.partition_index) {
                Ok(()) => partitions.push((asked.name.as_str().to_owned(), partition.partition_index)),
                Err(code) => answer.error_code = code.number(),
            }
            topic.partitions.push(answer);
        }
        response.topics.push(topic);
    }
    partitions
}

fn check(node: &Node, context: &Context, topic: &str, partition: i32) -> Result<(), ErrorCode> {
    authorize(context, Operation::Read, Resource::Topic(topic))?;
    let image = node.backend.image();
    let topic = image.topic_by_name(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let is_there = usize::try_from(partition).is_ok_and(|index| index < topic.partitions.len());
    if is_there { Ok(()) } else { Err(ErrorCode::UnknownTopicOrPartition) }
}
