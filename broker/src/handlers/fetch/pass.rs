//! One pass over the partitions of a fetch.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::select_all;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use varve_common::Offset;
use varve_protocol::{
    ErrorCode,
    batch::{Batches, Codec},
    messages::fetch_response::PartitionData,
};
use varve_replica::PartitionView;

use super::{
    super::{
        access::{Operation, Resource, authorize},
        errors::Coded as _,
        partitions::{self, Served, TopicRef},
    },
    Question,
    session::Wanted,
};
use crate::{
    net::Context,
    node::{Node, ReadLimits},
};

/// What one partition gave.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The topic as the client names it.
    pub topic: TopicRef,
    /// The partition's part of the response.
    pub data: PartitionData,
}

impl Fetched {
    /// Whether it must be told whatever else happens.
    pub fn is_urgent(&self) -> bool {
        self.data.error_code != ErrorCode::None.number() || self.data.diverging_epoch.epoch >= 0
    }

    /// How many bytes of batches it has.
    pub fn bytes(&self) -> usize {
        self.data.records.as_ref().map_or(0, Bytes::len)
    }
}

/// Which codecs the client can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codecs {
    /// All.
    All,
    /// All but zstd.
    BeforeZstd,
}

/// The state of a pass.
pub struct Pass<'a> {
    node: &'a Node,
    context: &'a Context,
    bytes_left: usize,
    read_committed: bool,
    codecs: Codecs,
    fetched: Vec<Fetched>,
    changes: Vec<watch::Receiver<Arc<PartitionView>>>,
}

impl<'a> Pass<'a> {
    pub const fn new(node: &'a Node, context: &'a Context, question: &Question) -> Self {
        Self {
            node,
            context,
            bytes_left: question.bytes_max,
            read_committed: question.read_committed,
            codecs: question.codecs,
            fetched: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> usize {
        self.fetched.iter().map(Fetched::bytes).sum()
    }

    /// Whether something must be told at once.
    pub fn is_urgent(&self) -> bool {
        self.fetched.iter().any(Fetched::is_urgent)
    }

    /// What there is.
    pub fn finish(self) -> Vec<Fetched> {
        self.fetched
    }

    /// Until a partition changes, or the deadline.
    pub async fn wait(mut self, deadline: Instant) {
        if self.changes.is_empty() {
            return tokio::time::sleep_until(deadline).await;
        }
        let changed = self.changes.iter_mut().map(|changes| Box::pin(changes.changed()));
        // A closed watch is a partition that goes: the next pass says so. Time that is up ends the wait as well.
        let _ = timeout_at(deadline, select_all(changed)).await;
    }

    /// Reads what one partition has.
    pub async fn visit(&mut self, want: &Wanted) {
        let mut data = PartitionData::default();
        data.partition_index = want.partition;
        if let Err(code) = self.fill(want, &mut data).await {
            data.error_code = code.number();
            if code != ErrorCode::OffsetOutOfRange {
                data.high_watermark = -1;
            }
        }
        // Clients of every version read an empty set of records; null is for brokers only.
        data.records.get_or_insert_default();
        // Without transactions there are no aborted ones; who reads uncommitted gets no list at all.
        data.aborted_transactions = self.read_committed.then(Vec::new);
        self.fetched.push(Fetched { topic: want.topic.clone(), data });
    }

    async fn fill(&mut self, want: &Wanted, data: &mut PartitionData) -> Result<(), ErrorCode> {
        let served = self.find(want)?;
        let whole = served.whole();
        self.changes.push(served.changes);
        let view = &served.view;
        partitions::check_epoch(view, want.current_leader_epoch)?;
        data.high_watermark = view.high_watermark.to_wire();
        data.last_stable_offset = view.last_stable_offset.to_wire();
        data.log_start_offset = view.log_start.to_wire();
        let from = Offset::from_wire(want.offset).ok_or(ErrorCode::OffsetOutOfRange)?;
        // Behind what is left of a damaged one there may have been anything: nobody is sent elsewhere.
        if whole.is_ok() && diverges(view, want, data) {
            return Ok(());
        }
        if from >= view.high_watermark {
            whole?;
        }
        if from < view.log_start || from > view.log_end {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let below = if self.read_committed { view.last_stable_offset } else { view.high_watermark };
        let bytes_max = self.bytes_left.min(want.bytes_max);
        // The first batch of a response comes whatever its size, or a large one would never come.
        let one_batch_at_least = self.bytes() == 0;
        if from >= below || (bytes_max == 0 && !one_batch_at_least) {
            return Ok(());
        }
        let limits = ReadLimits { bytes_max, one_batch_at_least, below };
        let batches =
            self.node.backend.read(served.group, from, limits).await.map_err(|error| error.code())?;
        let mut records = join(batches.chunks);
        if self.codecs == Codecs::BeforeZstd {
            records = before_zstd(records)?;
        }
        self.bytes_left = self.bytes_left.saturating_sub(records.len());
        data.records = Some(records);
        Ok(())
    }

    fn find(&self, want: &Wanted) -> Result<Served, ErrorCode> {
        let image = self.node.backend.image();
        if let TopicRef::Name(name) = &want.topic {
            authorize(self.context, Operation::Read, Resource::Topic(name))?;
        }
        let topic = want.topic.find(&image)?;
        authorize(self.context, Operation::Read, Resource::Topic(&topic.name))?;
        partitions::find(self.node, topic, want.partition)
    }
}

/// Whether the client read records that a later leader does not have (KIP-595): it is told where to go back to.
fn diverges(view: &PartitionView, want: &Wanted, data: &mut PartitionData) -> bool {
    if want.last_fetched_epoch < 0 {
        return false;
    }
    let end = partitions::epoch_end(view, want.last_fetched_epoch);
    let diverges = end.epoch >= 0 && (end.epoch < want.last_fetched_epoch || end.end < want.offset);
    if diverges {
        data.diverging_epoch.epoch = end.epoch;
        data.diverging_epoch.end_offset = end.end;
    }
    diverges
}

/// The batches in front of the first that the client cannot read; none: it is told.
fn before_zstd(records: Bytes) -> Result<Bytes, ErrorCode> {
    let mut readable = 0;
    for batch in Batches::new(&records) {
        let Ok(batch) = batch else { break };
        if batch.meta().codec == Codec::Zstd {
            break;
        }
        readable += batch.meta().bytes as usize;
    }
    if readable == 0 && !records.is_empty() {
        return Err(ErrorCode::UnsupportedCompressionType);
    }
    Ok(records.slice(..readable))
}

fn join(mut chunks: Vec<Bytes>) -> Bytes {
    if chunks.len() <= 1 {
        return chunks.pop().unwrap_or_default();
    }
    let mut joined = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    chunks.iter().for_each(|chunk| joined.extend_from_slice(chunk));
    joined.freeze()
}
