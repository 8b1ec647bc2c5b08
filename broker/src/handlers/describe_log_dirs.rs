//! DescribeLogDirs: what partitions take on this node. It has one directory.

use varve_protocol::messages::{
    DescribeLogDirsRequest, DescribeLogDirsResponse, StrBytes,
    describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic},
};
use varve_replica::PartitionView;

use super::{
    access::{Operation, Resource, authorize},
    partitions,
};
use crate::{net::Context, node::Node};

/// From this version on the answer has an error of its own.
const ERROR_FROM: i16 = 3;
/// From this version on it tells of the file system.
const SPACE_FROM: i16 = 4;

pub fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: &DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let mut response = DescribeLogDirsResponse::default();
    if let Err(code) = authorize(context, Operation::Describe, Resource::Cluster) {
        if version >= ERROR_FROM {
            response.error_code = code.number();
        }
        return response;
    }
    let image = node.backend.image();
    let directory = node.backend.directory();
    let mut result = DescribeLogDirsResult::default();
    result.log_dir = StrBytes::from(directory.path);
    if version >= SPACE_FROM {
        (result.total_bytes, result.usable_bytes) = (wire(directory.total_bytes), wire(directory.free_bytes));
    }
    let asked = request.topics.as_ref();
    let asked = asked.map(|asked| asked.iter().map(|topic| (topic.topic.as_str(), &topic.partitions)));
    let held = partitions::tell(&image, asked, |index, at| Some(held(index, &*node.view(at.group)?)));
    for (name, partitions) in held {
        let mut told = DescribeLogDirsTopic::default();
        (told.name, told.partitions) = (name.into(), partitions);
        result.topics.push(told);
    }
    response.results = vec![result];
    response
}

fn held(index: i32, view: &PartitionView) -> DescribeLogDirsPartition {
    let mut told = DescribeLogDirsPartition::default();
    told.partition_index = index;
    let sealed: u64 = view.seals.iter().map(|seal| seal.bytes).sum();
    let is_sealed = |base| view.seals.iter().any(|seal| seal.base == base);
    let rolled: u64 = view.rolls.iter().filter(|roll| !is_sealed(roll.base)).map(|roll| roll.bytes).sum();
    told.partition_size = wire(sealed + rolled + view.open.bytes);
    told.offset_lag = wire(view.high_watermark.0.saturating_sub(view.log_end.0));
    told
}

fn wire(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
