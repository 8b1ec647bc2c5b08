//! The network: frames arrive late, in another order, twice, or never.

use std::collections::BTreeSet;

use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use varve_broker::peers::Outgoing;
use varve_common::NodeId;
use varve_consensus::{Envelope, Pulse};
use varve_replica::PeerInput;

/// Frames on their way; beyond that the oldest are lost, as in a queue that is full.
const FRAMES_MAX: usize = 600;

#[derive(Clone)]
enum Frame {
    Message(Bytes),
    Pulse(Bytes),
    /// Nobody listens any more where the sender was.
    Gone,
}

/// All links.
#[derive(Default)]
pub struct Network {
    frames: Vec<(NodeId, NodeId, Frame)>,
    /// Links that carry nothing, by sender and receiver.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// How many frames arrived.
    pub delivered: u64,
}

/// A frame that arrives.
pub struct Arrival {
    /// From which node.
    pub from: NodeId,
    /// At which node.
    pub to: NodeId,
    /// What it says.
    pub input: PeerInput,
}

impl Network {
    /// A node says something.
    pub fn send(&mut self, from: NodeId, to: NodeId, frame: &Outgoing) {
        if self.cut.contains(&(from, to)) {
            return;
        }
        let frame = match frame {
            Outgoing::Message(envelope) => Frame::Message(envelope.encode()),
            Outgoing::Pulse(pulse) => Frame::Pulse(pulse.encode()),
        };
        self.frames.push((from, to, frame));
        if self.frames.len() > FRAMES_MAX {
            self.frames.drain(..FRAMES_MAX / 2);
        }
    }

    /// Some frame arrives, or is lost.
    pub fn happen(&mut self, random: &mut ChaCha8Rng, lost_of_a_hundred: u32) -> Option<Arrival> {
        if self.frames.is_empty() {
            return None;
        }
        // Mostly in order: a connection keeps it, but for what several of them carry.
        let far = if random.random_bool(0.7) { 1 } else { 16 };
        let place = random.random_range(0..self.frames.len().min(far));
        let frame = self.frames.remove(place);
        let draw = random.random_range(0..100);
        if draw < lost_of_a_hundred {
            return None;
        }
        if draw < 2 * lost_of_a_hundred {
            self.frames.push(frame.clone());
        }
        self.arrive(frame)
    }

    /// The oldest frame arrives.
    pub fn oldest(&mut self) -> Option<Arrival> {
        while !self.frames.is_empty() {
            let frame = self.frames.remove(0);
            if let Some(arrival) = self.arrive(frame) {
                return Some(arrival);
            }
        }
        None
    }

    fn arrive(&mut self, (from, to, frame): (NodeId, NodeId, Frame)) -> Option<Arrival> {
        if self.cut.contains(&(from, to)) {
            return None;
        }
        self.delivered += 1;
        let input = match frame {
            Frame::Message(bytes) => {
                let envelope = Envelope::decode(bytes).expect("what was encoded is decoded");
                PeerInput::Message { from, envelope }
            }
            Frame::Pulse(bytes) => {
                PeerInput::Pulse { from, pulse: Pulse::decode(bytes).expect("what was encoded is decoded") }
            }
            Frame::Gone => PeerInput::Gone(from),
        };
        Some(Arrival { from, to, input })
    }

    /// What a node said and nobody heard is lost with it, or not: the network may still hold it.
    pub fn forget_some(&mut self, random: &mut ChaCha8Rng, of: NodeId) {
        let keeps = random.random_bool(0.5);
        self.frames.retain(|(from, to, _)| *to != of && (*from != of || keeps));
    }

    /// Others may notice that a process has ended: soon, or when it is back already.
    pub fn tell_gone(&mut self, random: &mut ChaCha8Rng, gone: NodeId, nodes: &[NodeId]) {
        for node in nodes.iter().filter(|node| **node != gone) {
            if random.random_bool(0.5) {
                self.frames.push((gone, *node, Frame::Gone));
            }
        }
    }

    /// Cuts links: one direction, a whole node, or everything between two sides.
    pub fn cut_some(&mut self, random: &mut ChaCha8Rng, nodes: &[NodeId]) {
        let one = nodes[random.random_range(0..nodes.len())];
        let other = nodes[random.random_range(0..nodes.len())];
        match random.random_range(0..3) {
            0 => self.cut.extend([(one, other)]),
            1 => self.cut.extend([(one, other), (other, one)]),
            _ => self.cut.extend(nodes.iter().flat_map(|far| [(one, *far), (*far, one)])),
        }
    }
}
