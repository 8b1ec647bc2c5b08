//! The journal of who is to be in which group.
//!
//! ```text
//!  replicas [a b c]                         Reassign [a b d]           journaled: the leader brings it about
//!  replicas [a b c] target [a b d]          MembersChanged [a b d]     the leader says that it is so
//!  replicas [a b d] founders [a b c]        Reassign [a b c] before that: target is what it was, which ends in the same way
//! ```
//! A replica that left never comes back: of each node only the newest incarnation counts, and ids only grow.

use std::{collections::BTreeSet, sync::Arc};

use varve_common::{GroupId, LogIndex, NodeId, ReplicaId};

use super::{MetadataDone, MetadataRejected, MetadataState, Partition, Topic};

/// The counter of a founder's replica of the metadata.
const FOUNDER_COUNTER: u64 = 1;

impl MetadataState {
    pub(super) fn reassign(
        &mut self,
        group: GroupId,
        target: Vec<ReplicaId>,
    ) -> Result<MetadataDone, MetadataRejected> {
        let (_, _, partition) = self.image.partition_of(group).ok_or(MetadataRejected::UnknownGroup)?;
        if !self.may_become(partition, &target) {
            return Err(MetadataRejected::InvalidReplicas);
        }
        // Nothing under way and nothing asked for: no journal.
        let idle = partition.target.is_empty() && partition.replicas == target;
        self.change_partition(group, |partition| {
            if !idle {
                partition.aim(target);
            }
        })
    }

    /// One replica a node, each handed out, and none that was there before the newest that its node has. Another one takes the
    /// place of one that may vote only where that is lost with its disk: its node would destroy it at once.
    fn may_become(&self, partition: &Partition, target: &[ReplicaId]) -> bool {
        let nodes: BTreeSet<NodeId> = target.iter().map(|replica| replica.node()).collect();
        let counters = &self.image.replica_counters;
        let is_handed_out =
            |replica: &ReplicaId| counters.get(&replica.node()).is_some_and(|next| replica.counter() < *next);
        let is_here = |replica: &ReplicaId| match self.image.metadata_replicas.get(&replica.node()) {
            None => true,
            Some(hosted) => hosted.is_some_and(|first| first < *replica),
        };
        let displaces = |replica: &ReplicaId| {
            partition.known().any(|known| known.node() == replica.node() && is_here(&known))
        };
        let is_sound = |replica: &ReplicaId| {
            let newest = partition.newest_on(replica.node());
            if partition.known().any(|known| known == *replica) {
                return newest == Some(*replica);
            }
            let is_newer = newest.is_none_or(|newest| newest < *replica);
            is_newer && is_handed_out(replica) && is_here(replica) && !displaces(replica)
        };
        !target.is_empty() && nodes.len() == target.len() && target.iter().all(is_sound)
    }

    pub(super) fn members_changed(
        &mut self,
        group: GroupId,
        members: &[ReplicaId],
        version: LogIndex,
    ) -> Result<MetadataDone, MetadataRejected> {
        let (_, _, partition) = self.image.partition_of(group).ok_or(MetadataRejected::UnknownGroup)?;
        if partition.target != members || members.is_empty() || partition.version != version {
            return Err(MetadataRejected::OtherTarget);
        }
        self.change_partition(group, |partition| {
            partition.replicas = std::mem::take(&mut partition.target);
        })
    }

    pub(super) fn replace_replicas(
        &mut self,
        node: u32,
        below: u64,
    ) -> Result<MetadataDone, MetadataRejected> {
        let node = NodeId::new(node).ok_or(MetadataRejected::InvalidNode(node))?;
        let lost = |replica: &ReplicaId| replica.node() == node && replica.counter() < below;
        let groups: Vec<GroupId> = self.image.groups.keys().copied().collect();
        let mut count = 0;
        for group in groups {
            let Some((_, _, partition)) = self.image.partition_of(group) else { continue };
            let Some(gone) = partition.wanted().iter().copied().find(lost) else { continue };
            let next =
                self.image.replica_counters.get(&node).copied().unwrap_or(1).max(below.saturating_add(1));
            let fresh = ReplicaId::new(node, next).ok_or(MetadataRejected::InvalidCount)?;
            Arc::make_mut(&mut self.image.replica_counters).insert(node, next + 1);
            self.change_partition(group, |partition| {
                let wanted = partition.wanted().iter();
                partition.aim(wanted.map(|id| if *id == gone { fresh } else { *id }).collect());
            })?;
            count += 1;
        }
        Ok(MetadataDone::ReplicasReplaced { count })
    }

