//! What handlers ask of the node, answered by the shard's thread, the published views and the log view.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::watch};
use varve_common::{Clock, GroupId, NodeId, Offset, ReplicaId, TopicId, clock::BoxFuture};
use varve_formats::command::{CreateTopic, MetadataCommand, PartitionAssignment};
use varve_replica::{
    BatchMeta, Input, PartitionView, Refusal, Reply, Timestamps,
    metadata::{MetadataDone, MetadataRejected},
};
use varve_tiering::{
    Consumer, Hot, LogView, PartitionExtent, ReadError as ViewError, ReadLimits as TailLimits,
    TimestampOffset, tail::Batches,
};

use super::{
    blocks::Block,
    cold_pace::ColdPace,
    cold_reads::ColdReads,
    mailbox::{Mailbox, Stopped},
    pressure::Room,
    views::Views,
};
use crate::metrics::Metrics;
use crate::node::{
    Append, Appended, Backend, Found, Image, MetadataRefusal, NewTopic, ReadBatches, ReadError, ReadLimits,
    Reading,
};

/// Ids that are allocated at once: what a crash leaves unused is never missed.
const ID_BLOCK: u32 = 1_000;
/// How long a new topic is given until its partitions lead.
const LEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long a producer is kept waiting before it is told that there is no room: the client's own retries follow.
const FULL_PAUSE: Duration = Duration::from_millis(200);

/// What a cold read is expected to bring at the most, until it is known.
const COLD_READ_BYTES: usize = 4 << 20;

/// The node behind its handlers. Clones share everything.
#[derive(Clone)]
pub struct NodeBackend {
    /// This node.
    pub node: NodeId,
    /// The shard's thread.
    pub mailbox: Mailbox,
    /// What it published.
    pub views: Views,
    /// Records, wherever they are.
    pub log: Arc<LogView>,
    /// Where reads that may block run.
    pub cold: Handle,
    /// Reads from the object store that are under way.
    pub reads: ColdReads,
    /// How fast they go.
    pub pace: ColdPace,
    /// Room in the log.
    pub room: Room,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Producer ids that are allocated and not handed out.
    pub producer_ids: Arc<Block>,
    /// Replica counters that are allocated and not used.
    pub replica_ids: Arc<Block>,
}

impl NodeBackend {
    /// Proposes a change of the metadata and waits until it is applied.
    pub async fn change(&self, command: MetadataCommand) -> Result<MetadataDone, MetadataRefusal> {
        let propose = |ticket| Input::Propose { ticket: Some(ticket), group: GroupId::METADATA, command };
        match self.mailbox.request(propose).await {
            Ok(Reply::Metadata(Ok(done))) => Ok(done),
            Ok(Reply::Metadata(Err(rejected))) => Err(rejected.into()),
            Ok(Reply::Refused(Refusal::StorageError)) | Err(Stopped) => Err(MetadataRefusal::Storage),
            Ok(_) => Err(MetadataRefusal::NotController),
        }
    }

    async fn replica_ids(&self, count: u32) -> Result<Vec<ReplicaId>, MetadataRefusal> {
        let node = self.node.get();
        let first = self
            .replica_ids
            .take(count, |wanted| async move {
                match self
                    .change(MetadataCommand::AllocateReplicaIds { node, count: wanted.max(ID_BLOCK) })
                    .await?
                {
                    MetadataDone::ReplicaIds { first, count, .. } => Ok((first, u64::from(count))),
                    _ => Err(MetadataRefusal::NotController),
                }
            })
            .await?;
        (first..first + u64::from(count))
            .map(|counter| ReplicaId::new(self.node, counter).ok_or(MetadataRejected::InvalidCount.into()))
            .collect()
    }

