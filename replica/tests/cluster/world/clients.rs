//! Who produces and reads, and whom they ask.

use bytes::Bytes;
use varve_common::NodeId;
use varve_consensus::Role;
use varve_replica::{
    Input, PeerInput, Ticket, Timestamps,
    partition::{BatchHeader, sample},
};

use super::{
    super::node::{GROUP, Node},
    World,
};

impl World {
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
        self.input(id, Input::Produce { ticket, group: GROUP, batch, meta, timestamps, replicas_min: 0 });
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
}
