//! What nodes of a cluster say to each other through the shard, and what it needs of the log for that.

use std::collections::BTreeSet;

use varve_common::{GroupId, LogIndex, NodeId, ReplicaId, Term};
use varve_consensus::{Envelope, Fetch, Membership, Pulse, ReadError, Role};

use super::LogEntry;

/// An event for [`crate::Shard::peer_step`].
#[derive(Clone, Debug)]
pub enum PeerInput {
    /// The nodes of the cluster, from the metadata.
    Nodes(BTreeSet<NodeId>),
    /// A message came over the connection to a node.
    Message {
        /// Which node.
        from: NodeId,
        /// The message.
        envelope: Envelope,
    },
    /// A pulse came over the connection to a node.
    Pulse {
        /// Which node.
        from: NodeId,
        /// The pulse.
        pulse: Pulse,
    },
    /// The answer to [`PeerEffect::Fetch`]: entries from its first index on, none where they cannot be read now.
    Fetched {
        /// Which group.
        group: GroupId,
        /// What was asked.
        fetch: Fetch,
        /// Without a gap.
        entries: Vec<LogEntry>,
    },
    /// Confirms that this node leads; answered by [`PeerEffect::Read`].
    Read {
        /// Names the read.
        ticket: u64,
        /// Which group.
        group: GroupId,
    },
    /// Hands leadership to another voter, where this node leads; nothing comes back.
    Transfer {
        /// Of which group.
        group: GroupId,
        /// To whom.
        to: ReplicaId,
    },
    /// A node was given some of a checkpoint of this one, or of a sealed file: the log is kept for it.
    Leased {
        /// Of which group.
        group: GroupId,
    },
    /// A node's process has ended: nobody listens any more where it was connected.
    Gone(NodeId),
    /// The connection to a node broke, or its queue was full and something was thrown away.
    Unreachable(NodeId),
}

/// What goes to peers, or is asked on their behalf. Messages of single groups are [`super::Effect::Send`].
#[derive(Clone, Debug)]
pub enum PeerEffect {
    /// Sends a pulse.
    Pulse {
        /// To which node.
        to: NodeId,
        /// The pulse.
        pulse: Pulse,
    },
    /// Reads the log; answered by [`PeerInput::Fetched`].
    Fetch {
        /// Which group.
        group: GroupId,
        /// What to read.
        fetch: Fetch,
    },
    /// A read ended: state applied up to this index holds all that was acknowledged before it began.
    Read {
        /// Which.
        ticket: u64,
        /// How.
        outcome: Result<LogIndex, ReadError>,
    },
    /// The log no longer reaches a member, and no checkpoint in the bucket is offered to it: one is published where it can be.
    SnapshotWanted {
        /// Which group.
        group: GroupId,
        /// Which member.
        replica: ReplicaId,
    },
}

/// A replica as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Which.
    pub replica: ReplicaId,
    /// What it is in its term.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Its leader, where known.
    pub leader: Option<ReplicaId>,
    /// Its commit index.
    pub commit: LogIndex,
    /// What its state holds.
    pub applied: LogIndex,
    /// The end of its log.
    pub last: LogIndex,
    /// The last entry that its log does not hold, and its term.
    pub truncated: (LogIndex, Term),
    /// The members as of what is applied.
    pub membership: Membership,
    /// The voters that keep up, where it leads.
    pub in_sync: Vec<ReplicaId>,
    /// Whether it rests.
    pub resting: bool,
    /// Whether it has stopped.
    pub stopped: bool,
}
