//! FindCoordinator: which node coordinates a group. The first who asks makes the topic that groups are kept in.

use varve_protocol::{
    ErrorCode,
    messages::{
        FindCoordinatorRequest, FindCoordinatorResponse, StrBytes, find_coordinator_response::Coordinator,
    },
};

use super::{
    access::{Operation, Resource, authorize},
    brokers::{self, Endpoint, wire_id},
    errors::Coded as _,
    groups,
};
use crate::{net::Context, node::Node};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// From this version on several are asked for.
const SEVERAL_FROM: i16 = 4;

pub async fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let kind = if version == 0 { GROUP } else { request.key_type };
    let keys = if version >= SEVERAL_FROM { request.coordinator_keys } else { vec![request.key] };
    let endpoints = brokers::endpoints(node, context);
    let mut coordinators = Vec::with_capacity(keys.len());
    for key in keys {
        let found = find(node, context, kind, &key, &endpoints).await;
        coordinators.push(coordinator(key, found));
    }
    let mut response = FindCoordinatorResponse::default();
    if version >= SEVERAL_FROM {
        response.coordinators = coordinators;
        return response;
    }
    if let Some(one) = coordinators.pop() {
        response.error_code = one.error_code;
        response.error_message = one.error_message;
        (response.node_id, response.host, response.port) = (one.node_id, one.host, one.port);
    }
    response
}

fn coordinator(key: StrBytes, found: Result<&Endpoint, ErrorCode>) -> Coordinator {
    let mut answer = Coordinator::default();
    answer.key = key;
    match found {
        Ok(endpoint) => {
            (answer.node_id, answer.port) = (endpoint.id, endpoint.port);
            answer.host = endpoint.host.as_str().into();
        }
        Err(code) => {
            (answer.node_id, answer.port) = (-1, -1);
            answer.error_code = code.number();
            answer.error_message = Some(code.name().into());
        }
    }
    answer
}

async fn find<'a>(
    node: &Node,
    context: &Context,
    kind: i8,
    key: &str,
    endpoints: &'a [Endpoint],
) -> Result<&'a Endpoint, ErrorCode> {
    match kind {
        GROUP => authorize(context, Operation::Describe, Resource::Group(key))?,
        // Transactions are not there yet: no id is anybody's to write with.
        TRANSACTION => return Err(ErrorCode::TransactionalIdAuthorizationFailed),
        _ => return Err(ErrorCode::InvalidRequest),
    }
    groups::ensure_topic(node).await.map_err(|refusal| match refusal.code() {
        ErrorCode::TopicAuthorizationFailed => ErrorCode::TopicAuthorizationFailed,
        _ => ErrorCode::CoordinatorNotAvailable,
    })?;
    let partition =
        groups::partition(&node.backend.image(), key).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let leader = node.backend.leadership(partition).ok_or(ErrorCode::CoordinatorNotAvailable)?.leader;
    let id = wire_id(leader.node().get());
    endpoints.iter().find(|endpoint| endpoint.id == id).ok_or(ErrorCode::CoordinatorNotAvailable)
}
