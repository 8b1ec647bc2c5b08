//! The bytes that uploads may hold in memory together, over the whole node (TIERING.md 2).

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

struct Waiter {
    number: u64,
    waker: Waker,
}

struct Inner {
    bytes_max: u64,
    held: u64,
    held_max: u64,
    /// In the order in which they came: a large upload is never starved by small ones.
    waiters: VecDeque<Waiter>,
    next: u64,
}

/// A handle to the budget; clones share it.
#[derive(Clone)]
pub struct UploadBudget(Arc<Mutex<Inner>>);

impl UploadBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            bytes_max,
            held: 0,
            held_max: 0,
            waiters: VecDeque::new(),
            next: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Waits until `bytes` are free. More than the whole budget counts as the whole: it goes alone.
    #[must_use]
    pub fn reserve(&self, bytes: u64) -> Reserve {
        let bytes = bytes.min(self.lock().bytes_max);
        Reserve { budget: self.clone(), bytes, number: None }
    }

    /// What is held now.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.lock().held
    }

    /// The most that was ever held.
    #[must_use]
    pub fn held_max(&self) -> u64 {
        self.lock().held_max
    }
}

/// The future of [`UploadBudget::reserve`].
pub struct Reserve {
    budget: UploadBudget,
    bytes: u64,
    number: Option<u64>,
}

impl Future for Reserve {
    type Output = Reservation;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reservation> {
        let budget = self.budget.clone();
        let mut inner = budget.lock();
        let first = match self.number {
            Some(number) => inner.waiters.front().is_some_and(|waiter| waiter.number == number),
            None => inner.waiters.is_empty(),
        };
        if first && inner.held + self.bytes <= inner.bytes_max {
            if self.number.take().is_some() {
                inner.waiters.pop_front();
            }
            inner.held += self.bytes;
            inner.held_max = inner.held_max.max(inner.held);
            inner.wake_first();
            return Poll::Ready(Reservation { budget: budget.clone(), bytes: self.bytes });
        }
        let waker = context.waker().clone();
        if let Some(number) = self.number {
            if let Some(waiter) = inner.waiters.iter_mut().find(|waiter| waiter.number == number) {
                waiter.waker = waker;
            }
        } else {
            let number = inner.next;
            inner.next += 1;
            inner.waiters.push_back(Waiter { number, waker });
            self.number = Some(number);
        }
        Poll::Pending
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut inner = self.budget.lock();
            inner.waiters.retain(|waiter| waiter.number != number);
            inner.wake_first();
        }
    }
}

impl Inner {
    fn wake_first(&self) {
        if let Some(waiter) = self.waiters.front() {
            waiter.waker.wake_by_ref();
        }
    }
}

/// Bytes of the budget, given back when dropped.
pub struct Reservation {
    budget: UploadBudget,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut inner = self.budget.lock();
        inner.held -= self.bytes;
        inner.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::join};

    use super::*;
    use crate::tests::support::block_on;

    #[test]
    fn uploads_wait_their_turn_and_never_hold_more_than_the_budget() {
        let budget = UploadBudget::new(10);
        let first = block_on(budget.reserve(7));
        let mut large = budget.reserve(100);
        let mut small = budget.reserve(1);
        assert!((&mut large).now_or_never().is_none());
        assert!((&mut small).now_or_never().is_none(), "it came later");
        drop(first);
        assert!((&mut small).now_or_never().is_none());
        let (large, small) = block_on(join(async { drop(large.await) }, async { drop(small.await) }));
        assert_eq!((large, small, budget.held(), budget.held_max()), ((), (), 0, 10));
    }

    #[test]
    fn a_waiter_that_gives_up_frees_its_place() {
        let budget = UploadBudget::new(10);
        let held = block_on(budget.reserve(5));
        let mut waiting = budget.reserve(10);
        assert!((&mut waiting).now_or_never().is_none());
        drop(waiting);
        assert!(budget.reserve(5).now_or_never().is_some());
        drop(held);
    }
}
