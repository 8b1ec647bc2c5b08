//! A clock of its own for a process: a wall clock that jumps, or time that passes at another pace. A shim that is loaded before the C
//! library answers in its place (`clocks/shim.c`); the machine's C compiler builds it.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::node::Options;

const SHIM: &str = include_str!("clocks/shim.c");
/// The pace of the machine's own clock.
pub const SAME_PACE: u32 = 1000;

/// See the module. Ends with this: a process that runs by it keeps the last time that it was told.
#[derive(Debug)]
pub struct OwnClock {
    folder: tempfile::TempDir,
    ahead: File,
    permille: u32,
}

impl OwnClock {
    /// Time that passes so many times in a thousand as fast; nothing, said aloud, where the shim cannot be built.
    #[must_use]
    pub fn of(permille: u32) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("varve-clock-").tempdir().unwrap();
        let source = folder.path().join("shim.c");
        std::fs::write(&source, SHIM).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-o"]).arg(folder.path().join("shim.so"));
        let built = compiler.arg(&source).arg("-ldl").stdin(Stdio::null()).output();
        if !built.as_ref().is_ok_and(|built| built.status.success()) {
            eprintln!("NOT RUN: no clock of its own can be built: {built:?}");
            return None;
        }
        let ahead = File::create(folder.path().join("ahead")).unwrap();
        let clock = Self { folder, ahead, permille };
        clock.set_ahead(0);
        Some(clock)
    }

    /// A node that runs by it.
    #[must_use]
    pub fn told_to(&self, options: Options) -> Options {
        let file = |name: &str| -> PathBuf { self.folder.path().join(name) };
        options
            .env("LD_PRELOAD", file("shim.so").display().to_string())
            .env("CLOCK_FILE", file("ahead").display().to_string())
            .env("CLOCK_PERMILLE", self.permille.to_string())
    }

    /// The wall clock is so far ahead of the machine's from now on, or behind it.
    pub fn set_ahead(&self, milliseconds: i64) {
        self.ahead.write_all_at(&milliseconds.to_ne_bytes(), 0).unwrap();
    }
}
