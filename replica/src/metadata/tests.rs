//! The metadata's answers, and its stored form.

use varve_common::ReplicaId;
use varve_formats::command::PartitionAssignment;

use super::*;

fn state_after(
    commands: Vec<MetadataCommand>,
) -> (MetadataState, Vec<Result<MetadataDone, MetadataRejected>>) {
    let mut state = MetadataState::new(ClusterId::from_random(1), Incarnation(1));
    let mut outcomes = Vec::new();
    for command in commands {
        let data = Command::Metadata(command).encode(Term(1), 5_000);
        let index = state.index.next();
        let entry = LogEntry { index, term: Term(1), kind: 0, offset: varve_common::Offset::ZERO, data };
        if let MetadataApplied::Command(outcome) = state.apply(&entry).unwrap() {
            outcomes.push(outcome);
        }
    }
    (state, outcomes)
}

fn create(id: u128, name: &str, partitions: usize) -> MetadataCommand {
    let replica = ReplicaId::new(NodeId::new(1).unwrap(), 1).unwrap();
    MetadataCommand::CreateTopic(CreateTopic {
        id: TopicId::from_random(id),
        name: name.into(),
        partitions: vec![PartitionAssignment { group: 0, replicas: vec![replica] }; partitions],
        configs: vec![("retention.ms".into(), "1000".into())],
    })
}

#[test]
fn topics_get_groups_in_order_and_names_are_unique() {
    let (state, outcomes) =
        state_after(vec![create(1, "a", 2), create(2, "a", 1), create(1, "b", 1), create(3, "c", 1)]);
    let groups = |name: &str| -> Vec<u64> {
        state
            .image()
            .topic_by_name(name)
            .unwrap()
            .partitions
            .iter()
            .map(|partition| partition.group.0)
            .collect()
    };
    assert_eq!((groups("a"), groups("c")), (vec![1, 2], vec![3]));
    assert_eq!(outcomes[1], Err(MetadataRejected::TopicExists { id: TopicId::from_random(1) }));
    assert_eq!(outcomes[2], Err(MetadataRejected::TopicIdTaken));
    assert_eq!(state.image().partition_of(GroupId(2)).unwrap().1, PartitionIndex(1));
}

#[test]
fn a_deleted_topic_stays_in_the_journal_until_it_is_reaped() {
    let id = TopicId::from_random(1);
    let (state, _) = state_after(vec![create(1, "a", 1), MetadataCommand::DeleteTopic { id }]);
    assert!(state.image().topic_by_name("a").is_none() && state.image().deletions.contains_key(&id));
    let reaped = vec![
        create(1, "a", 1),
        MetadataCommand::DeleteTopic { id },
        MetadataCommand::TopicReaped { id },
        create(2, "a", 1),
    ];
    let (state, outcomes) = state_after(reaped);
    assert!(outcomes.iter().all(Result::is_ok) && state.image().deletions.is_empty());
}

#[test]
fn r9_the_stored_form_round_trips_to_the_same_hash() {
    let registration =
        BrokerRegistration { node: 1, advertised: vec!["h:9092".into()], rack: Some("r".into()) };
    let (state, _) = state_after(vec![
        MetadataCommand::RegisterBroker(registration),
        create(1, "a", 2),
        create(2, "b", 1),
        MetadataCommand::DeleteTopic { id: TopicId::from_random(1) },
        MetadataCommand::AllocateReplicaIds { node: 1, count: 3 },
        MetadataCommand::SetFeature { name: "f".into(), level: 2 },
    ]);
    let decoded = MetadataState::decode(state.encode()).unwrap();
    assert_eq!((decoded.hash(), &decoded), (state.hash(), &state));
}
