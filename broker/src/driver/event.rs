//! What a turn of the driver takes in.

use varve_common::{GroupId, LogIndex};
use varve_consensus::{Membership, TermRun};
use varve_replica::{Input, OpenGroup, PeerInput};

use super::writes::Ack;

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Something for one group, or for all.
    Core(Input),
    /// What a group wrote is fsynced.
    Written(Ack),
    /// A group of this node begins.
    Open(Box<Opening>),
    /// Something from, or about, the other nodes.
    Peer(PeerInput),
    /// Nothing is left on this node of an earlier replica of a group.
    Swept(GroupId),
    /// Time passed.
    Tick {
        /// How many ticks ago this one was due.
        late_by: usize,
    },
}

impl From<Input> for Event {
    fn from(input: Input) -> Self {
        Self::Core(input)
    }
}

impl From<Ack> for Event {
    fn from(ack: Ack) -> Self {
        Self::Written(ack)
    }
}

impl From<PeerInput> for Event {
    fn from(input: PeerInput) -> Self {
        Self::Peer(input)
    }
}

/// What a group begins with.
#[derive(Debug)]
pub struct Opening {
    /// What it holds.
    pub group: OpenGroup,
    /// Its members as of the state that it starts from.
    pub membership: Membership,
    /// Its members as of earlier entries, where a checkpoint names them.
    pub earlier: Vec<(LogIndex, Membership)>,
    /// The terms of its log between the last cut and that state.
    pub runs: Vec<TermRun>,
}
