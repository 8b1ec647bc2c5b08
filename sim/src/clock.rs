//! Simulated time: it stands still while anything can run, and then jumps to the next timer.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use varve_common::{Clock, Monotonic, clock::BoxFuture};

/// Wall-clock time at which every simulation begins: 2026-01-01, UTC.
const BEGIN_MS: i64 = 1_767_225_600_000;

#[derive(Default)]
struct State {
    now: Duration,
    /// Offset of the wall clock, which may step.
    wall_offset_ms: i64,
    next_timer: u64,
    /// By due time, then in the order of asking: one seed, one order.
    timers: BTreeMap<(Duration, u64), Waker>,
}

/// A clock; clones share it.
#[derive(Clone, Default)]
pub struct SimClock(Arc<Mutex<State>>);

impl SimClock {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("the simulator is one thread")
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Monotonic> {
        self.lock().timers.keys().next().map(|(due, _)| Monotonic(*due))
    }

    /// Moves time on to `until` and wakes what is due by then.
    pub fn advance(&self, until: Monotonic) {
        let mut state = self.lock();
        state.now = state.now.max(until.0);
        while let Some(entry) = state.timers.first_entry() {
            if entry.key().0 > until.0 {
                break;
            }
            entry.remove().wake();
        }
    }

    /// Steps the wall clock, as an operator or NTP does; monotonic time is not touched.
    pub fn step_wall(&self, by_ms: i64) {
        self.lock().wall_offset_ms += by_ms;
    }

    /// Forgets all timers: their tasks died with the machine.
    pub fn forget_timers(&self) {
        self.lock().timers.clear();
    }
}

impl Clock for SimClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(self.lock().now)
    }

    fn wall_ms(&self) -> i64 {
        let state = self.lock();
        BEGIN_MS + state.now.as_millis() as i64 + state.wall_offset_ms
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        let due = self.lock().now.saturating_add(span);
        Box::pin(Sleep { clock: self.clone(), due, timer: None })
    }
}

struct Sleep {
    clock: SimClock,
    due: Duration,
    timer: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let clock = self.clock.clone();
        let mut state = clock.lock();
        if state.now >= self.due {
            return Poll::Ready(());
        }
        let timer = *self.timer.get_or_insert_with(|| {
            state.next_timer += 1;
            state.next_timer
        });
        state.timers.insert((self.due, timer), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.clock.lock().timers.remove(&(self.due, timer));
        }
    }
}
