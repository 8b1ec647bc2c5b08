//! A broker in memory for the tests of the client: real sockets and the real codec, nothing behind them.

#![allow(clippy::disallowed_types, reason = "the one listener of this room, for its tests")]

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use bytes::{Bytes, BytesMut};
use varve_common::{LeaderEpoch, Offset};
use varve_protocol::{
    ApiKey, ErrorCode, Request, RequestError, Response,
    batch::{BatchHeader, Batches, Caps, first_at_or_after, patch},
    decode_request, encode_response, encode_unsupported_api_versions, frame,
    messages::{
        ApiVersionsResponse, CreateTopicsResponse, DeleteTopicsResponse, FetchResponse,
        InitProducerIdResponse, ListOffsetsResponse, MetadataResponse, ProduceResponse, Uuid,
        create_topics_response, delete_topics_response, fetch_response, list_offsets_response,
        metadata_response, produce_response,
    },
    response::advertised,
};

/// What the broker holds, and how it misbehaves.
#[derive(Default)]
pub struct State {
    pub topics: BTreeMap<String, Vec<Log>>,
    /// Closes the connection instead of answering, after so many requests of this key have taken effect.
    pub lose_answer_of: Option<ApiKey>,
    /// Answers produce so often with NOT_LEADER_OR_FOLLOWER.
    pub not_leader: u32,
    /// Offers only these versions.
    pub offered: BTreeMap<i16, (i16, i16)>,
    /// Knows ApiVersions 0 only, and says so without a list.
    pub is_old: bool,
}

/// One partition.
#[derive(Default)]
pub struct Log {
    pub batches: Vec<Bytes>,
    pub start: i64,
    pub end: i64,
    pub local_start: i64,
    /// The last tiered offset, -1 for none.
    pub tiered_last: i64,
    producers: BTreeMap<i64, (i32, i64)>,
}

/// A running broker.
pub struct TestServer {
    pub address: String,
    pub state: Arc<Mutex<State>>,
}

impl TestServer {
    pub fn start(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(state));
        let (shared, own) = (Arc::clone(&state), address.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (shared, own) = (Arc::clone(&shared), own.clone());
                thread::spawn(move || serve(stream, &shared, &own));
            }
        });
        Self { address, state }
    }

    /// With one topic of so many partitions.
    pub fn with_topic(name: &str, partitions: usize) -> Self {
        let mut state = State::default();
        state.topics.insert(name.to_owned(), logs(partitions));
        Self::start(state)
    }

    pub fn client(&self) -> super::Client {
        super::Client::new(vec![self.address.clone()])
    }
}

