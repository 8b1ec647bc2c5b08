//! Configuration values of topics and of brokers. What they mean is not known here; whether a change builds on what is there is.

use std::{collections::BTreeMap, sync::Arc};

use varve_common::{Digest, NodeId, TopicId};
use varve_formats::command::digest_of;

use super::{Image, MetadataDone, MetadataRejected, MetadataState};

/// Whose values: `None` for all brokers.
pub type BrokerConfigs = BTreeMap<Option<NodeId>, BTreeMap<String, String>>;

/// Values to set, and those to remove.
type Changes = Vec<(String, Option<String>)>;

fn apply(configs: &mut BTreeMap<String, String>, changes: Changes) {
    for (name, value) in changes {
        match value {
            Some(value) => configs.insert(name, value),
            None => configs.remove(&name),
        };
    }
}

/// Whoever proposed the change had read other values than these, and checked it against them.
fn check(configs: &BTreeMap<String, String>, expected: Digest) -> Result<(), MetadataRejected> {
    if digest_of(configs) == expected { Ok(()) } else { Err(MetadataRejected::ConfigsChanged) }
}

impl MetadataState {
    pub(super) fn configure(
        &mut self,
        id: TopicId,
        changes: Changes,
        expected: Option<Digest>,
    ) -> Result<MetadataDone, MetadataRejected> {
        let mut topic = self.image.topics.get(&id).ok_or(MetadataRejected::UnknownTopic)?.as_ref().clone();
        expected.map_or(Ok(()), |expected| check(&topic.configs, expected))?;
        apply(&mut topic.configs, changes);
        let topic = Arc::new(topic);
        Arc::make_mut(&mut self.image.topics).insert(id, Arc::clone(&topic));
        Ok(MetadataDone::ConfigsSet(topic))
    }

    pub(super) fn configure_broker(
        &mut self,
        node: u32,
        changes: Changes,
        expected: Digest,
    ) -> Result<MetadataDone, MetadataRejected> {
        let whose = match node {
            0 => None,
            _ => Some(NodeId::new(node).ok_or(MetadataRejected::InvalidNode(node))?),
        };
        check(self.image.configs_of_broker(whose), expected)?;
        let all = Arc::make_mut(&mut self.image.broker_configs);
        apply(all.entry(whose).or_default(), changes);
        all.retain(|_, configs| !configs.is_empty());
        Ok(MetadataDone::BrokerConfigsSet)
    }
}

impl Image {
    /// What was set at run time for a broker, or with `None` for all of them.
    #[must_use]
    pub fn configs_of_broker(&self, whose: Option<NodeId>) -> &BTreeMap<String, String> {
        const NOTHING: &BTreeMap<String, String> = &BTreeMap::new();
        self.broker_configs.get(&whose).unwrap_or(NOTHING)
    }
}
