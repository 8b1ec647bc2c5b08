//! Reading partitions from given offsets on.

use std::collections::BTreeMap;

use bytes::Bytes;
use varve_protocol::{
    ErrorCode, Request, Response,
    batch::{BatchHeader, Batches, Caps, HeaderError, Records},
    messages::{FetchRequest, fetch_request, fetch_response},
};

use super::{Client, ClientError, Code, Topic, error};
use crate::{limits, record::Record};

/// What one Fetch brought of a partition.
pub struct Fetched {
    pub partition: i32,
    /// Records from the asked offset on, in order; control batches are left out.
    pub records: Vec<Record>,
    /// Where to go on.
    pub next: i64,
}

impl Client {
    /// One round over all leaders: what lies at `positions` (partition to offset), waiting a little at the end.
    pub fn fetch(
        &mut self,
        topic: &Topic,
        positions: &BTreeMap<i32, i64>,
    ) -> Result<Vec<Fetched>, ClientError> {
        let chosen: Vec<i32> = positions.keys().copied().collect();
        let leaders = topic.by_leader(&chosen)?;
        let wait_ms = if leaders.len() == 1 { limits::FETCH_WAIT_MS } else { limits::FETCH_WAIT_SHARED_MS };
        let mut fetched = Vec::new();
        for (leader, partitions) in leaders {
            let request = Request::Fetch(request(&topic.name, &partitions, positions, wait_ms));
            let Response::Fetch(response) = self.ask_node(leader, &request)? else {
                unreachable!("a response is of its request's key");
            };
            error::check(&format!("fetch of {}", topic.name), response.error_code, None)?;
            for data in response.responses.into_iter().flat_map(|topic| topic.partitions) {
                if let Some(&from) = positions.get(&data.partition_index) {
                    fetched.push(read(&topic.name, from, data)?);
                }
            }
        }
        Ok(fetched)
    }
}

fn request(topic: &str, partitions: &[i32], positions: &BTreeMap<i32, i64>, wait_ms: i32) -> FetchRequest {
    let partition = |index: &i32| {
        let mut partition = fetch_request::FetchPartition::default();
        partition.partition = *index;
        partition.fetch_offset = positions[index];
        partition.partition_max_bytes = limits::FETCH_PARTITION_BYTES_MAX;
        partition
    };
    let mut named = fetch_request::FetchTopic::default();
    named.topic = topic.into();
    named.partitions = partitions.iter().map(partition).collect();
    let mut request = FetchRequest::default();
    request.max_wait_ms = wait_ms;
    request.min_bytes = 1;
    request.max_bytes = limits::FETCH_BYTES_MAX;
    request.topics = vec![named];
    request
}

fn read(topic: &str, from: i64, data: fetch_response::PartitionData) -> Result<Fetched, ClientError> {
    let partition = data.partition_index;
    if let Some(code) = Code::of(data.error_code) {
        let kept = (code == ErrorCode::OffsetOutOfRange && data.log_start_offset >= 0)
            .then(|| format!("offset {from}; the log starts at {}", data.log_start_offset));
        return Err(ClientError::refused(format!("fetch of {topic}/{partition}"), code, kept));
    }
    let mut fetched = Fetched { partition, records: Vec::new(), next: from };
    let records = data.records.unwrap_or_default();
    read_batches(topic, &records, &mut fetched)?;
    Ok(fetched)
}

fn read_batches(topic: &str, bytes: &Bytes, fetched: &mut Fetched) -> Result<(), ClientError> {
    for batch in Batches::new(bytes) {
        let corrupt = |cause: String| ClientError::Corrupt {
            topic: topic.to_owned(),
            partition: fetched.partition,
            offset: fetched.next,
            cause,
        };
        let batch = match batch {
            Ok(batch) => batch,
            // Brokers cut the last batch where max_bytes ends.
            Err(HeaderError::Truncated { .. }) => return Ok(()),
            Err(cause) => return Err(corrupt(cause.to_string())),
        };
        if !batch.crc_matches() {
            return Err(corrupt("the crc of the batch does not match".into()));
        }
        let records = if batch.meta().is_control {
            Vec::new()
        } else {
            read_records(topic, &batch, fetched).map_err(|cause| unsound(topic, fetched, &batch, cause))?
        };
        fetched.records.extend(records);
        fetched.next = fetched.next.max(batch.meta().next_offset());
    }
    Ok(())
}

fn unsound(topic: &str, fetched: &Fetched, batch: &BatchHeader<'_>, cause: String) -> ClientError {
    let meta = batch.meta();
    ClientError::Unsound {
        topic: topic.to_owned(),
        partition: fetched.partition,
        offsets: meta.base_offset..meta.next_offset(),
        cause,
    }
}

fn read_records(topic: &str, batch: &BatchHeader<'_>, fetched: &Fetched) -> Result<Vec<Record>, String> {
    let records = Records::read(batch, Caps::default()).map_err(|cause| cause.to_string())?;
    let mut read = Vec::new();
    for record in records.iter() {
        let record = record.map_err(|cause| cause.to_string())?;
        if record.offset >= fetched.next {
            read.push(Record::of(topic, fetched.partition, &record));
        }
    }
    Ok(read)
}
