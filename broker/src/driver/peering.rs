//! What several nodes need of the driver: frames to peers, log reads on their behalf, who leads.

use std::collections::BTreeSet;

use varve_common::{GroupId, LogIndex, NodeId, ReplicaId};
use varve_consensus::{Envelope, Fetch, Membership, Message, Role};
use varve_replica::{Now, PeerEffect, PeerInput, metadata::Image};
use varve_wal as wal;

use super::{Driver, Event, Ports, open::log_entry};
use crate::{
    controller::progress::{Member, Progress},
    peers::Outgoing,
};

impl Driver {
    pub(super) fn send<P: Ports>(&self, group: GroupId, message: Message, ports: &mut P) {
        let Some(to) = message.to() else { return };
        let envelope = Envelope { cluster: self.groups.life(), group, message };
        ports.send(to.node(), Outgoing::Message(envelope));
    }

    /// Carries out what the step before asks of, or tells, the other nodes.
    pub(super) fn perform_for_peers<P: Ports>(&mut self, ports: &mut P) {
        for effect in self.shard.take_peer_effects() {
            match effect {
                PeerEffect::Pulse { to, pulse } => ports.send(to, Outgoing::Pulse(pulse)),
                PeerEffect::Fetch { group, fetch } => ports.fetch(group, fetch),
                PeerEffect::Read { ticket, outcome } => ports.read_done(ticket, outcome),
                PeerEffect::SnapshotWanted { group, replica } => {
                    tracing::warn!(%group, %replica, "the log no longer reaches a member of this group");
                }
            }
        }
        let reports = self.shard.take_leader_reports();
        if !reports.is_empty() {
            ports.leaders(reports);
        }
    }

    /// A node that is about to stop gives what it leads to whoever keeps up, and goes on where nobody does.
    pub(super) fn hand_over(&mut self, now: Now) {
        if !self.plan_options.draining || !self.shard.has_peers() {
            return;
        }
        for group in self.shard.groups() {
            let Some(led) = self.shard.replica(group).filter(|replica| replica.role == Role::Leader) else {
                continue;
            };
            let stays = |member: ReplicaId| member != led.replica && led.membership.votes(member);
            let takes = |member: &ReplicaId| stays(*member) && self.shard.is_alive(member.node());
            let others: Vec<ReplicaId> = led.in_sync.iter().copied().filter(takes).collect();
            // Not all to the same node.
            let place = (group.0 as usize).checked_rem(others.len());
            if let Some(to) = place.map(|place| others[place]) {
                self.shard.transfer(now, group, to, &mut self.effects);
            }
        }
    }

    /// How far the replicas of a group are, where this node leads it.
    #[must_use]
    pub fn progress(&self, group: GroupId) -> Option<Progress> {
        let led = self.shard.replica(group).filter(|led| led.role == Role::Leader && !led.stopped)?;
        let Membership { voters, learners, voters_outgoing, .. } = &led.membership;
        // A disk that is gone holds nothing, whoever has its node's name now.
        let is_there = |id: &&ReplicaId| !self.is_lost(**id);
        let leaving = voters_outgoing.iter().filter(|id| !voters.contains(id) && !learners.contains(id));
        // Who comes takes nobody's place until those that are left decide no more.
        let is_joint = led.membership.is_joint();
        let comes = |id: &ReplicaId| is_joint && *id != led.replica && !voters_outgoing.contains(id);
        let voting = voters.iter().map(|id| (id, !comes(id))).chain(leaving.map(|id| (id, true)));
        let voting = voting.filter(|(id, _)| is_there(id));
        let member = |(replica, votes): (&ReplicaId, bool)| Member {
            replica: *replica,
            matched: if *replica == led.replica { led.last } else { self.matched(group, *replica) },
            votes,
            in_sync: led.in_sync.contains(replica)
                && (*replica == led.replica || self.shard.is_alive(replica.node())),
        };
        let learning = learners.iter().filter(is_there).map(|id| (id, false));
        let members = voting.chain(learning).map(member).collect();
        let (leader, term) = (led.replica, led.term);
        Some(Progress { group, leader, term, commit: led.commit, last: led.last, members })
    }

    fn is_lost(&self, replica: ReplicaId) -> bool {
        self.moves.image().is_some_and(|image| image.is_lost(replica))
    }

    fn matched(&self, group: GroupId, member: ReplicaId) -> LogIndex {
        self.shard.matched(group, member).unwrap_or(LogIndex::ZERO)
    }

    /// The core pulses to whoever is a broker, or hosts a member of some group here.
    pub(super) fn meet(&mut self, image: Option<&Image>) -> Option<Event> {
        if !self.shard.has_peers() {
            return None;
        }
        let brokers = image.into_iter().flat_map(|image| image.brokers.keys().copied());
        let nodes: BTreeSet<NodeId> = brokers.chain(self.shard.peer_nodes()).collect();
        if nodes == self.nodes {
            return None;
        }
        self.nodes.clone_from(&nodes);
        Some(Event::Peer(PeerInput::Nodes(nodes)))
    }
}

/// Reads what a fetch asks for. What cannot be read now is asked for again.
#[must_use]
pub fn fetched(log: &wal::Reader, group: GroupId, fetch: Fetch) -> PeerInput {
    let mut entries = match log.entries(group, fetch.from, fetch.bytes_max) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(%group, from = %fetch.from, %error, "the log does not read back for a peer");
            Vec::new()
        }
    };
    entries.retain(|entry| entry.index < fetch.end);
    PeerInput::Fetched { group, fetch, entries: entries.into_iter().map(log_entry).collect() }
}
