//! What writes and reads records.

use bytes::Bytes;
use varve_protocol::batch::{BatchBuilder, Batches, Codec};

use super::*;

const TIME: i64 = 1_000_000;

/// A batch whose records have the timestamps `TIME`, `TIME` + 1, ...
fn batch(codec: Codec, records: i64) -> Bytes {
    filled(BatchBuilder::new(codec), records)
}

fn filled(mut builder: BatchBuilder, records: i64) -> Bytes {
    for record in 0..records {
        builder.push(TIME + record, Some(b"key"), Some(&[b'x'; 100]));
    }
    builder.build()
}

/// How this version of Produce and Fetch names a topic.
#[derive(Clone, Copy)]
struct Named<'a> {
    name: &'a str,
    id: Uuid,
}

struct Put<'a> {
    topic: Named<'a>,
    partition: i32,
    records: Bytes,
}

fn put(version: i16, acks: i16, puts: Vec<Put<'_>>) -> ProduceRequest {
    let topic = |put: Put<'_>| {
        let data = message!(produce_request::PartitionProduceData {
            index: put.partition,
            records: Some(put.records)
        });
        let mut topic = message!(produce_request::TopicProduceData { partition_data: vec![data] });
        if version >= 13 {
            topic.topic_id = put.topic.id;
        } else {
            topic.name = put.topic.name.into();
        }
        topic
    };
    message!(ProduceRequest {
        acks: acks,
        timeout_ms: 10_000,
        topic_data: puts.into_iter().map(topic).collect()
    })
}

async fn stored(peer: &mut impl Peer, version: i16, request: ProduceRequest) -> Vec<(i16, i64)> {
    let response = ask!(peer, version, Produce, request);
    let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    partitions.map(|partition| (partition.error_code, partition.base_offset)).collect()
}

pub async fn produce(peer: &mut impl Peer, version: i16) {
    let name = format!("produce-{version}");
    let topic = Named { name: &name, id: create(peer, &name).await };
    let unknown = Named { name: "no-such", id: Uuid::from_bytes([9; 16]) };
    let mut damaged = batch(Codec::None, 1).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let old_format = |magic: u8| {
        let mut bytes = batch(Codec::None, 1).to_vec();
        bytes[16] = magic;
        Bytes::from(bytes)
    };
    let to = |partition: i32, records: Bytes| Put { topic, partition, records };
    let zstd = if version < 7 { (code(ErrorCode::UnsupportedCompressionType), -1) } else { (OK, 3) };
    let missing = if version < 13 { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::UnknownTopicId };
    let transactional = filled(BatchBuilder::new(Codec::None).producer(7, 0, 0).transactional(), 1);
    let control = filled(BatchBuilder::new(Codec::None).control(), 1);
    let two: Bytes = [batch(Codec::None, 1), batch(Codec::None, 1)].concat().into();
    let steps = vec![
        (to(0, batch(Codec::Gzip, 2)), (OK, 0)),
        // The same partition again in one request.
        (to(0, batch(Codec::None, 1)), (OK, 2)),
        (to(0, batch(Codec::Zstd, 1)), zstd),
        (to(7, batch(Codec::None, 1)), (code(ErrorCode::UnknownTopicOrPartition), -1)),
        (to(-1, batch(Codec::None, 1)), (code(ErrorCode::UnknownTopicOrPartition), -1)),
        (to(0, damaged.into()), (code(ErrorCode::CorruptMessage), -1)),
        (to(0, old_format(1)), (code(ErrorCode::UnsupportedForMessageFormat), -1)),
        (to(0, transactional), (code(ErrorCode::InvalidTxnState), -1)),
        (to(0, control), (code(ErrorCode::InvalidRecord), -1)),
        (to(0, two), (code(ErrorCode::InvalidRecord), -1)),
        (to(0, Bytes::new()), (code(ErrorCode::InvalidRecord), -1)),
        (Put { topic: unknown, partition: 0, records: batch(Codec::None, 1) }, (code(missing), -1)),
    ];
    let expected: Vec<(i16, i64)> = steps.iter().map(|(_, outcome)| *outcome).collect();
    let puts = steps.into_iter().map(|(put, _)| put).collect();
    assert_eq!(stored(peer, version, put(version, -1, puts)).await, expected, "version {version}");
    let refused = stored(peer, version, put(version, 2, vec![to(0, batch(Codec::None, 1))])).await;
    assert_eq!(refused, [(code(ErrorCode::InvalidRequiredAcks), -1)]);
    let mut request = put(version, 1, vec![to(0, batch(Codec::None, 1))]);
    request.transactional_id = Some("tx".into());
    let refused = stored(peer, version, request).await;
    assert_eq!(refused, [(code(ErrorCode::TransactionalIdAuthorizationFailed), -1)]);
    assert_eq!(stored(peer, version, put(version, 1, Vec::new())).await, []);
    rejected(peer, version).await;
}

