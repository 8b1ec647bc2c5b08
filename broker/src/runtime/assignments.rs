//! Which replicas partitions get: every one has a number of its own, which nobody ever had.

use std::{collections::BTreeMap, time::Duration};

use varve_common::{GroupId, NodeId, ReplicaId, TopicId};
use varve_formats::command::{CreateTopic, MetadataCommand, PartitionAssignment};
use varve_replica::metadata::MetadataRejected;

use super::backend::{ID_BLOCK, NodeBackend};
use crate::{
    controller::Done,
    node::{MetadataRefusal, NewTopic},
};

/// How long a new topic is given until its partitions lead.
const LEAD_LIMIT: Duration = Duration::from_secs(10);

impl NodeBackend {
    /// The first of `count` replica counters of a node that nobody had, in a row, all of them above `above`.
    async fn replica_ids(&self, node: NodeId, count: u32, above: u64) -> Result<u64, MetadataRefusal> {
        let allocate = |wanted: u32| async move {
            let count = wanted.max(ID_BLOCK);
            match self.change(MetadataCommand::AllocateReplicaIds { node: node.get(), count }).await? {
                Done::ReplicaIds { first, count } => Ok((first, u64::from(count))),
                _ => Err(MetadataRefusal::NotController),
            }
        };
        let block = self.replica_ids.of(node);
        let first = block.take(count, allocate).await?;
        // A block from before the node's disk was lost: its numbers are those of replicas that are not hosted any more. Or one from
        // before the block of another node that moved replicas there: what left is never older than what comes.
        let is_old = |replica: ReplicaId| replica.counter() <= above || self.views.image().is_lost(replica);
        if ReplicaId::new(node, first).is_none_or(is_old) {
            block.forget().await;
            return block.take(count, allocate).await;
        }
        Ok(first)
    }

    /// Gives every replica its id.
    async fn incarnate(&self, placed: &[Vec<NodeId>]) -> Result<Vec<PartitionAssignment>, MetadataRefusal> {
        let mut counts = BTreeMap::<NodeId, u32>::new();
        placed.iter().flatten().for_each(|node| *counts.entry(*node).or_default() += 1);
        let mut next = BTreeMap::new();
        for (node, count) in counts {
            next.insert(node, self.replica_ids(node, count, 0).await?);
        }
        let mut incarnate_one = |node: &NodeId| {
            let counter = next.get_mut(node).expect("all of them were counted");
            *counter += 1;
            ReplicaId::new(*node, *counter - 1).ok_or(MetadataRejected::InvalidCount)
        };
        let assignment = |nodes: &Vec<NodeId>| {
            let replicas = nodes.iter().map(&mut incarnate_one).collect::<Result<_, _>>()?;
            Ok(PartitionAssignment { group: 0, replicas })
        };
        placed.iter().map(assignment).collect()
    }

    pub(super) async fn create(self, topic: NewTopic) -> Result<(), MetadataRefusal> {
        let partitions = self.incarnate(&topic.replicas).await?;
        let id = topic.id;
        let command = CreateTopic { id, name: topic.name, partitions, configs: topic.configs };
        self.change(MetadataCommand::CreateTopic(command)).await?;
        self.led(id).await;
        Ok(())
    }

    pub(super) async fn extend(
        self,
        id: TopicId,
        count: usize,
        replicas: Vec<Vec<NodeId>>,
    ) -> Result<(), MetadataRefusal> {
        let partitions = self.incarnate(&replicas).await?;
        let first = u32::try_from(count).map_err(|_| MetadataRejected::InvalidPartitions)?;
        self.change(MetadataCommand::CreatePartitions { id, first, partitions }).await?;
        self.led(id).await;
        Ok(())
    }

    /// A node that holds the partition, or is about to, keeps its replica; the others get new ones.
    pub(super) async fn reassign_to(
        self,
        group: GroupId,
        nodes: Option<Vec<NodeId>>,
    ) -> Result<(), MetadataRefusal> {
        let image = self.views.image();
        let (_, _, partition) = image.partition_of(group).ok_or(MetadataRejected::UnknownGroup)?;
        let mut target = Vec::new();
        match nodes {
            None => target.clone_from(&partition.replicas),
            Some(nodes) => {
                for node in nodes {
                    target.push(match partition.on(node) {
                        Some(replica) if !image.is_lost(replica) => replica,
                        _ => {
                            let above = partition.newest_on(node).map_or(0, ReplicaId::counter);
                            let counter = self.replica_ids(node, 1, above).await?;
                            ReplicaId::new(node, counter).ok_or(MetadataRejected::InvalidCount)?
                        }
                    });
                }
            }
        }
        self.change(MetadataCommand::Reassign { group, target }).await.map(drop)
    }

    /// Clients that create partitions use them at once: gives them a moment to lead.
    async fn led(&self, topic: TopicId) {
        let limit = self.clock.sleep(LEAD_LIMIT);
        tokio::select! { () = self.views.led(topic) => {}, () = limit => {} }
    }
}
