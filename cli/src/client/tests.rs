use std::collections::BTreeMap;

use varve_protocol::{ApiKey, ErrorCode, batch::Codec};

use super::{
    ClientError, Missing,
    offsets::Place,
    producer::{Acks, NewRecord, Options, Producer, Written},
    test_server::{State, TestServer, logs, stored},
    topics::{NewTopic, Run},
};
use crate::{
    commands::{
        consume::{Plan, Stop},
        storage,
    },
    place,
    record::Record,
};

const PLAIN: Options = Options { codec: Codec::None, acks: Acks::All, partition: None };

fn value(text: &str) -> NewRecord {
    NewRecord { value: Some(text.into()), ..NewRecord::default() }
}

fn write(server: &TestServer, options: Options, texts: &[&str]) -> Vec<Written> {
    let mut client = server.client();
    let mut producer = Producer::open(&mut client, "t", options).unwrap();
    for (place, text) in texts.iter().enumerate() {
        producer.push(&value(text), 1000 * (place as i64 + 1)).unwrap();
    }
    producer.flush().unwrap()
}

/// What a consumer with this `-o` prints before the end, by partition and offset.
fn read(server: &TestServer, offset: &str) -> Vec<Record> {
    let mut client = server.client();
    let topic = client.topic("t", Missing::Report).unwrap();
    let range = place::parse(offset, 0).unwrap();
    let plan = Plan::resolve(&mut client, &topic, &[], range, Stop::AtEnd).unwrap();
    let fetched = client.fetch(&topic, &plan.positions).unwrap();
    let mut records: Vec<Record> = fetched.into_iter().flat_map(|partition| partition.records).collect();
    records.retain(|record| record.offset < plan.ends[&record.partition]);
    records
}

fn values(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| std::str::from_utf8(record.value.as_ref().unwrap()).unwrap()).collect()
}

#[test]
fn every_codec_is_read_as_it_was_written() {
    for codec in Codec::ALL {
        let server = TestServer::with_topic("t", 1);
        let written = write(&server, Options { codec, ..PLAIN }, &["a", "b", "c"]);
        assert_eq!(written, [Written { partition: 0, base_offset: Some(0), count: 3 }]);
        assert_eq!(values(&read(&server, "start")), ["a", "b", "c"], "{codec:?}");
    }
}

#[test]
fn keys_headers_and_timestamps_come_back() {
    let server = TestServer::with_topic("t", 1);
    let mut client = server.client();
    let mut producer = Producer::open(&mut client, "t", PLAIN).unwrap();
    let record = NewRecord {
        key: Some(vec![0xff, 0]),
        value: None,
        headers: vec![("h".into(), Some(b"1".to_vec())), ("h".into(), None)],
        timestamp: Some(42),
        partition: None,
    };
    producer.push(&record, 7).unwrap();
    producer.flush().unwrap();
    let read = read(&server, "start").remove(0);
    assert_eq!((read.key, read.value, read.headers), (record.key, record.value, record.headers));
    assert_eq!((read.offset, read.timestamp), (0, 42));
}

#[test]
fn a_batch_whose_answer_was_lost_is_stored_once() {
    let server = TestServer::with_topic("t", 1);
    server.state.lock().unwrap().lose_answer_of = Some(ApiKey::Produce);
    let written = write(&server, PLAIN, &["a", "b"]);
    assert_eq!(written, [Written { partition: 0, base_offset: Some(0), count: 2 }]);
    assert_eq!(stored(&server.state.lock().unwrap().topics["t"][0]), 2);
}

#[test]
fn a_moved_leader_is_looked_for_again() {
    let server = TestServer::with_topic("t", 1);
    server.state.lock().unwrap().not_leader = 2;
    assert_eq!(write(&server, PLAIN, &["a"])[0].base_offset, Some(0));
}

