//! A clock of its own for a process: a wall clock that jumps, or time that passes at another pace. A [`Shim`] answers in the
//! C library's place (`clocks/shim.c`).

use std::{fs::File, os::unix::fs::FileExt as _};

use crate::{node::Options, shim::Shim};

const SOURCE: &str = include_str!("clocks/shim.c");
/// The pace of the machine's own clock.
pub const SAME_PACE: u32 = 1000;

/// See the module. Ends with this: a process that runs by it keeps the last time that it was told.
#[derive(Debug)]
pub struct OwnClock {
    shim: Shim,
    ahead: File,
    permille: u32,
}

impl OwnClock {
    /// Time that passes so many times in a thousand as fast; nothing, said aloud, where the shim cannot be built.
    #[must_use]
    pub fn of(permille: u32) -> Option<Self> {
        let shim = Shim::build(SOURCE, "no clock of its own can be built")?;
        let ahead = File::create(shim.file("ahead")).unwrap();
        let clock = Self { shim, ahead, permille };
        clock.set_ahead(0);
        Some(clock)
    }

    /// A node that runs by it.
    #[must_use]
    pub fn told_to(&self, options: Options) -> Options {
        options
            .env("LD_PRELOAD", self.shim.library().display().to_string())
            .env("CLOCK_FILE", self.shim.file("ahead").display().to_string())
            .env("CLOCK_PERMILLE", self.permille.to_string())
    }

    /// The wall clock is so far ahead of the machine's from now on, or behind it.
    pub fn set_ahead(&self, milliseconds: i64) {
        self.ahead.write_all_at(&milliseconds.to_ne_bytes(), 0).unwrap();
    }
}
