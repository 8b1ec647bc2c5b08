//! What the partitions of a fetch have, and what is on its way.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::future::{join_all, select_all};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use varve_common::{Offset, clock::BoxFuture};
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
    node::{ColdRead, Node, ReadBatches, ReadError, ReadLimits, Reading},
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
        is_urgent(&self.data)
    }

    /// How many bytes of batches it has.
    pub fn bytes(&self) -> usize {
        self.data.records.as_ref().map_or(0, Bytes::len)
    }
}

fn is_urgent(data: &PartitionData) -> bool {
    data.error_code != ErrorCode::None.number() || data.diverging_epoch.epoch >= 0
}

/// How long an answer that could leave waits for records that are on their way: what is in a cache comes within it.
const LAST_MOMENT: Duration = Duration::from_millis(5);

/// Which codecs the client can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codecs {
    /// All.
    All,
    /// All but zstd.
    BeforeZstd,
}

/// One partition of a fetch.
struct Slot<'a> {
    want: &'a Wanted,
    data: PartitionData,
    changes: Option<watch::Receiver<Arc<PartitionView>>>,
    /// Its records come from the object store.
    cold: Option<ColdRead>,
    arrived: Option<Result<ReadBatches, ReadError>>,
    /// How much they may be.
    promised: usize,
    /// They came, whatever they brought, or have to wait for the next fetch: they are not asked for twice in one.
    is_settled: bool,
}

impl Slot<'_> {
    /// Whether another look may bring something, or more.
    const fn is_open(&self) -> bool {
        self.cold.is_none() && !self.is_settled
    }
}

/// The partitions of a fetch, and what they have given so far.
///
/// Those whose records are on this node are read one by one, in order. Those that come from the object store are on
/// their way side by side meanwhile; nobody who has enough waits for them.
pub struct Pass<'a> {
    node: &'a Node,
    context: &'a Context,
    bytes_max: usize,
    bytes_left: usize,
    read_committed: bool,
    codecs: Codecs,
    slots: Vec<Slot<'a>>,
}

impl<'a> Pass<'a> {
    pub fn new(node: &'a Node, context: &'a Context, question: &Question, wanted: &'a [Wanted]) -> Self {
        let slot = |want| Slot {
            want,
            data: PartitionData::default(),
            changes: None,
            cold: None,
            arrived: None,
            promised: 0,
            is_settled: false,
        };
        Self {
            node,
            context,
            bytes_max: question.bytes_max,
            bytes_left: question.bytes_max,
            read_committed: question.read_committed,
            codecs: question.codecs,
            slots: wanted.iter().map(slot).collect(),
        }
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> usize {
        self.slots.iter().filter_map(|slot| slot.data.records.as_ref()).map(Bytes::len).sum()
    }

    /// Whether something must be told at once.
    pub fn is_urgent(&self) -> bool {
        self.slots.iter().any(|slot| is_urgent(&slot.data))
    }

    /// What there is.
    pub fn finish(self) -> Vec<Fetched> {
        let fetched = |slot: Slot<'_>| Fetched { topic: slot.want.topic.clone(), data: slot.data };
        self.slots.into_iter().map(fetched).collect()
    }

    /// Looks at the partitions whose records are here, anew where it did before: there may be more.
    pub async fn visit(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.is_open()) {
            self.bytes_left += slot.data.records.take().map_or(0, |records| records.len());
        }
        for place in 0..self.slots.len() {
            if self.slots[place].is_open() {
                self.look(place).await;
            }
        }
    }

    /// Until a partition changes, records arrive from the object store, or the deadline.
    pub async fn wait(&mut self, deadline: Instant) {
        let mut events: Vec<BoxFuture<'_, ()>> = Vec::new();
        for slot in &mut self.slots {
            match (&mut slot.cold, &mut slot.changes) {
                (Some(cold), _) => {
                    let arrived = &mut slot.arrived;
                    events.push(Box::pin(async move { *arrived = Some(cold.await) }));
                }
                // A closed watch is a partition that goes: the next look says so.
                (None, Some(changes)) => events.push(Box::pin(async { drop(changes.changed().await) })),
                (None, None) => {}
            }
        }
        if events.is_empty() {
            return tokio::time::sleep_until(deadline).await;
        }
        // Time that is up ends the wait as well.
        drop(timeout_at(deadline, select_all(events)).await);
        self.take_arrived();
    }

