//! How groups come to the members that the metadata wants them to have.
//!
//! ```text
//!  image: partition [a b c], target [a b d]          Reassign, or ReplaceReplicas for a disk that is lost
//!     node of d: sweeps, opens d as a learner        its leader sends it to a checkpoint, then the log
//!     node that leads: a step a tick                 consensus::next_step; settled ──> MembersChanged
//!  image: partition [a b d]                          node of c: closes c, its mark and files
//! ```
//! A leader that acts on an older image may undo what was done, and one that was deposed may say too early that it is done: now
//! and then every group that is led here is held against the image.
//! Everything follows from the image and from what the leader has applied: whoever leads next goes on from there. The
//! metadata's own group needs no journal: the image says which replica of it each node hosts.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use varve_common::{GroupId, LogIndex, NodeId, ReplicaId};
use varve_consensus::{Membership, Wanted};
use varve_formats::command::MetadataCommand;
use varve_replica::{Now, metadata::Image};

use super::{Driver, Event, Ports};

/// Voters of the metadata, where there are nodes enough.
const METADATA_VOTERS: usize = 3;
/// Ticks between two of the same proposal: the first may be on its way.
const PATIENCE: u64 = 10;
/// Ticks between two looks at all groups.
const LOOK: u64 = 10;

/// What is on the way on this node.
#[derive(Default)]
pub(super) struct Moves {
    image: Option<Arc<Image>>,
    /// What it says of a disk of this node that is lost.
    lost: Option<(NodeId, u64)>,
    /// Groups with a target.
    moving: BTreeSet<GroupId>,
    /// Groups of which nothing is to be left: they are gone, or open once nothing is left of an earlier replica; `true` where that
    /// goes already.
    sweeps: BTreeMap<GroupId, bool>,
    /// Swept since this was last looked at.
    swept: Vec<GroupId>,
    ticks: u64,
    /// When each group's end was last proposed; under the metadata's number the replacement of lost replicas.
    said: BTreeMap<GroupId, u64>,
    proposals: Vec<MetadataCommand>,
}

impl Moves {
    pub(super) fn note(&mut self, image: &Arc<Image>, lost: Option<(NodeId, u64)>) {
        let targets = image.topics.values().flat_map(|topic| &topic.partitions);
        let targets = targets.filter(|partition| !partition.target.is_empty());
        self.moving = targets.map(|partition| partition.group).collect();
        if !image.metadata_replicas.is_empty() {
            self.moving.insert(GroupId::METADATA);
        }
        self.said.retain(|group, _| self.moving.contains(group) || *group == GroupId::METADATA);
        self.image = Some(Arc::clone(image));
        self.lost = lost;
    }

    /// The newest that was acted on.
    pub(super) fn image(&self) -> Option<&Image> {
        self.image.as_deref()
    }

    pub(super) fn sweep(&mut self, group: GroupId) {
        self.sweeps.entry(group).or_insert(false);
    }

    pub(super) fn swept(&mut self, group: GroupId) {
        if self.sweeps.remove(&group).is_some() {
            self.swept.push(group);
        }
    }

    fn say(&mut self, about: GroupId, command: MetadataCommand) {
        let due = self.said.get(&about).is_none_or(|said| self.ticks >= said + PATIENCE);
        if due {
            self.said.insert(about, self.ticks);
            self.proposals.push(command);
        }
    }
}

impl Driver {
    /// A step for every group that is led here and is to have other members.
    pub(super) fn move_members(&mut self, now: Now) {
        self.moves.ticks += 1;
        let Some(image) = self.moves.image.clone().filter(|_| !self.failed && self.knows_the_metadata())
        else {
            return;
        };
        if self.moves.ticks.is_multiple_of(LOOK) && self.shard.has_peers() {
            let partitions = image.topics.values().flat_map(|topic| &topic.partitions);
            let astray = partitions.filter(|each| self.shard.is_led_astray(each.group, each.wanted()));
            self.moves.moving.extend(astray.map(|each| each.group));
        }
        for group in self.moves.moving.clone() {
            let Some(wanted) = self.wanted(group, &image) else { continue };
            let settled = self.shard.move_members(now, group, &wanted, &mut self.effects);
            let partition = image.partition_of(group).filter(|(_, _, each)| !each.target.is_empty());
            if let Some((_, _, partition)) = partition.filter(|_| settled == Some(true)) {
                let version = partition.version;
                self.moves
                    .say(group, MetadataCommand::MembersChanged { group, members: wanted.voters, version });
            }
        }
        if let Some((node, below)) = self.moves.lost {
            let command = MetadataCommand::ReplaceReplicas { node: node.get(), below };
            self.moves.say(GroupId::METADATA, command);
        }
    }

    /// Whether the metadata here is as new as its leader says.
    fn knows_the_metadata(&self) -> bool {
        let replica = self.shard.replica(GroupId::METADATA);
        replica.is_some_and(|replica| replica.leader.is_some() && replica.applied == replica.commit)
    }

    fn wanted(&self, group: GroupId, image: &Image) -> Option<Wanted> {
        if group == GroupId::METADATA {
            return Some(metadata_wanted(image, &self.shard.membership(group)?));
        }
        let (_, _, partition) = image.partition_of(group)?;
        let (voters, version) = (partition.wanted().to_vec(), partition.version);
        Some(Wanted { voters, learners: Vec::new(), version })
    }

