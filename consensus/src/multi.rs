//! The groups of a node.
//!
//! All groups in order of their ids: whoever iterates sees the same order in every run. What is idle costs its memory
//! and nothing else: time goes only to groups that want it, readies only to those that were touched, and between two
//! nodes goes one pulse at a time, whatever the number of groups ([`crate::Peers`]).

use std::collections::{BTreeMap, BTreeSet};

use raft::eraftpb::MessageType;
use varve_common::{GroupId, NodeId};

use crate::{
    Envelope, Gate, Group, LeaderBoard, LeaderReport, Message, NodeConfig, Peers, Pulse, PulseError, Ready,
    Role, StepError, gate::Sender, peers, pulse::Beat,
};

/// What holds a group: the group alone, or with the state that its entries make.
pub trait Host {
    /// The group.
    fn raft(&self) -> &Group;
    /// The group, to change.
    fn raft_mut(&mut self) -> &mut Group;
    /// Whether time matters to it.
    fn wants_tick(&self) -> bool {
        self.raft().wants_tick()
    }
}

impl Host for Group {
    fn raft(&self) -> &Group {
        self
    }

    fn raft_mut(&mut self) -> &mut Group {
        self
    }
}

/// All groups of a node.
pub struct MultiRaft<H = Group> {
    groups: BTreeMap<GroupId, Box<H>>,
    ticking: BTreeSet<GroupId>,
    dirty: BTreeSet<GroupId>,
    /// Groups that this node leads at rest.
    led_at_rest: BTreeSet<GroupId>,
    /// `None` on a node that has no peers, and never will in this life.
    peers: Option<Box<Peers>>,
}

impl<H> Default for MultiRaft<H> {
    fn default() -> Self {
        Self {
            groups: BTreeMap::new(),
            ticking: BTreeSet::new(),
            dirty: BTreeSet::new(),
            led_at_rest: BTreeSet::new(),
            peers: None,
        }
    }
}

impl<H: Host> MultiRaft<H> {
    /// No groups, and no peers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No groups, on a node that has peers.
    #[must_use]
    pub fn with_peers(config: NodeConfig) -> Self {
        Self { peers: Some(Box::new(Peers::new(config))), ..Self::default() }
    }

    /// The nodes of the cluster, this one or not among them.
    pub fn set_peers(&mut self, nodes: &BTreeSet<NodeId>) {
        if let Some(peers) = &mut self.peers {
            peers.set(nodes);
        }
    }

    /// The peers, to look at.
    #[must_use]
    pub fn peers(&self) -> Option<&Peers> {
        self.peers.as_deref()
    }

    /// Who leads which group, as far as this node knows; `None` without peers.
    #[must_use]
    pub fn leaders(&self) -> Option<&LeaderBoard> {
        self.peers().map(Peers::leaders)
    }

    /// What this node learned of leaders since this was last asked.
    #[must_use]
    pub fn take_leader_reports(&mut self) -> Vec<LeaderReport> {
        self.peers.as_mut().map(|peers| peers.board.take_changed()).unwrap_or_default()
    }

    /// Adds a group; gives back the one that had this id.
    pub fn insert(&mut self, id: GroupId, host: H) -> Option<Box<H>> {
        let before = self.groups.insert(id, Box::new(host));
        self.note(id);
        before
    }

    /// Takes a group out.
    pub fn remove(&mut self, id: GroupId) -> Option<Box<H>> {
        self.ticking.remove(&id);
        self.dirty.remove(&id);
        let host = self.groups.remove(&id)?;
        self.leave(id, host.raft());
        Some(host)
    }

    /// Whoever rests on this node's word is told that it is void.
    fn leave(&mut self, id: GroupId, group: &Group) {
        let Some(peers) = &mut self.peers else { return };
        peers.rests(id, None);
        peers.publisher.withdraw(id);
        if self.led_at_rest.remove(&id) {
            group.members().for_each(|member| peers.disown(member.node(), id));
        }
    }

    /// A group, to look at.
    #[must_use]
    pub fn get(&self, id: GroupId) -> Option<&H> {
        self.groups.get(&id).map(AsRef::as_ref)
    }

    /// Does something to a group, and remembers that it may have effects now.
    pub fn update<T>(&mut self, id: GroupId, act: impl FnOnce(&mut H) -> T) -> Option<T> {
        let outcome = self.groups.get_mut(&id).map(|host| act(host))?;
        self.note(id);
        Some(outcome)
    }

