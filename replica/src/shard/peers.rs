//! What several nodes need of the shard: messages and pulses in, messages, pulses and log reads out.

use std::collections::BTreeSet;

use varve_common::{GroupId, LogIndex, NodeId, ReplicaId, Term};
use varve_consensus::{
    Change, Entry, EntryKind, Fetch, Group, Host, LeaderBoard, LeaderReport, Membership, ProposeError,
    ReadError, Role,
};

use super::{Hosted, Shard, produce};
use crate::api::{Effect, Input, LogEntry, Now, PeerEffect, PeerInput, ReplicaStatus};

impl Host for Hosted {
    fn raft(&self) -> &Group {
        &self.raft
    }

    fn raft_mut(&mut self) -> &mut Group {
        &mut self.raft
    }

    fn wants_tick(&self) -> bool {
        Hosted::wants_tick(self)
    }
}

impl Hosted {
    /// Takes an input of this group.
    pub(super) fn take(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Produce { ticket, batch, meta, timestamps, replicas_min, .. } => {
                self.missed.set_now(now.monotonic);
                let request = produce::Request { ticket, batch, meta, timestamps, replicas_min };
                self.produce(now, request, effects);
            }
            Input::Missed { meta, .. } => {
                self.missed.set_now(now.monotonic);
                self.miss(&meta);
            }
            Input::Propose { ticket, command, .. } => self.propose_metadata(now, ticket, command, effects),
            Input::Producers { ticket, .. } => effects.push(self.tell_producers(ticket)),
            Input::DeleteRecords { ticket, before, .. } => self.delete_records(now, ticket, before, effects),
            Input::Coordinate { ticket, request, .. } => {
                self.on_group_request(now, ticket, *request, effects)
            }
            Input::Act { action, .. } => self.act(now, action, effects),
            Input::Persisted { ready, .. } => self.persisted(ready, effects),
            Input::Marked { number, .. } => self.marked(number, effects),
            Input::JobDone { outcome, .. } => self.job_done(now, outcome, effects),
            Input::Configure { options, .. } => self.configure(options),
            Input::Rotten { rot, .. } => self.rotten(now, rot, effects),
            Input::Open(_) | Input::PersistFailed | Input::Close { .. } | Input::Tick => {}
        }
    }
}

impl Shard {
    /// Time passed, `late_by` ticks after it should have: a process that was stopped does not take it for others' silence.
    pub fn tick_late(&mut self, now: Now, late_by: usize, effects: &mut Vec<Effect>) {
        if self.failed {
            return;
        }
        self.groups.tick_late(late_by);
        for id in self.groups.take_touched() {
            self.drive(now, id, effects);
        }
        self.tick_coordinators(now, effects);
        self.send_pulses();
    }

    /// Takes an input from, or about, the other nodes.
    pub fn peer_step(&mut self, now: Now, input: PeerInput, effects: &mut Vec<Effect>) {
        if self.failed {
            if let PeerInput::Read { ticket, .. } = input {
                self.outbox.push(PeerEffect::Read { ticket, outcome: Err(ReadError::Fenced) });
            }
            return;
        }
        match input {
            PeerInput::Nodes(nodes) => self.groups.set_peers(&nodes),
            // What the gate refuses is dropped, or fences the replica, which then stops.
            PeerInput::Message { from, envelope } => drop(self.groups.receive(from, envelope)),
            PeerInput::Pulse { from, pulse } => {
                let pressed = pulse.pressed.clone();
                if self.groups.receive_pulse(from, pulse).is_ok() {
                    for group in pressed {
                        self.groups.update(group, |hosted| hosted.advance(now));
                    }
                }
            }
            PeerInput::Fetched { group, fetch, entries } => self.fetched(group, &fetch, &entries),
            PeerInput::Read { ticket, group } => self.read(ticket, group),
            PeerInput::Transfer { group, to } => {
                self.groups.update(group, |hosted| hosted.raft.transfer(to));
            }
            PeerInput::Leased { group } => {
                self.groups.serve(group, |hosted| hosted.lease(now.monotonic));
            }
            PeerInput::Unreachable(node) => self.unreachable(node),
            PeerInput::Gone(node) => self.groups.peer_gone(node),
        }
        for id in self.groups.take_touched() {
            self.drive(now, id, effects);
        }
        self.send_pulses();
    }

    /// Proposes a change of a group's members; its place in the log where it was appended.
    pub fn propose_change(
        &mut self,
        now: Now,
        group: GroupId,
        change: Change,
        effects: &mut Vec<Effect>,
    ) -> Result<LogIndex, ProposeError> {
        if self.failed {
            return Err(ProposeError::Fenced);
        }
        let nobody = Err(ProposeError::NotLeader { leader: None });
        let proposed =
            self.groups.serve(group, |hosted| hosted.raft.propose_change(change)).unwrap_or(nobody);
        self.drive(now, group, effects);
        proposed
    }

