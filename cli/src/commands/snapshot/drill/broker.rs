//! The broker of a drill: a process on loopback that ends with this one.

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use varve_broker::config::Sources;

use crate::{
    client::{Client, Missing},
    failure::Failure,
};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long it may take to serve every partition.
const PATIENCE: Duration = Duration::from_secs(300);

/// See the module.
pub struct Broker {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Broker {
    #[allow(clippy::disallowed_methods, reason = "a command that starts a broker")]
    pub fn start(data: &Path, scratch: &Path, sources: &Sources) -> Result<Self, Failure> {
        let failed = |why: std::io::Error| Failure::failed(format!("the drill's broker: {why}"), "try again");
        let log = scratch.join("broker.log");
        let out = File::create(&log).map_err(failed)?;
        let [address, peers, admin] = free_addresses().map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        for name in sources.environment.keys().filter(|name| name.starts_with("VARVE_")) {
            command.env_remove(name);
        }
        command.arg("dev-node");
        let set = [
            ("data.dir", data.display().to_string()),
            ("listen", address.to_string()),
            ("peer.listen", peers.to_string()),
            ("admin.listen", admin.to_string()),
        ];
        for (key, text) in set {
            command.arg("--set").arg(format!("{key}={text}"));
        }
        command.stdin(Stdio::null()).stdout(out.try_clone().map_err(failed)?).stderr(out);
        Ok(Self { child: command.spawn().map_err(failed)?, address, log })
    }

    /// Where it listens.
    fn seeds(&self) -> Vec<String> {
        vec![self.address.to_string()]
    }

    /// Waits until every partition has a leader; clients' seeds then.
    pub async fn ready(&mut self) -> Result<Vec<String>, Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            let seeds = self.seeds();
            let look = move || Client::new(seeds).metadata(None, Missing::Report);
            let told = tokio::task::spawn_blocking(look).await.expect("it does not panic");
            let leads = |topic: &crate::client::Topic| {
                topic.error.is_none() && topic.partitions.values().all(|at| at.leader >= 0)
            };
            if told.is_ok_and(|cluster| cluster.topics.iter().all(leads)) {
                return Ok(self.seeds());
            }
            if Instant::now() > until || self.has_ended() {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                let last = said.lines().last().unwrap_or("nothing").to_owned();
                let what =
                    format!("the restored broker does not serve every partition; it said last: {last}");
                return Err(Failure::failed(what, "restore by hand to look at it: `varve restore --to`"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Its directory goes with it: nothing has to be written down first.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three that nobody listens on now.
#[allow(clippy::disallowed_types, reason = "the kernel alone knows which ports are free")]
fn free_addresses() -> std::io::Result<[SocketAddr; 3]> {
    let held = [0; 3].map(|_| std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)));
    let [a, b, c] = held;
    let (a, b, c) = (a?, b?, c?);
    Ok([a.local_addr()?, b.local_addr()?, c.local_addr()?])
}
