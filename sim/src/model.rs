//! What the log must hold: every record that was given to it, and which of them it said to be durable.
//!
//! ```text
//! durable (synced) | pending batch | pending batch | ...        recovery = durable + some prefix of the pending batches
//! ```
//! The durable entries are also the truth about every partition: with one voter what is durable is committed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use varve_common::{GroupId, LogIndex, Offset, ReplicaId, Term};
use varve_wal::{
    Entry, GroupRecord, HardState, Reader, Record, RecoveredGroup, Recovery, SealMark, SnapshotMark,
};

use crate::violation::{Checked, Violation, violation};

/// What was written of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupModel {
    /// Whose.
    pub replica: ReplicaId,
    /// The newest.
    pub hard_state: Option<HardState>,
    /// What the last one that was written whole said to be committed: marks that overtake others may have raised that since.
    pub said_committed: LogIndex,
    /// The last entry that was cut.
    pub truncated: (LogIndex, Term),
    /// Sealed files, by base.
    pub seals: BTreeMap<Offset, SealMark>,
    /// The newest two local checkpoints.
    pub snapshots: Vec<SnapshotMark>,
    /// Every entry there ever was, those that were cut among them.
    pub entries: BTreeMap<LogIndex, Entry>,
    /// Whether it left the node.
    pub destroyed: bool,
    /// Whether its owner said that it has lost something.
    pub damaged: bool,
}

impl GroupModel {
    fn new(replica: ReplicaId) -> Self {
        Self {
            replica,
            hard_state: None,
            said_committed: LogIndex::ZERO,
            truncated: (LogIndex::ZERO, Term::ZERO),
            seals: BTreeMap::new(),
            snapshots: Vec::new(),
            entries: BTreeMap::new(),
            destroyed: false,
            damaged: false,
        }
    }

    fn apply(&mut self, record: &Record) {
        match record {
            Record::Entries(entries) => {
                if let Some(first) = entries.first() {
                    self.entries.split_off(&first.index);
                }
                self.entries.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
            }
            Record::HardState(state) => {
                let commit = state.commit.max(self.hard_state.unwrap_or_default().commit);
                self.hard_state = Some(HardState { commit, ..*state });
                self.said_committed = state.commit;
            }
            Record::Committed { index, term } => {
                let entry = self.entries.get(index).filter(|entry| entry.index > self.truncated.0);
                let found = entry.map_or(self.truncated, |entry| (entry.index, entry.term));
                if let Some(state) = self.hard_state.as_mut().filter(|_| found == (*index, *term)) {
                    state.commit = state.commit.max(*index);
                }
            }
            Record::Truncated { index, term } => {
                if *index > self.truncated.0 {
                    // Without that entry none of the log counts: a checkpoint takes its place.
                    if self.entries.get(index).is_none_or(|entry| entry.term != *term) {
                        self.entries.clear();
                    }
                    self.truncated = (*index, *term);
                }
            }
            Record::Sealed(mark) => drop(self.seals.insert(mark.base, mark.clone())),
            Record::Unsealed { base, .. } => drop(self.seals.remove(base)),
            Record::Snapshot(mark) => {
                self.snapshots.retain(|kept| kept.index != mark.index);
                self.snapshots.push(mark.clone());
                self.snapshots.sort_by_key(|mark| mark.index);
                self.snapshots.drain(..self.snapshots.len().saturating_sub(2));
            }
            Record::Destroyed => self.destroyed = true,
            Record::Damaged { .. } => self.damaged = true,
            Record::LossAccepted => {
                if let Some(state) = &mut self.hard_state {
                    state.commit = LogIndex::ZERO;
                }
                self.said_committed = LogIndex::ZERO;
            }
        }
    }

    /// The last entry, or the truncation point.
    #[must_use]
    pub fn last(&self) -> (LogIndex, Term) {
        let last = self.entries.last_key_value().map(|(index, entry)| (*index, entry.term));
        last.unwrap_or_default().max(self.truncated)
    }

    fn is_recovered_as(&self, found: &RecoveredGroup) -> bool {
        (found.last_index, found.last_term) == self.last()
            && found.replica == self.replica
            && found.hard_state == self.hard_state
            && found.truncated == self.truncated
            && found.seals == self.seals
            && found.snapshots == self.snapshots
            && found.damage.is_some() == self.damaged
    }

    /// The record batches, by base offset.
    pub fn batches(&self) -> impl DoubleEndedIterator<Item = (Offset, Bytes)> + '_ {
        let records = |entry: &Entry| (entry.kind == 0).then(|| batch_of(&entry.data)).flatten();
        self.entries.values().filter_map(move |entry| Some((entry.offset, records(entry)?)))
    }
}

