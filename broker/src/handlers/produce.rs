//! Produce: one batch per partition, checked, handed over in order, answered when committed.

use std::future::Future;

use bytes::Bytes;
use futures_util::future::join_all;
use varve_common::{GroupId, TopicId, clock::BoxFuture};
use varve_protocol::{
    ErrorCode,
    batch::{self, BatchMeta, RejectedRecord},
    limits::REJECTED_RECORDS_MAX,
    messages::{
        ProduceRequest, ProduceResponse, StrBytes,
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::{BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse},
    },
};
use varve_replica::{Refusal, metadata::Topic};

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
    groups,
    partitions::{self, TopicRef},
};
use crate::{
    config::topic::ProduceRules,
    metrics::Handles,
    net::Context,
    node::{Append, Appended, Node, majority},
};

/// Why a batch was not stored, with a text for newer clients.
struct Refused {
    code: ErrorCode,
    message: Option<String>,
    /// Single records that the topic does not take.
    records: Vec<RejectedRecord>,
}

impl Refused {
    const fn with(code: ErrorCode, message: String) -> Self {
        Self { code, message: Some(message), records: Vec::new() }
    }

    /// Names no more single records than what is left of those that one answer names.
    fn within(mut self, left: &mut usize) -> Self {
        self.records.truncate(*left);
        *left -= self.records.len();
        self
    }
}

impl From<batch::Invalid> for Refused {
    fn from(error: batch::Invalid) -> Self {
        let refused = Self::with(error.error_code(), error.to_string());
        match error {
            batch::Invalid::Rejected(rejected) => Self { records: rejected.records().to_vec(), ..refused },
            _ => refused,
        }
    }
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None, records: Vec::new() }
    }
}

/// A batch that is on its way, or was refused.
type Outcome = BoxFuture<'static, Result<Appended, Refusal>>;

/// What a Produce request comes to.
pub enum Answered {
    /// The client waits for this.
    Told(ProduceResponse),
    /// acks=0, and all went well.
    Silent,
    /// acks=0, and something was refused: closing is the only way to tell, and makes the client ask for metadata.
    Broken,
}

/// On the wire: all replicas that are in sync.
const ALL: i16 = -1;
/// Before this version clients are not supposed to know zstd.
const ZSTD_FROM: i16 = 7;

/// Checks every batch and hands it over before it returns; the future ends with all outcomes.
///
/// The client's timeout is not used: an append that is under way cannot be taken back, and clients retry by
/// themselves.
pub fn start(
    node: &Node,
    context: &Context,
    version: i16,
    request: ProduceRequest,
) -> impl Future<Output = Answered> + Send + 'static {
    let acks = request.acks;
    let refused = refuse_all(&request);
    let handles = node.metrics.handles.clone();
    let mut records_left = REJECTED_RECORDS_MAX;
    let topics: Vec<_> = request
        .topic_data
        .into_iter()
        .map(|topic| {
            let reference = reference(&topic);
            let TopicProduceData { name, topic_id, partition_data, .. } = topic;
            let started: Vec<_> = partition_data
                .into_iter()
                .map(|data| {
                    let index = data.index;
                    let outcome = match refused {
                        Some(code) => Err(code.into()),
                        None => hand_over(node, context, (version, acks), &reference, data),
                    };
                    (index, outcome.map_err(|refused: Refused| refused.within(&mut records_left)))
                })
                .collect();
            (name, topic_id, started)
        })
        .collect();
    async move {
        let mut response = ProduceResponse::default();
        for (name, topic_id, started) in topics {
            let answers = started.into_iter().map(|(index, outcome)| partition(index, outcome, &handles));
            let mut topic = TopicProduceResponse::default();
            topic.partition_responses = join_all(answers).await;
            (topic.name, topic.topic_id) = (name, topic_id);
            response.responses.push(topic);
        }
        match acks {
            0 if is_sound(&response) => Answered::Silent,
            0 => Answered::Broken,
            _ => Answered::Told(response),
        }
    }
}

fn is_sound(response: &ProduceResponse) -> bool {
    let mut partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    partitions.all(|partition| partition.error_code == ErrorCode::None.number())
}

