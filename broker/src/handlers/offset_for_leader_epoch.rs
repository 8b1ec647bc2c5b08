//! OffsetForLeaderEpoch: where a leader epoch ended, so that consumers notice lost records (KIP-320).

use varve_protocol::{
    ErrorCode,
    messages::{
        OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
        offset_for_leader_epoch_request::OffsetForLeaderPartition,
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    },
};

use super::{
    access::{Operation, Resource, authorize},
    partitions::{self, EpochEnd, TopicRef},
};
use crate::{net::Context, node::Node};

pub fn answer(
    node: &Node,
    context: &Context,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut response = OffsetForLeaderEpochResponse::default();
    for topic in request.topics {
        let mut result = OffsetForLeaderTopicResult::default();
        let name = topic.topic.as_str();
        result.partitions =
            topic.partitions.iter().map(|partition| one(node, context, name, partition)).collect();
        result.topic = topic.topic.clone();
        response.topics.push(result);
    }
    response
}

fn one(node: &Node, context: &Context, topic: &str, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let mut result = EpochEndOffset::default();
    result.partition = asked.partition;
    match find(node, context, topic, asked) {
        Ok(end) => (result.leader_epoch, result.end_offset) = (end.epoch, end.end),
        Err(code) => {
            result.error_code = code.number();
            (result.leader_epoch, result.end_offset) = (-1, -1);
        }
    }
    result
}

fn find(
    node: &Node,
    context: &Context,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<EpochEnd, ErrorCode> {
    authorize(context, Operation::Describe, Resource::Topic(topic))?;
    let image = node.backend.image();
    let topic = TopicRef::Name(topic.to_owned()).find(&image)?;
    let served = partitions::find(node, topic, asked.partition)?;
    partitions::check_epoch(&served.view, asked.current_leader_epoch)?;
    served.whole()?;
    Ok(partitions::epoch_end(&served.view, asked.leader_epoch))
}
