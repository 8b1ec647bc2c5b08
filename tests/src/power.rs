//! A file system whose power can be cut, truly: ext4 on a disk of our own that forgets, at the cut, whatever was not flushed.
//!
//! The disk is a loop device over a file that this process serves ([`fuse`]); a write lies in a volatile cache until the flush that
//! follows it ([`device`]). [`PowerDisk::cut`] is one instant: from then on the disk answers nothing, so nothing that the process does
//! afterwards can be taken for durable, and what was acknowledged before rests on flushes that were complete. Then the process is
//! killed, the cache is lost, ext4 replays its journal.
//!
//! Why not `FS_IOC_SHUTDOWN` (the script that this replaced): ext4 drops the running journal transaction, and an fsync that is in
//! flight at that moment may find it neither running nor committing and return 0 (`jbd2_complete_transaction`). The
//! process goes on for an instant and acknowledges what is lost. A control without Varve lost its last write in 6 of 200 such cuts, each
//! time one that was acknowledged after the ioctl had begun, only where the fsync needed the journal (new extents); see docs/plan.md.

mod device;
mod fuse;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::JoinHandle,
};

pub use device::{Loss, Lost};

use crate::{node::Node, wait_for};

/// A process that uses the disk and dies with the power.
pub trait Victim {
    /// Kills it without waiting: it may hang in a write until the disk fails.
    fn kill_nowait(&mut self);
    /// Waits for its end.
    fn reap(&mut self);
}

impl Victim for Child {
    fn kill_nowait(&mut self) {
        self.kill().unwrap();
    }

    fn reap(&mut self) {
        self.wait().unwrap();
    }
}

impl Victim for Node {
    fn kill_nowait(&mut self) {
        Self::kill_nowait(self);
    }

    fn reap(&mut self) {
        Self::reap(self);
    }
}

/// The file system, gone when dropped.
#[derive(Debug)]
pub struct PowerDisk {
    folder: tempfile::TempDir,
    server: fuse::Server,
    thread: Option<JoinHandle<()>>,
}

impl PowerDisk {
    /// Whether this machine lets us serve a disk and mount it: root, FUSE and loop devices.
    #[must_use]
    pub fn is_allowed() -> bool {
        let fuse = File::options().read(true).write(true).open("/dev/fuse").is_ok();
        fuse && File::options().read(true).write(true).open("/dev/loop-control").is_ok()
    }

    /// Whether it also has the tools: those of the file system.
    #[must_use]
    pub fn is_possible() -> bool {
        let runs = |command: &mut Command| {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        Self::is_allowed()
            && runs(Command::new("losetup").arg("-f"))
            && runs(Command::new("mkfs.ext4").arg("-V"))
    }

    /// Makes and mounts one of so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let folder = tempfile::Builder::new().prefix("varve-power-").tempdir().unwrap();
        let path = folder.path().join("image");
        let image = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        image.set_len(bytes).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-E", "nodiscard"]).arg(&path));
        File::create(folder.path().join("disk")).unwrap();
        fs::create_dir(folder.path().join("mnt")).unwrap();
        let connection = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let descriptor = connection.try_clone().unwrap();
        let server = fuse::Server::new(connection, image, bytes);
        let served = server.clone();
        let thread = std::thread::Builder::new().name("power-disk".to_owned());
        let thread = Some(thread.spawn(move || served.run()).unwrap());
        let disk = Self { folder, server, thread };
        let options = "fd=0,rootmode=100600,user_id=0,group_id=0";
        let mut mount = Command::new("mount");
        mount.args(["-i", "-t", "fuse", "-o", options, "varve-power"]).arg(disk.file());
        assert!(mount.stdin(descriptor).status().unwrap().success(), "mount of the disk's file failed");
        disk.mount_file_system();
        disk
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    /// Cuts the power under a process: the disk answers nothing more, the process dies, and `loss` of what was not flushed is gone. The
    /// file system is back when this returns.
    pub fn cut(&self, victim: &mut impl Victim, loss: Loss) -> Lost {
        self.server.cut();
        victim.kill_nowait();
        self.server.fail();
        victim.reap();
        self.replace(loss)
    }

    /// The disk breaks: from now on every request fails, and the process sees that. [`PowerDisk::replace`] ends it.
    pub fn fail(&self) {
        self.server.fail();
    }

    /// Takes the file system off a disk that failed, loses what was not flushed, and mounts it again.
    pub fn replace(&self, loss: Loss) -> Lost {
        run(Command::new("umount").arg(self.mount()));
        // The loop device has a cache of its own: it goes with the device.
        wait_for("the loop device to go", 30, || !self.has_loop_device());
        let lost = self.server.restore(loss).unwrap();
        self.mount_file_system();
        lost
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn has_loop_device(&self) -> bool {
        let output = Command::new("losetup").arg("-j").arg(self.file()).output().unwrap();
        !output.stdout.is_empty()
    }

    fn mount_file_system(&self) {
        run(Command::new("mount").args(["-o", "loop"]).args([&self.file(), &self.mount()]));
    }
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        let unmount = |path: &Path| {
            let _ = Command::new("umount").arg(path).stderr(Stdio::null()).status();
        };
        unmount(&self.mount());
        unmount(&self.file());
        // Where something still holds the mount, the thread stays until the process ends.
        if !crate::power::is_mounted(&self.file())
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == path.to_str())
}