/// What is wrong with the request as a whole.
fn refuse_all(request: &ProduceRequest) -> Option<ErrorCode> {
    match request.acks {
        -1..=1 => request.transactional_id.as_ref().map(|_| ErrorCode::TransactionalIdAuthorizationFailed),
        _ => Some(ErrorCode::InvalidRequiredAcks),
    }
}

/// By name up to version 12, by id from 13 on: then there is no name.
fn reference(topic: &TopicProduceData) -> TopicRef {
    if !topic.name.is_empty() {
        TopicRef::Name(topic.name.as_str().to_owned())
    } else {
        TopicRef::Id(TopicId(topic.topic_id.to_bytes()))
    }
}

fn hand_over(
    node: &Node,
    context: &Context,
    (version, acks): (i16, i16),
    reference: &TopicRef,
    data: PartitionProduceData,
) -> Result<(Outcome, BatchMeta), Refused> {
    if let TopicRef::Name(name) = reference {
        authorize(context, Operation::Write, Resource::Topic(name))?;
    }
    let image = node.backend.image();
    let topic = reference.find(&image)?;
    authorize(context, Operation::Write, Resource::Topic(&topic.name))?;
    // What is in there is the coordinators'.
    if groups::is_internal(&topic.name) {
        return Err(ErrorCode::InvalidTopicException.into());
    }
    let served = partitions::find(node, topic, data.index)?;
    served.whole()?;
    let batch = data.records.unwrap_or_default();
    let rules = image.produce_rules(topic, || ProduceRules::from(&node.effective(topic)));
    let (batch, meta) = check(node, rules, version, batch)?;
    let mut replicas_min = 0;
    if acks == ALL {
        replicas_min = check_in_sync(node, rules, topic, data.index, served.group)
            .inspect_err(|_| node.backend.missed(served.group, &meta))?;
    }
    let log_append_time = rules.log_append_time;
    let append = Append { batch, meta, log_append_time, replicas_min };
    Ok((node.backend.append(served.group, append), meta))
}

/// Everything that Kafka's LogValidator checks, and the topic's bounds on size and time. The batch as it is to be stored, which is
/// another one where the topic wants another codec.
fn check(
    node: &Node,
    rules: &ProduceRules,
    version: i16,
    sent: Bytes,
) -> Result<(Bytes, BatchMeta), Refused> {
    let limits = limits_of(rules, node.clock.wall_ms());
    let validate = |limits: &batch::Limits| batch::validate(&sent, limits);
    let Some(meta) = batch::BatchHeader::read(&sent).ok().map(|header| *header.meta()) else {
        let meta = validate(&limits)?;
        return Ok((sent, meta));
    };
    if version < ZSTD_FROM && meta.codec == batch::Codec::Zstd {
        return Err(ErrorCode::UnsupportedCompressionType.into());
    }
    if let Some(target) = rules.stored.filter(|target| meta.codec != target.codec) {
        let recompress = |limits: &batch::Limits| batch::recompress(&sent, limits, target);
        return Ok(node.opened.open(&meta, sent.len(), &limits, recompress)?);
    }
    let is_opened = meta.codec != batch::Codec::None && limits.looks_inside(&meta);
    let meta = match is_opened {
        true => node.opened.open(&meta, sent.len(), &limits, validate),
        false => validate(&limits),
    }?;
    Ok((sent, meta))
}

fn limits_of(rules: &ProduceRules, now_ms: i64) -> batch::Limits {
    let limits = batch::Limits {
        batch_bytes_max: rules.batch_bytes_max,
        keys: if rules.compacted { batch::validate::Keys::Required } else { batch::validate::Keys::Optional },
        ..batch::Limits::default()
    };
    if rules.log_append_time {
        return limits;
    }
    // Where nothing is too old nobody looks: the default of the past reaches behind all timestamps.
    let earliest = now_ms.saturating_sub(rules.before_ms_max);
    batch::Limits {
        earliest: if earliest > 0 { earliest } else { i64::MIN },
        latest: now_ms.saturating_add(rules.after_ms_max),
        ..limits
    }
}

