//! OffsetFetch: what groups have committed, as a quorum has it.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::join_all;
use varve_common::{GroupId, TopicId};
use varve_protocol::{
    ErrorCode,
    messages::{
        OffsetFetchRequest, OffsetFetchResponse, StrBytes, Uuid,
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
};
use varve_replica::coordinator::{Answer, Committed, GroupError, Request, StoredGroup};

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
    groups,
};
use crate::{
    net::Context,
    node::{Image, Node},
};

/// From this version on there is an error for the whole.
const ERROR_FROM: i16 = 2;
/// From this version on several groups are asked for.
const GROUPS_FROM: i16 = 8;
/// From this version on topics are named by id.
const IDS_FROM: i16 = 10;
/// On the wire: nothing was committed.
const NONE: i64 = -1;

pub async fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let mut response = OffsetFetchResponse::default();
    if version >= GROUPS_FROM {
        let names: Vec<&str> = request.groups.iter().map(|group| group.group_id.as_str()).collect();
        let confirmed = confirm(node, &names).await;
        let answers = request.groups.iter().map(|group| of_group(node, context, version, group, &confirmed));
        response.groups = groups::together(answers.collect()).await;
        return response;
    }
    let mut group = OffsetFetchRequestGroup::default();
    group.group_id = request.group_id;
    group.topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| {
            let mut asked = OffsetFetchRequestTopics::default();
            (asked.name, asked.partition_indexes) = (topic.name, topic.partition_indexes);
            asked
        });
        topics.collect()
    });
    let confirmed = confirm(node, &[&group.group_id]).await;
    let answered = of_group(node, context, version, &group, &confirmed).await;
    if version >= ERROR_FROM {
        response.error_code = answered.error_code;
    }
    response.topics = answered.topics.into_iter().map(plain).collect();
    response
}

/// The shape of a topic before several groups were asked for.
fn plain(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|partition| {
        let mut told = OffsetFetchResponsePartition::default();
        told.partition_index = partition.partition_index;
        told.committed_offset = partition.committed_offset;
        told.committed_leader_epoch = partition.committed_leader_epoch;
        told.metadata = partition.metadata;
        told.error_code = partition.error_code;
        told
    });
    let mut told = OffsetFetchResponseTopic::default();
    told.partitions = partitions.collect();
    told.name = topic.name;
    told
}

async fn of_group(
    node: &Node,
    context: &Context,
    version: i16,
    asked: &OffsetFetchRequestGroup,
    confirmed: &BTreeSet<GroupId>,
) -> OffsetFetchResponseGroup {
    let mut response = OffsetFetchResponseGroup::default();
    response.group_id = asked.group_id.clone();
    match fetch(node, context, &asked.group_id, confirmed).await {
        Ok(stored) => {
            let image = node.backend.image();
            let reader = Reader { context, version, image: &image, stored: stored.as_deref() };
            response.topics = match &asked.topics {
                Some(topics) => topics.iter().map(|topic| reader.named(topic)).collect(),
                None => reader.all(),
            };
        }
        Err(code) if version < ERROR_FROM => {
            let topics = asked.topics.iter().flatten();
            response.topics = topics.map(|topic| refused(topic, code)).collect();
        }
        Err(code) => response.error_code = code.number(),
    }
    response
}

/// The partitions of these groups that a quorum says this node leads: each is asked for once, all at a time. A leader that was deposed
/// and does not know it would tell what was committed before.
async fn confirm(node: &Node, names: &[&str]) -> BTreeSet<GroupId> {
    let image = node.backend.image();
    let partitions = names.iter().filter_map(|name| groups::partition(&image, name));
    let partitions: BTreeSet<GroupId> = partitions.collect();
    let asked = partitions
        .into_iter()
        .map(|partition| async move { node.backend.confirm(partition).await.then_some(partition) });
    join_all(asked).await.into_iter().flatten().collect()
}

