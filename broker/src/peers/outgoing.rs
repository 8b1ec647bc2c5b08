//! What one node says to another.

use varve_consensus::{Envelope, Pulse};

/// A frame for a peer.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// A message of one group.
    Message(Envelope),
    /// The heartbeats of all groups.
    Pulse(Pulse),
}
