//! Time and chance as the operating system gives them: the production side of `varve_common::clock`.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use varve_common::{Clock, Entropy, Monotonic, clock::BoxFuture};

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A monotonic clock that begins now.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "the seam to the machine's clock")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(self.start.elapsed())
    }

    #[allow(clippy::disallowed_methods, reason = "the seam to the machine's clock")]
    fn wall_ms(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
    }

    #[allow(clippy::disallowed_methods, reason = "the seam to the machine's clock")]
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(span))
    }
}

/// Random bits from the keys that the standard library draws from the operating system for each process, spread by
/// SipHash over a counter: unpredictable from outside, never the same twice. Not for secrets.
#[derive(Debug, Default)]
pub struct SystemEntropy {
    keys: RandomState,
    drawn: AtomicU64,
}

impl Entropy for SystemEntropy {
    fn next_u64(&self) -> u64 {
        let mut hasher = self.keys.build_hasher();
        hasher.write_u64(self.drawn.fetch_add(1, Ordering::Relaxed));
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_draws_and_no_two_processes_agree() {
        let (one, other) = (SystemEntropy::default(), SystemEntropy::default());
        let drawn: BTreeSet<_> = (0..1_000).flat_map(|_| [one.next_u64(), other.next_u64()]).collect();
        assert_eq!(drawn.len(), 2_000);
    }
}