pub fn logs(partitions: usize) -> Vec<Log> {
    (0..partitions).map(|_| Log { tiered_last: -1, ..Log::default() }).collect()
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, address: &str) {
    let mut received = BytesMut::new();
    let mut chunk = [0; 4096];
    loop {
        while let Some(frame) = frame::split(&mut received, 1 << 30).unwrap() {
            match answer(frame, &mut state.lock().unwrap(), address) {
                Answer::Bytes(bytes) => stream.write_all(&bytes).unwrap(),
                Answer::Nothing => {}
                Answer::Close => return,
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => received.extend_from_slice(&chunk[..count]),
        }
    }
}

enum Answer {
    Bytes(Bytes),
    Nothing,
    Close,
}

fn answer(frame: Bytes, state: &mut State, address: &str) -> Answer {
    let (header, request) = match decode_request(frame) {
        Ok(decoded) => decoded,
        Err(RequestError::UnsupportedVersion { correlation_id, is_api_versions: true, .. }) => {
            return Answer::Bytes(encode_unsupported_api_versions(correlation_id));
        }
        Err(other) => panic!("{other}"),
    };
    let key = header.key;
    if state.is_old && key == ApiKey::ApiVersions && header.version > 0 {
        let mut body = ApiVersionsResponse::default();
        body.error_code = ErrorCode::UnsupportedVersion.number();
        let response = Response::ApiVersions(body);
        return Answer::Bytes(encode_response(key, 0, header.correlation_id, &response).unwrap());
    }
    let Some(response) = respond(request, state, address, header.version) else { return Answer::Nothing };
    if state.lose_answer_of == Some(key) {
        state.lose_answer_of = None;
        return Answer::Close;
    }
    Answer::Bytes(encode_response(key, header.version, header.correlation_id, &response).unwrap())
}

fn respond(request: Request, state: &mut State, address: &str, version: i16) -> Option<Response> {
    Some(match request {
        Request::ApiVersions(_) => Response::ApiVersions(api_versions(state)),
        Request::Metadata(request) => {
            let names = request.topics.map(|topics| topics.into_iter().filter_map(|t| t.name));
            let names: Vec<String> = match names {
                Some(names) => names.map(|name| name.to_string()).collect(),
                None => state.topics.keys().cloned().collect(),
            };
            if request.allow_auto_topic_creation {
                for name in &names {
                    state.topics.entry(name.clone()).or_insert_with(|| logs(1));
                }
            }
            Response::Metadata(metadata(state, address, &names))
        }
        Request::CreateTopics(request) => {
            let mut body = CreateTopicsResponse::default();
            for topic in request.topics {
                let mut result = create_topics_response::CreatableTopicResult::default();
                let name = topic.name.to_string();
                result.name = topic.name;
                let is_known = state.topics.contains_key(&name);
                if is_known {
                    result.error_code = ErrorCode::TopicAlreadyExists.number();
                }
                if !is_known && !request.validate_only {
                    state.topics.insert(name, logs(topic.num_partitions.max(1) as usize));
                }
                body.topics.push(result);
            }
            Response::CreateTopics(body)
        }
        Request::DeleteTopics(request) => {
            let mut body = DeleteTopicsResponse::default();
            for name in request.topic_names {
                let mut result = delete_topics_response::DeletableTopicResult::default();
                if state.topics.remove(&name.to_string()).is_none() {
                    result.error_code = ErrorCode::UnknownTopicOrPartition.number();
                }
                result.name = Some(name);
                body.responses.push(result);
            }
            Response::DeleteTopics(body)
        }
        Request::InitProducerId(_) => {
            let mut body = InitProducerIdResponse::default();
            body.producer_id = 7;
            Response::InitProducerId(body)
        }
        Request::Produce(request) => {
            let has_answer = request.acks != 0;
            let response = produce(request, state);
            return has_answer.then_some(Response::Produce(response));
        }
        Request::ListOffsets(request) => Response::ListOffsets(list_offsets(&request, state, version)),
        Request::Fetch(request) => Response::Fetch(fetch(&request, state)),
        other => panic!("{:?} is not served here", other.key()),
    })
}

fn api_versions(state: &State) -> ApiVersionsResponse {
    let mut body = ApiVersionsResponse::default();
    body.api_keys = advertised();
    for row in &mut body.api_keys {
        if let Some((min, max)) = state.offered.get(&row.api_key) {
            (row.min_version, row.max_version) = (*min, *max);
        }
    }
    body
}

fn metadata(state: &State, address: &str, names: &[String]) -> MetadataResponse {
    let (host, port) = address.split_once(':').unwrap();
    let mut broker = metadata_response::MetadataResponseBroker::default();
    (broker.node_id, broker.host, broker.port) = (1, host.into(), port.parse().unwrap());
    let topic = |name: &String| {
        let mut topic = metadata_response::MetadataResponseTopic::default();
        topic.name = Some(name.as_str().into());
        match state.topics.get(name) {
            None => topic.error_code = ErrorCode::UnknownTopicOrPartition.number(),
            Some(logs) => {
                topic.topic_id = Uuid::from_bytes([9; 16]);
                topic.partitions = (0..logs.len() as i32)
                    .map(|index| {
                        let mut partition = metadata_response::MetadataResponsePartition::default();
                        (partition.partition_index, partition.leader_id) = (index, 1);
                        partition
                    })
                    .collect();
            }
        }
        topic
    };
    let mut body = MetadataResponse::default();
    (body.brokers, body.controller_id) = (vec![broker], 1);
    body.topics = names.iter().map(topic).collect();
    body
}

fn produce(request: varve_protocol::messages::ProduceRequest, state: &mut State) -> ProduceResponse {
    let mut body = ProduceResponse::default();
    for topic in request.topic_data {
        let mut answers = produce_response::TopicProduceResponse::default();
        for data in topic.partition_data {
            let mut answer = produce_response::PartitionProduceResponse::default();
            answer.index = data.index;
            if state.not_leader > 0 {
                state.not_leader -= 1;
                answer.error_code = ErrorCode::NotLeaderOrFollower.number();
            } else {
                let log = &mut state.topics.get_mut(&topic.name.to_string()).unwrap()[data.index as usize];
                answer.base_offset = log.append(&data.records.unwrap());
            }
            answers.partition_responses.push(answer);
        }
        answers.name = topic.name;
        body.responses.push(answers);
    }
    body
}

impl Log {
    /// Appends a batch once: what a producer sends again is answered with its offset.
    fn append(&mut self, batch: &Bytes) -> i64 {
        let header = BatchHeader::read(batch).unwrap();
        assert!(header.crc_matches());
        let meta = *header.meta();
        if let Some((sequence, base)) = self.producers.get(&meta.producer_id)
            && meta.producer_id >= 0
            && *sequence == meta.base_sequence
        {
            return *base;
        }
        let base = self.end;
        let mut stored = batch.to_vec();
        patch(&mut stored, Offset(base as u64), LeaderEpoch(0));
        self.batches.push(stored.into());
        self.end += i64::from(meta.count);
        self.producers.insert(meta.producer_id, (meta.base_sequence, base));
        base
    }

    fn offset_at(&self, timestamp: i64, version: i16) -> Result<i64, ErrorCode> {
        let version_first = match timestamp {
            -4 => 8,
            -5 => 9,
            -6 => 11,
            _ => 1,
        };
        if version < version_first {
            return Err(ErrorCode::UnsupportedVersion);
        }
        Ok(match timestamp {
            -1 => self.end,
            -2 => self.start,
            -4 => self.local_start,
            -5 => self.tiered_last,
            -6 => self.start.max(self.tiered_last + 1),
            ms => {
                let found = self.batches.iter().find_map(|batch| {
                    first_at_or_after(&BatchHeader::read(batch).unwrap(), ms, Caps::default()).unwrap()
                });
                found.map_or(-1, |found| found.offset)
            }
        })
    }
}

fn list_offsets(
    request: &varve_protocol::messages::ListOffsetsRequest,
    state: &State,
    version: i16,
) -> ListOffsetsResponse {
    let mut body = ListOffsetsResponse::default();
    for topic in &request.topics {
        let mut answers = list_offsets_response::ListOffsetsTopicResponse::default();
        answers.name = topic.name.clone();
        for partition in &topic.partitions {
            let mut answer = list_offsets_response::ListOffsetsPartitionResponse::default();
            answer.partition_index = partition.partition_index;
            let log = &state.topics[&topic.name.to_string()][partition.partition_index as usize];
            match log.offset_at(partition.timestamp, version) {
                Ok(offset) => answer.offset = offset,
                Err(error) => answer.error_code = error.number(),
            }
            answers.partitions.push(answer);
        }
        body.topics.push(answers);
    }
    body
}

fn fetch(request: &varve_protocol::messages::FetchRequest, state: &State) -> FetchResponse {
    let mut body = FetchResponse::default();
    for topic in &request.topics {
        let mut answers = fetch_response::FetchableTopicResponse::default();
        answers.topic = topic.topic.clone();
        for partition in &topic.partitions {
            let log = &state.topics[&topic.topic.to_string()][partition.partition as usize];
            let mut answer = fetch_response::PartitionData::default();
            answer.partition_index = partition.partition;
            (answer.high_watermark, answer.log_start_offset) = (log.end, log.start);
            if partition.fetch_offset < log.start || partition.fetch_offset > log.end {
                answer.error_code = ErrorCode::OffsetOutOfRange.number();
            }
            let mut records = BytesMut::new();
            for batch in &log.batches {
                let header = BatchHeader::read(batch).unwrap();
                if header.meta().next_offset() > partition.fetch_offset {
                    records.extend_from_slice(batch);
                }
            }
            answer.records = Some(records.freeze());
            answers.partitions.push(answer);
        }
        body.responses.push(answers);
    }
    body
}

/// How many records a log's batches hold.
pub fn stored(log: &Log) -> usize {
    log.batches
        .iter()
        .flat_map(|bytes| Batches::new(bytes))
        .map(|batch| batch.unwrap().meta().count as usize)
        .sum()
}
