//! OffsetCommit: answered once the offsets are committed by a quorum.

use varve_common::TopicId;
use varve_protocol::{
    ErrorCode,
    messages::{
        OffsetCommitRequest, OffsetCommitResponse, StrBytes,
        offset_commit_request::OffsetCommitRequestTopic,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
    },
};
use varve_replica::{
    coordinator::{Answer, Commit, CommitPartition, GroupError, MemberRef, Request},
    metadata::Topic,
};

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
    groups,
    partitions::TopicRef,
};
use crate::{net::Context, node::Node};

/// From this version on topics are named by id.
const IDS_FROM: i16 = 10;
/// From this version on a group that is not there is told as such.
const NOT_FOUND_FROM: i16 = 9;
/// Until this version clients say how long offsets are to stay; -1: as long as the broker keeps them.
const RETENTION_UNTIL: i16 = 4;

pub async fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let refused = authorize(context, Operation::Read, Resource::Group(&request.group_id)).err();
    let (mut response, partitions) = checked(node, context, version, &request.topics, refused);
    if partitions.is_empty() {
        return response;
    }
    let group = request.group_id.into_string();
    let commit = Commit {
        group: group.clone(),
        member: MemberRef {
            id: request.member_id.into_string(),
            instance: request.group_instance_id.map(StrBytes::into_string),
        },
        generation: request.generation_id_or_member_epoch,
        retention_ms: (version <= RETENTION_UNTIL && request.retention_time_ms >= 0)
            .then_some(request.retention_time_ms),
        partitions,
    };
    let outcome = groups::ask(node, &group, Request::Commit(commit)).await;
    // Those that were refused here have their code; the others take theirs in the same order.
    let topics = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    let open = topics.filter(|partition| partition.error_code == ErrorCode::None.number());
    match outcome {
        Ok(Answer::Committed(outcomes)) => open.zip(outcomes).for_each(|(partition, outcome)| {
            partition.error_code = outcome.map_or_else(|error| error.code(), |()| ErrorCode::None).number();
        }),
        Ok(answer) => {
            let code = groups::unexpected(&answer).number();
            open.for_each(|partition| partition.error_code = code);
        }
        Err(error) => {
            let code = whole(&error, version).number();
            open.for_each(|partition| partition.error_code = code);
        }
    }
    response
}

/// Where there is no room clients are told what they know of commits.
fn whole(error: &GroupError, version: i16) -> ErrorCode {
    match error {
        GroupError::TooMany | GroupError::TooLarge => ErrorCode::InvalidCommitOffsetSize,
        // A group that is not there has no generation that the client could be in.
        GroupError::NotFound if version < NOT_FOUND_FROM => ErrorCode::IllegalGeneration,
        error => error.code(),
    }
}

/// The answer with what is refused here, and what goes to the coordinator.
fn checked(
    node: &Node,
    context: &Context,
    version: i16,
    topics: &[OffsetCommitRequestTopic],
    refused: Option<ErrorCode>,
) -> (OffsetCommitResponse, Vec<CommitPartition>) {
    let image = node.backend.image();
    let mut response = OffsetCommitResponse::default();
    let mut taken = Vec::new();
    for asked in topics {
        let reference = if version >= IDS_FROM {
            TopicRef::Id(TopicId(asked.topic_id.to_bytes()))
        } else {
            TopicRef::Name(asked.name.as_str().to_owned())
        };
        let topic = match refused {
            Some(code) => Err(code),
            None => reference.find(&image).and_then(|topic| {
                authorize(context, Operation::Read, Resource::Topic(&topic.name)).map(|()| topic)
            }),
        };
        let mut result = OffsetCommitResponseTopic::default();
        (result.name, result.topic_id) = (asked.name.clone(), asked.topic_id);
        for partition in &asked.partitions {
            let mut answer = OffsetCommitResponsePartition::default();
            answer.partition_index = partition.partition_index;
            match topic.and_then(|topic| find(topic, partition.partition_index)) {
                Ok(topic) => taken.push(CommitPartition {
                    topic: topic.name.to_string(),
                    topic_id: topic.id,
                    partition: partition.partition_index,
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata.as_deref().unwrap_or_default().to_owned(),
                }),
                Err(code) => answer.error_code = code.number(),
            }
            result.partitions.push(answer);
        }
        response.topics.push(result);
    }
    (response, taken)
}

fn find(topic: &Topic, partition: i32) -> Result<&Topic, ErrorCode> {
    let is_there = usize::try_from(partition).is_ok_and(|index| index < topic.partitions.len());
    if is_there { Ok(topic) } else { Err(ErrorCode::UnknownTopicOrPartition) }
}