/// The batch in a command of records.
#[must_use]
pub fn batch_of(data: &Bytes) -> Option<Bytes> {
    use varve_formats::command::{HEADER_BYTES, Kind};
    (data.first() == Some(&(Kind::Records as u8))).then(|| data.slice(HEADER_BYTES..))
}

/// All groups.
#[derive(Clone, Debug, Default)]
pub struct Groups(pub BTreeMap<GroupId, GroupModel>);

impl Groups {
    /// Some replica has applied an entry: R3, it is the same on all of them.
    pub fn commit(&mut self, group: GroupId, replica: ReplicaId, entry: &Entry) -> Checked {
        let known = self.0.entry(group).or_insert_with(|| GroupModel::new(replica));
        match known.entries.get(&entry.index) {
            Some(other) if other != entry => {
                let detail = format!("{group}: {replica:?} applies another {} than others", entry.index);
                Err(violation("R3", detail))
            }
            Some(_) => Ok(()),
            None => {
                known.entries.insert(entry.index, entry.clone());
                Ok(())
            }
        }
    }

    fn apply(&mut self, batch: &[GroupRecord]) {
        for record in batch {
            let group = self.0.entry(record.group).or_insert_with(|| GroupModel::new(record.replica));
            // A later incarnation has nothing of what was before.
            if group.replica < record.replica {
                *group = GroupModel::new(record.replica);
            }
            group.apply(&record.record);
        }
    }

    fn differs(&self, recovery: &Recovery, exempt: &BTreeSet<GroupId>) -> Option<GroupId> {
        let alive = self.0.iter().filter(|(id, group)| !group.destroyed && !exempt.contains(id));
        for (id, group) in alive {
            if recovery.groups.get(id).is_none_or(|found| !group.is_recovered_as(found)) {
                return Some(*id);
            }
        }
        let known =
            |id: &GroupId| self.0.get(id).is_some_and(|group| !group.destroyed) || exempt.contains(id);
        recovery.groups.keys().find(|id| !known(id)).copied()
    }
}

/// What was given to the log.
#[derive(Default)]
pub struct Model {
    /// What it said to be durable.
    pub durable: Groups,
    /// What was written behind that, batch by batch.
    pending: Vec<Vec<GroupRecord>>,
    /// How many batches came before those.
    settled: usize,
    /// Groups that lost something to injected damage, and were reported so.
    pub damaged: BTreeSet<GroupId>,
    /// The node has peers: what is durable here alone is not committed.
    pub has_peers: bool,
}

impl Model {
    /// Of a node with peers.
    #[must_use]
    pub fn with_peers() -> Self {
        Self { has_peers: true, ..Self::default() }
    }

    /// A batch is about to be written.
    pub fn writing(&mut self, batch: Vec<GroupRecord>) {
        self.pending.push(batch);
    }

