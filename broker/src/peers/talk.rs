//! One connection, in halves, and the signs of life on it.
//!
//! ```text
//!  dialled   Message, Pulse, Call …, Ping when there is nothing to say ────────>  accepted
//!            <──────────────── Alive, when something came; Reply …
//! ```
//! Whoever dialled knows within `silent_max` that the other is gone, however the network hides it: a process that stands still and
//! a host that lost its power look alike. A large frame on a thin line is no silence: its bytes are signs of life.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use varve_common::{Clock, Monotonic};

use super::{
    frame::{FrameError, FrameReader, Kind, encode},
    limits::BUFFER_KEPT_BYTES,
    security::Duplex,
};

/// The sending half.
pub type Output = WriteHalf<Box<dyn Duplex>>;

/// The receiving half, with what was read and not taken yet.
pub struct Input {
    /// Where the bytes come from.
    pub half: ReadHalf<Box<dyn Duplex>>,
    /// Where frames are cut from them.
    pub frames: FrameReader,
}

/// Splits a connection.
pub fn split(stream: Box<dyn Duplex>) -> (Input, Output) {
    let (half, output) = tokio::io::split(stream);
    (Input { half, frames: FrameReader::default() }, output)
}

/// Writes all of `buffer` and empties it.
pub async fn write(output: &mut Output, buffer: &mut BytesMut) -> Result<(), FrameError> {
    output.write_all(buffer).await.map_err(|_| FrameError::Broken)?;
    output.flush().await.map_err(|_| FrameError::Broken)?;
    if buffer.capacity() > BUFFER_KEPT_BYTES {
        *buffer = BytesMut::new();
    }
    buffer.clear();
    Ok(())
}

/// Writes one small frame.
pub async fn say(output: &mut Output, kind: Kind, body: &[u8]) -> Result<(), FrameError> {
    let mut buffer = encode(kind, body).map_err(|_| FrameError::TooLarge(kind, body.len()))?;
    write(output, &mut buffer).await
}

/// Races `future` against the clock; `None` when `span` is over first.
pub async fn within<T>(clock: &dyn Clock, span: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = clock.sleep(span) => None,
    }
}

/// When the other side last showed that it lives.
pub struct Heard {
    clock: Arc<dyn Clock>,
    nanos: AtomicU64,
}

impl Heard {
    /// Just now.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let heard = Self { clock, nanos: AtomicU64::new(0) };
        heard.mark();
        heard
    }

    /// Bytes came; says when.
    pub fn mark(&self) -> Monotonic {
        let now = self.clock.monotonic();
        self.nanos.store(now.0.as_nanos() as u64, Ordering::Relaxed);
        now
    }

    /// Ends when nothing came for `span`, or up to a quarter more. The quarters are counted, not the time: a process that stood still
    /// itself finds what came meanwhile, and blames nobody.
    pub async fn silence(&self, span: Duration) {
        const STEPS: u32 = 4;
        let (mut heard, mut silent) = (self.nanos.load(Ordering::Relaxed), 0);
        while silent < STEPS {
            self.clock.sleep(span / STEPS).await;
            let now = self.nanos.load(Ordering::Relaxed);
            silent = if now == heard { silent + 1 } else { 0 };
            heard = now;
        }
    }
}

/// Shows the side that dialled that this one lives, not more often than needed.
pub struct Signs {
    every: Duration,
    shown: Option<Monotonic>,
}

impl Signs {
    /// None was shown yet.
    pub fn new(every: Duration) -> Self {
        Self { every, shown: None }
    }

    /// Something came at `now`.
    pub async fn show(&mut self, now: Monotonic, output: &mut Output) -> Result<(), FrameError> {
        if self.shown.is_some_and(|shown| now.since(shown) < self.every) {
            return Ok(());
        }
        self.shown = Some(now);
        say(output, Kind::Alive, &[]).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt as _;
    use tokio::sync::Notify;
    use varve_common::clock::BoxFuture;

    use super::*;

    /// Time that passes when it is told to: each sleep ends at a jump, however far that was.
    #[derive(Default)]
    struct Jumps(Mutex<Duration>, Arc<Notify>);

    impl Jumps {
        fn jump(&self, span: Duration) {
            *self.0.lock().unwrap() += span;
            self.1.notify_waiters();
        }
    }

    impl Clock for Jumps {
        fn monotonic(&self) -> Monotonic {
            Monotonic(*self.0.lock().unwrap())
        }

        fn wall_ms(&self) -> i64 {
            0
        }

        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            let jumped = Arc::clone(&self.1);
            Box::pin(async move { jumped.notified().await })
        }
    }

    #[test]
    fn a_process_that_stood_still_blames_nobody_at_once() {
        let clock = Arc::new(Jumps::default());
        let heard = Heard::new(Arc::clone(&clock) as _);
        let mut silence = Box::pin(heard.silence(Duration::from_secs(4)));
        let mut over = || silence.as_mut().now_or_never().is_some();
        assert!(!over());
        clock.jump(Duration::from_secs(3_600));
        assert!(!over(), "an hour later, what came was not read yet");
        heard.mark();
        for _ in 0..4 {
            clock.jump(Duration::from_secs(1));
            assert!(!over());
        }
        clock.jump(Duration::from_secs(1));
        assert!(over());
    }
}
