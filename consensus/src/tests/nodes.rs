//! Several nodes with many groups each: `MultiRaft` over a network of encoded frames and pulses.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use varve_common::{ClusterId, GroupId, NodeId};

use super::cluster::{Disk, replica};
use crate::{
    Entry, EntryKind, Envelope, Group, GroupConfig, MultiRaft, NodeConfig, Pulse, ReadDone, Ready, Recovered,
    Role, SnapshotPointer, SnapshotWanted,
};

pub(super) const CLUSTER: ClusterId = ClusterId([7; 16]);

pub(super) fn node(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

/// What crosses a link.
#[derive(Clone)]
enum Frame {
    Pulse(Bytes),
    Envelope(Bytes),
}

#[derive(Default)]
pub(super) struct Node {
    pub(super) groups: MultiRaft,
    pub(super) disks: BTreeMap<GroupId, Disk>,
    pub(super) applied: BTreeMap<GroupId, Vec<Entry>>,
    pub(super) reads: Vec<ReadDone>,
    pub(super) wanted: Vec<SnapshotWanted>,
    pub(super) pointer: Option<SnapshotPointer>,
    pub(super) up: bool,
    /// Its disk stands still: these writes wait for it.
    pub(super) standing: Option<Vec<(GroupId, Ready)>>,
}

pub(super) struct Nodes {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) groups: Vec<GroupId>,
    pub(super) config: GroupConfig,
    frames: Vec<(NodeId, NodeId, Frame)>,
    /// Links that lose everything, by sender and receiver.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    /// Frames that crossed, by sender and receiver: pulses and the others.
    pub(super) crossed: BTreeMap<(NodeId, NodeId), (usize, usize)>,
    lives: u64,
}

impl Nodes {
    pub(super) fn new(nodes: u32, groups: u64, config: GroupConfig) -> Self {
        let mut all = Self {
            nodes: (1..=nodes).map(|id| (node(id), Node::default())).collect(),
            groups: (1..=groups).map(GroupId).collect(),
            config,
            frames: Vec::new(),
            cut: BTreeSet::new(),
            crossed: BTreeMap::new(),
            lives: 0,
        };
        (1..=nodes).for_each(|id| all.start(id));
        all
    }

    /// Starts a node with what its disks hold.
    pub(super) fn start(&mut self, id: u32) {
        self.lives += 1;
        let voters: Vec<_> = self.nodes.keys().map(|node| replica(node.get())).collect();
        let peers: BTreeSet<NodeId> = self.nodes.keys().copied().collect();
        let (config, ids) = (self.config.clone(), self.groups.clone());
        let host = self.nodes.get_mut(&node(id)).unwrap();
        host.up = true;
        host.groups = MultiRaft::with_peers(NodeConfig::new(CLUSTER, node(id), self.lives));
        host.groups.set_peers(&peers);
        for group in ids {
            let disk = host.disks.entry(group).or_default();
            let state = host.applied.entry(group).or_default();
            state.truncate((disk.hard_state.commit.0) as usize);
            let applied = varve_common::LogIndex(state.len() as u64);
            let mut recovered = disk.recovered(replica(id), voters.clone().into(), applied);
            if disk.entries.is_empty() && disk.hard_state == crate::HardState::default() {
                recovered = Recovered::new(replica(id), voters.clone().into());
            }
            host.groups.insert(group, Group::open(recovered, config.clone()).unwrap());
        }
        self.drain(node(id));
    }

    pub(super) fn stop(&mut self, id: u32) {
        let host = self.nodes.get_mut(&node(id)).unwrap();
        host.up = false;
        host.groups = MultiRaft::new();
    }

    pub(super) fn group(&mut self, id: u32, group: GroupId) -> &Group {
        self.nodes[&node(id)].groups.get(group).unwrap()
    }

    /// Writes, applies and sends all that is ready, at once.
    pub(super) fn drain(&mut self, id: NodeId) {
        while let Some((group, ready)) = self.nodes.get_mut(&id).and_then(|host| host.groups.next_ready()) {
            self.on_ready(id, group, ready);
        }
        let pulses = self.nodes.get_mut(&id).unwrap().groups.take_pulses();
        for (to, pulse) in pulses {
            self.frames.push((id, to, Frame::Pulse(pulse.encode())));
        }
    }

