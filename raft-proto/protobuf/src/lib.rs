//! The part of `protobuf` 2 that crate `raft` 0.7.0 calls: sizes, encoding and decoding of its messages, over prost.
//!
//! It takes the place of the registry's crate through `[patch.crates-io]`: that one carries RUSTSEC-2024-0437 and
//! would bring generated code. A message here is any [`prost::Message`].

use std::fmt;

/// What a codec call answers.
pub type ProtobufResult<T> = Result<T, ProtobufError>;

/// The bytes are not the message they should be.
#[derive(Debug)]
pub struct ProtobufError(prost::DecodeError);

impl fmt::Display for ProtobufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ProtobufError {}

/// A message as raft sees it.
pub trait Message: prost::Message {
    /// The encoded length in bytes.
    fn compute_size(&self) -> u32 {
        u32::try_from(self.encoded_len()).unwrap_or(u32::MAX)
    }

    /// The encoding.
    fn write_to_bytes(&self) -> ProtobufResult<Vec<u8>>
    where
        Self: Sized,
    {
        Ok(self.encode_to_vec())
    }

    /// Adds what `bytes` hold to this message.
    fn merge_from_bytes(&mut self, bytes: &[u8]) -> ProtobufResult<()>
    where
        Self: Sized,
    {
        self.merge(bytes).map_err(ProtobufError)
    }
}

impl<T: prost::Message> Message for T {}
