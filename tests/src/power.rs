//! A file system whose power can be cut: ext4 in a loop file, shut down by force, so that only what was fsynced survives.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::tool;

/// The file system, unmounted when dropped.
#[derive(Debug)]
pub struct PowerDisk {
    folder: tempfile::TempDir,
}

impl PowerDisk {
    /// Makes and mounts one of `size` (as truncate(1) takes it).
    #[must_use]
    pub fn new(size: &str) -> Self {
        let disk = Self { folder: tempfile::Builder::new().prefix("varve-power-").tempdir().unwrap() };
        disk.run("make", &[&disk.image(), &disk.mount(), Path::new(size)]);
        disk
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    /// Cuts the power: every later write and fsync fails, what was not fsynced is gone.
    pub fn cut(&self) {
        self.run("cut", &[&self.mount()]);
    }

    /// Brings it back as a machine would: unmounted, journal replayed, mounted.
    pub fn remount(&self) {
        self.run("remount", &[&self.image(), &self.mount()]);
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("disk.img")
    }

    fn run(&self, verb: &str, arguments: &[&Path]) {
        let mut command = Command::new("bash");
        command.arg(tool::power_loss()).arg(verb).args(arguments).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "power_loss.sh {verb}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.mount()).stderr(Stdio::null()).status();
    }
}