    fn on_ready(&mut self, id: NodeId, group: GroupId, ready: Ready) {
        let host = self.nodes.get_mut(&id).unwrap();
        for message in ready.messages {
            let to = message.to().unwrap().node();
            let frame = Envelope { cluster: CLUSTER, group, message }.encode();
            self.frames.push((id, to, Frame::Envelope(frame)));
        }
        host.reads.extend(ready.reads);
        host.wanted.extend(ready.snapshots_wanted);
        host.pointer = ready.snapshot_pointer.or(host.pointer.take());
        host.applied.entry(group).or_default().extend(ready.committed.iter().cloned());
        let waits = host.standing.as_mut().filter(|_| ready.persist.is_some());
        let written = waits.is_none();
        if let Some(waiting) = waits {
            let (number, persist) = (ready.number, ready.persist.clone());
            waiting.push((group, Ready { number, persist, ..Ready::default() }));
        }
        let disk = host.disks.entry(group).or_default();
        if let Some(persist) = ready.persist.as_ref().filter(|_| written) {
            disk.write(persist);
        }
        let fetched: Vec<_> = ready
            .fetches
            .iter()
            .map(|fetch| {
                let range = |entry: &&Entry| entry.index >= fetch.from && entry.index < fetch.end;
                (*fetch, disk.entries.iter().filter(range).cloned().collect::<Vec<_>>())
            })
            .collect();
        host.groups.update(group, |raft| {
            if ready.persist.is_some() && written {
                raft.persisted(ready.number);
            }
            if let Some(last) = ready.committed.last() {
                raft.applied(last.index);
            }
            for (fetch, entries) in fetched {
                raft.fetched(&fetch, &entries);
            }
        });
    }

    /// The disk of a node goes on.
    pub(super) fn go_on(&mut self, id: u32) {
        let waiting = self.nodes.get_mut(&node(id)).unwrap().standing.take().unwrap_or_default();
        waiting.into_iter().for_each(|(group, ready)| self.on_ready(node(id), group, ready));
        self.drain(node(id));
    }

    /// Delivers all that is on its way, and what follows from it.
    pub(super) fn settle(&mut self) {
        for _ in 0..1000 {
            if self.deliver_once() == 0 {
                return;
            }
        }
        panic!("the nodes never come to rest");
    }

    /// Delivers what is on its way now; how much that was.
    pub(super) fn deliver_once(&mut self) -> usize {
        let frames = std::mem::take(&mut self.frames);
        let count = frames.len();
        for (from, to, frame) in frames {
            if self.cut.contains(&(from, to)) || self.nodes.get(&to).is_none_or(|host| !host.up) {
                continue;
            }
            let crossed = self.crossed.entry((from, to)).or_default();
            let host = self.nodes.get_mut(&to).unwrap();
            match frame {
                Frame::Pulse(bytes) => {
                    crossed.0 += 1;
                    let _ = host.groups.receive_pulse(from, Pulse::decode(bytes).unwrap());
                }
                Frame::Envelope(bytes) => {
                    crossed.1 += 1;
                    let _ = host.groups.receive(from, Envelope::decode(bytes).unwrap());
                }
            }
            self.drain(to);
        }
        count
    }

    pub(super) fn tick_one(&mut self, id: u32) {
        self.nodes.get_mut(&node(id)).unwrap().groups.tick();
        self.drain(node(id));
    }

    pub(super) fn tick(&mut self) {
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        for id in ids {
            if self.nodes[&id].up {
                self.tick_one(id.get());
            }
        }
        self.settle();
    }

    pub(super) fn ticks(&mut self, count: usize) {
        (0..count).for_each(|_| self.tick());
    }

    /// The node that leads a group, in its newest term.
    pub(super) fn leader(&self, group: GroupId) -> Option<u32> {
        let raft = |host: &Node| host.groups.get(group).map(|raft| (raft.term(), raft.is_settled()));
        let leads = self.nodes.iter().filter(|(_, host)| {
            host.groups.get(group).is_some_and(|raft| raft.role() == Role::Leader && raft.is_settled())
        });
        leads.max_by_key(|(_, host)| raft(host)).map(|(id, _)| id.get())
    }

    /// Lets time pass until every group has a leader; how many ticks that took.
    pub(super) fn elect(&mut self) -> usize {
        for ticks in 0..500 {
            if self.groups.iter().all(|group| self.leader(*group).is_some()) {
                return ticks;
            }
            self.tick();
        }
        panic!("no leaders in 500 ticks");
    }

    pub(super) fn propose(&mut self, group: GroupId, data: Bytes) {
        let leader = self.leader(group).unwrap();
        let host = self.nodes.get_mut(&node(leader)).unwrap();
        host.groups.update(group, |raft| raft.propose(data).unwrap());
        self.drain(node(leader));
    }

    pub(super) fn resting(&self) -> usize {
        let hosts = self.nodes.values().filter(|host| host.up);
        hosts.flat_map(|host| host.groups.iter()).filter(|(_, raft)| raft.is_resting()).count()
    }

    pub(super) fn terms(&self) -> Vec<u64> {
        let hosts = self.nodes.values().filter(|host| host.up);
        hosts.flat_map(|host| host.groups.iter()).map(|(_, raft)| raft.term().0).collect()
    }

    /// What the state machine of a group holds on a node: the commands.
    pub(super) fn commands(&self, id: u32, group: GroupId) -> Vec<Bytes> {
        let entries = self.nodes[&node(id)].applied[&group].iter();
        entries.filter(|entry| entry.kind == EntryKind::Normal).map(|entry| entry.data.clone()).collect()
    }
}
