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

    /// Ends when nothing came for `span`.
    pub async fn silence(&self, span: Duration) {
        loop {
            let heard = Monotonic(Duration::from_nanos(self.nanos.load(Ordering::Relaxed)));
            let silent = self.clock.monotonic().since(heard);
            if silent >= span {
                return;
            }
            self.clock.sleep(span - silent).await;
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