/// Of a batch that is refused for some of its records those are told (KIP-467), to clients that know of it.
async fn rejected(peer: &mut impl Peer, version: i16) {
    let name = format!("produce-keys-{version}");
    let id = create_with(peer, &name, &[("cleanup.policy", "compact")]).await;
    let mut builder = BatchBuilder::new(if version < 7 { Codec::Gzip } else { Codec::Zstd });
    for key in [Some(&b"key"[..]), None, Some(b"key"), None] {
        builder.push(TIME, key, Some(b"value"));
    }
    let puts = vec![Put { topic: Named { name: &name, id }, partition: 0, records: builder.build() }];
    let response = ask!(peer, version, Produce, put(version, -1, puts));
    let told = &response.responses[0].partition_responses[0];
    assert_eq!(told.error_code, code(ErrorCode::InvalidRecord));
    let places: Vec<i32> = told.record_errors.iter().map(|record| record.batch_index).collect();
    assert_eq!(places, if version < 8 { vec![] } else { vec![1, 3] }, "version {version}");
    assert_eq!(told.error_message.is_some(), version >= 8);
    assert!(told.record_errors.iter().all(|record| record.batch_index_error_message.is_some()));
}

pub async fn idempotence(peer: &mut impl Peer) {
    let topic = Named { name: "idempotence", id: create(peer, "idempotence").await };
    let identity = ask!(peer, 5, InitProducerId, message!(InitProducerIdRequest { transactional_id: None }));
    let id = identity.producer_id;
    let steps = [
        ((0, 0), (OK, 0)),
        ((0, 2), (OK, 2)),
        ((0, 4), (OK, 4)),
        // A retry of an older one of five is stored once, and answered with its offset.
        ((0, 0), (OK, 0)),
        ((0, 4), (OK, 4)),
        // A gap.
        ((0, 8), (code(ErrorCode::OutOfOrderSequenceNumber), -1)),
        // A new epoch begins anew and fences the old one.
        ((1, 3), (code(ErrorCode::OutOfOrderSequenceNumber), -1)),
        ((1, 0), (OK, 6)),
        ((0, 6), (code(ErrorCode::InvalidProducerEpoch), -1)),
    ];
    for (place, ((epoch, sequence), expected)) in steps.into_iter().enumerate() {
        let records = filled(BatchBuilder::new(Codec::None).producer(id, epoch, sequence), 2);
        let version = 3 + place as i16;
        let outcome =
            stored(peer, version, put(version, -1, vec![Put { topic, partition: 0, records }])).await;
        assert_eq!(outcome, [expected], "step {place}");
    }
}

/// Stores one batch, through the newest version that names topics by name.
async fn fill(peer: &mut impl Peer, name: &str, records: Bytes) {
    let topic = Named { name, id: Uuid::ZERO };
    let outcome = stored(peer, 12, put(12, -1, vec![Put { topic, partition: 0, records }])).await;
    assert_eq!(outcome[0].0, OK);
}

pub async fn list_offsets(peer: &mut impl Peer, version: i16) {
    let name = format!("offsets-{version}");
    create(peer, &name).await;
    fill(peer, &name, batch(Codec::Lz4, 3)).await;
    let since = |first: i16, offset: i64, timestamp: i64| {
        if version < first { (code(ErrorCode::UnsupportedVersion), -1, -1) } else { (OK, offset, timestamp) }
    };
    let asked = [
        (-1, (OK, 3, -1)),
        (-2, (OK, 0, -1)),
        (-3, since(7, 2, TIME + 2)),
        (-4, since(8, 0, -1)),
        (-5, since(9, -1, -1)),
        (-6, since(11, 0, -1)),
        (0, (OK, 0, TIME)),
        (TIME + 1, (OK, 1, TIME + 1)),
        (TIME + 3, (OK, -1, -1)),
    ];
    for (timestamp, expected) in asked {
        let found = offsets(peer, version, &name, vec![(0, timestamp, -1)]).await;
        assert_eq!(found, [expected], "version {version}, timestamp {timestamp}");
    }
    let (invalid, unknown) = (code(ErrorCode::InvalidRequest), code(ErrorCode::UnknownTopicOrPartition));
    let twice =
        offsets(peer, version, &name, vec![(0, -1, -1), (0, -2, -1), (5, -1, -1), (-1, -1, -1)]).await;
    let codes: Vec<i16> = twice.iter().map(|found| found.0).collect();
    assert_eq!(codes, [invalid, invalid, unknown, unknown]);
    assert_eq!(offsets(peer, version, "no-such", vec![(0, -1, -1)]).await[0].0, unknown);
    if version >= 4 {
        let stale = offsets(peer, version, &name, vec![(0, -1, 0)]).await[0].0;
        let early = offsets(peer, version, &name, vec![(0, -1, 999)]).await[0].0;
        assert_eq!((stale, early), (code(ErrorCode::FencedLeaderEpoch), code(ErrorCode::UnknownLeaderEpoch)));
    }
}

