//! Work that takes long enough to hold others up: batches that are decompressed, and compressed anew.
//!
//! ```text
//!  connection's thread ──aside(work)──> the same thread, no longer a connection's: another takes over what waits for it
//!                                       at most so many at a time, the others wait for their turn there
//! ```
//! Batches of one connection keep their order: whoever works aside comes back with the outcome before the next is looked at.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::block_in_place,
};

/// How much of such work goes on at a time: each holds a batch decompressed, and a processor.
const WORKING_MAX: usize = 4;

static TURNS: Turns = Turns { working: Mutex::new(0), ended: Condvar::new() };

/// Does it aside where the runtime has threads for that, else here.
pub(super) fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(|| {
            let _turn = TURNS.take();
            work()
        }),
        _ => work(),
    }
}

/// Who works now.
struct Turns {
    working: Mutex<usize>,
    ended: Condvar,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn, which ends when it is dropped.
    fn take(&self) -> Turn<'_> {
        let full = |working: &mut usize| *working >= WORKING_MAX;
        let mut working = self.ended.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        *working += 1;
        Turn(self)
    }
}

struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn what_works_aside_holds_no_connection_up_and_only_so_many_work_at_a_time() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (working, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // The first of them end once the last of those that may work with them has begun, and somebody else has been served.
        let served = Arc::new(Barrier::new(WORKING_MAX + 1));
        let work = |waits: bool| {
            let (working, most, served) = (Arc::clone(&working), Arc::clone(&most), Arc::clone(&served));
            runtime.spawn(async move {
                aside(|| {
                    most.fetch_max(working.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    if waits {
                        served.wait();
                    }
                    working.fetch_sub(1, Ordering::SeqCst);
                });
            })
        };
        let first: Vec<_> = (0..WORKING_MAX).map(|_| work(true)).collect();
        while working.load(Ordering::SeqCst) < WORKING_MAX {
            std::thread::yield_now();
        }
        let more: Vec<_> = (0..2 * WORKING_MAX).map(|_| work(false)).collect();
        let other = runtime.spawn(async { 7 });
        assert_eq!(runtime.block_on(other).unwrap(), 7, "the only thread of connections goes on");
        served.wait();
        for task in first.into_iter().chain(more) {
            runtime.block_on(task).unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), WORKING_MAX);
    }
}
