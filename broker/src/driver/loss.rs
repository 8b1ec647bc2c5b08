//! What a group has lost to damage on its disk, and how it goes on without: worked out beside a stopped node's log.
//!
//! ```text
//! entries  1 ......... cut ......... last good | lost ............ checkpoint
//!                                              |
//! Prefix      state at or below the last good entry, replayed up to it: the log ends there
//! Checkpoint  everything up to the newest checkpoint is sealed, tiered or trimmed: the log begins behind it
//! ```
//! Where both are possible the one that keeps more records is taken. With neither, nothing on this disk says what the
//! group was at an entry that is left, and it stays offline.

use std::{path::Path, sync::Arc};

use varve_common::{Disk, GroupId, LogIndex, Offset, Term};
use varve_consensus::EntryKind;
use varve_formats::{checkpoint::Checkpoint, command::PublishedCheckpoint, manifest::Root, state::SealEntry};
use varve_replica::{
    GroupKind,
    checkpoint::{self, Captured, Decoded},
    metadata::MetadataState,
    partition::PartitionState,
    seeding::Seed,
};
use varve_snapshot::local;
use varve_wal::{self as wal, GroupRecord, Record, RecoveredGroup};

use super::open::{READ_BYTES, expected, local_mark, log_entry, seal_mark, wal_seal};

/// More elections than a log ever saw behind its newest checkpoint, and far from the end of Kafka's epochs.
const TERMS_PASSED: u64 = 1 << 16;

/// The log and the directory of a stopped node.
pub struct Stopped<'a> {
    /// The disk.
    pub disk: &'a Arc<dyn Disk>,
    /// The data directory.
    pub data: &'a Path,
    /// The log.
    pub wal: &'a wal::Reader,
}

/// How a group goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// With the log up to the last good entry.
    Prefix,
    /// With the state of this checkpoint and an empty log.
    Checkpoint(wal::SnapshotMark),
}

/// A group's state, as far as it can be had.
enum State {
    Metadata(Box<MetadataState>),
    Partition(Box<PartitionState>),
}

/// What a group's newest state says of its bucket.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    /// The manifest.
    pub root: Arc<Root>,
    /// The newest checkpoints in the bucket.
    pub published: Vec<PublishedCheckpoint>,
    /// Nothing below needs a file of this node.
    pub needless_below: Offset,
}

/// What is left of a damaged group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// How it goes on; `None` where it cannot.
    pub way: Option<Way>,
    /// The first offset that still exists, and the end of what is left. Both 0 for the metadata.
    pub offsets: std::ops::Range<Offset>,
    /// The end of what is known to have existed.
    pub known_end: Offset,
    /// Nothing below needs a file of this node.
    pub needless_below: Offset,
}

impl Left {
    /// Nothing is known of what there was.
    #[must_use]
    pub const fn nothing() -> Self {
        let none = Offset::ZERO..Offset::ZERO;
        Self { way: None, offsets: none, known_end: Offset::ZERO, needless_below: Offset::ZERO }
    }
}

impl From<Decoded> for State {
    fn from(decoded: Decoded) -> Self {
        match decoded {
            Decoded::Partition { state, .. } => Self::Partition(state),
            Decoded::Metadata { state, .. } => Self::Metadata(state),
        }
    }
}

impl State {
    fn new(kind: &GroupKind) -> Self {
        match kind {
            GroupKind::Metadata { cluster, incarnation } => {
                Self::Metadata(Box::new(MetadataState::new(*cluster, *incarnation)))
            }
            GroupKind::Partition { identity, .. } => {
                Self::Partition(Box::new(PartitionState::new(identity.clone())))
            }
        }
    }

    const fn applied(&self) -> (LogIndex, Term) {
        match self {
            Self::Metadata(state) => state.applied(),
            Self::Partition(state) => state.applied(),
        }
    }

    fn offsets(&self) -> std::ops::Range<Offset> {
        match self {
            Self::Metadata(_) => Offset::ZERO..Offset::ZERO,
            Self::Partition(state) => state.bucket().log_start..state.records().log_end,
        }
    }

    fn needless_below(&self) -> Offset {
        match self {
            Self::Metadata(_) => Offset::ZERO,
            Self::Partition(state) => state.bucket().log_start.max(state.bucket().tiered_end),
        }
    }

    /// Whether the log is needed for none of its records.
    fn is_held_elsewhere(&self, found: &RecoveredGroup) -> bool {
        let Self::Partition(state) = self else { return true };
        let sealed = |base, end| found.seals.get(&base).is_some_and(|seal| seal.end == end);
        let records = state.records();
        state.is_whole()
            && records.open.is_empty()
            && records.rolls.iter().all(|roll| sealed(roll.base, roll.end))
    }
}

