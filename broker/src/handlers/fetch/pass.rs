//! One pass over the partitions of a fetch.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    future::{join_all, select_all},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use varve_common::{GroupId, Offset, clock::BoxFuture};
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
    Limits,
    cold::{Arrived, OnTheirWay},
    replicas::Replicas,
    room::Room,
    session::Wanted,
};
use crate::{
    net::{Context, Share},
    node::{Node, ReadBatches, ReadError, ReadLimits, Reading},
};

/// What one partition gave.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The topic as the client names it.
    pub topic: TopicRef,
    /// The partition's part of the response, without records.
    pub data: PartitionData,
    /// Its records, where they lie: each chunk one batch or more.
    pub records: Vec<Bytes>,
    /// Another node leads it.
    pub is_followed: bool,
    /// The client is ahead of what is known here to be committed.
    pub is_behind: bool,
}

impl Fetched {
    fn new(topic: TopicRef, data: PartitionData) -> Self {
        Self { topic, data, records: Vec::new(), is_followed: false, is_behind: false }
    }

    /// Whether it must be told whatever else happens.
    pub fn is_urgent(&self) -> bool {
        self.data.error_code != ErrorCode::None.number()
            || self.data.diverging_epoch.epoch >= 0
            || self.data.preferred_read_replica >= 0
    }

    /// How many bytes of batches it has.
    pub fn bytes(&self) -> usize {
        self.records.iter().map(Bytes::len).sum()
    }

    fn fail(&mut self, code: ErrorCode) {
        self.data.error_code = code.number();
        if code != ErrorCode::OffsetOutOfRange {
            self.data.high_watermark = -1;
        }
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

/// Records that a partition has for the client.
#[derive(Clone, Copy)]
struct Question {
    /// The partition's place among those that were visited.
    place: usize,
    group: GroupId,
    from: Offset,
    below: Offset,
    bytes_max: usize,
}

/// A read that was begun, with the bytes that it may take.
struct Begun {
    question: Question,
    promised: usize,
    read: BoxFuture<'static, Result<Reading, ReadError>>,
}

/// The state of a pass.
///
/// Partitions are asked in order. What lies in memory is there at once; the other reads run beside each other as long as
/// `max_bytes` has room for all that they may bring. What comes from the object store is not waited for.
pub struct Pass<'a> {
    node: &'a Node,
    context: &'a Context,
    /// What no read was promised.
    bytes_left: usize,
    bytes: usize,
    read_committed: bool,
    codecs: Codecs,
    replicas: &'a Replicas,
    fetched: Vec<Fetched>,
    changes: Vec<watch::Receiver<Arc<PartitionView>>>,
    readings: Vec<Begun>,
    /// The first that got nothing, though it has something: what was read before it took all the room.
    denied: Option<Question>,
    room: Room<'a>,
}

impl<'a> Pass<'a> {
    pub const fn new(node: &'a Node, context: &'a Context, limits: &'a Limits, room: Room<'a>) -> Self {
        Self {
            node,
            context,
            bytes_left: limits.bytes_max,
            bytes: 0,
            read_committed: limits.read_committed,
            codecs: limits.codecs,
            replicas: &limits.replicas,
            fetched: Vec::new(),
            changes: Vec::new(),
            readings: Vec::new(),
            denied: None,
            room,
        }
    }

    /// How many bytes there are.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether something must be told at once.
    pub fn is_urgent(&self) -> bool {
        self.fetched.iter().any(Fetched::is_urgent)
    }

    /// Time is up: whoever is ahead of this replica asks another.
    pub fn tell_behind(&mut self) {
        let behind = self.fetched.iter_mut().filter(|fetched| fetched.is_behind && !fetched.is_urgent());
        behind.for_each(|fetched| fetched.fail(ErrorCode::OffsetNotAvailable));
    }

    /// What there is, and the memory that it may take.
    pub fn finish(mut self) -> (Vec<Fetched>, Option<Share>) {
        let share = self.room.keep(self.bytes);
        (self.fetched, share)
    }

