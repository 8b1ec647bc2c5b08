//! Who leads instead (KIP-951): where a partition answers that its client has the wrong leader or an old epoch, Produce
//! and Fetch name the right one with its address, and the client goes there without asking for metadata first.
//!
//! All of it is tagged fields: older versions have no room for them, and clients that do not know them skip them.

use varve_common::TopicId;
use varve_protocol::{
    ErrorCode,
    messages::{FetchResponse, ProduceResponse, StrBytes, Uuid, fetch_response, produce_response},
};

use super::{
    brokers::{self, Endpoint, wire_id},
    partitions::TopicRef,
};
use crate::{net::Context, node::Node};

/// From these versions on the answers have room for it.
const PRODUCE_FROM: i16 = 10;
const FETCH_FROM: i16 = 16;

/// Names leaders in a Produce answer.
pub fn tell_in_produce(node: &Node, context: &Context, version: i16, response: &mut ProduceResponse) {
    if version < PRODUCE_FROM {
        return;
    }
    let mut leaders = Leaders::of(node, context);
    for topic in &mut response.responses {
        for partition in topic.partition_responses.iter_mut().filter(|at| moved(at.error_code)) {
            let name = reference(&topic.name, topic.topic_id);
            let Some((id, epoch)) = leaders.find(&name, partition.index) else { continue };
            (partition.current_leader.leader_id, partition.current_leader.leader_epoch) = (id, epoch);
        }
    }
    let endpoint = |from: Endpoint| {
        let mut endpoint = produce_response::NodeEndpoint::default();
        (endpoint.node_id, endpoint.host, endpoint.port) = (from.id, from.host.into(), from.port);
        endpoint.rack = from.rack.map(StrBytes::from);
        endpoint
    };
    response.node_endpoints = leaders.named.into_iter().map(endpoint).collect();
}

/// Names leaders in a Fetch answer.
pub fn tell_in_fetch(node: &Node, context: &Context, version: i16, response: &mut FetchResponse) {
    if version < FETCH_FROM {
        return;
    }
    let mut leaders = Leaders::of(node, context);
    for topic in &mut response.responses {
        for partition in topic.partitions.iter_mut().filter(|at| moved(at.error_code)) {
            let name = reference(&topic.topic, topic.topic_id);
            let Some((id, epoch)) = leaders.find(&name, partition.partition_index) else { continue };
            (partition.current_leader.leader_id, partition.current_leader.leader_epoch) = (id, epoch);
        }
    }
    let endpoint = |from: Endpoint| {
        let mut endpoint = fetch_response::NodeEndpoint::default();
        (endpoint.node_id, endpoint.host, endpoint.port) = (from.id, from.host.into(), from.port);
        endpoint.rack = from.rack.map(StrBytes::from);
        endpoint
    };
    response.node_endpoints = leaders.named.into_iter().map(endpoint).collect();
}

const fn moved(error: i16) -> bool {
    error == ErrorCode::NotLeaderOrFollower.number() || error == ErrorCode::FencedLeaderEpoch.number()
}

fn reference(name: &StrBytes, id: Uuid) -> TopicRef {
    if name.is_empty() {
        TopicRef::Id(TopicId(id.to_bytes()))
    } else {
        TopicRef::Name(name.as_str().to_owned())
    }
}

/// The leaders that one answer names.
struct Leaders<'a> {
    node: &'a Node,
    context: &'a Context,
    named: Vec<Endpoint>,
}

impl<'a> Leaders<'a> {
    const fn of(node: &'a Node, context: &'a Context) -> Self {
        Self { node, context, named: Vec::new() }
    }

    /// Who leads a partition, and in which epoch. Nobody whom the client could not reach, and this node only where it
    /// serves: a client that comes back sooner than that would hear the same again.
    fn find(&mut self, topic: &TopicRef, partition: i32) -> Option<(i32, i32)> {
        let image = self.node.backend.image();
        let topic = topic.find(&image).ok()?;
        let group = topic.partitions.get(usize::try_from(partition).ok()?)?.group;
        let known = self.node.backend.leadership(group)?;
        let leader = known.leader.node();
        let id = wire_id(leader.get());
        if self.named.iter().all(|endpoint| endpoint.id != id) {
            let mut endpoints = brokers::endpoints(self.node, self.context).into_iter();
            self.named.push(endpoints.find(|endpoint| endpoint.id == id)?);
        }
        Some((id, known.epoch.0))
    }
}
