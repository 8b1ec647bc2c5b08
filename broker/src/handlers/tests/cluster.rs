//! A node among others: brokers 2 and 3 are registered, and lead or follow as they are said to.

use varve_common::{GroupId, NodeId};

use super::{alter::SET, *};

const ALL_IN_SYNC: &[u32] = &[1, 2, 3];

fn node_id(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

fn code(code: ErrorCode) -> i16 {
    code.number()
}

/// Three brokers, and the topic `t` with a replica on each.
async fn three() -> Fixture {
    let fixture = fixture();
    fixture.fake.register(node_id(2), "kafka=b:9092");
    fixture.fake.register(node_id(3), "kafka=c:9092");
    fixture.metadata(12, "t").await;
    fixture
}

async fn create_topic(
    fixture: &Fixture,
    name: &str,
    shape: (i32, i16),
    assignments: &[&[i32]],
) -> create_topics_response::CreatableTopicResult {
    let mut topic = create_topics_request::CreatableTopic::default();
    (topic.name, topic.num_partitions, topic.replication_factor) = (name.into(), shape.0, shape.1);
    topic.assignments = (0..)
        .zip(assignments)
        .map(|(index, brokers)| {
            let mut assignment = create_topics_request::CreatableReplicaAssignment::default();
            (assignment.partition_index, assignment.broker_ids) = (index, brokers.to_vec());
            assignment
        })
        .collect();
    let mut request = CreateTopicsRequest::default();
    request.topics = vec![topic];
    let Response::CreateTopics(response) = fixture.ask(7, Request::CreateTopics(request)).await else {
        panic!()
    };
    response.topics[0].clone()
}

async fn replicas(fixture: &Fixture, name: &str) -> Vec<Vec<i32>> {
    let topic = fixture.metadata(12, name).await.topics[0].clone();
    topic.partitions.into_iter().map(|partition| partition.replica_nodes).collect()
}

#[tokio::test]
async fn a_topic_gets_three_replicas_and_its_leaders_are_spread() {
    let fixture = three().await;
    let made = create_topic(&fixture, "spread", (5, -1), &[]).await;
    assert_eq!((made.error_code, made.num_partitions, made.replication_factor), (0, 5, 3));
    let placed = [replicas(&fixture, "t").await, replicas(&fixture, "spread").await].concat();
    for node in 1..=3 {
        assert_eq!(placed.iter().filter(|nodes| nodes[0] == node).count(), 2, "{placed:?}");
        assert!(placed.iter().all(|nodes| nodes.contains(&node)), "{placed:?}");
    }
    // One that is away for a moment gets its replica all the same; it leads none.
    fixture.fake.kill(node_id(3));
    assert_eq!(create_topic(&fixture, "away", (2, -1), &[]).await.replication_factor, 3);
    assert!(replicas(&fixture, "away").await.iter().all(|nodes| nodes[2] == 3));
    assert_eq!(create_topic(&fixture, "two", (2, 2), &[]).await.error_code, 0);
    assert!(replicas(&fixture, "two").await.iter().all(|nodes| !nodes.contains(&3)));
    // A majority of three is not there: as many as there are.
    fixture.fake.kill(node_id(2));
    assert_eq!(create_topic(&fixture, "alone", (1, -1), &[]).await.replication_factor, 1);
    assert_eq!(replicas(&fixture, "alone").await, [[1]]);
}

#[tokio::test]
async fn more_replicas_than_brokers_are_refused_as_kafka_refuses_them() {
    let fixture = three().await;
    for (factor, message) in [
        (
            4,
            "Unable to replicate the partition 4 time(s): The target replication factor of 4 cannot be reached because only 3 broker(s) are registered.",
        ),
        (0, "Replication factor must be larger than 0, or -1 to use the default value."),
    ] {
        let refused = create_topic(&fixture, "x", (1, factor), &[]).await;
        assert_eq!(refused.error_code, code(ErrorCode::InvalidReplicationFactor));
        assert_eq!(refused.error_message.unwrap().as_str(), message);
    }
}

#[tokio::test]
async fn an_assignment_by_hand_is_taken_as_it_is_or_refused() {
    let fixture = three().await;
    let made = create_topic(&fixture, "hand", (-1, -1), &[&[3, 1], &[2, 3]]).await;
    assert_eq!((made.error_code, made.num_partitions, made.replication_factor), (0, 2, 2));
    assert_eq!(replicas(&fixture, "hand").await, [[3, 1], [2, 3]]);
    let bad: [&[&[i32]]; 6] = [&[&[]], &[&[1, 1]], &[&[1, 9]], &[&[-1]], &[&[1, 2], &[3]], &[&[1], &[]]];
    for assignment in bad {
        let refused = create_topic(&fixture, "bad", (-1, -1), assignment).await;
        assert_eq!(refused.error_code, code(ErrorCode::InvalidReplicaAssignment), "{assignment:?}");
    }
    fixture.fake.kill(node_id(2));
    let away = create_topic(&fixture, "bad", (-1, -1), &[&[2]]).await;
    assert_eq!(away.error_code, code(ErrorCode::InvalidReplicaAssignment));
    assert_eq!(create_topic(&fixture, "good", (-1, -1), &[&[2, 1]]).await.error_code, 0);
}

#[tokio::test]
async fn metadata_tells_leader_in_sync_and_offline_replicas_as_they_are_reported() {
    let fixture = three().await;
    let group = GroupId(1);
    fixture.fake.leads(group, 2, &[1, 2]);
    fixture.fake.leads(GroupId::METADATA, 3, ALL_IN_SYNC);
    fixture.fake.kill(node_id(3));
    let response = fixture.metadata(12, "t").await;
    let brokers: Vec<_> = response.brokers.iter().map(|at| (at.node_id, at.host.as_str())).collect();
    assert_eq!(brokers, [(1, "127.0.0.1"), (2, "b")]);
    assert_eq!(
        response.controller_id, 1,
        "who leads is not heard of: the one that was asked carries changes there"
    );
    let partition = response.topics[0].partitions[0].clone();
    assert_eq!((partition.error_code, partition.leader_id, partition.leader_epoch), (0, 2, 3));
    assert_eq!((partition.isr_nodes, partition.offline_replicas), (vec![1, 2], vec![3]));
    assert_eq!(partition.replica_nodes.len(), 3);

    fixture.fake.leads(GroupId::METADATA, 2, ALL_IN_SYNC);
    assert_eq!(fixture.metadata(12, "t").await.controller_id, 2);
    fixture.fake.leads(group, 3, &[3]);
    let partition = fixture.metadata(12, "t").await.topics[0].partitions[0].clone();
    assert_eq!((partition.error_code, partition.leader_id), (code(ErrorCode::LeaderNotAvailable), -1));

    // It lives, and clients of this listener do not know where.
    fixture.fake.register(node_id(4), "other=d:9092");
    fixture.fake.leads(group, 4, &[4]);
    for (version, expected) in [(5, ErrorCode::LeaderNotAvailable), (6, ErrorCode::ListenerNotFound)] {
        let partition = fixture.metadata(version, "t").await.topics[0].partitions[0].clone();
        assert_eq!((partition.error_code, partition.leader_id), (code(expected), -1));
    }
}

#[tokio::test]
async fn describe_cluster_names_the_controller_and_who_is_fenced() {
    let fixture = three().await;
    fixture.fake.leads(GroupId::METADATA, 2, ALL_IN_SYNC);
    fixture.fake.kill(node_id(3));
    let ask = async |fenced| {
        let mut request = DescribeClusterRequest::default();
        request.include_fenced_brokers = fenced;
        let Response::DescribeCluster(response) = fixture.ask(2, Request::DescribeCluster(request)).await
        else {
            panic!()
        };
        assert_eq!(response.controller_id, 2);
        response.brokers.iter().map(|broker| (broker.broker_id, broker.is_fenced)).collect::<Vec<_>>()
    };
    assert_eq!(ask(false).await, [(1, false), (2, false)]);
    assert_eq!(ask(true).await, [(1, false), (2, false), (3, true)]);
}

/// What every API that needs the leader says of partition 0 of a topic.
async fn refusals(fixture: &Fixture, name: &str) -> Vec<i16> {
    let mut codes = Vec::new();
    let Request::Produce(mut request) = produce(-1, batch(&["a"])) else { unreachable!() };
    request.topic_data[0].name = name.into();
    let Response::Produce(response) = fixture.ask(9, Request::Produce(request)).await else { panic!() };
    codes.push(response.responses[0].partition_responses[0].error_code);

    let mut topic = fetch_request::FetchTopic::default();
    (topic.topic, topic.partitions) = (name.into(), vec![fetch_request::FetchPartition::default()]);
    let mut request = FetchRequest::default();
    (request.session_epoch, request.topics) = (-1, vec![topic]);
    let Response::Fetch(response) = fixture.ask(12, Request::Fetch(request)).await else { panic!() };
    codes.push(response.responses[0].partitions[0].error_code);

    let mut topic = list_offsets_request::ListOffsetsTopic::default();
    let mut partition = list_offsets_request::ListOffsetsPartition::default();
    partition.timestamp = -1;
    (topic.name, topic.partitions) = (name.into(), vec![partition]);
    let mut request = ListOffsetsRequest::default();
    request.topics = vec![topic];
    let Response::ListOffsets(response) = fixture.ask(7, Request::ListOffsets(request)).await else {
        panic!()
    };
    codes.push(response.topics[0].partitions[0].error_code);

    let mut topic = offset_for_leader_epoch_request::OffsetForLeaderTopic::default();
    let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
    (topic.topic, topic.partitions) = (name.into(), vec![partition]);
    let mut request = OffsetForLeaderEpochRequest::default();
    request.topics = vec![topic];
    let Response::OffsetForLeaderEpoch(response) =
        fixture.ask(4, Request::OffsetForLeaderEpoch(request)).await
    else {
        panic!()
    };
    codes.push(response.topics[0].partitions[0].error_code);

    let mut topic = delete_records_request::DeleteRecordsTopic::default();
    let partition = delete_records_request::DeleteRecordsPartition::default();
    (topic.name, topic.partitions) = (name.into(), vec![partition]);
    let mut request = DeleteRecordsRequest::default();
    request.topics = vec![topic];
    let Response::DeleteRecords(response) = fixture.ask(2, Request::DeleteRecords(request)).await else {
        panic!()
    };
    codes.push(response.topics[0].partitions[0].error_code);
    codes
}

#[tokio::test]
async fn a_partition_that_is_led_elsewhere_or_not_here_at_all_sends_clients_to_its_leader() {
    let fixture = three().await;
    create_topic(&fixture, "elsewhere", (-1, -1), &[&[2, 3]]).await;
    let expected = [code(ErrorCode::NotLeaderOrFollower); 5];
    assert_eq!(refusals(&fixture, "elsewhere").await, expected);
    fixture.fake.leads(GroupId(1), 2, ALL_IN_SYNC);
    fixture.fake.publish(GroupId(1), |view| view.ready = false);
    assert_eq!(refusals(&fixture, "t").await, expected);

    fixture.fake.leads(GroupId(2), 3, &[2, 3]);
    let Request::Produce(mut request) = produce(-1, batch(&["a"])) else { unreachable!() };
    request.topic_data[0].name = "elsewhere".into();
    let Response::Produce(response) = fixture.ask(10, Request::Produce(request)).await else { panic!() };
    let partition = &response.responses[0].partition_responses[0];
    assert_eq!((partition.current_leader.leader_id, partition.current_leader.leader_epoch), (3, 3));
    let endpoints: Vec<_> = response.node_endpoints.iter().map(|at| (at.node_id, at.host.as_str())).collect();
    assert_eq!(endpoints, [(3, "c")]);
}

#[tokio::test]
async fn acks_all_needs_the_majority_in_sync_or_what_the_topic_asks_for() {
    let fixture = three().await;
    let group = GroupId(1);
    let not_enough = code(ErrorCode::NotEnoughReplicas);
    fixture.fake.leads(group, 1, &[1]);
    let refused = fixture.produce(-1, batch(&["a"])).await;
    assert_eq!((refused.error_code, refused.base_offset), (not_enough, -1));
    assert_eq!(
        refused.error_message.unwrap().as_str(),
        "The size of the current ISR : Set(1) is insufficient to satisfy the min.isr requirement of 2 for partition t-0"
    );
    // Nothing was appended; acks=1 does not ask.
    assert_eq!(fixture.produce(1, batch(&["a"])).await.base_offset, 0);
    fixture.fake.leads(group, 1, &[1, 3]);
    assert_eq!(fixture.produce(-1, batch(&["a"])).await.base_offset, 1);
    assert_eq!(fixture.alter("min.insync.replicas", SET, "3").await, 0);
    assert_eq!(fixture.produce(-1, batch(&["a"])).await.error_code, not_enough);
    fixture.fake.leads(group, 1, ALL_IN_SYNC);
    assert_eq!(fixture.produce(-1, batch(&["a"])).await.base_offset, 2);
    assert_eq!(fixture.alter("min.insync.replicas", SET, "1").await, 0);
    fixture.fake.leads(group, 1, &[1]);
    assert_eq!(fixture.produce(-1, batch(&["a"])).await.base_offset, 3);
}

#[tokio::test]
async fn what_depends_on_the_brokers_is_described_as_it_is() {
    let fixture = three().await;
    create_topic(&fixture, "one", (1, 1), &[]).await;
    let value = async |kind: i8, name: &str, key: &str| {
        let mut resource = describe_configs_request::DescribeConfigsResource::default();
        (resource.resource_type, resource.resource_name) = (kind, name.into());
        resource.configuration_keys = Some(vec![key.into()]);
        let mut request = DescribeConfigsRequest::default();
        request.resources = vec![resource];
        let Response::DescribeConfigs(response) = fixture.ask(4, Request::DescribeConfigs(request)).await
        else {
            panic!()
        };
        response.results[0].configs[0].value.as_ref().unwrap().as_str().to_owned()
    };
    let min_in_sync = "min.insync.replicas";
    assert_eq!(value(2, "t", min_in_sync).await, "2");
    assert_eq!(value(2, "one", min_in_sync).await, "1");
    assert_eq!(value(4, "1", min_in_sync).await, "2");
    assert_eq!(value(4, "1", "default.replication.factor").await, "3");
}

#[tokio::test]
async fn the_preferred_replica_leads_again_where_it_is_in_sync() {
    let fixture = three().await;
    create_topic(&fixture, "back", (-1, -1), &[&[2, 1], &[3, 1], &[1, 2], &[2, 3]]).await;
    let group = |index: u64| GroupId(2 + index);
    fixture.fake.leads(group(0), 1, &[1, 2]);
    fixture.fake.leads(group(1), 1, &[1]);
    fixture.fake.leads(group(2), 1, &[1, 2]);
    let mut topic = elect_leaders_request::TopicPartitions::default();
    (topic.topic, topic.partitions) = ("back".into(), vec![0, 1, 2, 3]);
    let mut request = ElectLeadersRequest::default();
    (request.topic_partitions, request.timeout_ms) = (Some(vec![topic]), 1_000);
    let Response::ElectLeaders(response) = fixture.ask(2, Request::ElectLeaders(request)).await else {
        panic!()
    };
    let results = &response.replica_election_results[0].partition_result;
    let codes: Vec<i16> = results.iter().map(|result| result.error_code).collect();
    let away = code(ErrorCode::PreferredLeaderNotAvailable);
    assert_eq!(codes, [0, away, code(ErrorCode::ElectionNotNeeded), away]);
    let partitions = fixture.metadata(12, "back").await.topics[0].partitions.clone();
    assert_eq!((partitions[0].leader_id, partitions[1].leader_id), (2, 1));
}

#[tokio::test]
async fn a_named_replica_leads_where_it_is_in_sync() {
    let fixture = three().await;
    create_topic(&fixture, "named", (-1, -1), &[&[1, 2, 3], &[1, 2, 3], &[1, 2, 3]]).await;
    let group = |index: u64| GroupId(2 + index);
    fixture.fake.leads(group(0), 1, &[1, 2, 3]);
    fixture.fake.leads(group(1), 1, &[1, 2]);
    fixture.fake.leads(group(2), 3, &[1, 2, 3]);
    let mut topic = elect_leaders_request::TopicPartitions::default();
    (topic.topic, topic.partitions) = ("named".into(), vec![0, 1, 2, 3]);
    let mut request = ElectLeadersRequest::default();
    (request.topic_partitions, request.timeout_ms) = (Some(vec![topic]), 1_000);
    varve_protocol::election::name(&mut request, 3);
    let ask = |request| async { fixture.ask(2, Request::ElectLeaders(request)).await };
    let Response::ElectLeaders(response) = ask(request.clone()).await else { panic!() };
    let results = &response.replica_election_results[0].partition_result;
    let codes: Vec<i16> = results.iter().map(|result| result.error_code).collect();
    let refused = [
        ErrorCode::None,
        ErrorCode::EligibleLeadersNotAvailable,
        ErrorCode::ElectionNotNeeded,
        ErrorCode::UnknownTopicOrPartition,
    ];
    assert_eq!(codes, refused.map(code));
    assert_eq!(fixture.metadata(12, "named").await.topics[0].partitions[0].leader_id, 3);
    // All partitions at once are never meant.
    request.topic_partitions = None;
    let Response::ElectLeaders(response) = ask(request).await else { panic!() };
    assert_eq!(response.error_code, code(ErrorCode::InvalidRequest));
}

#[tokio::test]
async fn what_is_reassigned_is_told_until_it_is_done_and_can_be_given_up() {
    let fixture = three().await;
    create_topic(&fixture, "moves", (-1, -1), &[&[1, 2], &[2, 3]]).await;
    let reassign = |index: i32, replicas: Option<Vec<i32>>, version: i16| {
        let mut partition = alter_partition_reassignments_request::ReassignablePartition::default();
        (partition.partition_index, partition.replicas) = (index, replicas);
        let mut topic = alter_partition_reassignments_request::ReassignableTopic::default();
        (topic.name, topic.partitions) = ("moves".into(), vec![partition]);
        let mut request = AlterPartitionReassignmentsRequest::default();
        (request.topics, request.allow_replication_factor_change) = (vec![topic], version == 0);
        let fixture = &fixture;
        async move {
            let request = Request::AlterPartitionReassignments(request);
            let Response::AlterPartitionReassignments(told) = fixture.ask(version, request).await else {
                panic!()
            };
            told.responses[0].partitions[0].error_code
        }
    };
    let list = || async {
        let request = Request::ListPartitionReassignments(ListPartitionReassignmentsRequest::default());
        let Response::ListPartitionReassignments(told) = fixture.ask(0, request).await else { panic!() };
        told.topics
    };
    assert_eq!(reassign(0, Some(vec![3, 2]), 1).await, 0);
    let topics = list().await;
    let moving = &topics[0].partitions[0];
    assert_eq!((topics.len(), topics[0].partitions.len(), moving.partition_index), (1, 1, 0));
    assert_eq!(moving.replicas, [3, 2, 1]);
    assert_eq!(
        (moving.adding_replicas.as_slice(), moving.removing_replicas.as_slice()),
        (&[3][..], &[1][..])
    );
    assert_eq!(reassign(0, None, 1).await, 0);
    assert_eq!(list().await, []);
    assert_eq!(reassign(0, None, 1).await, code(ErrorCode::NoReassignmentInProgress));
    assert_eq!(reassign(0, Some(vec![1, 2, 3]), 1).await, code(ErrorCode::InvalidReplicationFactor));
    assert_eq!(reassign(0, Some(vec![1, 2, 3]), 0).await, 0);
    // Who is not heard of cannot catch up; whoever holds it may be away.
    fixture.fake.kill(NodeId::new(3).unwrap());
    assert_eq!(reassign(1, Some(vec![3, 1]), 0).await, 0);
    assert_eq!(reassign(1, None, 0).await, 0);
}
