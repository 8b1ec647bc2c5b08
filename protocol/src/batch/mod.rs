//! Record batches v2 (magic 2), read in place.
//!
//! ```text
//!  0 base offset      i64 |  patched by the leader, outside the CRC
//!  8 batch length     i32 |  bytes behind this field: the batch has 12 more
//! 12 leader epoch     i32 |  patched by the leader, outside the CRC
//! 16 magic            i8     2
//! 17 crc              u32    CRC-32C of everything from 21 to the end
//! 21 attributes       i16    codec 0-2, timestamp type 3, transactional 4, control 5, delete horizon 6
//! 23 last offset delta i32
//! 27 base timestamp   i64
//! 35 max timestamp    i64
//! 43 producer id      i64
//! 51 producer epoch   i16
//! 53 base sequence    i32
//! 57 records          i32
//! 61 records, compressed as one stream unless the codec is none
//! ```
//!
//! [`header`] reads, checks and patches the 61 bytes; [`validate`] is the gate of the produce path, and [`rejected`] what it says of single records; [`compression`]
//! decompresses under caps; [`records`] walks the records; [`recompress`] changes the codec; [`lookup`] finds by timestamp; [`builder`] makes batches.

pub mod builder;
pub mod compression;
pub mod header;
pub mod lookup;
pub mod recompress;
pub mod records;
pub mod rejected;
pub mod validate;
mod varint;

pub use builder::BatchBuilder;
pub use compression::{Caps, Codec, CompressionError};
pub use header::{
    BatchHeader, BatchMeta, Batches, HEADER_BYTES, HeaderError, TimestampType, patch, rewrite_append_time,
};
pub use lookup::{Found, first_at_or_after, max_timestamp};
pub use recompress::{Target, recompress};
pub use records::{Record, RecordError, Records};
pub use rejected::{Fault, Rejected, RejectedRecord};
pub use validate::{Invalid, Limits, validate};

#[cfg(test)]
mod tests;
