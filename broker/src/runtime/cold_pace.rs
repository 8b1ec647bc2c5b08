//! How fast cold reads may go beside hot requests (TIERING.md 10, 12).
//!
//! What comes from the object store costs processor time that nothing here can give back: the network's, the checksums', the
//! client's, and where the store is on this machine the store's. Threads of their own keep no producer from waiting for a
//! processor. So the reads are paced by what hot requests feel: beside the connections' tasks a timer is set again and again,
//! and how late it fires is how long a request waits for its turn.
//!
//! ```text
//! timers are late, and there are hot requests    the pace is cut, down to [`RATE_MIN`]
//! timers are in time, or nobody is hot           it grows, until there is no bound any more
//! ```
//! Reads take their turns in one line for the whole node, so that more readers are not faster together. A machine that has
//! processors to spare never sees a bound; neither does one on which nobody produces, nor reads at the tail.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use varve_common::{Clock, Monotonic};

use crate::metrics::Metrics;

/// How long the timer runs.
const PROBE: Duration = Duration::from_millis(2);
/// How often the pace is thought over.
const WINDOW: Duration = Duration::from_millis(20);
/// A timer so late says that hot requests wait for processors.
const LATE: Duration = Duration::from_millis(4);
/// The slowest pace in bytes a second: cold readers always get on.
const RATE_MIN: f64 = (32 << 20) as f64;
/// Beyond this pace there is no bound.
const RATE_MAX: f64 = (4_u64 << 30) as f64;
/// What is left of the pace where timers were late, and how it grows in each window where they were not.
const CUT: f64 = 0.6;
const GROWTH: f64 = 1.1;
/// The weight of the last window in what is known of the present flow.
const FLOW_WEIGHT: f64 = 0.2;
/// Without a read for so long nothing is measured.
const REST: Duration = Duration::from_millis(200);

const _: () = assert!(PROBE.as_millis() < WINDOW.as_millis() && WINDOW.as_millis() < REST.as_millis());
const _: () = assert!(CUT * GROWTH < 1.0);

/// A handle; clones share it.
#[derive(Clone)]
pub struct ColdPace {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Shared {
    pace: Mutex<Pace>,
    /// Hot requests so far.
    hot: AtomicU64,
    /// A read wants its turn.
    wanted: Notify,
}

impl ColdPace {
    /// No bound, until hot requests wait.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self { shared: Arc::default(), clock, metrics }
    }

