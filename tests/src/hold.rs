//! Holds a process right behind a named system call: the whole of it stands still (SIGSTOP, every thread) when the call has succeeded and
//! before the caller sees that, so that the power can be cut exactly there. The product has no failpoints of its own; a [`Shim`] is in
//! the process from its first moment (`hold/shim.c`) and sees every call of every thread, so no place is missed on a busy machine.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{node::Options, shim::Shim, tool};

const SOURCE: &str = include_str!("hold/shim.c");
/// How often it is asked whether a process is held.
const LOOK: Duration = Duration::from_millis(5);
/// The page that is shared with the shim: four numbers, each where the shim has it, then the plan.
const PAGE_BYTES: usize = 4096;
const ARMED_AT: u64 = 0;
const HELD_AT: u64 = 4;
const LOADED_AT: u64 = 8;
const TIMES_AT: u64 = 12;
const PLAN_AT: u64 = 16;

/// A system call that succeeded: its name without what it may end with (`at`, `at2`), and what its arguments hold, in order: a path is
/// `"/the/path"`, as it was given, and a descriptor `</its/path>`.
#[derive(Clone, Copy, Debug)]
pub struct Call(pub &'static str, pub &'static [&'static str]);

/// A place in a program: right behind the last of these calls, each of which follows the one before, with any others in between.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// What is done there and what is not.
    pub name: &'static str,
    /// The calls.
    pub calls: &'static [Call],
    /// One of the first so many times, drawn.
    pub among: u64,
}

impl Point {
    /// As the shim reads it.
    fn plan(&self) -> String {
        let line = |call: &Call| [&[call.0], call.1].concat().join("\t") + "\n";
        self.calls.iter().map(line).collect()
    }
}

/// Where processes that are started with it are to be held, one at a time.
#[derive(Debug)]
pub struct Hold {
    shim: Shim,
    page: File,
    /// A number of its own for each place.
    armed: u32,
}

impl Hold {
    /// Holds nothing yet; `None`, said aloud, where the shim cannot be built, or the machine does not let a process filter its calls.
    #[must_use]
    pub fn new() -> Option<Self> {
        let shim = Shim::build(SOURCE, "no process can be held: the shim cannot be built")?;
        let file = shim.file("page");
        let page = File::options().read(true).write(true).create_new(true).open(file).unwrap();
        page.set_len(PAGE_BYTES as u64).unwrap();
        let hold = Self { shim, page, armed: 0 };
        let probe = Command::new("true").envs(hold.variables()).output();
        if hold.number(LOADED_AT) == 0 {
            tool::not_run(&format!("no process can be held: the shim does not run: {probe:?}"));
            return None;
        }
        Some(hold)
    }

    /// What a process that is to be held has in its environment.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", self.shim.library()), ("HOLD_FILE", self.shim.file("page"))]
    }

    /// A node that can be held.
    #[must_use]
    pub fn told_to(&self, options: Options) -> Options {
        let set =
            |options: Options, (name, file): (&str, PathBuf)| options.env(name, file.display().to_string());
        self.variables().into_iter().fold(options, set)
    }

    /// From now on the process is to be held where it stands behind the point for the `times`th time.
    pub fn arm(&mut self, point: &Point, times: u64) {
        self.disarm();
        let mut plan = point.plan().into_bytes();
        assert!(plan.len() < PAGE_BYTES - PLAN_AT as usize, "{} has too many calls", point.name);
        plan.push(0);
        self.page.write_all_at(&plan, PLAN_AT).unwrap();
        self.write(TIMES_AT, times.max(1) as u32);
        self.armed += 1;
        self.write(ARMED_AT, self.armed);
    }

    /// From now on it is to be held nowhere.
    pub fn disarm(&self) {
        self.write(ARMED_AT, 0);
    }

    /// Waits until the process is held, or has ended, or patience has: whether it is held, with every thread.
    #[must_use]
    pub fn is_held(&self, process: u32, patience: Duration) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < patience {
            let states = states(process);
            if self.number(HELD_AT) == self.armed && states.iter().all(|state| *state == 'T') {
                return !states.is_empty();
            }
            if states.iter().all(|state| "ZX".contains(*state)) {
                break;
            }
            thread::sleep(LOOK);
        }
        let loaded = self.number(LOADED_AT) == process;
        println!("not held: {:?}, shim loaded: {loaded}, after {:?}", states(process), begin.elapsed());
        false
    }

    fn number(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.page.read_exact_at(&mut bytes, at).unwrap();
        u32::from_ne_bytes(bytes)
    }

    fn write(&self, at: u64, number: u32) {
        self.page.write_all_at(&number.to_ne_bytes(), at).unwrap();
    }
}

/// Sends a process on that is held.
pub fn go_on(process: u32) {
    let mut kill = Command::new("kill");
    assert!(kill.args(["-CONT", &process.to_string()]).stdin(Stdio::null()).status().unwrap().success());
}

/// What each thread of a process does, as the kernel says it by a letter.
fn states(process: u32) -> Vec<char> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    // The name before it is in parentheses, and may hold some.
    stats.filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next()).collect()
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Child};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Begins to make folders.
    fn begin(hold: &Hold, folder: &Path, names: &[&str]) -> Child {
        let mut command = Command::new("mkdir");
        command.args(names).current_dir(folder).envs(hold.variables()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    #[test]
    fn a_process_stands_behind_the_call_and_goes_on_when_it_is_sent() {
        let Some(mut hold) = Hold::new() else { return };
        let folder = tempfile::tempdir().unwrap();
        let there = |name: &str| folder.path().join(name).exists();
        let calls = &[Call("mkdir", &["\"a"]), Call("mkdir", &["\"x", "y\""])];
        hold.arm(&Point { name: "the second of each", calls, among: 1 }, 2);
        let names = ["xy", "a1", "xay", "xby", "a1", "yx", "a2", "xcy", "xdy"];
        let mut making = begin(&hold, folder.path(), &names);
        assert!(hold.is_held(making.id(), PATIENCE));
        assert!(there("xcy") && !there("xdy"));
        go_on(making.id());
        // One was there already.
        assert_eq!(making.wait().unwrap().code(), Some(1));
        assert!(there("xdy"));
    }

    #[test]
    fn calls_that_fail_do_not_count() {
        let Some(mut hold) = Hold::new() else { return };
        let folder = tempfile::tempdir().unwrap();
        hold.arm(&Point { name: "two made", calls: &[Call("mkdir", &[])], among: 1 }, 2);
        let mut making = begin(&hold, folder.path(), &["a", "a", "a"]);
        assert!(!hold.is_held(making.id(), PATIENCE));
        assert_eq!(making.wait().unwrap().code(), Some(1));
    }
}