/// Asks for (partition, timestamp, leader epoch); code, offset and timestamp of each.
async fn offsets(
    peer: &mut impl Peer,
    version: i16,
    topic: &str,
    asked: Vec<(i32, i64, i32)>,
) -> Vec<(i16, i64, i64)> {
    let partition = |(index, timestamp, epoch): (i32, i64, i32)| {
        message!(list_offsets_request::ListOffsetsPartition {
            partition_index: index,
            timestamp: timestamp,
            current_leader_epoch: epoch,
        })
    };
    let topic = message!(list_offsets_request::ListOffsetsTopic {
        name: topic.into(),
        partitions: asked.into_iter().map(partition).collect(),
    });
    // A client that claims to be a replica is a client all the same.
    let request = message!(ListOffsetsRequest { replica_id: 5, topics: vec![topic] });
    let response = ask!(peer, version, ListOffsets, request);
    let found = &response.topics[0].partitions;
    assert!(
        version < 4 || found.iter().all(|found| (found.leader_epoch > 0) == (found.offset >= 0)),
        "{found:?}"
    );
    found.iter().map(|found| (found.error_code, found.offset, found.timestamp)).collect()
}

pub async fn offset_for_leader_epoch(peer: &mut impl Peer, version: i16) {
    let name = format!("epochs-{version}");
    create(peer, &name).await;
    fill(peer, &name, batch(Codec::None, 3)).await;
    let current = current_epoch(peer, &name).await;
    let partition = |index: i32, claimed: i32, epoch: i32| {
        message!(offset_for_leader_epoch_request::OffsetForLeaderPartition {
            partition: index,
            current_leader_epoch: claimed,
            leader_epoch: epoch,
        })
    };
    let topic = |name: &str, partitions: Vec<_>| {
        message!(offset_for_leader_epoch_request::OffsetForLeaderTopic {
            topic: name.into(),
            partitions: partitions
        })
    };
    let asked = vec![
        partition(0, -1, current),
        partition(0, current, current + 5),
        partition(0, 0, current),
        partition(0, current + 5, current),
        partition(9, -1, current),
    ];
    let request = message!(OffsetForLeaderEpochRequest {
        topics: vec![topic(&name, asked), topic("no-such", vec![partition(0, -1, 0)])],
    });
    let response = ask!(peer, version, OffsetForLeaderEpoch, request);
    let told: Vec<(i16, i64)> = response
        .topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|partition| (partition.error_code, partition.end_offset))
        .collect();
    let unknown = (code(ErrorCode::UnknownTopicOrPartition), -1);
    let (fenced, early) = (code(ErrorCode::FencedLeaderEpoch), code(ErrorCode::UnknownLeaderEpoch));
    assert_eq!(told, [(OK, 3), (OK, -1), (fenced, -1), (early, -1), unknown, unknown]);
}

pub async fn delete_records(peer: &mut impl Peer, version: i16) {
    let name = format!("deleted-records-{version}");
    create(peer, &name).await;
    fill(peer, &name, batch(Codec::None, 3)).await;
    let partition = |index: i32, offset: i64| {
        message!(delete_records_request::DeleteRecordsPartition { partition_index: index, offset: offset })
    };
    let topic = |name: &str, partitions: Vec<_>| {
        message!(delete_records_request::DeleteRecordsTopic { name: name.into(), partitions: partitions })
    };
    let (missing, out) = (code(ErrorCode::UnknownTopicOrPartition), code(ErrorCode::OffsetOutOfRange));
    let steps = [(2, (OK, 2)), (1, (OK, 2)), (4, (out, -1)), (-2, (out, -1)), (-1, (OK, 3)), (0, (OK, 3))];
    for (offset, told) in steps {
        let topics = vec![
            topic(&name, vec![partition(0, offset), partition(9, 0)]),
            topic("no-such", vec![partition(0, 0)]),
        ];
        let request = message!(DeleteRecordsRequest { topics: topics, timeout_ms: 10_000 });
        let response = ask!(peer, version, DeleteRecords, request);
        let results: Vec<(i16, i64)> = response
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .map(|partition| (partition.error_code, partition.low_watermark))
            .collect();
        assert_eq!(results, [told, (missing, -1), (missing, -1)], "offset {offset}");
    }
}

