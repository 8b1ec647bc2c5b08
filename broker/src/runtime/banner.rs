//! What a person sees when the broker has started: where it listens, where its data is, and how durable it is.

use std::net::SocketAddr;

use varve_wal::Recovery;

use super::identity::Identity;
use crate::config::Config;

/// What the log held at the start.
#[derive(Clone, Copy, Debug)]
pub struct Recovered {
    groups: usize,
    torn_bytes: u64,
    damaged: usize,
}

impl Recovered {
    /// Sums up a recovery.
    #[must_use]
    pub fn of(recovery: &Recovery) -> Self {
        let damaged = recovery.groups.values().filter(|group| group.damage.is_some()).count();
        Self { groups: recovery.groups.len(), torn_bytes: recovery.torn_bytes, damaged }
    }
}

/// Prints the banner and logs the same facts.
pub fn print(config: &Config, store: &str, identity: &Identity, admin: SocketAddr, recovered: &Recovered) {
    let listeners: Vec<String> =
        config.listeners.iter().map(|listener| format!("{} ({})", listener.address, listener.name)).collect();
    let bootstrap =
        config.listeners.first().map_or_else(String::new, |listener| listener.address.to_string());
    let data = config.data_directory.display();
    // Of a topic as it is made where nobody says how many replicas.
    let replicas = config.seeds.count().clamp(1, config.topics.replication_factor.max(1) as usize);
    let quorum = format!("{} of {replicas}", replicas / 2 + 1);
    println!("varve {} · node {} of cluster {}", env!("CARGO_PKG_VERSION"), identity.node, identity.cluster);
    println!("  listener      {}", listeners.join(", "));
    println!("  admin         http://{admin} (metrics, livez, readyz)");
    println!("  data          {data}");
    println!("  object store  {store}");
    println!(
        "  durability    acknowledged = fsynced by a quorum ({quorum} voters); acks=1 waits like acks=all"
    );
    println!("  try           echo hello | kcat -P -b {bootstrap} -t greetings");
    println!("                kcat -C -b {bootstrap} -t greetings -e");
    tracing::info!(
        listeners = listeners.join(","), %admin, %data, store, cluster = %identity.cluster, node = %identity.node,
        groups = recovered.groups, torn_bytes = recovered.torn_bytes, damaged_groups = recovered.damaged,
        durability = format!("fsync before acknowledgement, quorum {quorum}"), "broker is up"
    );
}