    /// A request that no cold read may keep waiting.
    pub fn on_hot(&self) {
        self.shared.hot.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for the turn of a read that may bring `bytes`.
    pub async fn turn(&self, bytes: usize) {
        let now = self.clock.monotonic();
        let turn = self.lock().reserve(now, bytes);
        self.shared.wanted.notify_one();
        if turn > now {
            self.metrics.handles.cold_reads_paced.inc();
            self.clock.sleep(turn.since(now)).await;
        }
    }

    /// A read that was given `reserved` has brought `bytes`.
    pub fn on_read(&self, reserved: usize, bytes: usize) {
        self.lock().settle(reserved, bytes);
    }

    /// Measures for as long as there are cold reads. It belongs where hot requests run.
    pub async fn watch(self) {
        loop {
            self.shared.wanted.notified().await;
            let mut goes_on = true;
            while goes_on {
                let due = self.clock.monotonic().plus(PROBE);
                self.clock.sleep(PROBE).await;
                let (now, hot) = (self.clock.monotonic(), self.shared.hot.load(Ordering::Relaxed));
                let mut pace = self.lock();
                pace.observe(now, now.since(due), hot);
                goes_on = now.since(pace.last_read) < REST;
                self.metrics.handles.cold_pace.set(if pace.rate.is_finite() { pace.rate as i64 } else { 0 });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pace> {
        self.shared.pace.lock().expect("no holder of this lock panics")
    }
}

/// The pace, as numbers.
struct Pace {
    /// Bytes a second; infinite where there is no bound.
    rate: f64,
    /// When the next read has its turn.
    free_at: Monotonic,
    last_read: Monotonic,
    /// Bytes a second that were read lately.
    flow: f64,
    window: Window,
    /// Hot requests up to this window.
    hot: u64,
}

#[derive(Default)]
struct Window {
    began: Monotonic,
    latest: Duration,
    bytes: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            rate: f64::INFINITY,
            free_at: Monotonic::default(),
            last_read: Monotonic::default(),
            flow: 0.0,
            window: Window::default(),
            hot: 0,
        }
    }
}

impl Pace {
    /// How long so many bytes keep those behind them waiting.
    fn takes(&self, bytes: usize) -> Duration {
        if self.rate.is_finite() { Duration::from_secs_f64(bytes as f64 / self.rate) } else { Duration::ZERO }
    }

    /// A place in line for so many bytes.
    fn reserve(&mut self, now: Monotonic, bytes: usize) -> Monotonic {
        self.last_read = now;
        let turn = if self.rate.is_finite() { self.free_at.max(now) } else { now };
        self.free_at = turn.plus(self.takes(bytes));
        turn
    }

    /// What was reserved and not read is given back.
    fn settle(&mut self, reserved: usize, bytes: usize) {
        self.window.bytes += bytes;
        let back = self.takes(reserved.saturating_sub(bytes));
        self.free_at = Monotonic(self.free_at.0.saturating_sub(back));
    }

    /// A timer fired so late, after so many hot requests since the start.
    fn observe(&mut self, now: Monotonic, late: Duration, hot: u64) {
        self.window.latest = self.window.latest.max(late);
        let span = now.since(self.window.began);
        if span < WINDOW {
            return;
        }
        let flow = self.window.bytes as f64 / span.as_secs_f64();
        self.flow += FLOW_WEIGHT * (flow - self.flow);
        if self.window.latest > LATE && hot != self.hot {
            self.rate = (self.rate.min(self.flow) * CUT).max(RATE_MIN);
        } else {
            self.rate *= GROWTH;
        }
        if self.rate > RATE_MAX {
            self.rate = f64::INFINITY;
        }
        self.hot = hot;
        self.window = Window { began: now, ..Window::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn at(ms: u64) -> Monotonic {
        Monotonic(Duration::from_millis(ms))
    }

    /// Reads 4 MiB after 4 MiB for so long, while timers are so late and there are so many hot requests a window; gives the
    /// bytes a second.
    fn run(pace: &mut Pace, from_ms: u64, span_ms: u64, late: Duration, hot: u64) -> f64 {
        let (mut bytes, mut turn) = (0, at(from_ms));
        for ms in from_ms..from_ms + span_ms {
            // A reader alone comes to 2 GiB a second.
            while turn <= at(ms) {
                let begin = pace.reserve(turn, 4 * MIB);
                pace.settle(4 * MIB, 4 * MIB);
                bytes += 4 * MIB;
                turn = begin.plus(Duration::from_millis(2));
            }
            if ms % 2 == 0 {
                pace.observe(at(ms), late, pace.hot + hot);
            }
        }
        bytes as f64 / (span_ms as f64 * 1e-3)
    }

    #[test]
    fn reads_beside_hot_requests_that_wait_slow_down_to_the_least_and_come_back_after() {
        let mut pace = Pace::default();
        let in_time = Duration::from_millis(1);
        let late = Duration::from_millis(9);
        let alone = run(&mut pace, 0, 1_000, in_time, 1);
        assert!(alone > 1.9e9, "nobody waits: {alone}");
        run(&mut pace, 1_000, 500, late, 1);
        let crowded = run(&mut pace, 1_500, 1_000, late, 1);
        assert!((0.8 * RATE_MIN..1.3 * RATE_MIN).contains(&crowded), "they wait: {crowded}");
        run(&mut pace, 2_500, 2_000, in_time, 1);
        let again = run(&mut pace, 4_500, 1_000, in_time, 1);
        assert!(again > 1.9e9, "nobody waits any more: {again}");
    }

    #[test]
    fn where_nobody_is_hot_late_timers_slow_nobody() {
        let mut pace = Pace::default();
        assert!(run(&mut pace, 0, 1_000, Duration::from_millis(50), 0) > 1.9e9);
    }

    #[test]
    fn more_readers_are_not_faster_together() {
        let mut pace = Pace { rate: RATE_MIN, ..Pace::default() };
        let turns: Vec<_> = (0..9).map(|_| pace.reserve(at(0), 4 * MIB).0.as_millis()).collect();
        assert_eq!(turns, [0, 125, 250, 375, 500, 625, 750, 875, 1000]);
        // A short read makes room for the next.
        pace.settle(4 * MIB, 0);
        assert_eq!(pace.reserve(at(0), 4 * MIB), at(1000));
    }
}
