//! A segment as another cluster's: what a copy of a bucket is made of.
//!
//! ```text
//! [blocks][sections]  footer { length u32 | version u16 | cluster 16 | incarnation u32 | … } | crc32c u32 | footer_len u32 | magic
//!  the same bytes                                         └────── other ──────┘              └─ other ─┘     the same
//! ```
//! Nothing moves, so the section table and the block index stay right, and fields of later releases stay where they are.
//! The way back gives the first bytes again: so a copy can be held against the SHA-256 of what it was made of.

use bytes::{Bytes, BytesMut};
use varve_common::{ClusterId, Incarnation, codec::DecodeError, crc32c};

use super::{Suffix, footer_from_suffix};

/// Behind the footer: its length and the magic number.
const TRAILER_BYTES: usize = 4 + 8;
/// Where in a footer the cluster is named: behind the frame's length and the version.
const LIFE: usize = 4 + 2;
const LIFE_BYTES: usize = 16 + 4;

/// The whole segment as one of this life of this cluster, in pieces of which the first and largest is shared.
pub fn rehomed(
    segment: &Bytes,
    cluster: ClusterId,
    incarnation: Incarnation,
) -> Result<Vec<Bytes>, DecodeError> {
    let Suffix::Footer(_) = footer_from_suffix(segment, segment.len() as u64)? else {
        return Err(DecodeError { what: "a segment is cut off", position: segment.len() });
    };
    let end = segment.len() - TRAILER_BYTES;
    let length = u32::from_le_bytes(segment[end..end + 4].try_into().expect("four bytes"));
    let start = end - length as usize;
    let mut footer = BytesMut::from(&segment[start..]);
    footer[LIFE..LIFE + 16].copy_from_slice(&cluster.0);
    footer[LIFE + 16..LIFE + LIFE_BYTES].copy_from_slice(&incarnation.0.to_le_bytes());
    let crc_at = length as usize - 4;
    let crc = crc32c(&footer[..crc_at]).to_le_bytes();
    footer[crc_at..crc_at + 4].copy_from_slice(&crc);
    Ok(vec![segment.slice(..start), footer.freeze()])
}
