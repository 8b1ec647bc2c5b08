//! The five codecs, decompressing under caps.
//!
//! Output is made in chunks and counted: no claimed length is believed, and a bomb ends at the cap.

use std::io::{self, Read, Write as _};

use thiserror::Error;

use crate::limits;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Raw snappy, or blocks of it in the framing of xerial's snappy-java.
    Snappy = 2,
    /// The LZ4 frame format.
    Lz4 = 3,
    /// RFC 8878.
    Zstd = 4,
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The number in the attributes.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The codec of this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The name in `compression.type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// How much may come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Bytes in all.
    pub bytes_max: usize,
    /// Bytes per compressed byte, beyond [`limits::DECOMPRESSION_FREE_BYTES`].
    pub ratio_max: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self { bytes_max: limits::DECOMPRESSED_BYTES_MAX, ratio_max: limits::DECOMPRESSION_RATIO_MAX }
    }
}

impl Caps {
    fn for_input(self, compressed_bytes: usize) -> usize {
        let by_ratio = compressed_bytes.saturating_mul(self.ratio_max).max(limits::DECOMPRESSION_FREE_BYTES);
        self.bytes_max.min(by_ratio)
    }
}

/// Compressed bytes that do not come apart.
#[derive(Debug, Error)]
pub enum CompressionError {
    /// More comes out than allowed.
    #[error("more than {limit} bytes of {codec:?} output")]
    TooLarge {
        /// Which.
        codec: Codec,
        /// The cap that was reached.
        limit: usize,
    },
    /// The stream is damaged or cut short.
    #[error("damaged {codec:?} stream: {cause}")]
    Damaged {
        /// Which.
        codec: Codec,
        /// As the codec says it.
        cause: io::Error,
    },
}

/// Takes `compressed` apart, to at most `caps` bytes.
///
/// # Errors
/// Damaged, or too much.
pub fn decompress(codec: Codec, compressed: &[u8], caps: Caps) -> Result<Vec<u8>, CompressionError> {
    let limit = caps.for_input(compressed.len());
    let damaged = |cause| CompressionError::Damaged { codec, cause };
    match codec {
        Codec::None if compressed.len() > caps.bytes_max => {
            Err(CompressionError::TooLarge { codec, limit: caps.bytes_max })
        }
        Codec::None => Ok(compressed.to_vec()),
        Codec::Gzip => read_capped(codec, flate2::read::MultiGzDecoder::new(compressed), limit),
        Codec::Snappy => decompress_snappy(compressed, limit),
        Codec::Lz4 => read_capped(codec, lz4_flex::frame::FrameDecoder::new(compressed), limit),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed).map_err(damaged)?;
            decoder.window_log_max(limits::ZSTD_WINDOW_LOG_MAX).map_err(damaged)?;
            read_capped(codec, decoder, limit)
        }
    }
}

fn read_capped(codec: Codec, mut stream: impl Read, limit: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::new();
    let mut chunk = vec![0; limits::DECOMPRESSION_CHUNK_BYTES];
    loop {
        let count = match stream.read(&mut chunk) {
            Ok(0) => return Ok(out),
            Ok(count) => count,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(CompressionError::Damaged { codec, cause }),
        };
        let bytes = out.len() + count;
        if bytes > limit {
            return Err(CompressionError::TooLarge { codec, limit });
        }
        if bytes > out.capacity() {
            out.reserve_exact(room(2 * out.capacity(), limit).max(bytes) - out.len());
        }
        out.extend_from_slice(&chunk[..count]);
    }
}

/// Doubles while that is little. From there on it is all that may come out: pages that nobody writes to take no memory, and what is out is not
/// copied again and again.
const fn room(doubled: usize, limit: usize) -> usize {
    if doubled <= limits::DECOMPRESSION_FREE_BYTES && doubled <= limit { doubled } else { limit }
}

/// What snappy-java writes before its blocks: magic, version and least version, then `i32 size, block` until the end.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;

fn decompress_snappy(compressed: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::new();
    if !compressed.starts_with(&XERIAL_MAGIC) {
        decompress_snappy_block(compressed, limit, &mut out)?;
        return Ok(out);
    }
    let mut rest = compressed.get(XERIAL_HEADER_BYTES..).ok_or_else(cut_short)?;
    while !rest.is_empty() {
        let (prefix, behind) = rest.split_first_chunk::<4>().ok_or_else(cut_short)?;
        let size = u32::from_be_bytes(*prefix) as usize;
        let block = behind.get(..size).ok_or_else(cut_short)?;
        decompress_snappy_block(block, limit, &mut out)?;
        rest = &behind[size..];
    }
    Ok(out)
}

/// A raw block claims its length up front: the claim is held against the cap and against what snappy can reach (a
/// copy of 64 bytes takes at least 3) before memory is taken (CVE-2023-34455).
fn decompress_snappy_block(block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), CompressionError> {
    let damaged =
        |cause: snap::Error| CompressionError::Damaged { codec: Codec::Snappy, cause: cause.into() };
    let claimed = snap::raw::decompress_len(block).map_err(damaged)?;
    if claimed > limit - out.len() {
        return Err(CompressionError::TooLarge { codec: Codec::Snappy, limit });
    }
    if claimed > block.len().saturating_mul(64) {
        return Err(cut_short());
    }
    let start = out.len();
    out.resize(start + claimed, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(damaged)?;
    Ok(())
}

fn cut_short() -> CompressionError {
    CompressionError::Damaged { codec: Codec::Snappy, cause: io::ErrorKind::UnexpectedEof.into() }
}

/// Compresses `records` as clients do.
#[must_use]
pub fn compress(codec: Codec, records: &[u8]) -> Vec<u8> {
    compress_at(codec, None, records)
}

/// The same, trying as hard as `level` says: 1 to 9 with gzip, up to 22 with zstd. Snappy and LZ4 have none here.
///
/// # Panics
/// Never: writing to memory does not fail.
#[must_use]
pub fn compress_at(codec: Codec, level: Option<i32>, records: &[u8]) -> Vec<u8> {
    const MEMORY: &str = "writing to memory does not fail";
    match codec {
        Codec::None => records.to_vec(),
        Codec::Gzip => {
            let level = level.and_then(|level| u32::try_from(level).ok());
            let level = level.map_or_else(flate2::Compression::default, flate2::Compression::new);
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(records).expect(MEMORY);
            encoder.finish().expect(MEMORY)
        }
        Codec::Snappy => snap::raw::Encoder::new().compress_vec(records).expect("batches are below 4 GiB"),
        Codec::Lz4 => {
            // Java's reader takes independent blocks only.
            let frame = lz4_flex::frame::FrameInfo::new()
                .block_mode(lz4_flex::frame::BlockMode::Independent)
                .block_size(lz4_flex::frame::BlockSize::Max64KB);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(frame, Vec::new());
            encoder.write_all(records).expect(MEMORY);
            encoder.finish().expect(MEMORY)
        }
        Codec::Zstd => zstd::stream::encode_all(records, level.unwrap_or(0)).expect(MEMORY),
    }
}
