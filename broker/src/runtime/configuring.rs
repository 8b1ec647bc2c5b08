//! Changes of configurations as commands of the metadata, which name what they build on.

use varve_common::{Digest, NodeId, TopicId};
use varve_formats::command::{METADATA_FEATURE, MetadataCommand};

use super::backend::NodeBackend;
use crate::node::MetadataRefusal;

/// The level of metadata commands from which on a change of a topic says what it builds on.
const COMPARED_FROM: u16 = 2;

/// Values to set, and those to remove.
type Changes = Vec<(String, Option<String>)>;

/// As long as a release is among the brokers that does not know what a change may build on, none says it. Once the level is raised
/// nobody is let in that does not, whoever is registered still.
pub(super) async fn topic(
    node: NodeBackend,
    id: TopicId,
    configs: Changes,
    built_on: Digest,
) -> Result<(), MetadataRefusal> {
    let image = node.views.image();
    let is_compared = image.level(METADATA_FEATURE) >= COMPARED_FROM
        || image.brokers.values().all(|broker| broker.level >= COMPARED_FROM);
    let expected = is_compared.then_some(built_on);
    node.change(MetadataCommand::SetTopicConfigs { id, configs, expected }).await.map(drop)
}

/// Of one broker, or of all.
pub(super) async fn broker(
    node: NodeBackend,
    whose: Option<NodeId>,
    configs: Changes,
    expected: Digest,
) -> Result<(), MetadataRefusal> {
    let whose = whose.map_or(0, NodeId::get);
    node.change(MetadataCommand::SetBrokerConfigs { node: whose, configs, expected }).await.map(drop)
}
