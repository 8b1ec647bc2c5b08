//! One life of a node: the production driver and log over simulated surroundings.
//!
//! ```text
//! requests, job outcomes, acks --> Driver::turn --> SimPorts { writes, jobs, replies, views }
//!                                                      |        └-> Executor (one task a job)
//!                                                      └-> Writer::append | sync | settle | maintain, each a step of its own
//! ```
//! It is started as production starts: log, groups, metadata first. Whoever drops it loses what is volatile; the disk
//! and the remote store outlive it.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use varve_broker::{
    driver::{self, Ack, Driver, Event, Groups, Placement, RoomWatch, Writes},
    transfer::Library,
};
use varve_common::{Clock, ClusterId, Disk, Entropy, GroupId, Incarnation, NodeId, ReplicaId};
use varve_compactor::{Merge, PlanOptions, bytes_to_come, crowded_bytes};
use varve_consensus::{GroupConfig, NodeConfig};
use varve_formats::manifest::FanOut;
use varve_objects::testing::SeededEntropy;
use varve_replica::{
    GroupOptions, Input, JobKind, Now, Shard, coordinator,
    metadata::{Image, Topic},
};
use varve_wal::{self as wal, AppendError, Flight, Reader, Recovery, Writer, testing::MemoryDisk};

use crate::{
    bugs::Bug,
    clock::SimClock,
    executor::Executor,
    jobs::{ARCHIVE_BYTES, Ask, Cold, Done, RemoteStore},
    model::Model,
    plan::Plan,
    ports::SimPorts,
    violation::{Checked, violation},
};

/// The founder's replica of the metadata group.
pub const FOUNDER_COUNTER: u64 = 1;

/// This node's number.
#[must_use]
pub fn node_id() -> NodeId {
    NodeId::new(1).expect("1 is a node id")
}

/// A replica of this node.
#[must_use]
pub fn replica(counter: u64) -> ReplicaId {
    ReplicaId::new(node_id(), counter).expect("counters begin at 1")
}

/// The cluster of every simulation.
pub const CLUSTER: ClusterId = ClusterId([7; 16]);
/// Its life on the prefix.
pub const INCARNATION: Incarnation = Incarnation(1);

/// How long an object that nothing names stays.
pub const DELETE_GRACE: Duration = Duration::from_secs(3);

/// A sync that has begun.
struct Flying {
    lane: usize,
    flight: Option<Flight>,
    /// How many batches had been written.
    written: usize,
    /// Who is told when all before it and it have landed.
    acks: Vec<Ack>,
}

/// A running node.
pub struct Node {
    /// Its disk.
    pub disk: MemoryDisk,
    /// The core and its driver.
    pub driver: Driver,
    /// What waits.
    pub ports: SimPorts,
    /// Its log, to write.
    pub writer: Writer,
    /// Its log, to read.
    pub reader: Reader,
    /// Its jobs.
    pub executor: Executor<Done>,
    /// How many jobs of each kind are under way.
    pub running: BTreeMap<JobKind, u32>,
    /// What its jobs and readers stand on.
    pub cold: Cold,
    /// Written, not yet synced.
    unsynced: Vec<Ack>,
    /// Syncs that have begun, oldest first.
    flights: VecDeque<Flying>,
    /// Found no room.
    parked: Vec<Writes>,
    clock: SimClock,
    room: RoomWatch,
    crowded_bytes: u64,
    /// The log failed: the core was told.
    pub failed: bool,
    /// Readers under way, where their number is kept for each node.
    pub reading: usize,
}

/// What a start needs beside the disk.
pub struct Start<'a> {
    /// Time.
    pub clock: &'a SimClock,
    /// The seed of this life.
    pub seed: u64,
    /// The run.
    pub plan: &'a Plan,
    /// The seeded bug.
    pub bug: Option<Bug>,
    /// The bucket that outlives nodes.
    pub remote: &'a Arc<RemoteStore>,
    /// Its place in a cluster; `None` for a node alone.
    pub seat: Option<Seat>,
}

/// A node's place in a cluster.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Which node.
    pub node: NodeId,
    /// Which of its lives.
    pub life: u64,
    /// Who founded the metadata group.
    pub founders: Vec<NodeId>,
    /// The counter of its own replica of that.
    pub metadata: u64,
}

impl Seat {
    /// The only one of a node that is alone.
    fn alone() -> Self {
        Self { node: node_id(), life: 1, founders: vec![node_id()], metadata: FOUNDER_COUNTER }
    }
}

