use proptest::prelude::*;
use varve_common::{Digest, GroupId, LogIndex, NodeId, Offset, ReplicaId, Term, TopicId};

use super::*;
use crate::{
    fixtures::{self, Form},
    state::{ArchivePlan, ArchiveState, ArchivedFile},
    stored::Stored as _,
};

fn sample_entry() -> Entry {
    crate::manifest::tests_support::entry(100, 199)
}

fn published(kept: Option<Vec<LogIndex>>) -> Command {
    let checkpoint = PublishedCheckpoint {
        uid: 9,
        key_term: Term(7),
        state_index: LogIndex(40),
        state_term: Term(6),
        state_offset: Offset(200),
        applied_index: LogIndex(55),
        log_start: Offset(100),
        bytes: 4_096,
        sha256: Digest([5; 32]),
        published_ms: 1_700_000_000_000,
    };
    Command::CkptPublished(CkptPublished { term: Term(7), checkpoint, kept })
}

fn samples() -> Vec<(&'static str, Command)> {
    partition_samples()
        .into_iter()
        .chain(metadata_samples())
        .chain(config_samples())
        .chain(member_samples())
        .collect()
}

fn partition_samples() -> Vec<(&'static str, Command)> {
    let fence = Fence { term: Term(7), manifest_seq: 3 };
    vec![
        ("records", Command::Records(Bytes::from_static(b"not looked at"))),
        (
            "roll",
            Command::Roll(Roll {
                base: Offset(1),
                end: Offset(9),
                bytes: 5,
                max_timestamp: -1,
                batch_crcs: 8,
            }),
        ),
        ("producer_expired", Command::ProducerExpired(ProducerExpired { unused_since_ms: 5 })),
        (
            "tier_intent",
            Command::TierIntent(TierIntent { uid: 4, term: Term(7), base: Offset(1), end: Offset(9) }),
        ),
        ("tier_append", Command::TierAppend(TierAppend { fence, entries: vec![sample_entry()] })),
        (
            "tier_replace",
            Command::TierReplace(TierReplace { fence, removed: vec![1, 2], added: vec![sample_entry()] }),
        ),
        (
            "tier_trim",
            Command::TierTrim(TierTrim { fence, log_start: Offset(5), cause: TrimCause::DeleteRecords }),
        ),
        (
            "node_folded",
            Command::NodeFolded(NodeFolded {
                fence,
                node: crate::manifest::tests_support::node(0, 100, 199),
            }),
        ),
        ("ckpt_published", published(None)),
        ("ckpt_published_kept", published(Some(vec![LogIndex(20), LogIndex(55)]))),
        ("intent_expired", Command::IntentExpired(IntentExpired { term: Term(7), uids: vec![4, 5] })),
        ("tier_reaped", Command::TierReaped(TierReaped { term: Term(7), uids: vec![] })),
        (
            "leaf_replaced",
            Command::LeafReplaced(LeafReplaced {
                fence,
                removed: 6,
                node: crate::manifest::tests_support::node(0, 100, 199),
                gone: vec![sample_entry()],
                added: vec![sample_entry()],
            }),
        ),
        ("archive_planned", Command::ArchivePlanned(ArchivePlanned { term: Term(7), plan: archive_plan() })),
        ("archived", Command::Archived(archived(Some(archived_file())))),
        ("archive_passed", Command::Archived(archived(None))),
    ]
}

fn archive_plan() -> ArchivePlan {
    ArchivePlan { base: Offset(100), end: Offset(200), day: 20_779 }
}

fn archived_file() -> ArchivedFile {
    ArchivedFile { bytes: 4_096, records: 100, sha256: Digest([5; 32]), entry_sha256: Digest([6; 32]) }
}

fn archived(file: Option<ArchivedFile>) -> Archived {
    Archived { term: Term(7), base: Offset(100), end: Offset(200), newest_ms: 1_700_000_000_000, file }
}

