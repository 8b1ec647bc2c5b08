//! Gives leadership back to the replicas that stand first, once they have kept up for a while ([`crate::preferred`]). Each node
//! does so for what it leads; while its log is pressed, or a partition moves, nothing goes back.

use std::{collections::BTreeMap, time::Duration};

use varve_common::{GroupId, ReplicaId};
use varve_replica::metadata::{Image, Partition};

use super::backend::NodeBackend;
use crate::{node::Backend as _, preferred::Returns};

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a replica is given to lead.
const ELECT_LIMIT: Duration = Duration::from_secs(5);

/// Looks until it is dropped; not at all where nobody asks for it.
pub async fn watch(node: NodeBackend, patience: Option<Duration>) {
    let Some(patience) = patience else { return };
    let mut returns = Returns::new(patience);
    loop {
        node.clock.sleep(INTERVAL).await;
        if node.room.is_crowded() {
            continue;
        }
        let could = could_return(&node, &node.image());
        for (group, replica) in returns.look(node.clock.monotonic(), could) {
            let leads = node.elect(group, replica, ELECT_LIMIT).await;
            tracing::info!(%group, %replica, leads, "leadership goes back to the preferred replica");
            node.metrics.handles.raft_returned.inc_by(u64::from(leads));
            returns.tried(node.clock.monotonic(), group, leads);
        }
    }
}

/// The groups that this node leads, and that the replica that stands first could lead.
fn could_return(node: &NodeBackend, image: &Image) -> BTreeMap<GroupId, ReplicaId> {
    let could = |partition: &Partition| -> Option<(GroupId, ReplicaId)> {
        let first = *partition.replicas.first().filter(|_| partition.target.is_empty())?;
        if first.node() == node.node {
            return None;
        }
        let known = node.leadership(partition.group).filter(|known| known.leader.node() == node.node)?;
        let could = known.in_sync.contains(&first) && node.is_alive(first.node());
        could.then_some((partition.group, first))
    };
    image.topics.values().flat_map(|topic| &topic.partitions).filter_map(could).collect()
}
