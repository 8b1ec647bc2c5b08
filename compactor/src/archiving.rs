//! Files for other systems, while a partition grows (`varve.archive.parquet`): when the next step is due.
//!
//! A file is made when the records that wait for one would fill it, and when the oldest of them has waited for long enough; one
//! that is announced is always due. The rest is [`crate::archive::follow`]'s: where a file ends the records say.

use std::time::Duration;

use varve_common::Offset;
use varve_formats::manifest::Place;
use varve_replica::{Action, GroupStatus, JobKind};

use crate::Planner;

/// About how many bytes of the log are in the bucket behind `from`: of what it lies in, its share by offsets.
fn bytes_behind(status: &GroupStatus, from: Offset) -> u64 {
    let behind = |place: Place<'_>| {
        let (base, end) = (place.base(), place.end());
        let bytes = match place {
            Place::Node(node) => node.log_bytes(),
            Place::Entry(entry) => entry.batch_bytes,
        };
        let share = u128::from(end.0.saturating_sub(from.max(base).0));
        let all = u128::from(end.0 - base.0).max(1);
        u64::try_from(u128::from(bytes) * share / all).unwrap_or(u64::MAX)
    };
    status.root.places().map(behind).fold(0, u64::saturating_add)
}

impl Planner<'_> {
    pub(crate) fn archive(&mut self) {
        let status = self.status;
        let Some(age_ms) = status.options.archive_age_ms else { return };
        let busy = status.archive_pending || status.jobs.runs(JobKind::Archive);
        // Producers that wait for the log wait for the store.
        let later = !self.options.has_store || self.options.draining || self.options.pressure.urgent;
        if status.ready && !busy && !later && self.archive_is_due(age_ms) && self.may_try(JobKind::Archive) {
            self.act(Action::Archive);
        }
    }

    fn archive_is_due(&mut self, age_ms: u64) -> bool {
        let status = self.status;
        if status.archive.is_some_and(|archive| archive.plan.is_some()) {
            return true;
        }
        let start = status.root.first().unwrap_or(status.tiered_end).max(status.log_start);
        let from = status.archive.map_or(start, |archive| archive.end.max(start));
        if status.tiered_end <= from {
            return false;
        }
        bytes_behind(status, from) >= self.options.archive_bytes_max
            || status
                .unarchived_since_ms
                .is_some_and(|since| self.has_aged(since, Duration::from_millis(age_ms)))
    }
}
