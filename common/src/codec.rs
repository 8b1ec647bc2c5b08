//! The encoding of stored records: little-endian integers, length-prefixed bytes, and *frames*.
//!
//! A frame is `length u32 | fields…`. Fields are only ever added at a frame's end, so an old reader skips what it does
//! not know and a new reader finds the frame ended and takes the default: bytes written today stay readable.
//! A reader never allocates what the bytes claim: it takes slices, and counts are checked against what is left.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{Digest, LogIndex, Offset, Term, TopicId};

/// The bytes do not hold what the format promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {position}")]
pub struct DecodeError {
    /// What was expected.
    pub what: &'static str,
    /// How many bytes had been read.
    pub position: usize,
}

/// Writes fields into a growing buffer.
#[derive(Debug, Default)]
pub struct Encoder(BytesMut);

impl Encoder {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was written.
    #[must_use]
    pub fn finish(self) -> Bytes {
        self.0.freeze()
    }

    /// How much was written, in bytes.
    #[must_use]
    pub fn position(&self) -> usize {
        self.0.len()
    }

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.put_slice(bytes);
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.0.put_u8(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.0.put_u16_le(value);
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.0.put_u32_le(value);
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.0.put_u64_le(value);
    }

    /// Two bytes, signed.
    pub fn i16(&mut self, value: i16) {
        self.0.put_i16_le(value);
    }

    /// Four bytes, signed.
    pub fn i32(&mut self, value: i32) {
        self.0.put_i32_le(value);
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self, value: i64) {
        self.0.put_i64_le(value);
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.0.put_u8(u8::from(value));
    }

    /// `length u32 | bytes`.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).expect("stored fields are far below 4 GiB"));
        self.raw(bytes);
    }

    /// A string as [`Encoder::bytes`].
    pub fn string(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// An offset.
    pub fn offset(&mut self, offset: Offset) {
        self.u64(offset.0);
    }

    /// A log index.
    pub fn index(&mut self, index: LogIndex) {
        self.u64(index.0);
    }

    /// A term.
    pub fn term(&mut self, term: Term) {
        self.u64(term.0);
    }

    /// A topic id.
    pub fn topic_id(&mut self, id: TopicId) {
        self.raw(&id.0);
    }

    /// A SHA-256.
    pub fn digest(&mut self, digest: Digest) {
        self.raw(&digest.0);
    }

    /// `count u32`, then each item as `each` writes it.
    pub fn list<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut each: impl FnMut(&mut Self, T)) {
        self.u32(u32::try_from(items.len()).expect("stored lists are far below 2^32"));
        items.for_each(|item| each(self, item));
    }

    /// A frame: what `fields` writes, behind its length.
    pub fn frame(&mut self, fields: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.u32(0);
        fields(self);
        let length = u32::try_from(self.0.len() - start - 4).expect("stored frames are far below 4 GiB");
        self.0[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// Reads fields from a slice of shared bytes.
#[derive(Clone, Debug)]
pub struct Decoder {
    rest: Bytes,
    position: usize,
}

impl Decoder {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes, position: 0 }
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether all is read: in a frame, whether a field added later is absent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// An error at this place.
    #[must_use]
    pub fn error(&self, what: &'static str) -> DecodeError {
        DecodeError { what, position: self.position }
    }

    /// The next `length` bytes, shared.
    pub fn raw(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        if self.rest.len() < length {
            return Err(self.error("bytes missing"));
        }
        self.position += length;
        Ok(self.rest.split_to(length))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        if self.rest.len() < N {
            return Err(self.error("bytes missing"));
        }
        let mut array = [0; N];
        self.rest.copy_to_slice(&mut array);
        self.position += N;
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_le_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Two bytes, signed.
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_le_bytes)
    }

    /// Four bytes, signed.
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_le_bytes)
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_le_bytes)
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.error("a bool is 0 or 1")),
        }
    }

    /// `length u32 | bytes`, shared.
    pub fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.u32()? as usize;
        self.raw(length)
    }

    /// A string.
    pub fn string(&mut self) -> Result<String, DecodeError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| self.error("text is not utf-8"))
    }

    /// An offset.
    pub fn offset(&mut self) -> Result<Offset, DecodeError> {
        self.u64().map(Offset)
    }

    /// A log index.
    pub fn index(&mut self) -> Result<LogIndex, DecodeError> {
        self.u64().map(LogIndex)
    }

    /// A term.
    pub fn term(&mut self) -> Result<Term, DecodeError> {
        self.u64().map(Term)
    }

    /// A topic id.
    pub fn topic_id(&mut self) -> Result<TopicId, DecodeError> {
        self.array().map(TopicId)
    }

    /// A SHA-256.
    pub fn digest(&mut self) -> Result<Digest, DecodeError> {
        self.array().map(Digest)
    }

    /// A list written by [`Encoder::list`]. `item_bytes_min` is the least that one item takes, at least 1: a count
    /// that cannot fit is refused before anything is reserved.
    pub fn list<T>(
        &mut self,
        item_bytes_min: usize,
        mut each: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.u32()? as usize;
        if count > self.remaining() / item_bytes_min.max(1) {
            return Err(self.error("count exceeds the bytes left"));
        }
        (0..count).map(|_| each(self)).collect()
    }

    /// A frame written by [`Encoder::frame`]; fields that `fields` does not read are skipped.
    pub fn frame<T>(
        &mut self,
        fields: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let start = self.position + 4;
        let mut inner = Self { rest: self.bytes()?, position: start };
        fields(&mut inner)
    }

    /// Refuses bytes that nobody read.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error("bytes left over")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_skip_fields_added_later() {
        let mut encoder = Encoder::new();
        encoder.frame(|frame| {
            frame.u32(7);
            frame.string("added later");
        });
        encoder.u8(9);
        let mut decoder = Decoder::new(encoder.finish());
        assert_eq!(decoder.frame(Decoder::u32), Ok(7));
        assert_eq!(decoder.u8(), Ok(9));
        assert_eq!(decoder.finish(), Ok(()));
    }

    #[test]
    fn a_claimed_count_is_refused_before_it_is_reserved() {
        let mut decoder = Decoder::new(Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f, 1]));
        assert_eq!(decoder.list(1, Decoder::u8).unwrap_err().what, "count exceeds the bytes left");
    }
}
