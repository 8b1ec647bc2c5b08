//! The metadata's answers, and its stored form.

use varve_common::ReplicaId;

use super::*;
use varve_formats::command::digest_of;

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
fn partitions_are_added_behind_those_that_are_there_and_only_where_the_number_is_as_believed() {
    let id = TopicId::from_random(1);
    let more = |first: u32, count: usize| {
        let replica = ReplicaId::new(NodeId::new(1).unwrap(), 1).unwrap();
        let partitions = vec![PartitionAssignment { group: 0, replicas: vec![replica] }; count];
        MetadataCommand::CreatePartitions { id, first, partitions }
    };
    let commands = vec![create(1, "a", 2), create(2, "b", 1), more(2, 2), more(2, 2), more(4, 0)];
    let (state, outcomes) = state_after(commands);
    let topic = state.image().topic_by_name("a").unwrap();
    let groups: Vec<u64> = topic.partitions.iter().map(|partition| partition.group.0).collect();
    assert_eq!(groups, [1, 2, 4, 5]);
    assert_eq!(state.image().partition_of(GroupId(5)).unwrap().1, PartitionIndex(3));
    assert_eq!(outcomes[2], Ok(MetadataDone::PartitionsCreated(Arc::clone(topic))));
    assert_eq!(outcomes[3], Err(MetadataRejected::PartitionsChanged { count: 4 }));
    assert_eq!(outcomes[4], Err(MetadataRejected::InvalidPartitions));
    let (_, outcomes) = state_after(vec![more(0, 1)]);
    assert_eq!(outcomes, [Err(MetadataRejected::UnknownTopic)]);
    assert_eq!(MetadataState::decode(state.encode()).unwrap(), state);
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

fn registration(node: u32) -> BrokerRegistration {
    BrokerRegistration { node, advertised: Vec::new(), rack: None, peer: None, disk: 0, level: 0 }
}

fn with_one_of_each() -> MetadataState {
    let registration =
        BrokerRegistration { advertised: vec!["h:9092".into()], rack: Some("r".into()), ..registration(1) };
    let (state, _) = state_after(vec![
        MetadataCommand::RegisterBroker(registration),
        create(1, "a", 2),
        create(2, "b", 1),
        MetadataCommand::DeleteTopic { id: TopicId::from_random(1) },
        MetadataCommand::AllocateReplicaIds { node: 1, count: 3 },
        MetadataCommand::SetFeature { name: "f".into(), level: 2 },
    ]);
    state
}

#[test]
fn r9_the_stored_form_round_trips_to_the_same_hash() {
    let state = with_one_of_each();
    let decoded = MetadataState::decode(state.encode()).unwrap();
    assert_eq!((decoded.hash(), &decoded), (state.hash(), &state));
}

#[test]
fn a_brokers_address_for_peers_is_kept_and_its_absence_too() {
    let of = |node, peer: Option<&str>| {
        let peer = peer.map(str::to_owned);
        MetadataCommand::RegisterBroker(BrokerRegistration { peer, ..registration(node) })
    };
    let (state, _) = state_after(vec![of(1, None), of(2, Some("b:9093"))]);
    let decoded = MetadataState::decode(state.encode()).unwrap();
    assert_eq!(decoded, state);
    let peer = |node| decoded.image().brokers[&NodeId::new(node).unwrap()].peer.as_deref();
    assert_eq!((peer(1), peer(2)), (None, Some("b:9093")));
}

/// [`with_one_of_each`], as it was written before a deletion said which entry it was.
const BEFORE_DELETIONS_HAD_INDEXES: &str = "\
    69010000060000000000000001000000000000008813000000000000000000000000000000004000800000000000000101000000\
    060000000000000001000000200000000100000001000000000000000100000006000000683a3930393201010000007201000000\
    55000000000000000000400080000000000000020100000062881300000000000001000000140000000300000000000000010000\
    000100000000010000010000000c000000726574656e74696f6e2e6d73040000003130303001000000790000006d000000000000\
    00000040008000000000000001010000006188130000000000000200000014000000010000000000000001000000010000000001\
    0000140000000200000000000000010000000100000000010000010000000c000000726574656e74696f6e2e6d73040000003130\
    30308813000000000000010000000100000066020001000000010000000400000000000000010000000000000004000000000000\
    00\
";

#[test]
fn a_deletion_of_an_earlier_release_waits_for_checkpoints_behind_all_that_was_known() {
    let hex = BEFORE_DELETIONS_HAD_INDEXES.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let decoded = MetadataState::decode(hex.chunks(2).map(byte).collect::<Vec<_>>().into()).unwrap();
    let mut expected = with_one_of_each();
    let newest = expected.image.index;
    let deletion = Arc::make_mut(&mut expected.image.deletions).values_mut().next().unwrap();
    assert!(deletion.index < newest);
    deletion.index = newest;
    assert_eq!(decoded, expected);
}

fn id(node: u32, counter: u64) -> ReplicaId {
    ReplicaId::new(NodeId::new(node).unwrap(), counter).unwrap()
}

/// A topic of one partition on nodes 1, 2 and 3, and a few counters of four nodes.
fn spread() -> Vec<MetadataCommand> {
    let allocate = |node| MetadataCommand::AllocateReplicaIds { node, count: 3 };
    let partitions = vec![PartitionAssignment { group: 0, replicas: vec![id(1, 2), id(2, 2), id(3, 2)] }];
    let topic =
        CreateTopic { id: TopicId::from_random(1), name: "a".into(), partitions, configs: Vec::new() };
    (1..=4).map(allocate).chain([MetadataCommand::CreateTopic(topic)]).collect()
}

fn reassign(target: Vec<ReplicaId>) -> MetadataCommand {
    MetadataCommand::Reassign { group: GroupId(1), target }
}

fn partition(state: &MetadataState) -> Partition {
    state.image().partition_of(GroupId(1)).unwrap().2.clone()
}

#[test]
fn a_reassignment_is_journaled_until_the_group_has_come_to_it() {
    let (before, target) = (vec![id(1, 2), id(2, 2), id(3, 2)], vec![id(1, 2), id(2, 2), id(4, 1)]);
    let commands: Vec<_> = spread().into_iter().chain([reassign(target.clone())]).collect();
    let (state, _) = state_after(commands.clone());
    let journaled = partition(&state);
    assert_eq!((&journaled.replicas, &journaled.target), (&before, &target));
    assert_eq!(MetadataState::decode(state.encode()).unwrap(), state);
    let version = journaled.version;
    let done = |members| MetadataCommand::MembersChanged { group: GroupId(1), members, version };
    let (state, outcomes) =
        state_after(commands.into_iter().chain([done(before.clone()), done(target.clone())]).collect());
    assert_eq!(outcomes[6], Err(MetadataRejected::OtherTarget));
    let ended = partition(&state);
    assert_eq!((&ended.replicas, ended.target.len()), (&target, 0));
    assert_eq!(ended.founders(), before, "a log from its beginning knows who founded it");
    assert_eq!(MetadataState::decode(state.encode()).unwrap(), state);
}

#[test]
fn a_reassignment_is_given_up_by_asking_for_what_was_before() {
    let before = vec![id(1, 2), id(2, 2), id(3, 2)];
    let back = [reassign(vec![id(1, 2), id(2, 2), id(4, 1)]), reassign(before.clone())];
    let (state, outcomes) = state_after(spread().into_iter().chain(back).collect());
    assert!(outcomes.iter().all(Result::is_ok));
    let back = partition(&state);
    assert_eq!(back.target, before, "the leader takes back what it began");
    assert_eq!(
        back.leaving,
        [id(4, 1)],
        "which may be a voter already: it stays until the group has come back"
    );
    assert_eq!(back.on(NodeId::new(4).unwrap()), Some(id(4, 1)));
    let (state, _) = state_after(spread().into_iter().chain([reassign(before)]).collect());
    assert!(partition(&state).target.is_empty(), "and begins nothing where nothing is asked for");
}

#[test]
fn no_replica_is_taken_twice_or_comes_back() {
    let wrong = [
        vec![],
        vec![id(1, 2), id(1, 3)],
        vec![id(1, 2), id(4, 4)],
        vec![id(1, 1), id(2, 2)],
        vec![id(5, 1)],
    ];
    let (_, outcomes) = state_after(spread().into_iter().chain(wrong.map(reassign)).collect());
    assert!(outcomes[5..].iter().all(|outcome| *outcome == Err(MetadataRejected::InvalidReplicas)));
    let (left, present) = (vec![id(1, 2), id(2, 2)], vec![id(1, 2), id(2, 2), id(3, 2)]);
    let gone = [
        reassign(left.clone()),
        MetadataCommand::MembersChanged { group: GroupId(1), members: left, version: LogIndex(6) },
        reassign(present),
    ];
    let (_, outcomes) = state_after(spread().into_iter().chain(gone).collect());
    assert_eq!(outcomes[7], Err(MetadataRejected::InvalidReplicas));
    // Nor one that never got its place: its node has forgotten it.
    let (other, before) = (vec![id(1, 2), id(2, 2), id(4, 1)], vec![id(1, 2), id(2, 2), id(3, 2)]);
    let given_up = [
        reassign(other.clone()),
        reassign(before.clone()),
        MetadataCommand::MembersChanged { group: GroupId(1), members: before, version: LogIndex(7) },
        reassign(other),
    ];
    let (_, outcomes) = state_after(spread().into_iter().chain(given_up).collect());
    assert_eq!(outcomes[8], Err(MetadataRejected::InvalidReplicas));
}

#[test]
fn the_replicas_of_a_lost_disk_are_replaced_on_the_same_node_once() {
    let host = MetadataCommand::HostMetadata { node: 2, disk: 0 };
    let replace = MetadataCommand::ReplaceReplicas { node: 2, below: 4 };
    let (state, outcomes) =
        state_after(spread().into_iter().chain([host, replace.clone(), replace]).collect());
    let given = MetadataDone::ReplicaIds { node: NodeId::new(2).unwrap(), first: 4, count: 1 };
    assert_eq!(outcomes[5], Ok(given));
    assert_eq!(outcomes[6], Ok(MetadataDone::ReplicasReplaced { count: 1 }));
    assert_eq!(outcomes[7], Ok(MetadataDone::ReplicasReplaced { count: 0 }));
    assert_eq!(partition(&state).target, [id(1, 2), id(2, 5), id(3, 2)]);
    assert_eq!(state.image().metadata_replicas[&NodeId::new(2).unwrap()], Some(id(2, 4)));
    let founder = state_after(vec![MetadataCommand::HostMetadata { node: 7, disk: 0 }]).1;
    assert!(matches!(founder[0], Ok(MetadataDone::ReplicaIds { first: 2, .. })), "1 is the founder's");
}

#[test]
fn a_node_leaves_when_nothing_is_on_it() {
    let remove = |node| MetadataCommand::RemoveBroker { node };
    let (state, outcomes) = state_after(spread().into_iter().chain([remove(3), remove(4)]).collect());
    assert_eq!(outcomes[5], Err(MetadataRejected::BrokerInUse));
    assert_eq!(outcomes[6], Ok(MetadataDone::BrokerRemoved));
    assert_eq!(state.image().metadata_replicas[&NodeId::new(4).unwrap()], None);
    assert_eq!(MetadataState::decode(state.encode()).unwrap(), state);
    // Placed before it left, and applied after.
    let partitions = vec![PartitionAssignment { group: 0, replicas: vec![id(4, 2)] }];
    let topic = state.image().topics.keys().next().copied().unwrap();
    let late = MetadataCommand::CreatePartitions { id: topic, first: 1, partitions };
    let (_, outcomes) = state_after(spread().into_iter().chain([remove(4), late]).collect());
    assert_eq!(outcomes[6], Err(MetadataRejected::InvalidReplicas));
}

#[test]
fn a_second_reassignment_does_not_hide_a_living_replica_behind_a_newer_one_on_its_node() {
    let first = vec![id(1, 2), id(2, 2), id(4, 1)];
    let second = vec![id(1, 2), id(2, 2), id(4, 2)];
    let (state, outcomes) =
        state_after(spread().into_iter().chain([reassign(first), reassign(second)]).collect());
    assert_eq!(outcomes[6], Err(MetadataRejected::InvalidReplicas));
    assert_eq!(partition(&state).on(NodeId::new(4).unwrap()), Some(id(4, 1)), "it may vote already");
}

#[test]
fn the_end_of_an_earlier_reassignment_does_not_end_a_later_one() {
    let (before, target) = (vec![id(1, 2), id(2, 2), id(3, 2)], vec![id(1, 2), id(2, 2), id(4, 1)]);
    // Said of the first, on its way as long as it takes to change one's mind twice.
    let (group, members) = (GroupId(1), target.clone());
    let late = MetadataCommand::MembersChanged { group, members, version: LogIndex(6) };
    let commands = [reassign(target.clone()), reassign(before), reassign(target), late];
    let (state, outcomes) = state_after(spread().into_iter().chain(commands).collect());
    assert_eq!(outcomes[8], Err(MetadataRejected::OtherTarget));
    assert!(!partition(&state).target.is_empty());
    assert_eq!(partition(&state).on(NodeId::new(3).unwrap()), Some(id(3, 2)), "it may vote still");
}

#[test]
fn who_asks_again_for_its_place_is_told_the_same_and_another_disk_takes_it() {
    let host = |disk| MetadataCommand::HostMetadata { node: 4, disk };
    let register = |disk| MetadataCommand::RegisterBroker(BrokerRegistration { disk, ..registration(4) });
    let commands =
        vec![host(7), host(7), register(7), host(9), register(7), register(9), register(0), host(7)];
    let (state, outcomes) = state_after(commands);
    let firsts: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Ok(MetadataDone::ReplicaIds { first, .. }) => Some(*first),
            _ => None,
        })
        .collect();
    // The last is a request of a disk that was given up: it was wiped in the meantime, or two machines have that number.
    assert_eq!(firsts, [2, 2, 3, 4]);
    assert_eq!(outcomes[4], Err(MetadataRejected::OtherDisk { node: NodeId::new(4).unwrap() }));
    assert!([2, 5, 6].iter().all(|at| outcomes[*at].is_ok()), "{outcomes:?}");
    assert_eq!(MetadataState::decode(state.encode()).unwrap(), state);
}