    /// R6: with one voter what is durable is committed, and nothing replaces what is. R5: terms and votes only move on.
    pub fn check_writes(&self, batch: &[GroupRecord]) -> Checked {
        for GroupRecord { group, record, replica } in batch {
            let same = |known: &&GroupModel| known.replica == *replica && !self.damaged.contains(group);
            let Some(known) = self.durable.0.get(group).filter(same) else {
                continue;
            };
            match record {
                Record::Entries(entries)
                    if entries.first().is_some_and(|entry| entry.index <= self.committed(known)) =>
                {
                    let committed = self.committed(known);
                    let detail =
                        format!("{group}: entry {} where {committed} is committed", entries[0].index);
                    return Err(violation("R6", detail));
                }
                Record::HardState(new) => {
                    let old = known.hard_state.unwrap_or_default();
                    let voted_twice = new.term == old.term && old.vote != 0 && new.vote != old.vote;
                    if new.term < old.term || new.commit < known.said_committed || voted_twice {
                        return Err(violation("R5", format!("{group}: {new:?} behind {old:?}")));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn committed(&self, known: &GroupModel) -> LogIndex {
        if self.has_peers {
            known.truncated.0.max(known.hard_state.unwrap_or_default().commit)
        } else {
            known.last().0
        }
    }

    /// What was written and is not known to be durable.
    pub fn pending(&self) -> impl Iterator<Item = &GroupRecord> {
        self.pending.iter().flatten()
    }

    /// The batch was refused without effect.
    pub fn refused(&mut self) {
        self.pending.pop();
    }

    /// How many batches were written so far.
    #[must_use]
    pub fn written(&self) -> usize {
        self.settled + self.pending.len()
    }

    /// All that was written is durable.
    pub fn synced(&mut self) {
        self.synced_to(self.written());
    }

    /// The first so many batches are durable. A sync in flight covers what was written before it began, and nothing behind.
    pub fn synced_to(&mut self, written: usize) {
        let count = written.saturating_sub(self.settled);
        self.settled += count;
        for batch in self.pending.drain(..count) {
            self.durable.apply(&batch);
        }
    }

    /// Checks what a start found, and takes it as the truth from here on. `rotten`: bytes were damaged on purpose.
    pub fn recovered(&mut self, recovery: &Recovery, reader: &Reader, rotten: bool) -> Checked {
        for (id, group) in &recovery.groups {
            match &group.damage {
                Some(damage) if !rotten && !self.is_given_up(*id) => {
                    let detail = format!("{id} is called damaged and nothing was: {damage:?}");
                    return Err(violation("W2", detail));
                }
                Some(_) => drop(self.damaged.insert(*id)),
                None if self.damaged.contains(id) => {
                    return Err(violation("W2", format!("{id} was damaged and nobody knows any more")));
                }
                None => {}
            }
        }
        let mut candidate = self.durable.clone();
        let mut fitting = candidate.differs(recovery, &self.damaged).is_none().then(|| candidate.clone());
        for batch in &self.pending {
            candidate.apply(batch);
            if candidate.differs(recovery, &self.damaged).is_none() {
                fitting = Some(candidate.clone());
            }
        }
        let Some(fitting) = fitting else { return Err(self.explain(&candidate, recovery)) };
        self.durable = fitting;
        self.pending.clear();
        self.check_entries(recovery, reader, rotten)
    }

    /// Whether a mark says that the group has lost something, or one that is on its way.
    #[must_use]
    pub fn is_given_up(&self, group: GroupId) -> bool {
        let marked =
            |record: &GroupRecord| record.group == group && matches!(record.record, Record::Damaged { .. });
        self.durable.0.get(&group).is_some_and(|group| group.damaged) || self.pending().any(marked)
    }

    /// Names the invariant that a wrong recovery breaks.
    fn explain(&self, newest: &Groups, recovery: &Recovery) -> Violation {
        let id = self.durable.differs(recovery, &self.damaged).expect("no candidate fits");
        let found = recovery.groups.get(&id);
        let (known, newest) = (self.durable.0.get(&id), newest.0.get(&id));
        let detail = |what: &str| format!("{id}: {what}: found {found:?}, durable {}", summary(known));
        let (Some(found_group), Some(known)) = (found, known.or(newest)) else {
            return match known {
                Some(known) if !known.destroyed => violation("W1", detail("an acknowledged group is gone")),
                _ => violation("W6", detail("a group that left is back")),
            };
        };
        let newest = newest.unwrap_or(known);
        let hard = found_group.hard_state;
        if known.destroyed {
            violation("W6", detail("a group that left is back"))
        } else if hard != known.hard_state && hard != newest.hard_state {
            violation("R5", detail("the hard state is not the one that was synced"))
        } else if known.damaged && found_group.damage.is_none() {
            violation("W2", detail("what is damaged counts as whole"))
        } else if found_group.last_index < known.last().0 {
            violation("W1", detail("synced entries are gone"))
        } else if found_group.truncated < known.truncated || found_group.snapshots != newest.snapshots {
            violation("W6", detail("synced marks are gone"))
        } else {
            violation("W2", detail("not the longest valid prefix"))
        }
    }

    /// Reads back every entry that a start found.
    fn check_entries(&self, recovery: &Recovery, reader: &Reader, rotten: bool) -> Checked {
        for (id, group) in &recovery.groups {
            if self.damaged.contains(id) {
                continue;
            }
            let model = &self.durable.0[id];
            let mut from = group.truncated.0.next();
            while from <= group.last_index {
                let read = match reader.entries(*id, from, 64 << 10) {
                    Ok(read) => read,
                    Err(_) if rotten => break,
                    Err(error) => return Err(violation("W2", format!("{id}: {error}"))),
                };
                let Some(last) = read.last().map(|last| last.index) else { break };
                if let Some(wrong) = read.iter().find(|entry| model.entries.get(&entry.index) != Some(entry))
                {
                    return Err(violation(
                        "W2",
                        format!("{id}: entry {} is not what was written", wrong.index),
                    ));
                }
                from = last.next();
            }
        }
        Ok(())
    }
}

fn summary(group: Option<&GroupModel>) -> String {
    group.map_or("nothing".to_owned(), |group| {
        format!(
            "{{last {:?}, truncated {:?}, hard state {:?}, snapshots {:?}, seals {}, destroyed {}}}",
            group.last(),
            group.truncated,
            group.hard_state,
            group.snapshots,
            group.seals.len(),
            group.destroyed
        )
    })
}
