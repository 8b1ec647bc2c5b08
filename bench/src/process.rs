//! A broker under measure: the release binary as a process, on free loopback ports, over a directory of its own.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use crate::wire;

/// How long a broker may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running broker; killed when dropped.
pub struct Broker {
    child: Child,
    /// Where clients connect.
    pub address: SocketAddr,
    admin: SocketAddr,
    data: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Broker {
    /// Starts `varve serve` over `data` with further arguments and variables, and waits until it answers connections.
    pub fn start_with(
        binary: &Path,
        data: &Path,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> anyhow::Result<Self> {
        let mut broker =
            Self::launch(binary, data, (free_address()?, free_address()?), arguments, environment)?;
        broker.wait_until_it_listens()?;
        Ok(broker)
    }

    /// Starts a process, and waits for nothing.
    pub fn launch(
        binary: &Path,
        data: &Path,
        (address, admin): (SocketAddr, SocketAddr),
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(data)?;
        let log = fs::OpenOptions::new().create(true).append(true).open(data.with_extension("log"))?;
        let child = Command::new(binary)
            .arg("serve")
            .arg("--data-dir")
            .arg(data)
            .args(["--listen", &address.to_string(), "--admin-listen", &admin.to_string()])
            .args(&arguments)
            // It names the S3 server's program for us; to a broker it is a key that nobody knows.
            .env_remove("VARVE_TOOLS")
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        Ok(Self { child, address, admin, data: data.to_owned(), arguments, environment })
    }

    /// Starts it again over the same data at the same addresses, and waits until it listens.
    pub fn again(&mut self, binary: &Path) -> anyhow::Result<()> {
        let places = (self.address, self.admin);
        *self = Self::launch(binary, &self.data, places, self.arguments.clone(), self.environment.clone())?;
        self.wait_until_it_listens()
    }

    /// Waits until somebody takes connections there.
    pub fn wait_until_it_listens(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "the broker ended with {status}; its log: {}",
                    self.data.with_extension("log").display()
                );
            }
            if begin.elapsed() > START_LIMIT {
                bail!("the broker does not listen");
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(status.success(), "kill answered {status}");
        self.child.wait()?;
        Ok(())
    }

    /// Starts again over the same data; the seconds until a partition took a batch.
    pub fn restart(&mut self, binary: &Path, topic: &str, partition: i32) -> anyhow::Result<f64> {
        let begin = Instant::now();
        let (arguments, environment) = (self.arguments.clone(), self.environment.clone());
        *self = Self::start_with(binary, &self.data, arguments, environment)?;
        let mut client = wire::Client::connect(self.address)?;
        let mut frame = wire::produce(topic, &[partition], &wire::batch(1, 100));
        while let Err(error) = wire::check_produced(client.call(&mut frame)?) {
            if begin.elapsed() > START_LIMIT {
                return Err(error.context("restart"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(begin.elapsed().as_secs_f64())
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The sum of a metric's samples whose labels hold `label`, zero where there are none.
    pub fn metric(&self, name: &str, label: &str) -> anyhow::Result<f64> {
        let mut stream = TcpStream::connect(self.admin)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let samples = answer.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        let samples = samples.filter(|line| line.contains(label));
        Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Seconds of processor time used so far, at the kernel's hundred ticks a second.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| anyhow::Ok(fields.get(at).context("a short stat")?.parse::<f64>()?);
        // utime and stime are fields 14 and 15; the name, which may hold blanks, is the second.
        Ok((ticks(11)? + ticks(12)?) / 100.0)
    }

    /// Resident memory in bytes, as the kernel counts it.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("no figure")?.parse::<u64>()? * 1024)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may be gone already: that is what was wanted.
        drop(self.kill());
    }
}

/// A loopback port that was free a moment ago.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// So many, for processes that come back to them: below those that the kernel gives to connections meanwhile.
pub fn lasting_addresses(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    const PORTS: std::ops::Range<u16> = 12_000..32_000;
    let first = PORTS.start + (std::process::id() % u32::from(PORTS.end - PORTS.start)) as u16;
    let addresses =
        (first..PORTS.end).chain(PORTS.start..first).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let free: Vec<_> = addresses.filter(|address| TcpListener::bind(address).is_ok()).take(count).collect();
    ensure!(free.len() == count, "no {count} ports are free");
    Ok(free)
}