    async fn create(self, topic: NewTopic) -> Result<(), MetadataRefusal> {
        let count = u32::try_from(topic.partitions).map_err(|_| MetadataRejected::InvalidPartitions)?;
        let replicas = self.replica_ids(count).await?;
        let partitions = replicas
            .into_iter()
            .map(|replica| PartitionAssignment { group: 0, replicas: vec![replica] })
            .collect();
        let topic_id = topic.id;
        let command = CreateTopic { id: topic.id, name: topic.name, partitions, configs: topic.configs };
        let MetadataDone::TopicCreated(created) = self.change(MetadataCommand::CreateTopic(command)).await?
        else {
            return Err(MetadataRefusal::NotController);
        };
        // Clients that create a topic use it at once: give its partitions a moment to lead.
        let lead = async {
            for partition in &created.partitions {
                if let Some(mut view) = self.views.watch_new(topic_id, partition.group).await {
                    // An error means that the partition is gone again: nothing to wait for.
                    drop(view.wait_for(|view| view.ready).await);
                }
            }
        };
        let limit = self.clock.sleep(LEAD_LIMIT);
        tokio::select! { () = lead => {}, () = limit => {} }
        Ok(())
    }

    /// What the bucket did not give is told apart from what it has lost.
    fn count(&self, error: &ViewError) {
        if let ViewError::Cold(cold) = error {
            self.metrics.handles.cold_errors.inc();
            self.metrics.handles.cold_damage.inc_by(u64::from(cold.is_damage()));
        }
    }

