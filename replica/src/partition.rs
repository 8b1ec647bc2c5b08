//! The state of a partition: what its committed entries mean.
//!
//! Two classes of state with two clocks (TIERING.md 5). [`RecordState`] follows from records and rolls; it is frozen at
//! every roll, so that a checkpoint can hold it as of S, the end of the last tiered segment. [`BucketState`] follows
//! from the tier's commands. A replica seeded from a checkpoint has the former as of S and the latter as of A > S:
//! it replays record class from S + 1 and ignores bucket class up to A.
//!
//! Nothing here reads a clock, a configuration or another group: the same entries give the same state, and the same
//! [`PartitionState::hash`], on every replica.

mod batch;
mod bucket;
mod producers;
mod records;
mod stored;
#[cfg(test)]
mod tests;
mod tombstones;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use varve_common::{Digest, LeaderEpoch, LogIndex, Offset, Term, codec::DecodeError};
use varve_consensus::EntryKind;
use varve_formats::{
    command::{Class, Command, Roll},
    state::RollEntry,
};

#[cfg(any(test, feature = "test-support"))]
pub use batch::sample;
pub use batch::{BATCH_HEADER_BYTES, BatchHeader, place, stamp};
pub use bucket::BucketState;
pub use producers::{Producers, Verdict, check, remember, sequence_plus};
pub use records::{Place, RecordState};
pub use stored::{POSITION, PartitionSections};
pub(crate) use tombstones::given_up;

use crate::{
    api::{LogEntry, PartitionIdentity},
    bugs::{Bug, is_seeded, roll_bytes},
    coordinator::{self, Groups},
    limits::{FROZEN_MAX, PUBLISHED_KEPT},
};

/// A partition's state as of its applied entry.
#[derive(Clone, Debug)]
pub struct PartitionState {
    pub(crate) identity: PartitionIdentity,
    pub(crate) records: RecordState,
    pub(crate) bucket: BucketState,
    /// A: bucket class up to here is in `bucket` already.
    pub(crate) bucket_index: LogIndex,
    /// Record class as of each roll that a checkpoint may still need, by the range's end.
    pub(crate) frozen: BTreeMap<Offset, Arc<RecordState>>,
    /// Groups of consumers, as of the applied entry or A, whichever is later; `None` where it is no partition of their topic.
    pub(crate) groups: Option<Groups>,
    /// Bucket-class commands that did nothing, in this process.
    fenced: u64,
}

/// What a committed entry did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A no-op or a configuration change.
    Nothing,
    /// Appended a batch.
    Records {
        /// What its header says.
        header: BatchHeader,
        /// The batch.
        batch: Bytes,
        /// The leader's clock when it was proposed.
        append_time_ms: i64,
    },
    /// Closed a range.
    Rolled(RollEntry),
    /// Changed the state in another way.
    Changed(Box<Command>),
    /// Bucket class that missed its fence.
    Fenced(Box<Command>),
    /// Bucket class at or below A, already part of the seeded state.
    Ignored,
}

/// Why a committed entry cannot be applied. The group stops: nothing is skipped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Not the entry that follows.
    #[error("entry {found} where {expected} follows")]
    Gap {
        /// What follows.
        expected: LogIndex,
        /// What came.
        found: LogIndex,
    },
    /// A kind of entry that nobody knows.
    #[error("unknown kind of entry {0}")]
    EntryKind(u8),
    /// An unknown command, or a damaged one.
    #[error("command: {0}")]
    Command(#[from] DecodeError),
    /// A command of another kind of group.
    #[error("the command belongs to another kind of group")]
    WrongGroup,
    /// Not one batch of version 2.
    #[error("the batch is malformed")]
    BatchMalformed,
    /// A batch that does not begin at the log's end.
    #[error("a batch begins at {found} and the log ends at {expected}")]
    OffsetMismatch {
        /// The log's end.
        expected: Offset,
        /// Where the batch begins.
        found: Offset,
    },
    /// A batch with another epoch than its entry's term.
    #[error("a batch of epoch {found:?} in an entry of {expected:?}")]
    EpochMismatch {
        /// The entry's term.
        expected: LeaderEpoch,
        /// What the batch says.
        found: LeaderEpoch,
    },
    /// A batch that the leader must not have proposed.
    #[error("producer {producer_id}: {verdict:?}")]
    ProducerMismatch {
        /// Whose.
        producer_id: i64,
        /// What the table says.
        verdict: Verdict,
    },
    /// A roll that does not close the open range.
    #[error("a roll of {found:?} where the open range is {expected:?}")]
    RollMismatch {
        /// The open range.
        expected: Box<Roll>,
        /// The command.
        found: Box<Roll>,
    },
}

