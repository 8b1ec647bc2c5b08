//! The cluster, its clients, and what may be done to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use varve_broker::driver::Event;
use varve_common::{Clock, Disk as _, GroupId, LeaderEpoch, NodeId, Offset};
use varve_objects::testing::MemoryStore;
use varve_replica::{Input, JobOutcome, PartitionView, PeerInput, Refusal, Reply, Ticket};

use super::{
    bugs::Bug,
    consumers::Consumers,
    machine::{Machine, Surroundings},
    network::{Arrival, Network},
    truth::Truth,
};
use crate::{
    checkers::check_view,
    client::Clients,
    clock::SimClock,
    jobs::{Ask, Done, RemoteStore, is_failure, remote_store},
    plan::{Length, Plan, StoreKind},
    ports::Seen,
    trace::Trace,
    violation::{Checked, violation},
};

/// How many files the log of each node may take: with few it is short of room again and again.
const LOG_FILES: [u64; 3] = [10, 16, 64];

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Steps of the scheduler.
    pub steps: u64,
    /// Batches acknowledged.
    pub acknowledged: u64,
    /// Lives that ended.
    pub crashes: u64,
    /// Leaders, over all groups and terms.
    pub leaders: usize,
    /// Frames that arrived.
    pub delivered: u64,
    /// Log reads for nodes that lag.
    pub fetches: u64,
    /// Jobs that ended well.
    pub jobs: u64,
    /// Cuts of logs.
    pub cuts: u64,
    /// Logs that a checkpoint took the place of.
    pub jumps: u64,
    /// Pieces of files that nodes had from others.
    pub pieces: u64,
    /// Of groups: offsets acknowledged, offsets read back, and assignments that members were told.
    pub offsets: (u64, u64, u64),
    /// Reads that were checked.
    pub reads: u64,
    /// Confirmations that were asked for.
    pub asked: u64,
    /// Leaders that were confirmed.
    pub confirmed: u64,
}

/// A run under way.
pub struct World {
    /// Chance.
    pub random: ChaCha8Rng,
    /// Time.
    pub clock: SimClock,
    /// How the nodes are run.
    pub plan: Plan,
    /// The machines.
    pub machines: BTreeMap<NodeId, Machine>,
    /// What lies between them.
    pub network: Network,
    /// Who asks.
    pub clients: Clients,
    /// Members of groups, where a run has some.
    pub consumers: Consumers,
    /// What is committed.
    pub truth: Truth,
    /// How many sealed files are to be lost at the worst moment: a checkpoint that needs them is here, and raft has not heard of it.
    pub rots: usize,
    /// Those that were lost: their marks go, too, where the log has their records.
    pub rotten: BTreeSet<(NodeId, GroupId, Offset)>,
    /// The bucket of all.
    pub remote: (Arc<MemoryStore>, Arc<RemoteStore>),
    /// Who founded the cluster.
    pub founders: Vec<NodeId>,
    /// The seeded bug.
    pub bug: Option<Bug>,
    /// All that happened.
    pub trace: Trace,
    /// For the summary.
    pub counts: Counts,
    /// Whom each request was sent to.
    pub(super) asked: BTreeMap<Ticket, NodeId>,
    /// Up to where each partition was acknowledged.
    pub(super) acked: BTreeMap<GroupId, Offset>,
    /// The newest epoch in which each partition was served.
    epochs: BTreeMap<GroupId, LeaderEpoch>,
    /// Readers under way.
    pub(super) reading: usize,
    /// Confirmations that were asked for: by whom, of what, and up to where it was acknowledged by then.
    pub(super) confirming: BTreeMap<(NodeId, u64), (GroupId, Offset)>,
}

