//! One turn's writes: records of many groups, and who is told when they are fsynced.

use std::collections::BTreeMap;

use varve_common::{GroupId, LogIndex, ReplicaId, Term};
use varve_replica::{Input, LocalCheckpoint, LogEntry, Mark, PersistedHardState};
use varve_wal::{self as wal, GroupRecord, Record};

use super::open::wal_seal;

/// Who is told: that replica of the group, and none that took its place meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// A ready of a group.
    Persisted {
        /// Which group.
        group: GroupId,
        /// Which replica of it wrote.
        replica: ReplicaId,
        /// Its number.
        ready: u64,
    },
    /// A mark of a group.
    Marked {
        /// Which group.
        group: GroupId,
        /// Which replica of it wrote.
        replica: ReplicaId,
        /// Its number.
        number: u64,
    },
}

impl Ack {
    /// Who wrote.
    pub(super) const fn writer(self) -> (GroupId, ReplicaId) {
        match self {
            Self::Persisted { group, replica, .. } | Self::Marked { group, replica, .. } => (group, replica),
        }
    }

    /// What the group is told.
    pub(super) const fn input(self) -> Input {
        match self {
            Self::Persisted { group, ready, .. } => Input::Persisted { group, ready },
            Self::Marked { group, number, .. } => Input::Marked { group, number },
        }
    }
}

/// What a ready writes.
#[derive(Debug, Default)]
pub(super) struct Persist {
    pub(super) hard_state: Option<PersistedHardState>,
    pub(super) installed: Option<LocalCheckpoint>,
    pub(super) entries: Vec<LogEntry>,
    pub(super) must_sync: bool,
}

/// A batch for the log.
#[derive(Debug, Default)]
pub struct Writes {
    /// In order.
    pub records: Vec<GroupRecord>,
    /// In order.
    pub acks: Vec<Ack>,
    /// Commit indexes that moved alone: they ride with the next batch. Losing them costs nothing, because a leader
    /// finds its commit index anew, so no fsync is spent on them.
    riders: BTreeMap<GroupId, GroupRecord>,
    /// Readies that wait for an fsync, by group.
    waiting: BTreeMap<GroupId, Waiting>,
}

/// A group's readies that are not answered.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// The newest that waits for an fsync.
    synced_with: u64,
    /// The newest behind that, which needs none. An answer speaks for all readies before it, so it must not overtake.
    behind: u64,
}

impl Writes {
    /// Adds a ready of a group. Where neither it nor one before it needs an fsync, its answer comes at once.
    pub(super) fn persist(
        &mut self,
        group: GroupId,
        replica: ReplicaId,
        ready: u64,
        Persist { hard_state, installed, entries, must_sync }: Persist,
    ) -> Option<Input> {
        let record = |record| GroupRecord { group, replica, record };
        let hard_state = hard_state.map(|state| record(Record::HardState(hard_state_record(state))));
        if !must_sync && entries.is_empty() && installed.is_none() {
            if let Some(state) = hard_state {
                self.riders.insert(group, state);
            }
            return match self.waiting.get_mut(&group) {
                Some(waiting) => {
                    waiting.behind = ready;
                    None
                }
                None => Some(Input::Persisted { group, ready }),
            };
        }
        self.waiting.insert(group, Waiting { synced_with: ready, behind: ready });
        // Of what moved alone before, the newest goes along: a cut in the same batch may stand on what it says is committed.
        let rider = self.riders.remove(&group);
        // Term and vote stand before the entries that were made under them.
        self.records.extend(hard_state.or(rider));
        if let Some(checkpoint) = installed {
            // One batch with the hard state, so that a restart finds all of it or the log as it was.
            let (index, term) = (checkpoint.index, checkpoint.term);
            self.records.push(record(mark_record(Mark::Snapshot(checkpoint))));
            self.records.push(record(Record::Truncated { index, term }));
        }
        if !entries.is_empty() {
            self.records.push(record(Record::Entries(entries.into_iter().map(entry_record).collect())));
        }
        self.acks.push(Ack::Persisted { group, replica, ready });
        None
    }

