//! DeleteTopics: by name, from version 6 on by id too.

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
    for topic in asked(version, request) {
        response.responses.push(delete(node, context, topic).await);
    }
    response
}

/// What names a topic in the request: exactly one of both.
struct Asked {
    name: Option<StrBytes>,
    id: Uuid,
}

fn asked(version: i16, request: DeleteTopicsRequest) -> Vec<Asked> {
    if version >= STATES_FROM {
        return request
            .topics
            .into_iter()
            .map(|topic| Asked { name: topic.name, id: topic.topic_id })
            .collect();
    }
    request.topic_names.into_iter().map(|name| Asked { name: Some(name), id: Uuid::ZERO }).collect()
}

async fn delete(node: &Node, context: &Context, asked: Asked) -> DeletableTopicResult {
    let mut result = DeletableTopicResult::default();
    result.name = asked.name.clone();
    result.topic_id = asked.id;
    let reference = match (asked.name, asked.id.is_zero()) {
        (Some(name), true) => TopicRef::Name(name.into_string()),
        (None, false) => TopicRef::Id(TopicId(asked.id.to_bytes())),
        _ => {
            result.error_code = ErrorCode::InvalidRequest.number();
            result.error_message = Some("a topic is named either by name or by id".into());
            return result;
        }
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
    Ok((topic.id, topic.name.clone()))
}
