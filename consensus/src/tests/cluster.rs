//! A few replicas, their disks, and a network of encoded messages between them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft::eraftpb::MessageType;
use varve_common::{ClusterId, GroupId, LogIndex, NodeId, ReplicaId, Term};

use super::checker::Checker;
use crate::{
    Entry, Envelope, Gate, Group, GroupConfig, HardState, Membership, Persist, Ready, Recovered, Role,
    TermRun, gate::Sender,
};

pub(super) const GATE: Gate = Gate { cluster: ClusterId([7; 16]), group: GroupId(5) };

pub(super) fn replica(node: u32) -> ReplicaId {
    ReplicaId::new(NodeId::new(node).unwrap(), 1).unwrap()
}

/// What would be left after a power cut. A `Persist` is written whole or not at all.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    pub(super) truncated: (LogIndex, Term),
    pub(super) entries: Vec<Entry>,
}

impl Disk {
    pub(super) fn write(&mut self, persist: &Persist) {
        if let Some(snapshot) = &persist.installed {
            self.entries.clear();
            self.truncated = (snapshot.index, snapshot.term);
        }
        if let Some(first) = persist.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            assert_eq!(self.last_index().next(), first.index, "the log has no gaps");
            self.entries.extend(persist.entries.iter().cloned());
        }
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
    }

    pub(super) fn last_index(&self) -> LogIndex {
        self.entries.last().map_or(self.truncated.0, |entry| entry.index)
    }

    pub(super) fn get(&self, index: LogIndex) -> Option<&Entry> {
        self.entries.get(index.0.checked_sub(self.truncated.0.0 + 1)? as usize)
    }

    pub(super) fn holds(&self, index: LogIndex, term: Term) -> bool {
        index <= self.truncated.0 || self.get(index).is_some_and(|entry| entry.term == term)
    }

    fn cut(&mut self, index: LogIndex) {
        let Some(term) = self.get(index).map(|entry| entry.term) else { return };
        self.entries.retain(|entry| entry.index > index);
        self.truncated = (index, term);
    }

    /// What a restart finds, with a state machine at `applied`.
    pub(super) fn recovered(&self, id: ReplicaId, membership: Membership, applied: LogIndex) -> Recovered {
        let below = self.entries.iter().filter(|entry| entry.index <= applied);
        let runs = below.map(|entry| TermRun { start: entry.index, term: entry.term }).collect();
        Recovered {
            replica: id,
            membership,
            hard_state: self.hard_state,
            truncated: self.truncated,
            applied,
            runs,
            entries: self.entries.iter().filter(|entry| entry.index > applied).cloned().collect(),
        }
    }
}

pub(super) struct Node {
    pub(super) group: Option<Group>,
    pub(super) disk: Disk,
    pub(super) writing: VecDeque<(u64, Persist)>,
    /// The state machine: what was applied, from the first entry on.
    pub(super) applied: Vec<Entry>,
}

pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<ReplicaId, Node>,
    pub(super) network: Vec<(NodeId, Bytes)>,
    pub(super) checker: Checker,
    pub(super) membership: Membership,
    pub(super) config: GroupConfig,
    /// Everything that happened, folded.
    pub(super) trace: u64,
}

impl Cluster {
    pub(super) fn new(voters: u32, learners: u32, seed: u64) -> Self {
        Self::with(voters, learners, GroupConfig { seed, recent_bytes_max: 1000, ..GroupConfig::default() })
    }