    /// The log says that a ready is fsynced: up to which one that is an answer.
    pub(super) fn persisted(&mut self, group: GroupId, ready: u64) -> u64 {
        match self.waiting.get(&group) {
            Some(waiting) if waiting.synced_with <= ready => {
                let behind = waiting.behind;
                self.waiting.remove(&group);
                behind.max(ready)
            }
            _ => ready,
        }
    }

    /// Adds a mark of a group that has applied up to this entry. What lets go of records stands on what was applied, a commit
    /// of theirs to the bucket say: that is durable with it, also where a full log lets the mark overtake the hard state
    /// that says so. Else a restart would know of no place for them until it hears of a leader (B7).
    pub(super) fn mark(
        &mut self,
        group: GroupId,
        replica: ReplicaId,
        number: u64,
        (index, term): (LogIndex, Term),
        mark: Mark,
    ) {
        if matches!(mark, Mark::Destroyed | Mark::Damaged { .. }) {
            self.riders.remove(&group);
            self.waiting.remove(&group);
        }
        if matches!(mark, Mark::Unsealed { .. } | Mark::Truncated { .. }) {
            self.records.push(GroupRecord { group, replica, record: Record::Committed { index, term } });
        }
        self.records.push(GroupRecord { group, replica, record: mark_record(mark) });
        self.acks.push(Ack::Marked { group, replica, number });
    }

    /// What there is to write, with the riders; `None` where nobody waits for a write.
    pub(super) fn take(&mut self) -> Option<Self> {
        if self.acks.is_empty() {
            return None;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let mut taken = std::mem::replace(self, Self { waiting, ..Self::default() });
        taken.records.extend(std::mem::take(&mut taken.riders).into_values());
        Some(taken)
    }
}

fn entry_record(entry: LogEntry) -> wal::Entry {
    wal::Entry {
        index: entry.index,
        term: entry.term,
        kind: entry.kind,
        offset: entry.offset,
        data: entry.data,
    }
}

fn hard_state_record(state: PersistedHardState) -> wal::HardState {
    wal::HardState { term: state.term, vote: state.vote, commit: state.commit }
}

fn mark_record(mark: Mark) -> Record {
    match mark {
        Mark::Truncated { index, term } => Record::Truncated { index, term },
        Mark::Snapshot(checkpoint) => Record::Snapshot(wal::SnapshotMark {
            index: checkpoint.index,
            term: checkpoint.term,
            file: checkpoint.file,
            sha256: checkpoint.sha256,
        }),
        Mark::Sealed(seal) => Record::Sealed(wal_seal(seal)),
        Mark::Unsealed { base, end } => Record::Unsealed { base, end },
        Mark::Destroyed => Record::Destroyed,
        Mark::Damaged { from } => Record::Damaged { from },
    }
}

#[cfg(test)]
mod tests {
    use varve_common::{NodeId, Offset};

    use super::*;

    const GROUP: GroupId = GroupId(3);

    fn replica() -> ReplicaId {
        ReplicaId::new(NodeId::new(1).expect("1 is a node id"), 1).expect("1 is a counter")
    }

    fn state(commit: u64) -> PersistedHardState {
        PersistedHardState { term: Term(1), vote: 1, commit: LogIndex(commit) }
    }

    fn commit(index: u64) -> Persist {
        Persist { hard_state: Some(state(index)), ..Persist::default() }
    }

    fn append(entry: LogEntry) -> Persist {
        Persist { entries: vec![entry], must_sync: true, ..Persist::default() }
    }

    #[test]
    fn what_is_installed_is_one_batch_with_its_hard_state() {
        let mut writes = Writes::default();
        let (index, term) = (LogIndex(9), Term(1));
        let installed = LocalCheckpoint { index, term, file: "9".into(), sha256: Default::default() };
        let persist = Persist { installed: Some(installed), must_sync: true, ..commit(9) };
        assert!(writes.persist(GROUP, replica(), 1, persist).is_none());
        let taken = writes.take().expect("a jump waits");
        let [hard_state, snapshot, truncated] = &taken.records[..] else { panic!("{:?}", taken.records) };
        assert!(matches!(hard_state.record, Record::HardState(_)));
        assert!(matches!(&snapshot.record, Record::Snapshot(mark) if mark.index == index));
        assert_eq!(truncated.record, Record::Truncated { index, term });
    }

