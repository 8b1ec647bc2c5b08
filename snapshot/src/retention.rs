//! Which checkpoints in the bucket may go.
//!
//! Kept are the newest three, so that a damaged newest has two before it; and, so that a restore can go back in time,
//! the newest of each hour of the last day and the newest of each day of the last week. Those of the grid serve restore
//! only: they hold neither local log nor objects below the log start (TIERING.md 6).

use std::collections::BTreeSet;

use varve_formats::command::PublishedCheckpoint;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The newest of each `step_ms` is kept while it is younger than `keep_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How far apart.
    pub step_ms: i64,
    /// How long.
    pub keep_ms: i64,
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// How many of the newest, at least two: local logs and objects wait for the two newest (TIERING.md 6, 9).
    newest: usize,
    steps: Vec<Step>,
}

impl Grid {
    /// A grid that keeps at least the two newest.
    #[must_use]
    pub fn new(newest: usize, steps: Vec<Step>) -> Self {
        Self { newest: newest.max(2), steps }
    }
}

impl Default for Grid {
    fn default() -> Self {
        let hourly = Step { step_ms: HOUR_MS, keep_ms: DAY_MS };
        let daily = Step { step_ms: DAY_MS, keep_ms: 7 * DAY_MS };
        Self::new(3, vec![hourly, daily])
    }
}

/// The uids of the checkpoints that may be deleted, oldest first. `published` are committed ones, and so verified; what
/// a listing shows beyond them is not this function's to judge. A clock that jumps can thin the grid out, never the
/// newest.
#[must_use]
pub fn surplus(published: &[PublishedCheckpoint], grid: &Grid, now_ms: i64) -> Vec<u64> {
    let mut newest_first: Vec<&PublishedCheckpoint> = published.iter().collect();
    newest_first.sort_by_key(|checkpoint| std::cmp::Reverse((checkpoint.applied_index, checkpoint.uid)));
    let mut kept_cells = BTreeSet::new();
    let mut surplus = Vec::new();
    for (place, checkpoint) in newest_first.iter().enumerate() {
        let mut keep = place < grid.newest;
        for (number, step) in grid.steps.iter().enumerate() {
            let young = now_ms.saturating_sub(checkpoint.published_ms) < step.keep_ms;
            let cell = checkpoint.published_ms.div_euclid(step.step_ms.max(1));
            keep |= young && kept_cells.insert((number, cell));
        }
        if !keep {
            surplus.push(checkpoint.uid);
        }
    }
    surplus.reverse();
    surplus
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::published;

    #[test]
    fn the_newest_three_and_the_grid_stay() {
        let now = 100 * DAY_MS;
        // Every ten minutes for ten days, oldest first.
        let all: Vec<_> =
            (0..1_440).map(|n| published(n, now - 10 * DAY_MS + (n as i64 + 1) * HOUR_MS / 6)).collect();
        let gone: BTreeSet<u64> = surplus(&all, &Grid::default(), now).into_iter().collect();
        let kept: Vec<_> = all.iter().filter(|one| !gone.contains(&one.uid)).collect();
        let young = |age: i64| kept.iter().filter(|one| now - one.published_ms < age).count();
        assert!((24..=27).contains(&young(DAY_MS)), "{}", young(DAY_MS));
        assert!((30..=34).contains(&kept.len()), "{}", kept.len());
        assert!(kept.iter().all(|one| now - one.published_ms < 7 * DAY_MS));
        assert!((1_437..1_440).all(|uid| !gone.contains(&uid)));
    }

    #[test]
    fn old_ones_stay_while_nothing_newer_is_there() {
        let all: Vec<_> = (0..5).map(|n| published(n, 0)).collect();
        assert_eq!(surplus(&all, &Grid::default(), 100 * DAY_MS), [0, 1]);
        assert!(surplus(&all[..3], &Grid::default(), 100 * DAY_MS).is_empty());
    }

    proptest! {
        #[test]
        fn b8_the_two_newest_always_stay(
            times in prop::collection::vec(any::<i64>(), 0..40), now in any::<i64>(), newest in 0..5_usize,
        ) {
            let all: Vec<_> = times.iter().enumerate().map(|(n, time)| published(n as u64, *time)).collect();
            let grid = Grid::new(newest, Grid::default().steps);
            let gone = surplus(&all, &grid, now);
            prop_assert!(gone.iter().all(|uid| (*uid as usize) + 2 < all.len()));
            // What went once stays gone, and nothing else goes at the same time.
            let left: Vec<_> = all.iter().filter(|one| !gone.contains(&one.uid)).cloned().collect();
            prop_assert_eq!(surplus(&left, &grid, now), Vec::<u64>::new());
        }
    }
}
