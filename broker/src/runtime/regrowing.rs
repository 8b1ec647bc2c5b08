//! Gives partitions as many replicas as they had before their cluster was restored on one node.
//!
//! A restore leaves the number with each topic ([`REPLICAS_WANTED`]). Whenever nodes have joined, partitions that have fewer get
//! replicas there, a few partitions at a time; once all of a topic have as many, the number goes.

use std::collections::{BTreeMap, BTreeSet};

use varve_common::{GroupId, NodeId, TopicId};
use varve_replica::{
    metadata::{Image, Topic},
    rebirth::REPLICAS_WANTED,
};

use super::backend::NodeBackend;
use crate::{balance::MOVES_MAX, node::Backend as _};

/// What is to be done now.
#[derive(Debug, Default, PartialEq, Eq)]
struct Growth {
    /// Partitions that can have more replicas, with all nodes that are to hold them.
    grow: Vec<(GroupId, Vec<NodeId>)>,
    /// Topics that have what they had.
    done: Vec<TopicId>,
}

fn wanted(topic: &Topic) -> Option<usize> {
    topic.configs.get(REPLICAS_WANTED)?.parse().ok()
}

fn plan(image: &Image, alive: &BTreeSet<NodeId>) -> Growth {
    let mut growth = Growth::default();
    let partitions = || image.topics.values().flat_map(|topic| &topic.partitions);
    let mut holds: BTreeMap<NodeId, usize> = alive.iter().map(|node| (*node, 0)).collect();
    for replica in partitions().flat_map(|partition| partition.wanted()) {
        *holds.entry(replica.node()).or_default() += 1;
    }
    let rack = |node: &NodeId| image.brokers.get(node).and_then(|broker| broker.rack.as_deref());
    for topic in image.topics.values() {
        let Some(wanted) = wanted(topic) else { continue };
        let mut whole = true;
        for partition in &topic.partitions {
            whole &= partition.target.is_empty() && partition.replicas.len() >= wanted;
            let mut nodes: Vec<NodeId> = partition.wanted().iter().map(|replica| replica.node()).collect();
            let before = nodes.len();
            while nodes.len() < wanted {
                let beside = |node: &NodeId| {
                    rack(node).is_some() && nodes.iter().any(|other| rack(other) == rack(node))
                };
                let free = alive.iter().filter(|node| !nodes.contains(node));
                let Some(next) = free.min_by_key(|node| (beside(node), holds[*node], **node)).copied() else {
                    break;
                };
                *holds.entry(next).or_default() += 1;
                nodes.push(next);
            }
            // What is under way comes to its end first.
            if nodes.len() > before && partition.target.is_empty() {
                growth.grow.push((partition.group, nodes));
            }
        }
        if whole {
            growth.done.push(topic.id);
        }
    }
    growth
}

/// Whether partitions grow, or are about to: what else is to be moved waits for them.
pub(super) async fn step(node: &NodeBackend, image: &Image) -> bool {
    if image.topics.values().all(|topic| wanted(topic).is_none()) {
        return false;
    }
    let alive = image.brokers.keys().copied().filter(|id| node.is_alive(*id)).collect();
    let Growth { grow, done } = plan(image, &alive);
    let mut partitions = image.topics.values().flat_map(|topic| &topic.partitions);
    let under_way = partitions.by_ref().filter(|partition| !partition.target.is_empty()).count();
    let leads = node.leadership(GroupId::METADATA).is_some_and(|known| known.leader.node() == node.node);
    if leads {
        for (group, nodes) in grow.iter().take(MOVES_MAX.saturating_sub(under_way)) {
            tracing::info!(%group, ?nodes, "a restored partition gets the replicas that it had");
            if let Err(why) = node.reassign(*group, Some(nodes.clone())).await {
                tracing::warn!(%group, %why, "a restored partition could not get its replicas");
            }
        }
        for topic in done {
            tracing::info!(%topic, "a restored topic has its replicas again");
            let gone = vec![(REPLICAS_WANTED.to_owned(), None)];
            let Some(own) = image.topic(topic).map(|topic| topic.configs.clone()) else { continue };
            if let Err(why) = node.configure_topic(topic, gone, &own).await {
                tracing::warn!(%topic, %why, "a restored topic could not be told so");
            }
        }
    }
    !grow.is_empty() || under_way > 0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use varve_common::{ClusterId, Incarnation, ReplicaId};
    use varve_replica::metadata::Partition;

    use super::*;

    fn node(id: u32) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn image(replicas: &[&[u32]], wanted: &str) -> Image {
        let mut image = Image::new(ClusterId::from_random(1), Incarnation(2));
        let partition = |(group, nodes): (u64, &&[u32])| {
            let replicas = nodes.iter().map(|id| ReplicaId::new(node(*id), 9).unwrap());
            Partition::new(GroupId(group), replicas.collect())
        };
        let topic = Topic {
            id: TopicId::from_random(3),
            name: "t".into(),
            created_ms: 0,
            partitions: (1..).zip(replicas).map(partition).collect(),
            configs: [(REPLICAS_WANTED.to_owned(), wanted.to_owned())].into(),
        };
        image.topics = Arc::new([(topic.id, Arc::new(topic))].into());
        image
    }

    fn alive(ids: &[u32]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(node).collect()
    }

    #[test]
    fn partitions_grow_to_what_they_had_as_far_as_there_are_nodes() {
        let image = image(&[&[1], &[1]], "3");
        assert_eq!(plan(&image, &alive(&[1])), Growth::default());
        let two = plan(&image, &alive(&[1, 2]));
        assert_eq!(two.grow, [(GroupId(1), vec![node(1), node(2)]), (GroupId(2), vec![node(1), node(2)])]);
        let four = plan(&image, &alive(&[1, 2, 3, 4]));
        // Spread over those that hold the least.
        assert_eq!(four.grow[0].1, [node(1), node(2), node(3)]);
        assert_eq!(four.grow[1].1, [node(1), node(4), node(2)]);
    }

    #[test]
    fn a_topic_that_has_what_it_had_is_left_alone_from_then_on() {
        let growth = plan(&image(&[&[1, 2, 3], &[2, 3, 1]], "3"), &alive(&[1, 2, 3, 4]));
        assert_eq!((growth.grow, growth.done.len()), (vec![], 1));
    }
}
