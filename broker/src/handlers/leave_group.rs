//! LeaveGroup: members give their places up, or an administrator does it for them.

use varve_protocol::{
    ErrorCode,
    messages::{LeaveGroupRequest, LeaveGroupResponse, StrBytes, leave_group_response::MemberResponse},
};
use varve_replica::coordinator::{Answer, Leave, Leaving, MemberRef, Request};

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
    groups,
};
use crate::{net::Context, node::Node};

/// From this version on several leave.
const SEVERAL_FROM: i16 = 3;

pub async fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let mut response = LeaveGroupResponse::default();
    match leave(node, context, version, request).await {
        Ok(left) if version < SEVERAL_FROM => {
            let outcome = left.into_iter().next().map_or(Ok(()), |leaving| leaving.outcome);
            response.error_code = code_of(outcome.err().as_ref()).number();
        }
        Ok(left) => response.members = left.into_iter().map(member).collect(),
        Err(code) => response.error_code = code.number(),
    }
    response
}

fn code_of(error: Option<&varve_replica::coordinator::GroupError>) -> ErrorCode {
    error.map_or(ErrorCode::None, |error| error.code())
}

fn member(leaving: Leaving) -> MemberResponse {
    let mut response = MemberResponse::default();
    response.error_code = code_of(leaving.outcome.as_ref().err()).number();
    response.member_id = leaving.member.id.into();
    response.group_instance_id = leaving.member.instance.map(StrBytes::from);
    response
}

async fn leave(
    node: &Node,
    context: &Context,
    version: i16,
    request: LeaveGroupRequest,
) -> Result<Vec<Leaving>, ErrorCode> {
    authorize(context, Operation::Read, Resource::Group(&request.group_id))?;
    groups::check_name(&request.group_id)?;
    let group = request.group_id.into_string();
    let members = if version < SEVERAL_FROM {
        vec![MemberRef::dynamic(&request.member_id)]
    } else {
        let members = request.members.into_iter();
        members
            .map(|member| MemberRef {
                id: member.member_id.into_string(),
                instance: member.group_instance_id.map(StrBytes::into_string),
            })
            .collect()
    };
    match groups::ask(node, &group, Request::Leave(Leave { group: group.clone(), members })).await {
        Ok(Answer::Left(left)) => Ok(left),
        Ok(answer) => Err(groups::unexpected(&answer)),
        Err(error) => Err(error.code()),
    }
}
