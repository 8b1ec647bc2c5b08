//! `dev`: a broker, or a cluster of brokers, in a directory that goes with the process.
//!
//! The nodes of a cluster are processes of their own, so that one can be killed and started again. They end when this
//! one does, however it ends.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::runtime::Runtime;
use varve_broker::config::{Config, Sources};

use super::serve::run_broker;
use crate::{
    args::{DevFlags, ServerFlags},
    client::{Client, Missing},
    failure::Failure,
    output,
    signals::Signals,
};

/// Between the addresses of one node of the cluster and those of the next.
const PORTS_APART: u16 = 100;
/// How often the nodes are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long a cluster may take to form, and its nodes to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// As `serve`, in a temporary directory.
pub fn run(flags: DevFlags, sources: Sources) -> Result<(), Failure> {
    let directory = tempfile::Builder::new()
        .prefix("varve-dev-")
        .tempdir()
        .map_err(|cause| Failure::failed(format!("temporary directory: {cause}"), "set TMPDIR to one"))?;
    let root = directory.path().display().to_string();
    let outcome = if flags.nodes == 1 {
        one(flags.server, sources, &root)
    } else {
        several(&flags, sources, directory.path())
    };
    directory
        .close()
        .map_err(|cause| Failure::failed(format!("{root}: {cause}"), "remove the directory by hand"))?;
    outcome
}

fn one(mut flags: ServerFlags, sources: Sources, root: &str) -> Result<(), Failure> {
    flags.values.push(("data.dir".into(), root.to_owned()));
    let config = flags.load(sources)?;
    output::text(&banner(root, &first_address(&config).map_or_else(String::new, client_address)))?;
    run_broker(config)
}

/// A node of `dev --nodes`: it ends with the process that started it.
pub fn node(flags: &ServerFlags, sources: Sources) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|cause| Failure::failed(format!("prctl: {cause}"), "run `varve serve` instead"))?;
    run_broker(flags.load(sources)?)
}

/// A node that was started.
struct Node {
    number: u16,
    address: SocketAddr,
    child: Child,
    ended: Option<ExitStatus>,
}

fn several(flags: &DevFlags, sources: Sources, root: &Path) -> Result<(), Failure> {
    let config = flags.server.load(sources)?;
    let plans = (0..flags.nodes).map(|number| plan(&config, flags, number, root));
    let plans = plans.collect::<Option<Vec<_>>>().ok_or_else(|| {
        Failure::usage("the nodes of a cluster listen on ports 100 apart: --listen needs lower ones")
    })?;
    // Before the first node is started: nothing is left behind, whenever one comes.
    let mut summons = Summons::new()?;
    let mut nodes = plans.iter().map(|plan| plan.start(root)).collect::<Result<Vec<_>, _>>()?;
    let outcome = formed(&mut nodes, root, &mut summons).and_then(|is_formed| {
        if !is_formed {
            return Ok(());
        }
        output::text(&cluster_banner(&nodes, root))?;
        attend(&mut nodes, &mut summons)
    });
    end(&mut nodes);
    outcome
}

/// How one node is started.
struct Plan {
    number: u16,
    address: SocketAddr,
    flags: ServerFlags,
}

/// `None` where a port would be too large.
fn plan(config: &Config, flags: &DevFlags, number: u16, root: &Path) -> Option<Plan> {
    let apart = |address: SocketAddr, of: u16| {
        let port = address.port().checked_add(PORTS_APART.checked_mul(of)?)?;
        Some(SocketAddr::new(address.ip(), port))
    };
    let address = apart(first_address(config)?, number)?;
    let seeds: Option<Vec<String>> =
        (0..flags.nodes).map(|of| Some(client_address(apart(config.peer_listen, of)?))).collect();
    let data = root.join(format!("node-{}", number + 1));
    let mut own = flags.server.clone();
    // Behind what was said before: a bucket that somebody named stays.
    own.values.insert(0, ("object.store".into(), root.join("objects").display().to_string()));
    own.values.extend([
        ("data.dir".into(), data.display().to_string()),
        ("node.id".into(), (number + 1).to_string()),
        ("listen".into(), address.to_string()),
        ("advertise".into(), client_address(address)),
        ("peer.listen".into(), apart(config.peer_listen, number)?.to_string()),
        ("admin.listen".into(), apart(config.admin_listen, number)?.to_string()),
        ("seeds".into(), seeds?.join(",")),
    ]);
    Some(Plan { number: number + 1, address, flags: own })
}

impl Plan {
    fn arguments(&self) -> Vec<String> {
        let file = self.flags.file.iter().flat_map(|file| ["--config".into(), file.display().to_string()]);
        let values = self.flags.values.iter();
        file.chain(values.flat_map(|(key, text)| ["--set".into(), format!("{key}={text}")])).collect()
    }

    #[allow(clippy::disallowed_methods, reason = "the one command that starts nodes of a cluster")]
    fn start(&self, root: &Path) -> Result<Node, Failure> {
        let failed =
            |cause: std::io::Error| Failure::failed(format!("node {}: {cause}", self.number), "try again");
        let log = File::create(log_of(root, self.number)).map_err(failed)?;
        let child = Command::new(std::env::current_exe().map_err(failed)?)
            .arg("dev-node")
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        Ok(Node { number: self.number, address: self.address, child, ended: None })
    }
}

fn log_of(root: &Path, number: u16) -> std::path::PathBuf {
    root.join(format!("node-{number}.log"))
}

/// Who may ask this process to end, and is listened to between looks at the nodes.
struct Summons {
    runtime: Runtime,
    signals: Signals,
}

