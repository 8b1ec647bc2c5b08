//! Deleted topics: what is left of them goes once no restore can bring them back.

use varve_replica::{Action, JobKind, ReapPass, metadata::Deletion};

use crate::Planner;

impl Planner<'_> {
    /// One topic at a time, the longest deleted first. Objects go when the two newest checkpoints of the metadata carry
    /// the deletion: a restore from an earlier one would find the topic without its records.
    pub(crate) fn reap(&mut self) {
        if !self.status.ready || self.options.draining || self.status.jobs.runs(JobKind::Reap) {
            return;
        }
        let mut waiting: Vec<&Deletion> = self.status.deletions.values().collect();
        waiting.sort_by_key(|deletion| deletion.index);
        for deletion in waiting {
            if !self.is_carried(deletion) {
                continue;
            }
            let topic = deletion.topic.id;
            let pass = if !self.status.reaped_early.contains(&topic) {
                ReapPass::Early
            } else if self.has_aged(deletion.since_ms, self.options.delete_grace) {
                ReapPass::Final
            } else {
                continue;
            };
            if self.may_try(JobKind::Reap) {
                self.act(Action::Reap { topic, pass });
            }
            return;
        }
    }

    fn is_carried(&self, deletion: &Deletion) -> bool {
        let [older, newest] = self.status.published.as_slice() else { return false };
        older.applied_index.min(newest.applied_index) >= deletion.index
    }

    /// Whether a deletion waits for another checkpoint of the metadata.
    pub(crate) fn deletions_wait(&self) -> bool {
        self.status.deletions.values().any(|deletion| !self.is_carried(deletion))
    }
}
