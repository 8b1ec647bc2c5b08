//! A bug that tests switch on to see that it is caught (feature `seeded-bugs`). The switch belongs to a thread, as a
//! simulation does; without the feature it does not exist.

#[cfg(feature = "seeded-bugs")]
mod seeded {
    use std::cell::Cell;

    thread_local! {
        static EMPTY: Cell<bool> = const { Cell::new(false) };
    }

    /// Lets a checkpoint that is missing or damaged count as an empty group.
    pub fn seed_damaged_is_empty(on: bool) {
        EMPTY.set(on);
    }

    pub(crate) fn damaged_is_empty() -> bool {
        EMPTY.get()
    }
}

#[cfg(feature = "seeded-bugs")]
pub(crate) use seeded::damaged_is_empty;
#[cfg(feature = "seeded-bugs")]
pub use seeded::seed_damaged_is_empty;

#[cfg(not(feature = "seeded-bugs"))]
pub(crate) const fn damaged_is_empty() -> bool {
    false
}
