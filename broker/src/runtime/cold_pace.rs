//! How fast cold reads may go beside hot requests (TIERING.md 10, 12).
//!
//! What comes from the object store costs processor time that nothing here can give back: the network's, the checksums', the
//! client's, and where the store is on this machine the store's. Threads of their own keep no producer from waiting for a
//! processor. So the reads are paced by what hot requests feel: beside the connections' tasks a timer is set again and again,
//! and how late it fires is how long a request waits for its turn.
//!
//! ```text
//! timers are late             the pace is cut, down to [`RATE_MIN`]
//! timers are in time          it grows, until there is no bound any more
//! nobody is hot               there is none
//! reads begin after a rest    it is at [`RATE_FIRST`]: what is not known yet must not be found out by those who are hot
//! ```
//! Reads take their turns in one line for the whole node, so that more readers are not faster together, and as many chunks are
//! under way as the pace needs. A machine that has processors to spare sees no bound after a second or two.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use varve_common::{Clock, Monotonic};
use varve_tiering::ChunkCache;

use crate::metrics::Metrics;

/// How long the timer runs.
const PROBE: Duration = Duration::from_millis(2);
/// How often the pace is thought over.
const WINDOW: Duration = Duration::from_millis(20);
/// A timer so late says that hot requests wait for processors.
const LATE: Duration = Duration::from_millis(3);
/// A request so long ago is still hot: others follow.
const HOT: Duration = Duration::from_millis(100);
/// The pace at which reads begin beside hot requests, in bytes a second.
const RATE_FIRST: f64 = (64 << 20) as f64;
/// The slowest pace in bytes a second: cold readers always get on.
const RATE_MIN: f64 = (32 << 20) as f64;
/// Beyond this pace there is no bound.
const RATE_MAX: f64 = (4_u64 << 30) as f64;
/// What is left of the pace where timers were late, and how it grows in each window where they were not.
const CUT: f64 = 0.5;
const GROWTH: f64 = 1.05;
/// So many bytes a second need one chunk under way, beside two that always may be.
const RATE_OF_A_FILL: f64 = (64 << 20) as f64;
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
    chunks: ChunkCache,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Shared {
    pace: Mutex<Pace>,
    /// When the last hot request came, in milliseconds of the clock.
    hot_ms: AtomicU64,
    /// A read wants its turn.
    wanted: Notify,
}

impl ColdPace {
    /// The pace of those who read `chunks`.
    #[must_use]
    pub fn new(chunks: ChunkCache, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self { shared: Arc::default(), chunks, clock, metrics }
    }

    /// A request that no cold read may keep waiting.
    pub fn on_hot(&self) {
        let now = self.clock.monotonic().0.as_millis() as u64;
        self.shared.hot_ms.store(now, Ordering::Relaxed);
    }

    fn is_hot(&self, now: Monotonic) -> bool {
        let last = Monotonic(Duration::from_millis(self.shared.hot_ms.load(Ordering::Relaxed)));
        last.0 > Duration::ZERO && now.since(last) < HOT
    }

    /// Waits for the turn of a read that may bring `bytes`.
    pub async fn turn(&self, bytes: usize) {
        let now = self.clock.monotonic();
        let turn = self.lock().reserve(now, bytes, self.is_hot(now));
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
            loop {
                let due = self.clock.monotonic().plus(PROBE);
                self.clock.sleep(PROBE).await;
                let now = self.clock.monotonic();
                let mut pace = self.lock();
                pace.observe(now, now.since(due), self.is_hot(now));
                let (bound, rests) = (pace.bound(), now.since(pace.last_read) >= REST);
                drop(pace);
                self.set(if rests { None } else { bound });
                if rests {
                    break;
                }
            }
        }
    }

    fn set(&self, bound: Option<f64>) {
        self.metrics.handles.cold_pace.set(bound.map_or(0, |rate| rate as i64));
        self.chunks.bound_fills(bound.map_or(usize::MAX, |rate| 2 + (rate / RATE_OF_A_FILL) as usize));
    }

    fn lock(&self) -> MutexGuard<'_, Pace> {
        self.shared.pace.lock().expect("no holder of this lock panics")
    }
}

/// The pace, as numbers.
struct Pace {
    /// Bytes a second beside hot requests; infinite where there is no bound.
    rate: f64,
    is_hot: bool,
    /// When the next read has its turn.
    free_at: Monotonic,
    last_read: Monotonic,
    /// Bytes a second that were read lately.
    flow: f64,
    window: Window,
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
            rate: RATE_FIRST,
            is_hot: false,
            free_at: Monotonic::default(),
            last_read: Monotonic::default(),
            flow: 0.0,
            window: Window::default(),
        }
    }
}

impl Pace {
    fn bound(&self) -> Option<f64> {
        (self.is_hot && self.rate.is_finite()).then_some(self.rate)
    }

    /// How long so many bytes keep those behind them waiting.
    fn takes(&self, bytes: usize) -> Duration {
        self.bound().map_or(Duration::ZERO, |rate| Duration::from_secs_f64(bytes as f64 / rate))
    }