impl World {
    /// So many machines, none of them switched on.
    #[must_use]
    pub fn new(seed: u64, nodes: u32, trace: Trace) -> Self {
        let clock = SimClock::default();
        let ids: Vec<NodeId> = (1..=nodes).filter_map(NodeId::new).collect();
        let plan = Plan::of(seed, Length::Short);
        // Whoever lags behind a log that was cut is sent to the bucket, so records are there.
        let wal_bytes_max = LOG_FILES[(seed % 3) as usize] * plan.wal_file_bytes;
        let plan = Plan {
            store: StoreKind::Remote,
            zombies: 0,
            full_disks: 30,
            tiered: Some(true),
            wal_bytes_max,
            ..plan
        };
        Self {
            random: ChaCha8Rng::seed_from_u64(seed ^ 0x636c_7573),
            remote: remote_store(seed, &clock),
            clock,
            plan,
            machines: ids.iter().map(|id| (*id, Machine::new(*id))).collect(),
            network: Network::default(),
            clients: Clients::of(ids.clone()),
            founders: ids,
            consumers: Consumers::default(),
            truth: Truth::default(),
            rots: 0,
            rotten: BTreeSet::new(),
            bug: None,
            trace,
            counts: Counts::default(),
            asked: BTreeMap::new(),
            acked: BTreeMap::new(),
            epochs: BTreeMap::new(),
            reading: 0,
            confirming: BTreeMap::new(),
        }
    }

    /// No log is cut, and no disk fills: whoever lags is served from it. Topics tier or not.
    #[must_use]
    pub fn keeping_logs(mut self) -> Self {
        self.plan.tiered = None;
        self.plan.full_disks = 0;
        self.plan.wal_bytes_max = 512 * self.plan.wal_file_bytes;
        self
    }

    /// Records are on nodes only, with a store that all share, or without: whoever lags is served from other nodes, and logs are so
    /// small that many do.
    #[must_use]
    pub const fn streaming(mut self, has_store: bool) -> Self {
        self.plan.tiered = Some(false);
        self.plan.has_store = has_store;
        self.plan.wal_bytes_max = LOG_FILES[0] * self.plan.wal_file_bytes;
        self
    }

    /// All machines.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }

    /// The machine.
    pub fn machine(&mut self, id: NodeId) -> &mut Machine {
        self.machines.get_mut(&id).expect("machines are never taken away")
    }

    /// Starts a node; whether it runs.
    pub fn start(&mut self, id: NodeId) -> Checked<bool> {
        if self.machines[&id].unseated.is_some() {
            return Ok(false);
        }
        let seed = self.random.random();
        let founders = self.founders.clone();
        let (clock, plan, remote) = (self.clock.clone(), self.plan.clone(), Arc::clone(&self.remote.1));
        let bug = self.bug;
        let surroundings =
            Surroundings { clock: &clock, plan: &plan, remote: &remote, founders: &founders, bug };
        let runs = self.machine(id).start(seed, &surroundings)?;
        self.trace.note(format_args!("{id} starts: {runs}"));
        self.absorb(id)?;
        Ok(runs)
    }

    /// A node ends.
    pub fn crash(&mut self, id: NodeId, power: bool) -> Checked {
        self.trace.note(format_args!("{id} crashes, power {power}"));
        self.counts.crashes += 1;
        let reading = self.machines[&id].node.as_ref().map_or(0, |node| node.reading);
        self.reading -= reading;
        let Self { machines, random, network, .. } = self;
        machines.get_mut(&id).expect("machines are never taken away").crash(power, random);
        network.forget_some(random, id);
        network.tell_gone(random, id, &machines.keys().copied().collect::<Vec<_>>());
        self.confirming.retain(|(node, _), _| *node != id);
        self.consumers.node_ended(id);
        let lost: Vec<Ticket> =
            self.asked.iter().filter(|(_, asked)| **asked == id).map(|(ticket, _)| *ticket).collect();
        for ticket in lost {
            self.answer(id, ticket, &Reply::Refused(Refusal::Unknown))?;
        }
        Ok(())
    }

