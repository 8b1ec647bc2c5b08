//! The one way in which values become bytes and come back.
//!
//! Every structured record is a frame, so that fields may be added at its end: a decoder reads the fields that it
//! knows, takes the default for those that the frame is too old to hold, and skips those that it is too old to know.

use bytes::Bytes;
use varve_common::codec::{DecodeError, Decoder, Encoder};

/// A value with a stored form.
pub trait Stored: Sized {
    /// The least that one value takes, at least 1: a claimed count is held against it before anything is reserved.
    const BYTES_MIN: usize;

    /// Writes the value.
    fn encode(&self, encoder: &mut Encoder);

    /// Reads the value.
    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError>;

    /// The value's bytes, and nothing else.
    fn to_bytes(&self) -> Bytes {
        let mut encoder = Encoder::new();
        self.encode(&mut encoder);
        encoder.finish()
    }

    /// Reads the value from bytes that hold nothing else.
    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let value = Self::decode(&mut decoder)?;
        decoder.finish()?;
        Ok(value)
    }
}

/// Writes `count u32` and each value.
pub fn encode_list<T: Stored>(encoder: &mut Encoder, values: &[T]) {
    encoder.list(values.iter(), |encoder, value| value.encode(encoder));
}

/// Reads what [`encode_list`] wrote.
pub fn decode_list<T: Stored>(decoder: &mut Decoder) -> Result<Vec<T>, DecodeError> {
    decoder.list(T::BYTES_MIN, T::decode)
}

impl<T: Stored> Stored for Vec<T> {
    const BYTES_MIN: usize = 4;

    fn encode(&self, encoder: &mut Encoder) {
        encode_list(encoder, self);
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        decode_list(decoder)
    }
}

/// Writes `0`, or `1` and the value.
pub(crate) fn encode_option<T>(encoder: &mut Encoder, value: Option<T>, some: impl FnOnce(&mut Encoder, T)) {
    encoder.bool(value.is_some());
    if let Some(value) = value {
        some(encoder, value);
    }
}

/// Reads what [`encode_option`] wrote.
pub(crate) fn decode_option<T>(
    decoder: &mut Decoder,
    some: impl FnOnce(&mut Decoder) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if decoder.bool()? { some(decoder).map(Some) } else { Ok(None) }
}
