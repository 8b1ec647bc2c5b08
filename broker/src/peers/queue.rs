//! What waits to go to one peer: bounded in frames and in bytes, in order, never waited for.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{limits::Limits, outgoing::Outgoing};

/// The queue to one peer.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    filled: Notify,
    overflowed: Notify,
    frames_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct State {
    frames: VecDeque<(usize, Outgoing)>,
    bytes: usize,
    /// Whether there is a connection, or one is being made: else what comes is dropped.
    open: bool,
    /// Whether it was told that the peer cannot be reached, and nothing has changed since.
    told: bool,
    dropped: u64,
}

impl Queue {
    /// Empty, and open for the first dial.
    pub fn new(limits: &Limits) -> Self {
        let state = State { frames: VecDeque::new(), bytes: 0, open: true, told: false, dropped: 0 };
        Self {
            state: Mutex::new(state),
            filled: Notify::new(),
            overflowed: Notify::new(),
            frames_max: limits.queue_frames_max,
            bytes_max: limits.queue_bytes_max,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a frame behind the others, or drops it: where there is no room, or no connection.
    pub fn push(&self, frame: Outgoing) {
        let bytes = frame.bytes();
        let mut state = self.state();
        let fits = state.frames.len() < self.frames_max && state.bytes + bytes <= self.bytes_max;
        if state.open && fits {
            state.bytes += bytes;
            state.frames.push_back((bytes, frame));
            drop(state);
            self.filled.notify_one();
            return;
        }
        state.dropped += 1;
        let news = !std::mem::replace(&mut state.told, true);
        drop(state);
        if news {
            self.overflowed.notify_one();
        }
    }

    /// The first frames, about `bytes_max` of them and at least one; nothing where nothing waits.
    pub fn take(&self, bytes_max: usize, batch: &mut Vec<Outgoing>) {
        let (mut state, mut taken) = (self.state(), 0);
        while let Some((bytes, _)) = state.frames.front()
            && (taken == 0 || taken + bytes <= bytes_max)
            && let Some((bytes, frame)) = state.frames.pop_front()
        {
            state.bytes -= bytes;
            taken += bytes;
            batch.push(frame);
        }
        if state.frames.is_empty() {
            // It keeps up again: the next overflow is news.
            state.told = false;
        }
    }

    /// Ends when something waits; may end early.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Ends when frames were dropped and nobody was told of it yet.
    pub async fn overflowed(&self) {
        self.overflowed.notified().await;
    }

    /// A connection is about to be made: what comes waits for it.
    pub fn open(&self) {
        self.state().open = true;
    }

    /// There is a connection: the next break is news.
    pub fn connected(&self) {
        self.state().told = false;
    }

    /// There is no connection and none is being made: what waits is dropped, and what comes. Whether that is news.
    pub fn close(&self) -> bool {
        let mut state = self.state();
        state.dropped += state.frames.len() as u64;
        // The memory of a long queue is given back, too.
        state.frames = VecDeque::new();
        (state.bytes, state.open) = (0, false);
        !std::mem::replace(&mut state.told, true)
    }

    /// Nobody knows where the peer is: nothing waits until that is known. It is news where something waited.
    pub fn suspend(&self) -> bool {
        let mut state = self.state();
        if state.frames.is_empty() {
            state.open = false;
            return false;
        }
        drop(state);
        self.close()
    }

    /// Frames that wait, the bytes that they hold, and how many frames were dropped so far.
    pub fn usage(&self) -> (usize, usize, u64) {
        let state = self.state();
        (state.frames.len(), state.bytes, state.dropped)
    }
}

/// What a frame costs beside its payloads, in bytes.
const FRAME_BYTES: usize = 256;
const BEAT_BYTES: usize = 128;
const REPORT_BYTES: usize = 96;
const RESTING_BYTES: usize = 16;

impl Outgoing {
    /// About how much memory it holds, in bytes.
    fn bytes(&self) -> usize {
        FRAME_BYTES
            + match self {
                Self::Message(envelope) => envelope.message.payload_bytes(),
                Self::Pulse(pulse) => {
                    BEAT_BYTES * (pulse.beats.len() + pulse.answers.len())
                        + RESTING_BYTES * (pulse.resting.len() + pulse.disowned.len())
                        + REPORT_BYTES * pulse.reports.len()
                }
            }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::peers::tests::pulse;

    fn queue(frames: usize) -> Queue {
        Queue::new(&Limits { queue_frames_max: frames, ..Limits::default() })
    }

    fn numbers(batch: &[Outgoing]) -> Vec<u64> {
        let number = |frame: &Outgoing| match frame {
            Outgoing::Pulse(pulse) => pulse.number,
            Outgoing::Message(_) => 0,
        };
        batch.iter().map(number).collect()
    }

    #[test]
    fn order_is_kept_and_an_overflow_is_told_once_until_all_is_gone() {
        let (queue, mut batch) = (queue(2), Vec::new());
        (1..=4).for_each(|number| queue.push(Outgoing::Pulse(pulse(1, number))));
        assert_eq!((queue.usage().0, queue.usage().2), (2, 2));
        assert!(queue.overflowed().now_or_never().is_some());
        assert!(queue.overflowed().now_or_never().is_none());
        queue.take(1, &mut batch);
        queue.push(Outgoing::Pulse(pulse(1, 5)));
        queue.push(Outgoing::Pulse(pulse(1, 6)));
        assert!(queue.overflowed().now_or_never().is_none(), "it never kept up in between");
        queue.take(usize::MAX, &mut batch);
        assert_eq!(numbers(&batch), [1, 2, 5]);
        (7..=9).for_each(|number| queue.push(Outgoing::Pulse(pulse(1, number))));
        assert!(queue.overflowed().now_or_never().is_some());
    }

    #[test]
    fn a_break_drops_all_and_is_news_once_a_connection() {
        let queue = queue(10);
        queue.push(Outgoing::Pulse(pulse(1, 1)));
        assert!(queue.close());
        queue.push(Outgoing::Pulse(pulse(1, 2)));
        assert_eq!(queue.usage(), (0, 0, 2));
        queue.open();
        assert!(!queue.close(), "another failed dial is no news");
        queue.open();
        queue.connected();
        assert!(queue.close());
    }
}
