//! Writing records: batches per partition, idempotent unless asked otherwise.
//!
//! One request per leader is in flight. A batch that may or may not have been stored is sent again with the same
//! sequence number, so that an idempotent producer stores it once.

use std::{collections::BTreeMap, thread, time::Instant};

use bytes::Bytes;
use varve_protocol::{
    ErrorCode, Request, Response,
    batch::{BatchBuilder, Codec},
    messages::{InitProducerIdRequest, ProduceRequest, produce_request, produce_response},
};

use super::{Client, ClientError, Code, Topic, error, partitioner::partition_of};
use crate::limits;

/// When a batch counts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// On every in-sync replica.
    All,
    /// On the leader.
    Leader,
    /// Never asked.
    None,
}

impl Acks {
    const fn number(self) -> i16 {
        match self {
            Self::All => -1,
            Self::Leader => 1,
            Self::None => 0,
        }
    }
}

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub codec: Codec,
    pub acks: Acks,
    /// All records go there.
    pub partition: Option<i32>,
}

/// A record to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp: Option<i64>,
    pub partition: Option<i32>,
}

/// A batch that the broker has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub partition: i32,
    /// Unknown without acks, and for a batch that the broker had already and no longer remembers where.
    pub base_offset: Option<i64>,
    pub count: u32,
}

/// Who the broker takes an idempotent producer for.
#[derive(Clone, Copy, Debug)]
struct Identity {
    id: i64,
    epoch: i16,
}

/// One topic's producer.
pub struct Producer<'a> {
    client: &'a mut Client,
    topic: Topic,
    options: Options,
    identity: Option<Identity>,
    sequences: BTreeMap<i32, i32>,
    open: BTreeMap<i32, BatchBuilder>,
    sticky: usize,
}

struct Sealed {
    batch: Bytes,
    count: u32,
}

impl<'a> Producer<'a> {
    /// For `topic`, which the broker makes where it is missing and allows that. Idempotent with acks from all.
    pub fn open(client: &'a mut Client, topic: &str, options: Options) -> Result<Self, ClientError> {
        let topic = client.topic(topic, true)?;
        if let Some(partition) = options.partition {
            topic.leader(partition)?;
        }
        let identity = match options.acks {
            Acks::All => super::retrying(limits::METADATA_WAIT_MAX, || init_producer_id(client))?,
            Acks::Leader | Acks::None => None,
        };
        Ok(Self {
            client,
            topic,
            options,
            identity,
            sequences: BTreeMap::new(),
            open: BTreeMap::new(),
            sticky: 0,
        })
    }

