//! Fetch: whole batches below the watermark, waiting for more where the client asks.
//!
//! ```text
//! request ─► session (what is wanted: KIP-227) ─► pass over the partitions ─► enough, an error, or time is up? ─► answer
//!                                                   ▲                            │ no
//!                                                   └── a watermark moved, ◄─────┘
//!                                                       cold records arrived
//! ```
//! Nothing polls: a waiting fetch sleeps on the watches of its partitions. Records from the object store come side by side; where
//! others are enough, or time is up, the answer leaves without them, and the next fetch finds them in the cache.

mod pass;
mod session;

use std::time::Duration;

use tokio::time::Instant;
use varve_protocol::{
    ErrorCode,
    messages::{
        FetchRequest, FetchResponse, StrBytes, Uuid,
        fetch_response::{FetchableTopicResponse, PartitionData},
    },
};

pub use session::Sessions;

use self::{
    pass::{Codecs, Fetched, Pass},
    session::{Opened, Plan, Wanted},
};
use super::{Shared, partitions::TopicRef};
use crate::net::Context;

/// From this version on topics are named by id.
const IDS_FROM: i16 = 13;

/// Before this version clients are not supposed to know zstd.
const ZSTD_FROM: i16 = 10;

/// The longest wait, whatever the client asks: a connection's requests wait behind it.
const WAIT_MAX: Duration = Duration::from_secs(300);

pub async fn answer(
    shared: &Shared,
    context: &Context,
    version: i16,
    request: FetchRequest,
) -> FetchResponse {
    let began = Instant::now();
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let question = Question::new(shared, version, &request);
    let plan = match shared.sessions.open(&request, version >= IDS_FROM, &*shared.node.entropy) {
        Ok(plan) => plan,
        Err(code) => return failed(code),
    };
    shared.node.metrics.handles.fetch_sessions.set(shared.sessions.count());
    let fetched = gather(shared, context, &question, &plan.wanted, began + wait).await;
    let fetched = shared.sessions.close(&plan, fetched);
    count(shared, &fetched);
    respond(&plan, fetched)
}

fn failed(code: ErrorCode) -> FetchResponse {
    let mut response = FetchResponse::default();
    response.error_code = code.number();
    response
}

/// What the request says beside its partitions.
struct Question {
    bytes_min: usize,
    bytes_max: usize,
    read_committed: bool,
    codecs: Codecs,
}

impl Question {
    fn new(shared: &Shared, version: i16, request: &FetchRequest) -> Self {
        let size = |size: i32| usize::try_from(size).unwrap_or(0);
        let bytes_max = size(request.max_bytes).min(shared.node.fetch.bytes_max as usize);
        Self {
            bytes_min: size(request.min_bytes).min(bytes_max),
            bytes_max,
            read_committed: request.isolation_level == 1,
            codecs: if version < ZSTD_FROM { Codecs::BeforeZstd } else { Codecs::All },
        }
    }
}

/// Passes until there is enough, something is wrong, or time is up.
async fn gather(
    shared: &Shared,
    context: &Context,
    question: &Question,
    wanted: &[Wanted],
    deadline: Instant,
) -> Vec<Fetched> {
    let mut pass = Pass::new(&shared.node, context, question, wanted);
    loop {
        pass.visit().await;
        let enough = pass.bytes() >= question.bytes_min || pass.is_urgent() || wanted.is_empty();
        if enough || Instant::now() >= deadline {
            pass.linger().await;
            return pass.finish();
        }
        pass.wait(deadline).await;
    }
}

fn count(shared: &Shared, fetched: &[Fetched]) {
    let handles = &shared.node.metrics.handles;
    for records in fetched.iter().filter_map(|fetched| fetched.data.records.as_ref()) {
        handles.fetch_bytes.inc_by(records.len() as u64);
        for batch in varve_protocol::batch::Batches::new(records).flatten() {
            handles.fetch_batches.inc();
            handles.fetch_records.inc_by(u64::from(batch.meta().count));
        }
    }
}

fn respond(plan: &Plan, fetched: Vec<Fetched>) -> FetchResponse {
    let mut response = FetchResponse::default();
    response.session_id = match plan.session {
        Opened::Sessionless => 0,
        Opened::New { id } | Opened::Continued { id } => id,
    };
    for Fetched { topic, data, .. } in fetched {
        match response.responses.last_mut().filter(|last| names(last, &topic)) {
            Some(last) => last.partitions.push(data),
            None => response.responses.push(first_of(&topic, data)),
        }
    }
    response
}

fn names(response: &FetchableTopicResponse, topic: &TopicRef) -> bool {
    match topic {
        TopicRef::Name(name) => response.topic.as_str() == name,
        TopicRef::Id(id) => response.topic_id.to_bytes() == id.0,
    }
}

fn first_of(topic: &TopicRef, data: PartitionData) -> FetchableTopicResponse {
    let mut response = FetchableTopicResponse::default();
    match topic {
        TopicRef::Name(name) => response.topic = StrBytes::from(name.as_str()),
        TopicRef::Id(id) => response.topic_id = Uuid::from_bytes(id.0),
    }
    response.partitions.push(data);
    response
}
