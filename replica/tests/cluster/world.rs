//! What happens to a cluster, by a seed.
//!
//! ```text
//!  chance, joins, peace: what happens        clients, jobs: who asks for what        network: what is on its way
//!             \____________________________ World: nodes, what they want done, what is durable ____/
//! ```

mod chance;
mod clients;
mod jobs;
mod joins;
mod network;
mod peace;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use varve_common::{LogIndex, Monotonic, NodeId, Offset};
use varve_consensus::{Envelope, GroupConfig, Membership, NodeConfig};
use varve_replica::{Effect, Input, Now, PeerEffect, PeerInput, Refusal, Reply, Shard, Ticket};

use self::{chance::Dice, joins::Join, network::Frame};
use super::{
    checker::Checker,
    node::{CLUSTER, GROUP, Node, Opening, Write, node_id},
};

/// How often what is worth seeing was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub joined: usize,
    pub stood_in: usize,
    pub leaders: usize,
    pub truncated_tails: usize,
    pub seeded_between_clocks: usize,
    pub reads_confirmed: usize,
    pub jumps: usize,
}

impl Seen {
    pub fn add(&mut self, other: &Self) {
        self.joined += other.joined;
        self.stood_in += other.stood_in;
        self.leaders += other.leaders;
        self.truncated_tails += other.truncated_tails;
        self.jumps += other.jumps;
        self.seeded_between_clocks += other.seeded_between_clocks;
        self.reads_confirmed += other.reads_confirmed;
    }
}

struct Checkpoint {
    applied: LogIndex,
    state: LogIndex,
    bytes: Bytes,
}

pub struct World {
    pub nodes: BTreeMap<NodeId, Node>,
    pub checker: Checker,
    pub seen: Seen,
    pub trace: u64,
    dice: Dice,
    seed: u64,
    network: Vec<(NodeId, NodeId, Frame)>,
    pub cut: BTreeSet<(NodeId, NodeId)>,
    bucket: Vec<Checkpoint>,
    members: Membership,
    join: Option<Join>,
    tickets: BTreeMap<u64, (NodeId, Bytes, Option<Offset>)>,
    reads: BTreeMap<u64, (NodeId, Option<Offset>)>,
    drawn: u64,
    wall_ms: i64,
}

impl World {
    pub fn new(seed: u64, nodes: u32) -> Self {
        let all: BTreeMap<NodeId, Node> = (1..=nodes).map(|id| (node_id(id), Node::new(id))).collect();
        let members = all.values().map(|node| node.replica).collect::<Vec<_>>().into();
        let mut world = Self {
            nodes: all,
            checker: Checker::default(),
            seen: Seen::default(),
            trace: 0xcbf2_9ce4_8422_2325,
            dice: Dice(seed),
            seed,
            network: Vec::new(),
            cut: BTreeSet::new(),
            bucket: Vec::new(),
            members,
            join: None,
            tickets: BTreeMap::new(),
            reads: BTreeMap::new(),
            drawn: 0,
            wall_ms: 1_000,
        };
        world.ids().into_iter().for_each(|id| world.start(id));
        world
    }

    /// A whole run: trouble, and then peace.
    pub fn run(seed: u64, nodes: u32, steps: usize) -> Self {
        let mut world = Self::new(seed, nodes);
        for _ in 0..steps {
            world.happen();
        }
        world.make_peace();
        world
    }

