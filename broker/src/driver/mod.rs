//! The driver: feeds the pure core and carries out what it asks, one arm per effect.
//!
//! ```text
//! events -> Shard::step -> effects -> Ports        (write-ahead log, jobs, replies, readers' views, peers)
//!    ^                        |
//!    |        plan, open ─────┘ follow-up events, in the same turn
//!    └── Persisted, Marked, JobDone, Fetched        answers of the ports, in later turns
//! ```
//! The driver owns no thread and no clock: a thread in [`crate::runtime`] calls [`Driver::turn`] in production, the
//! simulator calls it in a simulation. All writes of one turn go to the log as one batch, so one fsync serves every
//! group that had something to say.
//!
//! Order within a turn is the order of the effects: a batch enters the tail cache before the view that shows it is
//! published, and both before the reply that tells of it.

pub mod bugs;
mod event;
pub mod loss;
mod members;
mod metadata;
mod open;
mod peering;
mod ports;
mod remains;
mod room;
mod writes;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use varve_common::{Entropy, GroupId, LogIndex, Monotonic, NodeId};
use varve_compactor::{HotGauge, MergeGauge, Plan, PlanOptions, Pressure, is_drained, plan};
use varve_replica::{
    Effect, GroupStatus, Input, Job, JobOutcome, Now, Reply, Rot, Shard, Ticket, metadata::Image,
};

pub(crate) use self::open::{local_checkpoint, seal_mark};
pub use self::{
    event::{Event, Opening},
    open::{Change, Groups, OpenError, OptionsOf, Placement},
    peering::fetched,
    ports::Ports,
    room::RoomWatch,
    writes::{Ack, Writes},
};

use self::{members::Moves, writes::Persist};

/// The core with its surroundings.
pub struct Driver {
    shard: Shard,
    groups: Groups,
    plan_options: PlanOptions,
    entropy: Arc<dyn Entropy>,
    effects: Vec<Effect>,
    writes: Writes,
    /// Answers of this turn: they leave when everything is shown that they tell of (H10).
    replies: Vec<(Ticket, Reply)>,
    /// Groups in which something happened that the planner wants to see.
    touched: BTreeSet<GroupId>,
    /// When the planner wants to look at a group that stays quiet.
    looks: BTreeSet<(Monotonic, GroupId)>,
    look_of: BTreeMap<GroupId, Monotonic>,
    /// Groups with rot in their log behind which it can be cut, and up to where: they are pressed until it is.
    rotten: BTreeMap<GroupId, LogIndex>,
    /// What sealed files take on this node.
    hot: HotGauge,
    /// What may be spent on merging.
    merge: MergeGauge,
    failed: bool,
    /// The metadata is as new here as it ever was: from then on its changes are acted on at once.
    metadata_complete: bool,
    /// The newest metadata of the replay before that.
    replayed: Option<Arc<Image>>,
    /// The nodes that the core knows.
    nodes: BTreeSet<NodeId>,
    /// Who is on the way where.
    moves: Moves,
}

