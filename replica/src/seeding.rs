//! What a replica may start from besides its own log and checkpoints (RAFT.md 1, TIERING.md 11).
//!
//! ```text
//!  new ReplicaId, a learner:      checkpoint as of S ──> log begins behind S, term and commit are S's      Seed
//!  a voter, own checkpoint lost:  checkpoint as of S ──> under the log that is there, if it holds all
//!                                                        above S; hard state stays what the log says       stand_in
//!  a voter otherwise:             never: it returns under a new ReplicaId
//! ```
//! Counter-example to anything laxer: A leads, A and B fsynced 481 to 500 and acknowledged them; B restarts and seeds itself from
//! a bucket checkpoint as of 480; A dies; B votes for C; 481 to 500 are gone.

use varve_common::{LogIndex, Term};
use varve_consensus::Membership;
use varve_formats::checkpoint::CheckpointHeader;

use crate::{
    api::{LogEntry, PersistedHardState},
    bugs::{Bug, is_seeded},
};

/// What a new learner writes to its log before it opens with a checkpoint's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Its log begins behind this entry: S.
    pub truncated: (LogIndex, Term),
    /// Term and commit as of S, and no vote.
    pub hard_state: PersistedHardState,
    /// The members as of S; the learner need not be among them: the change that adds it is replayed.
    pub membership: Membership,
}

impl Seed {
    /// What follows from a verified checkpoint.
    #[must_use]
    pub fn of(header: &CheckpointHeader) -> Self {
        let (index, term) = (header.state.index, header.state.term);
        Self {
            truncated: (index, term),
            hard_state: PersistedHardState { term, vote: 0, commit: index },
            membership: crate::checkpoint::membership(&header.conf_state),
        }
    }
}

/// A voter cannot start from this checkpoint: it returns under a new ReplicaId.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MustRejoin {
    /// Entries above S were cut, or lost.
    #[error("the log begins behind {truncated}, the checkpoint ends at {state}")]
    LogBeginsLater {
        /// The last entry that the log does not hold.
        truncated: LogIndex,
        /// S.
        state: LogIndex,
    },
    /// The log ends below S, or holds another entry there: a voter does not jump forward by itself.
    #[error("the log does not hold entry {state} of term {term}")]
    LogLacksState {
        /// S.
        state: LogIndex,
        /// Its term.
        term: Term,
    },
}

/// Whether a bucket checkpoint may stand in for a voter's damaged local one; gives the hard state and the entries above
/// S with which it opens. `entries` are all that the log holds.
pub fn stand_in(
    header: &CheckpointHeader,
    truncated: (LogIndex, Term),
    hard_state: PersistedHardState,
    mut entries: Vec<LogEntry>,
) -> Result<(PersistedHardState, Vec<LogEntry>), MustRejoin> {
    let (state, term) = (header.state.index, header.state.term);
    if is_seeded(Bug::BucketReplacesTail) {
        return Ok((PersistedHardState { commit: state, ..hard_state }, Vec::new()));
    }
    if truncated.0 > state {
        return Err(MustRejoin::LogBeginsLater { truncated: truncated.0, state });
    }
    let held = if truncated.0 == state {
        Some(truncated.1)
    } else {
        entries.iter().find(|entry| entry.index == state).map(|entry| entry.term)
    };
    if held != Some(term) {
        return Err(MustRejoin::LogLacksState { state, term });
    }
    entries.retain(|entry| entry.index > state);
    Ok((hard_state, entries))
}
