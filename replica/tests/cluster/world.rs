//! What happens to a cluster, by a seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use varve_common::{Digest, LogIndex, Monotonic, NodeId, Offset, ReplicaId};
use varve_consensus::{Change, Envelope, GroupConfig, Membership, NodeConfig, Pulse, Role};
use varve_formats::{
    command::{PublishedCheckpoint, TrimCause},
    compression::Codec,
    manifest::{Entry, EntryKind},
    state::{Intent, RollEntry},
};
use varve_replica::{
    Action, Effect, Input, Job, JobOutcome, LocalCheckpoint, Now, PeerEffect, PeerInput, Refusal, Reply,
    RollCause, Shard, Ticket, Timestamps,
    partition::{BatchHeader, sample},
};

use super::{
    checker::Checker,
    node::{CLUSTER, GROUP, Node, Opening, Write, node_id},
};

/// SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    }
}

#[derive(Clone)]
enum Frame {
    Envelope(Bytes),
    Pulse(Bytes),
}

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

/// A node that lost its disk comes back as another replica.
struct Join {
    old: ReplicaId,
    new: ReplicaId,
    started: bool,
    /// S of the checkpoint that seeds it: logs are kept above it.
    pinned: LogIndex,
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

    fn deliver(&mut self, from: NodeId, to: NodeId, frame: Frame) {
        if self.cut.contains(&(from, to)) {
            return;
        }
        let input = match frame {
            Frame::Envelope(bytes) => {
                let envelope = Envelope::decode(bytes).unwrap();
                PeerInput::Message { from, envelope }
            }
            Frame::Pulse(bytes) => PeerInput::Pulse { from, pulse: Pulse::decode(bytes).unwrap() },
        };
        self.peer(to, input);
    }