impl Stopped<'_> {
    /// The metadata, as far as it is left: for names.
    #[must_use]
    pub fn metadata(&self, found: &RecoveredGroup, kind: &GroupKind) -> Option<MetadataState> {
        match self.prefix(GroupId::METADATA, found, kind)? {
            State::Metadata(state) => Some(*state),
            State::Partition(_) => None,
        }
    }

    /// The metadata as of the newest checkpoint on this disk: all there is where the log is gone.
    #[must_use]
    pub fn newest_metadata(&self, found: &RecoveredGroup, kind: &GroupKind) -> Option<MetadataState> {
        match self.checkpoint(GroupId::METADATA, found, kind, LogIndex(u64::MAX))?.0 {
            State::Metadata(state) => Some(*state),
            State::Partition(_) => None,
        }
    }

    /// The sealed files that the newest checkpoint on this disk names.
    #[must_use]
    pub fn catalogue(&self, group: GroupId, found: &RecoveredGroup, kind: &GroupKind) -> Vec<wal::SealMark> {
        let marks: Vec<_> = found.snapshots.iter().map(local_mark).collect();
        let loaded = local::load(&**self.disk, self.data, group, &expected(group, kind), &marks).ok();
        match loaded.and_then(|loaded| checkpoint::restore(loaded.checkpoint).ok()) {
            Some(Decoded::Partition { seals, .. }) => seals.into_iter().map(wal_seal).collect(),
            _ => Vec::new(),
        }
    }

    /// What is left of a damaged group.
    #[must_use]
    pub fn left(&self, group: GroupId, found: &RecoveredGroup, kind: &GroupKind) -> Left {
        let prefix = self.prefix(group, found, kind);
        let newest = self.checkpoint(group, found, kind, LogIndex(u64::MAX));
        let end_of = |state: &State| state.offsets().end;
        let known_end = prefix.iter().chain(newest.iter().map(|(state, _)| state)).map(end_of).max();
        let known_end = known_end.unwrap_or(Offset::ZERO);
        let beyond =
            newest.filter(|(state, mark)| mark.index > found.last_index && state.is_held_elsewhere(found));
        let keeps = |way: Way, state: &State| Left {
            way: Some(way),
            offsets: state.offsets(),
            known_end,
            needless_below: state.needless_below(),
        };
        match (prefix, beyond) {
            (Some(prefix), Some((state, _))) if end_of(&prefix) > end_of(&state) => {
                keeps(Way::Prefix, &prefix)
            }
            (_, Some((state, mark))) => keeps(Way::Checkpoint(mark), &state),
            (Some(prefix), None) => keeps(Way::Prefix, &prefix),
            (None, None) => Left { known_end, ..Left::nothing() },
        }
    }

    /// Whether a log that was cut has no state left from which it could be replayed.
    #[must_use]
    pub fn is_groundless(&self, group: GroupId, found: &RecoveredGroup, kind: &GroupKind) -> bool {
        let cut = found.truncated.0;
        cut > LogIndex::ZERO
            && self
                .checkpoint(group, found, kind, LogIndex(u64::MAX))
                .is_none_or(|(state, _)| state.applied().0 < cut)
    }

    /// What a group was at its last good entry, from a checkpoint of the bucket and the log behind it; `None` where they do
    /// not meet.
    #[must_use]
    pub fn rebuilt(&self, group: GroupId, found: &RecoveredGroup, seed: Checkpoint) -> Option<Captured> {
        let members = Seed::of(&seed.header).membership;
        let mut state = State::from(checkpoint::restore(seed).ok()?);
        if state.applied().0 < found.truncated.0 || state.applied().0 > found.last_index {
            return None;
        }
        if self.changes_members(group, state.applied().0, found.last_index)? {
            return None;
        }
        self.replay(group, found, &mut state)?;
        match &state {
            State::Metadata(state) => Some(Captured::metadata(state, &members)),
            State::Partition(state) => {
                let seals = Arc::new(found.seals.values().cloned().map(seal_mark).collect());
                state.is_whole().then(|| Captured::local(group, state, &seals, &members))
            }
        }
    }

    /// Whether the members change among these entries: what they are then only the running group works out.
    fn changes_members(&self, group: GroupId, mut from: LogIndex, to: LogIndex) -> Option<bool> {
        while from < to {
            let read = self.wal.entries(group, from.next(), READ_BYTES).ok()?;
            from = read.last()?.index;
            if read.iter().any(|entry| entry.kind == EntryKind::ConfChange.to_u8()) {
                return Some(true);
            }
        }
        Some(false)
    }

    /// The newest state of a partition: at the last good entry, or of a checkpoint behind the loss, which knows more.
    pub(super) fn readable(
        &self,
        group: GroupId,
        found: &RecoveredGroup,
        kind: &GroupKind,
    ) -> Option<Box<PartitionState>> {
        let newest = self.checkpoint(group, found, kind, LogIndex(u64::MAX)).map(|(state, _)| state);
        let state = match newest.filter(|state| state.applied().0 > found.last_index) {
            Some(newest) => newest,
            None => self.prefix(group, found, kind)?,
        };
        match state {
            State::Partition(state) if state.is_whole() => Some(state),
            State::Partition(_) | State::Metadata(_) => None,
        }
    }

    /// What a group names in the bucket; `None` where no state of it is left.
    #[must_use]
    pub fn whole(&self, group: GroupId, found: &RecoveredGroup, kind: &GroupKind) -> Option<Whole> {
        if let Some(state) = self.readable(group, found, kind) {
            let bucket = state.bucket();
            return Some(Whole {
                root: Arc::clone(&bucket.root),
                published: bucket.published.as_ref().clone(),
                needless_below: bucket.log_start.max(bucket.tiered_end),
            });
        }
        let State::Metadata(state) = self.prefix(group, found, kind)? else { return None };
        Some(Whole { published: state.published().to_vec(), ..Whole::default() })
    }

    /// The state at the last good entry.
    fn prefix(&self, group: GroupId, found: &RecoveredGroup, kind: &GroupKind) -> Option<State> {
        let checkpoint = self.checkpoint(group, found, kind, found.last_index);
        let mut state = match checkpoint {
            Some((state, _)) => state,
            None if found.truncated.0 == LogIndex::ZERO => State::new(kind),
            None => return None,
        };
        if state.applied().0 < found.truncated.0 {
            return None;
        }
        self.replay(group, found, &mut state)?;
        Some(state)
    }

    fn replay(&self, group: GroupId, found: &RecoveredGroup, state: &mut State) -> Option<()> {
        while state.applied().0 < found.last_index {
            let read = self.wal.entries(group, state.applied().0.next(), READ_BYTES).ok()?;
            if read.is_empty() {
                return None;
            }
            for entry in read.into_iter().map(log_entry) {
                match state {
                    State::Metadata(state) => drop(state.apply(&entry).ok()?),
                    State::Partition(state) => drop(state.apply(&entry).ok()?),
                }
            }
        }
        Some(())
    }

    /// The newest local checkpoint as of at most `most` that reads back whole.
    fn checkpoint(
        &self,
        group: GroupId,
        found: &RecoveredGroup,
        kind: &GroupKind,
        most: LogIndex,
    ) -> Option<(State, wal::SnapshotMark)> {
        let marks: Vec<_> =
            found.snapshots.iter().filter(|mark| mark.index <= most).map(local_mark).collect();
        let loaded = local::load(&**self.disk, self.data, group, &expected(group, kind), &marks).ok()?;
        let mark = found.snapshots.iter().find(|mark| mark.index == loaded.mark.index)?.clone();
        Some((checkpoint::restore(loaded.checkpoint).ok()?.into(), mark))
    }
}

