//! What the fuzzer calls, and what `formats/tests/corpus.rs` calls with the committed corpus.

use bytes::Bytes;
use varve_common::{Digest, Offset, codec::DecodeError, crc32c};
use varve_formats::{
    Stored,
    checkpoint::{Checkpoint, PartitionCheckpoint},
    claim::{Claim, Complete},
    command::Command,
    manifest::Root,
    node::Node,
    segment::{BlockEntry, BlockIndex, SectionKind, Suffix, decode_block, footer_from_suffix, verify},
};

/// Target 16: segment and index reader. The first byte says whether the footer's CRC is made to fit, so that the fuzzer
/// gets past it.
pub fn segment(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if mode & 1 == 1 {
        refit_footer(&mut bytes);
    }
    let bytes = Bytes::from(bytes);
    let length = bytes.len() as u64;
    if let Ok(Suffix::Footer(footer)) = footer_from_suffix(&bytes, length)
        && let Ok(Some(section)) = footer.section_in_suffix(&bytes, length, SectionKind::BLOCK_INDEX)
        && let Ok(index) = BlockIndex::decode(section, &footer)
    {
        for offset in [0, footer.base.0, footer.last.0, u64::MAX] {
            let _ = index.locate(Offset(offset));
            let _ = index.locate_timestamp(footer.max_timestamp, Offset(offset));
        }
    }
    if let Ok(verified) = verify(&bytes) {
        assert!(verified.footer.batch_bytes <= verified.index.blocks.iter().map(raw_bytes).sum());
    }
    let block = BlockEntry {
        position: 0,
        stored_bytes: bytes.len().saturating_sub(14) as u32,
        raw_bytes: u32::from(*mode) * 1_000,
        base: Offset(0),
        last: Offset(0),
        max_timestamp: -1,
        count: 0,
    };
    drop(decode_block(bytes, &block));
}

fn raw_bytes(block: &BlockEntry) -> u64 {
    u64::from(block.raw_bytes)
}

fn refit_footer(bytes: &mut [u8]) {
    let Some(end) = bytes.len().checked_sub(12) else { return };
    let length = u32::from_le_bytes([bytes[end], bytes[end + 1], bytes[end + 2], bytes[end + 3]]) as usize;
    if length < 8 || length > end {
        return;
    }
    let crc = crc32c(&bytes[end - length..end - 4]);
    bytes[end - 4..end].copy_from_slice(&crc.to_le_bytes());
}

/// Target 17: manifest, node, claim, command and checkpoint decoders. The first byte chooses; what decodes must encode
/// to something that decodes to the same.
pub fn checkpoint(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let bytes = Bytes::copy_from_slice(rest);
    match mode % 8 {
        0 => checkpoint_from(&bytes),
        1 => checkpoint_from(&resealed(rest)),
        2 => twice(bytes, Root::from_bytes, Stored::to_bytes),
        3 => twice(with_crc(rest), |bytes| Node::from_bytes(&bytes), Node::to_bytes),
        4 => twice(with_crc(rest), |bytes| Claim::from_bytes(&bytes), Claim::to_bytes),
        5 => twice(with_crc(rest), |bytes| Complete::from_bytes(&bytes), Complete::to_bytes),
        6 => twice(bytes, Command::decode, |(header, command)| {
            command.encode(header.built_term, header.append_time_ms)
        }),
        _ => drop((Node::from_bytes(&bytes), Claim::from_bytes(&bytes), Complete::from_bytes(&bytes))),
    }
}

fn twice<T: PartialEq + std::fmt::Debug>(
    bytes: Bytes,
    decode: impl Fn(Bytes) -> Result<T, DecodeError>,
    encode: impl Fn(&T) -> Bytes,
) {
    if let Ok(value) = decode(bytes) {
        assert_eq!(decode(encode(&value)).as_ref(), Ok(&value));
    }
}

fn checkpoint_from(bytes: &Bytes) {
    if let Ok(checkpoint) = Checkpoint::decode(bytes) {
        drop(PartitionCheckpoint::from_checkpoint(&checkpoint));
    }
}

/// Makes the SHA-256 fit.
fn resealed(data: &[u8]) -> Bytes {
    let mut bytes = data.to_vec();
    if let Some(end) = bytes.len().checked_sub(40) {
        let digest = Digest::of(&bytes[..end]);
        bytes[end..end + 32].copy_from_slice(&digest.0);
    }
    bytes.into()
}

/// Makes the CRC fit.
fn with_crc(data: &[u8]) -> Bytes {
    let mut bytes = data.to_vec();
    if let Some(end) = bytes.len().checked_sub(4) {
        let crc = crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
    }
    bytes.into()
}
