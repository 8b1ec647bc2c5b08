//! Whole frames through the service, over the fake node.

use bytes::Buf as _;
use varve_protocol::{
    ErrorCode, TABLE,
    batch::{BatchBuilder, Batches, Codec},
    messages::*,
    response::split_response,
};

use super::{
    fake::{Fake, node},
    *,
};
use crate::net::Principal;

mod access;
mod alter;
mod cluster;
mod cold;
mod followers;
mod groups;

struct Fixture {
    handlers: Handlers,
    fake: Arc<Fake>,
    context: Arc<Context>,
}

fn fixture() -> Fixture {
    let (node, fake) = node();
    let context = Context {
        principal: Principal::Anonymous,
        listener: "kafka".into(),
        client: "127.0.0.1:50000".parse().unwrap(),
        local: "127.0.0.1:19092".parse().unwrap(),
        connection: 0,
    };
    Fixture { handlers: Handlers::new(node, 256 << 20), fake, context: Arc::new(context) }
}

impl Fixture {
    async fn raw(&self, frame: Bytes) -> Answer {
        self.handlers.call(&self.context, frame).await
    }

    async fn ask(&self, version: i16, request: Request) -> Response {
        let key = request.key();
        let mut frame = request.encode(version, 7, Some("test")).unwrap();
        frame.advance(4);
        let frame = match self.raw(frame).await {
            Answer::Respond(pieces) | Answer::Hold(pieces, _) => Bytes::from(pieces.concat()),
            refused => panic!("{key:?} {version} is not answered: {refused:?}"),
        };
        let (correlation, body) = split_response(key, version, frame.slice(4..)).unwrap();
        assert_eq!(correlation, 7);
        Response::decode(key, version, body).unwrap()
    }

    async fn metadata(&self, version: i16, name: &str) -> MetadataResponse {
        let mut topic = metadata_request::MetadataRequestTopic::default();
        topic.name = Some(name.into());
        let mut request = MetadataRequest::default();
        request.topics = Some(vec![topic]);
        request.allow_auto_topic_creation = true;
        let Response::Metadata(response) = self.ask(version, Request::Metadata(request)).await else {
            panic!()
        };
        response
    }

    async fn produce(&self, acks: i16, records: Bytes) -> produce_response::PartitionProduceResponse {
        let Response::Produce(response) = self.ask(9, produce(acks, records)).await else { panic!() };
        response.responses[0].partition_responses[0].clone()
    }

    async fn fetch(&self, offset: i64, session: (i32, i32), wait_ms: i32) -> FetchResponse {
        let mut request = FetchRequest::default();
        (request.min_bytes, request.max_wait_ms) = (1, wait_ms);
        (request.session_id, request.session_epoch) = session;
        if offset >= 0 {
            let mut partition = fetch_request::FetchPartition::default();
            (partition.fetch_offset, partition.partition_max_bytes) = (offset, 1 << 20);
            let mut topic = fetch_request::FetchTopic::default();
            topic.topic = "t".into();
            topic.partitions = vec![partition];
            request.topics = vec![topic];
        }
        let Response::Fetch(response) = self.ask(12, Request::Fetch(request)).await else { panic!() };
        response
    }
}

fn produce(acks: i16, records: Bytes) -> Request {
    let mut partition = produce_request::PartitionProduceData::default();
    partition.records = Some(records);
    let mut topic = produce_request::TopicProduceData::default();
    topic.name = "t".into();
    topic.partition_data = vec![partition];
    let mut request = ProduceRequest::default();
    (request.acks, request.timeout_ms) = (acks, 1000);
    request.topic_data = vec![topic];
    Request::Produce(request)
}

fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    values.iter().for_each(|value| builder.push(1_000_000, None, Some(value.as_bytes())));
    builder.build()
}

impl surface::Peer for Fixture {
    async fn ask(&mut self, version: i16, request: Request) -> Response {
        Self::ask(self, version, request).await
    }
}

#[tokio::test]
async fn every_api_answers_in_every_version() {
    surface::every_api_in_every_version(&mut fixture()).await;
}

#[tokio::test]
async fn a_refused_batch_with_acks_0_closes_the_connection_and_an_accepted_one_is_silent() {
    let fixture = fixture();
    for (known, silent) in [(false, false), (true, true)] {
        if known {
            fixture.metadata(9, "t").await;
        }
        let mut frame = produce(0, batch(&["a"])).encode(9, 7, None).unwrap();
        frame.advance(4);
        let answer = fixture.raw(frame).await;
        assert_eq!(matches!(answer, Answer::Nothing), silent);
        assert_eq!(matches!(answer, Answer::Close(_)), !silent);
    }
}

