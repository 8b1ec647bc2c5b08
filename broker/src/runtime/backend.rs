//! What handlers ask of the node, answered by the shard's thread, the published views and the log view.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::watch};
use varve_common::{Clock, GroupId, LeaderEpoch, NodeId, Offset, ReplicaId, TopicId, clock::BoxFuture};
use varve_formats::command::{MetadataCommand, digest_of};
use varve_replica::{Input, PartitionView, Refusal, Reply, Timestamps, coordinator, partition::Producers};
use varve_tiering::{
    Consumer, Hot, LogView, PartitionExtent, ReadError as ViewError, ReadLimits as TailLimits,
    TimestampOffset, tail::Batches,
};

pub use super::appends::meta_of;
use super::{
    appends::{self, appended_of},
    blocks::{Block, Blocks},
    changes::Changes,
    cold_pace::ColdPace,
    cold_reads::ColdReads,
    configuring,
    mailbox::{Mail, Mailbox},
    pressure::Room,
    views::Views,
};
use crate::{
    controller::{Done, Link, progress::Progress},
    metrics::Metrics,
    node::{
        Append, Appended, Backend, Directory, Found, Image, Leadership, MetadataRefusal, NewTopic,
        ReadBatches, ReadError, ReadLimits, Reading,
    },
};

/// Ids that are allocated at once: what a crash leaves unused is never missed.
pub(super) const ID_BLOCK: u32 = 1_000;
/// How long a quorum is given to say that this node still leads.
const CONFIRM_LIMIT: Duration = Duration::from_secs(5);
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
    /// The data directory.
    pub data: Arc<std::path::Path>,
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
    /// Replica counters of each node that are allocated and not used.
    pub replica_ids: Arc<Blocks>,
    /// The way to other nodes.
    pub link: Link,
}

