//! What nodes say to each other about files: the body of a call of a connection for moves (`peers::frame` has the checksum around it).
//!
//! ```text
//! request   version u8 | kind u8 | frame: group u64, the file, position u64, at most u32
//!           1 checkpoint: its sha256        2 sealed file: base u64, end u64 of its range
//! reply     version u8 | kind u8 | frame: what belongs to it
//!           1 piece: the file's length u64, its sha256, bytes     2 trimmed    3 not here    4 unknown version
//! ```
//! Fields that come later go to a frame's end, with a default; what cannot be read is answered with 4, and a reply that cannot be read
//! counts as none.

use bytes::Bytes;
use varve_common::{
    Digest, GroupId, Offset,
    codec::{DecodeError, Decoder, Encoder},
};

/// The way of asking that is written, and the only one that is read.
const VERSION: u8 = 1;

const CHECKPOINT: u8 = 1;
const SEGMENT: u8 = 2;

const PIECE: u8 = 1;
const TRIMMED: u8 = 2;
const NOT_HERE: u8 = 3;
const NOT_UNDERSTOOD: u8 = 4;

/// Which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The checkpoint that members are sent to.
    Checkpoint(Digest),
    /// The sealed file of a range.
    Segment(Offset, Offset),
}

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Of which group.
    pub group: GroupId,
    /// Which file.
    pub file: File,
    /// Where the piece begins.
    pub position: u64,
    /// How long it may be.
    pub bytes_max: u32,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Some of it.
    Piece {
        /// The length of the file.
        length: u64,
        /// Its SHA-256.
        sha256: Digest,
        /// What stands at the position.
        piece: Bytes,
    },
    /// The range lies below the log start, by a command that is committed.
    Trimmed,
    /// It is not to be had from here, or not now.
    NotHere,
    /// The question is of a later release.
    NotUnderstood,
}

impl Request {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new();
        encoder.u8(VERSION);
        encoder.u8(match self.file {
            File::Checkpoint(_) => CHECKPOINT,
            File::Segment(..) => SEGMENT,
        });
        encoder.frame(|frame| {
            frame.u64(self.group.0);
            match self.file {
                File::Checkpoint(sha256) => frame.digest(sha256),
                File::Segment(base, end) => {
                    frame.offset(base);
                    frame.offset(end);
                }
            }
            frame.u64(self.position);
            frame.u32(self.bytes_max);
        });
        encoder.finish()
    }

    /// Reads it.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let kind = kind(&mut decoder)?;
        let request = decoder.frame(|frame| {
            let group = GroupId(frame.u64()?);
            let file = match kind {
                CHECKPOINT => File::Checkpoint(frame.digest()?),
                SEGMENT => File::Segment(frame.offset()?, frame.offset()?),
                _ => return Err(frame.error("unknown kind of file")),
            };
            Ok(Self { group, file, position: frame.u64()?, bytes_max: frame.u32()? })
        })?;
        decoder.finish()?;
        Ok(request)
    }
}

impl Reply {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new();
        encoder.u8(VERSION);
        encoder.u8(match self {
            Self::Piece { .. } => PIECE,
            Self::Trimmed => TRIMMED,
            Self::NotHere => NOT_HERE,
            Self::NotUnderstood => NOT_UNDERSTOOD,
        });
        encoder.frame(|frame| {
            if let Self::Piece { length, sha256, piece } = self {
                frame.u64(*length);
                frame.digest(*sha256);
                frame.bytes(piece);
            }
        });
        encoder.finish()
    }

    /// Reads it.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let kind = kind(&mut decoder)?;
        let reply = decoder.frame(|frame| match kind {
            PIECE => Ok(Self::Piece { length: frame.u64()?, sha256: frame.digest()?, piece: frame.bytes()? }),
            TRIMMED => Ok(Self::Trimmed),
            NOT_HERE => Ok(Self::NotHere),
            NOT_UNDERSTOOD => Ok(Self::NotUnderstood),
            _ => Err(frame.error("unknown kind of reply")),
        })?;
        decoder.finish()?;
        Ok(reply)
    }
}

fn kind(decoder: &mut Decoder) -> Result<u8, DecodeError> {
    if decoder.u8()? != VERSION {
        return Err(decoder.error("unknown version"));
    }
    decoder.u8()
}
