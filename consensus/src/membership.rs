//! Who is in a group, and how that changes.

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use varve_common::{LogIndex, ReplicaId};

/// The replicas of a group. Outside a membership change only `voters` and `learners` are filled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// They vote, and a majority of them commits.
    pub voters: Vec<ReplicaId>,
    /// They receive the log, grant votes when asked, and are never counted.
    pub learners: Vec<ReplicaId>,
    /// The voters being left, in a joint configuration.
    pub voters_outgoing: Vec<ReplicaId>,
    /// Voters being left that will be learners.
    pub learners_next: Vec<ReplicaId>,
    /// Whether raft leaves the joint configuration by itself.
    pub auto_leave: bool,
    /// The newest version of what is wanted that a change up to here follows from.
    pub version: LogIndex,
}

impl From<Vec<ReplicaId>> for Membership {
    fn from(voters: Vec<ReplicaId>) -> Self {
        Self { voters, ..Self::default() }
    }
}

impl Membership {
    /// Whether `replica` is this group's one and only member.
    #[must_use]
    pub fn is_only(&self, replica: ReplicaId) -> bool {
        self.voters == [replica]
            && self.learners.is_empty()
            && self.voters_outgoing.is_empty()
            && self.learners_next.is_empty()
    }

    /// Whether `replica` alone decides every election and every commit.
    #[must_use]
    pub fn is_sole_voter(&self, replica: ReplicaId) -> bool {
        self.voters == [replica] && self.voters_outgoing.is_empty()
    }

    /// Whether each replica has one place, as raft wants it.
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        let unique = |ids: &[ReplicaId]| {
            let mut sorted = ids.to_vec();
            sorted.sort_unstable();
            sorted.windows(2).all(|pair| pair[0] != pair[1])
        };
        let joint = !self.voters_outgoing.is_empty();
        !self.voters.is_empty()
            && [&self.voters, &self.learners, &self.voters_outgoing, &self.learners_next]
                .iter()
                .all(|ids| unique(ids))
            && self.learners.iter().all(|id| !self.voters.contains(id) && !self.voters_outgoing.contains(id))
            && self
                .learners_next
                .iter()
                .all(|id| self.voters_outgoing.contains(id) && !self.voters.contains(id))
            && (joint || !self.auto_leave)
    }

    /// Whether `replica` has a place in it.
    #[must_use]
    pub fn holds(&self, replica: ReplicaId) -> bool {
        [&self.voters, &self.learners, &self.voters_outgoing].iter().any(|ids| ids.contains(&replica))
    }

    /// Whether `replica` votes, and goes on to once a change that is under way is complete.
    #[must_use]
    pub fn votes(&self, replica: ReplicaId) -> bool {
        self.voters.contains(&replica)
    }

    /// Whether it is between two sets of voters.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// The same as `replica` sees it, to which it was not told yet that it is a learner: raft wants everybody to have a place.
    #[must_use]
    pub fn seen_by(mut self, replica: ReplicaId) -> Self {
        if !self.holds(replica) {
            self.learners.push(replica);
            self.learners.sort_unstable();
        }
        self
    }

    pub(crate) fn to_raft(&self) -> ConfState {
        let raw = |ids: &[ReplicaId]| {
            let mut ids: Vec<u64> = ids.iter().map(|id| id.get()).collect();
            ids.sort_unstable();
            ids
        };
        ConfState {
            voters: raw(&self.voters),
            learners: raw(&self.learners),
            voters_outgoing: raw(&self.voters_outgoing),
            learners_next: raw(&self.learners_next),
            auto_leave: self.auto_leave,
        }
    }

    pub(crate) fn from_raft(state: &ConfState) -> Self {
        // raft hands its sets out in hash order: sort, so that no order is ever seen.
        let ids = |raw: &[u64]| {
            let mut ids: Vec<ReplicaId> = raw.iter().filter_map(|&id| ReplicaId::from_raw(id)).collect();
            ids.sort_unstable();
            ids
        };
        Self {
            voters: ids(&state.voters),
            learners: ids(&state.learners),
            voters_outgoing: ids(&state.voters_outgoing),
            learners_next: ids(&state.learners_next),
            auto_leave: state.auto_leave,
            version: LogIndex::ZERO,
        }
    }
}

/// One step of a membership change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Makes a learner a voter.
    AddVoter(ReplicaId),
    /// Adds a learner.
    AddLearner(ReplicaId),
    /// Removes a replica.
    Remove(ReplicaId),
}

impl Change {
    fn to_raft(self) -> ConfChangeSingle {
        let (change_type, replica) = match self {
            Self::AddVoter(replica) => (ConfChangeType::AddNode, replica),
            Self::AddLearner(replica) => (ConfChangeType::AddLearnerNode, replica),
            Self::Remove(replica) => (ConfChangeType::RemoveNode, replica),
        };
        ConfChangeSingle { change_type: change_type.into(), node_id: replica.get() }
    }
}

/// Several make one joint change, which the leader leaves by itself; none leaves the joint configuration. `version` is of what
/// they follow from.
pub(crate) fn encode(changes: &[Change], version: LogIndex) -> Bytes {
    let changes = changes.iter().map(|change| change.to_raft()).collect();
    let context = if version == LogIndex::ZERO {
        Bytes::new()
    } else {
        Bytes::copy_from_slice(&version.0.to_le_bytes())
    };
    ConfChangeV2 { changes, context, ..ConfChangeV2::default() }.encode_to_vec().into()
}

/// What version a change follows from.
pub(crate) fn version_of(change: &ConfChangeV2) -> LogIndex {
    let bytes: Option<[u8; 8]> = change.context[..].try_into().ok();
    bytes.map_or(LogIndex::ZERO, |bytes| LogIndex(u64::from_le_bytes(bytes)))
}
