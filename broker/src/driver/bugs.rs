//! Bugs that tests switch on to see that they are caught (feature `seeded-bugs`). The switches belong to a thread, as a
//! simulation does; without the feature they do not exist.

#[cfg(feature = "seeded-bugs")]
mod seeded {
    use std::cell::Cell;

    thread_local! {
        static EMPTY: Cell<bool> = const { Cell::new(false) };
        static OLD: Cell<bool> = const { Cell::new(false) };
    }

    /// Lets a checkpoint that is missing or damaged count as an empty group.
    pub fn seed_damaged_is_empty(on: bool) {
        EMPTY.set(on);
    }

    pub(crate) fn damaged_is_empty() -> bool {
        EMPTY.get()
    }

    /// Lets the metadata be acted on while it is replayed.
    pub fn seed_old_metadata_acts(on: bool) {
        OLD.set(on);
    }

    pub(crate) fn old_metadata_acts() -> bool {
        OLD.get()
    }
}

#[cfg(feature = "seeded-bugs")]
pub(crate) use seeded::{damaged_is_empty, old_metadata_acts};
#[cfg(feature = "seeded-bugs")]
pub use seeded::{seed_damaged_is_empty, seed_old_metadata_acts};

#[cfg(not(feature = "seeded-bugs"))]
pub(crate) const fn damaged_is_empty() -> bool {
    false
}

#[cfg(not(feature = "seeded-bugs"))]
pub(crate) const fn old_metadata_acts() -> bool {
    false
}
