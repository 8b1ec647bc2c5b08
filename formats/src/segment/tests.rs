use proptest::prelude::*;
use varve_common::{Digest, LogIndex, Offset, Term, codec::Encoder, crc32c};

use super::*;
use crate::{
    batch::{BATCH_HEADER_BYTES, tests_support::batch},
    compression::Codec,
    fixtures::{self, Form},
    identity::tests_support::identity,
    limits::{BLOCK_BYTES_MIN, BLOCK_BYTES_SOFT_MAX},
    manifest::EntryKind,
    state::ProducerBatch,
};

fn spec(base: u64, end: u64, compression: BlockCompression) -> SegmentSpec {
    SegmentSpec {
        identity: identity(),
        kind: EntryKind::Raw,
        base: Offset(base),
        end: Offset(end),
        first_index: LogIndex(3),
        roll_index: LogIndex(9),
        roll_term: Term(7),
        delete_horizon_ms: 0,
        compression,
    }
}

fn state() -> SegmentState {
    let batches =
        vec![ProducerBatch { base_sequence: 0, last_sequence: 1, base_offset: Offset(101), timestamp: 5 }];
    SegmentState {
        producers: vec![ProducerEntry {
            producer_id: 1_000,
            epoch: 0,
            batches,
            transaction_first: None,
            coordinator_epoch: -1,
            transaction_version: 0,
            last_timestamp: 5,
        }],
        aborted: vec![],
        epochs: vec![EpochStart { term: Term(7), start: Offset(0) }],
    }
}

/// The whole segment and what the writer says of it.
fn write(spec: SegmentSpec, batches: &[Bytes]) -> (Bytes, SegmentSummary) {
    let mut writer = SegmentWriter::new(spec);
    let mut chunks = Vec::new();
    for batch in batches {
        chunks.extend(writer.push(batch.clone()).unwrap());
    }
    let (rest, summary) = writer.finish(&state()).unwrap();
    chunks.extend(rest);
    let segment: Bytes = chunks.concat().into();
    assert_eq!((segment.len() as u64, Digest::of(&segment)), (summary.bytes, summary.sha256));
    (segment, summary)
}

fn small() -> Vec<Bytes> {
    vec![batch(100, 2, 50, 0, &[7; 90]), batch(102, 1, 40, 0, b"x"), batch(103, 5, 45, 0, &[9; 200])]
}

fn noise(bytes: usize, mut seed: u64) -> Vec<u8> {
    let next = |_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    (0..bytes).map(next).collect()
}

fn records(segment: &Bytes, verified: &VerifiedSegment) -> Vec<u8> {
    let raw = |block: &BlockEntry| decode_block(block_slice(segment, block), block).unwrap();
    verified.index.blocks.iter().flat_map(raw).collect()
}