    /// The same for a host that takes its readies itself: what it did about them leaves nothing to come back for.
    pub fn serve<T>(&mut self, id: GroupId, act: impl FnOnce(&mut H) -> T) -> Option<T> {
        let outcome = self.update(id, act)?;
        self.dirty.remove(&id);
        Some(outcome)
    }

    /// Lets one tick of time pass for every group that wants it.
    pub fn tick(&mut self) {
        self.tick_late(0);
    }

    /// The same, `late_by` ticks after it should have come. What was missed meanwhile is not taken for others' silence.
    pub fn tick_late(&mut self, late_by: usize) {
        let forgiven = self.tick_peers(late_by);
        for id in self.ticking.clone() {
            self.update(id, |host| {
                if forgiven {
                    host.raft_mut().restart_timer();
                }
                host.raft_mut().tick();
            });
            self.publish(id);
        }
    }

    fn tick_peers(&mut self, late_by: usize) -> bool {
        let Some(peers) = &mut self.peers else { return false };
        let forgiven = peers.late.forgives(late_by, peers.config.election_ticks);
        if forgiven {
            peers.forgive();
        }
        let died = peers.tick();
        for id in peers.take_wakes() {
            self.update(id, |host| host.raft_mut().wake());
            self.forget_gone_leader(id);
        }
        if !died.is_empty() {
            self.publish_at_rest();
        }
        forgiven
    }

    /// The process of a node has ended, as somebody says who would know: the groups that it led are led again within a few ticks.
    /// What is wrong about that costs an election, and nothing else.
    pub fn peer_gone(&mut self, node: NodeId) {
        let Some(peers) = &mut self.peers else { return };
        peers.gone(node);
        for id in self.ticking.clone() {
            self.forget_gone_leader(id);
        }
        self.publish_at_rest();
    }

    fn forget_gone_leader(&mut self, id: GroupId) {
        let Some(peers) = &self.peers else { return };
        let leader = self.groups.get(&id).and_then(|host| host.raft().leader());
        if leader.is_some_and(|leader| peers.is_gone(leader.node())) {
            self.update(id, |host| host.raft_mut().leader_gone());
        }
    }

    /// The next group with something to do, lowest id first. A group that still has more comes again in the same
    /// round, behind none: take until `None`.
    pub fn next_ready(&mut self) -> Option<(GroupId, Ready)> {
        while let Some(id) = self.dirty.first().copied() {
            let ready = self.groups.get_mut(&id).and_then(|host| host.raft_mut().ready());
            let Some(mut ready) = ready else {
                self.dirty.remove(&id);
                continue;
            };
            let messages = std::mem::take(&mut ready.messages);
            ready.messages = messages.into_iter().filter_map(|message| self.absorb(id, message)).collect();
            return Some((id, ready));
        }
        None
    }

    /// The groups that were touched since this was last asked, for hosts that take their readies themselves.
    #[must_use]
    pub fn take_touched(&mut self) -> Vec<GroupId> {
        std::mem::take(&mut self.dirty).into_iter().collect()
    }

    /// Takes a heartbeat, or the answer to one, into the next pulse; gives back what must travel by itself.
    pub fn absorb(&mut self, id: GroupId, message: Message) -> Option<Message> {
        let (Some(peers), Some(host)) = (&mut self.peers, self.groups.get(&id)) else { return Some(message) };
        match message.0.get_msg_type() {
            MessageType::MsgHeartbeat => {
                let rest = host.raft().seeks_rest();
                peers.say_beat(Beat { rest, ..Beat::of(id, &message)? });
            }
            MessageType::MsgHeartbeatResponse => {
                let rest = host.raft().is_resting();
                peers.say_answer(Beat { rest, ..Beat::of(id, &message)? });
            }
            _ => return Some(message),
        }
        None
    }

    /// The pulses that are due, each with the node that it goes to. Ask after every tick and whenever readies were taken.
    pub fn take_pulses(&mut self) -> Vec<(NodeId, Pulse)> {
        let Some(peers) = &mut self.peers else { return Vec::new() };
        let mut pulses = peers.take_pulses();
        for (node, pulse) in &mut pulses {
            for id in peers.ask_resting(*node) {
                pulse.resting.extend(self.groups.get(&id).map(|host| peers::resting(id, host.raft().term())));
            }
        }
        pulses
    }

    /// Asks whoever leads a group to write something to it: this node's log holds more of it than it must, and nothing happens there.
    pub fn ask_to_advance(&mut self, id: GroupId) {
        let leader = self.get(id).and_then(|host| host.raft().leader());
        if let (Some(peers), Some(leader)) = (&mut self.peers, leader) {
            peers.ask_to_advance(leader.node(), id);
        }
    }