    /// Until a partition changes, records arrive from the object store, or the deadline. What was read is let go.
    pub async fn wait(self, cold: &mut OnTheirWay, deadline: Instant) {
        let mut changes = self.changes;
        drop((self.fetched, self.room));
        // A closed watch is a partition that goes: the next pass says so.
        let changed = changes
            .iter_mut()
            .map(|changes| -> BoxFuture<'_, ()> { Box::pin(async { drop(changes.changed().await) }) });
        let events: Vec<_> = changed.chain(cold.events()).collect();
        if events.is_empty() {
            return tokio::time::sleep_until(deadline).await;
        }
        // Time that is up ends the wait as well.
        drop(timeout_at(deadline, select_all(events)).await);
    }

    /// Takes what has arrived from the object store since it was visited.
    pub async fn take_arrived(&mut self, cold: &mut OnTheirWay) {
        for place in cold.places() {
            let fetched = &self.fetched[place];
            if fetched.records.is_empty() && !fetched.is_urgent() {
                self.arrive(place, cold.arrived(place)).await;
            }
        }
    }

    /// Takes batches from the object store, as far as there is room: side by side nobody was told what the others bring.
    async fn arrive(&mut self, place: usize, arrived: Option<Arrived>) {
        let Some(arrived) = arrived else { return };
        let is_first = self.bytes == 0 && self.readings.is_empty();
        if is_first {
            match self.room.take().await {
                Some(bytes) => self.bytes_left = self.bytes_left.min(bytes),
                None => return,
            }
        }
        let readable = arrived.map_err(|error| error.code()).and_then(|chunks| match self.codecs {
            Codecs::All => Ok(chunks),
            Codecs::BeforeZstd => before_zstd(chunks),
        });
        match readable {
            Err(code) => self.fetched[place].fail(code),
            Ok(chunks) => {
                let mut left = self.bytes_left;
                let fitting = chunks.into_iter().enumerate().take_while(|(number, chunk)| {
                    let fits = chunk.len() <= left || (is_first && *number == 0);
                    left = left.saturating_sub(chunk.len());
                    fits
                });
                self.fetched[place].records = fitting.map(|(_, chunk)| chunk).collect();
                let bytes = self.fetched[place].bytes();
                self.bytes += bytes;
                self.bytes_left = self.bytes_left.saturating_sub(bytes);
            }
        }
    }

    /// Reads what the partitions have.
    pub async fn visit(&mut self, wanted: &[Wanted], cold: &mut OnTheirWay) {
        for (place, want) in wanted.iter().enumerate() {
            let mut data = PartitionData::default();
            data.partition_index = want.partition;
            // Without transactions there are no aborted ones; who reads uncommitted gets no list at all.
            data.aborted_transactions = self.read_committed.then(Vec::new);
            let mut fetched = Fetched::new(want.topic.clone(), data);
            let checked = self.check(want, &mut fetched);
            self.fetched.push(fetched);
            match checked {
                Ok(Some(_)) if cold.knows(place) => self.arrive(place, cold.arrived(place)).await,
                Ok(Some(question)) => self.ask(question, cold).await,
                Ok(None) => {}
                Err(code) => self.fetched.last_mut().expect("it was pushed").fail(code),
            }
        }
        self.settle(cold).await;
        // The first read failed, and the others could not give a batch as large as theirs.
        if let Some(denied) = self.denied.take().filter(|_| self.bytes == 0) {
            self.ask(denied, cold).await;
            self.settle(cold).await;
        }
    }

    /// Whether a partition has records for the client.
    fn check(&mut self, want: &Wanted, fetched: &mut Fetched) -> Result<Option<Question>, ErrorCode> {
        let served = self.find(want)?;
        let whole = served.whole();
        self.changes.push(served.changes.clone());
        let (view, data) = (&served.view, &mut fetched.data);
        fetched.is_followed = served.is_followed;
        partitions::check_epoch(view, want.current_leader_epoch)?;
        data.high_watermark = view.high_watermark.to_wire();
        data.last_stable_offset = view.last_stable_offset.to_wire();
        data.log_start_offset = view.log_start.to_wire();
        let from = Offset::from_wire(want.offset).ok_or(ErrorCode::OffsetOutOfRange)?;
        // What its leader has committed may not have come here yet. It is waited for, and nobody is sent back.
        fetched.is_behind = served.is_followed && from > view.high_watermark;
        if fetched.is_behind {
            return Ok(None);
        }
        // Behind what is left of a damaged one there may have been anything: nobody is sent elsewhere.
        if whole.is_ok() && diverges(view, want, data) {
            return Ok(None);
        }
        if from >= view.high_watermark {
            whole?;
        }
        if from < view.log_start || from > view.log_end {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        if let Some(nearer) = self.replicas.nearer(self.node, self.context, &served) {
            data.preferred_read_replica = nearer;
            return Ok(None);
        }
        let below = if self.read_committed { view.last_stable_offset } else { view.high_watermark };
        let place = self.fetched.len();
        let question = Question { place, group: served.group, from, below, bytes_max: want.bytes_max };
        Ok((from < below).then_some(question))
    }

    /// Begins a read.
    async fn ask(&mut self, question: Question, cold: &mut OnTheirWay) {
        if self.bytes_left == 0 {
            self.settle(cold).await;
        }
        // The first batch of a response comes whatever its size, or a large one would never come. Of reads that are under
        // way the first may bring it.
        let one_batch_at_least = self.bytes == 0 && self.readings.is_empty();
        if one_batch_at_least {
            match self.room.take().await {
                Some(bytes) => self.bytes_left = self.bytes_left.min(bytes),
                // Too many answers wait to be read: nothing of this partition now.
                None => return,
            }
        }
        let bytes_max = self.bytes_left.min(question.bytes_max);
        if bytes_max == 0 && !one_batch_at_least {
            self.denied.get_or_insert(question);
            return;
        }
        let limits = ReadLimits { bytes_max, one_batch_at_least, below: question.below };
        let mut read = self.node.backend.read(self.context.connection, question.group, question.from, limits);
        self.bytes_left -= bytes_max;
        match (&mut read).now_or_never() {
            Some(read) => self.on_reading(question, bytes_max, read, cold),
            None => self.readings.push(Begun { question, promised: bytes_max, read }),
        }
    }

    /// Waits for the reads that were begun.
    async fn settle(&mut self, cold: &mut OnTheirWay) {
        let readings = std::mem::take(&mut self.readings);
        let each = readings
            .into_iter()
            .map(async |Begun { question, promised, read }| (question, promised, read.await));
        for (question, promised, read) in join_all(each).await {
            self.on_reading(question, promised, read, cold);
        }
    }

    fn on_reading(
        &mut self,
        question: Question,
        promised: usize,
        read: Result<Reading, ReadError>,
        cold: &mut OnTheirWay,
    ) {
        match read {
            Ok(Reading::OnItsWay(read)) => {
                // Those that are here do not wait for its bytes.
                self.bytes_left += promised;
                cold.expect(question.place, read, promised);
            }
            Ok(Reading::Here(batches)) => self.on_read(question, promised, Ok(batches)),
            Err(error) => self.on_read(question, promised, Err(error)),
        }
    }

    fn on_read(&mut self, question: Question, promised: usize, batches: Result<ReadBatches, ReadError>) {
        let mut chunks = match batches {
            Ok(batches) => batches.chunks,
            Err(error) => {
                self.bytes_left += promised;
                return self.fetched[question.place].fail(error.code());
            }
        };
        if chunks.is_empty() {
            self.denied.get_or_insert(question);
        }
        let fetched = &mut self.fetched[question.place];
        if self.codecs == Codecs::BeforeZstd {
            match before_zstd(chunks) {
                Ok(readable) => chunks = readable,
                Err(code) => {
                    self.bytes_left += promised;
                    return fetched.fail(code);
                }
            }
        }
        fetched.records = chunks;
        let bytes = fetched.bytes();
        self.bytes += bytes;
        self.bytes_left += promised.saturating_sub(bytes);
    }

    fn find(&self, want: &Wanted) -> Result<Served, ErrorCode> {
        let image = self.node.backend.image();
        if let TopicRef::Name(name) = &want.topic {
            authorize(self.context, Operation::Read, Resource::Topic(name))?;
        }
        let topic = want.topic.find(&image)?;
        authorize(self.context, Operation::Read, Resource::Topic(&topic.name))?;
        self.replicas.find(self.node, topic, want.partition)
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
fn before_zstd(mut chunks: Vec<Bytes>) -> Result<Vec<Bytes>, ErrorCode> {
    let had_any = !chunks.is_empty();
    for place in 0..chunks.len() {
        let readable = readable_bytes(&chunks[place]);
        if readable < chunks[place].len() {
            chunks[place].truncate(readable);
            chunks.truncate(place + usize::from(readable > 0));
            break;
        }
    }
    if had_any && chunks.is_empty() { Err(ErrorCode::UnsupportedCompressionType) } else { Ok(chunks) }
}

fn readable_bytes(chunk: &[u8]) -> usize {
    let known =
        Batches::new(chunk).map_while(Result::ok).take_while(|batch| batch.meta().codec != Codec::Zstd);
    known.map(|batch| batch.meta().bytes as usize).sum()
}
