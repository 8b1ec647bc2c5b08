//! Bugs that tests switch on to see that they are caught (feature `seeded-bugs`). Without the feature none exists and
//! every question costs nothing. The switch belongs to a thread, as a simulation does.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Checkpoints leave the producer table out.
    DedupDroppedFromCheckpoint,
    /// Only the last batch of a producer is remembered.
    DedupWindowOne,
    /// What is announced counts as tiered when the log is cut.
    CutBeforeAppend,
    /// A sealed file counts as soon as it is written, before its mark is fsynced.
    CutBeforeSealMark,
    /// Bucket-class commands take effect whatever their fence says.
    FenceIgnored,
    /// A range is closed by a rule of this node (a number of bytes) instead of by a command.
    RollByLocalRule,
    /// A replica seeded from a checkpoint applies bucket-class commands at or below A once more.
    BucketClassBelowA,
    /// Of those it ignores the appends alone.
    OnlyAppendsBelowAIgnored,
    /// The local checkpoint of a seeded replica forgets A.
    ReseededForgetsA,
    /// Checkpoints leave groups of consumers out.
    GroupsDroppedFromCheckpoint,
    /// A commit is answered before the log has it.
    CommitAnsweredEarly,
    /// A coordinator does not look at the generation of who commits.
    OldGenerationsCommit,
    /// What the leading member gives is told before the log has it.
    AssignmentToldEarly,
    /// A bucket checkpoint stands in for a voter's own, and its log above S goes.
    BucketReplacesTail,
}

#[cfg(feature = "seeded-bugs")]
mod seeded {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static SEEDED: Cell<Option<Bug>> = const { Cell::new(None) };
        static ROLL_BYTES: Cell<u64> = const { Cell::new(4096) };
    }

    /// The number of bytes at which [`Bug::RollByLocalRule`] strikes: as a configuration would, it may differ from one
    /// life of a node to the next.
    pub fn set_roll_bytes(bytes: u64) {
        ROLL_BYTES.set(bytes);
    }

    pub(crate) fn roll_bytes() -> u64 {
        ROLL_BYTES.get()
    }

    /// Plants a bug in this thread, or with `None` removes it.
    pub fn seed(bug: Option<Bug>) {
        SEEDED.set(bug);
    }

    pub(crate) fn is_seeded(bug: Bug) -> bool {
        SEEDED.get() == Some(bug)
    }
}

#[cfg(feature = "seeded-bugs")]
pub(crate) use seeded::{is_seeded, roll_bytes};
#[cfg(feature = "seeded-bugs")]
pub use seeded::{seed, set_roll_bytes};

#[cfg(not(feature = "seeded-bugs"))]
pub(crate) const fn is_seeded(_: Bug) -> bool {
    false
}

#[cfg(not(feature = "seeded-bugs"))]
pub(crate) const fn roll_bytes() -> u64 {
    u64::MAX
}