/// Whether enough replicas keep up: what is appended while they do not would not be acknowledged. How many must have the batch,
/// where that is more than the quorum that has whatever is committed.
fn check_in_sync(
    node: &Node,
    rules: &ProduceRules,
    topic: &Topic,
    index: i32,
    group: GroupId,
) -> Result<u32, Refused> {
    let replicas = usize::try_from(index).ok().and_then(|index| topic.partitions.get(index));
    let replicas = replicas.map_or(1, |partition| partition.replicas.len());
    let wanted = rules.replicas_min.unwrap_or_else(|| majority(replicas));
    // The leader is one: what needs no other is the common case on a single node.
    let in_sync = if wanted > 1 { node.backend.leadership(group) } else { return Ok(0) };
    let in_sync = in_sync.map(|known| known.in_sync).unwrap_or_default();
    if in_sync.len() >= wanted {
        return Ok(if wanted > majority(replicas) { u32::try_from(wanted).unwrap_or(u32::MAX) } else { 0 });
    }
    let nodes: Vec<String> = in_sync.iter().map(|replica| replica.node().to_string()).collect();
    let message = format!(
        "The size of the current ISR : Set({}) is insufficient to satisfy the min.isr requirement of {wanted} for partition {}-{index}",
        nodes.join(", "),
        topic.name
    );
    Err(Refused::with(ErrorCode::NotEnoughReplicas, message))
}

async fn partition(
    index: i32,
    started: Result<(Outcome, BatchMeta), Refused>,
    handles: &Handles,
) -> PartitionProduceResponse {
    let outcome = match started {
        Ok((outcome, meta)) => outcome
            .await
            .map(|appended| (appended, meta))
            .map_err(|refusal| Refused::with(code_of(&refusal), refusal.to_string())),
        Err(refused) => Err(refused),
    };
    let mut response = PartitionProduceResponse::default();
    response.index = index;
    match outcome {
        Ok((appended, meta)) => {
            count(handles, &appended, &meta);
            response.base_offset = appended.base_offset.to_wire();
            response.log_append_time_ms = appended.append_time_ms;
            response.log_start_offset = appended.log_start.to_wire();
        }
        Err(refused) => {
            response.error_code = refused.code.number();
            response.error_message = refused.message.map(StrBytes::from);
            response.record_errors = refused.records.iter().map(of_record).collect();
            (response.base_offset, response.log_append_time_ms, response.log_start_offset) = (-1, -1, -1);
        }
    }
    response
}

/// As everybody is told, but for what is refused for a moment: of the errors that producers retry that one says that nothing was appended.
/// REQUEST_TIMED_OUT leaves it open, and librdkafka before 2.3 (kcat of many distributions) then takes the OUT_OF_ORDER_SEQUENCE_NUMBER of
/// the next batch for its end.
fn code_of(refusal: &Refusal) -> ErrorCode {
    match refusal {
        Refusal::Throttled | Refusal::Unheard => ErrorCode::NotEnoughReplicas,
        _ => refusal.code(),
    }
}

fn of_record(rejected: &RejectedRecord) -> BatchIndexAndErrorMessage {
    let mut error = BatchIndexAndErrorMessage::default();
    error.batch_index = rejected.place.cast_signed();
    error.batch_index_error_message = Some(rejected.fault.to_string().into());
    error
}

fn count(handles: &Handles, appended: &Appended, meta: &BatchMeta) {
    if appended.duplicate {
        handles.produce_duplicates.inc();
        return;
    }
    handles.produce_batches.inc();
    handles.produce_records.inc_by(u64::from(meta.count));
    handles.produce_bytes.inc_by(u64::from(meta.bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_appended_is_not_told_as_if_it_might_have_been() {
        // librdkafka's MSG_NOT_PERSISTED among those that it retries without asking who leads.
        for refusal in [Refusal::Throttled, Refusal::Unheard] {
            assert_eq!(code_of(&refusal), ErrorCode::NotEnoughReplicas);
        }
        assert_eq!(code_of(&Refusal::TooFewInSync), ErrorCode::NotEnoughReplicasAfterAppend);
    }
}
