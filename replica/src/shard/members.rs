//! Who was in the group, from which entry on.
//!
//! ```text
//!  entry          40            70     90
//!  members   [a b c]    + d learner   [a b d]
//!  frozen rolls      55            80              a checkpoint as of 55 names a b c: what came later is replayed behind it
//! ```
//! What a checkpoint in the bucket says of members is as of S, and S is older than what is applied here.

use std::collections::BTreeMap;

use varve_common::{GroupId, LogIndex, Monotonic, NodeId, ReplicaId};
use varve_consensus::{Membership, Standing, Step, Wanted, next_step};

use varve_formats::command::{METADATA_FEATURE, MetadataCommand};

use super::{
    Shard,
    hosted::{Hosted, Machine},
};
use crate::{
    api::{Effect, Input, Now},
    limits::{PIN_LEASE, PROMOTION_LAG_MAX},
    metadata::{Broker, MetadataRejected},
};

/// Learners on their way.
pub(super) type Pins = BTreeMap<ReplicaId, Pin>;

/// What is kept of the log for a learner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pin {
    /// How far it was known to be.
    matched: LogIndex,
    /// Since when.
    since: Monotonic,
    /// Whether that is recent enough: for one that makes no progress nothing is kept, until it does.
    holds: bool,
}

/// The members at entries that matter, in order; what lies between two changes is as at the one before.
#[derive(Clone, Debug, Default)]
pub struct MembersSince(Vec<(LogIndex, Membership)>);

impl MembersSince {
    /// Nothing is known but what is from `index` on.
    pub(super) fn new(index: LogIndex, membership: Membership) -> Self {
        Self(vec![(index, membership)])
    }

    /// What a checkpoint says of earlier entries.
    pub(super) fn recall(&mut self, earlier: Vec<(LogIndex, Membership)>) {
        let first = self.0.first().map_or(LogIndex::ZERO, |first| first.0);
        let mut all: Vec<_> = earlier.into_iter().filter(|known| known.0 < first).collect();
        all.append(&mut self.0);
        self.0 = all;
    }

    fn note(&mut self, changes: Vec<(LogIndex, Membership)>) {
        self.0.extend(changes);
    }

    /// The members as of an entry, where that is known.
    #[must_use]
    pub fn at(&self, index: LogIndex) -> Option<&Membership> {
        self.0.iter().rev().find(|known| known.0 <= index).map(|known| &known.1)
    }

    /// Nobody asks for what was before the members as of this entry.
    fn forget_before(&mut self, index: LogIndex) {
        let kept = self.0.iter().rposition(|known| known.0 <= index).unwrap_or(0);
        self.0.drain(..kept);
    }
}

impl Hosted {
    /// Takes note of what was applied.
    pub(super) fn note_changes(&mut self) {
        let changes = self.raft.take_changes();
        if changes.is_empty() {
            return;
        }
        self.members.note(changes);
        self.since_checkpoint.changes += 1;
        if let Machine::Partition(state) = &self.machine {
            self.members.forget_before(state.oldest_frozen());
        } else {
            self.members.forget_before(self.applied());
        }
    }

    /// Whether a learner has all but the newest entries, and all that proves what is in the bucket.
    fn is_caught_up(&self, member: ReplicaId) -> bool {
        let proven = match &self.machine {
            Machine::Partition(state) => state.bucket().published.last().map(|last| last.applied_index),
            Machine::Metadata(_) => None,
        };
        // Whoever led before may have sent it to a checkpoint of its own: it was older than this term.
        let begun = self.raft.term_start().unwrap_or_default().max(self.installs.offered_as_of());
        let proven = proven.unwrap_or_default().max(begun).min(self.raft.commit_index());
        let matched = self.raft.matched(member).unwrap_or_default();
        // Who never answered has nothing, however short the log is.
        matched > LogIndex::ZERO
            && matched >= proven
            && matched.0 + PROMOTION_LAG_MAX >= self.raft.last_index().0
    }

    /// The log is kept for who is on its way, as long as it makes progress.
    fn pin(&mut self, now: Now) {
        let learners = self.raft.membership().learners.clone();
        self.pins.retain(|learner, _| learners.contains(learner));
        for learner in learners {
            let matched = self.raft.matched(learner).unwrap_or_default();
            let fresh = Pin { matched, since: now.monotonic, holds: true };
            let pin = self.pins.entry(learner).or_insert(fresh);
            if pin.matched != matched {
                *pin = fresh;
            }
            pin.holds = now.monotonic.since(pin.since) < PIN_LEASE;
        }
    }