    /// Hands leadership to another voter.
    pub fn transfer(&mut self, now: Now, group: GroupId, to: ReplicaId, effects: &mut Vec<Effect>) {
        if self.failed {
            return;
        }
        self.groups.serve(group, |hosted| hosted.raft.transfer(to));
        self.drive(now, group, effects);
    }

    fn fetched(&mut self, group: GroupId, fetch: &Fetch, entries: &[LogEntry]) {
        let entry = |entry: &LogEntry| {
            let kind = EntryKind::from_u8(entry.kind)?;
            Some(Entry { index: entry.index, term: entry.term, kind, data: entry.data.clone() })
        };
        let entries: Vec<Entry> = entries.iter().map_while(entry).collect();
        self.groups.update(group, |hosted| hosted.raft.fetched(fetch, &entries));
    }

    fn read(&mut self, ticket: u64, group: GroupId) {
        let begun = self.groups.update(group, |hosted| hosted.raft.read(ticket));
        if let Err(why) = begun.unwrap_or(Err(ReadError::NotLeader { leader: None })) {
            self.outbox.push(PeerEffect::Read { ticket, outcome: Err(why) });
        }
    }

    fn unreachable(&mut self, node: NodeId) {
        for id in self.groups() {
            let there = self.groups.get(id).and_then(|hosted| {
                (hosted.raft.role() == Role::Leader)
                    .then(|| hosted.raft.members().find(|member| member.node() == node))
                    .flatten()
            });
            if let Some(member) = there {
                self.groups.update(id, |hosted| hosted.raft.report_unreachable(member));
            }
        }
    }

    /// Takes heartbeats among the effects from `from` on into the next pulse.
    pub(super) fn absorb(&mut self, from: usize, effects: &mut Vec<Effect>) {
        if self.groups.peers().is_none() {
            return;
        }
        for effect in effects.split_off(from) {
            match effect {
                Effect::Send { group, message } => {
                    let message = self.groups.absorb(group, message);
                    effects.extend(message.map(|message| Effect::Send { group, message }));
                }
                other => effects.push(other),
            }
        }
    }

    pub(super) fn send_pulses(&mut self) {
        let pulses = self.groups.take_pulses();
        self.outbox.extend(pulses.into_iter().map(|(to, pulse)| PeerEffect::Pulse { to, pulse }));
    }

    /// What goes to peers, or is asked on their behalf, since this was last taken. Comes behind the effects of the step.
    #[must_use]
    pub fn take_peer_effects(&mut self) -> Vec<PeerEffect> {
        std::mem::take(&mut self.outbox)
    }

    /// Who leads which group, as far as this node knows; `None` without peers.
    #[must_use]
    pub fn leaders(&self) -> Option<&LeaderBoard> {
        self.groups.leaders()
    }

    /// Whether a node is heard of; nobody but this one without peers.
    #[must_use]
    pub fn is_alive(&self, node: NodeId) -> bool {
        self.groups.peers().is_some_and(|peers| peers.is_alive(node))
    }

    /// Whether this is a node of a cluster.
    #[must_use]
    pub fn has_peers(&self) -> bool {
        self.groups.peers().is_some()
    }

    /// What this node learned of leaders since this was last asked.
    #[must_use]
    pub fn take_leader_reports(&mut self) -> Vec<LeaderReport> {
        self.groups.take_leader_reports()
    }

    /// A replica as it stands, stopped or not.
    #[must_use]
    pub fn replica(&self, group: GroupId) -> Option<ReplicaStatus> {
        let hosted = self.groups.get(group)?;
        let raft = &hosted.raft;
        Some(ReplicaStatus {
            replica: hosted.replica,
            role: raft.role(),
            term: raft.term(),
            leader: raft.leader(),
            commit: raft.commit_index(),
            applied: hosted.applied(),
            last: raft.last_index(),
            truncated: (raft.truncated().start, raft.truncated().term),
            membership: raft.membership().clone(),
            in_sync: raft.in_sync(),
            resting: raft.is_resting(),
            stopped: hosted.is_stopped(),
        })
    }

    /// How far a member's log is known to be equal, where this replica leads.
    #[must_use]
    pub fn matched(&self, group: GroupId, member: ReplicaId) -> Option<LogIndex> {
        self.groups.get(group)?.raft.matched(member)
    }

    /// The term of an entry, where the log here knows it.
    #[must_use]
    pub fn term_at(&self, group: GroupId, index: LogIndex) -> Option<Term> {
        self.groups.get(group)?.raft.term_at(index)
    }

    /// The members of a group, as of what is applied here.
    #[must_use]
    pub fn membership(&self, group: GroupId) -> Option<Membership> {
        self.groups.get(group).map(|hosted| hosted.raft.membership().clone())
    }

    /// The nodes that host a member of some group here.
    #[must_use]
    pub fn peer_nodes(&self) -> BTreeSet<NodeId> {
        self.groups.iter().flat_map(|(_, hosted)| hosted.raft.members()).map(ReplicaId::node).collect()
    }
}