    pub(super) fn host_metadata(&mut self, node: u32, disk: u64) -> Result<MetadataDone, MetadataRejected> {
        let node = NodeId::new(node).ok_or(MetadataRejected::InvalidNode(node))?;
        // Who asks once more has not heard the answer, and the first request may come after the second.
        let present = self.image.metadata_replicas.get(&node).copied().flatten();
        if let Some(replica) = present.filter(|_| disk != 0 && self.image.disks.get(&node) == Some(&disk)) {
            return Ok(MetadataDone::ReplicaIds { node, first: replica.counter(), count: 1 });
        }
        // The first is the founder's, whoever else was handed it out.
        let first = self.image.replica_counters.get(&node).copied().unwrap_or(1).max(FOUNDER_COUNTER + 1);
        let replica = ReplicaId::new(node, first).ok_or(MetadataRejected::InvalidCount)?;
        Arc::make_mut(&mut self.image.replica_counters).insert(node, first + 1);
        Arc::make_mut(&mut self.image.metadata_replicas).insert(node, Some(replica));
        let disks = Arc::make_mut(&mut self.image.disks);
        disks.remove(&node);
        disks.extend((disk != 0).then_some((node, disk)));
        Ok(MetadataDone::ReplicaIds { node, first, count: 1 })
    }

    pub(super) fn remove_broker(&mut self, node: u32) -> Result<MetadataDone, MetadataRejected> {
        let node = NodeId::new(node).ok_or(MetadataRejected::InvalidNode(node))?;
        let hosts = |partition: &Partition| partition.on(node).is_some();
        if self.image.topics.values().any(|topic| topic.partitions.iter().any(hosts)) {
            return Err(MetadataRejected::BrokerInUse);
        }
        Arc::make_mut(&mut self.image.brokers).remove(&node);
        Arc::make_mut(&mut self.image.metadata_replicas).insert(node, None);
        Arc::make_mut(&mut self.image.disks).remove(&node);
        Ok(MetadataDone::BrokerRemoved)
    }

    /// A new replica whose counter was handed out before its node's disk was lost gets one of now.
    pub(super) fn on_present_disk(&mut self, replica: ReplicaId) -> ReplicaId {
        let node = replica.node();
        let first = self.image.metadata_replicas.get(&node).copied().flatten();
        if first.is_none_or(|first| first < replica) {
            return replica;
        }
        let next = self.image.replica_counters.get(&node).copied().unwrap_or(1);
        let Some(fresh) = ReplicaId::new(node, next) else { return replica };
        Arc::make_mut(&mut self.image.replica_counters).insert(node, next + 1);
        fresh
    }

    fn change_partition(
        &mut self,
        group: GroupId,
        change: impl FnOnce(&mut Partition),
    ) -> Result<MetadataDone, MetadataRejected> {
        let (id, number) = *self.image.groups.get(&group).ok_or(MetadataRejected::UnknownGroup)?;
        let known = self.image.topics.get(&id).ok_or(MetadataRejected::UnknownGroup)?;
        let mut topic: Topic = known.as_ref().clone();
        let place = usize::try_from(number.0).map_err(|_| MetadataRejected::UnknownGroup)?;
        let partition = topic.partitions.get_mut(place).ok_or(MetadataRejected::UnknownGroup)?;
        let before: Vec<ReplicaId> = partition.known().collect();
        change(partition);
        if partition.target.is_empty() {
            // It has come to its target, or never left: who is not in it is gone.
            partition.leaving.clear();
        } else {
            let stays = |id: &ReplicaId| partition.replicas.contains(id) || partition.target.contains(id);
            partition.leaving = before.iter().copied().filter(|id| !stays(id)).collect();
        }
        for gone in before {
            let stays = partition.known().any(|known| known == gone);
            if !stays && partition.left.iter().all(|left| left.node() != gone.node() || *left < gone) {
                partition.left.retain(|left| left.node() != gone.node());
                partition.left.push(gone);
            }
        }
        // The entry that is applied now: `index` moves behind it.
        partition.version = self.index.next();
        let topic = Arc::new(topic);
        Arc::make_mut(&mut self.image.topics).insert(id, Arc::clone(&topic));
        Ok(MetadataDone::Reassigned(topic))
    }
}