    /// A message to this node comes from another cluster: its replica stops.
    pub fn forge(&mut self, to: NodeId) {
        let other = self.ids().into_iter().find(|id| *id != to).unwrap();
        let frame = loop {
            let frames = std::mem::take(&mut self.network);
            let found = frames.into_iter().find_map(|(from, _, frame)| match frame {
                Frame::Envelope(bytes) if from == to => Some(bytes),
                _ => None,
            });
            match found {
                Some(frame) => break frame,
                None => self.produce(to),
            }
        };
        let mut envelope = Envelope::decode(frame).unwrap();
        envelope.cluster = varve_common::ClusterId([9; 16]);
        let (now, mut effects) = (self.now(), Vec::new());
        let shard = self.nodes.get_mut(&to).unwrap().shard.as_mut().unwrap();
        shard.peer_step(now, PeerInput::Message { from: other, envelope }, &mut effects);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Stopped { .. })));
        let told = shard.take_peer_effects();
        told.into_iter().for_each(|effect| self.execute_peer(to, effect));
    }

    /// The node that leads in the newest term.
    pub fn leader(&self) -> Option<NodeId> {
        let status = |node: &Node| node.shard.as_ref()?.replica(GROUP);
        let leads = self.nodes.iter().filter_map(|(id, node)| Some((*id, status(node)?)));
        let leads = leads.filter(|(_, status)| status.role == Role::Leader);
        leads.max_by_key(|(_, status)| status.term).map(|(id, _)| id)
    }

    pub fn produce(&mut self, id: NodeId) {
        if self.nodes[&id].shard.is_none() {
            return;
        }
        let ticket = self.draw();
        let value = Bytes::from(format!("value {ticket}"));
        let batch = sample((-1, -1, -1), 1, &value);
        let meta = BatchHeader::parse(&batch).unwrap().meta;
        self.checker.on_invoke(value.clone());
        self.tickets.insert(ticket, (id, value, self.checker.floor()));
        let (ticket, timestamps) = (Ticket(ticket), Timestamps::Create);
        self.input(id, Input::Produce { ticket, group: GROUP, batch, meta, timestamps });
    }

    /// The reads that were never answered.
    pub fn unanswered(&self) -> usize {
        self.reads.len()
    }

    pub fn read(&mut self, id: NodeId) {
        if self.nodes[&id].shard.is_none() {
            return;
        }
        let ticket = self.draw();
        self.reads.insert(ticket, (id, self.checker.floor()));
        self.peer(id, PeerInput::Read { ticket, group: GROUP });
    }

    pub fn act(&mut self, id: NodeId, action: Action) {
        self.input(id, Input::Act { group: GROUP, action });
    }

    /// One step of the planner, as far as it is needed here.
    pub fn plan(&mut self, id: NodeId, which: usize) {
        let Some(status) = self.nodes[&id].shard.as_ref().and_then(|shard| shard.status(GROUP)) else {
            return;
        };
        let uid = self.draw();
        let free = status.rolls.iter().find(|roll| {
            roll.end > status.tiered_end
                && !status.intents.iter().any(|intent| intent.base < roll.end && roll.base < intent.end)
        });
        let action = match which {
            0 => Action::Roll { cause: RollCause::Bytes },
            1 => match free {
                Some(roll) => Action::Announce { uid, base: roll.base, end: roll.end },
                None => Action::Append,
            },
            2 => {
                let waits = status.intents.iter().find(|intent| {
                    let known = [&status.uploading, &status.uploaded, &status.upload_failed];
                    intent.term == status.term && !known.iter().any(|uids| uids.contains(&intent.uid))
                });
                waits.map_or(Action::Append, |intent| Action::Upload { uid: intent.uid })
            }
            3 => Action::PublishCheckpoint { uid },
            4 => Action::CheckpointLocal,
            5 => {
                let old = status.intents.iter().filter(|intent| !status.uploading.contains(&intent.uid));
                let uids: Vec<u64> = old.map(|intent| intent.uid).collect();
                if uids.is_empty() { Action::Append } else { Action::Expire { uids } }
            }
            6 => Action::Trim { log_start: Offset(status.log_start.0 + 1), cause: TrimCause::DeleteRecords },
            _ => {
                let (index, _) = status.cut_limit;
                let index = index.min(self.pinned());
                let Some(term) = self.nodes[&id].disk.get(index).map(|entry| entry.term) else { return };
                Action::Cut { index, term }
            }
        };
        self.act(id, action);
    }

    /// Logs are kept for live members, and for the one that joins.
    fn pinned(&self) -> LogIndex {
        let others = self
            .nodes
            .values()
            .filter(|node| self.join.as_ref().is_none_or(|join| join.new != node.replica || join.started));
        let members = others.map(|node| node.disk.hard_state.commit.min(node.disk.last())).min();
        let joins = self.join.as_ref().map_or(LogIndex(u64::MAX), |join| join.pinned);
        members.unwrap_or_default().min(joins)
    }

    pub fn run_job(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        if node.shard.is_none() || node.jobs.is_empty() {
            return false;
        }
        let job = node.jobs.remove(0);
        let outcome = match job {
            Job::Upload { intent, roll, .. } => {
                JobOutcome::Uploaded { uid: intent.uid, entry: uploaded(&intent, &roll) }
            }
            Job::CheckpointLocal { index, term, captured, .. } => {
                let encoded = captured.encode(Codec::Zstd);
                let file = format!("{index:020}-{:08x}", term.0);
                node.disk.files.insert(file.clone(), encoded.bytes);
                JobOutcome::CheckpointWritten(LocalCheckpoint { index, term, file, sha256: encoded.sha256 })
            }
            Job::RemoveCheckpoint { checkpoint, .. } => {
                node.disk.files.remove(&checkpoint.file);
                JobOutcome::CheckpointRemoved
            }
            Job::Publish { uid, key_term, captured, .. } => {
                let (encoded, header) = (captured.encode(Codec::Zstd), captured.header().clone());
                let checkpoint = PublishedCheckpoint {
                    uid,
                    key_term,
                    state_index: header.state.index,
                    state_term: header.state.term,
                    state_offset: header.state.offset,
                    applied_index: header.applied.index,
                    log_start: captured.log_start(),
                    bytes: encoded.bytes.len() as u64,
                    sha256: encoded.sha256,
                    published_ms: 1,
                };
                let (applied, state) = (header.applied.index, header.state.index);
                self.bucket.push(Checkpoint { applied, state, bytes: encoded.bytes });
                let kept = Some(self.bucket.iter().map(|kept| kept.applied).collect());
                JobOutcome::CheckpointPublished { checkpoint, kept }
            }
            Job::Install { checkpoint, .. } => {
                let is_named = |kept: &&Checkpoint| kept.applied == checkpoint.applied_index;
                node.install(&self.bucket.iter().find(is_named).expect("nothing goes").bytes)
            }
            Job::Delete { tombstones, .. } => {
                JobOutcome::Deleted { uids: tombstones.iter().map(|tombstone| tombstone.uid).collect() }
            }
            other => panic!("nobody asked for {other:?}"),
        };
        self.input(id, Input::JobDone { group: GROUP, outcome });
        true
    }

    fn happen(&mut self) {
        let ids = self.ids();
        let id = ids[self.dice.roll(ids.len())];
        let up = self.nodes[&id].shard.is_some();
        match self.dice.roll(200) {
            0..96 => (0..=self.dice.roll(8)).for_each(|_| self.network_happens()),
            96..124 => drop(self.sync(id)),
            124..140 => self.tick(id),
            140..152 => self.ids().into_iter().for_each(|id| self.tick(id)),
            152..166 => {
                let at = self.leader().filter(|_| self.dice.roll(4) > 0).unwrap_or(id);
                self.produce(at);
            }
            166..174 => while self.run_job(id) {},
            174..185 => {
                let at = self.leader().filter(|_| self.dice.roll(3) > 0).unwrap_or(id);
                for _ in 0..4 {
                    let which = [0, 1, 2, 2, 3, 4, 5, 6, 7, 1, 2][self.dice.roll(11)];
                    self.plan(at, which);
                }
            }
            // Whoever believes that it leads is asked.
            185..187 => self.ids().into_iter().for_each(|id| self.read(id)),
            187 if up => {
                let survives = self.dice.roll(self.nodes[&id].writing.len() + 1);
                self.crash(id, survives);
            }
            188..193 => {
                let down = self.nodes.iter().find(|(_, node)| node.shard.is_none()).map(|(id, _)| *id);
                self.start_again(down.unwrap_or(id));
            }
            193 => self.cut_links(),
            194 | 195 => self.cut.clear(),
            196..199 => self.join_step(id),
            _ => {
                let to = self.nodes[&id].replica;
                let (now, mut effects) = (self.now(), Vec::new());
                if let Some(leader) = self.leader()
                    && let Some(shard) = self.nodes.get_mut(&leader).unwrap().shard.as_mut()
                {
                    shard.transfer(now, GROUP, to, &mut effects);
                    self.after(leader, effects);
                }
            }
        }
    }

    fn network_happens(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let place = self.dice.roll(self.network.len());
        let (from, to, frame) = self.network.swap_remove(place);
        match self.dice.roll(25) {
            0 => {}
            1 => {
                self.network.push((from, to, frame.clone()));
                self.deliver(from, to, frame);
            }
            _ => self.deliver(from, to, frame),
        }
        if self.network.len() > 400 {
            self.network.drain(..200);
        }
    }

    fn start_again(&mut self, id: NodeId) {
        let joins = self.join.as_ref().is_some_and(|join| join.new.node() == id && !join.started);
        if self.nodes[&id].shard.is_some() || joins {
            return;
        }
        if self.dice.roll(4) > 0 || !self.start_from_bucket(id) {
            self.start(id);
        }
    }

    /// One way, a whole node, or a ring: neighbours hear each other only.
    fn cut_links(&mut self) {
        let ids = self.ids();
        let at = self.dice.roll(ids.len());
        let one = ids[at];
        match self.dice.roll(3) {
            0 => {
                let other = ids[(at + 1 + self.dice.roll(ids.len() - 1)) % ids.len()];
                self.cut.insert((one, other));
            }
            1 => {
                for other in ids.into_iter().filter(|other| *other != one) {
                    self.cut.insert((one, other));
                    self.cut.insert((other, one));
                }
            }
            _ => {
                let count = ids.len();
                for step in 0..count {
                    let far = ids[(step + 2) % count];
                    if count > 3 || step == at {
                        self.cut.insert((ids[step], far));
                        self.cut.insert((far, ids[step]));
                    }
                }
            }
        }
    }

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

/// What an upload would say of a range.
fn uploaded(intent: &Intent, roll: &RollEntry) -> Entry {
    Entry {
        store_id: 0,
        kind: EntryKind::Raw,
        incarnation: 1,
        term: intent.term,
        uid: intent.uid,
        position: 0,
        length: 10,
        base: roll.base,
        last: Offset(roll.end.0 - 1),
        count: roll.end.since(roll.base),
        min_timestamp: -1,
        max_timestamp: roll.max_timestamp,
        first_index: roll.first_index,
        roll_index: roll.roll_index,
        roll_term: roll.roll_term,
        terms: (intent.term, intent.term),
        txn_index_empty: true,
        delete_horizon_ms: 0,
        batch_bytes: roll.bytes,
        sha256: Digest::default(),
    }
}
