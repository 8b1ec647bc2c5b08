//! Heartbeat: a member is alive, and learns whether its group comes together anew.

use varve_protocol::{
    ErrorCode,
    messages::{HeartbeatRequest, HeartbeatResponse, StrBytes},
};
use varve_replica::coordinator::{Heartbeat, MemberRef, Request};

use super::{
    access::{Operation, Resource, authorize},
    groups,
};
use crate::{net::Context, node::Node};

pub async fn answer(node: &Node, context: &Context, request: HeartbeatRequest) -> HeartbeatResponse {
    let mut response = HeartbeatResponse::default();
    let outcome = beat(node, context, request).await;
    response.error_code = outcome.unwrap_or_else(|code| code).number();
    response
}

async fn beat(node: &Node, context: &Context, request: HeartbeatRequest) -> Result<ErrorCode, ErrorCode> {
    authorize(context, Operation::Read, Resource::Group(&request.group_id))?;
    groups::check_name(&request.group_id)?;
    let group = request.group_id.into_string();
    let beat = Heartbeat {
        group: group.clone(),
        member: MemberRef {
            id: request.member_id.into_string(),
            instance: request.group_instance_id.map(StrBytes::into_string),
        },
        generation: request.generation_id,
    };
    Ok(groups::done(groups::ask(node, &group, Request::Heartbeat(beat)).await))
}
