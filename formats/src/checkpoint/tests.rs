use proptest::prelude::*;
use varve_common::{NodeId, ReplicaId};

use super::*;
use crate::{
    command::PublishedCheckpoint,
    fixtures::{self, Form},
    identity::tests_support::identity,
    manifest::{EntryKind, Root, tests_support},
    state::*,
};

fn header() -> CheckpointHeader {
    let replica = |counter| ReplicaId::new(NodeId::new(1).unwrap(), counter).unwrap();
    CheckpointHeader {
        kind: CheckpointKind::Partition,
        group: GroupId(3),
        identity: identity(),
        state: StatePoint { index: LogIndex(40), term: Term(6), offset: Offset(200) },
        applied: AppliedPoint { index: LogIndex(55), term: Term(7) },
        conf_state: ConfState {
            voters: vec![replica(1)],
            learners: vec![replica(2)],
            ..ConfState::default()
        },
        manifest_seq: 3,
        feature_level: 1,
        append_time_ms: 1_700_000_000_000,
        records_local: false,
    }
}

fn producer() -> ProducerEntry {
    let batch = ProducerBatch { base_sequence: 0, last_sequence: 4, base_offset: Offset(190), timestamp: 20 };
    ProducerEntry {
        producer_id: 1_000,
        epoch: 2,
        batches: vec![batch],
        transaction_first: Some(Offset(190)),
        coordinator_epoch: -1,
        transaction_version: 1,
        last_timestamp: 20,
    }
}

fn state() -> PartitionCheckpoint {
    let open = OpenTransaction { producer_id: 1_000, first: Offset(190) };
    let aborted =
        AbortedTransaction { producer_id: 7, first: Offset(1), last: Offset(9), last_stable: Offset(10) };
    let epoch = EpochStart { term: Term(6), start: Offset(0) };
    let (base, end) = (Offset(200), Offset(250));
    PartitionCheckpoint {
        root: Root { start: Offset(100), nodes: vec![], entries: vec![tests_support::entry(100, 199)] },
        producers: vec![producer()],
        open_transactions: vec![open],
        aborted: vec![aborted],
        epochs: vec![epoch],
        bucket: BucketState { log_start: Offset(100), manifest_seq: 3 },
        archive: None,
        intents: vec![Intent { uid: 5, term: Term(7), base, end, announced_ms: 9, kind: EntryKind::Raw }],
        tombstones: vec![Tombstone {
            node_level: None,
            alone: false,
            kind: EntryKind::Raw,
            uid: 6,
            incarnation: 1,
            term: Term(7),
            base: Offset(0),
            last: Offset(99),
            since_ms: 8,
            log_start: Offset(100),
            named: NAMED_EVER,
        }],
        rolls: vec![RollEntry {
            base,
            end,
            bytes: 77,
            max_timestamp: 30,
            batch_crcs: 5,
            first_index: LogIndex(41),
            roll_index: LogIndex(50),
            roll_term: Term(7),
            rolled_ms: 31,
        }],
        published: vec![PublishedCheckpoint {
            uid: 9,
            key_term: Term(6),
            state_index: LogIndex(30),
            state_term: Term(6),
            state_offset: Offset(150),
            applied_index: LogIndex(35),
            log_start: Offset(0),
            bytes: 4_096,
            sha256: Digest([5; 32]),
            published_ms: 7,
        }],
        seals: vec![SealEntry {
            base,
            end,
            first_index: LogIndex(41),
            last_index: LogIndex(50),
            last_term: Term(7),
            bytes: 99,
            sha256: Digest([6; 32]),
        }],
        frozen: vec![FrozenRoll {
            end,
            roll_index: LogIndex(50),
            roll_term: Term(7),
            conf_state: header().conf_state,
            producers: vec![producer()],
            open_transactions: vec![open],
            aborted: vec![aborted],
            epochs: vec![epoch],
        }],
        coordinator: None,
    }
}