#[test]
fn without_acks_nothing_is_waited_for() {
    let server = TestServer::with_topic("t", 1);
    let written = write(&server, Options { acks: Acks::None, ..PLAIN }, &["a"]);
    assert_eq!(written, [Written { partition: 0, base_offset: None, count: 1 }]);
}

#[test]
fn several_batches_count_their_sequences_on() {
    let server = TestServer::with_topic("t", 1);
    let mut client = server.client();
    let mut producer = Producer::open(&mut client, "t", PLAIN).unwrap();
    for base in [0, 2, 4] {
        producer.push(&value("x"), 0).unwrap();
        producer.push(&value("y"), 0).unwrap();
        let written = producer.flush().unwrap();
        assert_eq!(written, [Written { partition: 0, base_offset: Some(base), count: 2 }]);
    }
}

#[test]
fn keys_choose_partitions_and_a_given_partition_wins() {
    let server = TestServer::with_topic("t", 4);
    let mut client = server.client();
    let mut producer = Producer::open(&mut client, "t", PLAIN).unwrap();
    let keyed = NewRecord { key: Some(b"foobar".to_vec()), ..value("v") };
    let (first, _) = producer.push(&keyed, 0).unwrap();
    assert_eq!(first, (-790_332_482_i32 & 0x7fff_ffff) % 4, "as Java's murmur2 says");
    assert_eq!(producer.push(&NewRecord { partition: Some(3), ..keyed.clone() }, 0).unwrap().0, 3);
    let refused = producer.push(&NewRecord { partition: Some(4), ..keyed }, 0).unwrap_err();
    assert!(matches!(refused, ClientError::NoPartition { partition: 4, count: 4, .. }), "{refused}");
}

#[test]
fn consumers_start_and_stop_where_they_are_told() {
    let server = TestServer::with_topic("t", 1);
    write(&server, PLAIN, &["a", "b", "c", "d", "e"]);
    for (offset, expected) in [
        ("start", &["a", "b", "c", "d", "e"][..]),
        ("end", &[]),
        ("3", &["d", "e"]),
        ("+2", &["c", "d", "e"]),
        ("-2", &["d", "e"]),
        ("-9", &["a", "b", "c", "d", "e"]),
        ("1:3", &["b", "c"]),
        ("@4", &["d", "e"]),
        ("@2:4", &["b", "c"]),
        ("@9999", &[]),
    ] {
        let records =
            if expected.is_empty() { plan_is_empty(&server, offset) } else { read(&server, offset) };
        assert_eq!(values(&records), expected, "{offset}");
    }
}

fn plan_is_empty(server: &TestServer, offset: &str) -> Vec<Record> {
    let mut client = server.client();
    let topic = client.topic("t", Missing::Report).unwrap();
    let range = place::parse(offset, 0).unwrap();
    let plan = Plan::resolve(&mut client, &topic, &[], range, Stop::AtEnd).unwrap();
    assert_eq!(plan.positions, BTreeMap::new(), "{offset}");
    Vec::new()
}

#[test]
fn an_offset_outside_the_log_is_told_with_where_it_starts() {
    let server = TestServer::with_topic("t", 1);
    server.state.lock().unwrap().topics.get_mut("t").unwrap()[0].start = 5;
    let mut client = server.client();
    let topic = client.topic("t", Missing::Report).unwrap();
    let error = client.fetch(&topic, &BTreeMap::from([(0, 1)])).err().unwrap();
    assert_eq!(error.to_string(), "fetch of t/0: OFFSET_OUT_OF_RANGE (offset 1; the log starts at 5)");
    assert!(!error.is_retriable());
}

