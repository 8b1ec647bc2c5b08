//! Groups of consumers: each is asked of the node that coordinates it.

use std::collections::BTreeMap;

use varve_protocol::{
    ErrorCode, Request, Response,
    messages::{
        DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, ListGroupsRequest,
        OffsetCommitRequest, OffsetFetchRequest, describe_groups_response::DescribedGroup,
        offset_commit_request,
    },
};

use super::{Client, ClientError, Code, Missing, error, retrying};
use crate::limits;

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub group: String,
    pub state: String,
    pub protocol_type: String,
    pub coordinator: i32,
}

/// What a group has committed, by topic and partition.
pub type Committed = BTreeMap<(String, i32), i64>;

impl Client {
    /// The groups of all nodes, by name.
    pub fn groups(&mut self) -> Result<Vec<Listed>, ClientError> {
        let mut all = Vec::new();
        for broker in self.metadata(Some(&[]), Missing::Report)?.brokers {
            let request = Request::ListGroups(ListGroupsRequest::default());
            let listed = retrying(limits::METADATA_WAIT_MAX, || {
                let Response::ListGroups(response) = self.ask_node(broker.node, &request)? else {
                    unreachable!("a response is of its request's key");
                };
                error::check("groups", response.error_code, None).map(|()| response.groups)
            })?;
            all.extend(listed.into_iter().map(|each| Listed {
                group: each.group_id.to_string(),
                state: each.group_state.to_string(),
                protocol_type: each.protocol_type.to_string(),
                coordinator: broker.node,
            }));
        }
        all.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(all)
    }

    /// Asks the node that coordinates a group. It may change in between: then the next one is asked.
    fn ask_coordinator<T>(
        &mut self,
        group: &str,
        request: &Request,
        mut take: impl FnMut(Response) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        retrying(limits::METADATA_WAIT_MAX, || {
            self.metadata(Some(&[]), Missing::Report)?;
            let mut asked = FindCoordinatorRequest::default();
            asked.key = group.into();
            let Response::FindCoordinator(found) = self.ask(&Request::FindCoordinator(asked))? else {
                unreachable!("a response is of its request's key");
            };
            error::check(&format!("coordinator of group {group}"), found.error_code, None)?;
            take(self.ask_node(found.node_id, request)?)
        })
    }

    /// A group as its coordinator has it.
    pub fn group(&mut self, group: &str) -> Result<DescribedGroup, ClientError> {
        let mut request = DescribeGroupsRequest::default();
        request.groups = vec![group.into()];
        self.ask_coordinator(group, &Request::DescribeGroups(request), |response| {
            let Response::DescribeGroups(mut response) = response else {
                unreachable!("a response is of its request's key");
            };
            let described = response.groups.pop().unwrap_or_default();
            error::check(&format!("group {group}"), described.error_code, None)?;
            if &*described.group_state == "Dead" {
                let code = Code(ErrorCode::GroupIdNotFound.number());
                return Err(ClientError::refused(format!("group {group}"), code, None));
            }
            Ok(described)
        })
    }

    /// What a group has committed.
    pub fn committed(&mut self, group: &str) -> Result<Committed, ClientError> {
        let mut request = OffsetFetchRequest::default();
        (request.group_id, request.topics) = (group.into(), None);
        self.ask_coordinator(group, &Request::OffsetFetch(request), |response| {
            let Response::OffsetFetch(response) = response else {
                unreachable!("a response is of its request's key");
            };
            error::check(&format!("offsets of group {group}"), response.error_code, None)?;
            let mut committed = Committed::new();
            for topic in response.topics {
                for at in topic.partitions {
                    committed.insert((topic.name.to_string(), at.partition_index), at.committed_offset);
                }
            }
            Ok(committed)
        })
    }

    /// Commits offsets for a group that has no members.
    pub fn seek(
        &mut self,
        group: &str,
        topic: &str,
        offsets: &BTreeMap<i32, i64>,
    ) -> Result<(), ClientError> {
        let partition = |(index, offset): (&i32, &i64)| {
            let mut at = offset_commit_request::OffsetCommitRequestPartition::default();
            (at.partition_index, at.committed_offset) = (*index, *offset);
            (at.committed_leader_epoch, at.committed_metadata) = (-1, Some("".into()));
            at
        };
        let mut named = offset_commit_request::OffsetCommitRequestTopic::default();
        (named.name, named.partitions) = (topic.into(), offsets.iter().map(partition).collect());
        let mut request = OffsetCommitRequest::default();
        (request.group_id, request.generation_id_or_member_epoch) = (group.into(), -1);
        request.topics = vec![named];
        self.ask_coordinator(group, &Request::OffsetCommit(request), |response| {
            let Response::OffsetCommit(response) = response else {
                unreachable!("a response is of its request's key");
            };
            for at in response.topics.iter().flat_map(|topic| &topic.partitions) {
                let has_members = at.error_code == ErrorCode::UnknownMemberId.number();
                let why = has_members.then_some("it has members: stop them first");
                error::check(&format!("group {group}"), at.error_code, why)?;
            }
            Ok(())
        })
    }

    /// Forgets a group.
    pub fn delete_group(&mut self, group: &str) -> Result<(), ClientError> {
        let mut request = DeleteGroupsRequest::default();
        request.groups_names = vec![group.into()];
        self.ask_coordinator(group, &Request::DeleteGroups(request), |response| {
            let Response::DeleteGroups(response) = response else {
                unreachable!("a response is of its request's key");
            };
            let code = response.results.first().map_or(0, |result| result.error_code);
            error::check(&format!("group {group}"), code, None)
        })
    }
}
