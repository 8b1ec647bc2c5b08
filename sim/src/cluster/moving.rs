//! The scheduler of [`super::run`], while an operator moves replicas, nodes join, and disks are lost.

use rand::RngExt;
use varve_common::{GroupId, NodeId, ReplicaId};
use varve_formats::command::MetadataCommand;
use varve_replica::metadata::{Image, Partition};

use super::{
    machine::Machine,
    run::{Outcome, watch},
    world::World,
};
use crate::{trace::Trace, violation::Checked};

/// Steps of a run.
const STEPS: usize = 5_000;
/// Steps between two thoughts of the operator.
const THINKS: usize = 40;
/// When others join.
const JOINS: usize = 600;

/// Runs a seed with three nodes that become four, or six: then whole sets of replicas move, and are often called off.
#[must_use]
pub fn run_moving(seed: u64, trace: Trace) -> Outcome {
    let mut world = World::new(seed, 3, trace);
    if seed.is_multiple_of(3) {
        world = world.keeping_logs();
    }
    let last = if seed.is_multiple_of(2) { 4 } else { 6 };
    watch(seed, world, |world| world.run_moving(last))
}

/// The same where records are on nodes only; every other seed has no store at all.
#[must_use]
pub fn run_streaming(seed: u64, trace: Trace) -> Outcome {
    let world = World::new(seed, 3, trace).streaming(seed.is_multiple_of(2));
    watch(seed, world, |world| world.run_moving(4))
}

impl World {
    fn run_moving(&mut self, last: u32) -> Checked {
        for id in self.ids() {
            self.start(id)?;
        }
        self.elect()?;
        // Far beyond what the simulated clients draw for new topics.
        for id in 1..=last {
            self.change(MetadataCommand::AllocateReplicaIds { node: id, count: 10_000 })?;
        }
        self.round()?;
        for step in 0..STEPS {
            self.step()?;
            self.bury()?;
            self.seat_some(step)?;
            if step == JOINS {
                for id in (4..=last).filter_map(NodeId::new) {
                    self.machines.insert(id, Machine { unseated: Some(0), ..Machine::new(id) });
                }
            }
            if step % THINKS == 0 {
                self.think()?;
            }
        }
        self.network.cut.clear();
        let seated = |world: &Self| world.machines.values().all(|machine| machine.unseated.is_none());
        for round in 0..200 {
            for id in self.ids() {
                if self.machines[&id].disk.is_dead() {
                    self.crash(id, false)?;
                }
                if self.machines[&id].node.is_none() {
                    self.machine(id).disk.forget_faults();
                    self.start(id)?;
                }
            }
            if seated(self) {
                break;
            }
            self.round()?;
            self.seat_some(round * 300)?;
        }
        self.make_peace()
    }

    fn newest_image(&self) -> Option<std::sync::Arc<Image>> {
        let leader = self.leader(GroupId::METADATA)?;
        self.machines[&leader].image.clone()
    }

    /// Machines without a replica of the metadata ask for one, and take the newest that they are given.
    fn seat_some(&mut self, step: usize) -> Checked {
        for id in self.ids() {
            let Some(asked) = self.machines[&id].unseated else { continue };
            let Some(image) = self.newest_image() else { continue };
            let given = image.metadata_replicas.get(&id).copied().flatten();
            let given = given.map(ReplicaId::counter).filter(|given| *given > self.machines[&id].metadata);
            if let Some(given) = given {
                self.trace.note(format_args!("{id} has metadata replica {given}"));
                self.machine(id).metadata = given;
                self.machine(id).unseated = None;
            } else if asked == 0 || step >= asked + 400 {
                self.machine(id).unseated = Some(step.max(1));
                self.ask_for_a_seat(id)?;
            }
        }
        Ok(())
    }

    /// The operator does something about members.
    fn think(&mut self) -> Checked {
        let Some(image) = self.newest_image() else { return Ok(()) };
        let partitions: Vec<Partition> =
            image.topics.values().flat_map(|topic| topic.partitions.clone()).collect();
        if partitions.is_empty() {
            return Ok(());
        }
        let partition = &partitions[self.random.random_range(0..partitions.len())];
        let group = partition.group;
        let roll = self.random.random_range(0..10);
        match roll {
            0..5 if partition.target.is_empty() => self.reassign(&image, partition),
            0..6 if !partition.target.is_empty() && (self.machines.len() > 4 || roll == 5) => {
                let target = partition.replicas.clone();
                self.change(MetadataCommand::Reassign { group, target })
            }
            6 | 7 => self.lose_a_disk(&partitions),
            _ => Ok(()),
        }
    }

