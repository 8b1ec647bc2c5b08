//! How fast a pass reads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use varve_common::Clock;

/// However little there is, a pass does not dawdle: per second.
const RATE_MIN: u64 = 1 << 20;
/// Part of the interval within which a pass is to be through, in percent: the rest is for restarts and slow stores.
const INTERVAL_PERCENT: u32 = 80;

/// Bytes per second.
pub struct Pace {
    clock: Arc<dyn Clock>,
    rate_max: u64,
    within: Option<Duration>,
    rate: AtomicU64,
}

impl Pace {
    /// As fast as `rate_max` allows.
    #[must_use]
    pub const fn fastest(clock: Arc<dyn Clock>, rate_max: u64) -> Self {
        Self { clock, rate_max, within: None, rate: AtomicU64::new(rate_max) }
    }

    /// As slowly as it may be to be through within `interval`, and never faster than `rate_max`.
    #[must_use]
    pub const fn within(clock: Arc<dyn Clock>, rate_max: u64, interval: Duration) -> Self {
        Self { clock, rate_max, within: Some(interval), rate: AtomicU64::new(rate_max) }
    }

    /// So much is to be read.
    pub fn plan(&self, bytes: u64) {
        self.rate.store(rate(bytes, self.within, self.rate_max), Ordering::Relaxed);
    }

    /// Waits for as long as so many bytes may take.
    pub async fn wait(&self, bytes: u64) {
        let rate = self.rate.load(Ordering::Relaxed).max(1);
        self.clock.sleep(Duration::from_secs_f64(bytes as f64 / rate as f64)).await;
    }
}

fn rate(bytes: u64, within: Option<Duration>, rate_max: u64) -> u64 {
    let Some(within) = within else { return rate_max };
    let seconds = (within.as_secs() * u64::from(INTERVAL_PERCENT) / 100).max(1);
    (bytes / seconds).max(RATE_MIN).min(rate_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_through_within_its_interval_and_within_its_rate() {
        let month = Some(Duration::from_secs(30 * 86_400));
        assert_eq!(rate(0, month, 32 << 20), RATE_MIN);
        let ten_tib = rate(10 << 40, month, 32 << 20);
        assert!(ten_tib > RATE_MIN && (10 << 40) / ten_tib < 30 * 86_400);
        assert_eq!(rate(1 << 60, month, 32 << 20), 32 << 20);
        assert_eq!(rate(1, None, 7), 7);
    }
}
