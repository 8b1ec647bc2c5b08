//! Splits the byte stream into frames: `size i32, big-endian | size bytes`.
//!
//! The buffer grows with what arrived: it starts at [`READ_BYTES_MIN`] to [`READ_BYTES`], as the last frames were, and
//! doubles when full, so four bytes that claim 100 MiB cost a few KiB. What it holds beyond that counts against the budget
//! of all connections from the moment it is reserved, and a whole frame counts until it is answered.

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::Instant,
};

use super::{
    budget::{Budget, Share},
    limits::{BEYOND_WAIT, READ_BYTES, READ_BYTES_MIN},
};

const SIZE_BYTES: usize = 4;

/// A request's bytes, and their share of the budget until it is answered.
#[derive(Debug)]
pub struct Frame {
    /// The bytes behind the size.
    pub bytes: Bytes,
    /// Given back when dropped.
    pub share: Option<Share>,
}

/// Why a stream is no longer read.
#[derive(Debug)]
pub enum FrameError {
    /// The client ended it between frames.
    Ended,
    /// The client ended it within a frame.
    Cut,
    /// The socket broke.
    Broken,
    /// The bytes are no frame.
    Foreign(&'static str),
}

/// Reads frames from a socket. [`FrameReader::next`] may be dropped at any time and called again.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    frame_bytes_max: usize,
    budget: Budget,
    /// The share of the budget of the frame that is arriving: all of it once it is there.
    share: Option<Share>,
    began: Option<Instant>,
    /// How much room a new buffer has: follows the frames that this client sends, so that idle connections are small.
    read_bytes: usize,
    /// Bytes read since [`FrameReader::take_received`].
    received: usize,
}

impl FrameReader {
    /// Nothing read yet.
    pub fn new(frame_bytes_max: usize, budget: Budget) -> Self {
        Self {
            buffer: BytesMut::new(),
            frame_bytes_max,
            budget,
            share: None,
            began: None,
            read_bytes: READ_BYTES_MIN,
            received: 0,
        }
    }

    /// When the frame that is arriving began, and how much of it is there.
    pub fn partial(&self) -> Option<(Instant, usize)> {
        self.began.map(|began| (began, self.buffer.len()))
    }

    /// A frame that began while nobody read gets its time from now.
    pub fn resume(&mut self) {
        self.began = self.began.map(|_| Instant::now());
    }

    /// How many bytes were read since the last call.
    pub fn take_received(&mut self) -> usize {
        std::mem::take(&mut self.received)
    }

    /// The next whole frame, or `None` when some of it came: the caller's deadline follows what is there.
    pub async fn next(&mut self, socket: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame>, FrameError> {
        let mut read_once = false;
        loop {
            let wanted = match self.size()? {
                Some(size) if self.buffer.len() >= SIZE_BYTES + size => {
                    self.hold(size).await;
                    return Ok(Some(self.split(size)));
                }
                Some(size) => SIZE_BYTES + size,
                None => SIZE_BYTES,
            };
            if read_once {
                return Ok(None);
            }
            self.make_room(wanted).await;
            let read = socket.read_buf(&mut self.buffer).await.map_err(|_| FrameError::Broken)?;
            if read == 0 {
                return Err(if self.buffer.is_empty() { FrameError::Ended } else { FrameError::Cut });
            }
            self.received += read;
            self.began.get_or_insert_with(Instant::now);
            read_once = true;
        }
    }

    fn size(&self) -> Result<Option<usize>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<SIZE_BYTES>() else { return Ok(None) };
        let size = i32::from_be_bytes(*head);
        match usize::try_from(size) {
            Ok(size) if size <= self.frame_bytes_max => Ok(Some(size)),
            _ => Err(FrameError::Foreign(recognise(*head))),
        }
    }

    /// Room for the next read: what is left of the buffer, else twice what is there, at most `wanted` in all.
    async fn make_room(&mut self, wanted: usize) {
        if self.buffer.capacity() > self.buffer.len() {
            return;
        }
        let target = wanted.min(2 * self.buffer.len()).max(self.read_bytes);
        if target > READ_BYTES {
            self.hold(target).await;
        }
        self.buffer.reserve(target - self.buffer.len());
    }

    /// Sees to it that the frame that arrives holds at least this much of the budget.
    async fn hold(&mut self, bytes: usize) {
        if self.share.as_ref().is_some_and(|share| share.covers(bytes)) {
            return;
        }
        let held = self.share.as_ref().map_or(0, Share::bytes);
        let all = self.size().ok().flatten().map_or(bytes, |size| SIZE_BYTES + size);
        let more = self.budget.grow(bytes - held, all.max(bytes), BEYOND_WAIT).await;
        match &mut self.share {
            Some(share) => share.merge(more),
            None => self.share = Some(more),
        }
    }

    fn split(&mut self, size: usize) -> Frame {
        self.read_bytes = (SIZE_BYTES + size).max(self.read_bytes / 2).clamp(READ_BYTES_MIN, READ_BYTES);
        let mut bytes = self.buffer.split_to(SIZE_BYTES + size);
        let bytes = bytes.split_off(SIZE_BYTES).freeze();
        self.began = (!self.buffer.is_empty()).then(Instant::now);
        Frame { bytes, share: self.share.take() }
    }
}

/// What bytes that are no frame most likely are.
fn recognise(head: [u8; SIZE_BYTES]) -> &'static str {
    match &head {
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"OPTI" | b"DELE" | b"PATC" | b"CONN" | b"PRI " => {
            "http on a kafka port"
        }
        [0x16, 0x03, ..] => "tls on a plain port",
        [0x80..=0xff, ..] => "negative frame size",
        _ => "frame too large",
    }
}
