//! One `varve serve`, as a person would run it.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{tool, wait_for};

const READY_MAX: Duration = Duration::from_secs(120);
const STOP_SECONDS_MAX: u64 = 30;
/// Below the range that the kernel hands out, so that nobody takes a node's port while it is down.
const PORTS: std::ops::Range<u16> = 21_000..29_000;

/// How a node is started. The defaults are those of `varve serve`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Data directory; a temporary one by default.
    pub data: Option<PathBuf>,
    /// More arguments for `varve serve`.
    pub arguments: Vec<String>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
    /// A command that starts it by `exec`, as `prlimit` does.
    pub under: Vec<String>,
}

impl Options {
    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Adds arguments of `varve serve`.
    #[must_use]
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Starts it by a command that takes it as its last arguments.
    #[must_use]
    pub fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// A small log of small files, and quick checkpoints, so that rolls, tiering, cuts and deletion all happen within a test.
    #[must_use]
    pub fn small() -> Self {
        Self::default()
            .env("VARVE_WAL_BYTES_MAX", "16MiB")
            .env("VARVE_WAL_FILE_BYTES", "1MiB")
            .env("VARVE_TIER_MAX_AGE_MS", "2000")
            .env("VARVE_SNAPSHOT_SEGMENTS", "2")
            .env("VARVE_SNAPSHOT_MAX_AGE_MS", "5000")
            .env("VARVE_DELETE_GRACE_MS", "3000")
    }
}

/// A running or stopped node with its folder, ports and log.
#[derive(Debug)]
pub struct Node {
    options: Options,
    child: Option<Child>,
    folder: tempfile::TempDir,
    kafka: SocketAddr,
    admin: SocketAddr,
    process: Arc<AtomicU32>,
}

impl Node {
    /// Starts a node and waits until it is ready.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let mut node = Self::stopped(options);
        node.restart();
        node
    }

    /// A node that is not started yet.
    #[must_use]
    pub fn stopped(options: Options) -> Self {
        let folder = tempfile::Builder::new().prefix("varve-test-").tempdir().unwrap();
        let process = Arc::new(AtomicU32::new(0));
        Self { options, child: None, folder, kafka: free_address(), admin: free_address(), process }
    }

    /// Starts it again on the same data and ports, and waits until it is ready.
    pub fn restart(&mut self) {
        self.launch();
        self.wait_ready();
    }

    /// Waits until a process that was launched is ready.
    pub fn wait_ready(&mut self) {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                panic!("the node ended with {status} before it was ready\n{}", self.log());
            }
            let answer = self.http("/readyz?verbose");
            if answer.as_ref().is_some_and(|(status, _)| *status == 200) {
                return;
            }
            assert!(begin.elapsed() < READY_MAX, "not ready after {READY_MAX:?}: {answer:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts the process and waits for nothing.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "the node is running");
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = match self.options.under.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(tool::varve());
                command
            }
            None => Command::new(tool::varve()),
        };
        command.arg("serve").arg("--data-dir").arg(self.data());
        if !self.options.arguments.iter().any(|argument| argument == "--listen") {
            command.args(["--listen", &self.kafka.to_string()]);
        }
        command.args(["--admin-listen", &self.admin.to_string()]);
        command.args(&self.options.arguments);
        tool::without_our_variables(&mut command).envs(self.options.environment.iter().cloned());
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .current_dir(self.folder.path());
        let child = command.spawn().unwrap();
        self.process.store(child.id(), Ordering::Relaxed);
        self.child = Some(child);
    }

    /// Empties the disk of a node that does not run.
    pub fn wipe(&mut self) {
        assert!(self.child.is_none(), "the node is running");
        fs::remove_dir_all(self.data()).unwrap();
    }

    /// kill -9: the process has no say.
    pub fn kill(&mut self) {
        self.kill_nowait();
        self.reap();
    }

    /// kill -9 of a process that may hang in its disk; [`Node::reap`] must follow. Fine where it ended by itself.
    pub fn kill_nowait(&mut self) {
        self.child.as_mut().expect("the node was started").kill().unwrap();
    }

    /// Waits for the end of what was killed.
    pub fn reap(&mut self) {
        self.child.take().expect("the node was killed").wait().unwrap();
    }

    /// SIGTERM, and the exit status that follows.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = self.child.as_ref().expect("the node is running").id();
        assert!(Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap().success());
        wait_for("the end after SIGTERM", STOP_SECONDS_MAX, || self.exited().is_some());
        self.child.take().expect("it was running").wait().unwrap()
    }

    /// The exit status of a process that ended by itself.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().unwrap())
    }

    /// Waits until the process ends by itself.
    pub fn wait_exit(&mut self, seconds: u64) -> ExitStatus {
        wait_for("the process to end by itself", seconds, || self.exited().is_some());
        self.child.take().expect("it was running").wait().unwrap()
    }

    /// Whether a process was started and not ended by this side.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Sends a signal: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let process = self.pid().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &process]).status().unwrap().success());
    }

    /// Where the number of its process stands, over all its lives.
    #[must_use]
    pub fn process(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.process)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node is running").id()
    }

    /// What clients are given.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.kafka.to_string()
    }

    /// The address of the Kafka listener.
    #[must_use]
    pub const fn kafka(&self) -> SocketAddr {
        self.kafka
    }

    /// The address of the admin listener.
    #[must_use]
    pub const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.options.data.clone().unwrap_or_else(|| self.folder.path().join("data"))
    }

    /// A folder that goes with the node.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Changes how it is started next time.
    pub const fn options(&mut self) -> &mut Options {
        &mut self.options
    }

    /// GET on the admin listener: status and body, or nothing where nobody answers.
    #[must_use]
    pub fn http(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.admin, Duration::from_secs(2)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// The sum of a metric's samples, zero where there are none.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        self.metric_of(name, "")
    }

    /// The same of those whose labels contain `label`.
    #[must_use]
    pub fn metric_of(&self, name: &str, label: &str) -> f64 {
        let (_, body) = self.http("/metrics").unwrap_or_default();
        let samples = body.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        let samples = samples.filter(|line| line.contains(label));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Bytes that a folder of the data directory takes on disk.
    #[must_use]
    pub fn disk_bytes(&self, folder: &str) -> u64 {
        bytes_below(&self.data().join(folder))
    }

    /// What the process wrote, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("varve.out")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "--- the node's last lines\n{}\n---",
                lines[lines.len().saturating_sub(120)..].join("\n")
            );
        }
    }
}

/// Allocated bytes: a preallocated file counts whole, a hole not at all.
fn bytes_below(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

/// A loopback address that nobody uses, and that the kernel will not hand to others.
#[must_use]
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let width = PORTS.end - PORTS.start;
    // Far apart for processes whose ids are close: two that are asked at once would both find the same port free.
    let first = (std::process::id().wrapping_mul(509) % u32::from(width)) as u16;
    for _ in 0..width {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % width;
        let address = SocketAddr::from(([127, 0, 0, 1], PORTS.start + (first + step) % width));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port in {PORTS:?}");
}
