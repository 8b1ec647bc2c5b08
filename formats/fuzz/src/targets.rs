//! What the fuzzer calls, what `formats/tests/corpus.rs` calls with the committed corpus, and `sim/tests/mutations.rs` with
//! objects that a node has written.
//!
//! The first byte of an input chooses a mode. Most modes make checksums fit, from the innermost to the outermost, so that what is
//! behind them is reached: without that nothing but the first checksum would be tried.

use bytes::Bytes;
use varve_common::{Digest, Offset, checksum::crc32c_append, codec::DecodeError, crc32c};
use varve_formats::{
    Stored,
    checkpoint::{Checkpoint, CheckpointHeader, PartitionCheckpoint},
    claim::{Claim, Complete},
    command::Command,
    compression::Codec,
    manifest::{FanOut, Root},
    node::Node,
    segment::{BlockEntry, BlockIndex, SectionKind, Suffix, decode_block, footer_from_suffix, verify},
};

/// Target 16: segment and index reader. The first byte says whether the footer's CRC is made to fit (1), and those of sections
/// and blocks as well (2).
pub fn segment(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if mode & 1 == 1 {
        refit_footer(&mut bytes);
    }
    if mode & 2 == 2 {
        refit_segment(&mut bytes);
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

/// Makes the checksums of blocks and sections fit, and then the footer's.
fn refit_segment(bytes: &mut [u8]) {
    refit_footer(bytes);
    let whole = Bytes::copy_from_slice(bytes);
    let Ok(Suffix::Footer(footer)) = footer_from_suffix(&whole, whole.len() as u64) else { return };
    for section in &footer.sections {
        let (begin, end) = (section.range().start as usize, section.range().end as usize);
        let Some(stored) = whole.get(begin..end) else { continue };
        let (old, new) = (section.crc.to_le_bytes(), crc32c(stored).to_le_bytes());
        // The entries of sections are in the footer, behind them all.
        let entries = footer.sections.last().map_or(0, |last| last.range().end as usize);
        if let Some(place) = bytes[entries..].windows(4).position(|window| window == old) {
            bytes[entries + place..entries + place + 4].copy_from_slice(&new);
        }
    }
    refit_footer(bytes);
    let whole = Bytes::copy_from_slice(bytes);
    let Ok(Suffix::Footer(footer)) = footer_from_suffix(&whole, whole.len() as u64) else { return };
    let section = footer.section_in_suffix(&whole, whole.len() as u64, SectionKind::BLOCK_INDEX);
    let Ok(Some(section)) = section else { return };
    let Ok(index) = BlockIndex::decode(section, &footer) else { return };
    for block in &index.blocks {
        let (begin, end) = (block.range().start as usize, block.range().end as usize);
        if end <= bytes.len() && begin + 14 <= end {
            let crc = crc32c_append(crc32c(&bytes[begin..begin + 10]), &bytes[begin + 14..end]);
            bytes[begin + 10..begin + 14].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

/// Target 17: manifest, node, claim, command and checkpoint decoders. The first byte chooses; what decodes must encode
/// to something that decodes to the same.
pub fn checkpoint(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let bytes = Bytes::copy_from_slice(rest);
    match mode % 9 {
        0 => checkpoint_from(&bytes),
        1 => checkpoint_from(&resealed(rest)),
        2 => {
            if let Ok(root) = Root::from_bytes(bytes.clone()) {
                root_is_searched(root);
            }
            twice(bytes, Root::from_bytes, Stored::to_bytes);
        }
        3 => {
            let bytes = with_crc(rest);
            if let Ok(node) = Node::from_bytes(&bytes) {
                node_is_searched(&node);
            }
            twice(bytes, |bytes| Node::from_bytes(&bytes), Node::to_bytes);
        }
        4 => twice(with_crc(rest), |bytes| Claim::from_bytes(&bytes), Claim::to_bytes),
        5 => twice(with_crc(rest), |bytes| Complete::from_bytes(&bytes), Complete::to_bytes),
        6 => twice(bytes, Command::decode, |(header, command)| {
            command.encode(header.built_term, header.append_time_ms)
        }),
        7 => checkpoint_from(&resealed(&with_section_crcs(rest))),
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
    drop(CheckpointHeader::peek(bytes.clone()));
    let Ok(checkpoint) = Checkpoint::decode(bytes) else { return };
    let again = Checkpoint::decode(&checkpoint.encode(Codec::None));
    assert_eq!(again.as_ref(), Ok(&checkpoint));
    let Ok(state) = PartitionCheckpoint::from_checkpoint(&checkpoint) else { return };
    root_is_searched(state.root.clone());
    let encoded = state.clone().into_checkpoint(checkpoint.header.clone()).encode(Codec::Zstd);
    let decoded = Checkpoint::decode(&encoded).and_then(|again| PartitionCheckpoint::from_checkpoint(&again));
    assert_eq!(decoded, Ok(state));
}

/// Whatever a manifest says, to look something up in it, to fold it and to trim it ends.
fn root_is_searched(mut root: Root) {
    let ends = [root.start, root.end(), Offset(0), Offset(u64::MAX), Offset(root.end().0.wrapping_sub(1))];
    for offset in ends {
        let _ = root.find(offset);
        let _ = root.find_timestamp(0, offset);
    }
    let _ = (root.first(), root.segments(), root.segment_bytes(), root.places().count());
    if let Some(plan) = root.plan_fold(FanOut(4)) {
        let _ = plan.sums();
    }
    let _ = root.trim(ends[0]);
    let _ = root.trim(Offset(u64::MAX));
}

fn node_is_searched(node: &Node) {
    for place in node.places() {
        let _ = node.find(place.end());
        let _ = node.find_timestamp(place.max_timestamp(), Offset(0));
    }
    let _ = node.body.sums();
}

/// Makes the CRC of each section fit, as far as their lengths lead.
fn with_section_crcs(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    let number = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]) as usize)
    };
    // Magic 8, version 2, and the header's frame.
    let mut at = 14 + number(&bytes, 10).unwrap_or(usize::MAX / 2);
    while let Some(stored) = number(&bytes, at.saturating_add(8)) {
        let end = at + 16 + stored;
        if end > bytes.len().saturating_sub(44) {
            break;
        }
        let crc = crc32c_append(crc32c(&bytes[at..at + 12]), &bytes[at + 16..end]);
        bytes[at + 12..at + 16].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
    bytes
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
