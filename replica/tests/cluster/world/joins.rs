//! A disk is lost, and another replica joins in its place.

use varve_common::{LogIndex, NodeId, ReplicaId};
use varve_consensus::Change;

use super::{
    super::node::{GROUP, Node},
    World,
};

/// A node that lost its disk comes back as another replica.
pub(super) struct Join {
    pub(super) old: ReplicaId,
    pub(super) new: ReplicaId,
    pub(super) started: bool,
    /// S of the checkpoint that seeds it: logs are kept above it.
    pub(super) pinned: LogIndex,
}

impl World {
    pub fn wipe(&mut self, id: NodeId) {
        let old = self.nodes[&id].replica;
        self.crash(id, 0);
        let counter = old.get() & ((1 << 40) - 1);
        self.checker.on_wipe(old, &self.nodes[&id].disk);
        let mut fresh = Node::new(id.get());
        fresh.replica = ReplicaId::new(id, counter + 1).unwrap();
        let new = fresh.replica;
        self.nodes.insert(id, fresh);
        self.join = Some(Join { old, new, started: false, pinned: LogIndex::ZERO });
    }

    fn change(&mut self, at: NodeId, change: Change) {
        let (now, mut effects) = (self.now(), Vec::new());
        if let Some(shard) = self.nodes.get_mut(&at).unwrap().shard.as_mut() {
            let _ = shard.propose_change(now, GROUP, change, &mut effects);
            self.after(at, effects);
        }
    }

    /// A disk is lost, or what joins in its place takes its next step.
    pub fn join_step(&mut self, id: NodeId) {
        let Some(join) = &self.join else {
            if self.dice.roll(12) == 0 && self.nodes.values().all(|node| node.shard.is_some()) {
                self.wipe(id);
            }
            return;
        };
        let (old, new, started) = (join.old, join.new, join.started);
        let Some(leader) = self.leader() else { return };
        let Some(shard) = &self.nodes[&leader].shard else { return };
        let Some(status) = shard.replica(GROUP) else { return };
        let members = status.membership;
        if !members.learners.contains(&new) && !members.voters.contains(&new) {
            return self.change(leader, Change::AddLearner(new));
        }
        if !started {
            return self.seed_joiner(leader);
        }
        let matched = shard.matched(GROUP, new).unwrap_or_default();
        let whole = |world: &Self| {
            let shard = world.nodes[&new.node()].shard.as_ref();
            shard.is_some_and(|shard| shard.state_hash(GROUP).is_some())
        };
        if members.learners.contains(&new) {
            if matched.0 + 4 >= status.last.0 && whole(self) {
                self.change(leader, Change::AddVoter(new));
            }
        } else if members.voters.contains(&old) {
            self.change(leader, Change::Remove(old));
        } else {
            self.join = None;
            self.seen.joined += 1;
        }
    }

    /// The joiner starts from the newest checkpoint that every log still reaches; with none, one is published.
    fn seed_joiner(&mut self, leader: NodeId) {
        let Some(join) = &mut self.join else { return };
        let (new, id) = (join.new, join.new.node());
        let cut =
            self.nodes.values().filter(|node| node.replica != new).map(|node| node.disk.truncated.0).max();
        let cut = cut.unwrap_or_default();
        let newest = self.bucket.iter().filter(|kept| kept.state >= cut).max_by_key(|kept| kept.applied);
        match newest.map(|kept| (kept.state, kept.bytes.clone())) {
            Some((state, bytes)) => {
                (join.started, join.pinned) = (true, state);
                self.nodes.get_mut(&id).unwrap().seed(&bytes);
            }
            None if cut == LogIndex::ZERO => join.started = true,
            None => {
                let which = [0, 1, 2, 2, 3, 5][self.dice.roll(6)];
                self.produce(leader);
                return self.plan(leader, which);
            }
        }
        self.start(id);
    }
}