#[test]
fn segments_round_trip_and_match_their_fixtures() {
    for (name, form, compression) in [
        ("segment_plain", Form::Exact, BlockCompression::Never),
        ("segment_zstd", Form::DecodeOnly, BlockCompression::WhereItPays),
    ] {
        let (segment, summary) = write(spec(100, 108, compression), &small());
        assert_eq!(verify(&segment).unwrap().footer, summary.footer);
        let stored = fixtures::check(name, form, &segment);
        let verified = verify(&stored).unwrap();
        assert_eq!(verified.state, state());
        assert_eq!(records(&stored, &verified), small().concat());
        assert_eq!((verified.footer.count, verified.footer.min_timestamp), (8, 40));
        assert_eq!((verified.footer.max_timestamp, verified.footer.terms), (50, (Term(7), Term(7))));
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_segment_is_seen() {
    for compression in [BlockCompression::Never, BlockCompression::WhereItPays] {
        let (segment, _) = write(spec(100, 108, compression), &small());
        fixtures::each_mutation(&segment, |bytes| assert!(verify(&bytes).is_err()));
    }
}

#[test]
fn the_footer_is_read_from_any_suffix_that_holds_it() {
    let (segment, summary) = write(spec(100, 108, BlockCompression::Never), &small());
    let length = segment.len() as u64;
    let suffix = |bytes: u64| segment.slice((length - bytes) as usize..);
    assert_eq!(footer_from_suffix(&suffix(5), length), Ok(Suffix::More(12)));
    let Ok(Suffix::More(needed)) = footer_from_suffix(&suffix(12), length) else { panic!("more expected") };
    assert_eq!(footer_from_suffix(&suffix(needed - 1), length), Ok(Suffix::More(needed)));
    for bytes in needed..=length {
        let read = footer_from_suffix(&suffix(bytes), length).unwrap();
        assert_eq!(read, Suffix::Footer(Box::new(summary.footer.clone())));
        let index =
            summary.footer.section_in_suffix(&suffix(bytes), length, SectionKind::BLOCK_INDEX).unwrap();
        let held = summary.footer.section(SectionKind::BLOCK_INDEX).unwrap().position >= length - bytes;
        assert_eq!(index.is_some(), held);
    }
}

#[test]
fn blocks_hold_256_kib_to_1_mib_of_whole_batches_and_locate_finds_them() {
    let batches: Vec<_> =
        (0..100).map(|n| batch(n * 10, 10, 1_000 + n as i64, 0, &noise(40_000, n + 1))).collect();
    let (segment, _) = write(spec(0, 1_000, BlockCompression::WhereItPays), &batches);
    let verified = verify(&segment).unwrap();
    let blocks = &verified.index.blocks;
    assert!(blocks.len() > 5);
    for block in &blocks[..blocks.len() - 1] {
        assert!((BLOCK_BYTES_MIN..=BLOCK_BYTES_SOFT_MAX).contains(&(block.raw_bytes as usize)));
        assert_eq!(block.raw_bytes, block.stored_bytes, "noise does not shrink: the first block says so");
    }
    for offset in [0, 1, 555, 999] {
        let block = &blocks[verified.index.locate(Offset(offset)).unwrap()];
        assert!(block.base.0 <= offset && offset <= block.last.0);
    }
    assert_eq!(verified.index.locate(Offset(1_000)), None);
    let place = verified.index.locate_timestamp(1_050, Offset(0)).unwrap();
    assert!(blocks[place].max_timestamp >= 1_050 && blocks[place - 1].max_timestamp < 1_050);
    assert_eq!(verified.index.locate_timestamp(1_000, Offset(999)), Some(blocks.len() - 1));
    assert_eq!(verified.index.locate_timestamp(2_000, Offset(0)), None);
}

#[test]
fn uncompressed_blocks_pass_the_producers_bytes_on_without_a_copy() {
    let batch = batch(100, 8, 50, 0, &[7; 5_000]);
    let mut writer = SegmentWriter::new(spec(100, 108, BlockCompression::Never));
    assert!(writer.push(batch.clone()).unwrap().is_empty());
    let (chunks, summary) = writer.finish(&state()).unwrap();
    assert!(chunks.iter().any(|chunk| chunk.as_ptr() == batch.as_ptr()));
    let segment: Bytes = chunks.concat().into();
    let verified = verify(&segment).unwrap();
    let block = verified.index.blocks[0];
    let raw = decode_block(block_slice(&segment, &block), &block).unwrap();
    assert_eq!(raw.as_ptr(), segment[BLOCK_HEADER_BYTES..].as_ptr());
    assert_eq!(summary.footer, verified.footer);
}

#[test]
fn what_the_producer_compressed_is_not_compressed_again() {
    let zeros = vec![0; 400_000];
    let batches = [
        batch(0, 1, 1, 4, &zeros),
        batch(1, 1, 1, 0, &zeros),
        batch(2, 1, 1, 0, &zeros),
        batch(3, 1, 1, 0, &zeros),
    ];
    let (segment, _) = write(spec(0, 4, BlockCompression::WhereItPays), &batches);
    let verified = verify(&segment).unwrap();
    let shrunk: Vec<_> =
        verified.index.blocks.iter().map(|block| block.stored_bytes < block.raw_bytes).collect();
    assert_eq!(shrunk, [false, true, true, true]);
    assert_eq!(records(&segment, &verified), batches.concat());
}

#[test]
fn a_batch_above_1_mib_is_a_block_of_its_own() {
    let batches = [batch(0, 1, 1, 0, b"a"), batch(1, 1, 1, 0, &noise(3 << 20, 5)), batch(2, 1, 1, 0, b"b")];
    let (segment, _) = write(spec(0, 3, BlockCompression::Never), &batches);
    let sizes: Vec<_> = verify(&segment).unwrap().index.blocks.iter().map(|block| block.raw_bytes).collect();
    let small = BATCH_HEADER_BYTES as u32 + 1;
    assert_eq!(sizes, [small, BATCH_HEADER_BYTES as u32 + (3 << 20), small]);
}

#[test]
fn records_that_do_not_fit_the_range_are_refused() {
    let mut writer = SegmentWriter::new(spec(100, 108, BlockCompression::Never));
    let out = WriteError::OutOfPlace { expected: Offset(100), found: Offset(101) };
    assert_eq!(writer.push(batch(101, 1, 1, 0, b"")), Err(out));
    let end = WriteError::End { expected: Offset(108), found: Offset(109) };
    assert_eq!(writer.push(batch(100, 9, 1, 0, b"")), Err(end));
    writer.push(batch(100, 4, 1, 0, b"")).unwrap();
    assert_eq!(writer.next_offset(), Offset(104));
    let end = WriteError::End { expected: Offset(108), found: Offset(104) };
    assert_eq!(writer.finish(&state()).unwrap_err(), end);
}

#[test]
fn a_compacted_segment_may_miss_offsets() {
    let mut spec = spec(0, 100, BlockCompression::Never);
    spec.kind = EntryKind::Compacted;
    let (segment, summary) = write(spec, &[batch(10, 1, 1, 0, b"a"), batch(50, 1, 1, 0, b"b")]);
    let verified = verify(&segment).unwrap();
    assert_eq!((summary.footer.base, summary.footer.last), (Offset(0), Offset(99)));
    assert_eq!(verified.index.locate(Offset(0)), Some(0));
    assert_eq!(verified.index.locate(Offset(51)), None);
}

#[test]
fn a_manifest_entry_is_rebuilt_from_the_segment_alone() {
    let (segment, summary) = write(spec(100, 108, BlockCompression::Never), &small());
    let name = SegmentName { base: Offset(100), last: Offset(107), term: Term(7), uid: 5 };
    let entry = summary.footer.entry(name, 0, summary.bytes, summary.sha256);
    let Ok(Suffix::Footer(footer)) = footer_from_suffix(&segment, summary.bytes) else {
        panic!("footer expected")
    };
    assert_eq!(footer.entry(name, 0, segment.len() as u64, Digest::of(&segment)), entry);
    assert_eq!((entry.base, entry.end(), entry.count), (Offset(100), Offset(108), 8));
    assert_eq!((entry.first_index, entry.roll_index), (LogIndex(3), LogIndex(9)));
}

/// A segment whose footer is what `change` makes of it, with sections that a later release added.
fn with_footer(extra: &[u8], change: impl FnOnce(&mut Footer), added_field: bool) -> Bytes {
    let (segment, summary) = write(spec(100, 108, BlockCompression::Never), &small());
    let mut footer = summary.footer.clone();
    let start = segment.len() - footer.to_bytes().len();
    let mut bytes = segment[..start].to_vec();
    bytes.extend_from_slice(extra);
    if !extra.is_empty() {
        footer.sections.push(SectionEntry {
            kind: SectionKind(60_000),
            position: start as u64,
            stored_bytes: extra.len() as u32,
            raw_bytes: extra.len() as u32,
            codec: Codec::None,
            crc: crc32c(extra),
        });
    }
    change(&mut footer);
    let tail = footer.to_bytes();
    if !added_field {
        bytes.extend_from_slice(&tail);
        return bytes.into();
    }
    let fields = &tail[4..tail.len() - 16];
    let mut encoder = Encoder::new();
    encoder.frame(|frame| {
        frame.raw(fields);
        frame.u64(42);
    });
    let body = encoder.finish();
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(&crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_le_bytes());
    bytes.extend_from_slice(b"VARVESEG");
    bytes.into()
}

#[test]
fn old_readers_skip_sections_and_footer_fields_that_they_do_not_know() {
    let verified = verify(&with_footer(b"bloom filter", |_| (), true)).unwrap();
    assert_eq!((verified.state, verified.footer.sections.len()), (state(), 5));
}

#[test]
fn a_footer_that_claims_more_than_there_is_is_refused_without_reserving_it() {
    for claim in [u32::MAX, (SEGMENT_SECTION_MAX + 1) as u32, SEGMENT_SECTION_MAX as u32] {
        assert!(verify(&with_footer(b"", |footer| footer.sections[0].raw_bytes = claim, false)).is_err());
        assert!(verify(&with_footer(b"", |footer| footer.sections[3].stored_bytes = claim, false)).is_err());
    }
    assert!(verify(&with_footer(b"", |footer| footer.sections[0].position = u64::MAX, false)).is_err());
    assert!(verify(&with_footer(b"", |footer| footer.count += 1, false)).is_err());
    assert!(verify(&with_footer(b"", |footer| footer.sections.clear(), false)).is_err());
}

const SEGMENT_SECTION_MAX: usize = crate::limits::SEGMENT_SECTION_BYTES_MAX;

#[test]
fn an_encrypted_footer_round_trips() {
    let wanted =
        Encryption { algorithm: 1, key_id: "k1".into(), wrapped_key: Bytes::from_static(b"wrapped") };
    let segment = with_footer(b"", |footer| footer.encryption = Some(wanted.clone()), false);
    assert_eq!(verify(&segment).unwrap().footer.encryption, Some(wanted));
}

proptest! {
    #[test]
    fn any_batches_round_trip(
        bodies in prop::collection::vec((1..20_u32, 0..1_000_i64, prop::collection::vec(any::<u8>(), 0..5_000), 0..2_i16), 1..40),
        compress in any::<bool>(),
    ) {
        let mut next = 7;
        let mut batches = Vec::new();
        for (count, timestamp, body, codec) in &bodies {
            batches.push(batch(next, *count, *timestamp, *codec, body));
            next += u64::from(*count);
        }
        let compression = if compress { BlockCompression::WhereItPays } else { BlockCompression::Never };
        let (segment, summary) = write(spec(7, next, compression), &batches);
        let verified = verify(&segment).unwrap();
        prop_assert_eq!(records(&segment, &verified), batches.concat());
        prop_assert_eq!(verified.footer, summary.footer);
    }

    #[test]
    fn nonsense_in_place_of_a_footer_never_panics(fields in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut encoder = Encoder::new();
        encoder.frame(|frame| { frame.u16(1); frame.raw(&fields) });
        let body = encoder.finish();
        let mut bytes = body.to_vec();
        bytes.extend_from_slice(&crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_le_bytes());
        bytes.extend_from_slice(b"VARVESEG");
        drop(verify(&bytes.into()));
    }
}

/// What a copy of a bucket is made of: all of it is the same but whose it is, and the way back gives the same bytes.
#[test]
fn a_segment_becomes_another_clusters_and_back() {
    let (segment, summary) = write(spec(100, 103, BlockCompression::Never), &[batch(100, 3, 20, 0, b"one")]);
    let (cluster, incarnation) = (varve_common::ClusterId::from_random(11), varve_common::Incarnation(7));
    let other: Bytes = rehomed(&segment, cluster, incarnation).unwrap().concat().into();
    assert_eq!(other.len(), segment.len());
    let mut wanted = verify(&segment).unwrap();
    (wanted.footer.identity.cluster, wanted.footer.identity.incarnation) = (cluster, incarnation);
    assert_eq!(verify(&other), Ok(wanted));
    let identity = summary.footer.identity;
    let back = rehomed(&other, identity.cluster, identity.incarnation).unwrap().concat();
    assert_eq!(back, segment);
    let mut damaged = segment.to_vec();
    let place = damaged.len() - 30;
    damaged[place] ^= 1;
    assert!(rehomed(&damaged.into(), cluster, incarnation).is_err(), "damage is never sealed anew");
}