#[tokio::test]
async fn an_answer_names_so_many_records_however_many_batches_were_refused() {
    let fixture = fixture();
    fixture.metadata(9, "t").await;
    let mut builder = BatchBuilder::new(Codec::None);
    (0..600).for_each(|_| builder.push(i64::MAX / 2, None, Some(b"of the far future")));
    let Request::Produce(mut request) = produce(-1, builder.build()) else { panic!() };
    let entry = request.topic_data[0].partition_data[0].clone();
    request.topic_data[0].partition_data = vec![entry; 5];
    let Response::Produce(response) = fixture.ask(9, Request::Produce(request)).await else { panic!() };
    let answers = &response.responses[0].partition_responses;
    let named: Vec<usize> = answers.iter().map(|answer| answer.record_errors.len()).collect();
    assert_eq!(named, [600, 424, 0, 0, 0]);
    let refused = |answer: &&produce_response::PartitionProduceResponse| {
        answer.error_code == ErrorCode::InvalidTimestamp.number()
    };
    assert_eq!(answers.iter().filter(refused).count(), 5);
}

#[tokio::test]
async fn produce_0_to_2_are_offered_and_close_the_connection() {
    let frame = |version: u8| Bytes::copy_from_slice(&[0, 0, 0, version, 0, 0, 0, 7, 0xff, 0xff]);
    for version in 0..=2 {
        assert!(matches!(fixture().raw(frame(version)).await, Answer::Close("unsupported version")));
    }
}

#[tokio::test]
async fn asking_for_a_topic_creates_it_in_every_version() {
    for version in 0..=13 {
        let fixture = fixture();
        let response = fixture.metadata(version, "t").await;
        assert_eq!(
            (response.topics[0].error_code, response.topics[0].partitions.len()),
            (0, 1),
            "version {version}"
        );
        assert_eq!((response.brokers[0].host.as_str(), response.brokers[0].port), ("127.0.0.1", 19092));
        let bad = fixture.metadata(version, "a/b").await;
        assert_eq!(bad.topics[0].error_code, ErrorCode::InvalidTopicException.number());
    }
}

#[tokio::test]
async fn what_was_produced_is_fetched_byte_for_byte() {
    let fixture = fixture();
    fixture.metadata(9, "t").await;
    assert_eq!(fixture.produce(-1, batch(&["a", "b"])).await.base_offset, 0);
    assert_eq!(fixture.produce(1, batch(&["c"])).await.base_offset, 2);
    let response = fixture.fetch(1, (0, -1), 0).await;
    let data = &response.responses[0].partitions[0];
    assert_eq!((data.high_watermark, data.error_code), (3, 0));
    let batches: Vec<_> = Batches::new(data.records.as_ref().unwrap()).map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(|batch| batch.meta().base_offset).collect::<Vec<_>>(), [0, 2]);
    assert!(batches.iter().all(|batch| batch.crc_matches()));
    let beyond = fixture.fetch(9, (0, -1), 0).await;
    assert_eq!(beyond.responses[0].partitions[0].error_code, ErrorCode::OffsetOutOfRange.number());
}

#[tokio::test]
async fn bad_acks_and_a_bad_batch_crc_store_nothing() {
    let fixture = fixture();
    fixture.metadata(9, "t").await;
    assert_eq!(fixture.produce(2, batch(&["a"])).await.error_code, ErrorCode::InvalidRequiredAcks.number());
    let mut damaged = batch(&["a"]).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(fixture.produce(-1, damaged.into()).await.error_code, ErrorCode::CorruptMessage.number());
    assert_eq!(fixture.produce(-1, batch(&["a"])).await.base_offset, 0);
}

#[tokio::test]
async fn a_waiting_fetch_is_woken_by_the_watermark() {
    let fixture = fixture();
    fixture.metadata(9, "t").await;
    let (fetched, _) = tokio::join!(fixture.fetch(0, (0, -1), 60_000), async {
        tokio::task::yield_now().await;
        fixture.produce(-1, batch(&["a"])).await
    });
    assert!(fetched.responses[0].partitions[0].records.as_ref().is_some_and(|records| !records.is_empty()));
}