/// The log's options.
#[must_use]
pub fn wal_options(start: &Start<'_>) -> wal::Options {
    wal::Options {
        directory: PathBuf::from("/data/wal"),
        file_bytes: start.plan.wal_file_bytes,
        bytes_max: start.plan.wal_bytes_max,
        access: start.plan.wal_access,
        salt_seed: start.seed,
        bugs: Bug::wal(start.bug),
    }
}

/// Everything of groups is short, as runs are.
fn coordinator_options() -> coordinator::Options {
    coordinator::Options {
        session_min: Duration::from_millis(500),
        initial_delay: Duration::from_millis(300),
        ..coordinator::Options::default()
    }
}

/// How long records wait for their file, where topics are exported.
const ARCHIVE_AGE_MS: u64 = 2_000;

/// A topic's options: Kafka's names, and a fan-out that folds early.
#[must_use]
pub fn options_of(topic: &Topic, upload_age: Duration, has_store: bool) -> GroupOptions {
    let number = |name: &str| topic.configs.get(name).and_then(|value| value.parse::<u64>().ok());
    let is = |name: &str, default: bool| topic.configs.get(name).map_or(default, |value| value == "true");
    let enabled = is("remote.storage.enable", true);
    GroupOptions {
        tiered: has_store && enabled && !is("remote.log.copy.disable", false),
        forgets_tiered: !enabled && is("remote.log.delete.on.disable", false),
        segment_bytes_max: number("segment.bytes").unwrap_or(8 << 10),
        retention_bytes: number("retention.bytes"),
        retention_ms: None,
        upload_age_ms: upload_age.as_millis() as u64,
        fan_out: FanOut(4),
        coordinator: (&*topic.name == coordinator::TOPIC).then(|| Box::new(coordinator_options())),
        ..GroupOptions::default()
    }
}

fn plan_options(plan: &Plan) -> PlanOptions {
    let (checkpoint_bytes, checkpoint_changes) = plan.checkpoint_after;
    let merge = Merge { segments_min: 2, bytes_max: 48 << 10, one_in: 2, given_per_second: 64, room: 0 };
    let late = Merge { segments_min: 4, one_in: 16, given_per_second: 2 << 10, ..merge };
    PlanOptions {
        archive_bytes_max: ARCHIVE_BYTES,
        has_store: plan.has_store,
        publish_segments: 3,
        publish_age: Duration::from_secs(5),
        publish_interval: Duration::from_millis(50),
        publish_metadata_age: Duration::from_secs(2),
        checkpoint_bytes,
        checkpoint_changes,
        delete_grace: DELETE_GRACE,
        retention_interval: Duration::from_secs(2),
        merge: if plan.merges_late { late } else { merge },
        ..PlanOptions::default()
    }
}

/// A log that was opened, and what it held: the first half of a start.
pub struct OpenedLog {
    /// To write.
    pub writer: Writer,
    /// To read.
    pub reader: Reader,
    /// What it held.
    pub recovery: Recovery,
}

/// Opens the log.
pub fn open_log(disk: &MemoryDisk, start: &Start<'_>) -> Result<OpenedLog, wal::OpenError> {
    let (writer, reader, recovery) = wal::open(Arc::new(disk.clone()), wal_options(start))?;
    Ok(OpenedLog { writer, reader, recovery })
}