    #[test]
    fn a_commit_index_alone_costs_no_write_and_rides_with_the_next() {
        let mut writes = Writes::default();
        let answer = writes.persist(GROUP, replica(), 4, commit(9));
        assert!(matches!(answer, Some(Input::Persisted { ready: 4, .. })));
        assert!(writes.take().is_none());
        writes.mark(GroupId(5), replica(), 1, (LogIndex(9), Term(1)), Mark::Destroyed);
        let taken = writes.take().expect("a mark waits");
        assert_eq!(taken.acks, [Ack::Marked { group: GroupId(5), replica: replica(), number: 1 }]);
        assert_eq!(taken.records[1].record, Record::HardState(hard_state_record(state(9))));
    }

    /// After a restart the records below the cut would be nowhere until a leader tells what is committed.
    #[test]
    fn b7_a_commit_index_goes_along_with_entries_that_bring_none() {
        let entry = LogEntry {
            index: LogIndex(10),
            term: Term(1),
            kind: 0,
            offset: Default::default(),
            data: Default::default(),
        };
        let mut writes = Writes::default();
        assert!(writes.persist(GROUP, replica(), 4, commit(9)).is_some());
        assert!(writes.persist(GROUP, replica(), 5, append(entry)).is_none());
        writes.mark(
            GROUP,
            replica(),
            1,
            (LogIndex(9), Term(1)),
            Mark::Truncated { index: LogIndex(8), term: Term(1) },
        );
        let taken = writes.take().expect("entries and a mark wait");
        assert_eq!(taken.records[0].record, Record::HardState(hard_state_record(state(9))));
    }

    /// The mark overtakes what waits for room, and what it stands on must not stay behind.
    #[test]
    fn b7_what_lets_go_of_records_brings_what_is_committed_itself() {
        for mark in [
            Mark::Unsealed { base: Offset(3), end: Offset(7) },
            Mark::Truncated { index: LogIndex(8), term: Term(1) },
        ] {
            let mut writes = Writes::default();
            writes.mark(GROUP, replica(), 1, (LogIndex(9), Term(1)), mark);
            let taken = writes.take().expect("a mark waits");
            assert_eq!(taken.records[0].record, Record::Committed { index: LogIndex(9), term: Term(1) });
            assert_eq!(taken.records.len(), 2);
        }
    }

    #[test]
    fn w1_a_ready_without_fsync_does_not_answer_for_one_that_waits() {
        let mut writes = Writes::default();
        let entry = |index| LogEntry {
            index: LogIndex(index),
            term: Term(1),
            kind: 0,
            offset: Default::default(),
            data: Default::default(),
        };
        assert!(writes.persist(GROUP, replica(), 1, append(entry(1))).is_none());
        assert!(writes.persist(GROUP, replica(), 2, append(entry(2))).is_none());
        assert_eq!(writes.persisted(GROUP, 1), 1);
        assert!(writes.persist(GROUP, replica(), 3, commit(1)).is_none());
        assert_eq!(writes.persisted(GROUP, 2), 3);
        assert!(writes.persist(GROUP, replica(), 4, commit(2)).is_some());
    }

    #[test]
    fn t9_term_and_vote_stand_before_the_entries_made_under_them() {
        let mut writes = Writes::default();
        let entry = LogEntry {
            index: LogIndex(1),
            term: Term(1),
            kind: 0,
            offset: Default::default(),
            data: Default::default(),
        };
        assert!(
            writes
                .persist(GROUP, replica(), 1, Persist { hard_state: Some(state(0)), ..append(entry) })
                .is_none()
        );
        let taken = writes.take().expect("entries wait");
        assert!(matches!(taken.records[0].record, Record::HardState(_)));
        assert!(matches!(taken.records[1].record, Record::Entries(_)));
    }
}