    pub fn acknowledged(&self) -> usize {
        self.checker.acknowledged()
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    fn now(&self) -> Now {
        Now { monotonic: Monotonic(Duration::ZERO), wall_ms: self.wall_ms }
    }

    fn note(&mut self, what: &[u8]) {
        for &byte in what {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn start(&mut self, id: NodeId) {
        let opening = self.nodes[&id].opening(&self.members);
        self.open(id, opening);
    }

    /// Starts with the newest checkpoint of the bucket in the place of its own, if the rule allows it.
    pub fn start_from_bucket(&mut self, id: NodeId) -> bool {
        let Some(newest) = self.bucket.iter().max_by_key(|kept| kept.applied) else { return false };
        let bytes = newest.bytes.clone();
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(opening) = node.stand_in(&bytes) else { return false };
        self.seen.stood_in += 1;
        self.open(id, opening);
        true
    }

    fn open(&mut self, id: NodeId, opening: Opening) {
        let (life, now, seed) = (self.draw(), self.now(), self.seed);
        let peers = self.nodes.keys().copied().collect();
        let config =
            GroupConfig { seed, recent_bytes_max: 600, message_bytes_max: 400, ..GroupConfig::default() };
        let mut shard = Shard::with_peers(config, NodeConfig::new(CLUSTER, id, life));
        let mut effects = Vec::new();
        shard.peer_step(now, PeerInput::Nodes(peers), &mut effects);
        shard.open_member(now, opening.open, opening.membership, opening.runs, &mut effects);
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(status) = shard.replica(GROUP) else {
            let disk = &self.nodes[&id].disk;
            let (kept, files) = (&disk.snapshots, disk.files.keys());
            panic!("stopped: {effects:?} over {:?} {:?} {kept:?} {files:?}", disk.hard_state, disk.truncated)
        };
        let applied = status.applied;
        self.seen.seeded_between_clocks += usize::from(shard.state_hash(GROUP).is_none());
        (node.shard, node.life, node.applied) = (Some(shard), life, applied);
        node.members = status.membership;
        self.after(id, effects);
    }

    pub fn input(&mut self, id: NodeId, input: Input) {
        let (now, mut effects) = (self.now(), Vec::new());
        if let Some(shard) = self.nodes.get_mut(&id).unwrap().shard.as_mut() {
            shard.step(now, input, &mut effects);
            self.after(id, effects);
        }
    }

    fn peer(&mut self, id: NodeId, input: PeerInput) {
        let (now, mut effects) = (self.now(), Vec::new());
        if let Some(shard) = self.nodes.get_mut(&id).unwrap().shard.as_mut() {
            shard.peer_step(now, input, &mut effects);
            self.after(id, effects);
        }
    }

    /// Does what a shard asked for. What must be written waits for `sync`.
    fn after(&mut self, id: NodeId, effects: Vec<Effect>) {
        for effect in effects {
            self.execute(id, effect);
        }
        let told = self.nodes.get_mut(&id).unwrap().shard.as_mut().map(Shard::take_peer_effects);
        for effect in told.unwrap_or_default() {
            self.execute_peer(id, effect);
        }
        let from = self.nodes[&id].applied;
        self.checker.on_step(id, from, &self.nodes);
        let node = self.nodes.get_mut(&id).unwrap();
        if let Some(status) = node.shard.as_ref().and_then(|shard| shard.replica(GROUP)) {
            node.applied = status.applied;
            node.members = status.membership;
            let line = format!("{id:?} {:?} {} {} {}", status.role, status.term, status.applied, status.last);
            self.note(line.as_bytes());
        }
    }

    fn execute(&mut self, id: NodeId, effect: Effect) {
        let node = self.nodes.get_mut(&id).unwrap();
        match effect {
            Effect::Persist { ready, hard_state, installed, entries, .. } => {
                self.seen.jumps += usize::from(installed.is_some());
                node.writing.push_back(Write::Persist { ready, hard_state, installed, entries });
            }
            Effect::Mark { number, mark, .. } => node.writing.push_back(Write::Mark { number, mark }),
            Effect::Send { group, message } => {
                let to = message.to().unwrap().node();
                let frame = Envelope { cluster: CLUSTER, group, message }.encode();
                self.network.push((id, to, Frame::Envelope(frame)));
            }
            Effect::Reply { ticket, reply } => self.on_reply(ticket, &reply),
            Effect::Tail { base, batch, .. } => self.checker.on_records(base, &batch),
            Effect::Publish { view, .. } => self.checker.on_view(id, node.life, &view),
            Effect::Start(job) => node.jobs.push(job),
            Effect::Stopped { why, .. } => panic!("stopped: {why}"),
            Effect::MetadataChanged(_) => {}
        }
    }

    fn execute_peer(&mut self, id: NodeId, effect: PeerEffect) {
        match effect {
            PeerEffect::Pulse { to, pulse } => self.network.push((id, to, Frame::Pulse(pulse.encode()))),
            PeerEffect::Fetch { group, fetch } => {
                let log = self.nodes[&id].disk.log.iter();
                let range = log.filter(|entry| entry.index >= fetch.from && entry.index < fetch.end);
                let entries = range.take(3).cloned().collect();
                self.peer(id, PeerInput::Fetched { group, fetch, entries });
            }
            PeerEffect::Read { ticket, outcome } => {
                let Some((_, floor)) = self.reads.remove(&ticket) else { return };
                self.seen.reads_confirmed += usize::from(outcome.is_ok());
                if outcome.is_ok()
                    && let Some(view) = self.nodes[&id].shard.as_ref().and_then(|shard| shard.view(GROUP))
                {
                    self.checker.on_read(floor, view.high_watermark);
                }
            }
            PeerEffect::SnapshotWanted { .. } => {}
        }
    }

    fn on_reply(&mut self, ticket: Ticket, reply: &Reply) {
        let Some((_, value, floor)) = self.tickets.remove(&ticket.0) else { return };
        match reply {
            Reply::Produced { base_offset, .. } => self.checker.on_ok(value, *base_offset, floor),
            Reply::Refused(Refusal::Throttled | Refusal::UnknownGroup) => self.checker.on_refused(value),
            _ => {}
        }
    }

    /// The oldest write of a node becomes durable.
    pub fn sync(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(write) = node.writing.pop_front() else { return false };
        if node.disk.write(&write) {
            self.seen.truncated_tails += 1;
        }
        self.checker.on_durable(node.replica, &node.disk);
        let input = match write {
            Write::Persist { ready, .. } => Input::Persisted { group: GROUP, ready },
            Write::Mark { number, .. } => Input::Marked { group: GROUP, number },
        };
        self.input(id, input);
        true
    }

    pub fn crash(&mut self, id: NodeId, survives: usize) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.shard = None;
        node.jobs.clear();
        let writes: Vec<Write> = node.writing.drain(..).take(survives).collect();
        for write in &writes {
            node.disk.write(write);
        }
        self.checker.on_durable(node.replica, &node.disk);
        self.tickets.retain(|_, (at, ..)| *at != id);
        self.reads.retain(|_, (at, _)| *at != id);
    }

    pub fn tick(&mut self, id: NodeId) {
        self.wall_ms += 1;
        self.input(id, Input::Tick);
    }
}