    /// Says what is to be said, and opens what nothing stands in the way of any more.
    pub(super) fn perform_moves<P: Ports>(&mut self, queue: &mut VecDeque<Event>, ports: &mut P) {
        self.moves.proposals.drain(..).for_each(|command| ports.propose(command));
        for (group, goes) in self.moves.sweeps.iter_mut().filter(|(_, goes)| !**goes) {
            // The replica before is closed first, and a job of it may still write.
            let is_here = self.shard.replica(*group).is_some() || self.shard.lingers(*group);
            if !is_here {
                *goes = true;
                ports.sweep(*group);
            }
        }
        let swept = std::mem::take(&mut self.moves.swept);
        let Some(image) = self.moves.image.clone().filter(|_| !swept.is_empty()) else { return };
        let back: Vec<GroupId> = swept.into_iter().filter(|group| image.groups.contains_key(group)).collect();
        if !back.is_empty() {
            back.into_iter().for_each(|group| self.groups.swept(group));
            self.reconcile(&image, queue, ports);
            self.groups.forget_swept();
            queue.extend(self.meet(Some(&image)));
        }
    }
}

/// Who is to be in the metadata's group: of each node the replica that it hosts. Voters keep their seats, or hand them to the
/// replica that takes their place on their node, or else to the learner on the lowest node; there are three where there
/// are nodes enough.
fn metadata_wanted(image: &Image, membership: &Membership) -> Wanted {
    let hosts = &image.metadata_replicas;
    let stays = |replica: &ReplicaId| match hosts.get(&replica.node()) {
        None => true,
        Some(hosted) => *hosted == Some(*replica),
    };
    let mut voters: Vec<ReplicaId> = membership.voters.iter().copied().filter(stays).collect();
    let lost: Vec<NodeId> =
        membership.voters.iter().filter(|replica| !stays(replica)).map(|replica| replica.node()).collect();
    let learners = membership.learners.iter().copied().filter(stays);
    let mut others: BTreeSet<ReplicaId> = learners.chain(hosts.values().copied().flatten()).collect();
    others.retain(|replica| !voters.contains(replica));
    let heirs = lost.iter().filter_map(|node| others.iter().copied().find(|other| other.node() == *node));
    voters.extend(heirs.collect::<Vec<_>>());
    let nodes = voters.len() + others.iter().filter(|other| !voters.contains(other)).count();
    // Of an even number one is a guest: the heir of a voter that is about to go, say.
    let odd = membership.voters.len().saturating_sub(1) | 1;
    let seats = odd.max(if nodes >= METADATA_VOTERS { METADATA_VOTERS } else { 0 });
    for other in &others {
        if voters.len() < seats && !voters.contains(other) {
            voters.push(*other);
        }
    }
    let learners = others.into_iter().filter(|other| !voters.contains(other)).collect();
    // Its image is its own log: no leader knows an older one.
    Wanted { voters, learners, version: LogIndex::ZERO }
}

#[cfg(test)]
mod tests {
    use varve_common::{ClusterId, Incarnation};

    use super::*;

    fn id(node: u32, counter: u64) -> ReplicaId {
        ReplicaId::new(NodeId::new(node).unwrap(), counter).unwrap()
    }

    fn wanted(hosts: &[(u32, Option<u64>)], voters: &[u32], learners: &[ReplicaId]) -> Wanted {
        let mut image = Image::new(ClusterId::from_random(1), Incarnation(1));
        let host = |(node, counter): &(u32, Option<u64>)| {
            (NodeId::new(*node).unwrap(), counter.map(|counter| id(*node, counter)))
        };
        image.metadata_replicas = Arc::new(hosts.iter().map(host).collect());
        let voters = voters.iter().map(|node| id(*node, 1)).collect();
        metadata_wanted(&image, &Membership { voters, learners: learners.to_vec(), ..Membership::default() })
    }

    fn metadata(voters: Vec<ReplicaId>, learners: Vec<ReplicaId>) -> Wanted {
        Wanted { voters, learners, version: LogIndex::ZERO }
    }

    #[test]
    fn a_node_that_joins_learns_the_metadata_and_three_vote() {
        let founders = vec![id(1, 1), id(2, 1), id(3, 1)];
        let joins = wanted(&[(4, Some(2))], &[1, 2, 3], &[]);
        assert_eq!(joins, metadata(founders, vec![id(4, 2)]));
        let second = wanted(&[(2, Some(2))], &[1], &[]);
        assert_eq!(second, metadata(vec![id(1, 1)], vec![id(2, 2)]));
        let third = wanted(&[(2, Some(2)), (3, Some(2))], &[1], &[id(2, 2)]);
        assert_eq!(third.voters, [id(1, 1), id(2, 2), id(3, 2)]);
    }

    #[test]
    fn a_lost_founders_new_replica_takes_its_seat() {
        let lost = wanted(&[(2, Some(5)), (4, Some(2))], &[1, 2, 3], &[id(4, 2)]);
        assert_eq!(lost, metadata(vec![id(1, 1), id(3, 1), id(2, 5)], vec![id(4, 2)]));
    }

    #[test]
    fn a_node_that_left_gives_its_seat_to_a_learner() {
        let left = wanted(&[(2, None), (4, Some(2)), (5, Some(2))], &[1, 2, 3], &[id(4, 2), id(5, 2)]);
        assert_eq!(left, metadata(vec![id(1, 1), id(3, 1), id(4, 2)], vec![id(5, 2)]));
        // The first leads and goes: its heir votes already, and nobody takes the seat that it leaves.
        let hosts = [(1, None), (4, Some(1)), (5, Some(2))];
        let heir = wanted(&hosts, &[1, 2, 3, 4], &[id(5, 2)]);
        assert_eq!(heir, metadata(vec![id(2, 1), id(3, 1), id(4, 1)], vec![id(5, 2)]));
        let nobody = wanted(&[(2, None)], &[1, 2, 3], &[]);
        assert_eq!(nobody.voters, [id(1, 1), id(3, 1)]);
    }
}
