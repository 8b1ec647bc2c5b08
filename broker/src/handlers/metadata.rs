//! Metadata: brokers, topics, leaders; asking for a topic may create it.

use std::collections::BTreeSet;

use varve_common::TopicId;
use varve_protocol::{
    ErrorCode,
    messages::{
        MetadataRequest, MetadataResponse, StrBytes, Uuid,
        metadata_request::MetadataRequestTopic,
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
};
use varve_replica::metadata::{MetadataRejected, Partition, Topic};

use super::{
    access::{self, Operation, Resource, authorize},
    brokers::{self, wire_id},
    errors::Coded as _,
    partitions::TopicRef,
    topics::{self, Wish},
};
use crate::{
    net::Context,
    node::{MetadataRefusal, Node},
};

/// Before this version an empty list asks for all topics; from it on `null` does.
const NULL_IS_ALL_FROM: i16 = 1;
/// Before this version topics are asked for by name only, and answered so: the name in the answer cannot be null.
const IDS_FROM: i16 = 12;
/// Before this version a client cannot say that it does not want topics created.
const MAY_REFUSE_CREATION_FROM: i16 = 4;

pub async fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: MetadataRequest,
) -> MetadataResponse {
    let may_create = request.allow_auto_topic_creation || version < MAY_REFUSE_CREATION_FROM;
    let topics = match request.topics {
        Some(topics) if version >= NULL_IS_ALL_FROM || !topics.is_empty() => {
            named(node, context, version, topics, may_create).await
        }
        _ => all(node, context),
    };
    let mut response = MetadataResponse::default();
    response.brokers = brokers::endpoints(node, context).into_iter().map(broker).collect();
    response.cluster_id = Some(node.backend.image().cluster.to_string().into());
    response.controller_id = brokers::controller(node);
    response.topics = topics;
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = access::cluster_operations(context);
    }
    if request.include_topic_authorized_operations {
        tell_operations(context, &mut response.topics);
    }
    response
}

fn tell_operations(context: &Context, topics: &mut [MetadataResponseTopic]) {
    for topic in topics {
        if let (Some(name), 0) = (&topic.name, topic.error_code) {
            topic.topic_authorized_operations = access::topic_operations(context, name.as_str());
        }
    }
}

fn broker(endpoint: brokers::Endpoint) -> MetadataResponseBroker {
    let mut broker = MetadataResponseBroker::default();
    broker.node_id = endpoint.id;
    broker.host = endpoint.host.into();
    broker.port = endpoint.port;
    broker.rack = endpoint.rack.map(StrBytes::from);
    broker
}

fn all(node: &Node, context: &Context) -> Vec<MetadataResponseTopic> {
    let image = node.backend.image();
    let visible = |topic: &&std::sync::Arc<Topic>| {
        authorize(context, Operation::Describe, Resource::Topic(&topic.name)).is_ok()
    };
    let by_name = image.names.values().filter_map(|id| image.topic(*id));
    by_name.filter(visible).map(|topic| described(node, topic)).collect()
}

async fn named(
    node: &Node,
    context: &Context,
    version: i16,
    asked: Vec<MetadataRequestTopic>,
    may_create: bool,
) -> Vec<MetadataResponseTopic> {
    // Versions 10 and 11 have room for ids and null names, but only for answers: Kafka refuses all of such a request.
    if version < IDS_FROM && asked.iter().any(|topic| topic.name.is_none() || !topic.topic_id.is_zero()) {
        return asked.into_iter().map(invalid).collect();
    }
    let mut topics = Vec::with_capacity(asked.len());
    let mut seen = BTreeSet::new();
    for topic in asked {
        let reference = match topic.name {
            Some(name) if topic.topic_id.is_zero() => TopicRef::Name(name.into_string()),
            _ => TopicRef::Id(TopicId(topic.topic_id.to_bytes())),
        };
        // A topic that stands twice is answered once.
        if seen.insert(reference.clone()) {
            let answer = one(node, context, &reference, may_create).await;
            topics.push(answer.unwrap_or_else(|code| unknown(&reference, code)));
        }
    }
    topics
}

fn invalid(asked: MetadataRequestTopic) -> MetadataResponseTopic {
    let mut response = MetadataResponseTopic::default();
    response.error_code = ErrorCode::InvalidRequest.number();
    response.name = Some(asked.name.unwrap_or_default());
    response.topic_id = asked.topic_id;
    response
}

async fn one(
    node: &Node,
    context: &Context,
    reference: &TopicRef,
    may_create: bool,
) -> Result<MetadataResponseTopic, ErrorCode> {
    if let TopicRef::Name(name) = reference {
        topics::check_name(name).map_err(|refusal| refusal.code())?;
        authorize(context, Operation::Describe, Resource::Topic(name))?;
    }
    if let Ok(topic) = reference.find(&node.backend.image()) {
        authorize(context, Operation::Describe, Resource::Topic(&topic.name))?;
        return Ok(described(node, topic));
    }
    match reference {
        TopicRef::Name(name) if may_create && node.creation.auto_create => {
            create(node, context, name).await?
        }
        _ => {}
    }
    reference.find(&node.backend.image()).map(|topic| described(node, topic))
}

async fn create(node: &Node, context: &Context, name: &str) -> Result<(), ErrorCode> {
    authorize(context, Operation::Create, Resource::Topic(name))?;
    let created = match topics::plan(node, &Wish::automatic(name)) {
        Ok(topic) => node.backend.create_topic(topic).await.map_err(topics::TopicRefusal::from),
        Err(refusal) => Err(refusal),
    };
    match created {
        // Somebody else was first: that is as good.
        Ok(())
        | Err(topics::TopicRefusal::Metadata(MetadataRefusal::Rejected(MetadataRejected::TopicExists {
            ..
        }))) => Ok(()),
        Err(refusal) => Err(refusal.code()),
    }
}

fn unknown(reference: &TopicRef, code: ErrorCode) -> MetadataResponseTopic {
    let mut response = MetadataResponseTopic::default();
    response.error_code = code.number();
    match reference {
        TopicRef::Name(name) => response.name = Some(name.as_str().into()),
        TopicRef::Id(id) => {
            response.name = None;
            response.topic_id = Uuid::from_bytes(id.0);
        }
    }
    response
}

fn described(node: &Node, topic: &Topic) -> MetadataResponseTopic {
    let mut response = MetadataResponseTopic::default();
    response.name = Some((&*topic.name).into());
    response.topic_id = Uuid::from_bytes(topic.id.0);
    response.partitions =
        (0..).zip(&topic.partitions).map(|(index, at)| partition(node, index, at)).collect();
    response
}

fn partition(node: &Node, index: i32, partition: &Partition) -> MetadataResponsePartition {
    let mut response = MetadataResponsePartition::default();
    let nodes: Vec<i32> = partition.replicas.iter().map(|replica| wire_id(replica.node().get())).collect();
    let view = node.view(partition.group).filter(|view| view.ready);
    response.partition_index = index;
    match view.and_then(|view| view.leader.map(|leader| (leader, view.leader_epoch))) {
        Some((leader, epoch)) => {
            response.leader_id = wire_id(leader.node().get());
            response.leader_epoch = epoch.0;
            response.isr_nodes = nodes.clone();
        }
        // Its clients are sent here, to be told that it is damaged: nobody else could tell them.
        None if node.backend.damage(partition.group).is_some() => {
            response.leader_id = wire_id(node.id.get());
        }
        None => {
            response.error_code = ErrorCode::LeaderNotAvailable.number();
            response.leader_id = -1;
        }
    }
    response.replica_nodes = nodes;
    response
}