impl Node {
    /// Starts the groups over an opened log.
    pub fn start(disk: &MemoryDisk, log: OpenedLog, start: &Start<'_>) -> Result<Self, String> {
        let OpenedLog { writer, reader, recovery } = log;
        let cold = Cold::open(start.plan.store, start.remote, disk, &reader, start.clock, start.seed);
        let cold = cold.map_err(|error| error.to_string())?;
        let Plan { upload_age, has_store, archives, .. } = *start.plan;
        let seat = start.seat.clone().unwrap_or_else(Seat::alone);
        let placement = Placement {
            node: seat.node,
            cluster: CLUSTER,
            incarnation: INCARNATION,
            data: PathBuf::from("/data"),
            options_of: Arc::new(move |_: &Image, topic: &Topic| {
                let archive_age_ms = archives.then_some(ARCHIVE_AGE_MS);
                GroupOptions { archive_age_ms, ..options_of(topic, upload_age, has_store) }
            }),
        };
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let mut groups = Groups::new(shared, reader.clone(), recovery, placement);
        let founder = |node: NodeId| ReplicaId::new(node, FOUNDER_COUNTER).expect("1 is a counter");
        let founders = seat.founders.iter().map(|node| founder(*node)).collect();
        let own = ReplicaId::new(seat.node, seat.metadata).expect("counters begin at 1");
        let metadata = groups.metadata(own, founders).map_err(|error| error.to_string())?;
        let shard = match &start.seat {
            None => Shard::new(start.seed),
            Some(seat) => {
                let config = GroupConfig { seed: start.seed, ..GroupConfig::default() };
                Shard::with_peers(config, NodeConfig::new(CLUSTER, seat.node, seat.life))
            }
        };
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(start.seed));
        let driver = Driver::new(shard, groups, plan_options(start.plan), entropy);
        let mut node = Self {
            disk: disk.clone(),
            driver,
            ports: SimPorts::default(),
            writer,
            reader,
            executor: Executor::default(),
            running: BTreeMap::new(),
            cold,
            unsynced: Vec::new(),
            flights: VecDeque::new(),
            parked: Vec::new(),
            clock: start.clock.clone(),
            room: RoomWatch::new(start.plan.wal_bytes_max),
            crowded_bytes: crowded_bytes(start.plan.wal_bytes_max),
            failed: false,
            reading: 0,
        };
        node.ports.tail = Some(node.cold.tail.clone());
        node.turn([metadata]);
        Ok(node)
    }

    /// One turn of the driver.
    pub fn turn<E: Into<Event>>(&mut self, events: impl IntoIterator<Item = E>) {
        let now = Now { monotonic: self.clock.monotonic(), wall_ms: self.clock.wall_ms() };
        self.driver.turn(now, events, &mut self.ports);
    }

    /// Answers another node in the background. The group that it is on its way in, where it is, and the answer is here.
    pub fn lend(&mut self, ask: Ask) -> Option<GroupId> {
        let request = Library::read(ask.request).ok()?;
        let (group, holdings) = (request.group, self.driver.shard().holdings(request.group));
        let is_on_the_way = holdings.as_ref().is_some_and(|held| Library::is_on_the_way(&request, held));
        let library = Arc::clone(&self.cold.library);
        self.executor.spawn(Box::pin(async move {
            let reply = library.answer(request, holdings).await;
            // Whoever asked may be gone.
            let _ = ask.answer.send(reply.encode());
            Done::Nothing
        }));
        is_on_the_way.then_some(group)
    }

    /// Reads the log for peers that lag; whether there was anything to read.
    pub fn fetch(&mut self) -> bool {
        let fetches = std::mem::take(&mut self.ports.fetches);
        let fetched = fetches.iter().map(|(group, fetch)| driver::fetched(&self.reader, *group, *fetch));
        let fetched: Vec<_> = fetched.collect();
        if !fetched.is_empty() {
            self.turn(fetched);
        }
        !fetches.is_empty()
    }

    /// Whether nothing waits for the log.
    #[must_use]
    pub fn log_is_quiet(&self) -> bool {
        let told = self.unsynced.is_empty() && self.flights.is_empty();
        told && self.ports.writes.is_empty() && self.parked.is_empty()
    }

    /// Writes up to `count` of the waiting batches as one, as the log's thread does; one by one where it is refused.
    pub fn append(&mut self, model: &mut Model, count: usize) -> Checked {
        let mut batch = std::mem::take(&mut self.parked);
        let fresh = self.ports.writes.len().min(count);
        batch.extend(self.ports.writes.drain(..fresh));
        batch.iter_mut().for_each(|writes| self.writer.drop_of_damaged(&mut writes.records));
        if batch.is_empty() || self.failed {
            return Ok(());
        }
        let all: Vec<_> = batch.iter().flat_map(|writes| writes.records.iter().cloned()).collect();
        model.check_writes(&all)?;
        model.writing(all.clone());
        // As the log's threads do, or written at once: then more of it is there after the death of the process.
        let written =
            if count.is_multiple_of(2) { self.writer.stage(&all) } else { self.writer.append(&all) };
        match written {
            Ok(_) => self.unsynced.extend(batch.into_iter().flat_map(|writes| writes.acks)),
            Err(AppendError::Failed(_)) => self.fail(),
            Err(AppendError::Full(_) | AppendError::Invalid { .. }) => {
                model.refused();
                self.append_one_by_one(model, batch)?;
            }
        }
        Ok(())
    }

    fn append_one_by_one(&mut self, model: &mut Model, batch: Vec<Writes>) -> Checked {
        let mut blocked = std::collections::BTreeSet::new();
        for mut writes in batch {
            self.writer.drop_of_damaged(&mut writes.records);
            let ordered = writes
                .records
                .iter()
                .any(|record| matches!(record.record, wal::Record::Entries(_) | wal::Record::HardState(_)));
            if ordered && writes.records.iter().any(|record| blocked.contains(&record.group)) {
                blocked.extend(writes.records.iter().map(|record| record.group));
                self.parked.push(writes);
                continue;
            }
            model.writing(writes.records.clone());
            match self.writer.stage(&writes.records) {
                Ok(_) => self.unsynced.extend(writes.acks),
                Err(AppendError::Failed(_)) => {
                    self.fail();
                    return Ok(());
                }
                Err(AppendError::Full(_)) => {
                    model.refused();
                    blocked.extend(writes.records.iter().map(|record| record.group));
                    self.parked.push(writes);
                }
                Err(error @ AppendError::Invalid { .. }) => {
                    return Err(violation("W6", format!("the log refuses a batch: {error}")));
                }
            }
        }
        Ok(())
    }

    /// Begins a sync of what was written, as the log's threads do, where a lane is free.
    pub fn begin_sync(&mut self, model: &Model) {
        let taken = |lane: &usize| self.flights.iter().any(|flying| flying.lane == *lane);
        let Some(lane) = (0..wal::limits::LANES).find(|lane| !taken(lane)) else { return };
        if self.failed || self.unsynced.is_empty() {
            return;
        }
        match self.writer.begin_sync(lane) {
            Ok(flight) => {
                let acks = std::mem::take(&mut self.unsynced);
                self.flights.push_back(Flying { lane, flight, written: model.written(), acks });
            }
            Err(_) => self.fail(),
        }
    }

    /// The oldest sync in flight lands, and the core is told.
    pub fn land(&mut self, model: &mut Model) {
        let Some(Flying { flight, written, acks, .. }) = self.flights.pop_front() else { return };
        match flight.map_or(Ok(()), Flight::run) {
            Ok(()) => {
                model.synced_to(written);
                self.turn(acks);
            }
            Err(_) => self.fail(),
        }
    }

    /// Syncs what was written and tells the core, in order; lands the oldest sync instead where one is in flight.
    pub fn sync(&mut self, model: &mut Model) {
        if !self.flights.is_empty() {
            return self.land(model);
        }
        if self.failed {
            return;
        }
        match self.writer.sync() {
            Ok(()) => {
                model.synced();
                let acks = std::mem::take(&mut self.unsynced);
                self.turn(acks);
            }
            Err(_) => self.fail(),
        }
    }

    /// What the log's idle thread does: settles.
    pub fn settle(&mut self) {
        if let Err(AppendError::Failed(_)) = self.writer.settle() {
            self.fail();
        }
    }

    /// What the log's thread does between batches.
    pub fn maintain(&mut self) {
        if self.failed {
            return;
        }
        match self.writer.maintain() {
            Ok(done) => {
                let told = done.rotten.into_iter().map(|rot| {
                    let (group, rot) = (rot.group, varve_replica::Rot::Entries(rot.entries));
                    Input::Rotten { group, rot }
                });
                let told: Vec<Input> = told.collect();
                if !told.is_empty() {
                    self.turn(told);
                }
            }
            Err(_) => self.fail(),
        }
    }

    /// Tells the core of sealed files that did not read back.
    pub fn tell_of_files(&mut self) {
        let damaged = self.cold.surroundings.local.take_damaged().into_iter();
        let told: Vec<Input> = damaged
            .map(|(group, base)| Input::Rotten { group, rot: varve_replica::Rot::Sealed(base) })
            .collect();
        if !told.is_empty() {
            self.turn(told);
        }
    }

    /// Tells the planner how full the log is.
    pub fn press(&mut self) {
        if let Some(pressure) = self.room.look(&self.reader, !self.parked.is_empty()) {
            self.driver.press(pressure);
            self.turn([Input::Tick]);
        }
    }

    /// Whether producers must wait, as in production.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.is_parked() || bytes_to_come(self.reader.bytes(), self.queued_bytes()) > self.crowded_bytes
    }

    /// Bytes that wait for the log.
    fn queued_bytes(&self) -> u64 {
        let waiting = self.ports.writes.iter().chain(&self.parked).flat_map(|writes| &writes.records);
        waiting.map(wal::GroupRecord::bytes).sum()
    }

    /// W4: whatever waits fails, nothing more is acknowledged.
    fn fail(&mut self) {
        if !self.failed {
            self.failed = true;
            self.unsynced.clear();
            self.flights.clear();
            self.turn([Input::PersistFailed]);
        }
    }

    /// Whether batches wait for room.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        !self.parked.is_empty()
    }
}
