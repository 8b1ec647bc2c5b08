//! Time that passes when it is waited for, and chance from a seed.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use varve_common::{Clock, Entropy, Monotonic, clock::BoxFuture};

/// A clock on which a sleep is over as soon as it is polled, and moves time on by its length. A sleep that is dropped
/// unpolled takes no time.
#[derive(Default)]
pub struct InstantClock(std::sync::Arc<AtomicU64>);

impl Clock for InstantClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(Duration::from_micros(self.0.load(Ordering::Relaxed)))
    }

    fn wall_ms(&self) -> i64 {
        self.monotonic().0.as_millis() as i64
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        let now = std::sync::Arc::clone(&self.0);
        Box::pin(async move {
            now.fetch_add(span.as_micros() as u64, Ordering::Relaxed);
        })
    }
}

/// SplitMix64.
pub struct SeededEntropy(AtomicU64);

impl SeededEntropy {
    /// The same numbers for the same seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut word = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }
}
