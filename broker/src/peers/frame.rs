//! Frames between nodes: `length u24 | check u8 | version u8 | kind u8 | crc32c u32 | body`, little-endian.
//!
//! `length` is the body's; `check` is the low byte of the CRC-32C of length, version and kind; the CRC-32C is of all that stands before it
//! and of the body. The check comes first: a reader that believed a changed length would wait for bytes that nobody sends, and take
//! what comes after for them, while both sides show that they live. A length is held against the bound of its
//! kind before anything is reserved, kinds that are not expected are refused by their header alone, and the buffer grows with what
//! arrived: ten bytes that claim a large message cost 64 KiB.

use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use varve_common::{
    checksum::{crc32c, crc32c_append},
    codec::DecodeError,
};
use varve_consensus::{
    EnvelopeError,
    limits::{ENVELOPE_BYTES_MAX, PULSE_BYTES_MAX},
};

use super::limits::{
    ANSWER_BYTES_MAX, BUFFER_KEPT_BYTES, CALL_BYTES_MAX, GREETING_BYTES_MAX, PROBE_BYTES_MAX, READ_BYTES,
};

/// The encoding of frames that is written, and the only one that is read.
pub const VERSION: u8 = 2;

/// What stands before a body.
pub const HEADER_BYTES: usize = 10;

/// The part of the header that its CRC-32C covers.
const CHECKED_BYTES: usize = 6;

/// What three bytes can say.
const LENGTH_MAX: usize = (1 << 24) - 1;

const _: () = {
    assert!(ENVELOPE_BYTES_MAX <= LENGTH_MAX && PULSE_BYTES_MAX <= LENGTH_MAX);
    assert!(CALL_HEAD_BYTES + CALL_BYTES_MAX <= LENGTH_MAX && ANSWER_BYTES_MAX <= LENGTH_MAX);
};

/// The byte by which a header is known to be what was sent.
pub fn check(length: [u8; 3], version: u8, kind: u8) -> u8 {
    crc32c_append(crc32c(&length), &[version, kind]) as u8
}

/// What a call and a reply say beside their body, in bytes.
pub const CALL_HEAD_BYTES: usize = 16;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $number:literal, at most $bytes:expr;)*) => {
        /// What a frame is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $kind = $number,)*
        }

        impl Kind {
            const fn from_u8(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$kind),)*
                    _ => None,
                }
            }

            /// The largest body.
            pub const fn bytes_max(self) -> usize {
                match self {
                    $(Self::$kind => $bytes,)*
                }
            }
        }
    };
}

kinds! {
    /// "I am node n of this cluster, and want this connection for that."
    Hello = 1, at most GREETING_BYTES_MAX;
    /// "I am node m."
    Welcome = 2, at most GREETING_BYTES_MAX;
    /// "Not with me."
    Refused = 3, at most GREETING_BYTES_MAX;
    /// What seeds ask each other.
    Probe = 4, at most PROBE_BYTES_MAX;
    /// What they answer.
    Answer = 5, at most ANSWER_BYTES_MAX;
    /// An `Envelope`.
    Message = 6, at most ENVELOPE_BYTES_MAX;
    /// A `Pulse`.
    Pulse = 7, at most PULSE_BYTES_MAX;
    /// The sender lives and has nothing to say.
    Ping = 8, at most 0;
    /// The receiver lives: something came.
    Alive = 9, at most 0;
    /// `id u64 | patience in ms u32 | length u32 | body`.
    Call = 10, at most CALL_HEAD_BYTES + CALL_BYTES_MAX;
    /// `id u64 | outcome u32 | length u32 | body`.
    Reply = 11, at most CALL_HEAD_BYTES + CALL_BYTES_MAX;
}

/// A body is larger than any of its kind may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oversize;

/// Writes a frame behind what `buffer` holds; `body` writes its body. What is too large is taken back.
pub fn put(buffer: &mut BytesMut, kind: Kind, body: impl FnOnce(&mut BytesMut)) -> Result<(), Oversize> {
    let start = buffer.len();
    buffer.put_slice(&[0, 0, 0, 0, VERSION, kind as u8, 0, 0, 0, 0]);
    body(buffer);
    let length = buffer.len() - start - HEADER_BYTES;
    if length > kind.bytes_max() {
        buffer.truncate(start);
        return Err(Oversize);
    }
    let frame = &mut buffer[start..];
    let [a, b, c, _] = (length as u32).to_le_bytes();
    frame[..4].copy_from_slice(&[a, b, c, check([a, b, c], VERSION, kind as u8)]);
    let crc = crc32c_append(crc32c(&frame[..CHECKED_BYTES]), &frame[HEADER_BYTES..]);
    frame[CHECKED_BYTES..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// A frame alone.
pub fn encode(kind: Kind, body: &[u8]) -> Result<BytesMut, Oversize> {
    let mut buffer = BytesMut::with_capacity(HEADER_BYTES + body.len());
    put(&mut buffer, kind, |buffer| buffer.put_slice(body)).map(|()| buffer)
}

/// A frame whose checksum held.
#[derive(Debug)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// What it says; shares the memory of what was read with it.
    pub body: Bytes,
}

/// Why a connection is no longer read. What is not one of the first three, a node of this release does not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The peer ended it between frames.
    Ended,
    /// The peer ended it within a frame.
    Cut,
    /// The socket broke.
    Broken,
    /// The frame's version is not known.
    Version(u8),
    /// The frame's kind is not known.
    Kind(u8),
    /// The frame's kind has no place here.
    Unexpected(Kind),
    /// More bytes than any frame of the kind has.
    TooLarge(Kind, usize),
    /// The header is not what was sent.
    Header,
    /// The checksum does not hold.
    Checksum(Kind),
    /// The body is not what its kind promises.
    Malformed(Kind, &'static str),
}

impl FrameError {
    /// What the log and the metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ended => "the peer ended the connection",
            Self::Cut => "the connection ended within a frame",
            Self::Broken => "the connection broke",
            Self::Version(_) => "unknown frame version",
            Self::Kind(_) => "unknown kind of frame",
            Self::Unexpected(_) => "unexpected kind of frame",
            Self::TooLarge(..) => "frame too large",
            Self::Header => "frame header does not hold",
            Self::Checksum(_) => "frame checksum does not hold",
            Self::Malformed(..) => "malformed frame",
        }
    }

    /// Whether the peer sent what it must not.
    pub const fn is_foreign(self) -> bool {
        !matches!(self, Self::Ended | Self::Cut | Self::Broken)
    }

    /// The body of a frame of this kind could not be read.
    pub fn malformed(kind: Kind) -> impl Fn(DecodeError) -> Self {
        move |error| Self::Malformed(kind, error.what)
    }

    /// The body of a message could not be read.
    pub const fn no_envelope(error: EnvelopeError) -> Self {
        let what = match error {
            EnvelopeError::TooLarge { .. } => "a message is too large",
            EnvelopeError::TooManyEntries { .. } => "a message has too many entries",
            EnvelopeError::Malformed(error) => error.what,
            EnvelopeError::NotAMessage => "no raft message",
        };
        Self::Malformed(Kind::Message, what)
    }
}

