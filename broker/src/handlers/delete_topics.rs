//! DeleteTopics: by name, from version 6 on by id too.

use std::collections::BTreeMap;

use varve_common::TopicId;
use varve_protocol::{
    ErrorCode,
    messages::{
        DeleteTopicsRequest, DeleteTopicsResponse, StrBytes, Uuid,
        delete_topics_response::DeletableTopicResult,
    },
};

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
    partitions::TopicRef,
};
use crate::{net::Context, node::Node};

/// From this version on topics are given as name or id.
const STATES_FROM: i16 = 6;

pub async fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let mut response = DeleteTopicsResponse::default();
    let mut times: BTreeMap<Asked, u32> = BTreeMap::new();
    let asked = asked(version, request);
    for topic in &asked {
        *times.entry(topic.clone()).or_default() += 1;
    }
    for topic in asked {
        match times.remove(&topic) {
            Some(1) => response.responses.push(delete(node, context, topic).await),
            Some(_) => {
                response.responses.push(topic.refused("a topic is named more than once in the request"))
            }
            // What stands twice is answered once.
            None => {}
        }
    }
    response
}

/// What names a topic in the request: exactly one of both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    name: Option<String>,
    id: [u8; 16],
}

impl Asked {
    fn result(&self) -> DeletableTopicResult {
        let mut result = DeletableTopicResult::default();
        result.name = self.name.as_deref().map(StrBytes::from);
        result.topic_id = Uuid::from_bytes(self.id);
        result
    }

    fn refused(&self, why: &str) -> DeletableTopicResult {
        let mut result = self.result();
        result.error_code = ErrorCode::InvalidRequest.number();
        result.error_message = Some(why.into());
        result
    }
}

fn asked(version: i16, request: DeleteTopicsRequest) -> Vec<Asked> {
    if version >= STATES_FROM {
        return request
            .topics
            .into_iter()
            .map(|topic| Asked { name: topic.name.map(StrBytes::into_string), id: topic.topic_id.to_bytes() })
            .collect();
    }
    let by_name = |name: StrBytes| Asked { name: Some(name.into_string()), id: [0; 16] };
    request.topic_names.into_iter().map(by_name).collect()
}

async fn delete(node: &Node, context: &Context, asked: Asked) -> DeletableTopicResult {
    let mut result = asked.result();
    let reference = match (&asked.name, asked.id) {
        (Some(name), id) if id == [0; 16] => TopicRef::Name(name.clone()),
        (None, id) if id != [0; 16] => TopicRef::Id(TopicId(id)),
        _ => return asked.refused("a topic is named either by name or by id"),
    };
    match remove(node, context, &reference).await {
        Ok((id, name)) => {
            result.name = Some(name.into());
            result.topic_id = Uuid::from_bytes(id.0);
        }
        Err(code) => result.error_code = code.number(),
    }
    result
}

async fn remove(
    node: &Node,
    context: &Context,
    reference: &TopicRef,
) -> Result<(TopicId, String), ErrorCode> {
    let image = node.backend.image();
    if let TopicRef::Name(name) = reference {
        authorize(context, Operation::Delete, Resource::Topic(name))?;
    }
    let topic = reference.find(&image)?;
    authorize(context, Operation::Delete, Resource::Topic(&topic.name))?;
    node.backend.delete_topic(topic.id).await.map_err(|refusal| refusal.code())?;
    Ok((topic.id, topic.name.to_string()))
}
