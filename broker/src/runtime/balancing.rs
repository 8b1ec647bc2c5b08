//! Gives a node that joins its share, in the background.
//!
//! Every node remembers who joined during its life and has not had its share yet; the one that leads the metadata acts. What
//! an operator moves or takes away afterwards stays so: a node is filled once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use varve_common::{GroupId, NodeId, ReplicaId};
use varve_replica::metadata::{self, Partition};

use super::{backend::NodeBackend, regrowing};
use crate::{balance, node::Backend as _};

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a replica that came to its node is given to lead.
const ELECT_LIMIT: Duration = Duration::from_secs(5);

/// Who is to be filled.
#[derive(Default)]
struct Filling {
    known: Option<BTreeSet<NodeId>>,
    /// With the groups that each was to hold at the last look.
    nodes: BTreeMap<NodeId, BTreeSet<GroupId>>,
}

/// What a node holds, or is to hold.
fn held(image: &metadata::Image, node: NodeId) -> BTreeSet<GroupId> {
    let partitions = image.topics.values().flat_map(|topic| &topic.partitions);
    let here = |partition: &&Partition| partition.wanted().iter().any(|replica| replica.node() == node);
    partitions.filter(here).map(|partition| partition.group).collect()
}

impl Filling {
    /// Nodes that were not there at the last look have joined; those of the first look were there before this process. From whom
    /// something is taken away somebody else moves it: it is about to leave, say, and is filled no more.
    fn look(&mut self, image: &metadata::Image) {
        let present: BTreeSet<NodeId> = image.brokers.keys().copied().collect();
        if let Some(known) = self.known.replace(present.clone()).filter(|known| !known.is_empty()) {
            let joined = present.difference(&known).map(|node| (*node, BTreeSet::new()));
            self.nodes.extend(joined);
        }
        self.nodes.retain(|node, before| {
            let now = held(image, *node);
            let is_left_alone =
                before.iter().all(|group| now.contains(group) || !image.groups.contains_key(group));
            *before = now;
            present.contains(node) && is_left_alone
        });
    }
}

/// Looks until it is dropped.
pub async fn watch(node: NodeBackend) {
    let mut filling = Filling::default();
    loop {
        node.clock.sleep(INTERVAL).await;
        let image = node.image();
        filling.look(&image);
        if regrowing::step(&node, &image).await {
            continue;
        }
        let Some(next) = filling.nodes.keys().next().copied() else { continue };
        let leads = node.leadership(GroupId::METADATA).is_some_and(|known| known.leader.node() == node.node);
        if fill(&node, &image, next, leads).await {
            tracing::info!(node = %next, "the node that joined has its share");
            filling.nodes.remove(&next);
        }
    }
}

/// A step towards the share of a node; whether it has it.
async fn fill(node: &NodeBackend, image: &metadata::Image, next: NodeId, leads: bool) -> bool {
    if !node.is_alive(next) {
        return false;
    }
    let partitions: Vec<&Partition> = image.topics.values().flat_map(|topic| &topic.partitions).collect();
    let wanted: Vec<balance::Replicas> = partitions
        .iter()
        .map(|partition| partition.wanted().iter().map(|replica| replica.node()).collect())
        .collect();
    let alive: BTreeSet<NodeId> = image.brokers.keys().copied().filter(|id| node.is_alive(*id)).collect();
    let racks: BTreeMap<NodeId, String> =
        image.brokers.values().filter_map(|broker| Some((broker.node, broker.rack.clone()?))).collect();
    let moves = balance::fill(&wanted, next, &alive, &racks);
    let under_way = partitions.iter().filter(|partition| !partition.target.is_empty()).count();
    if leads {
        for (place, nodes) in moves.iter().take(balance::MOVES_MAX.saturating_sub(under_way)) {
            let group = partitions[*place].group;
            tracing::info!(%group, ?nodes, "a partition moves to the node that joined");
            if let Err(why) = node.reassign(group, Some(nodes.clone())).await {
                tracing::warn!(%group, %why, "a partition could not be moved");
            }
        }
        if moves.is_empty() {
            hand_over(node, &partitions).await;
        }
    }
    let settled = |partition: &&Partition| partition.target.is_empty() && due(node, partition).is_none();
    moves.is_empty() && partitions.iter().all(settled)
}

/// The replica that stands first, where it lives and another leads.
fn due(node: &NodeBackend, partition: &Partition) -> Option<ReplicaId> {
    let first = partition.replicas.first().copied().filter(|replica| node.is_alive(replica.node()));
    first.filter(|first| node.leadership(partition.group).is_none_or(|known| known.leader != *first))
}

/// Lets those lead that stand first, where they are in sync: shares are counted by that, and an election before the node joined may
/// have gone to another.
async fn hand_over(node: &NodeBackend, partitions: &[&Partition]) {
    for partition in partitions {
        let Some(replica) = due(node, partition) else { continue };
        let known = node.leadership(partition.group);
        if known.is_some_and(|known| known.in_sync.contains(&replica)) {
            let _ = node.elect(partition.group, replica, ELECT_LIMIT).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use varve_common::{ClusterId, Incarnation};
    use varve_replica::metadata::Broker;

    use super::*;

    fn image(ids: &[u32]) -> metadata::Image {
        let mut image = metadata::Image::new(ClusterId::from_random(1), Incarnation(1));
        let broker = |id: &u32| {
            let node = NodeId::new(*id).unwrap();
            (node, Broker { node, epoch: 1, advertised: Vec::new(), rack: None, peer: None, level: 0 })
        };
        image.brokers = Arc::new(ids.iter().map(broker).collect());
        image
    }

    #[test]
    fn whoever_was_there_before_is_not_filled() {
        let mut filling = Filling::default();
        filling.look(&image(&[]));
        filling.look(&image(&[1, 2, 3]));
        assert_eq!(filling.nodes, BTreeMap::new());
        filling.look(&image(&[1, 2, 3, 4]));
        filling.look(&image(&[1, 2, 3, 4]));
        assert_eq!(filling.nodes, [(NodeId::new(4).unwrap(), BTreeSet::new())].into());
        filling.look(&image(&[1, 2, 3]));
        assert_eq!(filling.nodes, BTreeMap::new());
    }

    #[test]
    fn whoever_is_emptied_while_it_is_filled_is_filled_no_more() {
        let holding = |nodes: &[u32]| {
            let mut image = image(&[1, 4]);
            let replicas = nodes.iter().map(|id| ReplicaId::new(NodeId::new(*id).unwrap(), 1).unwrap());
            let partitions = vec![Partition::new(GroupId(1), replicas.collect())];
            let id = varve_common::TopicId::from_random(1);
            let topic =
                metadata::Topic { id, name: "t".into(), created_ms: 0, partitions, configs: BTreeMap::new() };
            image.groups = Arc::new([(GroupId(1), (id, varve_common::PartitionIndex(0)))].into());
            image.topics = Arc::new([(id, Arc::new(topic))].into());
            image
        };
        let mut filling = Filling::default();
        filling.look(&image(&[1]));
        filling.look(&holding(&[1]));
        filling.look(&holding(&[4]));
        assert!(filling.nodes.contains_key(&NodeId::new(4).unwrap()));
        // A topic that is deleted is not taken from it.
        let mut other = Filling { known: filling.known.clone(), nodes: filling.nodes.clone() };
        other.look(&image(&[1, 4]));
        assert!(other.nodes.contains_key(&NodeId::new(4).unwrap()));
        filling.look(&holding(&[1]));
        assert_eq!(filling.nodes, BTreeMap::new());
    }
}
