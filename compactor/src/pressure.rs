//! Room in the log: who must let go of it, and how much of a hurry there is.
//!
//! ```text
//! 0 %                      50 %          60 %          70 %                    100 %
//! |  nothing is in a hurry  |  roll, tier, | seal what     |  producers wait        |
//! |                         |  cut         | is not tiered |                        |
//! ```
//! Rolls and tier commands are entries too, and an entry of a group stands behind all before it. So producers are turned
//! away long before the log is full: were their records to fill it, the commands that free it would wait behind them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use varve_common::GroupId;

/// The share of its limit from which on the log counts as short of room, in percent.
const SHORT_PERCENT: u64 = 50;
/// The share from which on the store is not waited for.
const URGENT_PERCENT: u64 = 60;
/// The share from which on producers wait.
const CROWDED_PERCENT: u64 = 70;
/// The share of a file system's free bytes that the log counts on, in percent.
const FREE_PERCENT: u64 = 75;
/// The share of the live bytes whose holders are pressed first, in percent, and how much wider the circle gets each time
/// that a look finds nothing freed since the last: who was pressed first may be the one who cannot let go.
const COVERED_PERCENT: u64 = 50;
const COVERED_STEP_PERCENT: u64 = 5;

/// What the log is short of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// The groups that must let go of it; empty while there is room.
    pub groups: BTreeSet<GroupId>,
    /// Producers are about to wait: what is not in the bucket yet goes into files of this node.
    pub urgent: bool,
    /// The file system is short of room, not only the log of its quota: what need not stay on this node goes.
    pub disk: bool,
}

/// What the log holds.
#[derive(Clone, Copy, Debug)]
pub struct Holdings<'a> {
    /// All its files.
    pub bytes: u64,
    /// Of that, what is still needed.
    pub live_bytes: u64,
    /// Live bytes by group.
    pub groups: &'a BTreeMap<GroupId, u64>,
    /// Who holds something in the oldest file.
    pub oldest_pinned_by: &'a [GroupId],
}

/// From which size on producers wait, in a log of at most `bytes_max`.
#[must_use]
pub const fn crowded_bytes(bytes_max: u64) -> u64 {
    bytes_max / 100 * CROWDED_PERCENT
}

/// How far a log may grow: to its quota, or to what the file system has left for it. The rest of that is for what frees the
/// log: checkpoints, sealed files, an embedded store.
#[must_use]
pub const fn reachable_bytes(quota: u64, log_bytes: u64, free_bytes: u64) -> u64 {
    let reachable = log_bytes.saturating_add(free_bytes / 100 * FREE_PERCENT);
    if reachable < quota { reachable } else { quota }
}

/// What a log will hold once what waits for it is written, at most: a batch that does not fit leaves the rest of its file
/// empty, so it may take twice its length.
#[must_use]
pub const fn bytes_to_come(bytes: u64, queued_bytes: u64) -> u64 {
    bytes + 2 * queued_bytes
}

/// Watches a log: looked at from time to time, says who is pressed.
#[derive(Clone, Debug)]
pub struct PressureGauge {
    bytes_max: u64,
    covered_percent: u64,
    /// The fewest live bytes since the log became short.
    least: u64,
}

impl PressureGauge {
    /// A gauge for a log of at most `bytes_max`.
    #[must_use]
    pub const fn new(bytes_max: u64) -> Self {
        Self { bytes_max, covered_percent: COVERED_PERCENT, least: u64::MAX }
    }