    /// Adds a record to its partition's open batch; writes all batches first where it is full. `now_ms` stamps
    /// records without a time of their own. Returns the record's partition, and what was written.
    pub fn push(&mut self, record: &NewRecord, now_ms: i64) -> Result<(i32, Vec<Written>), ClientError> {
        let partition = self.partition(record)?;
        let bytes = record_bytes(record);
        let full = self.open.get(&partition).is_some_and(|open| {
            open.records_bytes() + bytes > limits::BATCH_BYTES_MAX
                || open.count() >= limits::BATCH_RECORDS_MAX
        });
        let written = if full { self.flush()? } else { Vec::new() };
        let headers: Vec<(&str, Option<&[u8]>)> =
            record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        let open = self.open.entry(partition).or_insert_with(|| BatchBuilder::new(self.options.codec));
        let timestamp = record.timestamp.unwrap_or(now_ms);
        open.push_with_headers(timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
        Ok((partition, written))
    }

    fn partition(&self, record: &NewRecord) -> Result<i32, ClientError> {
        if let Some(partition) = self.options.partition.or(record.partition) {
            return self.topic.leader(partition).map(|_| partition);
        }
        let count = self.topic.partitions.len().max(1);
        Ok(match &record.key {
            Some(key) => partition_of(key, count as i32),
            None => (self.sticky % count) as i32,
        })
    }

    /// Writes every open batch, again and again until the broker has taken it or the time is over.
    pub fn flush(&mut self) -> Result<Vec<Written>, ClientError> {
        self.sticky = self.sticky.wrapping_add(1);
        let mut waiting = self.seal();
        let mut written = Vec::new();
        let deadline = Instant::now() + limits::DELIVERY_TIMEOUT;
        while !waiting.is_empty() {
            let failed = self.write_once(&mut waiting, &mut written);
            let Err(error) = failed else { continue };
            if !error.is_retriable() || Instant::now() >= deadline {
                return Err(error);
            }
            thread::sleep(limits::RETRY_BACKOFF);
            match self.client.topic(&self.topic.name, false) {
                Ok(topic) => self.topic = topic,
                Err(error) if error.is_retriable() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    fn seal(&mut self) -> BTreeMap<i32, Sealed> {
        let mut sealed = BTreeMap::new();
        for (partition, open) in std::mem::take(&mut self.open) {
            let count = open.count();
            let batch = match self.identity {
                None => open.build(),
                Some(Identity { id, epoch }) => {
                    let sequence = self.sequences.entry(partition).or_insert(0);
                    let base = *sequence;
                    *sequence = ((i64::from(base) + i64::from(count)) % (1 << 31)) as i32;
                    open.producer(id, epoch, base).build()
                }
            };
            sealed.insert(partition, Sealed { batch, count });
        }
        sealed
    }

    /// Sends what waits once, to all leaders; what is taken leaves `waiting`.
    fn write_once(
        &mut self,
        waiting: &mut BTreeMap<i32, Sealed>,
        written: &mut Vec<Written>,
    ) -> Result<(), ClientError> {
        let chosen: Vec<i32> = waiting.keys().copied().collect();
        let mut failed = Ok(());
        for (leader, partitions) in self.topic.by_leader(&chosen)? {
            let request = Request::Produce(self.request(&partitions, waiting));
            if self.options.acks == Acks::None {
                self.client.tell_node(leader, &request)?;
                for partition in partitions {
                    let count = waiting.remove(&partition).map_or(0, |sealed| sealed.count);
                    written.push(Written { partition, base_offset: None, count });
                }
                continue;
            }
            match self.client.ask_node(leader, &request) {
                Ok(Response::Produce(response)) => {
                    let answers = response.responses.into_iter().flat_map(|topic| topic.partition_responses);
                    for answer in answers {
                        match self.outcome(&answer) {
                            Ok(base_offset) => {
                                let partition = answer.index;
                                let count = waiting.remove(&partition).map_or(0, |sealed| sealed.count);
                                written.push(Written { partition, base_offset, count });
                            }
                            Err(error) => failed = keep_worst(failed, error),
                        }
                    }
                }
                Ok(_) => unreachable!("a response is of its request's key"),
                Err(error) => failed = keep_worst(failed, error),
            }
        }
        failed
    }

    fn request(&self, partitions: &[i32], waiting: &BTreeMap<i32, Sealed>) -> ProduceRequest {
        let data = |index: &i32| {
            let mut data = produce_request::PartitionProduceData::default();
            data.index = *index;
            data.records = Some(waiting[index].batch.clone());
            data
        };
        let mut topic = produce_request::TopicProduceData::default();
        topic.name = self.topic.name.as_str().into();
        topic.partition_data = partitions.iter().map(data).collect();
        let mut request = ProduceRequest::default();
        request.transactional_id = None;
        request.acks = self.options.acks.number();
        request.timeout_ms = limits::BROKER_TIMEOUT_MS;
        request.topic_data = vec![topic];
        request
    }

    fn outcome(
        &self,
        answer: &produce_response::PartitionProduceResponse,
    ) -> Result<Option<i64>, ClientError> {
        match Code::of(answer.error_code) {
            None => Ok(Some(answer.base_offset).filter(|offset| *offset >= 0)),
            Some(code) if code == ErrorCode::DuplicateSequenceNumber => Ok(None),
            Some(code) => {
                let subject = format!("produce to {}/{}", self.topic.name, answer.index);
                let message = answer.error_message.as_ref().map(ToString::to_string);
                Err(ClientError::refused(subject, code, message))
            }
        }
    }
}

/// An error that ends the command wins over one that is tried again.
fn keep_worst(failed: Result<(), ClientError>, error: ClientError) -> Result<(), ClientError> {
    match failed {
        Err(first) if !first.is_retriable() => Err(first),
        _ => Err(error),
    }
}

fn record_bytes(record: &NewRecord) -> usize {
    let sized = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let headers: usize = record.headers.iter().map(|(key, value)| key.len() + sized(value)).sum();
    sized(&record.key) + sized(&record.value) + headers
}

/// `None` where the broker knows no producer ids.
fn init_producer_id(client: &mut Client) -> Result<Option<Identity>, ClientError> {
    let mut request = InitProducerIdRequest::default();
    request.transactional_id = None;
    request.transaction_timeout_ms = limits::BROKER_TIMEOUT_MS;
    match client.ask(&Request::InitProducerId(request)) {
        Ok(Response::InitProducerId(response)) => {
            error::check("producer id", response.error_code, None)?;
            Ok(Some(Identity { id: response.producer_id, epoch: response.producer_epoch }))
        }
        Ok(_) => unreachable!("a response is of its request's key"),
        Err(ClientError::Version { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
