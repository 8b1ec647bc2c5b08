//! A batch in another codec: what `compression.type` asks of the leader, before it proposes.
//!
//! Records, offsets, sequences and timestamps stay as they are; codec, length and CRC follow from the new payload.

use bytes::Bytes;

use super::compression::{Codec, compress_at};
use super::header::{BatchHeader, BatchMeta, HEADER_BYTES, write_payload};
use super::records::{RecordError, Records};
use super::validate::{Invalid, Limits, check_records, check_whole};

/// How batches are to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Compressed by this, or not at all.
    pub codec: Codec,
    /// How hard it tries; `None`: as the codec does by itself.
    pub level: Option<i32>,
}

/// Checks a producer's bytes as [`super::validate`] does, and every record besides; gives the batch in `target`'s codec, and what
/// its header says.
///
/// # Errors
/// See [`Invalid`]. Also where the batch is larger than the topic allows in its new codec.
pub fn recompress(bytes: &[u8], limits: &Limits, target: Target) -> Result<(Bytes, BatchMeta), Invalid> {
    let batch = check_whole(bytes, limits)?;
    let records = Records::read(&batch, limits.caps).map_err(RecordError::from)?;
    check_records(batch.meta(), &records, limits)?;
    if target.codec == Codec::None {
        // Known before it is copied.
        check_size(HEADER_BYTES + records.bytes(), limits)?;
    }
    let payload = compress_at(target.codec, target.level, records.payload());
    let made: Bytes = write_payload(&batch, target.codec, &payload).into();
    check_size(made.len(), limits)?;
    let meta = *BatchHeader::read(&made)?.meta();
    Ok((made, meta))
}

const fn check_size(bytes: usize, limits: &Limits) -> Result<(), Invalid> {
    let limit = limits.batch_bytes_max;
    if bytes > limit { Err(Invalid::TooLarge { bytes, limit }) } else { Ok(()) }
}
