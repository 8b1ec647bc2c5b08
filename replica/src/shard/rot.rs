//! Bytes of this group that do not read back: is anything lost?
//!
//! ```text
//! entries --- all applied, and their records sealed, tiered or trimmed? --yes--> the log is cut behind them
//! file ------ its range tiered, trimmed, or still whole in the log? -----yes--> the file is given up
//!                                        |no
//!             other members? -----------------------------------------------yes--> somebody else leads, and one of them sends the file
//!                                        |no
//!                                        v
//!                    damaged: a durable mark, and this group stops; the others go on
//! ```
//! State is in memory and in checkpoints: of the log only records can be lost, and what is not applied.

use std::ops::Range;

use varve_common::LogIndex;

use super::hosted::{Hosted, Machine};
use crate::{
    api::{Effect, JobKind, Mark, Now, Rot, SealMark, StopReason},
    partition::PartitionState,
};

/// More than the planner ever waits for before it takes a checkpoint, and far from overflow.
const CHANGES_OF_ROT: u64 = 1 << 40;

impl Hosted {
    pub(super) fn rotten(&mut self, now: Now, rot: Rot, effects: &mut Vec<Effect>) {
        self.touched = true;
        let from = match &rot {
            Rot::Entries(entries) => {
                let entries = entries.start.max(self.truncated.0.next())..entries.end;
                if entries.is_empty() || !self.is_lost(&entries) {
                    return;
                }
                Some(entries.start)
            }
            Rot::Sealed(base) => {
                let Some(seal) = self.seals.iter().find(|seal| seal.base == *base).cloned() else { return };
                if !self.is_file_needed(&seal) {
                    // A file that comes in its place has its name: it goes when that is here.
                    let is_on_its_way = self.broken.contains(base)
                        && (self.brings_files() || self.jobs.runs(JobKind::Refetch));
                    if !is_on_its_way {
                        self.let_go_of(seal, effects);
                    }
                    return;
                }
                if self.is_had_elsewhere(&seal) {
                    return self.lose_file(&seal);
                }
                None
            }
            Rot::Checkpoint(index) => return self.replace_checkpoint(now, *index),
        };
        self.mark(Mark::Damaged { from }, effects);
        self.stop(StopReason::Damaged(rot), effects);
    }

    /// One that does not read back lets nothing be cut, and another is due: with an entry of its own where nothing came since.
    fn replace_checkpoint(&mut self, now: Now, index: LogIndex) {
        let before = self.local_checkpoints.len();
        self.local_checkpoints.retain(|checkpoint| checkpoint.index != index);
        if self.local_checkpoints.len() < before {
            self.since_checkpoint.changes = CHANGES_OF_ROT;
            self.advance(now);
        }
    }

    fn is_lost(&self, entries: &Range<LogIndex>) -> bool {
        match &self.machine {
            Machine::Metadata(state) => entries.end > state.applied().0.next(),
            Machine::Partition(state) => {
                entries.end > state.applied().0.next() || self.holds_alone(state, entries)
            }
        }
    }

    /// Whether the log alone holds records among `entries`.
    fn holds_alone(&self, state: &PartitionState, entries: &Range<LogIndex>) -> bool {
        let records = state.records();
        let open = !records.open.is_empty() && entries.end > records.open.first_index;
        let mut alone = records
            .rolls
            .iter()
            .filter(|roll| !self.seals.iter().any(|seal| seal.base == roll.base && seal.end == roll.end));
        open || alone.any(|roll| entries.start <= roll.roll_index && entries.end > roll.first_index)
    }

    /// Whether nothing else holds the range of a sealed file.
    fn is_file_needed(&self, seal: &SealMark) -> bool {
        let Some(state) = self.partition() else { return true };
        let bucket = state.bucket();
        let gone = seal.end <= bucket.tiered_end.max(bucket.log_start);
        !gone && seal.first_index <= self.truncated.0
    }
}