    /// The log needs no entry up to this one for a learner on its way: one that has nothing begins behind S.
    pub(super) fn pinned_above(&self) -> LogIndex {
        let begins = match &self.machine {
            Machine::Partition(state) => state.bucket().published.last(),
            Machine::Metadata(state) => state.published().last(),
        };
        let begins = begins.map_or(self.truncated.0, |newest| newest.state_index);
        let begins = begins.max(self.installs.offered_end().unwrap_or_default());
        let pins = self.pins.values().filter(|pin| pin.holds).map(|pin| begins.max(pin.matched));
        pins.min().filter(|_| self.is_leader()).unwrap_or(LogIndex(u64::MAX))
    }
}

impl Shard {
    /// Why a change of the metadata that this node leads is not even proposed: it would be done, and must not be.
    pub(super) fn rejects(&self, group: GroupId, input: &Input) -> Option<MetadataRejected> {
        let Input::Propose { command, .. } = input else { return None };
        let hosted = self.groups.get(group).filter(|hosted| hosted.is_ready())?;
        let Machine::Metadata(state) = &hosted.machine else { return None };
        let (image, level) = (state.image(), command.level());
        // Who comes anew says so itself, and who leaves need not know it. Whoever else is registered counts, heard of or not: one that
        // is silent may be back in a moment, and would stop at what it does not know.
        let about = match command {
            MetadataCommand::HostMetadata { node, .. } | MetadataCommand::RemoveBroker { node } => *node,
            _ => 0,
        };
        let too_old = |broker: &&Broker| broker.level < level && broker.node.get() != about;
        let too_old = image.brokers.values().find(too_old);
        if let Some(broker) = too_old.filter(|_| image.level(METADATA_FEATURE) < level) {
            return Some(MetadataRejected::TooOld { node: broker.node, level });
        }
        let MetadataCommand::HostMetadata { node, disk } = command else { return None };
        let node = NodeId::new(*node)?;
        let is_known = *disk != 0 && image.disks.get(&node) == Some(disk);
        (!is_known && self.is_alive(node)).then_some(MetadataRejected::NodeAlive { node })
    }

    /// Goes one step from the members that a group has to those that it is to have, where this node leads it and is settled
    /// (`None` otherwise); whether it has come to them.
    pub fn move_members(
        &mut self,
        now: Now,
        group: GroupId,
        wanted: &Wanted,
        effects: &mut Vec<Effect>,
    ) -> Option<bool> {
        let hosted = self.groups.get(group).filter(|hosted| !self.failed && hosted.is_ready())?;
        let is_heard_of = |member| hosted.raft.is_heard_of(member);
        let lives = |id: ReplicaId| self.is_alive(id.node()) && is_heard_of(id) && hosted.is_caught_up(id);
        let standing = Standing {
            leader: hosted.replica,
            membership: hosted.raft.membership(),
            version: hosted.raft.members_version(),
            pending: hosted.raft.has_pending_change(),
            is_caught_up: &lives,
        };
        let step = next_step(&standing, wanted);
        self.groups.serve(group, |hosted| {
            hosted.pin(now);
            match &step {
                // What is not taken now is tried again.
                Step::Change(changes) => drop(hosted.raft.propose_changes(changes, wanted.version)),
                Step::Transfer(to) => hosted.raft.transfer(*to),
                // Who is at rest says nothing, and whoever is waited for is to speak.
                Step::Wait => drop(hosted.raft.wake()),
                Step::Settled => {}
            }
        });
        self.drive(now, group, effects);
        Some(step == Step::Settled)
    }

    /// Whether this node leads a group whose members are not these, or are about to be others.
    #[must_use]
    pub fn is_led_astray(&self, group: GroupId, voters: &[ReplicaId]) -> bool {
        let Some(hosted) = self.groups.get(group).filter(|hosted| hosted.is_ready()) else { return false };
        let members = hosted.raft.membership();
        members.voters.len() != voters.len()
            || !members.learners.is_empty()
            || members.is_joint()
            || !voters.iter().all(|voter| members.voters.contains(voter))
    }

    /// Whether jobs still run of a group that has left.
    #[must_use]
    pub fn lingers(&self, group: GroupId) -> bool {
        self.lingering.contains_key(&group)
    }
}
