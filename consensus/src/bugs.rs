//! Bugs that tests switch on to see that they are caught (feature `seeded-bugs`). Without the feature none exists and
//! every question costs nothing. The switch belongs to a thread, as a simulation does.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Followers and candidates speak before their term, vote and entries are durable (T9, R5).
    SpeaksBeforeDurable,
    /// A leader takes proposals before its own entry is applied (T1).
    ServesBeforeOwnEntry,
    /// A restart forgets whom it voted for (R5).
    VoteForgotten,
    /// A read is answered without asking a quorum (F3, T15).
    ReadsAlone,
    /// A cluster is formed with one seed silent.
    FormsWithoutAllSeeds,
    /// A decision does not say which disks it counts on.
    DecisionNamesNoDisks,
}

#[cfg(feature = "seeded-bugs")]
mod planted {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug in this thread, or with `None` removes it.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub(crate) fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "seeded-bugs")]
pub(crate) use planted::is_planted;
#[cfg(feature = "seeded-bugs")]
pub use planted::plant;

#[cfg(not(feature = "seeded-bugs"))]
pub(crate) const fn is_planted(_: Bug) -> bool {
    false
}