    /// Reads from the newest view. Where the log was cut after that view was published no place may hold the offset: a newer
    /// view names the place.
    async fn read_log(
        self,
        connection: u64,
        group: GroupId,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<ReadBatches, ReadError> {
        let bounds = TailLimits { bytes_max: limits.bytes_max, below: limits.below };
        let log = self.log.of(Consumer(connection));
        let mut view = self.views.partition(group).ok_or(ReadError::UnknownGroup)?;
        let batches = loop {
            match log.read(&extent(group, &view), from, bounds).await {
                Ok(batches) => break batches,
                Err(error) => {
                    let newer = self.views.partition(group).ok_or(ReadError::UnknownGroup)?;
                    if !matches!(error, ViewError::Nowhere { .. }) || Arc::ptr_eq(&newer, &view) {
                        self.count(&error);
                        return Err(error_of(group, &error));
                    }
                    view = newer;
                }
            }
        };
        Ok(within(limits, from, batches))
    }

    /// What the places of this node hold; `None` where the object store has to be asked, or a newer view.
    fn read_here(&self, group: GroupId, from: Offset, limits: ReadLimits) -> Option<ReadBatches> {
        let bounds = TailLimits { bytes_max: limits.bytes_max, below: limits.below };
        let view = self.views.partition(group)?;
        match self.log.read_hot(&extent(group, &view), from, bounds) {
            Hot::Read(batches) => Some(within(limits, from, batches)),
            Hot::Elsewhere | Hot::Failed(_) => None,
        }
    }

    /// Reads at the pace of cold reads.
    async fn read_in_turn(
        self,
        connection: u64,
        group: GroupId,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<ReadBatches, ReadError> {
        let (pace, most) = (self.pace.clone(), limits.bytes_max.min(COLD_READ_BYTES));
        pace.turn(most).await;
        let read = self.read_log(connection, group, from, limits).await;
        let bytes = read.as_ref().map_or(0, |read| read.chunks.iter().map(Bytes::len).sum());
        pace.on_read(most, bytes);
        read
    }

    /// Begins a read from the object store, or joins the one that is under way.
    async fn read_cold(
        self,
        connection: u64,
        group: GroupId,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<ReadBatches, ReadError> {
        let key = (group, from, limits.bytes_max, limits.one_batch_at_least);
        let begin = || self.clone().read_in_turn(connection, group, from, limits);
        // It goes on and fills the caches even where the client stops waiting for it.
        match self.reads.join(&self.cold, key, begin).await {
            // The one that was joined was allowed to read farther.
            Ok(batches) if batches.next > limits.below => {
                self.read_log(connection, group, from, limits).await
            }
            read => read,
        }
    }
}

/// The log gives the first batch whatever its size; this leaves it out where it is too large and not the answer's first.
fn within(limits: ReadLimits, from: Offset, batches: Batches) -> ReadBatches {
    if !limits.one_batch_at_least && batches.bytes > limits.bytes_max {
        return ReadBatches { chunks: Vec::new(), next: from };
    }
    ReadBatches { chunks: batches.chunks, next: batches.next }
}

fn extent(group: GroupId, view: &PartitionView) -> PartitionExtent<'_> {
    PartitionExtent {
        group,
        identity: &view.identity,
        log_start: view.log_start,
        root: &view.root,
        rolls: &view.rolls,
        seals: &view.seals,
    }
}

fn error_of(group: GroupId, error: &ViewError) -> ReadError {
    match error {
        ViewError::Cold(cold) if cold.is_damage() => {
            tracing::error!(%group, %error, "an object is missing or damaged");
        }
        _ => tracing::warn!(%group, %error, "read failed"),
    }
    match error {
        ViewError::BelowLogStart { .. } => ReadError::OutOfRange,
        ViewError::Cold(_) => ReadError::Unavailable,
        ViewError::Nowhere { .. } | ViewError::Wal(_) | ViewError::Local(_) => ReadError::Storage,
        ViewError::Records { .. } => ReadError::Corrupt,
    }
}

/// What the core must know of a validated batch.
#[must_use]
pub const fn meta_of(meta: &varve_protocol::batch::BatchMeta) -> BatchMeta {
    BatchMeta {
        count: meta.count,
        last_offset_delta: meta.last_offset_delta,
        producer_id: meta.producer_id,
        producer_epoch: meta.producer_epoch,
        base_sequence: meta.base_sequence,
        base_timestamp: meta.base_timestamp,
        max_timestamp: meta.max_timestamp,
        is_transactional: meta.is_transactional,
        is_control: meta.is_control,
        crc: meta.crc,
        bytes: meta.bytes,
    }
}

fn appended_of(reply: Reply) -> Result<Appended, Refusal> {
    match reply {
        Reply::Produced { base_offset, append_time_ms, log_start } => {
            Ok(Appended { base_offset, append_time_ms, log_start, duplicate: false })
        }
        Reply::Duplicate { base_offset, log_start } => {
            Ok(Appended { base_offset, append_time_ms: -1, log_start, duplicate: true })
        }
        Reply::Refused(refusal) => Err(refusal),
        Reply::Metadata(_) | Reply::Trimmed { .. } => Err(Refusal::Unknown),
    }
}

impl Backend for NodeBackend {
    fn image(&self) -> Arc<Image> {
        self.views.image()
    }

    fn create_topic(&self, topic: NewTopic) -> BoxFuture<'static, Result<(), MetadataRefusal>> {
        Box::pin(self.clone().create(topic))
    }

    fn delete_topic(&self, id: TopicId) -> BoxFuture<'static, Result<(), MetadataRefusal>> {
        let node = self.clone();
        Box::pin(async move { node.change(MetadataCommand::DeleteTopic { id }).await.map(drop) })
    }

