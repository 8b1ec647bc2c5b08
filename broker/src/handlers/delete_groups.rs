//! DeleteGroups: groups without members are forgotten, with what they have committed.

use varve_protocol::{
    ErrorCode,
    messages::{DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult},
};
use varve_replica::coordinator::Request;

use super::{
    access::{Operation, Resource, authorize},
    groups,
};
use crate::{net::Context, node::Node};

pub async fn answer(node: &Node, context: &Context, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut response = DeleteGroupsResponse::default();
    // Each end waits for the disk: they wait together.
    let ends = request.groups_names.into_iter().map(|group| async move {
        let mut result = DeletableGroupResult::default();
        result.error_code = delete(node, context, &group).await.unwrap_or_else(|code| code).number();
        result.group_id = group;
        result
    });
    response.results = groups::together(ends.collect()).await;
    response
}

async fn delete(node: &Node, context: &Context, group: &str) -> Result<ErrorCode, ErrorCode> {
    authorize(context, Operation::Delete, Resource::Group(group))?;
    Ok(groups::done(groups::ask(node, group, Request::Delete { group: group.to_owned() }).await))
}
