//! DescribeGroups: where groups stand, and who is in them.

use varve_protocol::{
    ErrorCode,
    messages::{
        DescribeGroupsRequest, DescribeGroupsResponse, StrBytes,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
    },
};
use varve_replica::coordinator::{Answer, Described, DescribedMember, GroupError, Request};

use super::{
    access::{self, Operation, Resource, authorize},
    errors::Coded as _,
    groups,
};
use crate::{net::Context, node::Node};

/// Before this version a group that is not there is dead.
const NOT_FOUND_FROM: i16 = 6;

pub async fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let mut response = DescribeGroupsResponse::default();
    let is_told = request.include_authorized_operations;
    let asked = request.groups.into_iter().map(|group| async move {
        let mut described = match describe(node, context, &group).await {
            Ok(described) => told(described),
            Err(code) => refused(&group, code, version),
        };
        if is_told && described.error_code == 0 {
            described.authorized_operations = access::group_operations(context, &group);
        }
        described.group_id = group;
        described
    });
    response.groups = groups::together(asked.collect()).await;
    response
}

async fn describe(node: &Node, context: &Context, group: &str) -> Result<Described, ErrorCode> {
    authorize(context, Operation::Describe, Resource::Group(group))?;
    match groups::ask(node, group, Request::Describe { group: group.to_owned() }).await {
        Ok(Answer::Described(described)) => Ok(described),
        Ok(answer) => Err(groups::unexpected(&answer)),
        Err(GroupError::NotFound) => Err(ErrorCode::GroupIdNotFound),
        Err(error) => Err(error.code()),
    }
}

fn refused(group: &str, code: ErrorCode, version: i16) -> DescribedGroup {
    let mut described = DescribedGroup::default();
    if code != ErrorCode::GroupIdNotFound {
        described.error_code = code.number();
        return described;
    }
    described.group_state = "Dead".into();
    if version >= NOT_FOUND_FROM {
        described.error_code = code.number();
        described.error_message = Some(format!("Group {group} not found.").into());
    }
    described
}

fn told(group: Described) -> DescribedGroup {
    let mut described = DescribedGroup::default();
    described.group_state = group.state.name().into();
    described.protocol_type = group.protocol_type.into();
    described.protocol_data = group.protocol.into();
    described.members = group.members.into_iter().map(member).collect();
    described
}

fn member(member: DescribedMember) -> DescribedGroupMember {
    let mut told = DescribedGroupMember::default();
    told.member_id = member.member.id.into();
    told.group_instance_id = member.member.instance.map(StrBytes::from);
    told.client_id = member.client_id.into();
    told.client_host = member.client_host.into();
    told.member_metadata = member.metadata;
    told.member_assignment = member.assignment;
    told
}
