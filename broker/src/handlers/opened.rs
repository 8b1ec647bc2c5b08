//! Memory for batches that are opened: decompressed to look into them, or to compress them anew.
//!
//! ```text
//!  sent batch ──what it likely comes to──> room ──> work ──> done
//!                                                   └─more comes out──> gives its room back, and waits for
//!                                                     as much as may come out ──> room ──> done, or refused
//! ```
//! Nobody knows how much comes out before it is out: few batches come to far more than they were, and those are opened twice. Whoever
//! lacks room waits for it, in the order of coming, and its connection with it; what is larger than all of it is opened alone.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use varve_protocol::{
    batch::{BatchMeta, Caps, Codec, CompressionError, Invalid, Limits, RecordError},
    limits::DECOMPRESSION_FREE_BYTES,
};

use super::aside::aside;

/// What a batch likely comes to: so many times its size, and no less than anything may come to.
const LIKELY_RATIO: usize = 16;

/// The room of one node.
#[derive(Debug)]
pub struct Opened {
    bytes_max: usize,
    now: Mutex<Now>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Now {
    held: usize,
    /// Numbers of who came last, and of who is next.
    came: u64,
    next: u64,
}

/// A part of it; given back when dropped.
struct Room<'a> {
    of: &'a Opened,
    bytes: usize,
}

impl Opened {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, now: Mutex::default(), changed: Condvar::new() }
    }

    /// Does `work` on a batch of which `sent` is the header, aside, under limits that leave it room.
    pub(super) fn open<T>(
        &self,
        sent: &BatchMeta,
        bytes: usize,
        limits: &Limits,
        work: impl Fn(&Limits) -> Result<T, Invalid>,
    ) -> Result<T, Invalid> {
        let most = limits.caps.bytes_max;
        let likely = match sent.codec {
            Codec::None => bytes,
            _ => bytes.saturating_mul(LIKELY_RATIO).max(DECOMPRESSION_FREE_BYTES),
        };
        let within = |bytes_max| {
            let _room = self.take(bytes_max);
            work(&Limits { caps: Caps { bytes_max, ..limits.caps }, ..*limits })
        };
        aside(|| match within(likely.min(most)) {
            Err(invalid) if likely < most && comes_to_more(&invalid) => within(most),
            done => done,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, bytes: usize) -> Room<'_> {
        let mut now = self.lock();
        let place = now.came;
        now.came += 1;
        let waits = |now: &mut Now| {
            now.next != place || now.held > 0 && now.held.saturating_add(bytes) > self.bytes_max
        };
        let mut now = self.changed.wait_while(now, waits).unwrap_or_else(PoisonError::into_inner);
        now.next += 1;
        now.held += bytes;
        drop(now);
        self.changed.notify_all();
        Room { of: self, bytes }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.of.lock().held -= self.bytes;
        self.of.changed.notify_all();
    }
}

const fn comes_to_more(invalid: &Invalid) -> bool {
    let Invalid::Records(RecordError::Compression(cause)) = invalid else { return false };
    matches!(cause, CompressionError::TooLarge { .. })
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use varve_protocol::batch::{BatchBuilder, BatchHeader};

    use super::*;

    const BYTES_MAX: usize = 100;

    #[test]
    fn no_more_is_held_than_there_is_room_for_and_what_is_larger_comes_alone() {
        let room = Opened::new(BYTES_MAX);
        let (held, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let holds = |bytes: usize| {
            let _room = room.take(bytes);
            let now = held.fetch_add(bytes, Ordering::SeqCst) + bytes;
            most.fetch_max(now, Ordering::SeqCst);
            assert!(now <= BYTES_MAX || now == 3 * BYTES_MAX, "{now} at once");
            thread::yield_now();
            held.fetch_sub(bytes, Ordering::SeqCst);
        };
        thread::scope(|threads| {
            for bytes in [3 * BYTES_MAX, BYTES_MAX / 2, 1] {
                threads.spawn(move || (0..200).for_each(|_| holds(bytes)));
                threads.spawn(move || (0..200).for_each(|_| holds(bytes)));
            }
        });
        assert_eq!(most.into_inner(), 3 * BYTES_MAX);
        assert_eq!(room.lock().held, 0);
    }

    #[test]
    fn a_batch_that_comes_to_more_than_is_likely_is_opened_once_more_with_room_for_all_of_it() {
        let room = Opened::new(BYTES_MAX);
        let sent = BatchBuilder::new(Codec::Gzip).build();
        let sent = *BatchHeader::read(&sent).unwrap().meta();
        let tried = Mutex::new(Vec::new());
        let limits = Limits::default();
        let too_large = |limit| {
            let cause = CompressionError::TooLarge { codec: Codec::Gzip, limit };
            Err::<(), _>(Invalid::Records(RecordError::Compression(cause)))
        };
        let done = room.open(&sent, 1 << 20, &limits, |limits| {
            tried.lock().unwrap().push(limits.caps.bytes_max);
            too_large(limits.caps.bytes_max)
        });
        assert!(done.is_err());
        assert_eq!(*tried.lock().unwrap(), [LIKELY_RATIO << 20, limits.caps.bytes_max]);
        assert_eq!(room.lock().held, 0);
    }
}
