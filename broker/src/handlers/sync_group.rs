//! SyncGroup: the leading member says who gets what, everybody learns what it got.

use varve_protocol::{
    ErrorCode,
    messages::{StrBytes, SyncGroupRequest, SyncGroupResponse},
};
use varve_replica::coordinator::{Answer, MemberRef, Request, Sync, Synced};

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
    groups,
};
use crate::{net::Context, node::Node};

/// From this version on the member says what kind of group it means, and is told.
const KINDS_FROM: i16 = 5;

pub async fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    let mut response = SyncGroupResponse::default();
    match sync(node, context, version, request).await {
        Ok(synced) => {
            if version >= KINDS_FROM {
                response.protocol_type = Some(synced.protocol_type.into());
                response.protocol_name = Some(synced.protocol.into());
            }
            response.assignment = synced.assignment;
        }
        Err(code) => response.error_code = code.number(),
    }
    response
}

async fn sync(
    node: &Node,
    context: &Context,
    version: i16,
    request: SyncGroupRequest,
) -> Result<Synced, ErrorCode> {
    authorize(context, Operation::Read, Resource::Group(&request.group_id))?;
    groups::check_name(&request.group_id)?;
    let said = |text: Option<StrBytes>| text.map(StrBytes::into_string);
    // As Kafka: from here on it must say so.
    if version >= KINDS_FROM && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return Err(ErrorCode::InconsistentGroupProtocol);
    }
    let assignments = request.assignments.into_iter();
    let sync = Sync {
        group: request.group_id.into_string(),
        member: MemberRef { id: request.member_id.into_string(), instance: said(request.group_instance_id) },
        generation: request.generation_id,
        protocol_type: said(request.protocol_type),
        protocol: said(request.protocol_name),
        assignments: assignments
            .map(|given| (given.member_id.into_string(), bytes::Bytes::copy_from_slice(&given.assignment)))
            .collect(),
    };
    let group = sync.group.clone();
    match groups::ask(node, &group, Request::Sync(sync)).await {
        Ok(Answer::Synced(synced)) => Ok(synced),
        Ok(answer) => Err(groups::unexpected(&answer)),
        Err(error) => Err(error.code()),
    }
}