    /// A place in line for so many bytes.
    fn reserve(&mut self, now: Monotonic, bytes: usize, is_hot: bool) -> Monotonic {
        if now.since(self.last_read) >= REST {
            self.rate = self.rate.min(RATE_FIRST);
        }
        self.is_hot = is_hot;
        let turn = if self.bound().is_some() { self.free_at.max(now) } else { now };
        self.last_read = turn;
        self.free_at = turn.plus(self.takes(bytes));
        turn
    }

    /// What was reserved and not read is given back.
    fn settle(&mut self, reserved: usize, bytes: usize) {
        self.window.bytes += bytes;
        let back = self.takes(reserved.saturating_sub(bytes));
        self.free_at = Monotonic(self.free_at.0.saturating_sub(back));
    }

    /// A timer fired so late.
    fn observe(&mut self, now: Monotonic, late: Duration, is_hot: bool) {
        self.is_hot = is_hot;
        self.window.latest = self.window.latest.max(late);
        let span = now.since(self.window.began);
        if span < WINDOW {
            return;
        }
        let flow = self.window.bytes as f64 / span.as_secs_f64();
        self.flow += FLOW_WEIGHT * (flow - self.flow);
        if self.window.latest > LATE && is_hot {
            self.rate = (self.rate.min(self.flow) * CUT).max(RATE_MIN);
        } else {
            self.rate *= GROWTH;
        }
        if self.rate > RATE_MAX {
            self.rate = f64::INFINITY;
        }
        self.window = Window { began: now, ..Window::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const IN_TIME: Duration = Duration::from_millis(1);
    const TOO_LATE: Duration = Duration::from_millis(9);

    fn at(ms: u64) -> Monotonic {
        Monotonic(Duration::from_millis(ms))
    }

    /// Reads 4 MiB after 4 MiB for a second while timers are so late; gives the bytes.
    fn read_for_a_second(pace: &mut Pace, from_ms: u64, late: Duration, is_hot: bool) -> f64 {
        let (mut bytes, mut turn) = (0, at(from_ms));
        for ms in from_ms..from_ms + 1_000 {
            // A reader alone comes to 2 GiB a second.
            while turn <= at(ms) {
                let begin = pace.reserve(turn, 4 * MIB, is_hot);
                pace.settle(4 * MIB, 4 * MIB);
                bytes += 4 * MIB;
                turn = begin.plus(Duration::from_millis(2));
            }
            if ms % 2 == 0 {
                pace.observe(at(ms), late, is_hot);
            }
        }
        bytes as f64
    }

    #[test]
    fn reads_beside_hot_requests_that_wait_slow_down_to_the_least_and_come_back_after() {
        let mut pace = Pace::default();
        for second in 0..3 {
            read_for_a_second(&mut pace, second * 1_000, IN_TIME, true);
        }
        let alone = read_for_a_second(&mut pace, 3_000, IN_TIME, true);
        assert!(alone > 1.9e9, "nobody waits: {alone}");
        read_for_a_second(&mut pace, 4_000, TOO_LATE, true);
        let crowded = read_for_a_second(&mut pace, 5_000, TOO_LATE, true);
        assert!((0.8 * RATE_MIN..1.3 * RATE_MIN).contains(&crowded), "they wait: {crowded}");
        for second in 6..9 {
            read_for_a_second(&mut pace, second * 1_000, IN_TIME, true);
        }
        let again = read_for_a_second(&mut pace, 9_000, IN_TIME, true);
        assert!(again > 1.9e9, "nobody waits any more: {again}");
    }

    #[test]
    fn where_nobody_is_hot_late_timers_slow_nobody() {
        let mut pace = Pace::default();
        assert!(read_for_a_second(&mut pace, 500, TOO_LATE, false) > 1.9e9);
    }

    #[test]
    fn the_first_reads_beside_hot_requests_find_out_slowly_what_there_is_room_for() {
        let mut pace = Pace::default();
        for second in 0..4 {
            read_for_a_second(&mut pace, second * 1_000, IN_TIME, true);
        }
        // After a rest nobody knows.
        let turns: Vec<_> = (0..4).map(|_| pace.reserve(at(9_000), 16 * MIB, true).0.as_millis()).collect();
        assert_eq!(turns, [9_000, 9_250, 9_500, 9_750]);
    }

    #[test]
    fn more_readers_are_not_faster_together_and_a_short_read_makes_room() {
        let mut pace = Pace { rate: RATE_MIN, ..Pace::default() };
        let turns: Vec<_> = (0..9).map(|_| pace.reserve(at(0), 4 * MIB, true).0.as_millis()).collect();
        assert_eq!(turns, [0, 125, 250, 375, 500, 625, 750, 875, 1000]);
        pace.settle(4 * MIB, 0);
        assert_eq!(pace.reserve(at(0), 4 * MIB, true), at(1000));
    }
}
