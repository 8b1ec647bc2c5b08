//! Frames on their way between nodes.

use bytes::Bytes;
use varve_common::NodeId;
use varve_consensus::{Envelope, Pulse};
use varve_replica::{Effect, PeerInput};

use super::World;

#[derive(Clone)]
pub(super) enum Frame {
    Envelope(Bytes),
    Pulse(Bytes),
}

impl World {
    pub(super) fn deliver(&mut self, from: NodeId, to: NodeId, frame: Frame) {
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
}
