//! Memory that all connections share: for requests that arrive or run, and for answers that have not left.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

/// Budgets are counted in units of this many bytes, so that they fit a semaphore.
const UNIT_BYTES: usize = 4 << 10;

/// So many bytes for all connections. Clones share them.
#[derive(Clone, Debug)]
pub struct Budget {
    bytes: Arc<Semaphore>,
    units: usize,
    /// The one place beyond them.
    beyond: Arc<Semaphore>,
}

/// A part of a budget; given back when dropped.
#[derive(Debug)]
pub struct Share {
    bytes: OwnedSemaphorePermit,
    beyond: Option<OwnedSemaphorePermit>,
}

const NOBODY_CLOSES: &str = "nobody closes the budget";

const fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT_BYTES)
}

impl Budget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { bytes: Arc::new(Semaphore::new(units)), units, beyond: Arc::new(Semaphore::new(1)) }
    }

    /// Waits for this many bytes.
    pub async fn take(&self, bytes: usize) -> Share {
        let units = u32::try_from(units(bytes)).expect("frames are bounded by i32::MAX");
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(units).await.expect(NOBODY_CLOSES);
        Share { bytes, beyond: None }
    }

    /// As much as what has a part of the budget needs in addition, to be `all` bytes; or the one place beyond it, where there is room
    /// for anything. That is for what is larger than the budget, and for the one of those who wait for each other that has
    /// waited for so long: all that is held by parts of frames would be waited for until their deadline.
    pub async fn grow(&self, bytes: usize, all: usize, wait: Duration) -> Share {
        if units(all) > self.units {
            return self.go_beyond().await;
        }
        match timeout(wait, self.take(bytes)).await {
            Ok(share) => share,
            Err(_) => tokio::select! {
                share = self.take(bytes) => share,
                share = self.go_beyond() => share,
            },
        }
    }

    async fn go_beyond(&self) -> Share {
        let place = Arc::clone(&self.beyond).acquire_owned().await.expect(NOBODY_CLOSES);
        let nothing = Arc::clone(&self.bytes).acquire_many_owned(0).await.expect(NOBODY_CLOSES);
        Share { bytes: nothing, beyond: Some(place) }
    }

    /// As much as there is up to `most`; where that is less than `least`, waits for that much, until the deadline.
    pub async fn take_some(&self, most: usize, least: usize, deadline: Instant) -> Option<Share> {
        let least = least.min(most);
        let free = self.bytes.available_permits().min(units(most));
        if free >= units(least)
            && let Some(share) = self.try_take(free)
        {
            return Some(share);
        }
        timeout_at(deadline, self.take(least)).await.ok()
    }

    fn try_take(&self, units: usize) -> Option<Share> {
        let units = u32::try_from(units).ok()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(units).ok()?;
        Some(Share { bytes, beyond: None })
    }

    /// Bytes that nobody holds.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.bytes.available_permits() * UNIT_BYTES
    }

    /// Makes a share fit what it is for: what it has too much goes back; what it lacks is taken where it is free.
    pub fn fit(&self, share: &mut Share, bytes: usize) {
        let (held, wanted) = (share.bytes.num_permits(), units(bytes));
        if wanted < held {
            drop(share.bytes.split(held - wanted));
        } else if let Some(more) = self.try_take(wanted - held) {
            share.merge(more);
        }
    }
}

impl Share {
    /// How much it is.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.num_permits() * UNIT_BYTES
    }

    /// Whether it is enough for so many.
    #[must_use]
    pub fn covers(&self, bytes: usize) -> bool {
        self.beyond.is_some() || self.bytes() >= bytes
    }

    /// Adds another share of the same budget.
    pub fn merge(&mut self, more: Self) {
        self.bytes.merge(more.bytes);
        self.beyond = self.beyond.take().or(more.beyond);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_there_is_is_taken_and_the_least_is_waited_for() {
        let budget = Budget::new(10 * UNIT_BYTES);
        let soon = || Instant::now() + Duration::from_millis(5);
        let mut first = budget.take_some(7 * UNIT_BYTES, UNIT_BYTES, soon()).await.unwrap();
        let second = budget.take_some(7 * UNIT_BYTES, UNIT_BYTES, soon()).await.unwrap();
        assert_eq!((first.bytes(), second.bytes()), (7 * UNIT_BYTES, 3 * UNIT_BYTES));
        assert!(budget.take_some(7 * UNIT_BYTES, UNIT_BYTES, soon()).await.is_none());
        budget.fit(&mut first, UNIT_BYTES);
        assert_eq!((first.bytes(), budget.free()), (UNIT_BYTES, 6 * UNIT_BYTES));
        budget.fit(&mut first, 100 * UNIT_BYTES);
        assert_eq!(first.bytes(), UNIT_BYTES, "what is not free is not taken");
        drop((first, second));
        assert_eq!(budget.free(), 10 * UNIT_BYTES);
    }

    #[tokio::test]
    async fn what_is_larger_than_the_budget_comes_alone() {
        let budget = Budget::new(10 * UNIT_BYTES);
        let wait = Duration::from_millis(5);
        let all = 11 * UNIT_BYTES;
        let large = budget.grow(UNIT_BYTES, all, wait).await;
        assert!(large.covers(all) && budget.free() == 10 * UNIT_BYTES);
        assert!(timeout(10 * wait, budget.grow(UNIT_BYTES, all, wait)).await.is_err(), "one at a time");
        assert!(budget.grow(10 * UNIT_BYTES, 10 * UNIT_BYTES, wait).await.covers(10 * UNIT_BYTES));
        drop(large);
        assert!(budget.grow(UNIT_BYTES, all, wait).await.covers(all));
    }

    #[tokio::test]
    async fn parts_of_frames_that_wait_for_each_other_go_on_one_by_one() {
        let budget = Budget::new(10 * UNIT_BYTES);
        let wait = Duration::from_millis(5);
        let (mut first, mut second) = (budget.take(5 * UNIT_BYTES).await, budget.take(5 * UNIT_BYTES).await);
        first.merge(budget.grow(3 * UNIT_BYTES, 8 * UNIT_BYTES, wait).await);
        assert!(first.covers(8 * UNIT_BYTES));
        let waiting = budget.grow(3 * UNIT_BYTES, 8 * UNIT_BYTES, wait);
        tokio::pin!(waiting);
        assert!(timeout(2 * wait, &mut waiting).await.is_err());
        drop(first);
        second.merge(waiting.await);
        assert!(second.covers(8 * UNIT_BYTES));
    }
}
