//! Who is in a group, and how that changes.

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use varve_common::ReplicaId;

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
    pub(crate) fn encode(self) -> Bytes {
        let (change_type, replica) = match self {
            Self::AddVoter(replica) => (ConfChangeType::AddNode, replica),
            Self::AddLearner(replica) => (ConfChangeType::AddLearnerNode, replica),
            Self::Remove(replica) => (ConfChangeType::RemoveNode, replica),
        };
        let change = ConfChangeSingle { change_type: change_type.into(), node_id: replica.get() };
        ConfChangeV2 { changes: vec![change], ..ConfChangeV2::default() }.encode_to_vec().into()
    }
}
