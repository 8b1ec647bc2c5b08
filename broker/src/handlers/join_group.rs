//! JoinGroup: a place in a group. The answer comes when the group has come together.

use varve_protocol::{
    ErrorCode, Header,
    messages::{JoinGroupRequest, JoinGroupResponse, StrBytes, join_group_response::JoinGroupResponseMember},
};
use varve_replica::coordinator::{Answer, GroupError, Join, Joined, MemberRef, Request};

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
    groups,
};
use crate::{net::Context, node::Node};

/// From this version on a member must come again with the id that it is given (KIP-394).
const ID_REQUIRED_FROM: i16 = 4;
/// From this version on the names of protocols may be null, and are where there is none.
const NULLABLE_FROM: i16 = 7;
/// From this version on a leading member may be told to leave the assignment as it is (KIP-814).
const SKIPS_FROM: i16 = 9;

pub async fn answer(
    node: &Node,
    context: &Context,
    header: &Header,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let version = header.version;
    let member_id = request.member_id.clone();
    match join(node, context, header, request).await {
        Ok(joined) => response(joined, version),
        Err((code, id)) => {
            let mut response = JoinGroupResponse::default();
            response.error_code = code.number();
            response.generation_id = -1;
            response.protocol_name = (version < NULLABLE_FROM).then(StrBytes::default);
            response.member_id = id.unwrap_or(member_id);
            response
        }
    }
}

async fn join(
    node: &Node,
    context: &Context,
    header: &Header,
    request: JoinGroupRequest,
) -> Result<Joined, (ErrorCode, Option<StrBytes>)> {
    let plain = |code: ErrorCode| (code, None);
    authorize(context, Operation::Read, Resource::Group(&request.group_id)).map_err(plain)?;
    groups::check_name(&request.group_id).map_err(plain)?;
    let group = request.group_id.as_str().to_owned();
    let outcome = groups::ask(node, &group, Request::Join(join_of(node, context, header, request))).await;
    match outcome {
        Ok(Answer::Joined(joined)) => Ok(joined),
        Ok(answer) => Err(plain(groups::unexpected(&answer))),
        Err(GroupError::MemberIdRequired { id }) => Err((ErrorCode::MemberIdRequired, Some(id.into()))),
        Err(error) => Err(plain(error.code())),
    }
}

fn join_of(node: &Node, context: &Context, header: &Header, request: JoinGroupRequest) -> Join {
    let rebalance_ms =
        // Version 0 knew the session's time alone.
        if header.version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms };
    let protocols = request.protocols.into_iter();
    Join {
        group: request.group_id.into_string(),
        member: MemberRef {
            id: request.member_id.into_string(),
            instance: request.group_instance_id.map(StrBytes::into_string),
        },
        draw: node.entropy.next_u128(),
        client_id: header.client_id.clone().map(StrBytes::into_string).unwrap_or_default(),
        client_host: groups::host(context),
        session_ms: request.session_timeout_ms,
        rebalance_ms,
        protocol_type: request.protocol_type.into_string(),
        // They outlive the request: its frame is not kept for them.
        protocols: protocols
            .map(|protocol| (protocol.name.into_string(), bytes::Bytes::copy_from_slice(&protocol.metadata)))
            .collect(),
        id_required: header.version >= ID_REQUIRED_FROM,
        may_skip: header.version >= SKIPS_FROM,
    }
}

fn response(joined: Joined, version: i16) -> JoinGroupResponse {
    let mut response = JoinGroupResponse::default();
    response.generation_id = joined.generation;
    response.protocol_type = (version >= NULLABLE_FROM).then(|| joined.protocol_type.into());
    response.protocol_name = Some(joined.protocol.into());
    response.leader = joined.leader.into();
    response.skip_assignment = joined.skip_assignment;
    response.member_id = joined.member_id.into();
    let members = joined.members.into_iter().map(|member| {
        let mut told = JoinGroupResponseMember::default();
        told.member_id = member.member.id.into();
        told.group_instance_id = member.member.instance.map(StrBytes::from);
        told.metadata = member.metadata;
        told
    });
    response.members = members.collect();
    response
}
