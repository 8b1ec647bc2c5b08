//! From a group to its coordinator: the leader of the partition of `__consumer_offsets` that the group's name falls on.

use futures_util::future::join_all;
use varve_common::{GroupId, TopicId};
use varve_protocol::ErrorCode;
use varve_replica::{
    Refusal,
    coordinator::{self, Answer, GroupError, Outcome, Request},
    metadata::{MetadataRejected, Topic},
};

use super::{
    errors::Coded as _,
    topics::{self, TopicRefusal, Wish},
};
use crate::{
    net::Context,
    node::{Image, MetadataRefusal, Node},
};

/// Groups that one request asks about at a time.
const AT_ONCE: usize = 64;

/// Whether a topic is the broker's own: clients read it, and do not write it.
pub fn is_internal(topic: &str) -> bool {
    topic == coordinator::TOPIC
}

/// The partition that coordinates a group, wherever it is led.
pub fn partition(image: &Image, group: &str) -> Option<GroupId> {
    let topic = image.topic_by_name(coordinator::TOPIC)?;
    let index = coordinator::partition_of(group, i32::try_from(topic.partitions.len()).ok()?);
    topic.partitions.get(usize::try_from(index).ok()?).map(|partition| partition.group)
}

/// Creates the topic that groups are kept in, where it is not there.
pub async fn ensure_topic(node: &Node) -> Result<(), TopicRefusal> {
    if node.backend.image().topic_by_name(coordinator::TOPIC).is_some() {
        return Ok(());
    }
    let segment_bytes = node.groups.segment_bytes.to_string();
    let wish = Wish {
        partitions: node.groups.partitions,
        replication_factor: node.replicas_of(node.groups.replication_factor),
        configs: vec![("cleanup.policy", Some("compact")), ("segment.bytes", Some(&segment_bytes))],
        ..Wish::automatic(coordinator::TOPIC)
    };
    let created = match topics::plan(node, &wish) {
        Ok(topic) => node.backend.create_topic(topic).await.map_err(TopicRefusal::from),
        Err(refusal) => Err(refusal),
    };
    match created {
        // Somebody else was first: that is as good.
        Err(TopicRefusal::Metadata(MetadataRefusal::Rejected(MetadataRejected::TopicExists { .. }))) => {
            Ok(())
        }
        created => created,
    }
}

/// Asks the coordinator of a group, if this node has it.
pub async fn ask(node: &Node, group: &str, request: Request) -> Result<Answer, GroupError> {
    let partition = partition(&node.backend.image(), group).ok_or(GroupError::NotCoordinator)?;
    ask_one(node, partition, request).await
}

/// Asks the coordinator of one partition.
pub async fn ask_one(node: &Node, partition: GroupId, request: Request) -> Outcome {
    match node.backend.coordinate(partition, request).await {
        Ok(outcome) => outcome,
        Err(Refusal::Throttled) => Err(GroupError::NotAvailable),
        Err(_) => Err(GroupError::NotCoordinator),
    }
}

/// What becomes of questions about many groups, in their order: some are under way at a time.
pub async fn together<F: Future>(mut asked: Vec<F>) -> Vec<F::Output> {
    let mut answers = Vec::with_capacity(asked.len());
    while !asked.is_empty() {
        let rest = asked.split_off(asked.len().min(AT_ONCE));
        answers.extend(join_all(asked).await);
        asked = rest;
    }
    answers
}

/// The error of an answer that does not fit its question.
pub fn unexpected(answer: &Answer) -> ErrorCode {
    tracing::error!(?answer, "the coordinator answered something else");
    ErrorCode::UnknownServerError
}

/// The outcome of a request that is answered by `Done`.
pub fn done(outcome: Outcome) -> ErrorCode {
    match outcome {
        Ok(Answer::Done) => ErrorCode::None,
        Ok(answer) => unexpected(&answer),
        Err(error) => error.code(),
    }
}

/// Kafka's: most requests need a name, those about offsets alone do not.
pub const fn check_name(group: &str) -> Result<(), ErrorCode> {
    if group.is_empty() { Err(ErrorCode::InvalidGroupId) } else { Ok(()) }
}

/// Where a client is, as Java writes an address without a name.
pub fn host(context: &Context) -> String {
    format!("/{}", context.client.ip().to_canonical())
}

/// Whether an offset was committed for this topic, and not for an earlier one of its name.
pub fn is_of(topic: &Topic, committed: TopicId) -> bool {
    committed == TopicId::ZERO || committed == topic.id
}
