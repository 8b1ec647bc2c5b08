//! A bug that tests switch on to see that it is caught (feature `seeded-bugs`). The switch belongs to a thread, as a
//! simulation does; without the feature it does not exist.

#[cfg(feature = "seeded-bugs")]
mod seeded {
    use std::cell::Cell;

    thread_local! {
        static UNSYNCED: Cell<bool> = const { Cell::new(false) };
    }

    /// Lets the directory store answer a put before anything is fsynced.
    pub fn seed_unsynced_puts(on: bool) {
        UNSYNCED.set(on);
    }

    pub(crate) fn puts_are_unsynced() -> bool {
        UNSYNCED.get()
    }
}

#[cfg(feature = "seeded-bugs")]
pub(crate) use seeded::puts_are_unsynced;
#[cfg(feature = "seeded-bugs")]
pub use seeded::seed_unsynced_puts;

#[cfg(not(feature = "seeded-bugs"))]
pub(crate) const fn puts_are_unsynced() -> bool {
    false
}
