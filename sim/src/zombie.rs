//! What a leader of an earlier term leaves behind: a command with a stale fence in the log (B3, T40).

use std::sync::Arc;

use rand::RngExt;
use varve_common::GroupId;
use varve_formats::command::{Command, Fence, TierTrim, TrimCause};
use varve_replica::partition::PartitionState;
use varve_wal::{Entry, GroupRecord, Record};

use crate::{
    bugs::Bug,
    node::{OpenedLog, Start, open_log},
    violation::{Checked, violation},
    world::World,
};

impl World {
    /// Now and then puts a zombie's trim behind the last entry of some partition, durably, and opens the log anew. It
    /// would be legal but for its fence. `None` where the disk did not let it.
    pub fn haunt(&mut self, mut log: OpenedLog, start: &Start<'_>) -> Checked<Option<OpenedLog>> {
        if self.random.random_range(0..100) >= self.plan.zombies {
            return Ok(Some(log));
        }
        let healthy = |id: &&GroupId| **id != GroupId::METADATA && !self.model.damaged.contains(id);
        let groups: Vec<GroupId> = log.recovery.groups.keys().filter(healthy).copied().collect();
        if groups.is_empty() {
            return Ok(Some(log));
        }
        let group = groups[self.random.random_range(0..groups.len())];
        let Some(record) = self.stale_command(group)? else { return Ok(Some(log)) };
        self.trace.note(format_args!("a zombie trims {group}"));
        self.model.writing(vec![record.clone()]);
        let written = log.writer.append(&[record]).is_ok() && log.writer.sync().is_ok();
        if !written {
            return Ok(None);
        }
        self.model.synced();
        self.counts.zombies += 1;
        drop(log);
        let log = open_log(&self.disk, start).map_err(|error| violation("W2", error.to_string()))?;
        self.model.recovered(&log.recovery, &log.reader, self.rotten)?;
        Ok(Some(log))
    }

    /// Between two lives a zombie leaves such a command in the log of a partition, durably: the one that `command` makes
    /// of the committed state and of a fence that was overtaken.
    pub fn leave_behind(
        &mut self,
        group: GroupId,
        command: impl FnOnce(&PartitionState, Fence) -> Command,
    ) -> Checked {
        assert!(self.node.is_none(), "a zombie writes where nobody else does");
        let seed = self.random.random();
        let (plan, clock, remote) = (self.plan.clone(), self.clock.clone(), Arc::clone(&self.remote.1));
        let start = Start { clock: &clock, seed, plan: &plan, bug: self.bug, remote: &remote, seat: None };
        let mut log = open_log(&self.disk, &start).map_err(|error| violation("W2", error.to_string()))?;
        self.check_recovered(&log)?;
        let record = self.stale_record(group, command)?.expect("the partition's manifest has changed before");
        self.model.writing(vec![record.clone()]);
        log.writer.append(&[record]).map_err(|error| violation("W6", error.to_string()))?;
        log.writer.sync().map_err(|error| violation("W4", error.to_string()))?;
        self.model.synced();
        self.counts.zombies += 1;
        Ok(())
    }

    fn stale_command(&mut self, group: GroupId) -> Checked<Option<GroupRecord>> {
        self.stale_record(group, |state, fence| {
            let log_start = state.bucket().log_start.next();
            Command::TierTrim(TierTrim { fence, log_start, cause: TrimCause::DeleteRecords })
        })
    }

    fn stale_record(
        &mut self,
        group: GroupId,
        command: impl FnOnce(&PartitionState, Fence) -> Command,
    ) -> Checked<Option<GroupRecord>> {
        let time_ms = self.wall_ms();
        let (shadow, durable) = (&mut self.shadow, &self.model.durable);
        let Some(state) = Bug::without(self.bug, || shadow.partition(durable, group))? else {
            return Ok(None);
        };
        let Some(model) = durable.0.get(&group) else { return Ok(None) };
        let (index, term) = model.last();
        let (start, end, seq) =
            (state.bucket().log_start, state.records().log_end, state.bucket().manifest_seq);
        if seq == 0 || start >= end {
            return Ok(None);
        }
        let data = command(state, Fence { term, manifest_seq: seq - 1 }).encode(term, time_ms);
        let entry = Entry { index: index.next(), term, kind: 0, offset: end, data };
        Ok(Some(GroupRecord { group, replica: model.replica, record: Record::Entries(vec![entry]) }))
    }
}
