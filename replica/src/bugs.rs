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
    /// Bucket-class commands take effect whatever their fence says.
    FenceIgnored,
    /// A range is closed by a rule of this node (a number of bytes) instead of by a command.
    RollByLocalRule,
}

#[cfg(feature = "seeded-bugs")]
mod seeded {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static SEEDED: Cell<Option<Bug>> = const { Cell::new(None) };
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
pub(crate) use seeded::is_seeded;
#[cfg(feature = "seeded-bugs")]
pub use seeded::seed;

#[cfg(not(feature = "seeded-bugs"))]
pub(crate) const fn is_seeded(_: Bug) -> bool {
    false
}
