//! Reading what a checkpoint says of itself without reading all of it, for listings.

use bytes::Bytes;
use varve_common::codec::{DecodeError, Decoder};

use super::{CheckpointHeader, MAGIC, VERSION};
use crate::stored::Stored;

/// Enough of a checkpoint's beginning to hold its header.
pub const PEEK_BYTES: u64 = 4096;

impl CheckpointHeader {
    /// Reads the header off the first bytes of a checkpoint. Nothing is verified: what is shown is not what may be
    /// used.
    ///
    /// # Errors
    /// The bytes do not begin as a checkpoint does, or end within the header.
    pub fn peek(beginning: Bytes) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(beginning);
        if decoder.raw(MAGIC.len())? != MAGIC[..] {
            return Err(decoder.error("not a checkpoint"));
        }
        if decoder.u16()? != VERSION {
            return Err(decoder.error("unknown version of a checkpoint"));
        }
        Self::decode(&mut decoder)
    }
}
