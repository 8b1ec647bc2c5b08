//! CreateTopics.

use std::collections::BTreeMap;

use varve_protocol::{
    ErrorCode,
    messages::{
        CreateTopicsRequest, CreateTopicsResponse, StrBytes, Uuid,
        create_topics_request::CreatableTopic,
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
    },
};

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
    topics::{self, TopicRefusal, Wish},
};
use crate::{
    config::topic::{Source, TOPIC_KEYS},
    net::Context,
    node::{NewTopic, Node},
};

/// From this version on the answer describes the topic.
const DESCRIBED_FROM: i16 = 5;

pub async fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.as_str()).or_default() += 1;
    }
    let mut response = CreateTopicsResponse::default();
    for topic in &request.topics {
        let outcome = if times[topic.name.as_str()] > 1 {
            Err(Refused::from(TopicRefusal::Twice))
        } else {
            create(node, context, topic, request.validate_only).await
        };
        // A name that stands twice is answered once.
        if response.topics.iter().any(|result| result.name == topic.name) {
            continue;
        }
        response.topics.push(match outcome {
            Ok(created) => described(node, &created, version, request.validate_only),
            Err(refused) => failed(topic, refused, version),
        });
    }
    response
}

struct Refused {
    code: ErrorCode,
    message: Option<String>,
}

impl From<TopicRefusal> for Refused {
    fn from(refusal: TopicRefusal) -> Self {
        Self { code: refusal.code(), message: Some(refusal.to_string()) }
    }
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None }
    }
}

async fn create(
    node: &Node,
    context: &Context,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<NewTopic, Refused> {
    authorize(context, Operation::Create, Resource::Topic(topic.name.as_str()))?;
    let wish = Wish {
        name: topic.name.as_str(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignment: topic.assignments.iter().map(|a| (a.partition_index, a.broker_ids.clone())).collect(),
        configs: topic
            .configs
            .iter()
            .map(|c| (c.name.as_str(), c.value.as_ref().map(|v| v.as_str())))
            .collect(),
    };
    let planned = topics::plan(node, &wish)?;
    if !validate_only {
        node.backend.create_topic(planned.clone()).await.map_err(TopicRefusal::from)?;
    }
    Ok(planned)
}

fn failed(topic: &CreatableTopic, refused: Refused, version: i16) -> CreatableTopicResult {
    let mut result = CreatableTopicResult::default();
    result.name = topic.name.clone();
    result.error_code = refused.code.number();
    result.error_message = refused.message.map(StrBytes::from);
    if version >= DESCRIBED_FROM {
        result.num_partitions = -1;
        result.replication_factor = -1;
        result.configs = Some(Vec::new());
    }
    result
}

fn described(node: &Node, topic: &NewTopic, version: i16, validate_only: bool) -> CreatableTopicResult {
    let mut result = CreatableTopicResult::default();
    result.name = topic.name.as_str().into();
    if !validate_only {
        result.topic_id = Uuid::from_bytes(topic.id.0);
    }
    if version >= DESCRIBED_FROM {
        result.num_partitions = topic.partitions();
        result.replication_factor = topic.replication_factor();
        result.configs = Some(configs(node, topic));
    }
    result
}

fn configs(node: &Node, topic: &NewTopic) -> Vec<CreatableTopicConfigs> {
    let own: BTreeMap<&str, &str> =
        topic.configs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let row = |name: &'static str| {
        let inherited = &node.inherited(name, topic.replicas.first().map_or(1, Vec::len))[0];
        let (value, source) = own
            .get(name)
            .map_or((inherited.value.as_str(), inherited.source), |value| (*value, Source::Topic));
        let mut config = CreatableTopicConfigs::default();
        config.name = name.into();
        config.value = Some(value.into());
        config.config_source = source as i8;
        config
    };
    TOPIC_KEYS.iter().map(|key| row(key.name)).collect()
}