async fn current_epoch(peer: &mut impl Peer, name: &str) -> i32 {
    let topic = message!(metadata_request::MetadataRequestTopic { name: Some(name.into()) });
    let response = ask!(peer, 9, Metadata, message!(MetadataRequest { topics: Some(vec![topic]) }));
    response.topics[0].partitions[0].leader_epoch
}

/// One fetch of one partition.
#[derive(Clone, Copy)]
struct Get<'a> {
    version: i16,
    topic: Named<'a>,
    partition: i32,
    offset: i64,
    epoch: i32,
    bytes_max: i32,
    session: (i32, i32),
}

fn get(get: Get<'_>) -> FetchRequest {
    let partition = message!(fetch_request::FetchPartition {
        partition: get.partition,
        current_leader_epoch: get.epoch,
        fetch_offset: get.offset,
        partition_max_bytes: get.bytes_max,
    });
    let mut topic = message!(fetch_request::FetchTopic { partitions: vec![partition] });
    if get.version >= 13 {
        topic.topic_id = get.topic.id;
    } else {
        topic.topic = get.topic.name.into();
    }
    let mut request = message!(FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: get.bytes_max,
        session_id: get.session.0,
        session_epoch: get.session.1,
        isolation_level: 1,
        topics: vec![topic],
    });
    // A client that claims to be a replica is a client all the same (CVE-2018-1288).
    if get.version >= 15 {
        request.replica_state = message!(fetch_request::ReplicaState { replica_id: 5, replica_epoch: 1 });
    } else {
        request.replica_id = 5;
    }
    request
}

/// The code of the partition and the base offsets of its batches.
async fn fetched(peer: &mut impl Peer, question: Get<'_>) -> (i16, Vec<i64>) {
    let response = ask!(peer, question.version, Fetch, get(question));
    assert_eq!(response.error_code, OK);
    let data = &response.responses[0].partitions[0];
    assert!(data.aborted_transactions.as_ref().is_some_and(Vec::is_empty), "read_committed has a list");
    let batches = Batches::new(data.records.as_ref().unwrap()).map(Result::unwrap);
    let bases = batches.map(|batch| {
        assert!(batch.crc_matches());
        batch.meta().base_offset
    });
    (data.error_code, bases.collect())
}

pub async fn fetch(peer: &mut impl Peer, version: i16) {
    let name = format!("fetch-{version}");
    let topic = Named { name: &name, id: create(peer, &name).await };
    for codec in [Codec::Snappy, Codec::Gzip, Codec::Zstd] {
        fill(peer, &name, batch(codec, 2)).await;
    }
    let all =
        Get { version, topic, partition: 0, offset: 0, epoch: -1, bytes_max: 1 << 20, session: (0, -1) };
    let zstd = version >= 10;
    let whole = if zstd { vec![0, 2, 4] } else { vec![0, 2] };
    assert_eq!(fetched(peer, all).await, (OK, whole));
    assert_eq!(
        fetched(peer, Get { offset: 3, bytes_max: 1, ..all }).await,
        (OK, vec![2]),
        "mid-batch, one at least"
    );
    let last = if zstd { (OK, vec![4]) } else { (code(ErrorCode::UnsupportedCompressionType), vec![]) };
    assert_eq!(fetched(peer, Get { offset: 5, ..all }).await, last);
    assert_eq!(fetched(peer, Get { offset: 6, ..all }).await, (OK, vec![]));
    let range = (code(ErrorCode::OffsetOutOfRange), vec![]);
    assert_eq!(fetched(peer, Get { offset: 7, ..all }).await, range);
    assert_eq!(fetched(peer, Get { offset: -5, ..all }).await, range);
    let unknown = (code(ErrorCode::UnknownTopicOrPartition), vec![]);
    assert_eq!(fetched(peer, Get { partition: 9, ..all }).await, unknown);
    let nowhere = Named { name: "no-such", id: Uuid::from_bytes([9; 16]) };
    let no_topic = if version < 13 { unknown } else { (code(ErrorCode::UnknownTopicId), vec![]) };
    assert_eq!(fetched(peer, Get { topic: nowhere, ..all }).await, no_topic);
    if version >= 9 {
        assert_eq!(fetched(peer, Get { epoch: 0, ..all }).await.0, code(ErrorCode::FencedLeaderEpoch));
        assert_eq!(fetched(peer, Get { epoch: 999, ..all }).await.0, code(ErrorCode::UnknownLeaderEpoch));
        leaders(peer, all).await;
    }
    let nothing = ask!(peer, version, Fetch, message!(FetchRequest { max_wait_ms: 10_000, min_bytes: 1 }));
    assert_eq!(nothing.responses, Vec::new(), "nothing wanted is answered at once");
    if version >= 7 {
        sessions(peer, Get { offset: 6, ..all }).await;
    }
    if version >= 13 {
        delete(peer, &name).await;
        create(peer, &name).await;
        assert_eq!(fetched(peer, all).await.0, code(ErrorCode::UnknownTopicId), "the old id stays unknown");
    }
}

