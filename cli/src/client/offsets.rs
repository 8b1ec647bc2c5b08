//! Offsets by time, or by one of Kafka's special names.

use std::collections::BTreeMap;

use varve_protocol::{
    ErrorCode, Request, Response,
    messages::{ListOffsetsRequest, list_offsets_request},
};

use super::{Client, ClientError, Code, Topic};
use crate::limits;

/// What ListOffsets is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Behind the last record.
    Latest,
    /// The first record that is kept.
    Earliest,
    /// The first record on the broker's own disk (ListOffsets 8).
    EarliestLocal,
    /// The last record in the object store (ListOffsets 9); none: -1.
    LatestTiered,
    /// The first record that is not in the object store (ListOffsets 11).
    EarliestPendingUpload,
    /// The first record at or after this time, in milliseconds; none: -1.
    Time(i64),
}

impl Place {
    const fn timestamp(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::EarliestLocal => -4,
            Self::LatestTiered => -5,
            Self::EarliestPendingUpload => -6,
            Self::Time(ms) => ms,
        }
    }

    /// The first version that knows it.
    const fn version_first(self) -> i16 {
        match self {
            Self::EarliestLocal => 8,
            Self::LatestTiered => 9,
            Self::EarliestPendingUpload => 11,
            _ => 1,
        }
    }
}

/// What a leader says of one partition.
type Answer = (i32, Result<i64, Code>);

impl Client {
    /// Offsets of the chosen partitions (all where `chosen` is empty). A partition without an answer is an error.
    pub fn offsets(
        &mut self,
        topic: &Topic,
        chosen: &[i32],
        place: Place,
    ) -> Result<BTreeMap<i32, i64>, ClientError> {
        let mut offsets = BTreeMap::new();
        for (leader, partitions) in topic.by_leader(chosen)? {
            for (partition, answer) in self.offsets_on(leader, &topic.name, &partitions, place)? {
                let subject = || format!("offset of {}/{partition}", topic.name);
                let offset = answer.map_err(|code| ClientError::refused(subject(), code, None))?;
                offsets.insert(partition, offset);
            }
        }
        Ok(offsets)
    }

    /// As [`Client::offsets`]; `None` where the broker does not know the place.
    pub fn offsets_if_known(
        &mut self,
        topic: &Topic,
        place: Place,
    ) -> Result<BTreeMap<i32, Option<i64>>, ClientError> {
        let mut offsets = BTreeMap::new();
        for (leader, partitions) in topic.by_leader(&[])? {
            if self.on(leader)?.version(varve_protocol::ApiKey::ListOffsets)? < place.version_first() {
                offsets.extend(partitions.iter().map(|partition| (*partition, None)));
                continue;
            }
            for (partition, answer) in self.offsets_on(leader, &topic.name, &partitions, place)? {
                let known = match answer {
                    Ok(offset) => Some(offset),
                    Err(code) if is_unknown_place(code) => None,
                    Err(code) => {
                        let subject = format!("offset of {}/{partition}", topic.name);
                        return Err(ClientError::refused(subject, code, None));
                    }
                };
                offsets.insert(partition, known);
            }
        }
        Ok(offsets)
    }

    /// Offsets of the partitions whose leaders can be asked now.
    pub fn offsets_within_reach(&mut self, topic: &Topic, place: Place) -> BTreeMap<i32, i64> {
        let mut led: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for (index, partition) in topic.partitions.iter().filter(|(_, partition)| partition.leader >= 0) {
            led.entry(partition.leader).or_default().push(*index);
        }
        let mut offsets = BTreeMap::new();
        for (leader, partitions) in led {
            let answers = self.offsets_on(leader, &topic.name, &partitions, place).unwrap_or_default();
            offsets.extend(answers.into_iter().filter_map(|(index, answer)| Some((index, answer.ok()?))));
        }
        offsets
    }

    fn offsets_on(
        &mut self,
        leader: i32,
        topic: &str,
        partitions: &[i32],
        place: Place,
    ) -> Result<Vec<Answer>, ClientError> {
        let request = Request::ListOffsets(list_offsets(topic, partitions, place));
        let Response::ListOffsets(response) = self.ask_node(leader, &request)? else {
            unreachable!("a response is of its request's key");
        };
        let answers = response.topics.into_iter().flat_map(|topic| topic.partitions);
        Ok(answers
            .map(|answer| {
                (answer.partition_index, Code::of(answer.error_code).map_or(Ok(answer.offset), Err))
            })
            .collect())
    }
}

fn is_unknown_place(code: Code) -> bool {
    [ErrorCode::UnsupportedVersion, ErrorCode::InvalidRequest, ErrorCode::UnsupportedForMessageFormat]
        .iter()
        .any(|unknown| code == *unknown)
}

fn list_offsets(topic: &str, partitions: &[i32], place: Place) -> ListOffsetsRequest {
    let partition = |index: &i32| {
        let mut partition = list_offsets_request::ListOffsetsPartition::default();
        partition.partition_index = *index;
        partition.timestamp = place.timestamp();
        partition
    };
    let mut named = list_offsets_request::ListOffsetsTopic::default();
    named.name = topic.into();
    named.partitions = partitions.iter().map(partition).collect();
    let mut request = ListOffsetsRequest::default();
    request.replica_id = -1;
    request.topics = vec![named];
    request.timeout_ms = limits::BROKER_TIMEOUT_MS;
    request
}
