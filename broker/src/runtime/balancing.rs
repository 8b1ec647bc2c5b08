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

use super::backend::NodeBackend;
use crate::{balance, node::Backend as _};

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a replica that came to its node is given to lead.
const ELECT_LIMIT: Duration = Duration::from_secs(5);

/// Who is to be filled.
#[derive(Default)]
struct Filling {
    known: Option<BTreeSet<NodeId>>,
    nodes: BTreeSet<NodeId>,
}

impl Filling {
    /// Nodes that were not there at the last look have joined; those of the first look were there before this process.
    fn look(&mut self, image: &metadata::Image) {
        let present: BTreeSet<NodeId> = image.brokers.keys().copied().collect();
        if let Some(known) = self.known.replace(present.clone()).filter(|known| !known.is_empty()) {
            self.nodes.extend(present.difference(&known));
        }
        self.nodes.retain(|node| present.contains(node));
    }
}

/// Looks until it is dropped.
pub async fn watch(node: NodeBackend) {
    let mut filling = Filling::default();
    loop {
        node.clock.sleep(INTERVAL).await;
        let image = node.image();
        filling.look(&image);
        let Some(next) = filling.nodes.first().copied() else { continue };
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

    #[test]
    fn whoever_was_there_before_is_not_filled() {
        let image = |ids: &[u32]| {
            let mut image = metadata::Image::new(ClusterId::from_random(1), Incarnation(1));
            let broker = |id: &u32| {
                let node = NodeId::new(*id).unwrap();
                (node, Broker { node, epoch: 1, advertised: Vec::new(), rack: None, peer: None })
            };
            image.brokers = Arc::new(ids.iter().map(broker).collect());
            image
        };
        let mut filling = Filling::default();
        filling.look(&image(&[]));
        filling.look(&image(&[1, 2, 3]));
        assert_eq!(filling.nodes, BTreeSet::new());
        filling.look(&image(&[1, 2, 3, 4]));
        filling.look(&image(&[1, 2, 3, 4]));
        assert_eq!(filling.nodes, [NodeId::new(4).unwrap()].into());
        filling.look(&image(&[1, 2, 3]));
        assert_eq!(filling.nodes, BTreeSet::new());
    }
}
