//! Holds a process right behind a named system call, from outside: strace stops the whole of it (SIGSTOP, every thread) when the call has
//! returned and before the caller sees that, so that the power can be cut exactly there. The product has no failpoints of its own.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

/// How long a process that is held must stay so before it counts.
const SETTLE: Duration = Duration::from_millis(20);

/// A system call that succeeded: the beginning of its name, and what its arguments hold, in order, with descriptors as paths.
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

impl Call {
    fn is(&self, line: &str) -> bool {
        let Some(rest) = line.strip_prefix(self.0) else { return false };
        let Some((name, mut rest)) = rest.split_once('(') else { return false };
        // `rename` is also renameat2; `fsync` is not fsync_range.
        let named = name.is_empty() || name.starts_with("at");
        let fits = self.1.iter().all(|part| match rest.split_once(part) {
            Some((_, behind)) => {
                rest = behind;
                true
            }
            None => false,
        });
        let succeeded = line
            .rsplit_once(" = ")
            .is_some_and(|(call, result)| call.trim_end().ends_with(')') && !result.starts_with('-'));
        named && fits && succeeded
    }
}

/// The tracer of one process.
#[derive(Debug)]
pub struct Tracer {
    strace: Child,
    lines: Receiver<String>,
    process: u32,
    /// Whether it may stand still.
    stopped: bool,
    /// Calls that another thread's line has cut in two.
    unfinished: BTreeMap<String, String>,
}

impl Tracer {
    /// Attaches to a process and stops it behind every call that has the name of the point's last.
    #[must_use]
    pub fn attach(process: u32, point: &Point) -> Self {
        let family = |call: &Call| format!("/^{}(at2?)?$", call.0);
        let traced: Vec<_> = point.calls.iter().map(family).collect();
        let last = family(point.calls.last().expect("a point has calls"));
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-s", "0", "-p", &process.to_string()]);
        command.args(["-e", &format!("trace={}", traced.join(","))]);
        command.args(["-e", &format!("inject={last}:signal=SIGSTOP")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut strace = command.spawn().unwrap();
        let output = BufReader::new(strace.stderr.take().expect("it is piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)).ok();
        });
        Self { strace, lines, process, stopped: false, unfinished: BTreeMap::new() }
    }

    /// Lets the process run until it stands behind the point for the `times`th time; then it is held. Whether it came there in time.
    pub fn hold(&mut self, point: &Point, times: u64, patience: Duration) -> bool {
        let begin = Instant::now();
        let (mut step, mut left) = (0, times.max(1));
        while begin.elapsed() < patience {
            let Some(call) = self.next_call() else { continue };
            if !point.calls[step].is(&call) {
                continue;
            }
            step = (step + 1) % point.calls.len();
            left -= u64::from(step == 0);
            if left == 0 {
                if self.stays() {
                    return true;
                }
                // It had been sent on already: the next time, then.
                left = 1;
            }
        }
        false
    }

    /// The next call that is complete. Sends the process on where it stands and nothing more is printed: what it did is known by then.
    fn next_call(&mut self) -> Option<String> {
        let line = self.lines.try_recv().ok().or_else(|| {
            if std::mem::take(&mut self.stopped) {
                self.go_on();
            }
            self.lines.recv_timeout(SETTLE).ok()
        });
        let Some(line) = line else {
            self.stopped = true;
            return None;
        };
        self.stopped |= line.ends_with("--- stopped by SIGSTOP ---");
        self.join(&line)
    }

    /// Whether the process is held still after a while: a signal to go on may have been on its way.
    fn stays(&self) -> bool {
        let end = Instant::now() + SETTLE;
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if line.contains("--- SIGCONT") {
                return false;
            }
        }
        true
    }

    fn go_on(&self) {
        let mut kill = Command::new("kill");
        let _ = kill.args(["-CONT", &self.process.to_string()]).stderr(Stdio::null()).status();
    }

    /// A whole call from a line: without the thread, and with the half that another thread's line has cut off.
    fn join(&mut self, line: &str) -> Option<String> {
        let (thread, call) = match line.strip_prefix("[pid") {
            Some(rest) => rest.split_once("] ")?,
            None => ("", line),
        };
        if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
            self.unfinished.insert(thread.to_owned(), begun.to_owned());
            return None;
        }
        match call.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            Some((_, rest)) => Some(self.unfinished.remove(thread)? + rest),
            None => Some(call.to_owned()),
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It ends with the process; where that lives on, it must not stay stopped.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
        self.go_on();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RENAMED: Call = Call("rename", &["/staging/", "/data/"]);

    #[test]
    fn a_call_is_known_by_its_name_and_its_paths_in_order() {
        assert!(
            RENAMED.is(
                r#"renameat2(AT_FDCWD</>, "/s/staging/1", AT_FDCWD</>, "/s/data/k", RENAME_NOREPLACE) = 0"#
            )
        );
        assert!(!RENAMED.is(r#"rename("/s/data/k", "/s/staging/1") = 0"#));
        assert!(!RENAMED.is(r#"rename("/s/staging/1", "/s/data/k") = -1 EEXIST (File exists)"#));
        assert!(Call("fsync", &["/data>"]).is("fsync(5</s/data>)      = 0"));
        assert!(!Call("fsync", &[]).is("fdatasync(5</s/data>) = 0"));
    }

    #[test]
    fn a_call_that_was_cut_in_two_is_joined() {
        let strace = Command::new("true").spawn().unwrap();
        let (_sender, lines) = channel();
        let mut tracer = Tracer {
            strace,
            lines,
            process: std::process::id(),
            stopped: false,
            unfinished: BTreeMap::new(),
        };
        assert_eq!(tracer.join("[pid    7] fsync(5</d> <unfinished ...>"), None);
        assert_eq!(tracer.join("[pid    8] fsync(6</e>) = 0").as_deref(), Some("fsync(6</e>) = 0"));
        assert_eq!(tracer.join("[pid    7] <... fsync resumed>) = 0").as_deref(), Some("fsync(5</d>) = 0"));
    }
}
