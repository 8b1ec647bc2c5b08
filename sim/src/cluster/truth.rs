//! What is committed, put together from what any replica has applied, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet};

use varve_common::{Digest, GroupId, LogIndex, ReplicaId, Term};
use varve_consensus::Role;

use super::machine::Machine;
use crate::{
    checkers::check_log,
    history::History,
    model::Groups,
    node::{CLUSTER, INCARNATION},
    shadow::Shadow,
    violation::{Checked, violation},
};

/// The committed entries of every group, and their states.
pub struct Truth {
    /// All that was applied anywhere.
    pub committed: Groups,
    /// A replica that applies it, and never crashes.
    pub shadow: Shadow,
    leaders: BTreeMap<(GroupId, Term), ReplicaId>,
    hashes: BTreeMap<(GroupId, LogIndex), Digest>,
}

impl Default for Truth {
    fn default() -> Self {
        Self {
            committed: Groups::default(),
            shadow: Shadow::new(CLUSTER, INCARNATION),
            leaders: BTreeMap::new(),
            hashes: BTreeMap::new(),
        }
    }
}

impl Truth {
    /// How many leaders there were.
    #[must_use]
    pub fn leaders(&self) -> usize {
        self.leaders.len()
    }

    /// Looks at what a node leads, and at what it applied since it was last looked at.
    pub fn observe(&mut self, machine: &mut Machine) -> Checked {
        let Some(node) = &machine.node else { return Ok(()) };
        let shard = node.driver.shard();
        for group in shard.groups() {
            let Some(replica) = shard.replica(group) else { continue };
            if replica.role == Role::Leader {
                let leads = *self.leaders.entry((group, replica.term)).or_insert(replica.replica);
                if leads != replica.replica {
                    let detail =
                        format!("{group}: {leads:?} and {:?} lead {}", replica.replica, replica.term);
                    return Err(violation("R1", detail));
                }
            }
            let first = machine.applied.get(&group).copied().unwrap_or_default();
            machine.applied.insert(group, replica.applied);
            if node.failed {
                continue;
            }
            let durable = machine.model.durable.0.get(&group);
            // A checkpoint takes the place of a log that does not hold its last entry. Until that is durable the log is still
            // there, and may hold what nobody else ever did.
            let (truncated, term) = replica.truncated;
            let held = durable.and_then(|durable| durable.entries.get(&truncated));
            let first =
                if held.is_some_and(|entry| entry.term == term) { first } else { first.max(truncated) };
            for index in first.0 + 1..=replica.applied.0 {
                let entry = durable.and_then(|durable| durable.entries.get(&LogIndex(index)));
                let Some(entry) = entry else {
                    // What was cut before, or what a checkpoint of the bucket stands for.
                    if LogIndex(index) <= replica.truncated.0 {
                        continue;
                    }
                    let detail = format!("{group}: {:?} applied {index}, not durable there", replica.replica);
                    return Err(violation("R4", detail));
                };
                self.committed.commit(group, replica.replica, entry)?;
            }
        }
        Ok(())
    }

    /// R9, S1, S3: at equal indexes states are equal, on all nodes and in the shadow.
    pub fn compare(&mut self, machine: &Machine) -> Checked {
        let Some(node) = &machine.node else { return Ok(()) };
        let shard = node.driver.shard();
        for group in shard.groups() {
            let Some((index, hash)) = shard.state_hash(group) else { continue };
            let first = *self.hashes.entry((group, index)).or_insert(hash);
            let shadow = self.shadow.hash_at(&self.committed, group, index)?;
            if first != hash || shadow.is_some_and(|shadow| shadow != hash) {
                let detail = format!("{group}: the state at {index} on {} is another", machine.id);
                return Err(violation("R9", detail));
            }
        }
        Ok(())
    }

    /// H1-H4, H6, H7, H13 over every partition that nobody deleted: of those the end may never be looked at.
    pub fn check_logs(&self, history: &History, deleted: &BTreeSet<GroupId>) -> Checked {
        let lives = |group: &GroupId| *group != GroupId::METADATA && !deleted.contains(group);
        let partitions = self.committed.0.iter().filter(|(group, _)| lives(group));
        for (group, model) in partitions {
            check_log(*group, model, history)?;
        }
        Ok(())
    }
}