    /// Takes a message of a peer that came over the connection to `connection`; `None` where the group is not here.
    pub fn receive(&mut self, connection: NodeId, envelope: Envelope) -> Option<Result<(), StepError>> {
        let cluster = self.peers.as_ref()?.config.cluster;
        let gate = Gate { cluster, group: envelope.group };
        let sender = Sender::of(&envelope, connection);
        self.update(envelope.group, |host| host.raft_mut().step(&gate, sender, envelope.message))
    }

    /// Takes a pulse of a peer that came over the connection to `connection`.
    pub fn receive_pulse(&mut self, connection: NodeId, pulse: Pulse) -> Result<(), PulseError> {
        let Some(peers) = &mut self.peers else { return Err(PulseError::Stale) };
        let heard = peers.hear(connection, &pulse)?;
        for id in heard.wake {
            self.update(id, |host| host.raft_mut().wake());
        }
        if heard.revived {
            self.publish_at_rest();
        }
        for asked in &pulse.resting {
            let leads = |host: &H| host.raft().role() == Role::Leader && host.raft().fenced().is_none();
            if !self.get(asked.group).is_some_and(leads)
                && let Some(peers) = &mut self.peers
            {
                peers.disown(connection, asked.group);
            }
        }
        for beat in pulse.beats {
            self.step_beat(connection, MessageType::MsgHeartbeat, beat);
        }
        for answer in pulse.answers {
            self.step_beat(connection, MessageType::MsgHeartbeatResponse, answer);
        }
        Ok(())
    }

    fn step_beat(&mut self, connection: NodeId, kind: MessageType, beat: Beat) {
        let Some(cluster) = self.peers.as_ref().map(|peers| peers.config.cluster) else { return };
        let gate = Gate { cluster, group: beat.group };
        let sender = Sender { cluster, group: beat.group, connection };
        self.update(beat.group, |host| {
            let group = host.raft_mut();
            if group.step(&gate, sender, beat.to_message(kind)).is_err() {
                return;
            }
            match (kind, beat.rest) {
                (MessageType::MsgHeartbeat, true) => group.agree_to_rest(beat.from, beat.term, beat.commit),
                (MessageType::MsgHeartbeat, false) => {}
                (_, true) => group.rest_agreed(beat.from, beat.term, beat.commit),
                (_, false) => group.rest_refused(beat.from),
            }
        });
    }

    /// The groups, in order.
    pub fn ids(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.keys().copied()
    }

    /// The groups with what holds them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (GroupId, &H)> {
        self.groups.iter().map(|(id, host)| (*id, host.as_ref()))
    }

    /// How many groups there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// How many groups want ticks.
    #[must_use]
    pub fn ticking(&self) -> usize {
        self.ticking.len()
    }

    fn note(&mut self, id: GroupId) {
        let Some(host) = self.groups.get(&id) else { return };
        let group = host.raft();
        self.dirty.insert(id);
        if host.wants_tick() {
            self.ticking.insert(id);
        } else {
            self.ticking.remove(&id);
        }
        let Some(peers) = &mut self.peers else { return };
        let leads = group.role() == Role::Leader && group.fenced().is_none();
        let rests_with = group.leader().filter(|_| group.is_resting() && !leads);
        peers.rests(id, rests_with.map(varve_common::ReplicaId::node));
        if leads && group.is_resting() {
            self.led_at_rest.insert(id);
        } else if self.led_at_rest.remove(&id) && !leads {
            group.members().for_each(|member| peers.disown(member.node(), id));
        }
        if !leads {
            peers.publisher.withdraw(id);
        } else if peers.board.get(id).is_none_or(|known| known.term < group.term()) {
            self.publish(id);
        }
    }

    fn publish_at_rest(&mut self) {
        for id in self.led_at_rest.clone() {
            self.publish(id);
        }
    }

    /// Tells the peers what this node leads, where that changed.
    fn publish(&mut self, id: GroupId) {
        let (Some(peers), Some(host)) = (&mut self.peers, self.groups.get(&id)) else { return };
        let group = host.raft();
        if !group.is_settled() || group.fenced().is_some() {
            return;
        }
        let mut in_sync = group.in_sync();
        in_sync.retain(|replica| peers.is_alive(replica.node()));
        if let Some(report) = peers.publisher.publish(id, group.term(), group.replica(), in_sync) {
            peers.board.learn(&report);
        }
    }
}