async fn fetch(
    node: &Node,
    context: &Context,
    group: &str,
    confirmed: &BTreeSet<GroupId>,
) -> Result<Option<Arc<StoredGroup>>, ErrorCode> {
    authorize(context, Operation::Describe, Resource::Group(group))?;
    let image = node.backend.image();
    let partition = groups::partition(&image, group).ok_or(ErrorCode::NotCoordinator)?;
    if !confirmed.contains(&partition) {
        return Err(ErrorCode::NotCoordinator);
    }
    match groups::ask_one(node, partition, Request::Fetch { group: group.to_owned() }).await {
        Ok(Answer::Offsets(stored)) => Ok(stored),
        Ok(answer) => Err(groups::unexpected(&answer)),
        Err(GroupError::NotFound) => Ok(None),
        Err(error) => Err(error.code()),
    }
}

struct Reader<'a> {
    context: &'a Context,
    version: i16,
    image: &'a Image,
    stored: Option<&'a StoredGroup>,
}

impl Reader<'_> {
    fn named(&self, asked: &OffsetFetchRequestTopics) -> OffsetFetchResponseTopics {
        let topic = if self.version >= IDS_FROM {
            match self.image.topic(TopicId(asked.topic_id.to_bytes())) {
                Some(topic) => Some(topic),
                None => return refused(asked, ErrorCode::UnknownTopicId),
            }
        } else {
            self.image.topic_by_name(&asked.name)
        };
        let name = topic.map_or(asked.name.as_str(), |topic| &*topic.name);
        if let Err(code) = authorize(self.context, Operation::Describe, Resource::Topic(name)) {
            return refused(asked, code);
        }
        let mut response = OffsetFetchResponseTopics::default();
        (response.name, response.topic_id) = (asked.name.clone(), asked.topic_id);
        for &index in &asked.partition_indexes {
            let committed = self.stored.and_then(|stored| stored.offset(name, index));
            // A topic that is gone, or was made anew, has nothing of what was committed for it.
            let committed = committed
                .filter(|committed| topic.is_some_and(|topic| groups::is_of(topic, committed.topic)));
            response.partitions.push(partition(index, committed));
        }
        response
    }

    fn all(&self) -> Vec<OffsetFetchResponseTopics> {
        let mut topics = Vec::new();
        for (name, partitions) in self.stored.iter().flat_map(|stored| &stored.offsets) {
            let Some(topic) = self.image.topic_by_name(name) else { continue };
            if authorize(self.context, Operation::Describe, Resource::Topic(name)).is_err() {
                continue;
            }
            let mut response = OffsetFetchResponseTopics::default();
            if self.version >= IDS_FROM {
                response.topic_id = Uuid::from_bytes(topic.id.0);
            } else {
                response.name = StrBytes::from(&**name);
            }
            let live = partitions.iter().filter(|(_, committed)| groups::is_of(topic, committed.topic));
            response.partitions = live.map(|(index, committed)| partition(*index, Some(committed))).collect();
            if !response.partitions.is_empty() {
                topics.push(response);
            }
        }
        topics
    }
}

fn partition(index: i32, committed: Option<&Committed>) -> OffsetFetchResponsePartitions {
    let mut response = OffsetFetchResponsePartitions::default();
    response.partition_index = index;
    response.committed_offset = committed.map_or(NONE, |committed| committed.value.offset);
    response.committed_leader_epoch = committed.map_or(-1, |committed| committed.value.leader_epoch);
    let metadata = committed.map(|committed| committed.value.metadata.as_str());
    response.metadata = Some(metadata.unwrap_or_default().into());
    response
}

fn refused(asked: &OffsetFetchRequestTopics, code: ErrorCode) -> OffsetFetchResponseTopics {
    let mut response = OffsetFetchResponseTopics::default();
    (response.name, response.topic_id) = (asked.name.clone(), asked.topic_id);
    for &index in &asked.partition_indexes {
        let mut answer = partition(index, None);
        answer.error_code = code.number();
        response.partitions.push(answer);
    }
    response
}
