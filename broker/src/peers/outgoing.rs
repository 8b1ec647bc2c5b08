//! What one node tells another without being asked.

use varve_consensus::{Envelope, Pulse};

/// What one node tells another without being asked: nobody waits for an answer, and the next one may come too late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// A replica's message to a replica.
    Message(Envelope),
    /// All heartbeats of this node.
    Pulse(Pulse),
}
