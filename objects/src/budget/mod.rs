//! How fast this node asks the store, by class (TIERING.md 12): requests and bytes a second, shared by [`Class`].
//!
//! ```text
//!   tiering, snapshot, compactor:  stores.of(Class::Merge)     a Store like any other
//!        |
//!   Retrying, one a class  ---- acquire(request, bytes) before each try ----> Budgets: two ladders of token buckets
//!        |                 <--- SlowDown: half the pace, then slowly back ---
//!   Counting -> ... -> S3
//! ```
//! Invariants
//! - Every try of every request passes here, those that are repeated too.
//! - Over any span a node asks for no more than its rate, a second's worth of it at once, and the debt of one request a
//!   class.
//! - A class gets its share whatever the others ask; what it does not use is lent, downwards and upwards.
//! - In a class it goes by order of arrival.

mod class;
mod ladder;

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use varve_common::{Clock, Monotonic};

pub use class::Class;
use ladder::Ladder;

use crate::limits::{SLOW_DOWN_EVERY, SLOW_DOWN_FLOOR, SLOW_DOWN_REST};

/// How fast a node may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetOptions {
    /// Requests a second. S3 gives a prefix 3,500 writes and 5,500 reads.
    pub requests_per_second: u32,
    /// Bytes a second in both directions together; `None`: as many as pass.
    pub bytes_per_second: Option<u64>,
}

impl Default for BudgetOptions {
    fn default() -> Self {
        Self { requests_per_second: crate::limits::REQUESTS_PER_SECOND, bytes_per_second: None }
    }
}

/// What a class has asked for so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Tries of requests that were let through.
    pub requests: u64,
    /// Bytes that they were to carry, or did.
    pub bytes: u64,
    /// Time that they waited to be let through, all together.
    pub waited: Duration,
    /// Requests that wait now.
    pub waiting: usize,
}

/// What all have asked for so far, and at which pace they may go on.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetReport {
    /// By class.
    pub spent: BTreeMap<Class, Spent>,
    /// How often the store asked to slow down and was heard.
    pub slow_downs: u64,
    /// The pace now: below the configured one after a slow-down.
    pub requests_per_second: f64,
}

struct Inner {
    options: BudgetOptions,
    requests: Ladder,
    bytes: Option<Ladder>,
    spent: [Spent; Class::ALL.len()],
    /// Who waits, by ticket, in order of arrival: the first for tokens, the others for their turn to be first.
    queues: [VecDeque<(u64, Option<Waker>)>; Class::ALL.len()],
    tickets: u64,
    pressed: bool,
    slow_downs: u64,
    /// When the pace was cut last.
    slowed: Option<Monotonic>,
    recovered: Monotonic,
    /// Requests of the second that runs, with its beginning, and of the one before.
    second: (Monotonic, f64, f64),
}

/// A handle to the budgets of a node; clones share them.
#[derive(Clone)]
pub struct Budgets {
    inner: Arc<Mutex<Inner>>,
    clock: Arc<dyn Clock>,
}