#[test]
fn the_archives_cursor_is_stored_as_it_was() {
    let state = ArchiveState {
        end: Offset(100),
        newest_ms: 1_700_000_000_000,
        plan: Some(archive_plan()),
        entry_sha256: Some(Digest([6; 32])),
        files: 3,
        bytes: 12_288,
        records: 90,
        skipped: 10,
    };
    let stored = fixtures::check("archive_state", Form::Exact, &state.to_bytes());
    assert_eq!(ArchiveState::from_bytes(stored.clone()), Ok(state));
    fixtures::each_mutation(&stored, |bytes| {
        let _ = ArchiveState::from_bytes(bytes);
    });
}

fn metadata_samples() -> Vec<(&'static str, Command)> {
    let replica = ReplicaId::new(NodeId::new(1).unwrap(), 1).unwrap();
    let assignment = PartitionAssignment { group: 0, replicas: vec![replica] };
    let topic = TopicId::from_random(77);
    let metadata = |command| Command::Metadata(command);
    vec![
        (
            "register_broker",
            metadata(MetadataCommand::RegisterBroker(BrokerRegistration {
                node: 1,
                advertised: vec!["a:9092".into()],
                rack: Some("r1".into()),
                peer: None,
                disk: 0,
                level: 0,
            })),
        ),
        (
            "register_broker_peer",
            metadata(MetadataCommand::RegisterBroker(BrokerRegistration {
                node: 2,
                advertised: vec!["kafka=a:9092".into()],
                rack: None,
                peer: Some("a:9093".into()),
                disk: 0,
                level: 0,
            })),
        ),
        (
            "register_broker_disk",
            metadata(MetadataCommand::RegisterBroker(BrokerRegistration {
                node: 2,
                advertised: Vec::new(),
                rack: None,
                peer: None,
                disk: 0x1234_5678_9abc_def0,
                level: 1,
            })),
        ),
        (
            "create_topic",
            metadata(MetadataCommand::CreateTopic(CreateTopic {
                id: topic,
                name: "orders".into(),
                partitions: vec![assignment.clone()],
                configs: vec![("retention.ms".into(), "1".into())],
            })),
        ),
        (
            "create_partitions",
            metadata(MetadataCommand::CreatePartitions { id: topic, first: 3, partitions: vec![assignment] }),
        ),
        ("delete_topic", metadata(MetadataCommand::DeleteTopic { id: topic })),
        ("topic_reaped", metadata(MetadataCommand::TopicReaped { id: topic })),
        ("allocate_producer_ids", metadata(MetadataCommand::AllocateProducerIds { count: 1_000 })),
        ("allocate_replica_ids", metadata(MetadataCommand::AllocateReplicaIds { node: 1, count: 3 })),
        ("set_feature", metadata(MetadataCommand::SetFeature { name: "tier".into(), level: 2 })),
    ]
}

/// Of configurations, with what they are expected to build on and without.
fn config_samples() -> Vec<(&'static str, Command)> {
    let (topic, metadata) = (TopicId::from_random(77), |command| Command::Metadata(command));
    let changes = || vec![("a".into(), None), ("b".into(), Some("c".into()))];
    let own = [("a".to_owned(), "1".to_owned())].into_iter().collect();
    vec![
        (
            "set_topic_configs",
            metadata(MetadataCommand::SetTopicConfigs { id: topic, configs: changes(), expected: None }),
        ),
        (
            "set_topic_configs_expected",
            metadata(MetadataCommand::SetTopicConfigs {
                id: topic,
                configs: changes(),
                expected: Some(digest_of(&own)),
            }),
        ),
        (
            "set_broker_configs",
            metadata(MetadataCommand::SetBrokerConfigs {
                node: 0,
                configs: changes(),
                expected: digest_of(&own),
            }),
        ),
    ]
}

/// Of who is in which group, and on which node.
fn member_samples() -> Vec<(&'static str, Command)> {
    let replica = ReplicaId::new(NodeId::new(1).unwrap(), 1).unwrap();
    let other = ReplicaId::new(NodeId::new(2).unwrap(), 9).unwrap();
    let metadata = |command| Command::Metadata(command);
    vec![
        ("reassign", metadata(MetadataCommand::Reassign { group: GroupId(3), target: vec![replica, other] })),
        (
            "members_changed",
            metadata(MetadataCommand::MembersChanged {
                group: GroupId(3),
                members: vec![other],
                version: LogIndex(7),
            }),
        ),
        ("replace_replicas", metadata(MetadataCommand::ReplaceReplicas { node: 2, below: 9 })),
        ("host_metadata", metadata(MetadataCommand::HostMetadata { node: 2, disk: 0 })),
        ("host_metadata_disk", metadata(MetadataCommand::HostMetadata { node: 2, disk: 77 })),
        ("remove_broker", metadata(MetadataCommand::RemoveBroker { node: 2 })),
    ]
}

