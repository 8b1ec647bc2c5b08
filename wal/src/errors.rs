//! One error per operation, and what recovery and failure say about groups.

use std::{io, ops::Range};

use varve_common::{GroupId, LogIndex, ReplicaId, Term, WalPosition};

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The options contradict each other.
    #[error("wal options: {0}")]
    Options(&'static str),
    /// The disk does not answer: Fatal.
    #[error("wal directory: {0}")]
    Io(#[from] io::Error),
}

/// A batch was not written. Only [`AppendError::Full`] leaves the writer usable and is worth a retry.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// No room for entries: Retry after space came back. Marks and hard states may still fit.
    #[error("write-ahead log is full ({0})")]
    Full(Full),
    /// The batch can never be written: a broken promise of the caller, nothing was changed.
    #[error("{group}: {what}")]
    Invalid {
        /// Whose record it is.
        group: GroupId,
        /// What is wrong.
        what: &'static str,
    },
    /// Fatal: the process must end.
    #[error(transparent)]
    Failed(#[from] Poisoned),
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The file system has none left.
    Disk,
    /// `bytes_max` is reached.
    Budget,
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Disk => "no space on the disk",
            Self::Budget => "its configured size is reached",
        })
    }
}

/// A write or a sync has failed: nothing is acknowledged any more, and the file is never touched again (the kernel
/// may have dropped the pages that it marked clean). Fatal: the process ends and recovers at its next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wal {operation} failed ({kind:?}): nothing more is acknowledged")]
pub struct Poisoned {
    /// What was tried.
    pub operation: &'static str,
    /// How the system refused.
    pub kind: io::ErrorKind,
}

/// What was appended is not durable. Fatal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct SyncError(#[from] pub Poisoned);

/// Entries cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The group has no such entry here: it was cut, or is not yet written.
    #[error("{group}: entry {index} is not in the log")]
    Missing {
        /// The group.
        group: GroupId,
        /// The entry.
        index: LogIndex,
    },
    /// The bytes are not those that were written: another replica or tier serves.
    #[error("{group}: entry {index} at wal position {position} is corrupt")]
    Corrupt {
        /// The group.
        group: GroupId,
        /// The first entry of the bad record.
        index: LogIndex,
        /// Where it lies.
        position: WalPosition,
    },
    /// The disk does not give the bytes: another replica or tier serves.
    #[error("{group}: entry {index}: {source}")]
    Io {
        /// The group.
        group: GroupId,
        /// The first entry of what was read.
        index: LogIndex,
        /// What the disk says.
        source: io::Error,
    },
}

/// What a group has lost to corruption. Its replica must not vote or count as the one it was: it returns under a new
/// id, or stays offline until the operator accepts the loss (RAFT.md 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The damaged incarnation.
    pub replica: ReplicaId,
    /// Where the first bad bytes lie.
    pub position: WalPosition,
    /// The last entry of the undamaged prefix; what followed is lost.
    pub last_index: LogIndex,
    /// The term of that entry.
    pub last_term: Term,
    /// How it was found.
    pub cause: DamageCause,
}

/// Entries that do not read back as they were written, found while the log runs. What it means is the owner's to say:
/// either what they hold is elsewhere, then it cuts its log behind them, or it is lost ([`crate::Record::Damaged`]).
/// Until then their file stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rot {
    /// Whose they are.
    pub group: GroupId,
    /// Which.
    pub entries: Range<LogIndex>,
    /// Where they lie.
    pub position: WalPosition,
}

/// How damage was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DamageCause {
    /// A record of this group does not match its checksum.
    Record = 1,
    /// Bytes that nobody can attribute: any group may have lost something there.
    Unattributed = 2,
    /// Entries in the middle of the log, or a file, are gone.
    Gap = 3,
    /// The log is whole; a sealed file that it names is not.
    Segment = 4,
}

impl DamageCause {
    /// The cause with this number in a mark; one that a later version wrote counts as the most careful.
    pub(crate) const fn from_raw(raw: u8) -> Self {
        match raw {
            1 => Self::Record,
            3 => Self::Gap,
            4 => Self::Segment,
            _ => Self::Unattributed,
        }
    }
}
