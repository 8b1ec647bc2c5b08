//! AlterReplicaLogDirs: a node has one directory. What is there may be "moved" there, and nothing anywhere else.

use varve_protocol::{
    ErrorCode,
    messages::{
        AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse,
        alter_replica_log_dirs_response::{AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult},
    },
};

use super::{
    access::{Operation, Resource, authorize},
    partitions::TopicRef,
};
use crate::{net::Context, node::Node};

pub fn answer(
    node: &Node,
    context: &Context,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let allowed = authorize(context, Operation::Alter, Resource::Cluster);
    let own = node.backend.directory().path;
    let mut response = AlterReplicaLogDirsResponse::default();
    for directory in request.dirs {
        let is_own = directory.path.as_str() == own;
        for topic in directory.topics {
            let one = |index: &i32| {
                let mut result = AlterReplicaLogDirPartitionResult::default();
                result.partition_index = *index;
                let moved = allowed.and_then(|()| place(node, is_own, topic.name.as_str(), *index));
                result.error_code = moved.err().unwrap_or(ErrorCode::None).number();
                result
            };
            let mut result = AlterReplicaLogDirTopicResult::default();
            result.partitions = topic.partitions.iter().map(one).collect();
            result.topic_name = topic.name;
            response.results.push(result);
        }
    }
    response
}

fn place(node: &Node, is_own: bool, topic: &str, index: i32) -> Result<(), ErrorCode> {
    if !is_own {
        return Err(ErrorCode::LogDirNotFound);
    }
    let image = node.backend.image();
    let topic = TopicRef::Name(topic.to_owned()).find(&image)?;
    let partition = usize::try_from(index).ok().and_then(|index| topic.partitions.get(index));
    let group = partition.ok_or(ErrorCode::UnknownTopicOrPartition)?.group;
    node.backend.watch(group).map(drop).ok_or(ErrorCode::ReplicaNotAvailable)
}