#[tokio::test]
async fn fetch_sessions_tell_only_what_changed() {
    let fixture = fixture();
    fixture.metadata(9, "t").await;
    let first = fixture.fetch(0, (0, 0), 0).await;
    assert_eq!((first.session_id != 0, first.responses.len()), (true, 1));
    let id = first.session_id;
    assert_eq!(fixture.fetch(-1, (id, 1), 0).await.responses.len(), 0);
    fixture.produce(-1, batch(&["a"])).await;
    assert_eq!(fixture.fetch(-1, (id, 2), 0).await.responses.len(), 1);
    assert_eq!(fixture.fetch(-1, (id, 2), 0).await.error_code, ErrorCode::InvalidFetchSessionEpoch.number());
    assert_eq!(
        fixture.fetch(-1, (id + 1, 1), 0).await.error_code,
        ErrorCode::FetchSessionIdNotFound.number()
    );
}

#[tokio::test]
async fn unready_partitions_and_the_log_end_are_told_truly() {
    let fixture = fixture();
    let group = varve_common::GroupId(1);
    fixture.metadata(9, "t").await;
    fixture.fake.publish(group, |view| view.ready = false);
    assert_eq!(fixture.produce(-1, batch(&["a"])).await.error_code, ErrorCode::NotLeaderOrFollower.number());
    let topic = &fixture.metadata(9, "t").await.topics[0];
    assert_eq!(topic.partitions[0].error_code, ErrorCode::LeaderNotAvailable.number());
}

/// How many batches of 100 bytes and more each of four partitions gives, where the fetch may take `bytes_max`.
async fn given(fixture: &Fixture, bytes_max: i32, partition_bytes_max: i32) -> Vec<usize> {
    let mut topic = fetch_request::FetchTopic::default();
    topic.topic = "four".into();
    let partition = |index| {
        let mut partition = fetch_request::FetchPartition::default();
        (partition.partition, partition.partition_max_bytes) = (index, partition_bytes_max);
        partition
    };
    topic.partitions = (0..4).map(partition).collect();
    let mut request = FetchRequest::default();
    (request.max_bytes, request.session_epoch, request.topics) = (bytes_max, -1, vec![topic]);
    let Response::Fetch(response) = fixture.ask(12, Request::Fetch(request)).await else { panic!() };
    let partitions = &response.responses[0].partitions;
    assert!(partitions.iter().all(|partition| partition.error_code == 0));
    partitions.iter().map(|partition| Batches::new(partition.records.as_ref().unwrap()).count()).collect()
}

/// A topic of four partitions with three batches each; how many bytes a batch has.
async fn four(fixture: &Fixture) -> i32 {
    let mut topic = create_topics_request::CreatableTopic::default();
    (topic.name, topic.num_partitions, topic.replication_factor) = ("four".into(), 4, 1);
    let mut request = CreateTopicsRequest::default();
    request.topics = vec![topic];
    fixture.ask(7, Request::CreateTopics(request)).await;
    let records = batch(&[&"x".repeat(100)]);
    for partition in (0..4).flat_map(|partition| [partition; 3]) {
        let Request::Produce(mut request) = produce(-1, records.clone()) else { unreachable!() };
        request.topic_data[0].name = "four".into();
        request.topic_data[0].partition_data[0].index = partition;
        fixture.ask(9, Request::Produce(request)).await;
    }
    records.len() as i32
}

#[tokio::test]
async fn partitions_share_max_bytes_in_their_order_and_the_first_batch_comes_whatever_its_size() {
    let fixture = fixture();
    let bytes = four(&fixture).await;
    assert_eq!(given(&fixture, 1 << 20, 1 << 20).await, [3, 3, 3, 3]);
    assert_eq!(given(&fixture, 1 << 20, 2 * bytes).await, [2, 2, 2, 2]);
    assert_eq!(given(&fixture, 4 * bytes, 1 << 20).await, [3, 1, 0, 0]);
    assert_eq!(given(&fixture, 8 * bytes, 3 * bytes).await, [3, 3, 2, 0]);
    assert_eq!(given(&fixture, 1, 1 << 20).await, [1, 0, 0, 0]);
    assert_eq!(given(&fixture, 1 << 20, 1).await, [1, 0, 0, 0]);
    assert_eq!(given(&fixture, 0, 0).await, [1, 0, 0, 0]);
}

