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
/// How many wait for that, each in a thread of the runtime's pool, which has 512 for everybody.
const WAITING_MAX: usize = 64;

static TURNS: Turns = Turns { now: Mutex::new(Now { waiting: 0, working: 0 }), ended: Condvar::new() };

/// Does it aside where the runtime has threads for that and not too many wait, else here.
pub(super) fn aside<T>(work: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    let place = if matches!(flavor, Ok(RuntimeFlavor::MultiThread)) { TURNS.queue() } else { None };
    match place {
        Some(mut place) => block_in_place(|| {
            place.wait();
            let done = work();
            drop(place);
            done
        }),
        None => work(),
    }
}

/// How many there are.
struct Now {
    waiting: usize,
    working: usize,
}

/// Who waits and who works.
struct Turns {
    now: Mutex<Now>,
    ended: Condvar,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place among those that wait; `None` where there are too many.
    fn queue(&self) -> Option<Place<'_>> {
        let mut now = self.lock();
        if now.waiting >= WAITING_MAX {
            return None;
        }
        now.waiting += 1;
        drop(now);
        Some(Place { turns: self, works: false })
    }
}

/// Somebody who waits, and then works until this is dropped.
struct Place<'a> {
    turns: &'a Turns,
    works: bool,
}

impl Place<'_> {
    /// Waits for its turn.
    fn wait(&mut self) {
        let full = |now: &mut Now| now.working >= WORKING_MAX;
        let waited = self.turns.ended.wait_while(self.turns.lock(), full);
        let mut now = waited.unwrap_or_else(PoisonError::into_inner);
        now.waiting -= 1;
        now.working += 1;
        self.works = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut now = self.turns.lock();
        if self.works {
            now.working -= 1;
        } else {
            now.waiting -= 1;
        }
        drop(now);
        self.turns.ended.notify_one();
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
    fn only_so_many_wait_and_whoever_comes_then_is_told_so() {
        let turns =
            Turns { now: Mutex::new(Now { waiting: 0, working: WORKING_MAX }), ended: Condvar::new() };
        let count = |turns: &Turns| {
            let now = turns.lock();
            (now.waiting, now.working)
        };
        let mut places: Vec<_> = (0..WAITING_MAX).map(|_| turns.queue().expect("there is room")).collect();
        assert!(turns.queue().is_none());
        places.pop();
        assert!(turns.queue().is_some());
        turns.lock().working = 0;
        places[0].wait();
        assert_eq!(count(&turns), (WAITING_MAX - 2, 1));
        drop(places);
        assert_eq!(count(&turns), (0, 0));
    }

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
