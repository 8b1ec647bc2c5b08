//! Nodes that join, and disks that are lost.

use varve_common::{GroupId, NodeId};
use varve_formats::command::MetadataCommand;
use varve_replica::Input;
use varve_wal::testing::MemoryDisk;

use super::{machine::Machine, world::World};
use crate::{model::Model, violation::Checked};

impl World {
    /// The leader of the metadata is asked for a change; nobody waits for the answer.
    pub fn change(&mut self, command: MetadataCommand) -> Checked {
        let Some(to) = self.leader(GroupId::METADATA) else { return Ok(()) };
        self.trace.note(format_args!("to {to}: {command:?}"));
        self.turn(to, Input::Propose { ticket: None, group: GroupId::METADATA, command })
    }

    /// What drivers want of the metadata gets there, where somebody leads it.
    pub(super) fn carry(&mut self, proposals: Vec<MetadataCommand>) -> Checked {
        proposals.into_iter().try_for_each(|command| self.change(command))
    }

    /// A new machine, switched off, which hosts the replica of the metadata that it was given.
    pub fn add(&mut self, id: NodeId) -> Checked {
        self.machines.insert(id, Machine::new(id));
        self.seat(id)
    }

    /// A machine, switched off, gets a new disk.
    pub fn wipe(&mut self, id: NodeId) -> Checked {
        self.wipe_disk(id);
        self.seat(id)
    }

    pub(super) fn wipe_disk(&mut self, id: NodeId) {
        self.trace.note(format_args!("{id} is wiped"));
        let machine = self.machine(id);
        machine.disk = MemoryDisk::default();
        machine.model = Model::with_peers();
        machine.promised.clear();
    }

    fn seat(&mut self, id: NodeId) -> Checked {
        self.until("the node's old self counts as dead", |world| {
            let leader =
                world.leader(GroupId::METADATA).and_then(|leader| world.machines[&leader].node.as_ref());
            leader.is_some_and(|leader| !leader.driver.shard().is_alive(id))
        })?;
        self.ask_for_a_seat(id)?;
        let hosted = |world: &Self| {
            let leader = world.leader(GroupId::METADATA)?;
            let image = world.machines[&leader].image.as_ref()?;
            let replica = image.metadata_replicas.get(&id).copied().flatten()?;
            (replica.counter() > world.machines[&id].metadata).then_some(replica.counter())
        };
        self.until("the node has a replica of the metadata", |world| hosted(world).is_some())?;
        self.machine(id).metadata = hosted(self).unwrap_or_default();
        Ok(())
    }

    /// Under a number of the disk, which another disk does not have.
    pub(super) fn ask_for_a_seat(&mut self, id: NodeId) -> Checked {
        let disk = u64::from(id.get()) << 32 | (self.machines[&id].metadata + 1);
        self.change(MetadataCommand::HostMetadata { node: id.get(), disk })
    }

    /// How many running nodes host a group, as far as the newest metadata goes.
    pub(super) fn hosts(&self, group: GroupId) -> usize {
        let running: Vec<_> = self.machines.values().filter(|machine| machine.node.is_some()).collect();
        let image =
            running.iter().filter_map(|machine| machine.image.as_ref()).max_by_key(|image| image.index);
        let Some((_, _, partition)) = image.and_then(|image| image.partition_of(group)) else {
            return running.len();
        };
        running.iter().filter(|machine| partition.on(machine.id).is_some()).count()
    }

    /// Whether no partition is on its way to other members.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let images = self.machines.values().filter_map(|machine| machine.image.as_ref());
        let Some(image) = images.max_by_key(|image| image.index) else { return false };
        image.topics.values().flat_map(|topic| &topic.partitions).all(|partition| partition.target.is_empty())
    }
}
