//! An entry of the log, and the hard state beside it.

use bytes::Bytes;
use raft::eraftpb;
use varve_common::{LogIndex, ReplicaId, Term};

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A command of the state machine; never without data.
    Normal,
    /// The entry with which a leader opens its term, or a configuration change that was refused: applies nothing.
    Empty,
    /// A configuration change; [`crate::Group`] carries it out by itself.
    ConfChange,
}

impl EntryKind {
    /// The number that the write-ahead log holds.
    #[must_use]
    pub const fn to_u8(self) -> u8 {
        match self {
            Self::Normal => 0,
            Self::Empty => 1,
            Self::ConfChange => 2,
        }
    }

    /// Reads back what [`EntryKind::to_u8`] gave.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Normal),
            1 => Some(Self::Empty),
            2 => Some(Self::ConfChange),
            _ => None,
        }
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the log.
    pub index: LogIndex,
    /// The term of the leader that proposed it.
    pub term: Term,
    /// What it is for.
    pub kind: EntryKind,
    /// The command; shared, not copied, all the way from the client's request.
    pub data: Bytes,
}

impl Entry {
    pub(crate) fn from_raft(entry: eraftpb::Entry) -> Self {
        let kind = match entry.get_entry_type() {
            eraftpb::EntryType::EntryNormal if entry.data.is_empty() => EntryKind::Empty,
            eraftpb::EntryType::EntryNormal => EntryKind::Normal,
            eraftpb::EntryType::EntryConfChange | eraftpb::EntryType::EntryConfChangeV2 => {
                EntryKind::ConfChange
            }
        };
        Self { index: LogIndex(entry.index), term: Term(entry.term), kind, data: entry.data }
    }

    pub(crate) fn to_raft(&self) -> eraftpb::Entry {
        let entry_type = match self.kind {
            EntryKind::Normal | EntryKind::Empty => eraftpb::EntryType::EntryNormal,
            EntryKind::ConfChange => eraftpb::EntryType::EntryConfChangeV2,
        };
        eraftpb::Entry {
            entry_type: entry_type.into(),
            term: self.term.0,
            index: self.index.0,
            data: self.data.clone(),
            context: Bytes::new(),
        }
    }
}

/// What must be durable before a replica speaks of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The current term.
    pub term: Term,
    /// Whom this replica voted for in that term.
    pub vote: Option<ReplicaId>,
    /// The highest index it knows to be committed.
    pub commit: LogIndex,
}

impl HardState {
    pub(crate) fn from_raft(state: &eraftpb::HardState) -> Self {
        let vote = ReplicaId::from_raw(state.vote);
        Self { term: Term(state.term), vote, commit: LogIndex(state.commit) }
    }

    pub(crate) fn to_raft(self) -> eraftpb::HardState {
        eraftpb::HardState {
            term: self.term.0,
            vote: self.vote.map_or(0, ReplicaId::get),
            commit: self.commit.0,
        }
    }
}
