//! Fetches of several partitions, some of whose records are in the object store.

use std::time::{Duration, Instant};

use varve_common::GroupId;

use super::*;

const LONG: i32 = 60_000;

/// Topics `a`, `b`, `c` of one partition with one batch each, groups 1 to 3.
async fn three() -> Fixture {
    let fixture = fixture();
    for name in ["a", "b", "c"] {
        fixture.metadata(9, name).await;
        let mut request = produce(-1, batch(&[name]));
        let Request::Produce(inner) = &mut request else { unreachable!() };
        inner.topic_data[0].name = name.into();
        fixture.ask(9, request).await;
    }
    fixture
}

impl Fixture {
    async fn fetch_all(&self, max_bytes: i32, wait_ms: i32) -> Vec<(usize, i16)> {
        let mut request = FetchRequest::default();
        (request.min_bytes, request.max_wait_ms, request.max_bytes) = (1, wait_ms, max_bytes);
        request.session_epoch = -1;
        request.topics = ["a", "b", "c"]
            .map(|name| {
                let mut partition = fetch_request::FetchPartition::default();
                partition.partition_max_bytes = 1 << 20;
                let mut topic = fetch_request::FetchTopic::default();
                (topic.topic, topic.partitions) = (name.into(), vec![partition]);
                topic
            })
            .into();
        let Response::Fetch(response) = self.ask(12, Request::Fetch(request)).await else { panic!() };
        let told = |data: &fetch_response::PartitionData| {
            (data.records.as_ref().map_or(0, Bytes::len), data.error_code)
        };
        response.responses.iter().map(|topic| told(&topic.partitions[0])).collect()
    }
}

#[tokio::test]
async fn hot_partitions_are_answered_at_once_while_cold_ones_are_on_their_way() {
    let fixture = three().await;
    fixture.fake.freeze(GroupId(2));
    let began = Instant::now();
    let told = fixture.fetch_all(1 << 20, LONG).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(told[0].0 > 0 && told[2].0 > 0);
    assert_eq!(told[1], (0, 0), "without an error: the client comes again");
    assert_eq!(fixture.fake.thaw(GroupId(2)), 1);
    assert!(fixture.fetch_all(1 << 20, LONG).await.iter().all(|told| told.0 > 0));
}

#[tokio::test]
async fn cold_partitions_arrive_side_by_side() {
    let fixture = three().await;
    (1..=3).for_each(|group| fixture.fake.freeze(GroupId(group)));
    let (told, ()) = tokio::join!(fixture.fetch_all(8 << 20, LONG), async {
        let all_asked = async {
            while (1..=3).any(|group| fixture.fake.asked(GroupId(group)) == 0) {
                tokio::task::yield_now().await;
            }
        };
        let asked = tokio::time::timeout(Duration::from_secs(10), all_asked).await;
        asked.expect("all are asked for before the first answers");
        (1..=3).rev().for_each(|group| assert_eq!(fixture.fake.thaw(GroupId(group)), 1));
    });
    assert!(told.iter().all(|told| told.0 > 0), "{told:?}");
}

#[tokio::test]
async fn at_max_wait_the_answer_leaves_without_what_is_on_its_way() {
    let fixture = three().await;
    (1..=3).for_each(|group| fixture.fake.freeze(GroupId(group)));
    let began = Instant::now();
    assert_eq!(fixture.fetch_all(1 << 20, 50).await, [(0, 0); 3]);
    assert!((50..5_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_fetch_that_wants_more_bytes_than_there_are_takes_what_comes_to_the_same_partition() {
    let fixture = fixture();
    fixture.metadata(9, "t").await;
    let one = batch(&["a"]);
    fixture.produce(-1, one.clone()).await;
    let mut partition = fetch_request::FetchPartition::default();
    partition.partition_max_bytes = 1 << 20;
    let mut topic = fetch_request::FetchTopic::default();
    (topic.topic, topic.partitions) = ("t".into(), vec![partition]);
    let mut request = FetchRequest::default();
    (request.min_bytes, request.max_wait_ms, request.session_epoch) = (3 * one.len() as i32, LONG, -1);
    request.topics = vec![topic];
    let (response, ()) = tokio::join!(fixture.ask(12, Request::Fetch(request)), async {
        for _ in 0..2 {
            tokio::task::yield_now().await;
            fixture.produce(-1, one.clone()).await;
        }
    });
    let Response::Fetch(response) = response else { panic!() };
    let records = response.responses[0].partitions[0].records.as_ref().unwrap();
    assert_eq!(records.len(), 3 * one.len());
}

#[tokio::test]
async fn what_arrives_side_by_side_keeps_to_the_bytes_of_the_fetch() {
    let fixture = three().await;
    (1..=3).for_each(|group| {
        fixture.fake.freeze(GroupId(group));
        fixture.fake.thaw(GroupId(group));
    });
    let told = fixture.fetch_all(1, LONG).await;
    assert_eq!(told.iter().filter(|told| told.0 > 0).count(), 1, "{told:?}");
}
