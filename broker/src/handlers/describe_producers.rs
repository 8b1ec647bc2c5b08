//! DescribeProducers: what a replica here knows of those who write to partitions with idempotence.

use std::{collections::BTreeSet, sync::Arc};

use varve_formats::state::ProducerEntry;
use varve_protocol::{
    ErrorCode,
    messages::{
        DescribeProducersRequest, DescribeProducersResponse, StrBytes,
        describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
    },
};

use varve_replica::partition::Producers;

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
    partitions::TopicRef,
};
use crate::{net::Context, node::Node};

/// On the wire: there is none.
const NONE: i32 = -1;

pub async fn answer(
    node: &Node,
    context: &Context,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let mut response = DescribeProducersResponse::default();
    for asked in request.topics {
        let mut topic = TopicResponse::default();
        // Each once, one after the other: a table may be large, and a request may name it many times.
        let indexes: BTreeSet<i32> = asked.partition_indexes.into_iter().collect();
        for index in indexes {
            topic.partitions.push(partition(node, context, &asked.name, index).await);
        }
        topic.name = asked.name;
        response.topics.push(topic);
    }
    response
}

async fn partition(node: &Node, context: &Context, topic: &StrBytes, index: i32) -> PartitionResponse {
    let mut response = PartitionResponse::default();
    response.partition_index = index;
    match producers(node, context, topic.as_str(), index).await {
        Ok(producers) => response.active_producers = producers.values().map(state).collect(),
        Err(code) => {
            (response.error_code, response.error_message) = (code.number(), Some(code.name().into()));
        }
    }
    response
}

async fn producers(
    node: &Node,
    context: &Context,
    topic: &str,
    index: i32,
) -> Result<Arc<Producers>, ErrorCode> {
    authorize(context, Operation::Read, Resource::Topic(topic))?;
    let image = node.backend.image();
    let topic = TopicRef::Name(topic.to_owned()).find(&image)?;
    let index = usize::try_from(index).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
    let partition = topic.partitions.get(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    node.backend.producers(partition.group).await.map_err(|refusal| refusal.code())
}

fn state(producer: &ProducerEntry) -> ProducerState {
    let mut state = ProducerState::default();
    state.producer_id = producer.producer_id;
    state.producer_epoch = i32::from(producer.epoch);
    state.last_sequence = producer.batches.last().map_or(NONE, |batch| batch.last_sequence);
    state.last_timestamp = producer.last_timestamp;
    state.coordinator_epoch = producer.coordinator_epoch;
    state.current_txn_start_offset =
        producer.transaction_first.map_or(i64::from(NONE), |first| first.to_wire());
    state
}
