//! What stays on this node in files of its own.

use varve_replica::{Action, JobKind, LocalRetention};

use crate::Planner;

impl Planner<'_> {
    pub(crate) fn seal(&mut self) {
        self.seal_rolled();
        self.give_up_sealed();
    }

    /// Rolled ranges go into files when the log must let go of them and the bucket does not have them.
    fn seal_rolled(&mut self) {
        if !self.is_pressed() || !self.is_stranded() || !self.may_try(JobKind::Seal) {
            return;
        }
        let sealed_end = self.status.seals.last().map_or(self.status.log_start, |seal| seal.end);
        let next = self.status.rolls.iter().find(|roll| {
            roll.base >= sealed_end.max(self.status.tiered_end)
                && !self.status.jobs.sealing.contains(&roll.base)
        });
        // In order, one at a time: the log is cut behind a contiguous end.
        if let Some(roll) = next.filter(|_| self.status.jobs.sealing.is_empty()) {
            let base = roll.base;
            self.act(Action::Seal { base });
        }
    }

    /// A file goes when its range lies below the log start, or when it is tiered and nobody asked to keep it here.
    fn give_up_sealed(&mut self) {
        if self.status.jobs.runs(JobKind::Unseal) {
            return;
        }
        let kept_bytes = match self.status.options.local_retention {
            LocalRetention::Window => Some(0),
            LocalRetention::Explicit { bytes, .. } => bytes,
        };
        let held: u64 = self.status.seals.iter().map(|seal| seal.bytes).sum();
        let Some(oldest) = self.status.seals.first() else { return };
        let dead = oldest.end <= self.status.log_start;
        let spare = oldest.end <= self.status.tiered_end && kept_bytes.is_some_and(|kept| held > kept);
        if dead || spare {
            let base = oldest.base;
            self.act(Action::Unseal { base });
        }
    }
}