    /// Something happens to a node, and all that follows from it at once is looked at.
    pub fn turn(&mut self, id: NodeId, event: impl Into<Event>) -> Checked {
        if let Some(node) = &mut self.machine(id).node {
            node.turn([event.into()]);
        }
        self.absorb(id)
    }

    /// Looks at everything that a node showed or said.
    pub fn absorb(&mut self, id: NodeId) -> Checked {
        let Some(node) = &mut self.machines.get_mut(&id).expect("machines are never taken away").node else {
            return Ok(());
        };
        let (seen, failed) = (std::mem::take(&mut node.ports.seen), node.failed);
        let confirmed = std::mem::take(&mut node.ports.reads);
        for (to, frame) in node.ports.frames.drain(..) {
            self.network.send(id, to, &frame);
        }
        if let Some(image) = node.ports.image.take() {
            self.trace.note(format_args!("{id}: image {} of {} topics", image.index, image.topics.len()));
            self.clients.adopt(&image);
            self.machine(id).image = Some(image);
        }
        let Self { machines, truth, .. } = self;
        truth.observe(machines.get_mut(&id).expect("machines are never taken away"))?;
        seen.into_iter().try_for_each(|seen| self.look_at(id, seen, failed))?;
        confirmed
            .into_iter()
            .try_for_each(|(ticket, outcome)| self.check_confirmed(id, ticket, outcome.is_ok()))
    }

    fn look_at(&mut self, id: NodeId, seen: Seen, failed: bool) -> Checked {
        match seen {
            Seen::Reply(ticket, reply) => {
                let acknowledged = matches!(reply, Reply::Produced { .. } | Reply::Duplicate { .. });
                if acknowledged && failed {
                    let detail = format!("{ticket:?} is acknowledged by a log that failed");
                    return Err(violation("W4", detail));
                }
                self.counts.acknowledged += u64::from(acknowledged);
                self.answer(id, ticket, &reply)
            }
            Seen::View(group, view) => self.look_at_view(id, group, view),
            Seen::Stopped(group, why) => {
                let detail = format!("{id}: {group} stops and nothing was damaged: {why}");
                Err(violation("S4", detail))
            }
            Seen::Gone(group) => {
                self.trace.note(format_args!("{id}: {group} is gone"));
                let machine = self.machine(id);
                machine.views.remove(&group);
                machine.promised.remove(&group);
                Ok(())
            }
        }
    }

    fn answer(&mut self, id: NodeId, ticket: Ticket, reply: &Reply) -> Checked {
        self.trace.note(format_args!("{id}: {ticket:?}: {reply:?}"));
        self.asked.remove(&ticket);
        if self.consumers.waits_for(ticket) {
            return self.consumer_answered(ticket, reply);
        }
        let acked = self.clients.answered(ticket, reply, self.trace.events())?;
        let Some((group, end)) = acked.filter(|(group, _)| !self.clients.deleted.contains(group)) else {
            return Ok(());
        };
        let shown = self.machines[&id].views.get(&group);
        if shown.is_none_or(|view| view.high_watermark < end) {
            return Err(violation("H10", format!("{id}: {group} is acknowledged up to {end} and not shown")));
        }
        let known = self.acked.entry(group).or_default();
        *known = end.max(*known);
        Ok(())
    }

    fn look_at_view(&mut self, id: NodeId, group: GroupId, view: Arc<PartitionView>) -> Checked {
        self.trace.note(format_args!(
            "{id}: {group}: ready {} epoch {:?} start {} local {} tiered {} watermark {}",
            view.ready,
            view.leader_epoch,
            view.log_start,
            view.local_start,
            view.tiered_end,
            view.high_watermark
        ));
        check_view(group, self.machines[&id].promised.get(&group), &view)?;
        let newest = self.epochs.get(&group).copied();
        if view.ready && newest.is_none_or(|newest| view.leader_epoch > newest) {
            self.epochs.insert(group, view.leader_epoch);
            let acked = self.acked.get(&group).copied().unwrap_or_default();
            if view.high_watermark < acked && !self.clients.deleted.contains(&group) {
                let (epoch, shown) = (view.leader_epoch, view.high_watermark);
                let detail =
                    format!("{id}: {group} is led in {epoch:?} up to {shown}, {acked} was acknowledged");
                return Err(violation("H10", detail));
            }
        }
        let machine = self.machine(id);
        if view.ready {
            machine.promised.insert(group, view.clone());
        }
        machine.views.insert(group, view);
        Ok(())
    }