#[test]
fn checkpoints_round_trip_and_match_their_fixtures() {
    let mut checkpoint = state().into_checkpoint(header());
    checkpoint.sections.insert(SectionId(60_001), Bytes::from(vec![7; 200]));
    for (name, form, codec) in [
        ("checkpoint_none", Form::Exact, Codec::None),
        ("checkpoint_zstd", Form::DecodeOnly, Codec::Zstd),
        ("checkpoint_gzip", Form::DecodeOnly, Codec::Gzip),
    ] {
        let written = checkpoint.encode(codec);
        assert_eq!(Checkpoint::decode(&written).as_ref(), Ok(&checkpoint));
        let bytes = fixtures::check(name, form, &written);
        let (read, summaries) = Checkpoint::inspect(&bytes).unwrap();
        assert_eq!(read, checkpoint);
        assert!(summaries.iter().any(|section| section.codec == codec));
        assert_eq!(PartitionCheckpoint::from_checkpoint(&read), Ok(state()));
    }
}

#[test]
fn intents_and_tombstones_of_merged_segments_keep_their_kind_and_who_may_name_them() {
    let (base, end) = (Offset(0), Offset(100));
    let intent = Intent { uid: 5, term: Term(7), base, end, announced_ms: 9, kind: EntryKind::Merged };
    let bytes = fixtures::check("intent_merged", Form::Exact, &intent.to_bytes());
    assert_eq!(Intent::from_bytes(bytes), Ok(intent));
    let tombstone = Tombstone {
        kind: EntryKind::Merged,
        named: LogIndex(41)..LogIndex(55),
        ..state().tombstones[0].clone()
    };
    let bytes = fixtures::check("tombstone_merged", Form::Exact, &tombstone.to_bytes());
    assert_eq!(Tombstone::from_bytes(bytes), Ok(tombstone.clone()));
    let leaf = Tombstone { node_level: Some(0), alone: true, kind: EntryKind::Raw, ..tombstone };
    let bytes = fixtures::check("tombstone_leaf_alone", Form::Exact, &leaf.to_bytes());
    assert_eq!(Tombstone::from_bytes(bytes), Ok(leaf));
}

#[test]
fn a_coordinators_and_the_metadata_groups_checkpoints_keep_their_sections() {
    let mut with = state();
    with.coordinator = Some(Bytes::from_static(b"groups"));
    let header = CheckpointHeader { kind: CheckpointKind::Coordinator, ..header() };
    let read = Checkpoint::decode(&with.clone().into_checkpoint(header.clone()).encode(Codec::Zstd)).unwrap();
    assert_eq!(PartitionCheckpoint::from_checkpoint(&read), Ok(with.clone()));
    let without = state().into_checkpoint(header);
    assert!(PartitionCheckpoint::from_checkpoint(&without).is_err());
    // The first that held groups said that they were a partition's.
    let header = CheckpointHeader { kind: CheckpointKind::Partition, ..without.header };
    let first = Checkpoint::decode(&with.clone().into_checkpoint(header).encode(Codec::Zstd)).unwrap();
    assert_eq!(PartitionCheckpoint::from_checkpoint(&first), Ok(with));
}

#[test]
fn s4_every_flipped_bit_and_every_cut_of_a_checkpoint_is_seen() {
    for codec in [Codec::None, Codec::Zstd] {
        let bytes = state().into_checkpoint(header()).encode(codec);
        fixtures::each_mutation(&bytes, |bytes| assert!(Checkpoint::decode(&bytes).is_err()));
    }
}

#[test]
fn s4_a_missing_section_is_damage_and_never_emptiness() {
    for id in state().into_checkpoint(header()).sections.keys() {
        if [SectionId::SEALS, SectionId::FROZEN_ROLLS].contains(id) {
            continue;
        }
        let mut checkpoint = state().into_checkpoint(header());
        checkpoint.sections.remove(id);
        let read = Checkpoint::decode(&checkpoint.encode(Codec::None)).unwrap();
        assert_eq!(PartitionCheckpoint::from_checkpoint(&read).unwrap_err().what, "a section is missing");
    }
}