    pub(super) fn with(voters: u32, learners: u32, config: GroupConfig) -> Self {
        let membership = Membership {
            voters: (1..=voters).map(replica).collect(),
            learners: (voters + 1..=voters + learners).map(replica).collect(),
            ..Membership::default()
        };
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            network: Vec::new(),
            checker: Checker::default(),
            membership,
            config,
            trace: 0xcbf2_9ce4_8422_2325,
        };
        let all: Vec<_> = (1..=voters + learners).map(replica).collect();
        all.into_iter().for_each(|id| cluster.join(id, Disk::default(), Vec::new()));
        cluster
    }

    /// Starts a replica that is not running.
    pub(super) fn join(&mut self, id: ReplicaId, disk: Disk, applied: Vec<Entry>) {
        let recovered = disk.recovered(id, self.membership.clone(), LogIndex(applied.len() as u64));
        let group = Group::open(recovered, self.config.clone()).unwrap();
        self.nodes.insert(id, Node { group: Some(group), disk, writing: VecDeque::new(), applied });
        self.drain(id);
    }

    pub(super) fn note(&mut self, what: &[u8]) {
        for &byte in what {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn group(&mut self, id: ReplicaId) -> &mut Group {
        self.nodes.get_mut(&id).unwrap().group.as_mut().unwrap()
    }

    /// Takes all readies of a replica; writes wait for `persist`.
    pub(super) fn drain(&mut self, id: ReplicaId) {
        while let Some(ready) = self.nodes.get_mut(&id).and_then(|node| node.group.as_mut()?.ready()) {
            self.on_ready(id, ready);
        }
        let node = &self.nodes[&id];
        self.checker.on_step(node, &self.membership.learners);
    }

    fn on_ready(&mut self, id: ReplicaId, ready: Ready) {
        let summary = format!("{id} {} {:?} {:?}", ready.number, ready.leadership, ready.committed.len());
        self.note(summary.as_bytes());
        for message in ready.messages {
            Checker::on_send(&self.nodes[&id].disk, &message);
            let frame = Envelope { cluster: GATE.cluster, group: GATE.group, message }.encode();
            self.note(&frame);
            self.network.push((id.node(), frame));
        }
        for entry in &ready.committed {
            self.checker.on_committed(entry, &self.membership, &self.nodes);
        }
        let node = self.nodes.get_mut(&id).unwrap();
        let group = node.group.as_mut().unwrap();
        if let Some(last) = ready.committed.last().map(|entry| entry.index) {
            assert_eq!(ready.committed[0].index.0, node.applied.len() as u64 + 1, "R4 once and in order");
            node.applied.extend(ready.committed);
            group.applied(last);
        }
        for fetch in ready.fetches {
            let range = |entry: &&Entry| entry.index >= fetch.from && entry.index < fetch.end;
            let entries: Vec<_> = node.disk.entries.iter().filter(range).take(3).cloned().collect();
            group.fetched(&fetch, &entries);
        }
        if let Some(persist) = ready.persist {
            node.writing.push_back((ready.number, persist));
        }
    }

    /// The oldest write of a replica becomes durable.
    pub(super) fn persist(&mut self, id: ReplicaId) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some((number, persist)) = node.writing.pop_front() else { return false };
        node.disk.write(&persist);
        self.checker.on_durable(&node.disk, id);
        if let Some(group) = node.group.as_mut() {
            group.persisted(number);
        }
        self.drain(id);
        true
    }

    pub(super) fn tick(&mut self, id: ReplicaId) {
        if let Some(group) = self.nodes.get_mut(&id).and_then(|node| node.group.as_mut()) {
            group.tick();
            self.drain(id);
        }
    }

    /// Delivers a frame, if its receiver runs.
    pub(super) fn deliver(&mut self, from: NodeId, frame: Bytes) {
        let envelope = Envelope::decode(frame).unwrap();
        let to = envelope.message.to().unwrap();
        let sender = Sender::of(&envelope, from);
        if let Some(group) = self.nodes.get_mut(&to).and_then(|node| node.group.as_mut()) {
            let _ = group.step(&GATE, sender, envelope.message);
            self.drain(to);
        }
    }

    pub(super) fn receiver(frame: &Bytes) -> ReplicaId {
        Envelope::decode(frame.clone()).unwrap().message.to().unwrap()
    }

    pub(super) fn kind(frame: &Bytes) -> MessageType {
        Envelope::decode(frame.clone()).unwrap().message.0.get_msg_type()
    }

    /// Ends and starts a replica, with another configuration.
    pub(super) fn restart_with(&mut self, id: ReplicaId, config: GroupConfig) {
        let ours = std::mem::replace(&mut self.config, config);
        self.crash(id, usize::MAX);
        self.restart(id, LogIndex(u64::MAX));
        self.config = ours;
    }

    /// Power cut: of what is being written, `survives` writes make it.
    pub(super) fn crash(&mut self, id: ReplicaId, survives: usize) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.group = None;
        for (_, persist) in node.writing.drain(..).take(survives) {
            node.disk.write(&persist);
        }
        self.checker.on_durable(&node.disk, id);
    }

    /// Back up, with the state machine at `applied` or wherever the disk's commit allows.
    pub(super) fn restart(&mut self, id: ReplicaId, applied: LogIndex) {
        let node = self.nodes.remove(&id).unwrap();
        let applied = applied.min(node.disk.hard_state.commit).max(node.disk.truncated.0);
        let mut state = node.applied;
        state.truncate(applied.0 as usize);
        self.join(id, node.disk, state);
    }

    /// Cuts the log of a replica below `index`, where it may.
    pub(super) fn compact(&mut self, id: ReplicaId, index: LogIndex) {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(group) = node.group.as_mut() else { return };
        let index =
            index.min(group.applied_index()).min(node.disk.hard_state.commit).min(node.disk.last_index());
        if index > node.disk.truncated.0 {
            group.compact(index);
            node.disk.cut(index);
        }
    }

    pub(super) fn leader(&self) -> Option<ReplicaId> {
        let leads = |node: &&Node| node.group.as_ref().is_some_and(|group| group.role() == Role::Leader);
        let newest =
            self.nodes.values().filter(leads).max_by_key(|node| node.group.as_ref().unwrap().term())?;
        newest.group.as_ref().map(Group::replica)
    }

    /// Each replica writes once, and what was sent is delivered; whether anything moved.
    pub(super) fn round(&mut self) -> bool {
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        let wrote = ids.iter().filter(|&&id| self.persist(id)).count();
        let frames = std::mem::take(&mut self.network);
        let moves = wrote > 0 || !frames.is_empty();
        frames.into_iter().for_each(|(from, frame)| self.deliver(from, frame));
        moves
    }

    /// Writes and delivers everything, without a tick, until nothing moves.
    pub(super) fn settle(&mut self) {
        assert!((0..10_000).any(|_| !self.round()), "the cluster never comes to rest");
    }

    /// Lets time pass everywhere until a leader is settled.
    pub(super) fn elect(&mut self) -> ReplicaId {
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        for _ in 0..500 {
            self.settle();
            if let Some(leader) = self.leader()
                && self.group(leader).is_settled()
            {
                return leader;
            }
            ids.iter().for_each(|&id| self.tick(id));
        }
        panic!("no leader in 500 ticks");
    }

    pub(super) fn propose(&mut self, id: ReplicaId, text: &str) -> LogIndex {
        let index = self.group(id).propose(Bytes::copy_from_slice(text.as_bytes())).unwrap();
        self.drain(id);
        index
    }
}
