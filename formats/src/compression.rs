//! Compression of blocks and sections; expanding never trusts a claimed length.

use std::io::{Read, Write};

use bytes::Bytes;
use varve_common::codec::DecodeError;

use crate::limits::{EXPAND_STEP_BYTES, ZSTD_WINDOW_LOG_MAX};

const ZSTD_LEVEL: i32 = 3;

/// How bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    None = 0,
    /// Zstandard (RFC 8878).
    Zstd = 1,
    /// gzip (RFC 1952): by choice, for readers without zstd.
    Gzip = 2,
}

impl Codec {
    /// The codec with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Zstd),
            2 => Some(Self::Gzip),
            _ => None,
        }
    }

    /// `bytes` in stored form.
    #[must_use]
    pub fn compress(self, bytes: &Bytes) -> Bytes {
        const MEMORY: &str = "writing to memory cannot fail";
        match self {
            Self::None => bytes.clone(),
            Self::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL).expect(MEMORY).into(),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(bytes).expect(MEMORY);
                encoder.finish().expect(MEMORY).into()
            }
        }
    }

    /// The `raw_length` bytes whose stored form is `stored`. The caller has held `raw_length` against its cap; even so
    /// memory grows with what comes out, not with what is claimed.
    pub fn expand(self, stored: Bytes, raw_length: usize) -> Result<Bytes, DecodeError> {
        let bytes = match self {
            Self::None => stored,
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(&stored[..])
                    .map_err(|_| error("zstd cannot start"))?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| error("zstd cannot start"))?;
                read_all(decoder, raw_length)?
            }
            Self::Gzip => read_all(flate2::read::GzDecoder::new(&stored[..]), raw_length)?,
        };
        if bytes.len() == raw_length { Ok(bytes) } else { Err(error("not as long as its length says")) }
    }
}

/// Compresses blocks one after the other, as [`Codec::Zstd`] does: what that takes in memory is taken once for all of them.
#[derive(Default)]
pub struct BlockCompressor {
    context: Option<zstd::bulk::Compressor<'static>>,
    joined: Vec<u8>,
    compressed: Vec<u8>,
}

impl BlockCompressor {
    /// `pieces`, together, in stored form.
    pub fn compress(&mut self, pieces: &[Bytes]) -> &[u8] {
        const MEMORY: &str = "compressing into memory cannot fail";
        let context =
            self.context.get_or_insert_with(|| zstd::bulk::Compressor::new(ZSTD_LEVEL).expect(MEMORY));
        let raw = match pieces {
            [whole] => &whole[..],
            parts => {
                self.joined.clear();
                parts.iter().for_each(|part| self.joined.extend_from_slice(part));
                &self.joined[..]
            }
        };
        self.compressed.clear();
        self.compressed.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        context.compress_to_buffer(raw, &mut self.compressed).expect(MEMORY);
        &self.compressed
    }
}

/// Reads one byte more than promised at most: enough to see that the promise is broken.
fn read_all(reader: impl Read, raw_length: usize) -> Result<Bytes, DecodeError> {
    let mut bytes = Vec::with_capacity(raw_length.min(EXPAND_STEP_BYTES));
    let limit = raw_length as u64 + 1;
    reader.take(limit).read_to_end(&mut bytes).map_err(|_| error("compressed bytes are damaged"))?;
    Ok(bytes.into())
}

const fn error(what: &'static str) -> DecodeError {
    DecodeError { what, position: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_round_trips() {
        let bytes = Bytes::from(vec![7; 100_000]);
        for codec in [Codec::None, Codec::Zstd, Codec::Gzip] {
            let stored = codec.compress(&bytes);
            assert_eq!(codec.expand(stored, bytes.len()).unwrap(), bytes);
            assert_eq!(Codec::from_number(codec as u8), Some(codec));
        }
    }

    #[test]
    fn blocks_are_compressed_to_the_same_bytes_whatever_came_before_them() {
        let block =
            |seed: usize| Bytes::from((0..50_000).map(|at| (at * seed / 64) as u8).collect::<Vec<_>>());
        let mut compressor = BlockCompressor::default();
        for seed in [3, 5, 7, 3] {
            let (whole, stored) = (block(seed), Codec::Zstd.compress(&block(seed)));
            assert_eq!(compressor.compress(std::slice::from_ref(&whole)), &stored[..]);
            assert_eq!(compressor.compress(&[whole.slice(..999), whole.slice(999..)]), &stored[..]);
        }
    }

    #[test]
    fn a_bomb_stops_at_its_claimed_length() {
        let stored = Codec::Zstd.compress(&Bytes::from(vec![0; 50 << 20]));
        assert!(stored.len() < 10_000);
        assert_eq!(Codec::Zstd.expand(stored, 10).unwrap_err().what, "not as long as its length says");
    }

    #[test]
    fn a_claimed_length_is_not_reserved() {
        let stored = Codec::Gzip.compress(&Bytes::from_static(b"short"));
        assert_eq!(Codec::Gzip.expand(stored, 1 << 60).unwrap_err().what, "not as long as its length says");
    }
}
