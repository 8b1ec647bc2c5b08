//! Bytes a second: whoever takes some waits until they are due.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use varve_common::{Clock, Monotonic};

/// The shortest wait.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// A budget. Who came first is served first, and nobody saves up for later: hot traffic shares the disk and the network with it.
pub struct Pace {
    clock: Arc<dyn Clock>,
    bytes_per_second: u64,
    due: Mutex<Monotonic>,
}

impl Pace {
    /// So many bytes a second.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, bytes_per_second: u64) -> Self {
        let due = Mutex::new(clock.monotonic());
        Self { clock, bytes_per_second: bytes_per_second.max(1), due }
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Waits until `bytes` more may pass.
    pub async fn take(&self, bytes: u64) {
        let wait = {
            let mut due = self.due.lock().expect("no holder of this lock panics");
            let now = self.clock.monotonic();
            let begins = (*due).max(now);
            let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
            *due = begins.plus(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
            begins.since(now)
        };
        // Less than a timer can tell is paid with the next.
        if wait >= WAIT_MIN {
            self.clock.sleep(wait).await;
        }
    }
}