#[test]
fn commands_round_trip_and_match_their_fixtures() {
    let mut kinds = Vec::new();
    for (name, command) in samples() {
        let entry = command.encode(Term(7), 1_700_000_000_123);
        fixtures::check(&format!("command_{name}"), Form::Exact, &entry);
        let (header, decoded) = Command::decode(entry).unwrap();
        assert_eq!(header, Header::new(command.kind(), Term(7), 1_700_000_000_123));
        assert_eq!(decoded, command, "{name}");
        kinds.push(command.kind());
    }
    for kind in Kind::ALL {
        assert!(kinds.contains(kind), "{kind:?} has no fixture");
    }
}

#[test]
fn a_records_payload_is_a_slice_of_the_entry() {
    let entry = encode_records(b"batch", Term(1), 2).freeze();
    let (_, command) = Command::decode(entry.clone()).unwrap();
    let Command::Records(batch) = command else { panic!("records expected") };
    assert_eq!(batch.as_ptr(), entry[HEADER_BYTES..].as_ptr());
}

#[test]
fn unknown_kinds_versions_and_flags_are_refused_never_skipped() {
    let entry = Command::ProducerExpired(ProducerExpired { unused_since_ms: 5 }).encode(Term(1), 2);
    for (position, what) in [
        (0, "unknown kind of command"),
        (1, "unknown version of a command"),
        (2, "unknown flags of a command"),
    ] {
        let mut bytes = entry.to_vec();
        bytes[position] = 0xee;
        assert_eq!(Command::decode(bytes.into()).unwrap_err().what, what);
    }
}

#[test]
fn fields_added_at_a_payloads_end_are_skipped() {
    let entry = Command::ProducerExpired(ProducerExpired { unused_since_ms: 5 }).encode(Term(1), 2);
    let mut bytes = entry.to_vec();
    bytes.extend_from_slice(b"new");
    let length = u32::try_from(bytes.len() - HEADER_BYTES - 4).unwrap();
    bytes[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&length.to_le_bytes());
    let (_, command) = Command::decode(bytes.into()).unwrap();
    assert_eq!(command, Command::ProducerExpired(ProducerExpired { unused_since_ms: 5 }));
}

/// What the place behind its level is reserved for.
#[test]
fn a_broker_that_registers_with_a_role_to_come_is_refused() {
    let with = |role: u8| {
        let broker = BrokerRegistration {
            node: 7,
            advertised: Vec::new(),
            rack: None,
            peer: Some("host:9093".into()),
            disk: 5,
            level: 3,
        };
        let entry = Command::Metadata(MetadataCommand::RegisterBroker(broker.clone())).encode(Term(1), 2);
        let mut bytes = entry.to_vec();
        bytes.push(role);
        // The payload's frame, then the command's kind, then the broker's own.
        for at in [HEADER_BYTES, HEADER_BYTES + 5] {
            let length = u32::try_from(bytes.len() - at - 4).unwrap();
            bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        }
        (Command::decode(bytes.into()), Command::Metadata(MetadataCommand::RegisterBroker(broker)))
    };
    let (voter, broker) = with(0);
    assert_eq!(voter.unwrap().1, broker);
    assert!(with(1).0.unwrap_err().to_string().contains("role"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(kind in any::<u8>(), payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = vec![kind, 1, 0, 0];
        bytes.extend_from_slice(&payload);
        drop(Command::decode(bytes.into()));
    }

    #[test]
    fn what_decodes_encodes_to_the_same_command(sample in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let entry = sample.get(&samples()).1.encode(Term(7), 5);
        let mut bytes = entry.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        if let Ok((header, command)) = Command::decode(bytes.into()) {
            let again = command.encode(header.built_term, header.append_time_ms);
            prop_assert_eq!(Command::decode(again).unwrap(), (header, command));
        }
    }
}