impl Budgets {
    /// Full budgets.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, options: BudgetOptions) -> Self {
        let now = clock.monotonic();
        let inner = Inner {
            options,
            requests: Ladder::new(f64::from(options.requests_per_second), now),
            bytes: options.bytes_per_second.map(|rate| Ladder::new(rate as f64, now)),
            spent: Default::default(),
            queues: Default::default(),
            tickets: 0,
            pressed: false,
            slow_downs: 0,
            slowed: None,
            recovered: now,
            second: (now, 0.0, 0.0),
        };
        Self { inner: Arc::new(Mutex::new(inner)), clock }
    }

    /// Waits until one request that carries `bytes` may go. Who gives up waiting has taken nothing.
    pub async fn acquire(&self, class: Class, bytes: u64) {
        let began = self.clock.monotonic();
        if self.lock().try_first(class, bytes, began) {
            return;
        }
        let ticket = Ticket::take(self, class);
        poll_fn(|context| self.lock().poll_turn(&ticket, context)).await;
        loop {
            let now = self.clock.monotonic();
            let tried = self.lock().try_acquire(class, bytes, now);
            match tried {
                Ok(()) => break,
                Err(pause) => self.clock.sleep(pause).await,
            }
        }
        self.lock().spent[class as usize].waited += self.clock.monotonic().since(began);
    }

    /// Pays for bytes whose number was not known before they came.
    pub fn charge(&self, class: Class, bytes: u64) {
        let mut inner = self.lock();
        let of = inner.effective(class);
        if let Some(ladder) = &mut inner.bytes {
            ladder.take(of, bytes as f64);
        }
        inner.spent[class as usize].bytes += bytes;
    }

    /// The store asked to slow down: half the pace of the last seconds, then slowly more.
    pub fn slow_down(&self) {
        let now = self.clock.monotonic();
        self.lock().slow_down(now);
    }

    /// While the log has no room all uploads go first.
    pub fn press(&self, pressed: bool) {
        self.lock().pressed = pressed;
    }

    /// What was asked for so far.
    #[must_use]
    pub fn report(&self) -> BudgetReport {
        let now = self.clock.monotonic();
        let mut inner = self.lock();
        inner.recover(now);
        let spent = |class: Class| Spent {
            waiting: inner.queues[class as usize].len(),
            ..inner.spent[class as usize]
        };
        BudgetReport {
            spent: Class::ALL.into_iter().map(|class| (class, spent(class))).collect(),
            slow_downs: inner.slow_downs,
            requests_per_second: inner.requests.rate(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }
}

impl Inner {
    const fn effective(&self, class: Class) -> Class {
        match class {
            Class::Upload if self.pressed => Class::PressedUpload,
            class => class,
        }
    }

    /// Whether nobody waits in front and there are tokens, which are taken.
    fn try_first(&mut self, class: Class, bytes: u64, now: Monotonic) -> bool {
        self.queues[class as usize].is_empty() && self.try_acquire(class, bytes, now).is_ok()
    }

    /// Ready when nobody is left in front.
    fn poll_turn(&mut self, ticket: &Ticket<'_>, context: &Context<'_>) -> Poll<()> {
        let queue = &mut self.queues[ticket.class as usize];
        if queue.front().is_none_or(|(number, _)| *number == ticket.number) {
            return Poll::Ready(());
        }
        if let Some((_, waker)) = queue.iter_mut().find(|(number, _)| *number == ticket.number) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    fn try_acquire(&mut self, class: Class, bytes: u64, now: Monotonic) -> Result<(), Duration> {
        self.recover(now);
        self.requests.refill(now);
        let of = self.effective(class);
        self.requests.check(of)?;
        if let Some(ladder) = &mut self.bytes {
            ladder.refill(now);
            if bytes > 0 {
                ladder.check(of)?;
                ladder.take(of, bytes as f64);
            }
        }
        self.requests.take(of, 1.0);
        if now.since(self.second.0) >= Duration::from_secs(1) {
            self.second = (now, 0.0, self.second.1);
        }
        self.second.1 += 1.0;
        let spent = &mut self.spent[class as usize];
        spent.requests += 1;
        spent.bytes += bytes;
        Ok(())
    }

    fn slow_down(&mut self, now: Monotonic) {
        // Answers to requests that were under way before the last cut say nothing new.
        if self.slowed.is_some_and(|last| now.since(last) < SLOW_DOWN_EVERY) {
            return;
        }
        let asked = self.second.1.max(self.second.2);
        let pace = (self.requests.rate().min(asked) / 2.0).max(SLOW_DOWN_FLOOR);
        self.requests.refill(now);
        self.requests.set_rate(pace.min(self.requests.rate()));
        (self.slowed, self.recovered) = (Some(now), now);
        self.slow_downs += 1;
    }

    /// A tenth more with each second in which the store did not ask.
    fn recover(&mut self, now: Monotonic) {
        let ceiling = f64::from(self.options.requests_per_second);
        let rested = self.slowed.is_some_and(|last| now.since(last) >= SLOW_DOWN_REST);
        if !rested || self.requests.rate() >= ceiling {
            return;
        }
        let seconds = now.since(self.recovered).as_secs_f64();
        self.recovered = now;
        self.requests.set_rate((self.requests.rate() * 1.1_f64.powf(seconds)).min(ceiling));
    }
}

/// A place in the queue, given back when dropped.
struct Ticket<'a> {
    budgets: &'a Budgets,
    class: Class,
    number: u64,
}

impl<'a> Ticket<'a> {
    fn take(budgets: &'a Budgets, class: Class) -> Self {
        let mut inner = budgets.lock();
        inner.tickets += 1;
        let number = inner.tickets;
        inner.queues[class as usize].push_back((number, None));
        drop(inner);
        Self { budgets, class, number }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut inner = self.budgets.lock();
        let queue = &mut inner.queues[self.class as usize];
        queue.retain(|(number, _)| *number != self.number);
        let next = queue.front_mut().and_then(|(_, waker)| waker.take());
        drop(inner);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests;
