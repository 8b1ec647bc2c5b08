//! A library that a process loads before its C library (`LD_PRELOAD`), so that it is there from the process's first moment. The machine's
//! C compiler builds it; it goes with the folder that it is built in.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::tool;

/// See the module.
#[derive(Debug)]
pub struct Shim {
    folder: tempfile::TempDir,
}

impl Shim {
    /// Builds one from its source; nothing, said aloud with what is not run then, where that cannot be done. CI's machines can.
    #[must_use]
    pub fn build(source: &str, not_run: &str) -> Option<Self> {
        let shim = Self { folder: tempfile::Builder::new().prefix("varve-shim-").tempdir().unwrap() };
        std::fs::write(shim.file("shim.c"), source).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-o"]).args([shim.library(), shim.file("shim.c")]);
        let built = compiler.arg("-ldl").stdin(Stdio::null()).output();
        if built.as_ref().is_ok_and(|built| built.status.success()) {
            return Some(shim);
        }
        tool::not_run(&format!("{not_run}: {built:?}"));
        None
    }

    /// What `LD_PRELOAD` is to name.
    #[must_use]
    pub fn library(&self) -> PathBuf {
        self.file("shim.so")
    }

    /// A file beside it, for what the two have to tell each other.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