impl PartitionState {
    /// The state before the first entry.
    #[must_use]
    pub fn new(identity: PartitionIdentity) -> Self {
        Self {
            groups: (identity.topic == coordinator::TOPIC).then(Groups::default),
            identity,
            records: RecordState::default(),
            bucket: BucketState::default(),
            bucket_index: LogIndex::ZERO,
            frozen: BTreeMap::new(),
            fenced: 0,
        }
    }

    /// Applies the committed entry that follows.
    pub fn apply(&mut self, entry: &LogEntry) -> Result<Applied, ApplyError> {
        let expected = self.records.index.next();
        if entry.index != expected {
            return Err(ApplyError::Gap { expected, found: entry.index });
        }
        let applied = match EntryKind::from_u8(entry.kind) {
            Some(EntryKind::Normal) => self.apply_command(entry)?,
            Some(EntryKind::Empty) => {
                self.records.apply_leader(entry.term);
                Applied::Nothing
            }
            Some(EntryKind::ConfChange) => Applied::Nothing,
            None => return Err(ApplyError::EntryKind(entry.kind)),
        };
        (self.records.index, self.records.term) = (entry.index, entry.term);
        if let Applied::Rolled(roll) = &applied {
            self.freeze(roll.end);
            // Up to A bucket class is as of A already.
            if entry.index > self.bucket_index {
                self.bucket.skip_trimmed(&self.records);
            }
        }
        self.prune();
        Ok(applied)
    }

    fn apply_command(&mut self, entry: &LogEntry) -> Result<Applied, ApplyError> {
        let (header, command) = Command::decode(entry.data.clone())?;
        let place = Place { index: entry.index, term: entry.term, append_time_ms: header.append_time_ms };
        match header.kind.class() {
            Class::Record => self.apply_record_class(place, command),
            Class::Bucket => Ok(self.apply_bucket_class(place, command)),
            Class::Metadata => Err(ApplyError::WrongGroup),
        }
    }

    fn apply_record_class(&mut self, place: Place, command: Command) -> Result<Applied, ApplyError> {
        match command {
            Command::Records(batch) => {
                let header = self.records.apply_records(place, &batch)?;
                // Up to A they are as of A already.
                if let Some(groups) = self.groups.as_mut().filter(|_| place.index > self.bucket_index) {
                    groups.apply(&batch);
                }
                if is_seeded(Bug::RollByLocalRule) && self.records.open.bytes >= roll_bytes() {
                    let roll = self.records.open.roll(self.records.log_end);
                    self.records.apply_roll(place, &roll)?;
                }
                Ok(Applied::Records { header, batch, append_time_ms: place.append_time_ms })
            }
            Command::Roll(roll) => self.records.apply_roll(place, &roll).map(Applied::Rolled),
            Command::ProducerExpired(expired) => {
                self.records.apply_producer_expired(place, &expired);
                Ok(Applied::Changed(Box::new(Command::ProducerExpired(expired))))
            }
            _ => Err(ApplyError::WrongGroup),
        }
    }