    fn configure_topic(
        &self,
        id: TopicId,
        configs: Vec<(String, Option<String>)>,
    ) -> BoxFuture<'static, Result<(), MetadataRefusal>> {
        let node = self.clone();
        Box::pin(async move { node.change(MetadataCommand::SetTopicConfigs { id, configs }).await.map(drop) })
    }

    fn allocate_producer_id(&self) -> BoxFuture<'static, Result<i64, MetadataRefusal>> {
        let node = self.clone();
        Box::pin(async move {
            let allocate = |wanted: u32| {
                let node = node.clone();
                async move {
                    let count = wanted.max(ID_BLOCK);
                    match node.change(MetadataCommand::AllocateProducerIds { count }).await? {
                        MetadataDone::ProducerIds { first, count } => Ok((first as u64, u64::from(count))),
                        _ => Err(MetadataRefusal::NotController),
                    }
                }
            };
            node.producer_ids.take(1, allocate).await.map(|id| id as i64)
        })
    }

    fn append(&self, group: GroupId, append: Append) -> BoxFuture<'static, Result<Appended, Refusal>> {
        if self.room.is_crowded() {
            let pause = self.clock.sleep(FULL_PAUSE);
            return Box::pin(async move {
                pause.await;
                Err(Refusal::Throttled)
            });
        }
        self.pace.on_hot();
        let meta = meta_of(&append.meta);
        let timestamps = if append.log_append_time { Timestamps::Append } else { Timestamps::Create };
        let answer = self.mailbox.ask(|ticket| Input::Produce {
            ticket,
            group,
            batch: append.batch,
            meta,
            timestamps,
        });
        Box::pin(async move { appended_of(answer.await.map_err(|_| Refusal::StorageError)?) })
    }

    fn delete_records(
        &self,
        group: GroupId,
        before: Option<Offset>,
    ) -> BoxFuture<'static, Result<Offset, Refusal>> {
        let answer = self.mailbox.ask(|ticket| Input::DeleteRecords { ticket, group, before });
        Box::pin(async move {
            match answer.await.map_err(|_| Refusal::StorageError)? {
                Reply::Trimmed { log_start } => Ok(log_start),
                Reply::Refused(refusal) => Err(refusal),
                _ => Err(Refusal::Unknown),
            }
        })
    }

    fn watch(&self, group: GroupId) -> Option<watch::Receiver<Arc<PartitionView>>> {
        self.views.watch(group)
    }

    fn damage(&self, group: GroupId) -> Option<Arc<str>> {
        self.views.damage(group)
    }

    fn read(
        &self,
        connection: u64,
        group: GroupId,
        from: Offset,
        limits: ReadLimits,
    ) -> BoxFuture<'static, Result<Reading, ReadError>> {
        let bounds = TailLimits { bytes_max: limits.bytes_max, below: limits.below };
        if let Some(batches) = self.log.read_tail(group, from, bounds) {
            self.pace.on_hot();
            return Box::pin(std::future::ready(Ok(Reading::Here(within(limits, from, batches)))));
        }
        let node = self.clone();
        Box::pin(async move {
            let asked = node.clone();
            let here = node.cold.spawn(async move { asked.read_here(group, from, limits) }).await;
            Ok(match here.map_err(|_| ReadError::Storage)? {
                Some(read) => Reading::Here(read),
                None => Reading::OnItsWay(Box::pin(node.read_cold(connection, group, from, limits))),
            })
        })
    }

    fn find_timestamp(
        &self,
        group: GroupId,
        timestamp: i64,
    ) -> BoxFuture<'static, Result<Option<Found>, ReadError>> {
        let node = self.clone();
        let found = self.cold.spawn(async move {
            let view = node.views.partition(group).ok_or(ReadError::UnknownGroup)?;
            let found = node.log.find_timestamp(&extent(group, &view), timestamp, view.high_watermark).await;
            found.map_err(|error| error_of(group, &error))
        });
        Box::pin(async move { Ok(found.await.unwrap_or(Err(ReadError::Storage))?.map(found_of)) })
    }

    fn find_max_timestamp(&self, group: GroupId) -> BoxFuture<'static, Result<Option<Found>, ReadError>> {
        let node = self.clone();
        let found = self.cold.spawn(async move {
            let view = node.views.partition(group).ok_or(ReadError::UnknownGroup)?;
            let found = node.log.max_timestamp(&extent(group, &view), view.high_watermark).await;
            found.map_err(|error| error_of(group, &error))
        });
        Box::pin(async move { Ok(found.await.unwrap_or(Err(ReadError::Storage))?.map(found_of)) })
    }
}

fn found_of(found: TimestampOffset) -> Found {
    Found { offset: found.offset, timestamp: found.timestamp }
}
