//! How a cluster comes to rest, and what must hold then.

use std::collections::BTreeSet;

use varve_common::{LogIndex, NodeId};

use super::{
    super::node::{GROUP, Node, node_id},
    World,
};

impl World {
    /// The oldest frame arrives, and every node finishes one write.
    pub fn inch(&mut self) {
        if !self.network.is_empty() {
            let (from, to, frame) = self.network.remove(0);
            self.deliver(from, to, frame);
        }
        for id in self.ids() {
            self.sync(id);
        }
    }

    /// Delivers and writes everything.
    pub fn settle(&mut self) {
        for _ in 0..2_000 {
            let ids = self.ids();
            let wrote = ids.iter().filter(|id| self.sync(**id)).count();
            let ran = ids.iter().filter(|id| self.run_job(**id)).count();
            let frames = std::mem::take(&mut self.network);
            if wrote + ran == 0 && frames.is_empty() {
                return;
            }
            frames.into_iter().for_each(|(from, to, frame)| self.deliver(from, to, frame));
        }
        panic!("L the cluster never comes to rest");
    }

    /// One tick everywhere, and all that follows from it.
    pub fn round(&mut self) {
        self.ids().into_iter().for_each(|id| self.tick(id));
        self.settle();
    }

    pub fn elect(&mut self) -> NodeId {
        for _ in 0..300 {
            self.round();
            let ready = |id: &NodeId| {
                let shard = self.nodes[id].shard.as_ref();
                shard.and_then(|shard| shard.status(GROUP)).is_some_and(|status| status.ready)
            };
            if let Some(leader) = self.leader().filter(ready) {
                return leader;
            }
        }
        panic!("L no leader in 300 ticks of peace");
    }

    /// How the replicas stand, for a run that goes nowhere.
    fn describe(&self) -> String {
        let line = |node: &Node| {
            let status = node.shard.as_ref().and_then(|shard| shard.replica(GROUP));
            let whole = node.shard.as_ref().is_some_and(|shard| shard.state_hash(GROUP).is_some());
            format!("{:?} cut {:?} whole {whole}: {status:?}", node.replica, node.disk.truncated)
        };
        let states: Vec<LogIndex> = self.bucket.iter().map(|kept| kept.state).collect();
        let lines: Vec<String> = self.nodes.values().map(line).collect();
        let tier = self.leader().and_then(|id| self.nodes[&id].shard.as_ref()?.status(GROUP)).map(|status| {
            let ranges: Vec<_> = status.rolls.iter().map(|roll| (roll.base, roll.end)).collect();
            let bounds = (status.log_start, status.tiered_end, status.high_watermark);
            format!("{ranges:?} {bounds:?} {:?} {:?} {:?}", status.intents, status.uploading, status.uploaded)
        });
        let started = self.join.as_ref().map(|join| (join.new, join.started));
        format!("seed {} joins {started:?}, checkpoints {states:?} {tier:?}\n{}", self.seed, lines.join("\n"))
    }

    /// The network is whole, all nodes run: everything comes together, and nothing is lost.
    pub fn make_peace(&mut self) {
        self.cut.clear();
        for id in self.ids() {
            let joins = self.join.as_ref().is_some_and(|join| join.new.node() == id && !join.started);
            if self.nodes[&id].shard.is_none() && !joins {
                self.start(id);
            }
        }
        self.elect();
        for _ in 0..200 {
            if self.join.is_none() {
                break;
            }
            self.join_step(node_id(1));
            self.round();
        }
        assert!(self.join.is_none(), "L the joiner never becomes a voter: {}", self.describe());
        let leader = self.elect();
        let before = self.acknowledged();
        for round in 0..60 {
            // As a client would, it asks again: leadership may be on its way to another.
            if round % 10 == 0 && self.acknowledged() == before {
                self.produce(self.leader().unwrap_or(leader));
            }
            self.round();
        }
        assert!(self.acknowledged() > before, "L no progress in peace");
        assert!(self.reads.is_empty(), "L reads without an answer: {:?}", self.reads);
        let states: BTreeSet<_> =
            self.nodes.values().map(|node| node.shard.as_ref().unwrap().state_hash(GROUP)).collect();
        assert_eq!(states.len(), 1, "R9, H3 the replicas differ in peace: {states:?}");
        self.seen.leaders = self.checker.leaders();
        self.checker.at_the_end();
    }
}
