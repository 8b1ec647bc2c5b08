//! Faults of the machine, from outside: file systems that fill, system calls that fail, too few descriptors, too little memory. Each asks
//! the machine first: where it does not allow that, the test says so and does not run.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A small file system in memory, mounted in a folder of its own.
#[derive(Debug)]
pub struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one of so many bytes; nothing, said aloud, where the machine does not let us.
    #[must_use]
    pub fn mount(bytes: u64) -> Option<Self> {
        let disk = Self { folder: tempfile::Builder::new().prefix("varve-disk-").tempdir().unwrap() };
        let size = format!("size={bytes}");
        if runs(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "varve-disk"]).arg(disk.path())) {
            return Some(disk);
        }
        eprintln!("NOT RUN: this machine mounts no tmpfs for us: no disk was filled");
        None
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A data directory on it.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Somebody else's file takes all but so many bytes.
    pub fn leave(&self, bytes: u64) {
        self.make_room();
        let taken = self.free().saturating_sub(bytes);
        fs::write(self.ballast(), vec![1; taken as usize]).unwrap();
    }

    /// That file goes.
    pub fn make_room(&self) {
        let _ = fs::remove_file(self.ballast());
    }

    /// Bytes that nobody has.
    #[must_use]
    pub fn free(&self) -> u64 {
        let output = Command::new("stat").args(["-f", "-c", "%a %S"]).arg(self.path()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().map(|number| number.parse::<u64>().unwrap()).product()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that a failed test leaves behind must not keep it.
        let _ = runs(Command::new("umount").arg("-l").arg(self.path()));
    }
}

/// How often strace is attached until it has every thread.
const ATTACHES_MAX: usize = 20;

/// strace on a process, which fails some of its system calls until this is dropped.
#[derive(Debug)]
pub struct Failing(Child);

impl Failing {
    /// Fails calls of a name on these files with an error; `None`, said aloud, where there is no strace.
    #[must_use]
    pub fn calls(process: u32, call: &str, error: &str, files: &[PathBuf]) -> Option<Self> {
        Self::inject(process, call, &format!("error={error}"), files)
    }

    /// Does something else to all calls of a name: `delay_exit=MICROSECONDS`, or `retval=0`, which does not do what it says.
    #[must_use]
    pub fn injected(process: u32, call: &str, what: &str) -> Option<Self> {
        Self::inject(process, call, what, &[])
    }

    fn inject(process: u32, call: &str, what: &str, files: &[PathBuf]) -> Option<Self> {
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &process.to_string(), "-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={call}:{what}")]);
        for file in files {
            command.arg("-P").arg(file);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for _ in 0..ATTACHES_MAX {
            let Ok(child) = command.spawn() else {
                eprintln!("NOT RUN: there is no strace: no system call failed");
                return None;
            };
            let mut strace = Self(child);
            strace.wait_attached();
            if strace.has_all(process) {
                return Some(strace);
            }
        }
        panic!("strace misses threads of the process, {ATTACHES_MAX} times");
    }

    /// Waits until it says so, which it does once it has every thread that it found.
    fn wait_attached(&mut self) {
        let mut lines = BufReader::new(self.0.stderr.take().expect("it is piped")).lines();
        let attached = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("attached")));
        assert!(attached.is_some(), "strace does not attach");
        // Read to its end, or it would wait for us.
        std::thread::spawn(move || lines.for_each(drop));
    }

    /// Whether no thread is without it: it lists them once, and misses one that another has begun meanwhile before its own turn came.
    /// Those that a thread of its own begins are its own.
    fn has_all(&self, process: u32) -> bool {
        let traced = format!("TracerPid:\t{}\n", self.0.id());
        let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let mut states = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
        states.all(|status| status.contains(&traced))
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        // It lets go of the process when it is told to end, not when it is killed.
        let _ = runs(Command::new("kill").args(["-INT", &self.0.id().to_string()]));
        let _ = self.0.wait();
    }
}

/// Whether the machine bounds a process's open files for us; says so aloud where it does not.
#[must_use]
pub fn can_limit_descriptors() -> bool {
    let can = runs(Command::new("prlimit").arg("--version"));
    if !can {
        eprintln!("NOT RUN: prlimit is not there: no descriptors were taken");
    }
    can
}

/// Bounds a process's open files from now on.
#[must_use]
pub fn limit_descriptors(process: u32, most: u32) -> bool {
    let limit = format!("--nofile={most}:{most}");
    runs(Command::new("prlimit").args(["--pid", &process.to_string(), &limit]))
}

/// A group of processes with little memory.
#[derive(Debug)]
pub struct LittleMemory {
    folder: PathBuf,
}

impl LittleMemory {
    /// Makes one of so many bytes; nothing, said aloud, where the machine does not let us.
    #[must_use]
    pub fn of(bytes: u64) -> Option<Self> {
        let name = format!("varve-test-{}", std::process::id());
        let first = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        for (root, limit) in first {
            let folder = Path::new(root).join(&name);
            if Path::new(root).join("cgroup.procs").exists() && fs::create_dir(&folder).is_ok() {
                let group = Self { folder };
                if fs::write(group.folder.join(limit), bytes.to_string()).is_ok() {
                    return Some(group);
                }
            }
        }
        eprintln!("NOT RUN: this machine bounds no memory for us");
        None
    }

    /// What starts another command in it: a process sees the limit from its first moment, as in a container.
    #[must_use]
    pub fn enter(&self) -> [String; 4] {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.folder.display());
        ["sh".into(), "-c".into(), enter, "sh".into()]
    }
}

impl Drop for LittleMemory {
    fn drop(&mut self) {
        // Fails while a process is in it; those of a failed test may be.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// The files of a folder and those below it.
#[must_use]
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files.extend(files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    files
}

/// Flips a bit of a file, as a disk rots: from outside, in place.
pub fn flip_at(file: &Path, position: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 4], position).unwrap();
}

fn runs(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
