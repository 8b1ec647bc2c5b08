//! A second replica that never crashes: it applies the durable entries, from the first on, without any seeded bug.
//!
//! Where the node has applied the same index its state must hash alike (R9, S1, S3): whatever restarts, checkpoints and
//! truncations lie between.

use std::collections::BTreeMap;

use varve_common::{ClusterId, Digest, GroupId, Incarnation, LogIndex};
use varve_replica::{LogEntry, PartitionIdentity, metadata::MetadataState, partition::PartitionState};

use crate::{
    model::Groups,
    violation::{Checked, violation},
};

enum Machine {
    Partition(Box<PartitionState>),
    Metadata(Box<MetadataState>),
}

/// The states of all groups.
pub struct Shadow {
    cluster: ClusterId,
    incarnation: Incarnation,
    machines: BTreeMap<GroupId, Machine>,
}

impl Shadow {
    /// Before the first entry.
    #[must_use]
    pub fn new(cluster: ClusterId, incarnation: Incarnation) -> Self {
        let metadata = Machine::Metadata(Box::new(MetadataState::new(cluster, incarnation)));
        Self { cluster, incarnation, machines: [(GroupId::METADATA, metadata)].into() }
    }

    /// Applies what is durable up to `index` and gives the hash there; `None` where it is further already, or the
    /// group is unknown.
    pub fn hash_at(&mut self, durable: &Groups, group: GroupId, index: LogIndex) -> Checked<Option<Digest>> {
        if group != GroupId::METADATA && !self.machines.contains_key(&group) {
            self.advance(durable, GroupId::METADATA, LogIndex(u64::MAX))?;
            self.adopt(group);
        }
        self.advance(durable, group, index)?;
        let Some(machine) = self.machines.get(&group) else { return Ok(None) };
        let (applied, hash) = match machine {
            Machine::Partition(state) => (state.applied().0, state.hash()),
            Machine::Metadata(state) => (state.applied().0, state.hash()),
        };
        if applied < index {
            let detail = format!("{group} has applied {index} and only {applied} is durable");
            return Err(violation("R4", detail));
        }
        Ok((applied == index).then_some(hash))
    }

    /// A partition's state, as far as it was applied.
    pub fn partition(&mut self, durable: &Groups, group: GroupId) -> Checked<Option<&PartitionState>> {
        if !self.machines.contains_key(&group) {
            self.advance(durable, GroupId::METADATA, LogIndex(u64::MAX))?;
            self.adopt(group);
        }
        self.advance(durable, group, LogIndex(u64::MAX))?;
        Ok(match self.machines.get(&group) {
            Some(Machine::Partition(state)) => Some(state),
            _ => None,
        })
    }

    /// The metadata, as far as it is durable.
    pub fn metadata(&mut self, durable: &Groups) -> Checked<&MetadataState> {
        self.advance(durable, GroupId::METADATA, LogIndex(u64::MAX))?;
        match self.machines.get(&GroupId::METADATA) {
            Some(Machine::Metadata(state)) => Ok(state),
            _ => unreachable!("the shadow begins with it"),
        }
    }

    fn adopt(&mut self, group: GroupId) {
        let Some(Machine::Metadata(metadata)) = self.machines.get(&GroupId::METADATA) else { return };
        let image = metadata.image();
        let Some((topic, partition, _)) = image.partition_of(group) else { return };
        let identity = PartitionIdentity {
            cluster: self.cluster,
            incarnation: self.incarnation,
            topic_id: topic.id,
            topic: topic.name.to_string(),
            partition,
        };
        self.machines.insert(group, Machine::Partition(Box::new(PartitionState::new(identity))));
    }

    fn advance(&mut self, durable: &Groups, group: GroupId, to: LogIndex) -> Checked {
        let (Some(machine), Some(model)) = (self.machines.get_mut(&group), durable.0.get(&group)) else {
            return Ok(());
        };
        let applied = match machine {
            Machine::Partition(state) => state.applied().0,
            Machine::Metadata(state) => state.applied().0,
        };
        for entry in model.entries.range(applied.next()..).map(|(_, entry)| entry) {
            if entry.index > to {
                break;
            }
            let entry = LogEntry {
                index: entry.index,
                term: entry.term,
                kind: entry.kind,
                offset: entry.offset,
                data: entry.data.clone(),
            };
            let result = match machine {
                Machine::Partition(state) => state.apply(&entry).map(drop),
                Machine::Metadata(state) => state.apply(&entry).map(drop),
            };
            result.map_err(|error| violation("R9", format!("{group}: entry {}: {error}", entry.index)))?;
        }
        Ok(())
    }
}
