//! ListGroups: the groups that this node coordinates. Who wants all of them asks every node.

use futures_util::future::join_all;
use varve_protocol::{
    ErrorCode,
    messages::{ListGroupsRequest, ListGroupsResponse, StrBytes, list_groups_response::ListedGroup},
};
use varve_replica::coordinator::{Answer, GroupError, Listed, Request, TOPIC};

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
    groups,
};
use crate::{net::Context, node::Node};

/// From this version on the state of each is told.
const STATES_FROM: i16 = 4;
/// From this version on the type of each is told.
const TYPES_FROM: i16 = 5;
/// The only type that there is: groups whose members agree among themselves.
const CLASSIC: &str = "classic";

pub async fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let mut response = ListGroupsResponse::default();
    let sees_all = authorize(context, Operation::Describe, Resource::Cluster).is_ok();
    let wanted = |words: &[StrBytes], word: &str| {
        words.is_empty() || words.iter().any(|wanted| wanted.eq_ignore_ascii_case(word))
    };
    match list(node).await {
        Ok(listed) => {
            let sees = |group: &str| {
                sees_all || authorize(context, Operation::Describe, Resource::Group(group)).is_ok()
            };
            let listed = listed.into_iter().filter(|each| {
                wanted(&request.states_filter, each.state.name())
                    && wanted(&request.types_filter, CLASSIC)
                    && sees(&each.group)
            });
            response.groups = listed.map(|each| told(each, version)).collect();
        }
        Err(code) => response.error_code = code.number(),
    }
    response
}

fn told(listed: Listed, version: i16) -> ListedGroup {
    let mut group = ListedGroup::default();
    group.group_id = listed.group.into();
    group.protocol_type = listed.protocol_type.into();
    if version >= STATES_FROM {
        group.group_state = listed.state.name().into();
    }
    if version >= TYPES_FROM {
        group.group_type = CLASSIC.into();
    }
    group
}

/// Of every partition that this node leads.
async fn list(node: &Node) -> Result<Vec<Listed>, ErrorCode> {
    let image = node.backend.image();
    let Some(topic) = image.topic_by_name(TOPIC) else { return Ok(Vec::new()) };
    let asked = topic.partitions.iter().map(|at| groups::ask_one(node, at.group, Request::List));
    let mut all = Vec::new();
    for outcome in join_all(asked).await {
        match outcome {
            Ok(Answer::Listed(listed)) => all.extend(listed),
            Ok(answer) => return Err(groups::unexpected(&answer)),
            Err(GroupError::NotCoordinator) => {}
            Err(error) => return Err(error.code()),
        }
    }
    Ok(all)
}
