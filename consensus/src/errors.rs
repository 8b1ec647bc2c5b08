//! Why a group refuses.

use varve_common::ReplicaId;

use crate::{Dropped, Violation};

/// Why a proposal was not appended. Nothing of it is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Redirect: another replica leads, or none.
    #[error("this replica does not lead")]
    NotLeader {
        /// Who does, where known.
        leader: Option<ReplicaId>,
    },
    /// Retry: the entry that opened this leader's term is not applied yet.
    #[error("the leader's own first entry is not applied yet")]
    Unsettled,
    /// Redirect: leadership is being handed over.
    #[error("leadership is being handed over")]
    DroppedByTransfer,
    /// Invalid: larger than any entry may be.
    #[error("{bytes} bytes exceed the largest entry of {bytes_max}")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        bytes_max: usize,
    },
    /// Retry: too much is proposed and not committed.
    #[error("{uncommitted_bytes} bytes wait to be committed")]
    Backlogged {
        /// How much waits.
        uncommitted_bytes: usize,
    },
    /// Redirect: this replica is fenced.
    #[error("this replica is fenced")]
    Fenced,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Of no use here; nothing is wrong.
    #[error("dropped: {0:?}")]
    Dropped(Dropped),
    /// This replica is fenced, by this message or an earlier one.
    #[error("fenced: {0}")]
    Fenced(Violation),
}