#[tokio::test]
async fn answers_that_nobody_takes_leave_others_without_records_but_not_without_an_answer() {
    let fixture = fixture();
    let bytes = four(&fixture).await;
    let answers = &fixture.handlers.shared.answers;
    let all = answers.free();
    let slow = answers.take(all).await;
    assert_eq!(given(&fixture, 1 << 20, 1 << 20).await, [0, 0, 0, 0]);
    drop(slow);
    assert_eq!(given(&fixture, 1 << 20, 1 << 20).await, [3, 3, 3, 3]);
    assert_eq!(answers.free(), all, "an answer that has left gives its memory back");

    let mut request = FetchRequest::default();
    let mut topic = fetch_request::FetchTopic::default();
    topic.topic = "four".into();
    let mut partition = fetch_request::FetchPartition::default();
    partition.partition_max_bytes = 1 << 20;
    topic.partitions = vec![partition];
    (request.max_bytes, request.topics) = (1 << 20, vec![topic]);
    let mut frame = Request::Fetch(request).encode(12, 7, None).unwrap();
    frame.advance(4);
    let answer = fixture.raw(frame).await;
    let held = all - answers.free();
    assert!(
        held >= 3 * bytes as usize && held <= 8 << 10,
        "{held} bytes are held for an answer of {bytes} * 3"
    );
    drop(answer);
    assert_eq!(answers.free(), all);
}

#[tokio::test]
async fn the_right_leader_is_named_with_its_address_where_the_answer_has_room_for_it() {
    let fixture = fixture();
    let group = varve_common::GroupId(1);
    let id = fixture.metadata(12, "t").await.topics[0].topic_id;
    let ask = async |version| {
        let Request::Produce(mut request) = produce(-1, batch(&["a"])) else { unreachable!() };
        if version >= 13 {
            (request.topic_data[0].name, request.topic_data[0].topic_id) = ("".into(), id);
        }
        let Response::Produce(response) = fixture.ask(version, Request::Produce(request)).await else {
            panic!()
        };
        let partition = response.responses[0].partition_responses[0].clone();
        assert_eq!(partition.error_code, ErrorCode::NotLeaderOrFollower.number());
        let leader = (partition.current_leader.leader_id, partition.current_leader.leader_epoch);
        let endpoints: Vec<_> = response.node_endpoints.into_iter().map(|at| (at.node_id, at.port)).collect();
        (leader, endpoints)
    };
    let none = ((-1, -1), Vec::new());
    // Not yet: whoever came back at once would hear the same.
    fixture.fake.publish(group, |view| view.ready = false);
    assert_eq!(ask(10).await, none);
    let other = varve_common::NodeId::new(2).unwrap();
    fixture.fake.publish(group, |view| view.leader = varve_common::ReplicaId::new(other, 1));
    // A leader whose address is not known on this listener is of no use.
    assert_eq!(ask(10).await, none);
    fixture.fake.register(other, "kafka=b:9093");
    assert_eq!(ask(9).await, none);
    let told = ((2, 3), vec![(2, 9093)]);
    assert_eq!([ask(10).await, ask(13).await], [told.clone(), told]);
}

#[tokio::test]
async fn only_what_is_answered_is_advertised() {
    let fixture = fixture();
    let mut request = ApiVersionsRequest::default();
    request.client_software_name = "test".into();
    request.client_software_version = "1.0".into();
    let Response::ApiVersions(response) = fixture.ask(3, Request::ApiVersions(request)).await else {
        panic!()
    };
    assert_eq!(response.api_keys.len(), TABLE.len());
}

#[tokio::test]
async fn unknown_versions_and_garbage_never_panic() {
    let fixture = fixture();
    let too_new = Bytes::from_static(&[0, 18, 0, 99, 0, 0, 0, 7, 0, 0]);
    let Answer::Respond(chunks) = fixture.raw(too_new).await else {
        panic!("ApiVersions too new has an answer")
    };
    assert_eq!(chunks[0][4..10], [0, 0, 0, 7, 0, 35]);
    for frame in [
        &[0_u8, 99, 0, 0, 0, 0, 0, 1][..],
        &[0, 3],
        &[],
        &[0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff],
    ] {
        assert!(matches!(fixture.raw(Bytes::copy_from_slice(frame)).await, Answer::Close(_)), "{frame:?}");
    }
}