impl NodeBackend {
    /// What it takes to change the metadata.
    #[must_use]
    pub fn changes(&self) -> Changes<'_> {
        Changes {
            node: self.node,
            mailbox: &self.mailbox,
            views: &self.views,
            link: &self.link,
            clock: &*self.clock,
        }
    }

    /// Changes the metadata, wherever it is decided, and waits until this node shows it.
    pub async fn change(&self, command: MetadataCommand) -> Result<Done, MetadataRefusal> {
        self.changes().change(command).await
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

    fn create_partitions(
        &self,
        id: TopicId,
        count: usize,
        replicas: Vec<Vec<NodeId>>,
    ) -> BoxFuture<'static, Result<(), MetadataRefusal>> {
        Box::pin(self.clone().extend(id, count, replicas))
    }

    fn reassign(
        &self,
        group: GroupId,
        nodes: Option<Vec<NodeId>>,
    ) -> BoxFuture<'static, Result<(), MetadataRefusal>> {
        Box::pin(self.clone().reassign_to(group, nodes))
    }

    fn remove_broker(&self, node: NodeId) -> BoxFuture<'static, Result<(), MetadataRefusal>> {
        let (this, node) = (self.clone(), node.get());
        Box::pin(async move { this.change(MetadataCommand::RemoveBroker { node }).await.map(drop) })
    }

    fn configure_topic(
        &self,
        id: TopicId,
        configs: Vec<(String, Option<String>)>,
        built_on: &BTreeMap<String, String>,
    ) -> BoxFuture<'static, Result<(), MetadataRefusal>> {
        Box::pin(configuring::topic(self.clone(), id, configs, digest_of(built_on)))
    }

    fn configure_broker(
        &self,
        whose: Option<NodeId>,
        configs: Vec<(String, Option<String>)>,
        built_on: &BTreeMap<String, String>,
    ) -> BoxFuture<'static, Result<(), MetadataRefusal>> {
        Box::pin(configuring::broker(self.clone(), whose, configs, digest_of(built_on)))
    }

    fn producers(&self, group: GroupId) -> BoxFuture<'static, Result<Arc<Producers>, Refusal>> {
        Box::pin(appends::producers(self.mailbox.ask(|ticket| Input::Producers { ticket, group })))
    }

    fn allocate_producer_id(&self) -> BoxFuture<'static, Result<i64, MetadataRefusal>> {
        let node = self.clone();
        Box::pin(async move {
            let allocate = |wanted: u32| {
                let node = node.clone();
                async move {
                    let count = wanted.max(ID_BLOCK);
                    match node.change(MetadataCommand::AllocateProducerIds { count }).await? {
                        Done::ProducerIds { first, count } => Ok((first as u64, u64::from(count))),
                        _ => Err(MetadataRefusal::NotController),
                    }
                }
            };
            node.producer_ids.take(1, allocate).await.map(|id| id as i64)
        })
    }

    fn missed(&self, group: GroupId, meta: &varve_protocol::batch::BatchMeta) {
        if meta.producer_id >= 0 {
            self.mailbox.send(Mail::Input(Box::new(Input::Missed { group, meta: meta_of(meta) })));
        }
    }

    fn append(&self, group: GroupId, append: Append) -> BoxFuture<'static, Result<Appended, Refusal>> {
        if self.room.is_crowded() {
            self.missed(group, &append.meta);
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
            replicas_min: append.replicas_min,
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

    fn coordinate(
        &self,
        group: GroupId,
        request: coordinator::Request,
    ) -> BoxFuture<'static, Result<coordinator::Outcome, Refusal>> {
        let request = Box::new(request);
        let answer = self.mailbox.ask(|ticket| Input::Coordinate { ticket, group, request });
        Box::pin(async move {
            match answer.await.map_err(|_| Refusal::StorageError)? {
                Reply::Group(outcome) => Ok(*outcome),
                Reply::Refused(refusal) => Err(refusal),
                _ => Err(Refusal::Unknown),
            }
        })
    }

    fn confirm(&self, group: GroupId) -> BoxFuture<'static, bool> {
        if self.link.get().is_none() {
            // Nobody else could have been elected.
            return Box::pin(std::future::ready(true));
        }
        let node = self.clone();
        Box::pin(async move {
            tokio::select! {
                confirmed = node.mailbox.confirm(group) => matches!(confirmed, Ok(Ok(_))),
                () = node.clock.sleep(CONFIRM_LIMIT) => false,
            }
        })
    }

    fn leadership(&self, group: GroupId) -> Option<Leadership> {
        if group == GroupId::METADATA && self.link.get().is_none() {
            // A node without peers decides itself.
            let leader = ReplicaId::new(self.node, 1)?;
            return Some(Leadership { leader, epoch: LeaderEpoch(0), in_sync: vec![leader] });
        }
        let mut known = self.views.leadership(group)?;
        let image = self.views.image();
        known.in_sync.retain(|replica| !image.is_lost(*replica));
        Some(known)
    }

    fn elect(&self, group: GroupId, leader: ReplicaId, within: Duration) -> BoxFuture<'static, bool> {
        let node = self.clone();
        Box::pin(async move { node.changes().elect(group, leader, within).await })
    }

    fn progress(&self, groups: Vec<GroupId>) -> BoxFuture<'static, Vec<Progress>> {
        Box::pin(super::progress::of(self.clone(), groups))
    }

    fn read_index(&self, groups: Vec<GroupId>, wait: Duration) -> BoxFuture<'static, BTreeSet<GroupId>> {
        Box::pin(super::read_index::of(self.clone(), groups, wait))
    }

    fn directory(&self) -> Directory {
        // The figures of the metrics: seconds old at the most, and no system call for a client's sake.
        let bytes =
            |gauge: &prometheus_client::metrics::gauge::Gauge| u64::try_from(gauge.get()).unwrap_or(0);
        let handles = &self.metrics.handles;
        Directory {
            path: self.data.display().to_string(),
            total_bytes: bytes(&handles.disk_total),
            free_bytes: bytes(&handles.disk_free),
        }
    }

    fn is_alive(&self, node: NodeId) -> bool {
        node == self.node || self.views.is_alive(node)
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