    /// Gives what is on its way a last moment.
    pub async fn linger(&mut self) {
        let arriving = self.slots.iter_mut().filter_map(|slot| {
            let (cold, arrived) = (slot.cold.as_mut()?, &mut slot.arrived);
            Some(async move { *arrived = Some(cold.await) })
        });
        let arriving: Vec<_> = arriving.collect();
        if !arriving.is_empty() {
            drop(timeout_at(Instant::now() + LAST_MOMENT, join_all(arriving)).await);
            self.take_arrived();
        }
    }

    fn take_arrived(&mut self) {
        for place in 0..self.slots.len() {
            let Some(arrived) = self.slots[place].arrived.take() else { continue };
            self.slots[place].cold = None;
            self.slots[place].is_settled = true;
            let taken = arrived.map_err(|error| error.code()).and_then(|read| self.take(place, read.chunks));
            self.tell(place, taken);
        }
    }

    /// Asks one partition.
    async fn look(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        slot.data = PartitionData::default();
        slot.data.partition_index = slot.want.partition;
        let filled = self.fill(place).await;
        self.tell(place, filled);
    }

    fn tell(&mut self, place: usize, result: Result<(), ErrorCode>) {
        let data = &mut self.slots[place].data;
        if let Err(code) = result {
            data.error_code = code.number();
            if code != ErrorCode::OffsetOutOfRange {
                data.high_watermark = -1;
            }
        }
        // Clients of every version read an empty set of records; null is for brokers only.
        data.records.get_or_insert_default();
        // Without transactions there are no aborted ones; who reads uncommitted gets no list at all.
        data.aborted_transactions = self.read_committed.then(Vec::new);
    }

    async fn fill(&mut self, place: usize) -> Result<(), ErrorCode> {
        let want = self.slots[place].want;
        let served = self.find(want)?;
        let slot = &mut self.slots[place];
        slot.changes = Some(served.changes);
        let (view, data) = (&served.view, &mut slot.data);
        partitions::check_epoch(view, want.current_leader_epoch)?;
        data.high_watermark = view.high_watermark.to_wire();
        data.last_stable_offset = view.last_stable_offset.to_wire();
        data.log_start_offset = view.log_start.to_wire();
        let from = Offset::from_wire(want.offset).ok_or(ErrorCode::OffsetOutOfRange)?;
        if diverges(view, want, data) {
            return Ok(());
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
        let read = self.node.backend.read(self.context.connection, served.group, from, limits);
        match read.await.map_err(|error| error.code())? {
            Reading::Here(read) => self.take(place, read.chunks),
            Reading::OnItsWay(read) => {
                self.expect(place, read, bytes_max);
                Ok(())
            }
        }
    }

    /// Side by side they hold no more memory than one answer may have; who finds no room is asked by the next fetch.
    fn expect(&mut self, place: usize, read: ColdRead, bytes: usize) {
        let cold = self.slots.iter().filter(|slot| slot.cold.is_some());
        let promised: usize = cold.map(|slot| slot.promised).sum();
        let slot = &mut self.slots[place];
        if promised > 0 && promised + bytes > self.bytes_max {
            slot.is_settled = true;
        } else {
            (slot.cold, slot.promised) = (Some(read), bytes);
        }
    }

    /// Takes batches, as far as there is room: what came side by side was not told how much the others bring.
    fn take(&mut self, place: usize, mut chunks: Vec<Bytes>) -> Result<(), ErrorCode> {
        let is_first = self.bytes() == 0;
        let mut bytes = 0;
        let fitting = chunks.iter().enumerate().take_while(|(number, chunk)| {
            bytes += chunk.len();
            bytes <= self.bytes_left || (is_first && *number == 0)
        });
        let fitting = fitting.count();
        chunks.truncate(fitting);
        let mut records = join(chunks);
        if self.codecs == Codecs::BeforeZstd {
            records = before_zstd(records)?;
        }
        self.bytes_left = self.bytes_left.saturating_sub(records.len());
        self.slots[place].data.records = Some(records);
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