/// What the log is told so that the group goes on; `gone` are files that do not hold what their marks promise.
#[must_use]
pub fn records(group: GroupId, found: &RecoveredGroup, way: &Way, gone: &[SealEntry]) -> Vec<GroupRecord> {
    let last = match way {
        Way::Prefix => found.last_index,
        Way::Checkpoint(mark) => mark.index,
    };
    let mut records = vec![Record::LossAccepted];
    // Entries of the new log are told from lost ones by their term, by clients too (KIP-320). With the hard state here none was lost of
    // a higher one. Where that is gone with the log, a start or two have passed since the checkpoint: far fewer than this.
    let known = found.hard_state.unwrap_or_default();
    let highest = found.snapshots.iter().map(|mark| mark.term).max().unwrap_or_default();
    let step = if found.hard_state.is_some() { 1 } else { TERMS_PASSED };
    let term = Term(known.term.max(highest).max(found.last_term).0 + step);
    records.push(Record::HardState(wal::HardState { term, vote: 0, commit: last }));
    if let Way::Checkpoint(mark) = way {
        records.push(Record::Snapshot(mark.clone()));
        records.push(Record::Truncated { index: mark.index, term: mark.term });
    }
    let ahead = |seal: &&wal::SealMark| seal.last_index > last;
    let ahead = found.seals.values().filter(ahead).map(|seal| (seal.base, seal.end));
    let mut unsealed: Vec<_> = ahead.chain(gone.iter().map(|seal| (seal.base, seal.end))).collect();
    unsealed.sort_unstable();
    unsealed.dedup();
    records.extend(unsealed.into_iter().map(|(base, end)| Record::Unsealed { base, end }));
    records.into_iter().map(|record| GroupRecord { group, replica: found.replica, record }).collect()
}