#[test]
fn no_broker_comes_that_does_not_know_what_is_written() {
    let register =
        |node, level| MetadataCommand::RegisterBroker(BrokerRegistration { level, ..registration(node) });
    let raise = MetadataCommand::SetFeature { name: METADATA_FEATURE.into(), level: 1 };
    let (state, outcomes) =
        state_after(vec![register(1, 1), register(2, 0), raise, register(2, 0), register(2, 3)]);
    let node = NodeId::new(2).unwrap();
    assert_eq!(outcomes[3], Err(MetadataRejected::TooOld { node, level: 1 }));
    assert_eq!((outcomes[1].is_ok(), outcomes[4].is_ok()), (true, true));
    assert_eq!(MetadataState::decode(state.encode()).unwrap(), state);
    assert_eq!(state.image().brokers[&node].level, 3);
}

#[test]
fn a_change_of_configurations_is_made_only_where_they_are_as_believed() {
    let id = TopicId::from_random(1);
    let own = |values: &[(&str, &str)]| {
        values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let set = |value: &str| vec![("flush.ms".to_owned(), Some(value.to_owned()))];
    let topic = |value: &str, expected| {
        let configs = set(value);
        MetadataCommand::SetTopicConfigs { id, configs, expected }
    };
    let before = Some(digest_of(&own(&[("retention.ms", "1000")])));
    let commands = vec![create(1, "a", 1), topic("1", before), topic("2", before), topic("3", None)];
    let (state, outcomes) = state_after(commands);
    assert!(outcomes[1].is_ok() && outcomes[3].is_ok(), "{outcomes:?}");
    assert_eq!(outcomes[2], Err(MetadataRejected::ConfigsChanged));
    assert_eq!(state.image().topics[&id].configs["flush.ms"], "3");

    let broker = |node, configs, expected: &[(&str, &str)]| {
        let expected = digest_of(&own(expected));
        MetadataCommand::SetBrokerConfigs { node, configs, expected }
    };
    let commands = vec![
        broker(0, set("1"), &[]),
        broker(2, set("2"), &[]),
        broker(2, set("3"), &[]),
        broker(2, set("4"), &[("flush.ms", "2")]),
    ];
    let (state, outcomes) = state_after(commands);
    assert_eq!(outcomes[2], Err(MetadataRejected::ConfigsChanged));
    let node = NodeId::new(2);
    let of = |whose| state.image().configs_of_broker(whose).get("flush.ms").map(String::as_str);
    assert_eq!((of(None), of(node), of(NodeId::new(3))), (Some("1"), Some("4"), None));
    assert_eq!(MetadataState::decode(state.encode()).unwrap(), state);
    let gone = broker(0, vec![("flush.ms".to_owned(), None)], &[("flush.ms", "1")]);
    let (state, _) = state_after(vec![broker(0, set("1"), &[]), gone]);
    assert!(state.image().broker_configs.is_empty());
}