    fn apply_bucket_class(&mut self, place: Place, command: Command) -> Applied {
        let applies_again = is_seeded(Bug::BucketClassBelowA)
            || (is_seeded(Bug::OnlyAppendsBelowAIgnored) && !matches!(command, Command::TierAppend(_)));
        if place.index <= self.bucket_index && !applies_again {
            return Applied::Ignored;
        }
        if self.bucket.apply(place, &command, &self.records, self.identity.incarnation) {
            Applied::Changed(Box::new(command))
        } else {
            self.fenced += 1;
            Applied::Fenced(Box::new(command))
        }
    }

    /// Keeps record class as it is now, for a checkpoint as of this roll.
    fn freeze(&mut self, end: Offset) {
        self.frozen.insert(end, Arc::new(self.records.clone()));
        if self.frozen.len() > FROZEN_MAX {
            // The oldest is what the newest tiered roll has now; what a checkpoint needs next is near either end.
            let middle = *self.frozen.keys().nth(FROZEN_MAX / 2).expect("there are more than FROZEN_MAX");
            self.frozen.remove(&middle);
        }
    }

    /// Drops what is tiered, trimmed or covered by two published checkpoints. The newest state of those that are covered stays: where
    /// records are on nodes only, what is published is as of any entry and serves no member, and whoever has records behind its last
    /// roll, and cannot commit another without a member that lags, has nothing else to make a checkpoint of.
    fn prune(&mut self) {
        let dead = self.bucket.tiered_end.max(self.bucket.log_start);
        self.records.prune_rolls(dead);
        if self.bucket.published.len() == PUBLISHED_KEPT {
            let covered = self.bucket.published[0].state_offset;
            let newest = self.frozen.range(..=covered).next_back().map(|(end, _)| *end);
            while self
                .frozen
                .first_key_value()
                .is_some_and(|(end, _)| newest.is_some_and(|newest| *end < newest))
            {
                self.frozen.pop_first();
            }
        }
    }

    /// The last applied entry and its term.
    #[must_use]
    pub const fn applied(&self) -> (LogIndex, Term) {
        (self.records.index, self.records.term)
    }

    /// Whether A is applied: before it the state is not compared, not served and not led with.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.records.index >= self.bucket_index
    }

    /// Which partition.
    #[must_use]
    pub const fn identity(&self) -> &PartitionIdentity {
        &self.identity
    }

    /// State of record class.
    #[must_use]
    pub const fn records(&self) -> &RecordState {
        &self.records
    }

    /// State of bucket class.
    #[must_use]
    pub const fn bucket(&self) -> &BucketState {
        &self.bucket
    }

    /// A: the index up to which bucket class was part of the checkpoint that seeded this state.
    #[must_use]
    pub const fn bucket_index(&self) -> LogIndex {
        self.bucket_index
    }

    /// Record class as of the roll that ends at `end`.
    #[must_use]
    pub fn frozen_at(&self, end: Offset) -> Option<&Arc<RecordState>> {
        self.frozen.get(&end)
    }

    /// Record class as of the newest roll that ends at or before `end`, of those that are kept.
    #[must_use]
    pub fn newest_frozen(&self, end: Offset) -> Option<&Arc<RecordState>> {
        self.frozen.range(..=end).next_back().map(|(_, frozen)| frozen)
    }

    /// The oldest entry of which a checkpoint may still be made.
    #[must_use]
    pub fn oldest_frozen(&self) -> LogIndex {
        self.frozen.values().next().map_or(self.records.index, |frozen| frozen.index)
    }

    /// Groups of consumers; `None` where it is no partition of their topic.
    #[must_use]
    pub const fn groups(&self) -> Option<&Groups> {
        self.groups.as_ref()
    }

    /// Bucket-class commands that did nothing, in this process.
    #[must_use]
    pub const fn fenced(&self) -> u64 {
        self.fenced
    }

    /// Equal on all replicas that have applied the same index (R9); a seeded one is compared from A on.
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest::of(&self.hashed_bytes())
    }
}
