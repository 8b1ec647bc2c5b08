//! Partitions whose uploads fail now, and what keeps them up.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use varve_common::{GroupId, Monotonic};
use varve_replica::Stall;

/// After so long without another failure a partition counts as stalled no more: it was deleted, or its uploads are paused.
/// Longer than a request may take with the longest pause behind it.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10 * 60);

/// Who is stalled. Uploads write, whoever shows it reads.
#[derive(Debug, Default)]
pub struct Stalls(Mutex<BTreeMap<GroupId, (Stall, Monotonic)>>);

impl Stalls {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, (Stall, Monotonic)>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// An upload of a partition has failed.
    pub fn begin(&self, group: GroupId, stall: Stall, now: Monotonic) {
        self.lock().insert(group, (stall, now));
    }

    /// One has succeeded.
    pub fn end(&self, group: GroupId) {
        self.lock().remove(&group);
    }

    /// How many are stalled by each cause.
    pub fn counts(&self, now: Monotonic) -> BTreeMap<Stall, usize> {
        let mut stalled = self.lock();
        stalled.retain(|_, (_, last)| now.since(*last) < FORGOTTEN_AFTER);
        let count = |stall: Stall| stalled.values().filter(|(now, _)| *now == stall).count();
        Stall::ALL.into_iter().map(|stall| (stall, count(stall))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_stalled_until_an_upload_succeeds_or_none_is_tried() {
        let at = |seconds| Monotonic(Duration::from_secs(seconds));
        let stalls = Stalls::default();
        stalls.begin(GroupId(1), Stall::NoAnswer, at(0));
        stalls.begin(GroupId(1), Stall::Denied, at(5));
        stalls.begin(GroupId(2), Stall::Denied, at(5));
        assert_eq!(stalls.counts(at(6))[&Stall::Denied], 2);
        assert_eq!(stalls.counts(at(6))[&Stall::NoAnswer], 0, "told, and nobody");
        stalls.end(GroupId(1));
        assert_eq!(stalls.counts(at(6))[&Stall::Denied], 1);
        assert_eq!(stalls.counts(at(700))[&Stall::Denied], 0);
    }
}
