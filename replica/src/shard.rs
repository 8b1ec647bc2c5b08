//! All groups of a node: one input in, effects out.

mod actions;
mod apply;
mod archiving;
mod coordinate;
mod figures;
mod holders;
mod hosted;
mod installs;
mod members;
mod missed;
mod offers;
mod outcomes;
mod peers;
mod pending;
mod produce;
mod rot;
mod speculation;
mod status;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use varve_common::{Digest, GroupId, LogIndex, Monotonic, ReplicaId, Term, TopicId};
use varve_consensus::{GroupConfig, Membership, MultiRaft, NodeConfig, TermRun};

pub use figures::Figures;

use crate::api::{
    Action, Effect, GroupStatus, Holdings, Input, Mark, Now, PartitionView, PeerEffect, Refusal, Reply,
    StopReason, Ticket,
};
use hosted::Hosted;
pub use members::MembersSince;

/// The pure core of a node.
#[derive(Default)]
pub struct Shard {
    config: GroupConfig,
    groups: MultiRaft<Hosted>,
    /// What goes to peers, or comes from asking the log on their behalf.
    outbox: Vec<PeerEffect>,
    /// Groups that changed since the planner last asked.
    changed: BTreeSet<GroupId>,
    /// How many jobs still run of groups that were closed: what they write would outlive a deletion.
    lingering: BTreeMap<GroupId, u32>,
    /// When the coordinators of groups of consumers want to be asked next.
    coordinators: BTreeMap<GroupId, Monotonic>,
    /// A write failed: nothing is acknowledged any more.
    failed: bool,
}

