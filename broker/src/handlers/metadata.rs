//! Metadata: brokers, topics, leaders; asking for a topic may create it.

use std::collections::BTreeSet;

use varve_common::{NodeId, ReplicaId, TopicId};
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
    brokers::{self, Endpoint, wire_id},
    errors::Coded as _,
    groups,
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
/// Before this version a leader without an address for the client is one that is not there.
const LISTENER_NOT_FOUND_FROM: i16 = 6;
/// Before this version a client cannot say that it does not want topics created.
const MAY_REFUSE_CREATION_FROM: i16 = 4;

/// Who asks what, and whom the answer can send it to.
struct Asked<'a> {
    node: &'a Node,
    context: &'a Context,
    version: i16,
    endpoints: &'a [Endpoint],
}

impl Asked<'_> {
    /// Whether the client finds a leader's address in the answer.
    fn reaches(&self, leader: NodeId) -> Result<(), ErrorCode> {
        let id = wire_id(leader.get());
        if self.endpoints.iter().any(|endpoint| endpoint.id == id) {
            return Ok(());
        }
        // It lives, and clients of this listener do not know where.
        let nowhere = self.version >= LISTENER_NOT_FOUND_FROM && self.node.backend.is_alive(leader);
        Err(if nowhere { ErrorCode::ListenerNotFound } else { ErrorCode::LeaderNotAvailable })
    }
}

pub async fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: MetadataRequest,
) -> MetadataResponse {
    let may_create = request.allow_auto_topic_creation || version < MAY_REFUSE_CREATION_FROM;
    let endpoints = brokers::endpoints(node, context);
    let asked = Asked { node, context, version, endpoints: &endpoints };
    let topics = match request.topics {
        Some(topics) if version >= NULL_IS_ALL_FROM || !topics.is_empty() => {
            named(&asked, topics, may_create).await
        }
        _ => all(&asked),
    };
    let mut response = MetadataResponse::default();
    response.controller_id = brokers::controller(node, &endpoints);
    response.brokers = endpoints.into_iter().map(broker).collect();
    response.cluster_id = Some(node.backend.image().cluster.to_string().into());
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

fn all(asked: &Asked<'_>) -> Vec<MetadataResponseTopic> {
    let image = asked.node.backend.image();
    let visible = |topic: &&std::sync::Arc<Topic>| {
        authorize(asked.context, Operation::Describe, Resource::Topic(&topic.name)).is_ok()
    };
    let by_name = image.names.values().filter_map(|id| image.topic(*id));
    by_name.filter(visible).map(|topic| described(asked, topic)).collect()
}

async fn named(
    asked: &Asked<'_>,
    names: Vec<MetadataRequestTopic>,
    may_create: bool,
) -> Vec<MetadataResponseTopic> {
    // Versions 10 and 11 have room for ids and null names, but only for answers: Kafka refuses all of such a request.
    if asked.version < IDS_FROM && names.iter().any(|topic| topic.name.is_none() || !topic.topic_id.is_zero())
    {
        return names.into_iter().map(invalid).collect();
    }
    let mut topics = Vec::with_capacity(names.len());
    let mut seen = BTreeSet::new();
    for topic in names {
        let reference = match topic.name {
            Some(name) if topic.topic_id.is_zero() => TopicRef::Name(name.into_string()),
            _ => TopicRef::Id(TopicId(topic.topic_id.to_bytes())),
        };
        // A topic that stands twice is answered once.
        if seen.insert(reference.clone()) {
            let answer = one(asked, &reference, may_create).await;
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
    asked: &Asked<'_>,
    reference: &TopicRef,
    may_create: bool,
) -> Result<MetadataResponseTopic, ErrorCode> {
    let Asked { node, context, .. } = asked;
    if let TopicRef::Name(name) = reference {
        topics::check_name(name).map_err(|refusal| refusal.code())?;
        authorize(context, Operation::Describe, Resource::Topic(name))?;
    }
    if let Ok(topic) = reference.find(&node.backend.image()) {
        authorize(context, Operation::Describe, Resource::Topic(&topic.name))?;
        return Ok(described(asked, topic));
    }
    match reference {
        TopicRef::Name(name) if may_create && node.creation.auto_create => {
            create(node, context, name).await?
        }
        _ => {}
    }
    reference.find(&node.backend.image()).map(|topic| described(asked, topic))
}

async fn create(node: &Node, context: &Context, name: &str) -> Result<(), ErrorCode> {
    authorize(context, Operation::Create, Resource::Topic(name))?;
    if groups::is_internal(name) {
        return groups::ensure_topic(node).await.map_err(|_| ErrorCode::LeaderNotAvailable);
    }
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
        // Kafka creates it behind the answer, and the client asks again.
        Err(topics::TopicRefusal::Metadata(MetadataRefusal::NotController | MetadataRefusal::TimedOut)) => {
            Err(ErrorCode::LeaderNotAvailable)
        }
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

fn described(asked: &Asked<'_>, topic: &Topic) -> MetadataResponseTopic {
    let mut response = MetadataResponseTopic::default();
    response.name = Some((&*topic.name).into());
    response.is_internal = groups::is_internal(&topic.name);
    response.topic_id = Uuid::from_bytes(topic.id.0);
    response.partitions =
        (0..).zip(&topic.partitions).map(|(index, at)| partition(asked, index, at)).collect();
    response
}

fn partition(asked: &Asked<'_>, index: i32, partition: &Partition) -> MetadataResponsePartition {
    let node = asked.node;
    let on_wire = |replica: &ReplicaId| wire_id(replica.node().get());
    let mut response = MetadataResponsePartition::default();
    response.partition_index = index;
    response.replica_nodes = partition.replicas.iter().map(on_wire).collect();
    let away = |replica: &&ReplicaId| !node.backend.is_alive(replica.node());
    response.offline_replicas = partition.replicas.iter().filter(away).map(on_wire).collect();
    match node.backend.leadership(partition.group) {
        Some(known) => {
            response.leader_id = on_wire(&known.leader);
            response.leader_epoch = known.epoch.0;
            response.isr_nodes = known.in_sync.iter().map(on_wire).collect();
            if let Err(code) = asked.reaches(known.leader.node()) {
                (response.error_code, response.leader_id) = (code.number(), -1);
            }
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
    response
}