impl std::error::Error for FrameError {}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(number) | Self::Kind(number) => write!(f, "{}: {number}", self.name()),
            Self::Unexpected(kind) | Self::Checksum(kind) => write!(f, "{}: {kind:?}", self.name()),
            Self::TooLarge(kind, bytes) => write!(f, "{}: {kind:?} of {bytes} bytes", self.name()),
            Self::Malformed(kind, what) => write!(f, "{}: {kind:?}, {what}", self.name()),
            Self::Ended | Self::Cut | Self::Broken | Self::Header => f.write_str(self.name()),
        }
    }
}

/// Reads frames. [`FrameReader::next`] may be dropped at any time and called again.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// The next whole frame, which must be of one of these kinds; `None` when some of it came, so that the caller can show that it
    /// lives.
    pub async fn next(
        &mut self,
        input: &mut (impl AsyncRead + Unpin),
        kinds: &[Kind],
    ) -> Result<Option<Frame>, FrameError> {
        let wanted = match self.head(kinds)? {
            Some((kind, length)) if self.buffer.len() >= HEADER_BYTES + length => {
                return self.split(kind, length).map(Some);
            }
            Some((_, length)) => HEADER_BYTES + length,
            None => HEADER_BYTES,
        };
        self.make_room(wanted);
        match input.read_buf(&mut self.buffer).await {
            Ok(0) if self.buffer.is_empty() => Err(FrameError::Ended),
            Ok(0) => Err(FrameError::Cut),
            Ok(_) => Ok(None),
            Err(_) => Err(FrameError::Broken),
        }
    }

    /// The next whole frame, however long it takes.
    pub async fn whole(
        &mut self,
        input: &mut (impl AsyncRead + Unpin),
        kinds: &[Kind],
    ) -> Result<Frame, FrameError> {
        loop {
            if let Some(frame) = self.next(input, kinds).await? {
                return Ok(frame);
            }
        }
    }

    /// What the header says, once it is there.
    fn head(&self, kinds: &[Kind]) -> Result<Option<(Kind, usize)>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [a, b, c, told, version, number, ..] = *header;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if told != check([a, b, c], version, number) {
            return Err(FrameError::Header);
        }
        let kind = Kind::from_u8(number).ok_or(FrameError::Kind(number))?;
        if !kinds.contains(&kind) {
            return Err(FrameError::Unexpected(kind));
        }
        let length = u32::from_le_bytes([a, b, c, 0]) as usize;
        if length > kind.bytes_max() {
            Err(FrameError::TooLarge(kind, length))
        } else {
            Ok(Some((kind, length)))
        }
    }

    /// Room for the next read: what is left of the buffer, else twice what is there, at most what the frame needs.
    fn make_room(&mut self, wanted: usize) {
        let filled = self.buffer.len();
        if filled == 0 && self.buffer.capacity() > BUFFER_KEPT_BYTES {
            self.buffer = BytesMut::new();
        }
        if filled == 0 || filled == self.buffer.capacity() {
            let target = wanted.min(2 * filled).max(READ_BYTES);
            self.buffer.reserve(target - filled);
        }
    }

    fn split(&mut self, kind: Kind, length: usize) -> Result<Frame, FrameError> {
        let mut header = self.buffer.split_to(HEADER_BYTES);
        let body = self.buffer.split_to(length);
        // What is kept for long must not keep a whole buffer.
        let body = if length < READ_BYTES / 2 { Bytes::copy_from_slice(&body) } else { body.freeze() };
        let told = header.split_off(CHECKED_BYTES);
        let crc = crc32c_append(crc32c(&header), &body);
        if told == crc.to_le_bytes().as_slice() {
            Ok(Frame { kind, body })
        } else {
            Err(FrameError::Checksum(kind))
        }
    }
}
