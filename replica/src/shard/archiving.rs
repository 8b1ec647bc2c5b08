//! Files for other systems: what waits for them, and the next step to the next one.
//!
//! A step is a job: it measures a file, or puts the announced one. What it comes to is proposed, and what is applied says what
//! the next step is. How long records have waited every replica counts for itself, by the times of the commands that tiered them.

use std::collections::VecDeque;

use varve_common::{Offset, Term};
use varve_formats::{
    command::{ArchivePlanned, Archived, Command},
    state::{ArchivePlan, ArchiveState},
};

use super::hosted::Hosted;
use crate::{
    api::{Effect, Job, JobKind, Now},
    limits::UNARCHIVED_MAX,
    partition::BucketState,
};

/// What a replica knows beside the state.
#[derive(Debug, Default)]
pub(super) struct Archiving {
    /// Ends of what was tiered, and when: oldest first, no more than is not in files.
    waiting: VecDeque<(Offset, i64)>,
    /// The term in which it was seen that no file is there that the group does not know.
    alone_in: Option<Term>,
}

impl Archiving {
    /// Of what is tiered already nobody remembers when.
    pub(super) fn recover(&mut self, bucket: &BucketState, time_ms: i64) {
        self.waiting.clear();
        let end = bucket.archive.map_or(bucket.log_start, |archive| archive.end);
        if bucket.tiered_end > end {
            self.waiting.push_back((bucket.tiered_end, time_ms));
        }
    }

    /// Where nothing is put into files one end is enough to go on from.
    pub(super) fn tiered(&mut self, end: Offset, time_ms: i64, is_archived: bool) {
        let full = self.waiting.len() >= if is_archived { UNARCHIVED_MAX } else { 1 };
        match self.waiting.back_mut() {
            // The younger ones count as old as the last that is told apart.
            Some(last) if full => last.0 = end,
            _ => self.waiting.push_back((end, time_ms)),
        }
    }

    pub(super) fn archived(&mut self, end: Offset) {
        while self.waiting.front().is_some_and(|first| first.0 <= end) {
            self.waiting.pop_front();
        }
    }

    /// When the oldest was tiered of what waits.
    pub(super) fn since_ms(&self) -> Option<i64> {
        self.waiting.front().map(|first| first.1)
    }
}

impl Hosted {
    pub(super) fn archive(&mut self, effects: &mut Vec<Effect>) {
        let Some(state) = self.partition() else { return };
        let busy = self.jobs.runs(JobKind::Archive) || self.speculation.archive.is_some();
        if !self.is_ready() || self.options.archive_age_ms.is_none() || busy {
            return;
        }
        let bucket = state.bucket();
        let start = bucket.root.first().unwrap_or(bucket.tiered_end).max(bucket.log_start);
        let archive = bucket.archive.unwrap_or_else(|| ArchiveState::starting_at(start));
        if archive.plan.is_none() && bucket.tiered_end <= archive.end.max(start) {
            return;
        }
        let job = Job::Archive {
            group: self.group,
            identity: state.identity().clone(),
            root: std::sync::Arc::clone(&bucket.root),
            offsets: start..bucket.tiered_end,
            archive,
            look: self.archiving.alone_in != Some(self.raft.term()),
        };
        self.start(job, effects);
    }

    /// The range is known: it is announced before its file is put.
    pub(super) fn measured(&mut self, now: Now, plan: ArchivePlan, alone: bool) {
        let term = self.raft.term();
        self.archiving.alone_in = alone.then_some(term);
        let command = Command::ArchivePlanned(ArchivePlanned { term, plan });
        self.speculation.archive = self.propose(now, &command, None);
    }

    /// The file is there, or there is none to be: the cursor moves.
    pub(super) fn archived(&mut self, now: Now, archived: impl FnOnce(Term) -> Archived) {
        let command = Command::Archived(archived(self.raft.term()));
        self.speculation.archive = self.propose(now, &command, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_as_old_as_the_oldest_that_is_in_no_file() {
        let mut archiving = Archiving::default();
        archiving.tiered(Offset(10), 100, true);
        archiving.tiered(Offset(20), 200, true);
        archiving.archived(Offset(5));
        assert_eq!(archiving.since_ms(), Some(100));
        archiving.archived(Offset(12));
        assert_eq!(archiving.since_ms(), Some(200));
        archiving.archived(Offset(20));
        assert_eq!(archiving.since_ms(), None);
    }

    #[test]
    fn where_nothing_is_archived_one_end_is_kept() {
        let mut archiving = Archiving::default();
        (0..10).for_each(|n| archiving.tiered(Offset(n + 1), n as i64, false));
        assert_eq!((archiving.waiting.len(), archiving.since_ms()), (1, Some(0)));
    }

    #[test]
    fn of_many_the_youngest_count_as_one() {
        let mut archiving = Archiving::default();
        (0..3 * UNARCHIVED_MAX as u64).for_each(|n| archiving.tiered(Offset(n + 1), n as i64, true));
        assert_eq!(archiving.waiting.len(), UNARCHIVED_MAX);
        archiving.archived(Offset(3 * UNARCHIVED_MAX as u64 - 1));
        assert_eq!(archiving.since_ms(), Some(UNARCHIVED_MAX as i64 - 1));
        archiving.archived(Offset(3 * UNARCHIVED_MAX as u64));
        assert_eq!(archiving.since_ms(), None);
    }
}
