//! One block: whole batches behind a header with their CRC.

use bytes::Bytes;
use varve_common::{
    checksum::crc32c_append,
    codec::{DecodeError, Decoder, Encoder},
    crc32c,
};

use super::BlockEntry;
use crate::{compression::Codec, limits::BLOCK_BYTES_MAX};

/// The length of a block's header in bytes.
pub const BLOCK_HEADER_BYTES: usize = 14;

/// The header of a block whose stored bytes are `stored`, in order.
pub(super) fn header(codec: Codec, raw_bytes: usize, stored: &[Bytes]) -> Bytes {
    const FITS: &str = "the writer closes blocks far below 4 GiB";
    let stored_bytes: usize = stored.iter().map(Bytes::len).sum();
    let mut encoder = Encoder::new();
    encoder.u8(codec as u8);
    encoder.u8(0);
    encoder.u32(u32::try_from(raw_bytes).expect(FITS));
    encoder.u32(u32::try_from(stored_bytes).expect(FITS));
    let checked = encoder.finish();
    let crc = stored.iter().fold(crc32c(&checked), |crc, bytes| crc32c_append(crc, bytes));
    let mut encoder = Encoder::new();
    encoder.raw(&checked);
    encoder.u32(crc);
    encoder.finish()
}

/// The batches of a block, from exactly its bytes: a slice of them where the block is not compressed.
pub fn decode_block(bytes: Bytes, block: &BlockEntry) -> Result<Bytes, DecodeError> {
    if bytes.len() as u64 != block.range().end - block.range().start {
        return Err(DecodeError { what: "not the bytes of this block", position: block.position as usize });
    }
    let mut decoder = Decoder::new(bytes);
    let checked = decoder.raw(BLOCK_HEADER_BYTES - 4)?;
    let crc = decoder.u32()?;
    let stored = decoder.raw(decoder.remaining())?;
    let error = |what| DecodeError { what, position: block.position as usize };
    if crc32c_append(crc32c(&checked), &stored) != crc {
        return Err(error("a block's checksum does not match"));
    }
    let mut header = Decoder::new(checked);
    let codec = Codec::from_number(header.u8()?).ok_or_else(|| error("unknown codec of a block"))?;
    if header.u8()? != 0 {
        return Err(error("unknown flags of a block"));
    }
    let (raw_bytes, stored_bytes) = (header.u32()?, header.u32()?);
    if (raw_bytes, stored_bytes) != (block.raw_bytes, block.stored_bytes) {
        return Err(error("a block's header and its index entry differ"));
    }
    if raw_bytes as usize > BLOCK_BYTES_MAX {
        return Err(error("a block is larger than blocks may be"));
    }
    codec.expand(stored, raw_bytes as usize)
}
