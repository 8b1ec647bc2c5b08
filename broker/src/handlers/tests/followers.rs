//! Fetches and replicas: consumers are sent to one in their rack, and a follower serves what it may.

use std::time::Duration;

use varve_common::{GroupId, NodeId, Offset};
use varve_replica::Role;

use super::*;

const GROUP: GroupId = GroupId(1);
const ALL: &[u32] = &[1, 2, 3];

fn node_id(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

/// Three brokers in the racks a, b and b, and one record in the topic `t`.
async fn racks() -> Fixture {
    let fixture = fixture();
    fixture.fake.register(node_id(2), "kafka=b:9092");
    fixture.fake.register(node_id(3), "kafka=c:9092");
    for (node, rack) in [(1, "a"), (2, "b"), (3, "b")] {
        fixture.fake.stand(node_id(node), rack);
    }
    fixture.metadata(12, "t").await;
    fixture.produce(1, batch(&["a"])).await;
    fixture
}

/// This node follows, with one record.
async fn follower() -> Fixture {
    let fixture = racks().await;
    fixture.fake.leads(GROUP, 2, ALL);
    fixture.fake.publish(GROUP, |view| {
        (view.ready, view.role) = (false, Role::Follower);
        view.leader = varve_common::ReplicaId::new(node_id(2), 1);
    });
    fixture
}

async fn fetch(
    fixture: &Fixture,
    version: i16,
    rack: &str,
    offset: i64,
    wait_ms: i32,
) -> fetch_response::PartitionData {
    let mut partition = fetch_request::FetchPartition::default();
    (partition.fetch_offset, partition.partition_max_bytes) = (offset, 1 << 20);
    let mut topic = fetch_request::FetchTopic::default();
    (topic.topic, topic.partitions) = ("t".into(), vec![partition]);
    let mut request = FetchRequest::default();
    (request.session_epoch, request.max_wait_ms, request.min_bytes) = (-1, wait_ms, 1);
    (request.topics, request.max_bytes) = (vec![topic], 1 << 20);
    if version >= 11 {
        request.rack_id = rack.into();
    }
    let Response::Fetch(response) = fixture.ask(version, Request::Fetch(request)).await else { panic!() };
    response.responses[0].partitions[0].clone()
}

fn told(data: &fetch_response::PartitionData) -> (i16, i32, bool) {
    let has_records = data.records.as_ref().is_some_and(|records| !records.is_empty());
    (data.error_code, data.preferred_read_replica, has_records)
}

#[tokio::test]
async fn a_leader_sends_consumers_to_a_replica_in_their_rack_that_keeps_up() {
    let fixture = racks().await;
    let ask = async |rack| told(&fetch(&fixture, 12, rack, 0, 0).await);
    fixture.fake.leads(GROUP, 1, &[1, 3]);
    assert_eq!(ask("b").await, (0, 3, false));
    assert_eq!(ask("a").await, (0, -1, true), "the leader stands there");
    assert_eq!(ask("").await, (0, -1, true));
    assert_eq!(ask("elsewhere").await, (0, -1, true));
    assert_eq!(told(&fetch(&fixture, 10, "b", 0, 0).await), (0, -1, true), "it could not say where");
    let outside = fetch(&fixture, 12, "b", 9, 0).await;
    assert_eq!(told(&outside), (ErrorCode::OffsetOutOfRange.number(), -1, false));
    fixture.fake.leads(GROUP, 1, ALL);
    assert!(ask("b").await.1 > 1);
    fixture.fake.kill(node_id(3));
    assert_eq!(ask("b").await, (0, 2, false));
    fixture.fake.kill(node_id(2));
    assert_eq!(ask("b").await, (0, -1, true));
}

#[tokio::test]
async fn a_consumer_that_waits_at_the_end_is_sent_away_at_once() {
    let fixture = racks().await;
    fixture.fake.leads(GROUP, 1, &[1, 2]);
    let sent = tokio::time::timeout(Duration::from_secs(30), fetch(&fixture, 12, "b", 1, 60_000)).await;
    assert_eq!(told(&sent.unwrap()), (0, 2, false));
}

#[tokio::test]
async fn a_follower_serves_whoever_can_be_sent_to_it_as_long_as_it_keeps_up() {
    let fixture = follower().await;
    let ask = async |version| told(&fetch(&fixture, version, "a", 0, 0).await);
    let elsewhere = (ErrorCode::NotLeaderOrFollower.number(), -1, false);
    assert_eq!(ask(11).await, (0, -1, true));
    assert_eq!(ask(10).await, elsewhere);
    fixture.fake.leads(GROUP, 2, &[2, 3]);
    assert_eq!(ask(12).await, elsewhere, "it does not keep up");
    fixture.fake.leads(GROUP, 3, ALL);
    assert_eq!(ask(12).await, elsewhere, "it follows another");
    fixture.fake.leads(GROUP, 2, ALL);
    fixture.fake.publish(GROUP, |view| view.whole = false);
    assert_eq!(ask(12).await, elsewhere, "it may hold less than it shows");
    fixture.fake.publish(GROUP, |view| (view.whole, view.role) = (true, Role::Learner));
    assert_eq!(ask(12).await, elsewhere, "it is no replica yet");
    fixture.fake.publish(GROUP, |view| (view.leader, view.role) = (None, Role::Candidate));
    assert_eq!(ask(12).await, elsewhere, "nobody leads");
}

#[tokio::test]
async fn a_follower_whose_leader_is_not_heard_of_sends_consumers_away() {
    let fixture = follower().await;
    fixture.fake.kill(node_id(2));
    let told = told(&fetch(&fixture, 12, "a", 0, 0).await);
    assert_eq!(told, (ErrorCode::NotLeaderOrFollower.number(), -1, false));
}

#[tokio::test]
async fn t22_a_follower_that_is_behind_is_waited_for_and_never_says_out_of_range() {
    let fixture = follower().await;
    let behind = (ErrorCode::OffsetNotAvailable.number(), -1, false);
    assert_eq!(told(&fetch(&fixture, 12, "a", 2, 0).await), behind);
    assert_eq!(told(&fetch(&fixture, 12, "a", 2, 20).await), behind);
    let below = fetch(&fixture, 12, "a", 0, 0).await;
    assert_eq!((told(&below), below.high_watermark), ((0, -1, true), 1));
    let fixture = &fixture;
    let waiting = fetch(fixture, 12, "a", 2, 60_000);
    let comes = async {
        for _ in 0..2 {
            tokio::task::yield_now().await;
            // What its leader has committed comes here.
            let (_, records) = (fixture.fake.publish(GROUP, |view| view.ready = true), batch(&["b"]));
            fixture.produce(1, records).await;
            fixture.fake.publish(GROUP, |view| view.ready = false);
        }
    };
    let (woken, ()) = tokio::join!(waiting, comes);
    assert_eq!(told(&woken), (0, -1, true));
}

#[tokio::test]
async fn a_follower_at_its_end_wakes_with_its_own_watermark() {
    let fixture = follower().await;
    let waiting = fetch(&fixture, 12, "a", 1, 60_000);
    let moves = async {
        tokio::task::yield_now().await;
        fixture.fake.publish(GROUP, |view| view.log_start = Offset(1));
        tokio::task::yield_now().await;
        fixture.fake.publish(GROUP, |view| view.log_start = Offset(2));
    };
    let (woken, ()) = tokio::join!(waiting, moves);
    assert_eq!(told(&woken), (ErrorCode::OffsetOutOfRange.number(), -1, false), "it was trimmed");
}
