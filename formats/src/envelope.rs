//! Small objects that are read whole: `magic 8 | version u16 | frame | crc32c u32`, the CRC over all before it.

use bytes::Bytes;
use varve_common::{
    codec::{DecodeError, Decoder, Encoder},
    crc32c,
};

pub(crate) fn seal(magic: [u8; 8], version: u16, fields: impl FnOnce(&mut Encoder)) -> Bytes {
    let mut encoder = Encoder::new();
    encoder.raw(&magic);
    encoder.u16(version);
    encoder.frame(fields);
    let body = encoder.finish();
    let mut encoder = Encoder::new();
    encoder.raw(&body);
    encoder.u32(crc32c(&body));
    encoder.finish()
}

pub(crate) fn open<T>(
    magic: [u8; 8],
    version: u16,
    bytes: &Bytes,
    fields: impl FnOnce(&mut Decoder) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let error = |what, position| DecodeError { what, position };
    let end = bytes.len().checked_sub(4).ok_or_else(|| error("bytes missing", bytes.len()))?;
    let (body, crc) = (bytes.slice(..end), &bytes[end..]);
    if !body.starts_with(&magic) {
        return Err(error("not this kind of object", 0));
    }
    if crc32c(&body).to_le_bytes() != crc {
        return Err(error("the checksum does not match", end));
    }
    let mut decoder = Decoder::new(body);
    decoder.raw(magic.len())?;
    if decoder.u16()? != version {
        return Err(error("unknown version", magic.len()));
    }
    let value = decoder.frame(fields)?;
    decoder.finish()?;
    Ok(value)
}
