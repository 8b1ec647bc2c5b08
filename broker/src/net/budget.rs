//! Memory that all connections share: for requests that arrive or run, and for answers that have not left.

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// Budgets are counted in units of this many bytes, so that they fit a semaphore.
const UNIT_BYTES: usize = 4 << 10;

/// So many bytes for all connections. Clones share them.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Semaphore>);

/// A part of a budget; given back when dropped.
#[derive(Debug)]
pub struct Share(OwnedSemaphorePermit);

const fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT_BYTES)
}

impl Budget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// Waits for this many bytes.
    pub async fn take(&self, bytes: usize) -> Share {
        let units = u32::try_from(units(bytes)).expect("frames are bounded by i32::MAX");
        Share(Arc::clone(&self.0).acquire_many_owned(units).await.expect("nobody closes the budget"))
    }

    /// As much as there is up to `most`; where that is less than `least`, waits for that much, until the deadline.
    pub async fn take_some(&self, most: usize, least: usize, deadline: Instant) -> Option<Share> {
        let least = least.min(most);
        let free = self.0.available_permits().min(units(most));
        if free >= units(least)
            && let Some(share) = self.try_take(free)
        {
            return Some(share);
        }
        timeout_at(deadline, self.take(least)).await.ok()
    }

    fn try_take(&self, units: usize) -> Option<Share> {
        let units = u32::try_from(units).ok()?;
        Arc::clone(&self.0).try_acquire_many_owned(units).ok().map(Share)
    }

    /// Bytes that nobody holds.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.0.available_permits() * UNIT_BYTES
    }

    /// Makes a share fit what it is for: what it has too much goes back; what it lacks is taken where it is free.
    pub fn fit(&self, share: &mut Share, bytes: usize) {
        let (held, wanted) = (share.0.num_permits(), units(bytes));
        if wanted < held {
            drop(share.0.split(held - wanted));
        } else if let Some(more) = self.try_take(wanted - held) {
            share.merge(more);
        }
    }
}

impl Share {
    /// How much it is.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.num_permits() * UNIT_BYTES
    }

    /// Adds another share of the same budget.
    pub fn merge(&mut self, more: Self) {
        self.0.merge(more.0);
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
}
