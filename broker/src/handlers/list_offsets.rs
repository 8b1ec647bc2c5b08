//! ListOffsets: an offset by timestamp, or by one of the names that stand for one.

use std::{collections::BTreeSet, sync::Arc};

use varve_common::Offset;
use varve_protocol::{
    ErrorCode,
    messages::{
        ListOffsetsRequest, ListOffsetsResponse,
        list_offsets_request::ListOffsetsPartition,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    },
};
use varve_replica::PartitionView;

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
    partitions::{self, Served, TopicRef, epoch_at},
};
use crate::{net::Context, node::Node};

/// What stands for an offset in the place of a timestamp, and the version from which it may.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: (i64, i16) = (-3, 7);
const EARLIEST_LOCAL: (i64, i16) = (-4, 8);
const LATEST_TIERED: (i64, i16) = (-5, 9);
const EARLIEST_PENDING_UPLOAD: (i64, i16) = (-6, 11);

const READ_COMMITTED: i8 = 1;

/// What is asked of every partition.
struct Question<'a> {
    node: &'a Node,
    context: &'a Context,
    version: i16,
    read_committed: bool,
}

/// An offset with its timestamp (-1: none) and its epoch.
struct Place {
    offset: i64,
    timestamp: i64,
    epoch: i32,
}

pub async fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let question =
        Question { node, context, version, read_committed: request.isolation_level == READ_COMMITTED };
    let mut response = ListOffsetsResponse::default();
    let twice = twice(&request);
    for topic in &request.topics {
        let mut result = ListOffsetsTopicResponse::default();
        for partition in &topic.partitions {
            let twice = twice.contains(&(topic.name.as_str(), partition.partition_index));
            let answer = if twice {
                refused(partition, ErrorCode::InvalidRequest)
            } else {
                question.ask(topic.name.as_str(), partition).await
            };
            result.partitions.push(answer);
        }
        result.name = topic.name.clone();
        response.topics.push(result);
    }
    response
}

/// What the request names more than once: such a partition is not answered, as in Kafka.
fn twice(request: &ListOffsetsRequest) -> BTreeSet<(&str, i32)> {
    let mut seen = BTreeSet::new();
    let named = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| (topic.name.as_str(), partition.partition_index))
    });
    named.filter(|place| !seen.insert(*place)).collect()
}

fn refused(asked: &ListOffsetsPartition, code: ErrorCode) -> ListOffsetsPartitionResponse {
    let mut result = ListOffsetsPartitionResponse::default();
    result.partition_index = asked.partition_index;
    result.error_code = code.number();
    (result.offset, result.timestamp) = (-1, -1);
    result
}

impl Question<'_> {
    async fn ask(&self, topic: &str, asked: &ListOffsetsPartition) -> ListOffsetsPartitionResponse {
        match self.find(topic, asked).await {
            Ok(place) => {
                let mut result = ListOffsetsPartitionResponse::default();
                result.partition_index = asked.partition_index;
                result.offset = place.offset;
                result.timestamp = place.timestamp;
                // The field came with version 4; before, its default must stay.
                if self.version >= 4 {
                    result.leader_epoch = place.epoch;
                }
                result
            }
            Err(code) => refused(asked, code),
        }
    }

    async fn find(&self, topic: &str, asked: &ListOffsetsPartition) -> Result<Place, ErrorCode> {
        authorize(self.context, Operation::Describe, Resource::Topic(topic))?;
        let image = self.node.backend.image();
        let topic = TopicRef::Name(topic.to_owned()).find(&image)?;
        let mut served = partitions::find(self.node, topic, asked.partition_index)?;
        let ends = asked.timestamp == LATEST || asked.timestamp == MAX_TIMESTAMP.0;
        if ends && !served.is_damaged {
            self.confirm(&mut served).await?;
        }
        partitions::check_epoch(&served.view, asked.current_leader_epoch)?;
        let view = &served.view;
        let since =
            |version: i16| if self.version >= version { Ok(()) } else { Err(ErrorCode::UnsupportedVersion) };
        match asked.timestamp {
            LATEST => served.whole().map(|()| named(view, self.end(view))),
            EARLIEST => Ok(named(view, view.log_start)),
            special if special == MAX_TIMESTAMP.0 => {
                since(MAX_TIMESTAMP.1)?;
                served.whole()?;
                self.max_timestamp(&served).await
            }
            special if special == EARLIEST_LOCAL.0 => {
                since(EARLIEST_LOCAL.1)?;
                Ok(named(view, view.local_start.max(view.log_start)))
            }
            special if special == LATEST_TIERED.0 => {
                since(LATEST_TIERED.1)?;
                Ok(latest_tiered(view))
            }
            special if special == EARLIEST_PENDING_UPLOAD.0 => {
                since(EARLIEST_PENDING_UPLOAD.1)?;
                // Where nothing is uploaded nothing waits for it.
                let tiers = self.node.effective(topic).switch("remote.storage.enable");
                Ok(if tiers { named(view, view.tiered_end.max(view.log_start)) } else { nowhere() })
            }
            timestamp if timestamp < 0 => Err(ErrorCode::UnsupportedVersion),
            timestamp => self.at(&served, timestamp).await,
        }
    }

    fn end(&self, view: &PartitionView) -> Offset {
        if self.read_committed { view.last_stable_offset } else { view.high_watermark }
    }

    /// Who was deposed and has not heard of it must not say where the log ends (RAFT.md 6).
    async fn confirm(&self, served: &mut Served) -> Result<(), ErrorCode> {
        if !self.node.backend.confirm(served.group).await {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        served.view = Arc::clone(&served.changes.borrow());
        Ok(())
    }

    async fn max_timestamp(&self, served: &Served) -> Result<Place, ErrorCode> {
        let found = self.node.backend.find_max_timestamp(served.group).await.map_err(|error| error.code())?;
        Ok(found.map_or_else(nowhere, |found| found_at(&served.view, found)))
    }

    async fn at(&self, served: &Served, timestamp: i64) -> Result<Place, ErrorCode> {
        let found =
            self.node.backend.find_timestamp(served.group, timestamp).await.map_err(|error| error.code())?;
        let visible = found.filter(|found| found.offset < self.end(&served.view));
        match visible {
            Some(found) => Ok(found_at(&served.view, found)),
            // It may have been among what is lost.
            None => served.whole().map(|()| nowhere()),
        }
    }
}

fn named(view: &PartitionView, offset: Offset) -> Place {
    // An end lies behind the last record: it belongs to the epoch that would write there.
    let epoch = if offset >= view.log_end { view.leader_epoch.0 } else { epoch_at(view, offset) };
    Place { offset: offset.to_wire(), timestamp: -1, epoch }
}

fn latest_tiered(view: &PartitionView) -> Place {
    match view.tiered_end.0.checked_sub(1) {
        Some(last) if Offset(last) >= view.log_start => named(view, Offset(last)),
        _ => nowhere(),
    }
}

fn found_at(view: &PartitionView, found: crate::node::Found) -> Place {
    Place { offset: found.offset.to_wire(), timestamp: found.timestamp, epoch: epoch_at(view, found.offset) }
}

const fn nowhere() -> Place {
    Place { offset: -1, timestamp: -1, epoch: -1 }
}
