//! DescribeQuorum: who leads a group, and how far its replicas are. Kafka answers for the metadata alone; here every
//! partition has such a group, and any node answers for all of them.
//!
//! Offsets are indexes of the group's log: an entry is a batch of records, or a command. Kafka's own tool reads them so.

use std::collections::BTreeMap;

use varve_common::GroupId;
use varve_protocol::{
    ErrorCode, METADATA_TOPIC,
    messages::{
        DescribeQuorumRequest, DescribeQuorumResponse,
        describe_quorum_response::{Listener, Node as QuorumNode, PartitionData, ReplicaState, TopicData},
    },
};
use varve_replica::metadata;

use super::{
    access::{Operation, Resource, authorize},
    brokers::{self, Endpoint, wire_id},
};
use crate::{
    controller::progress::{Member, Progress},
    net::Context,
    node::Node,
};

/// From this version on a partition says what is wrong with it in words, and replicas when they were heard of.
const NODES_FROM: i16 = 2;

pub async fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let mut response = DescribeQuorumResponse::default();
    if let Err(code) = authorize(context, Operation::Describe, Resource::Cluster) {
        response.error_code = code.number();
        return response;
    }
    let image = node.backend.image();
    let asked = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().filter_map(|at| group_of(&image, &topic.topic_name, at.partition_index))
    });
    let told = node.backend.progress(asked.collect()).await;
    let told: BTreeMap<GroupId, Progress> = told.into_iter().map(|one| (one.group, one)).collect();
    let now_ms = node.clock.wall_ms();
    for topic in request.topics {
        let partition = |index: i32| match group_of(&image, &topic.topic_name, index) {
            None => refused(index, ErrorCode::UnknownTopicOrPartition),
            Some(group) => told.get(&group).map_or_else(
                || refused(index, ErrorCode::LeaderNotAvailable),
                |progress| partition(index, version, progress, now_ms),
            ),
        };
        let mut data = TopicData::default();
        data.partitions = topic.partitions.iter().map(|at| partition(at.partition_index)).collect();
        data.topic_name = topic.topic_name;
        response.topics.push(data);
    }
    if version >= NODES_FROM {
        let endpoints = brokers::registered(node, context);
        response.nodes = endpoints.into_iter().map(|endpoint| described(endpoint, context)).collect();
    }
    response
}

/// The group behind a name.
pub fn group_of(image: &metadata::Image, topic: &str, partition: i32) -> Option<GroupId> {
    if topic == METADATA_TOPIC {
        return (partition == 0).then_some(GroupId::METADATA);
    }
    let place = usize::try_from(partition).ok()?;
    Some(image.topic_by_name(topic)?.partitions.get(place)?.group)
}

fn refused(index: i32, code: ErrorCode) -> PartitionData {
    let mut data = PartitionData::default();
    (data.partition_index, data.error_code) = (index, code.number());
    (data.leader_id, data.leader_epoch, data.high_watermark) = (-1, -1, -1);
    data
}

fn partition(index: i32, version: i16, progress: &Progress, now_ms: i64) -> PartitionData {
    let mut data = PartitionData::default();
    data.partition_index = index;
    data.leader_id = wire_id(progress.leader.node().get());
    data.leader_epoch = progress.term.leader_epoch().0;
    data.high_watermark = wire_index(progress.commit.0);
    let states = |votes: bool| {
        let members = progress.members.iter().filter(move |member| member.votes == votes);
        members.map(|member| state(member, version, progress, now_ms)).collect()
    };
    (data.current_voters, data.observers) = (states(true), states(false));
    data
}

fn state(member: &Member, version: i16, progress: &Progress, now_ms: i64) -> ReplicaState {
    let mut state = ReplicaState::default();
    state.replica_id = wire_id(member.replica.node().get());
    state.log_end_offset = wire_index(member.matched.0);
    if version >= 1 {
        // Leaders push: nobody fetches. Who has everything had it now; when another had is not kept.
        let has_all = member.replica == progress.leader || member.matched >= progress.last;
        let heard_ms = if has_all { now_ms } else { -1 };
        (state.last_fetch_timestamp, state.last_caught_up_timestamp) = (heard_ms, heard_ms);
    }
    state
}

fn wire_index(index: u64) -> i64 {
    i64::try_from(index).expect("no log has so many entries")
}

fn described(endpoint: Endpoint, context: &Context) -> QuorumNode {
    let mut listener = Listener::default();
    // Kafka's own client takes no other letters here.
    listener.name = context.listener.to_uppercase().into();
    listener.port = u16::try_from(endpoint.port).expect("ports are made of 16 bits");
    listener.host = endpoint.host.into();
    let mut node = QuorumNode::default();
    (node.node_id, node.listeners) = (endpoint.id, vec![listener]);
    node
}