    /// Who leads a group and serves, in the newest term.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        let leads = |machine: &&Machine| {
            let status = machine.node.as_ref().and_then(|node| node.driver.shard().status(group));
            status.is_some_and(|status| status.ready)
        };
        let term = |machine: &&Machine| {
            let shard = machine.node.as_ref().map(|node| node.driver.shard());
            shard.and_then(|shard| shard.replica(group)).map(|replica| replica.term)
        };
        self.machines.values().filter(leads).max_by_key(term).map(|machine| machine.id)
    }

    /// Some running node; mostly the leader of the group.
    pub(super) fn somebody(&mut self, group: GroupId) -> Option<NodeId> {
        let alive: Vec<NodeId> = self
            .machines
            .values()
            .filter(|machine| machine.node.is_some())
            .map(|machine| machine.id)
            .collect();
        if alive.is_empty() {
            return None;
        }
        let other = alive[self.random.random_range(0..alive.len())];
        let strays = self.random.random_range(0..8) == 0;
        self.leader(group).filter(|_| !strays).or(Some(other))
    }

    /// A producer sends a batch; whether there was anything to send.
    pub fn ask(&mut self) -> Checked<bool> {
        if self.machines.values().all(|machine| machine.node.is_none()) {
            return Ok(false);
        }
        let (now, time_ms) = (self.trace.events(), self.clock.wall_ms());
        let Some(input) = self.clients.produce(&mut self.random, time_ms, now) else { return Ok(false) };
        let Input::Produce { ticket, group, meta, .. } = &input else { return Ok(false) };
        let (ticket, group) = (*ticket, *group);
        let Some(to) = self.somebody(group) else { return Ok(false) };
        self.trace.note(format_args!("{ticket:?} to {to}: {group} crc {:08x}", meta.crc));
        self.asked.insert(ticket, to);
        // As the broker does before it takes a request in.
        if self.machines[&to].node.as_ref().is_some_and(crate::node::Node::is_crowded) {
            self.answer(to, ticket, &Reply::Refused(Refusal::Throttled))?;
            return Ok(false);
        }
        self.turn(to, input)?;
        Ok(true)
    }

    /// The operator asks the leader of the metadata for something.
    pub fn operate(&mut self, input: Input) -> Checked {
        let Input::Propose { ticket: Some(ticket), .. } = &input else { return Ok(()) };
        let ticket = *ticket;
        let Some(to) = self.leader(GroupId::METADATA) else { return Ok(()) };
        self.trace.note(format_args!("{ticket:?} to {to}: {input:?}"));
        self.asked.insert(ticket, to);
        self.turn(to, input)
    }

    /// A frame arrives somewhere.
    pub fn arrive(&mut self, arrival: Arrival) -> Checked {
        let Arrival { from, to, input } = arrival;
        self.counts.delivered += 1;
        if let PeerInput::Message { envelope, .. } = &input {
            self.trace.note(format_args!("{from} to {to}: {} {}", envelope.group, envelope.message));
        }
        self.turn(to, input)
    }

    /// A node's log thread writes what waits for it, without a sync.
    pub fn append(&mut self, id: NodeId, count: usize) -> Checked {
        self.check_writes(id)?;
        let machine = self.machine(id);
        if let Some(node) = &mut machine.node {
            node.append(&mut machine.model, count)?;
        }
        self.absorb(id)
    }

    /// A node's log thread syncs.
    pub fn sync(&mut self, id: NodeId) -> Checked {
        let machine = self.machine(id);
        if let Some(node) = &mut machine.node {
            node.sync(&mut machine.model);
        }
        self.absorb(id)
    }

    /// A node asks another for a piece of a file. Where that cannot be reached it learns of it.
    fn lend(&mut self, from: NodeId, ask: Ask) -> Checked {
        let to = ask.to;
        let is_lost = self.network.cut.contains(&(from, to)) || self.network.cut.contains(&(to, from));
        let is_stalled = self.machines.get(&to).is_none_or(|machine| machine.stalled > 0);
        if is_lost || is_stalled {
            return Ok(());
        }
        let Some(node) = &mut self.machine(to).node else { return Ok(()) };
        let leased = node.lend(ask);
        self.counts.pieces += 1;
        leased.map_or(Ok(()), |group| self.turn(to, PeerInput::Leased { group }))
    }

    /// A sealed file of a group is gone, and its node is told.
    fn rot(&mut self, id: NodeId, group: GroupId) -> Checked {
        let Some(node) = &mut self.machine(id).node else { return Ok(()) };
        let held = node.driver.shard().holdings(group).map(|held| held.seals).unwrap_or_default();
        let Some(mark) = held.last().filter(|_| self.rots > 0).cloned() else { return Ok(()) };
        self.rots -= 1;
        self.rotten.insert((id, group, mark.base));
        let local = self.machines[&id].node.as_ref().map(|node| node.cold.surroundings.local.clone());
        let Some(local) = local else { return Ok(()) };
        // A disk that is full or dead loses nothing more.
        if self.machines[&id].disk.remove(&local.path(group, mark.base, mark.end)).is_ok() {
            drop(local.look_for(group, &mark));
        }
        if let Some(node) = &mut self.machine(id).node {
            node.tell_of_files();
        }
        self.absorb(id)
    }

    /// A background task of a node goes one step further; whether one could.
    pub fn work(&mut self, id: NodeId) -> Checked<bool> {
        let Some(node) = &mut self.machines.get_mut(&id).expect("machines are never taken away").node else {
            return Ok(false);
        };
        for job in std::mem::take(&mut node.ports.jobs) {
            self.trace.note(format_args!("{id}: job {:?} of {}", job.kind(), job.group()));
            let task = node.cold.job(job);
            node.executor.spawn(task);
        }
        for task in node.cold.spawned.take() {
            node.executor.spawn(Box::pin(async move {
                task.await;
                Done::Nothing
            }));
        }
        for group in std::mem::take(&mut node.ports.sweeps) {
            let sweep = node.cold.sweep(group);
            node.executor.spawn(sweep);
        }
        let asks = node.cold.asks.take();
        let proposals = std::mem::take(&mut node.ports.proposals);
        let fetched = node.fetch();
        self.counts.fetches += u64::from(fetched);
        let stepped = node.executor.step();
        self.carry(proposals)?;
        let ran = stepped.is_some() || !asks.is_empty();
        asks.into_iter().try_for_each(|ask| self.lend(id, ask))?;
        match stepped {
            Some(Some(Done::Job(_, group, outcome))) => {
                self.counts.jobs += u64::from(!is_failure(&outcome));
                self.trace.note(format_args!("{id}: {group}: {outcome:?}"));
                if matches!(outcome, JobOutcome::Installable(_)) {
                    self.rot(id, group)?;
                }
                self.turn(id, Input::JobDone { group, outcome })?;
            }
            Some(Some(Done::Swept(group))) => self.turn(id, Event::Swept(group))?,
            Some(Some(Done::Read(read))) => {
                self.reading -= 1;
                if let Some(node) = &mut self.machine(id).node {
                    node.reading -= 1;
                }
                self.check_reader(id, *read)?;
            }
            _ => self.absorb(id)?,
        }
        Ok(ran || fetched)
    }
}