impl Shard {
    /// A shard without groups. The seed feeds election time-outs.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { config: GroupConfig { seed, ..GroupConfig::default() }, ..Self::default() }
    }

    /// The same for a node of a cluster. [`Shard::take_peer_effects`] must be asked after every step.
    #[must_use]
    pub fn with_peers(config: GroupConfig, node: NodeConfig) -> Self {
        Self { config, groups: MultiRaft::with_peers(node), ..Self::default() }
    }

    /// Takes one input; what is to be done is appended to `effects`.
    pub fn step(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::PersistFailed => self.fail(effects),
            Input::Tick => self.tick(now, effects),
            Input::Open(open) => self.open(now, *open, effects),
            Input::Close { group } => self.close(group, effects),
            input if self.failed => refuse(&input, Refusal::StorageError, effects),
            input => self.route(now, input, effects),
        }
        if self.groups.peers().is_some() {
            self.send_pulses();
        }
    }

    fn route(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        let Some(id) = group_of(&input) else { return };
        if let Input::Act { action: Action::Reap { topic, .. }, .. } = &input
            && self.is_in_use(*topic)
        {
            return;
        }
        let Some(stopped) = self.groups.get(id).map(Hosted::is_stopped) else {
            if matches!(input, Input::JobDone { .. }) {
                self.lingering_job_done(id);
            }
            return refuse(&input, Refusal::UnknownGroup, effects);
        };
        if stopped {
            if let Input::JobDone { outcome, .. } = &input {
                self.groups.serve(id, |hosted| hosted.job_ended(outcome));
            }
            return refuse(&input, Refusal::StorageError, effects);
        }
        if let Some(rejected) = self.rejects(id, &input) {
            if let Input::Propose { ticket: Some(ticket), .. } = input {
                effects.push(Effect::Reply { ticket, reply: Reply::Metadata(Err(rejected)) });
            }
            return;
        }
        if let Input::Act { action: Action::Advance, .. } = &input {
            self.groups.ask_to_advance(id);
        }
        self.groups.serve(id, |hosted| hosted.take(now, input, effects));
        self.drive(now, id, effects);
    }

    fn drive(&mut self, now: Now, id: GroupId, effects: &mut Vec<Effect>) {
        let from = effects.len();
        let driven = self.groups.serve(id, |hosted| {
            let changed = hosted.drive(now, effects);
            (changed, std::mem::take(&mut hosted.told), hosted.coordinator_due())
        });
        let Some((changed, told, due)) = driven else { return };
        self.coordinators_due(id, due);
        if changed {
            self.changed.insert(id);
        }
        self.outbox.extend(told);
        self.absorb(from, effects);
    }

    fn open(&mut self, now: Now, open: crate::api::OpenGroup, effects: &mut Vec<Effect>) {
        let membership = Membership::from(open.voters.clone());
        self.open_member(now, open, membership, Vec::new(), effects);
    }

    /// Opens a group with several members: those as of the state that it starts from. `runs` are the terms of the log
    /// between the truncation point and that state, whose entries can be fetched; without them the log begins behind the state.
    pub fn open_member(
        &mut self,
        now: Now,
        open: crate::api::OpenGroup,
        membership: Membership,
        runs: Vec<TermRun>,
        effects: &mut Vec<Effect>,
    ) {
        let id = open.group;
        let is_new = open.hard_state.term == Term::ZERO && open.entries.is_empty();
        let leads_first = is_new && open.voters.len() > 1 && open.voters.first() == Some(&open.replica);
        if self.failed || self.groups.get(id).is_some() {
            return;
        }
        match Hosted::open(open, membership, runs, self.config.clone()) {
            Ok(mut hosted) => {
                if leads_first {
                    hosted.raft.campaign_first();
                }
                // What a checkpoint holds is not replayed: it is shown now, or never.
                effects.extend(hosted.image().map(|image| Effect::MetadataChanged(Arc::new(image))));
                self.groups.insert(id, hosted);
                self.changed.insert(id);
                self.drive(now, id, effects);
            }
            Err(why) => effects.push(Effect::Stopped { group: id, why: StopReason::Inconsistent(why) }),
        }
    }

    /// Who was in a group as of entries before what it started from.
    pub fn recall_members(&mut self, group: GroupId, earlier: Vec<(LogIndex, Membership)>) {
        self.groups.serve(group, |hosted| hosted.members.recall(earlier));
    }

    fn close(&mut self, id: GroupId, effects: &mut Vec<Effect>) {
        let Some(mut hosted) = self.groups.remove(id) else { return };
        self.changed.remove(&id);
        self.coordinators.remove(&id);
        let running = hosted.jobs.running.values().sum();
        if running > 0 {
            self.lingering.insert(id, running);
        }
        hosted.fail_waiters(&Refusal::Unknown, effects);
        hosted.end_reads();
        self.outbox.append(&mut hosted.told);
        if !self.failed {
            hosted.mark(Mark::Destroyed, effects);
        }
    }

    /// Whether something here may still write for a deleted topic.
    fn is_in_use(&self, topic: TopicId) -> bool {
        let deletions = self.groups.get(GroupId::METADATA).map(Hosted::deletions).unwrap_or_default();
        let Some(deletion) = deletions.get(&topic) else { return false };
        let mut groups = deletion.topic.partitions.iter().map(|partition| partition.group);
        groups.any(|group| self.groups.get(group).is_some() || self.lingering.contains_key(&group))
    }

    fn lingering_job_done(&mut self, id: GroupId) {
        let Some(running) = self.lingering.get_mut(&id) else { return };
        *running -= 1;
        if *running == 0 {
            self.lingering.remove(&id);
            self.changed.insert(GroupId::METADATA);
        }
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.tick_late(now, 0, effects);
    }

    fn fail(&mut self, effects: &mut Vec<Effect>) {
        self.failed = true;
        for id in self.groups() {
            let told = self.groups.serve(id, |hosted| {
                hosted.fail_waiters(&Refusal::StorageError, effects);
                hosted.end_reads();
                std::mem::take(&mut hosted.told)
            });
            self.outbox.extend(told.into_iter().flatten());
        }
    }

    /// What the planner reads, `None` for a group that is not here or has stopped.
    #[must_use]
    pub fn status(&self, group: GroupId) -> Option<GroupStatus> {
        self.groups.get(group).filter(|hosted| !hosted.is_stopped()).map(Hosted::status)
    }

    /// What readers see of a partition.
    #[must_use]
    pub fn view(&self, group: GroupId) -> Option<PartitionView> {
        self.groups.get(group).filter(|hosted| !hosted.is_stopped()).and_then(Hosted::view)
    }

    /// Whether this replica of a group is the one that is open here.
    #[must_use]
    pub fn hosts(&self, group: GroupId, replica: ReplicaId) -> bool {
        self.groups.get(group).is_some_and(|hosted| hosted.replica == replica)
    }

    /// What other nodes may have of a group; `None` where it is not here.
    #[must_use]
    pub fn holdings(&self, group: GroupId) -> Option<Holdings> {
        self.groups.get(group).map(Hosted::holdings)
    }

    /// The groups of this node, in order.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        self.groups.ids().collect()
    }

    /// Groups that changed since this was last asked: those that the planner should look at.
    #[must_use]
    pub fn take_changed(&mut self) -> Vec<GroupId> {
        std::mem::take(&mut self.changed).into_iter().collect()
    }

    /// The applied index of a group and the hash of its state there (R9), `None` before A is applied.
    #[must_use]
    pub fn state_hash(&self, group: GroupId) -> Option<(LogIndex, Digest)> {
        self.groups.get(group).and_then(Hosted::state_hash)
    }
}

fn group_of(input: &Input) -> Option<GroupId> {
    match input {
        Input::Produce { group, .. }
        | Input::Missed { group, .. }
        | Input::Propose { group, .. }
        | Input::Producers { group, .. }
        | Input::DeleteRecords { group, .. }
        | Input::Coordinate { group, .. }
        | Input::Act { group, .. }
        | Input::Persisted { group, .. }
        | Input::Marked { group, .. }
        | Input::JobDone { group, .. }
        | Input::Configure { group, .. }
        | Input::Rotten { group, .. }
        | Input::Close { group } => Some(*group),
        Input::Open(open) => Some(open.group),
        Input::PersistFailed | Input::Tick => None,
    }
}

/// Answers the request in an input, if it holds one.
fn refuse(input: &Input, refusal: Refusal, effects: &mut Vec<Effect>) {
    let ticket: Option<Ticket> = match input {
        Input::Produce { ticket, .. } | Input::DeleteRecords { ticket, .. } => Some(*ticket),
        Input::Propose { ticket, .. } => *ticket,
        Input::Coordinate { ticket, .. } | Input::Producers { ticket, .. } => Some(*ticket),
        _ => None,
    };
    effects.extend(ticket.map(|ticket| Effect::Reply { ticket, reply: Reply::Refused(refusal) }));
}