impl Driver {
    /// A driver over the groups that recovery found. The first turn is given [`Groups::metadata`].
    #[must_use]
    pub fn new(shard: Shard, groups: Groups, plan_options: PlanOptions, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            shard,
            groups,
            plan_options,
            entropy,
            effects: Vec::new(),
            writes: Writes::default(),
            replies: Vec::new(),
            touched: BTreeSet::new(),
            looks: BTreeSet::new(),
            look_of: BTreeMap::new(),
            rotten: BTreeMap::new(),
            hot: HotGauge::new(u64::MAX),
            merge: MergeGauge::default(),
            failed: false,
            metadata_complete: false,
            replayed: None,
            nodes: BTreeSet::new(),
            moves: Moves::default(),
        }
    }

    /// Takes in what happened, carries out what follows, and leaves one batch of writes with the ports.
    pub fn turn<P: Ports, E: Into<Event>>(
        &mut self,
        now: Now,
        events: impl IntoIterator<Item = E>,
        ports: &mut P,
    ) {
        // Also what no view showed in the turn before: a checkpoint that was published, an intent that was announced. Once
        // a turn: a plan that changes nothing must not be made for ever.
        self.touched.extend(self.shard.take_changed());
        self.touched.extend(self.rotten.keys());
        // Whose oldest file is to go need not have had anything to say. Here, not behind a plan: what one proposes shows
        // only turns later, and it would be proposed again until then.
        self.touched.extend(self.hot.oldest());
        let mut queue: VecDeque<Event> = events.into_iter().map(Into::into).collect();
        while let Some(event) = queue.pop_front() {
            self.step(now, event);
            let effects = std::mem::take(&mut self.effects);
            effects.into_iter().for_each(|effect| self.perform(effect, &mut queue, ports));
            self.perform_for_peers(ports);
            self.perform_moves(&mut queue, ports);
            self.complete_metadata(&mut queue, ports);
            if queue.is_empty() {
                self.plan(now, &mut queue);
            }
        }
        self.replies.drain(..).for_each(|(ticket, reply)| ports.reply(ticket, reply));
        if let Some(writes) = self.writes.take() {
            ports.write(writes);
        }
    }

    fn step(&mut self, now: Now, event: Event) {
        match event {
            Event::Core(input) => self.step_core(now, input),
            Event::Written(ack) => {
                let (group, replica) = ack.writer();
                // What an earlier replica of the group wrote says nothing of what this one did.
                if self.shard.hosts(group, replica) {
                    self.step_core(now, ack.input());
                }
            }
            Event::Open(opening) => {
                let Opening { group, membership, earlier, runs } = *opening;
                let id = group.group;
                // A newer image may have taken it away while this waited in the queue.
                if !self.groups.is_open(id) {
                    return;
                }
                self.shard.open_member(now, group, membership, runs, &mut self.effects);
                self.shard.recall_members(id, earlier);
            }
            Event::Peer(input) => self.shard.peer_step(now, input, &mut self.effects),
            Event::Swept(group) => self.moves.swept(group),
            Event::Tick { late_by } => {
                self.shard.tick_late(now, late_by, &mut self.effects);
                self.hand_over(now);
                self.move_members(now);
            }
        }
    }

    fn step_core(&mut self, now: Now, mut input: Input) {
        self.note(&mut input);
        self.shard.step(now, input, &mut self.effects);
    }

    /// Carries out one effect.
    fn perform<P: Ports>(&mut self, effect: Effect, queue: &mut VecDeque<Event>, ports: &mut P) {
        match effect {
            Effect::Persist { group, replica, ready, hard_state, installed, entries, must_sync } => {
                let what = Persist { hard_state, installed, entries, must_sync };
                let written = self.writes.persist(group, replica, ready, what);
                queue.extend(written.map(Event::Core));
            }
            Effect::Mark { group, replica, number, applied, mark } => {
                self.writes.mark(group, replica, number, applied, mark);
            }
            Effect::Reply { ticket, reply } => self.replies.push((ticket, reply)),
            // One step may tell of many groups, and of a new image that takes one of them away.
            Effect::Tail { group, .. } | Effect::Publish { group, .. } if !self.groups.is_open(group) => {}
            Effect::Tail { group, base, end, batch, .. } => ports.tail(group, base, end, batch),
            Effect::Publish { group, view } => {
                self.touched.insert(group);
                ports.publish(group, view);
            }
            Effect::Start(job) => {
                self.merge.merging(merged_bytes(&job), &self.plan_options.merge);
                ports.start(job);
            }
            Effect::MetadataChanged(image) => self.metadata_changed(image, queue, ports),
            Effect::Send { group, message } => self.send(group, message, ports),
            Effect::Stopped { group, why } => ports.stopped(group, &why.to_string()),
        }
    }

    fn note(&mut self, input: &mut Input) {
        if let Input::JobDone { outcome: JobOutcome::Uploaded { entry, .. }, .. } = input {
            self.merge.uploaded(entry.length, &self.plan_options.merge);
        }
        match input {
            Input::Persisted { group, ready } => *ready = self.writes.persisted(*group, *ready),
            Input::JobDone { group, .. } | Input::Marked { group, .. } | Input::Configure { group, .. } => {
                self.touched.insert(*group);
            }
            Input::Rotten { group, rot: Rot::Entries(entries) } => {
                let last = LogIndex(entries.end.0.saturating_sub(1));
                let known = self.rotten.entry(*group).or_insert(last);
                *known = last.max(*known);
            }
            Input::PersistFailed => self.failed = true,
            _ => {}
        }
    }

    /// Asks the planner about groups that changed or whose time has come.
    fn plan(&mut self, now: Now, queue: &mut VecDeque<Event>) {
        if self.failed {
            return;
        }
        while let Some(&(due, group)) = self.looks.first() {
            if due > now.monotonic {
                break;
            }
            self.looks.pop_first();
            self.look_of.remove(&group);
            self.touched.insert(group);
        }
        for group in std::mem::take(&mut self.touched) {
            let Some(status) = self.shard.status(group) else {
                self.rotten.remove(&group);
                self.hot.forget(group);
                continue;
            };
            self.hot.note(&status);
            self.plan_options.hot = self.hot.look(group);
            self.merge.passed(now.monotonic, &self.plan_options.merge);
            self.plan_options.merge.room = self.merge.room(&self.plan_options.merge);
            let plan = self.plan_one(&status, now);
            queue.extend(plan.actions.into_iter().map(|action| Event::Core(Input::Act { group, action })));
            if let Some(after) = plan.look_again_after {
                self.look_at(group, now.monotonic.plus(after));
            }
        }
    }

    /// A group with rot in its log is pressed: it lets go of what is held elsewhere.
    fn plan_one(&mut self, status: &GroupStatus, now: Now) -> Plan {
        match self.rotten.get(&status.group) {
            Some(last) if status.truncated.0 < *last => {
                let mut options = self.plan_options.clone();
                options.pressure.groups.insert(status.group);
                return plan(status, &options, now, &*self.entropy);
            }
            Some(_) => drop(self.rotten.remove(&status.group)),
            None => {}
        }
        plan(status, &self.plan_options, now, &*self.entropy)
    }

    fn look_at(&mut self, group: GroupId, due: Monotonic) {
        if let Some(old) = self.look_of.insert(group, due) {
            self.looks.remove(&(old, group));
        }
        self.looks.insert((due, group));
    }

    /// When the planner wants to look at a group next, if nothing happens before.
    #[must_use]
    pub fn next_look(&self) -> Option<Monotonic> {
        self.looks.first().map(|(due, _)| *due)
    }

    /// The node stops: leaves nothing open that can be closed. [`Driver::is_drained`] says when.
    pub fn drain(&mut self) {
        self.plan_options.draining = true;
        self.touched.extend(self.shard.groups());
    }

    /// Whether a draining node may stop: nothing is left to do for any group.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.shard
            .groups()
            .into_iter()
            .filter_map(|group| self.shard.status(group))
            .all(|status| is_drained(&status))
    }

    /// Bounds what sealed files of this node take, as far as what is in them is in the bucket too.
    #[must_use]
    pub fn with_hot_bytes_max(mut self, bytes_max: u64) -> Self {
        self.hot = HotGauge::new(bytes_max);
        self
    }

    /// Tells the planner how short of room the log is.
    pub fn press(&mut self, pressure: Pressure) {
        self.hot.press(pressure.disk);
        self.plan_options.pressure = pressure;
        self.touched.extend(&self.plan_options.pressure.groups);
    }

    /// What the planner was last told of the log.
    #[must_use]
    pub const fn pressure(&self) -> &Pressure {
        &self.plan_options.pressure
    }

    /// The core, to look at.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.shard
    }
}

/// How many bytes of segments a job writes once more, so that they become one.
fn merged_bytes(job: &Job) -> u64 {
    match job {
        Job::Merge { entries, .. } => entries.iter().map(|entry| entry.length).sum(),
        // All that the leaf names; one segment of it is put there once more for another reason.
        Job::Mend { leaf, range: Some((intent, _)), .. }
            if leaf.entries > 1 && (intent.base, intent.end) == (leaf.base, leaf.end()) =>
        {
            leaf.segment_bytes
        }
        _ => 0,
    }
}