    /// The limit.
    #[must_use]
    pub const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Changes the limit: what others leave of a file system changes.
    pub const fn limit(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// Whether a log of so many bytes is short of room.
    #[must_use]
    pub const fn is_short(&self, bytes: u64) -> bool {
        bytes > self.bytes_max / 100 * SHORT_PERCENT
    }

    /// Who must let go: the groups that keep the oldest file, and those that hold most. What little others hold in old files
    /// the log itself moves forward, once the live bytes have become few. `full`: the log has refused a batch.
    pub fn look(&mut self, log: Holdings<'_>, full: bool) -> Pressure {
        if !full && !self.is_short(log.bytes) {
            *self = Self::new(self.bytes_max);
            return Pressure::default();
        }
        if log.live_bytes < self.least {
            (self.least, self.covered_percent) = (log.live_bytes, COVERED_PERCENT);
        } else {
            self.covered_percent = (self.covered_percent + COVERED_STEP_PERCENT).min(100);
        }
        Pressure {
            groups: holders(log, self.covered_percent),
            urgent: full || log.bytes > self.bytes_max / 100 * URGENT_PERCENT,
            disk: false,
        }
    }
}

fn holders(log: Holdings<'_>, covered_percent: u64) -> BTreeSet<GroupId> {
    let mut by_size: Vec<(u64, GroupId)> = log.groups.iter().map(|(group, bytes)| (*bytes, *group)).collect();
    by_size.sort_unstable_by_key(|(bytes, group)| (Reverse(*bytes), *group));
    let mut pressed: BTreeSet<GroupId> = log.oldest_pinned_by.iter().copied().collect();
    let mut covered = 0;
    for (bytes, group) in by_size {
        if covered >= log.live_bytes / 100 * covered_percent {
            break;
        }
        covered += bytes;
        pressed.insert(group);
    }
    pressed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(bytes: u64, live_bytes: u64, groups: &BTreeMap<GroupId, u64>) -> Holdings<'_> {
        Holdings { bytes, live_bytes, groups, oldest_pinned_by: &[GroupId(0)] }
    }

    fn sizes() -> BTreeMap<GroupId, u64> {
        [(0, 10), (1, 4_000), (2, 2_000), (3, 990)].map(|(group, bytes)| (GroupId(group), bytes)).into()
    }

    fn groups(pressure: &Pressure) -> Vec<u64> {
        pressure.groups.iter().map(|group| group.0).collect()
    }

    #[test]
    fn who_holds_most_is_pressed_beside_who_holds_the_oldest_file() {
        let sizes = sizes();
        let mut gauge = PressureGauge::new(18_000);
        assert_eq!(groups(&gauge.look(log(9_001, 7_000, &sizes), false)), [0, 1]);
        assert_eq!(gauge.look(log(9_000, 7_000, &sizes), false), Pressure::default());
        assert_eq!(groups(&gauge.look(log(1_000, 7_000, &sizes), true)), [0, 1]);
    }

    #[test]
    fn in_the_end_everybody_is_pressed_while_nothing_is_freed() {
        let sizes = sizes();
        let mut gauge = PressureGauge::new(12_000);
        let mut look = |live| groups(&gauge.look(log(9_000, live, &sizes), false));
        assert_eq!(look(7_000), [0, 1]);
        let widened: Vec<_> = (0..20).map(|_| look(7_000)).collect();
        assert_eq!(widened.last().unwrap(), &[0, 1, 2, 3]);
        assert_eq!(look(6_999), [0, 1], "something went: the largest are asked again");
    }

    #[test]
    fn a_file_system_that_fills_binds_before_the_quota_does() {
        assert_eq!(reachable_bytes(1_000, 100, u64::MAX), 1_000);
        assert_eq!(reachable_bytes(1_000, 100, 400), 400);
        assert_eq!(reachable_bytes(1_000, 100, 0), 100);
        let mut gauge = PressureGauge::new(10_000);
        assert!(!gauge.is_short(4_000));
        gauge.limit(reachable_bytes(10_000, 4_000, 3_000));
        assert!(gauge.is_short(4_000));
    }

    #[test]
    fn it_is_urgent_before_producers_wait() {
        let sizes = sizes();
        let mut gauge = PressureGauge::new(10_000);
        assert!(!gauge.look(log(5_500, 5_000, &sizes), false).urgent);
        assert!(gauge.look(log(6_500, 5_000, &sizes), false).urgent);
        assert!(crowded_bytes(10_000) > 6_500);
    }
}
