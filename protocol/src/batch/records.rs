//! The records of one batch.
//!
//! ```text
//! length varint | attributes i8 | timestamp delta varint | offset delta varint
//!   | key length varint, key | value length varint, value | headers varint, (key length, key, value length, value)*
//! ```

use std::borrow::Cow;

use thiserror::Error;

use super::compression::{Caps, Codec, CompressionError, decompress};
use super::header::{BatchHeader, BatchMeta, TimestampType};
use super::varint;
use crate::limits;

/// Records that break the format.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The payload does not come apart.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// A length, number or text inside record `place`.
    #[error("record {place}: {what}")]
    Malformed {
        /// Its place in the batch, from 0.
        place: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// Bytes behind the last record.
    #[error("{bytes} bytes behind the last record")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: i64,
    /// Its offset less the batch's.
    pub offset_delta: i32,
    /// Its time; the batch's largest under LogAppendTime.
    pub timestamp: i64,
    /// Null where there is none.
    pub key: Option<&'a [u8]>,
    /// Null is a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// In their order; keys may repeat.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

/// The decompressed records of a batch.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    meta: BatchMeta,
    payload: Cow<'a, [u8]>,
}

impl<'a> Records<'a> {
    /// Decompresses, where the batch is compressed.
    ///
    /// # Errors
    /// The payload is damaged, or larger than `caps`.
    pub fn read(batch: &BatchHeader<'a>, caps: Caps) -> Result<Self, CompressionError> {
        let payload = match batch.meta().codec {
            Codec::None => Cow::Borrowed(batch.payload()),
            codec => Cow::Owned(decompress(codec, batch.payload(), caps)?),
        };
        Ok(Self { meta: *batch.meta(), payload })
    }

    /// The decompressed bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.payload.len()
    }

    /// The decompressed records, one behind the other.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The records in order. Ends after the first error.
    #[must_use]
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter { meta: self.meta, rest: &self.payload, place: 0 }
    }
}

/// See [`Records::iter`].
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    meta: BatchMeta,
    rest: &'a [u8],
    place: u32,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.place == self.meta.count {
            let bytes = std::mem::take(&mut self.rest).len();
            return (bytes > 0).then_some(Err(RecordError::TrailingBytes { bytes }));
        }
        let place = self.place;
        let record = self.read_one().map_err(|what| RecordError::Malformed { place, what });
        self.place += 1;
        if record.is_err() {
            (self.place, self.rest) = (self.meta.count, &[]);
        }
        Some(record)
    }
}

impl<'a> RecordIter<'a> {
    fn read_one(&mut self) -> Result<Record<'a>, &'static str> {
        let mut body = match read_sized(&mut self.rest, "length")? {
            Some(body) => body,
            None => return Err("null record"),
        };
        let (_attributes, behind) = body.split_first().ok_or("no attributes")?;
        body = behind;
        let timestamp_delta = varint::read(&mut body).ok_or("timestamp delta")?;
        let offset_delta = varint::read(&mut body).ok_or("offset delta")?;
        let offset_delta = i32::try_from(offset_delta).map_err(|_| "offset delta")?;
        let key = read_sized(&mut body, "key")?;
        let value = read_sized(&mut body, "value")?;
        let headers = read_headers(&mut body)?;
        if !body.is_empty() {
            return Err("bytes behind the headers");
        }
        let timestamp = match self.meta.timestamp_type {
            TimestampType::CreateTime => self.meta.base_timestamp.saturating_add(timestamp_delta),
            TimestampType::LogAppendTime => self.meta.max_timestamp,
        };
        let offset = self.meta.base_offset.saturating_add(i64::from(offset_delta));
        Ok(Record { offset, offset_delta, timestamp, key, value, headers })
    }
}

/// A length and as many bytes; -1 is null.
fn read_sized<'a>(bytes: &mut &'a [u8], what: &'static str) -> Result<Option<&'a [u8]>, &'static str> {
    let length = varint::read(bytes).ok_or(what)?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| what)?;
    let (taken, rest) = bytes.split_at_checked(length).ok_or(what)?;
    *bytes = rest;
    Ok(Some(taken))
}

type Headers<'a> = Vec<(&'a str, Option<&'a [u8]>)>;

fn read_headers<'a>(bytes: &mut &'a [u8]) -> Result<Headers<'a>, &'static str> {
    let count = varint::read(bytes).and_then(|count| usize::try_from(count).ok()).ok_or("header count")?;
    // A header takes two bytes at least.
    if count > limits::RECORD_HEADERS_MAX || count > bytes.len() / 2 {
        return Err("header count");
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        let key = read_sized(bytes, "header key")?.ok_or("null header key")?;
        let key = std::str::from_utf8(key).map_err(|_| "header key")?;
        headers.push((key, read_sized(bytes, "header value")?));
    }
    Ok(headers)
}
