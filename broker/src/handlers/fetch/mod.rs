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

mod cold;
mod pass;
mod replicas;
mod room;
mod session;

use std::time::Duration;

use tokio::time::Instant;
use varve_protocol::{
    ErrorCode,
    fetch::Records,
    messages::{
        FetchRequest, FetchResponse, StrBytes, Uuid,
        fetch_response::{FetchableTopicResponse, PartitionData},
    },
};

pub use session::Sessions;

use self::{
    cold::OnTheirWay,
    pass::{Codecs, Fetched, Pass},
    replicas::Replicas,
    room::Room,
    session::{Opened, Plan, Wanted},
};
use super::{Shared, partitions::TopicRef};
use crate::net::{Context, Share};

/// From this version on topics are named by id.
const IDS_FROM: i16 = 13;

/// Before this version clients are not supposed to know zstd.
const ZSTD_FROM: i16 = 10;

/// The longest wait, whatever the client asks: a connection's requests wait behind it.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// An answer, its records beside it.
#[derive(Debug, Default)]
pub struct Answered {
    /// The answer without records.
    pub response: FetchResponse,
    /// The records of each partition, in the answer's order.
    pub records: Vec<Records>,
    /// The memory that they may take until they have left.
    pub share: Option<Share>,
}

pub async fn answer(shared: &Shared, context: &Context, version: i16, request: FetchRequest) -> Answered {
    let began = Instant::now();
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let mut limits = Limits::new(shared, version, &request);
    let plan = match shared.sessions.open(&request, version >= IDS_FROM, &*shared.node.entropy) {
        Ok(plan) => plan,
        Err(code) => return failed(code),
    };
    shared.node.metrics.handles.fetch_sessions.set(shared.sessions.count());
    limits.replicas.freshen(&shared.node, context, &plan.wanted, wait).await;
    let (fetched, share) = gather(shared, context, &limits, &plan.wanted, began + wait).await;
    let fetched = shared.sessions.close(&plan, fetched);
    count(shared, &fetched);
    let (response, records) = respond(&plan, fetched);
    Answered { response, records, share }
}

fn failed(code: ErrorCode) -> Answered {
    let mut answered = Answered::default();
    answered.response.error_code = code.number();
    answered
}

/// What the request says beside its partitions.
struct Limits {
    bytes_min: usize,
    bytes_max: usize,
    read_committed: bool,
    codecs: Codecs,
    replicas: Replicas,
}

impl Limits {
    fn new(shared: &Shared, version: i16, request: &FetchRequest) -> Self {
        let size = |size: i32| usize::try_from(size).unwrap_or(0);
        let bytes_max = size(request.max_bytes).min(shared.node.fetch.bytes_max as usize);
        Self {
            bytes_min: size(request.min_bytes).min(bytes_max),
            bytes_max,
            read_committed: request.isolation_level == 1,
            codecs: if version < ZSTD_FROM { Codecs::BeforeZstd } else { Codecs::All },
            replicas: Replicas::of(&shared.node, version, request),
        }
    }
}

/// Passes until there is enough, something is wrong, or time is up.
async fn gather(
    shared: &Shared,
    context: &Context,
    limits: &Limits,
    wanted: &[Wanted],
    deadline: Instant,
) -> (Vec<Fetched>, Option<Share>) {
    let asked = wanted.iter().fold(0_usize, |sum, want| sum.saturating_add(want.bytes_max));
    let mut cold = OnTheirWay::new(limits.bytes_max);
    loop {
        let room = Room::new(&shared.answers, asked.min(limits.bytes_max), deadline);
        let mut pass = Pass::new(&shared.node, context, limits, room);
        pass.visit(wanted, &mut cold).await;
        let enough = pass.bytes() >= limits.bytes_min || pass.is_urgent() || wanted.is_empty();
        let is_over = limits.bytes_min == 0 || Instant::now() >= deadline;
        if enough || is_over {
            cold.linger().await;
            pass.take_arrived(&mut cold).await;
            if is_over {
                pass.tell_behind();
            }
            return pass.finish();
        }
        pass.wait(&mut cold, deadline).await;
    }
}

fn count(shared: &Shared, fetched: &[Fetched]) {
    let handles = &shared.node.metrics.handles;
    for fetched in fetched {
        let followed = if fetched.is_followed { fetched.bytes() } else { 0 };
        handles.fetch_followed.inc_by(followed as u64);
        handles.fetch_redirects.inc_by(u64::from(fetched.data.preferred_read_replica >= 0));
    }
    for records in fetched.iter().flat_map(|fetched| &fetched.records) {
        handles.fetch_bytes.inc_by(records.len() as u64);
        for batch in varve_protocol::batch::Batches::new(records).flatten() {
            handles.fetch_batches.inc();
            handles.fetch_records.inc_by(u64::from(batch.meta().count));
        }
    }
}

fn respond(plan: &Plan, fetched: Vec<Fetched>) -> (FetchResponse, Vec<Records>) {
    let mut response = FetchResponse::default();
    response.session_id = match plan.session {
        Opened::Sessionless => 0,
        Opened::New { id } | Opened::Continued { id } => id,
    };
    let mut all = Vec::with_capacity(fetched.len());
    for Fetched { topic, data, records, .. } in fetched {
        all.push(records);
        match response.responses.last_mut().filter(|last| names(last, &topic)) {
            Some(last) => last.partitions.push(data),
            None => response.responses.push(first_of(&topic, data)),
        }
    }
    (response, all)
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
