//! What a group starts from, and the checks that come before raft's own, which end the process.

use varve_common::{LogIndex, ReplicaId, Term};

use crate::{Entry, HardState, Membership, limits::POSITION_MAX};

/// A stretch of the log in one term: from `start` to the next run's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermRun {
    /// The first index of the stretch.
    pub start: LogIndex,
    /// The term of its entries.
    pub term: Term,
}

/// What the write-ahead log and the newest checkpoint hold of a group; nothing of it, for a new one.
///
/// ```text
///   truncated          applied              last
///       |  runs (terms)   |     entries       |
///  -----+-----------------+-------------------+
///       ^ term known        ^ entries may begin earlier, never later than applied + 1
/// ```
#[derive(Clone, Debug)]
pub struct Recovered {
    /// This replica.
    pub replica: ReplicaId,
    /// The members as of `applied`. A pre-seeded learner may be missing from them: it catches up from `applied + 1`.
    pub membership: Membership,
    /// Term, vote and commit, from the write-ahead log alone (RAFT.md 1).
    pub hard_state: HardState,
    /// The last entry that the log no longer holds, and its term; zeros where it holds all. A group of one may give
    /// the checkpoint's index and term instead: nobody will ask it for anything older.
    pub truncated: (LogIndex, Term),
    /// The last entry that the state machine holds.
    pub applied: LogIndex,
    /// The terms of the log between `truncated` and the first of `entries`; empty where the one follows the other.
    pub runs: Vec<TermRun>,
    /// The log from `applied + 1` or earlier, to its end.
    pub entries: Vec<Entry>,
}

impl Recovered {
    /// A replica of a group that never held anything.
    #[must_use]
    pub fn new(replica: ReplicaId, membership: Membership) -> Self {
        let zero = LogIndex::ZERO;
        Self {
            replica,
            membership,
            hard_state: HardState::default(),
            truncated: (zero, Term::ZERO),
            applied: zero,
            runs: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// The last index of the log.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.entries.last().map_or_else(|| self.applied.max(self.truncated.0), |entry| entry.index)
    }

    /// Refuses what raft would end the process for.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if !self.membership.is_canonical() {
            return Err(OpenError::MembershipInvalid);
        }
        let (truncated, last, commit) = (self.truncated.0, self.last_index(), self.hard_state.commit);
        if last.0 > POSITION_MAX || self.hard_state.term.0 > POSITION_MAX {
            return Err(OpenError::OutOfRange);
        }
        if self.applied < truncated {
            return Err(OpenError::AppliedBelowTruncated { applied: self.applied, truncated });
        }
        self.check_terms()?;
        if commit > last {
            return Err(OpenError::CommitBeyondLog { commit, last });
        }
        if self.applied > commit {
            return Err(OpenError::AppliedBeyondCommit { applied: self.applied, commit });
        }
        Ok(())
    }

    /// Every index from the truncation point on has a term; they never go back, nor past the hard state's.
    fn check_terms(&self) -> Result<(), OpenError> {
        let first = self.entries.first().map_or(self.last_index().next(), |entry| entry.index);
        if first <= self.truncated.0 || first > self.applied.next() {
            return Err(OpenError::Gap { expected: self.applied.next(), found: first });
        }
        let (mut index, mut term) = (self.truncated.0.next(), self.truncated.1);
        for run in &self.runs {
            if run.start < index
                || run.start >= first
                || (index == self.truncated.0.next() && run.start != index)
            {
                return Err(OpenError::Gap { expected: index, found: run.start });
            }
            term = step_term(term, run.term, run.start)?;
            index = run.start.next();
        }
        if self.runs.is_empty() && first != index {
            return Err(OpenError::Gap { expected: index, found: first });
        }
        let mut index = first;
        for entry in &self.entries {
            if entry.index != index {
                return Err(OpenError::Gap { expected: index, found: entry.index });
            }
            term = step_term(term, entry.term, entry.index)?;
            index = index.next();
        }
        if term > self.hard_state.term {
            return Err(OpenError::TermBeyondHardState { last: term, hard_state: self.hard_state.term });
        }
        Ok(())
    }
}

fn step_term(before: Term, term: Term, index: LogIndex) -> Result<Term, OpenError> {
    if term < before || term == Term::ZERO { Err(OpenError::TermBackwards { index }) } else { Ok(term) }
}

/// Why a group cannot be opened as the replica it was. Each means that the disk does not hold what was promised:
/// the replica returns under a new id (RAFT.md 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not the disk's fault: the configuration has a zero where none may be, or heartbeats as rare as elections.
    #[error("the group's configuration is invalid")]
    ConfigInvalid,
    /// No voters, or a replica with two places.
    #[error("the membership is not canonical")]
    MembershipInvalid,
    /// An index or a term that no log ever reached.
    #[error("an index or a term is out of range")]
    OutOfRange,
    /// The committed end of the log is missing.
    #[error("commit {commit} lies beyond the log's end {last}")]
    CommitBeyondLog {
        /// The durable commit index.
        commit: LogIndex,
        /// The last entry found.
        last: LogIndex,
    },
    /// The state machine is ahead of the hard state, which is older than it should be.
    #[error("applied {applied} lies beyond commit {commit}")]
    AppliedBeyondCommit {
        /// What the state machine holds.
        applied: LogIndex,
        /// The durable commit index.
        commit: LogIndex,
    },
    /// The checkpoint is too old for the log.
    #[error("applied {applied} lies below the truncation point {truncated}")]
    AppliedBelowTruncated {
        /// What the state machine holds.
        applied: LogIndex,
        /// The last entry that the log no longer holds.
        truncated: LogIndex,
    },
    /// Entries or terms are missing.
    #[error("the log has {found} where {expected} is due")]
    Gap {
        /// The index that should follow.
        expected: LogIndex,
        /// The index that does.
        found: LogIndex,
    },
    /// An entry of an older term behind one of a newer.
    #[error("the term goes back at {index}")]
    TermBackwards {
        /// Where.
        index: LogIndex,
    },
    /// The log has a term that the hard state has not: the hard state was lost.
    #[error("the log reaches term {last} and the hard state only {hard_state}")]
    TermBeyondHardState {
        /// The last entry's term.
        last: Term,
        /// The hard state's.
        hard_state: Term,
    },
}