/// An old epoch is answered with the current one from version 16 on, and with where its leader is (KIP-951).
async fn leaders(peer: &mut impl Peer, want: Get<'_>) {
    let fenced = ask!(peer, want.version, Fetch, get(Get { epoch: 0, ..want }));
    let leader = &fenced.responses[0].partitions[0].current_leader;
    let ids: Vec<i32> = fenced.node_endpoints.iter().map(|endpoint| endpoint.node_id).collect();
    if want.version < 16 {
        assert_eq!((leader.leader_id, leader.leader_epoch, ids), (-1, -1, vec![]));
    } else {
        let epoch = current_epoch(peer, want.topic.name).await;
        assert_eq!((leader.leader_epoch, ids), (epoch, vec![leader.leader_id]));
        assert!(fenced.node_endpoints[0].port > 0 && !fenced.node_endpoints[0].host.is_empty());
    }
    // A client that is ahead waits for this node; an answer without an error names nobody.
    for epoch in [999, -1] {
        let other = ask!(peer, want.version, Fetch, get(Get { epoch, ..want }));
        let leader = &other.responses[0].partitions[0].current_leader;
        assert_eq!((leader.leader_id, other.node_endpoints.len()), (-1, 0));
    }
}

async fn sessions(peer: &mut impl Peer, want: Get<'_>) {
    let version = want.version;
    let opened = ask!(peer, version, Fetch, get(Get { session: (0, 0), ..want }));
    assert!(opened.session_id != 0 && opened.responses.len() == 1);
    let id = opened.session_id;
    let go_on = |epoch: i32| {
        message!(FetchRequest { session_id: id, session_epoch: epoch, max_bytes: 1 << 20, min_bytes: 1 })
    };
    let quiet = ask!(peer, version, Fetch, go_on(1));
    assert_eq!((quiet.error_code, quiet.session_id, quiet.responses.len()), (OK, id, 0));
    fill(peer, want.topic.name, batch(Codec::None, 1)).await;
    let news = ask!(peer, version, Fetch, go_on(2));
    assert_eq!(news.responses.len(), 1);
    if version >= 13 {
        assert_eq!(news.responses[0].topic_id, want.topic.id);
    }
    assert!(!news.responses[0].partitions[0].records.as_ref().unwrap().is_empty());
    let stale = ask!(peer, version, Fetch, go_on(2));
    assert_eq!(stale.error_code, code(ErrorCode::InvalidFetchSessionEpoch));
    let other = if version >= 13 { 12 } else { 13 };
    let mixed = ask!(peer, other, Fetch, go_on(3));
    assert_eq!(mixed.error_code, code(ErrorCode::FetchSessionTopicIdError));
    let mut forgetting = go_on(3);
    let mut forgotten = message!(fetch_request::ForgottenTopic { partitions: vec![0] });
    if version >= 13 {
        forgotten.topic_id = want.topic.id;
    } else {
        forgotten.topic = want.topic.name.into();
    }
    forgetting.forgotten_topics_data = vec![forgotten];
    assert_eq!(ask!(peer, version, Fetch, forgetting).responses.len(), 0);
    let ended = ask!(peer, version, Fetch, get(Get { session: (id, -1), ..want }));
    assert_eq!((ended.error_code, ended.session_id), (OK, 0));
    let gone = ask!(peer, version, Fetch, go_on(4));
    assert_eq!(gone.error_code, code(ErrorCode::FetchSessionIdNotFound));
}
