//! Which replica a consumer reads from: a leader names one in the consumer's rack (KIP-392), a follower serves what it may.

use std::{collections::BTreeSet, time::Duration};

use varve_common::{GroupId, NodeId};
use varve_protocol::{ErrorCode, messages::FetchRequest};
use varve_replica::metadata::Topic;

use super::{
    super::{
        access::{Operation, Resource, authorize},
        brokers::{self, wire_id},
        partitions::{self, Served},
    },
    session::Wanted,
};
use crate::{config::FollowerRead, net::Context, node::Node};

/// From this version on consumers say where they stand, and go where they are sent.
const RACKS_FROM: i16 = 11;

/// Who does not wait at all gives the leader so long all the same: with less nothing would ever be served.
const ASK_MIN: Duration = Duration::from_millis(100);

/// How one fetch may be served by replicas that do not lead.
pub struct Replicas {
    /// Where the consumer stands, if it says so.
    rack: Option<String>,
    /// What this node serves without leading it.
    follower_read: FollowerRead,
    /// The groups of which all that was acknowledged before the fetch shows here.
    fresh: BTreeSet<GroupId>,
}

impl Replicas {
    /// What the request allows.
    pub fn of(node: &Node, version: i16, request: &FetchRequest) -> Self {
        let follower_read = if version < RACKS_FROM { FollowerRead::None } else { node.fetch.follower_read };
        let rack = Some(request.rack_id.as_str()).filter(|rack| !rack.is_empty());
        Self {
            rack: rack.filter(|_| follower_read != FollowerRead::None).map(str::to_owned),
            follower_read,
            fresh: BTreeSet::new(),
        }
    }

    /// Asks the leaders of what is followed here, and the client may read, where their records end, if this node promises that. For as
    /// long as the client waits for records: what does not show here by then its leader serves.
    pub async fn freshen(&mut self, node: &Node, context: &Context, wanted: &[Wanted], wait: Duration) {
        if self.follower_read != FollowerRead::Linearizable {
            return;
        }
        let image = node.backend.image();
        let followed = |want: &Wanted| {
            let topic = want.topic.find(&image).ok()?;
            authorize(context, Operation::Read, Resource::Topic(&topic.name)).ok()?;
            let served = partitions::find_to_read(node, topic, want.partition).ok()?;
            served.is_followed.then_some(served.group)
        };
        let followed: Vec<GroupId> = wanted.iter().filter_map(followed).collect();
        if !followed.is_empty() {
            self.fresh = node.backend.read_index(followed, wait.max(ASK_MIN)).await;
        }
    }

    /// The partition of a topic, if this node may serve it.
    pub fn find(&self, node: &Node, topic: &Topic, partition: i32) -> Result<Served, ErrorCode> {
        if self.follower_read == FollowerRead::None {
            return partitions::find(node, topic, partition);
        }
        let served = partitions::find_to_read(node, topic, partition)?;
        let is_stale =
            self.follower_read == FollowerRead::Linearizable && !self.fresh.contains(&served.group);
        // Its leader can serve it, whoever that is now.
        if served.is_followed && is_stale { Err(ErrorCode::NotLeaderOrFollower) } else { Ok(served) }
    }

    /// A replica in the consumer's rack that keeps up, where the leader is not in it. Several share the partitions.
    pub fn nearer(&self, node: &Node, context: &Context, served: &Served) -> Option<i32> {
        let rack = self.rack.as_deref().filter(|_| !served.is_followed && !served.is_damaged)?;
        let image = node.backend.image();
        let stands = |id: NodeId| image.brokers.get(&id).is_some_and(|at| at.rack.as_deref() == Some(rack));
        if stands(node.id) {
            return None;
        }
        let known = node.backend.leadership(served.group).filter(|known| known.leader.node() == node.id)?;
        let nodes = known.in_sync.iter().map(|replica| replica.node());
        let near: Vec<NodeId> =
            nodes.filter(|id| stands(*id) && brokers::is_reachable(node, context, *id)).collect();
        let turn = usize::try_from(served.group.0 % near.len().max(1) as u64).expect("it is below a length");
        near.get(turn).map(|id| wire_id(id.get()))
    }
}