impl Summons {
    fn new() -> Result<Self, Failure> {
        let failed = |cause: std::io::Error| Failure::failed(cause, "try again");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let signals = runtime.block_on(async { Signals::new() }).map_err(failed)?;
        Ok(Self { runtime, signals })
    }

    /// Whether a signal comes within a look's time.
    fn came(&mut self) -> bool {
        let Self { runtime, signals } = self;
        runtime.block_on(async {
            // A clock that is made now ticks at once, and then after its time.
            let mut look = tokio::time::interval(LOOK);
            look.tick().await;
            tokio::select! {
                _ = signals.come() => true,
                _ = look.tick() => false,
            }
        })
    }
}

/// Waits until a node names all of them; not when it was asked to end before.
fn formed(nodes: &mut [Node], root: &Path, summons: &mut Summons) -> Result<bool, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(node) = nodes.iter_mut().find_map(|node| node.has_ended().then_some(node.number)) {
            let said = std::fs::read_to_string(log_of(root, node)).unwrap_or_default();
            let last = said.lines().last().unwrap_or("nothing").to_owned();
            return Err(Failure::failed(format!("node {node} ended, and said: {last}"), "see above"));
        }
        let named = nodes.iter().map(|node| client_address(node.address)).collect();
        if Client::new(named)
            .metadata(Some(&[]), Missing::Report)
            .is_ok_and(|cluster| cluster.brokers.len() == nodes.len())
        {
            return Ok(true);
        }
        if Instant::now() > until {
            return Err(Failure::failed("the nodes did not form a cluster", "see their logs"));
        }
        if summons.came() {
            return Ok(false);
        }
    }
}

impl Node {
    /// Whether it has ended, now or before.
    fn has_ended(&mut self) -> bool {
        self.ended = self.ended.or_else(|| self.child.try_wait().unwrap_or(None));
        self.ended.is_some()
    }
}

/// Until a signal comes, or no node is left.
fn attend(nodes: &mut [Node], summons: &mut Summons) -> Result<(), Failure> {
    while !summons.came() {
        for node in nodes.iter_mut().filter(|node| node.ended.is_none()) {
            if node.has_ended() {
                let how = node.ended.map_or_else(String::new, |status| status.to_string());
                output::text(&format!("node {} ended: {how}\n", node.number))?;
            }
        }
        if nodes.iter().all(|node| node.ended.is_some()) {
            return Err(Failure::failed("no node is left", "see above"));
        }
    }
    Ok(())
}

/// Asks every node to end, and sees to it.
fn end(nodes: &mut [Node]) {
    let until = Instant::now() + PATIENCE;
    for node in nodes.iter_mut().filter(|node| node.ended.is_none()) {
        if let Some(pid) = i32::try_from(node.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
    for node in nodes {
        while !node.has_ended() {
            if Instant::now() > until {
                let _ = node.child.kill();
                let _ = node.child.wait();
                break;
            }
            thread::sleep(LOOK);
        }
    }
}

fn first_address(config: &Config) -> Option<SocketAddr> {
    config.listeners.first().map(|listener| listener.address)
}

/// What a client on this machine connects to.
fn client_address(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address.to_string()
}

fn cluster_banner(nodes: &[Node], root: &Path) -> String {
    let mut text = String::new();
    for node in nodes {
        let (number, address, pid) = (node.number, client_address(node.address), node.child.id());
        text += &format!("node {number} on {address}, pid {pid}, log {}\n", log_of(root, number).display());
    }
    let all: Vec<String> = nodes.iter().map(|node| client_address(node.address)).collect();
    text + "\n" + &banner(&root.display().to_string(), &all.join(","))
}

fn banner(data: &str, addresses: &str) -> String {
    format!(
        "Everything is in {data} and goes when this process ends.\n\
         \n  varve topic create hello -b {addresses}\
         \n  echo 'hello, world' | varve produce hello -b {addresses}\
         \n  varve consume hello -b {addresses} --exit\
         \n  varve topic describe-storage hello -b {addresses}\
         \n  kcat -b {addresses} -L\n\n"
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn flags(arguments: &[&str]) -> DevFlags {
        match Cli::try_parse_from(arguments).unwrap().command {
            Some(Command::Dev(flags)) => flags,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_banner_of_dev_holds_commands_that_parse() {
        let text = banner("/tmp/x", &client_address("0.0.0.0:9092".parse().unwrap()));
        let commands: Vec<&str> =
            text.lines().filter_map(|line| line.find("varve ").map(|at| &line[at..])).collect();
        assert_eq!(commands.len(), 4);
        for command in commands {
            Cli::try_parse_from(command.split_whitespace()).unwrap();
            assert!(command.contains("127.0.0.1:9092"));
        }
    }

    #[test]
    fn nodes_of_a_cluster_have_addresses_of_their_own_and_one_bucket() {
        let flags = flags(&["varve", "dev", "--nodes=3", "--set", "num.partitions=7"]);
        let config = flags.server.load(Sources::default()).unwrap();
        let plan = plan(&config, &flags, 2, Path::new("/x")).unwrap();
        let mut arguments = vec!["varve".to_owned(), "dev-node".to_owned()];
        arguments.extend(plan.arguments());
        let Some(Command::DevNode(own)) = Cli::try_parse_from(arguments).unwrap().command else { panic!() };
        let config = own.load(Sources::default()).unwrap();
        assert_eq!((config.node.get(), config.listeners[0].address.port()), (3, 9292));
        let seeds = ["127.0.0.1:9093", "127.0.0.1:9193", "127.0.0.1:9293"].map(str::to_owned);
        assert_eq!(config.seeds, varve_broker::config::Seeds::Named(seeds.into()));
        assert_eq!(config.peer_address().as_deref(), Some("127.0.0.1:9293"));
        assert!(config.has_common_store() && config.topics.partitions == 7);
    }
}