#[test]
fn old_readers_skip_sections_and_fields_that_they_do_not_know() {
    let mut checkpoint = state().into_checkpoint(header());
    checkpoint.sections.insert(SectionId(60_000), Bytes::from_static(b"from a later release"));
    let bucket = checkpoint.sections.get_mut(&SectionId::BUCKET_STATE).unwrap();
    let mut longer = Encoder::new();
    longer.frame(|frame| {
        frame.raw(&bucket[4..]);
        frame.u64(99);
    });
    *bucket = longer.finish();
    let read = Checkpoint::decode(&checkpoint.encode(Codec::Zstd)).unwrap();
    assert_eq!(PartitionCheckpoint::from_checkpoint(&read), Ok(state()));
    assert_eq!(SectionId(60_000).name(), None);
}

/// Makes the SHA-256 fit again, so that what lies above it is looked at.
fn reseal(bytes: &mut [u8]) {
    let end = bytes.len() - 40;
    let digest = Digest::of(&bytes[..end]);
    bytes[end..end + 32].copy_from_slice(&digest.0);
}

#[test]
fn a_section_that_claims_more_than_it_holds_is_refused_without_reserving_it() {
    let mut checkpoint = Checkpoint::new(header());
    checkpoint.sections.insert(SectionId(900), Bytes::from(vec![0; 5_000]));
    let bytes = checkpoint.encode(Codec::Zstd);
    let start = MAGIC.len() + 2 + header().to_bytes().len();
    for claimed in [CHECKPOINT_SECTION_BYTES_MAX as u32, u32::MAX, 4_999, 5_001] {
        let mut bytes = bytes.to_vec();
        bytes[start + 4..start + 8].copy_from_slice(&claimed.to_le_bytes());
        let stored = bytes.len() - FOOTER_BYTES;
        let crc = crc32c_append(crc32c(&bytes[start..start + 12]), &bytes[start + 16..stored]);
        bytes[start + 12..start + 16].copy_from_slice(&crc.to_le_bytes());
        reseal(&mut bytes);
        assert!(Checkpoint::decode(&bytes.into()).is_err());
    }
}

proptest! {
    #[test]
    fn resealed_nonsense_never_panics(places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = state().into_checkpoint(header()).encode(Codec::None).to_vec();
        let end = bytes.len() - 40;
        for (place, value) in places {
            bytes[place.index(end)] = value;
        }
        reseal(&mut bytes);
        if let Ok(checkpoint) = Checkpoint::decode(&bytes.into()) {
            drop(PartitionCheckpoint::from_checkpoint(&checkpoint));
        }
    }

    #[test]
    fn any_sections_round_trip(sections in prop::collection::btree_map(any::<u16>(), prop::collection::vec(any::<u8>(), 0..300), 0..6)) {
        let mut checkpoint = Checkpoint::new(header());
        for (id, bytes) in sections {
            checkpoint.sections.insert(SectionId(id), bytes.into());
        }
        for codec in [Codec::None, Codec::Zstd, Codec::Gzip] {
            let read = Checkpoint::decode(&checkpoint.encode(codec)).unwrap();
            prop_assert_eq!(&read, &checkpoint);
        }
    }
}

#[test]
fn the_header_is_read_off_the_beginning() {
    let bytes = state().into_checkpoint(header()).encode(Codec::Zstd);
    let beginning = bytes.slice(..bytes.len().min(PEEK_BYTES as usize));
    assert_eq!(CheckpointHeader::peek(beginning.clone()).unwrap(), header());
    for end in 0..60 {
        CheckpointHeader::peek(beginning.slice(..end)).unwrap_err();
    }
}