#[test]
fn damage_between_broker_and_client_is_noticed() {
    let server = TestServer::with_topic("t", 1);
    write(&server, PLAIN, &["abc"]);
    {
        let mut state = server.state.lock().unwrap();
        let batch = &mut state.topics.get_mut("t").unwrap()[0].batches[0];
        let mut bytes = batch.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        *batch = bytes.into();
    }
    let mut client = server.client();
    let topic = client.topic("t", Missing::Report).unwrap();
    let error = client.fetch(&topic, &BTreeMap::from([(0, 0)])).err().unwrap();
    assert!(matches!(error, ClientError::Corrupt { offset: 0, .. }), "{error}");
    assert!(error.advice().unwrap().contains("check the broker's disk"));
}

#[test]
fn a_missing_topic_is_named_and_not_created_by_readers() {
    let server = TestServer::start(State::default());
    let error = server.client().topic("nowhere", Missing::Report).unwrap_err();
    assert_eq!(error.to_string(), "topic nowhere does not exist");
    assert!(server.state.lock().unwrap().topics.is_empty());
    assert_eq!(
        server.client().topic("nowhere", Missing::Create).unwrap().partitions.len(),
        1,
        "writers create it"
    );
}

#[test]
fn topics_are_created_once_and_deleted_once() {
    let server = TestServer::start(State::default());
    let mut client = server.client();
    let topic = NewTopic { name: "n".into(), partitions: 3, replication_factor: -1, configs: Vec::new() };
    let mut create = |run| client.create_topics(std::slice::from_ref(&topic), run).unwrap().remove(0).1;
    assert!(create(Run::Dry).is_ok());
    assert!(create(Run::Real).is_ok(), "a dry run creates nothing");
    let again = create(Run::Real).unwrap_err();
    assert!(matches!(again, ClientError::Refused { code, .. } if code == ErrorCode::TopicAlreadyExists));
    assert_eq!(client.metadata(None, Missing::Report).unwrap().topics[0].partitions.len(), 3);
    assert!(client.delete_topics(&["n".into()]).unwrap().remove(0).1.is_ok());
    assert!(client.delete_topics(&["n".into()]).unwrap().remove(0).1.is_err());
}

#[test]
fn storage_is_told_by_the_special_offsets() {
    let server = TestServer::with_topic("t", 1);
    write(&server, PLAIN, &["a", "b", "c", "d"]);
    {
        let mut state = server.state.lock().unwrap();
        let log = &mut state.topics.get_mut("t").unwrap()[0];
        (log.local_start, log.tiered_last) = (1, 2);
    }
    let mut client = server.client();
    let topic = client.topic("t", Missing::Report).unwrap();
    let partition = storage::gather(&mut client, &topic).unwrap()[&0];
    assert_eq!((partition.tiered_only(), partition.both(), partition.pending()), (Some(1), Some(2), Some(1)));
}

#[test]
fn an_old_broker_is_asked_in_its_own_versions() {
    let mut state = State { is_old: true, ..State::default() };
    state.offered.insert(ApiKey::ListOffsets.number(), (1, 7));
    state.offered.insert(ApiKey::Fetch.number(), (4, 11));
    state.offered.insert(ApiKey::Produce.number(), (0, 8));
    state.topics.insert("t".into(), logs(1));
    let server = TestServer::start(state);
    write(&server, PLAIN, &["a"]);
    assert_eq!(values(&read(&server, "start")), ["a"]);
    let mut client = server.client();
    let topic = client.topic("t", Missing::Report).unwrap();
    assert_eq!(client.offsets_if_known(&topic, Place::LatestTiered).unwrap(), BTreeMap::from([(0, None)]));
}

#[test]
fn no_version_in_common_is_said_so() {
    let mut state = State::default();
    state.offered.insert(ApiKey::Metadata.number(), (90, 99));
    let error = TestServer::start(state).client().metadata(None, Missing::Report).unwrap_err();
    assert!(matches!(error, ClientError::Version { key: ApiKey::Metadata, .. }), "{error}");
}

#[test]
fn nobody_there_says_what_to_do() {
    let error = super::Client::new(vec!["127.0.0.1:1".into()]).metadata(None, Missing::Report).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.advice().unwrap().contains("varve serve"));
}
