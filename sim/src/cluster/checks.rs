//! What is looked at while a cluster runs: writes before they are written, reads when they end.

use std::sync::Arc;

use varve_common::{GroupId, LogIndex, NodeId, Offset};
use varve_replica::{PeerInput, partition::BucketState};
use varve_tiering::ReadError;
use varve_wal::{GroupRecord, Record};

use super::world::World;
use crate::{
    checkers::check_read,
    cut::{check_cut, check_unsealed},
    jobs::ReadDone,
    violation::{Checked, violation},
};

impl World {
    /// F3: who is told that it leads shows all that was acknowledged before it asked.
    pub(super) fn check_confirmed(&mut self, id: NodeId, ticket: u64, confirmed: bool) -> Checked {
        if let Some(asked) = self.consumers.confirmed(id, ticket) {
            return self.fetch_offsets(id, asked, confirmed);
        }
        let Some((group, floor)) = self.confirming.remove(&(id, ticket)).filter(|_| confirmed) else {
            return Ok(());
        };
        self.counts.confirmed += 1;
        let shown = self.machines[&id].views.get(&group).map(|view| view.high_watermark);
        if shown < Some(floor) && !self.clients.deleted.contains(&group) {
            let detail = format!("{id}: {group} shows {shown:?}, {floor} was acknowledged before");
            return Err(violation("F3", detail));
        }
        Ok(())
    }

    /// Somebody who believes that it leads asks the others.
    pub fn confirm(&mut self, id: NodeId) -> Checked {
        let views = self.machines[&id].views.iter();
        let led: Vec<GroupId> = views.filter(|(_, view)| view.ready).map(|(group, _)| *group).collect();
        for group in led {
            self.counts.asked += 1;
            let ticket = self.counts.asked;
            let floor = self.acked.get(&group).copied().unwrap_or_default();
            self.confirming.insert((id, ticket), (group, floor));
            self.turn(id, PeerInput::Read { ticket, group })?;
        }
        Ok(())
    }

    /// What a node is about to write, held against what is committed: B4, R8.
    pub(super) fn check_writes(&mut self, id: NodeId) -> Checked {
        let Self { machines, truth, counts, rotten, .. } = self;
        let machine = &machines[&id];
        let Some(node) = &machine.node else { return Ok(()) };
        let records: Vec<_> = node.ports.writes.iter().flat_map(|writes| &writes.records).collect();
        for (at, record) in records.iter().enumerate() {
            let group = record.group;
            let durable = machine.model.durable.0.get(&group);
            match &record.record {
                Record::Truncated { index, .. } if replaces_log(&records[..at], group, *index) => {
                    counts.jumps += 1;
                    let end = truth.committed.0.get(&group).and_then(|known| known.entries.get(index));
                    let end = end.map_or(Offset(u64::MAX), |entry| entry.offset);
                    let state = truth.shadow.partition(&truth.committed, group)?.map(|state| state.bucket());
                    let held = |bucket: &BucketState| {
                        let sealed = durable.into_iter().flat_map(|known| known.seals.values());
                        let start = bucket.tiered_end.max(bucket.log_start);
                        sealed.fold(start, |end, seal| if seal.base <= end { end.max(seal.end) } else { end })
                    };
                    if state.is_some_and(|bucket| end > held(bucket)) {
                        let detail = format!(
                            "{id}: {group} jumps to {index}, beyond what is in the bucket and in its own files"
                        );
                        return Err(violation("B4", detail));
                    }
                }
                Record::Truncated { index, .. } => {
                    counts.cuts += 1;
                    let state = truth.shadow.partition(&truth.committed, group)?;
                    check_cut(group, *index, durable, state)?;
                }
                // Its log has what was in it, or raft does not hear of what needs it.
                Record::Unsealed { base, .. } if rotten.contains(&(id, group, *base)) => {}
                Record::Unsealed { base, end } => {
                    let state = truth.shadow.partition(&truth.committed, group)?;
                    check_unsealed(group, *base..*end, state)?;
                }
                Record::Snapshot(mark) => {
                    let entry =
                        truth.committed.0.get(&group).and_then(|group| group.entries.get(&mark.index));
                    if entry.is_none_or(|entry| entry.term != mark.term) {
                        let detail =
                            format!("{id}: {group}: a checkpoint at {} of {:?}", mark.index, mark.term);
                        return Err(violation("R8", detail));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// H3, B7: what a replica shows it serves, as it was committed.
    pub(super) fn check_reader(&mut self, id: NodeId, read: ReadDone) -> Checked {
        let ReadDone { group, from, view, result } = read;
        let Some(model) = self.truth.committed.0.get(&group) else { return Ok(()) };
        match result {
            Ok((chunks, next)) if next == view.high_watermark => {
                self.counts.reads += 1;
                check_read(group, from, next, &chunks, model)
            }
            Ok((_, next)) => {
                Err(violation("B7", format!("{id}: {group}: read {from}..{next} of {}", view.high_watermark)))
            }
            Err(error) => {
                let newest = self.machines[&id].views.get(&group);
                let stale = !newest.is_some_and(|newest| Arc::ptr_eq(newest, &view));
                let cold = matches!(error, ReadError::Cold(_));
                if stale || cold || self.machines[&id].disk.is_dead() || self.clients.deleted.contains(&group)
                {
                    return Ok(());
                }
                Err(violation("B7", format!("{id}: {group}: {error}")))
            }
        }
    }

    /// Somebody reads all of a partition that a node shows.
    pub fn read(&mut self, id: NodeId, group: GroupId, from: Offset) {
        let Some(machine) = self.machines.get_mut(&id) else { return };
        let Some(view) = machine.views.get(&group).cloned() else { return };
        let Some(node) = &mut machine.node else { return };
        let task = node.cold.read(group, from.max(view.log_start), view);
        node.executor.spawn(task);
        node.reading += 1;
        self.reading += 1;
    }
}

/// Whether the record before is the mark of a checkpoint that takes the place of the log.
fn replaces_log(before: &[&GroupRecord], group: GroupId, index: LogIndex) -> bool {
    before.last().is_some_and(|last| {
        last.group == group && matches!(&last.record, Record::Snapshot(mark) if mark.index == index)
    })
}
