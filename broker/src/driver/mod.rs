//! The driver: feeds the pure core and carries out what it asks, one arm per effect.
//!
//! ```text
//! inputs -> Shard::step -> effects -> Ports        (write-ahead log, jobs, replies, readers' views)
//!    ^                        |
//!    |        plan, open ─────┘ follow-up inputs, in the same turn
//!    └── Persisted, Marked, JobDone                 answers of the ports, in later turns
//! ```
//! The driver owns no thread and no clock: a thread in [`crate::runtime`] calls [`Driver::turn`] in production, the
//! simulator calls it in a simulation. All writes of one turn go to the log as one batch, so one fsync serves every
//! group that had something to say.
//!
//! Order within a turn is the order of the effects: a batch enters the tail cache before the view that shows it is
//! published, and both before the reply that tells of it.

pub mod bugs;
pub mod loss;
mod open;
mod ports;
mod remains;
mod room;
mod writes;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use varve_common::{Entropy, GroupId, LogIndex, Monotonic};
use varve_compactor::{HotGauge, MergeGauge, Plan, PlanOptions, Pressure, is_drained, plan};
use varve_replica::{
    Effect, GroupStatus, Input, Job, JobOutcome, Mark, Now, Reply, Rot, Shard, Ticket, metadata::Image,
};

pub(crate) use self::open::{local_checkpoint, seal_mark};
pub use self::{
    open::{Change, Groups, OpenError, OptionsOf, Placement},
    ports::Ports,
    room::RoomWatch,
    writes::{Ack, Writes},
};

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
    /// The metadata leads with all that it ever committed applied: from then on its changes are acted on at once.
    metadata_complete: bool,
    /// The newest metadata of the replay before that.
    replayed: Option<Arc<Image>>,
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
        }
    }

    /// Takes in what happened, carries out what follows, and leaves one batch of writes with the ports.
    pub fn turn<P: Ports>(&mut self, now: Now, inputs: impl IntoIterator<Item = Input>, ports: &mut P) {
        // Also what no view showed in the turn before: a checkpoint that was published, an intent that was announced. Once
        // a turn: a plan that changes nothing must not be made for ever.
        self.touched.extend(self.shard.take_changed());
        self.touched.extend(self.rotten.keys());
        // Whose oldest file is to go need not have had anything to say. Here, not behind a plan: what one proposes shows
        // only turns later, and it would be proposed again until then.
        self.touched.extend(self.hot.oldest());
        let mut queue: VecDeque<Input> = inputs.into_iter().collect();
        while let Some(mut input) = queue.pop_front() {
            self.note(&mut input);
            self.shard.step(now, input, &mut self.effects);
            let effects = std::mem::take(&mut self.effects);
            effects.into_iter().for_each(|effect| self.perform(effect, &mut queue, ports));
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

    /// Carries out one effect.
    fn perform<P: Ports>(&mut self, effect: Effect, queue: &mut VecDeque<Input>, ports: &mut P) {
        match effect {
            Effect::Persist { group, replica, ready, hard_state, entries, must_sync } => {
                let written = self.writes.persist(group, replica, ready, hard_state, entries, must_sync);
                queue.extend(written);
            }
            Effect::Mark { group, replica, number, mark } => self.writes.mark(group, replica, number, mark),
            Effect::Reply { ticket, reply } => self.replies.push((ticket, reply)),
            Effect::Tail { group, base, end, batch, .. } => ports.tail(group, base, end, batch),
            Effect::Publish { group, view } => {
                self.touched.insert(group);
                ports.publish(group, view);
            }
            Effect::Start(job) => {
                self.merge.merging(merged_bytes(&job), &self.plan_options.merge);
                ports.start(job);
            }
            Effect::MetadataChanged(image) if !self.metadata_complete => self.replayed = Some(image),
            Effect::MetadataChanged(image) => {
                self.reconcile(&image, queue, ports);
                self.touched.insert(GroupId::METADATA);
                ports.metadata(image);
            }
            Effect::Send { .. } => {
                unreachable!("every group of this node has one voter, who writes to nobody")
            }
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

    /// Opens, configures and closes groups so that they are those which the metadata places on this node.
    fn reconcile<P: Ports>(&mut self, image: &Image, queue: &mut VecDeque<Input>, ports: &mut P) {
        for change in self.groups.reconcile(image) {
            match change {
                // First of all: nothing of a group is shown once it is gone.
                Change::Feed(close @ Input::Close { .. }) => queue.push_front(close),
                Change::Feed(input) => queue.push_back(input),
                Change::Offline(error, left) => ports.offline(error.group(), &error.to_string(), left),
                Change::Gone(group) => ports.gone(group),
            }
        }
    }

    /// Until the metadata is complete its replay shows topics that were deleted since: nothing is opened for them, and
    /// nothing closed. Once it is, replicas that it does not know are those of deleted topics: the log lets them go.
    fn complete_metadata<P: Ports>(&mut self, queue: &mut VecDeque<Input>, ports: &mut P) {
        if self.metadata_complete || !self.shard.status(GroupId::METADATA).is_some_and(|status| status.ready)
        {
            return;
        }
        self.metadata_complete = true;
        if let Some(image) = self.replayed.take() {
            self.perform(Effect::MetadataChanged(image), queue, ports);
        }
        for (group, replica) in self.groups.take_orphans() {
            self.writes.mark(group, replica, 0, Mark::Destroyed);
            ports.gone(group);
        }
    }

    /// Asks the planner about groups that changed or whose time has come.
    fn plan(&mut self, now: Now, queue: &mut VecDeque<Input>) {
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
            queue.extend(plan.actions.into_iter().map(|action| Input::Act { group, action }));
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
