//! Time and chance, as arguments.

use std::{future::Future, pin::Pin, time::Duration};

/// A point on a clock that never steps: the time since the process (or the simulation) began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(pub Duration);

impl Monotonic {
    /// The time that has passed since `earlier`, zero where that lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The point `span` later.
    #[must_use]
    pub const fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

/// A future that is boxed so that a trait object can return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The seam to time.
pub trait Clock: Send + Sync + 'static {
    /// The clock for intervals: never steps back, unaffected by changes of the wall clock.
    fn monotonic(&self) -> Monotonic;

    /// Milliseconds since 1970, UTC: for timestamps and retention only, never for ordering or leases.
    fn wall_ms(&self) -> i64;

    /// Ends after `span` of monotonic time.
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()>;
}

/// The seam to chance.
pub trait Entropy: Send + Sync + 'static {
    /// 64 random bits.
    fn next_u64(&self) -> u64;

    /// 128 random bits.
    fn next_u128(&self) -> u128 {
        u128::from(self.next_u64()) << 64 | u128::from(self.next_u64())
    }
}