    /// One replica goes elsewhere, or one more comes, or goes.
    fn reassign(&mut self, image: &Image, partition: &Partition) -> Checked {
        let nodes: Vec<NodeId> = self.ids().into_iter().filter(|id| partition.on(*id).is_none()).collect();
        let mut target = partition.replicas.clone();
        if nodes.len() >= 2 && self.random.random_bool(0.6) {
            return self.reassign_all(image, partition, nodes);
        }
        let place = self.random.random_range(0..target.len());
        if nodes.is_empty() {
            target.remove(place);
        } else {
            let node = nodes[self.random.random_range(0..nodes.len())];
            let next = image.replica_counters.get(&node).copied().unwrap_or(1);
            self.change(MetadataCommand::AllocateReplicaIds { node: node.get(), count: 1 })?;
            let Some(fresh) = ReplicaId::new(node, next) else { return Ok(()) };
            if self.random.random_bool(0.2) {
                target.push(fresh);
            } else {
                target[place] = fresh;
            }
        }
        self.change(MetadataCommand::Reassign { group: partition.group, target })
    }

    /// Most of its replicas go elsewhere at once.
    fn reassign_all(&mut self, image: &Image, partition: &Partition, mut nodes: Vec<NodeId>) -> Checked {
        let mut target = partition.replicas.clone();
        for place in &mut target {
            if nodes.is_empty() || self.random.random_bool(0.2) {
                continue;
            }
            let node = nodes.remove(self.random.random_range(0..nodes.len()));
            let next = image.replica_counters.get(&node).copied().unwrap_or(1);
            self.change(MetadataCommand::AllocateReplicaIds { node: node.get(), count: 1 })?;
            let Some(fresh) = ReplicaId::new(node, next) else { return Ok(()) };
            *place = fresh;
        }
        self.change(MetadataCommand::Reassign { group: partition.group, target })
    }

    /// One at a time, and none whose groups would be left with too few: a lost disk counts as one that is down for good, until
    /// others stand in its place.
    fn lose_a_disk(&mut self, partitions: &[Partition]) -> Checked {
        let id = {
            let ids = self.ids();
            ids[self.random.random_range(0..ids.len())]
        };
        let is_lost = |world: &Self, replica: &ReplicaId| {
            let machine = world.machines.get(&replica.node());
            machine.is_none_or(|machine| machine.unseated.is_some() || replica.counter() < machine.metadata)
        };
        let leader = self.leader(GroupId::METADATA).and_then(|leader| self.machines[&leader].node.as_ref());
        let members = leader.and_then(|node| node.driver.shard().membership(GroupId::METADATA));
        let members = members.unwrap_or_default();
        let whole = |world: &Self, replicas: &[ReplicaId]| {
            replicas.len() >= 3 && !replicas.iter().any(|replica| is_lost(world, replica))
        };
        // And everybody knows it: members count from when a change is applied.
        let told = self.machines.values().filter_map(|machine| machine.node.as_ref()).all(|node| {
            let shard = node.driver.shard();
            shard.groups().into_iter().all(|group| {
                let members = shard.membership(group).unwrap_or_default();
                members.voters_outgoing.is_empty() && whole(self, &members.voters)
            })
        });
        // Nor is anything on its way there: whoever has just asked for two replicas has asked for a group that one disk more stops,
        // whether its loss comes a moment before the change or a moment behind it.
        let nothing_asked = self.machines.values().filter_map(|machine| machine.node.as_ref()).all(|node| {
            let metadata = node.driver.shard().replica(GroupId::METADATA);
            metadata.is_some_and(|replica| replica.applied == replica.last)
        });
        let calm = told
            && nothing_asked
            && self.machines.values().all(|machine| machine.node.is_some())
            && members.voters_outgoing.is_empty()
            && whole(self, &members.voters)
            && partitions.iter().all(|each| each.target.is_empty() && whole(self, &each.replicas))
            && self.machines.values().all(|machine| machine.unseated.is_none());
        if !calm {
            return Ok(());
        }
        self.crash(id, true)?;
        self.wipe_disk(id);
        self.machine(id).unseated = Some(0);
        Ok(())
    }
}
