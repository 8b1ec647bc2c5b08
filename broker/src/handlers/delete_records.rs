//! DeleteRecords: moves the first offset of partitions forward. What lies below is gone for every reader at once, and from
//! disk and bucket later.

use std::time::Duration;

use futures_util::future::join_all;
use varve_common::{Monotonic, Offset};
use varve_protocol::{
    ErrorCode,
    messages::{
        DeleteRecordsRequest, DeleteRecordsResponse,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
    },
};
use varve_replica::Refusal;

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
    partitions::{self, TopicRef},
};
use crate::{net::Context, node::Node};

/// On the wire: up to the high watermark.
const HIGH_WATERMARK: i64 = -1;
/// On the wire: no low watermark, because of an error.
const NO_LOW_WATERMARK: i64 = -1;
/// How long a partition is left alone whose manifest is being changed by somebody else.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// The longest wait, whatever the client asks.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub async fn answer(node: &Node, context: &Context, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let wait = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)).min(WAIT_MAX);
    let deadline = node.clock.monotonic().plus(wait);
    let mut response = DeleteRecordsResponse::default();
    response.topics =
        join_all(request.topics.iter().map(|topic| of_topic(node, context, deadline, topic))).await;
    response
}

async fn of_topic(
    node: &Node,
    context: &Context,
    deadline: Monotonic,
    asked: &DeleteRecordsTopic,
) -> DeleteRecordsTopicResult {
    let mut result = DeleteRecordsTopicResult::default();
    result.name = asked.name.clone();
    let one = |partition| of_partition(node, context, deadline, asked.name.as_str(), partition);
    result.partitions = join_all(asked.partitions.iter().map(one)).await;
    result
}

async fn of_partition(
    node: &Node,
    context: &Context,
    deadline: Monotonic,
    topic: &str,
    asked: &DeleteRecordsPartition,
) -> DeleteRecordsPartitionResult {
    let mut result = DeleteRecordsPartitionResult::default();
    result.partition_index = asked.partition_index;
    match delete(node, context, deadline, topic, asked).await {
        Ok(low_watermark) => result.low_watermark = low_watermark.to_wire(),
        Err(code) => {
            result.low_watermark = NO_LOW_WATERMARK;
            result.error_code = code.number();
        }
    }
    result
}

async fn delete(
    node: &Node,
    context: &Context,
    deadline: Monotonic,
    topic: &str,
    asked: &DeleteRecordsPartition,
) -> Result<Offset, ErrorCode> {
    authorize(context, Operation::Delete, Resource::Topic(topic))?;
    let image = node.backend.image();
    let topic = TopicRef::Name(topic.to_owned()).find(&image)?;
    let served = partitions::find(node, topic, asked.partition_index)?;
    // A compacted topic forgets by key: its oldest record may be the only one of its key.
    if !node.effective(topic).holds("cleanup.policy", "delete") {
        return Err(ErrorCode::PolicyViolation);
    }
    let before = match asked.offset {
        HIGH_WATERMARK => None,
        offset => Some(Offset::from_wire(offset).ok_or(ErrorCode::OffsetOutOfRange)?),
    };
    loop {
        match node.backend.delete_records(served.group, before).await {
            // Another change of the manifest is on its way, for a few milliseconds.
            Err(Refusal::Throttled) if node.clock.monotonic() < deadline => {
                node.clock.sleep(RETRY_PAUSE).await;
            }
            done => return done.map_err(|refusal| refusal.code()),
        }
    }
}
