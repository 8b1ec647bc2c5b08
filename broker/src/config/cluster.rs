//! Several nodes: who the others are, and where this one is reached.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Config, ConfigError, ObjectStore, Reader, value};

/// The nodes that form a cluster, as all of them name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seeds {
    /// Each by `host:port`; none for a cluster of one.
    Named(BTreeSet<String>),
    /// Those that a service's SRV records name.
    Service {
        /// The service.
        name: String,
        /// So many of them form the cluster.
        nodes: usize,
    },
}

impl Seeds {
    /// How many nodes form the cluster; 0 for a cluster of one.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Named(seeds) => seeds.len(),
            Self::Service { nodes, .. } => *nodes,
        }
    }
}

/// More do not found a cluster: the metadata has three voters, or five.
const SERVICE_NODES_MAX: usize = 15;
const DNS_PORT: u16 = 53;

/// What a service's name begins with.
const SERVICE: &str = "dns+srv://";

impl Reader<'_> {
    pub(super) fn leader_return(&self) -> Option<Duration> {
        let patience = self.number("leader.imbalance.check.interval.seconds");
        self.switch("auto.leader.rebalance.enable").then(|| Duration::from_secs(patience.into()))
    }

    pub(super) fn seeds(&self) -> Result<Seeds, ConfigError> {
        if let Some(service) = self.text("seeds").strip_prefix(SERVICE) {
            return self.service(service);
        }
        let seed = |item: &str| {
            let (host, port) = value::host_port(item)
                .ok_or_else(|| self.invalid("seeds", format!("{item}: expected host:port")))?;
            Ok(format_address(&host, port))
        };
        self.list("seeds").map(seed).collect::<Result<_, _>>().map(Seeds::Named)
    }

    fn service(&self, text: &str) -> Result<Seeds, ConfigError> {
        let expected = "expected dns+srv://name?nodes=3 and nothing else, with the number of nodes that form the cluster: DNS fills while they start";
        let read = || {
            let (name, nodes) = text.split_once("?nodes=")?;
            let nodes = nodes.parse().ok().filter(|nodes| (1..=SERVICE_NODES_MAX).contains(nodes))?;
            let is_name = !name.is_empty() && !name.contains(['/', ',', '?', '&', ' ']);
            is_name.then(|| Seeds::Service { name: name.to_owned(), nodes })
        };
        read().ok_or_else(|| self.invalid("seeds", expected.to_owned()))
    }

    pub(super) fn dns_server(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let Some(text) = self.list("dns.server").next() else { return Ok(None) };
        let address = value::socket(text).or_else(|| Some(SocketAddr::new(text.parse().ok()?, DNS_PORT)));
        let invalid = || self.invalid("dns.server", format!("{text}: expected an address, or address:port"));
        address.map(Some).ok_or_else(invalid)
    }

    pub(super) fn peer_advertise(&self) -> Result<Option<(String, u16)>, ConfigError> {
        let Some(item) = self.list("peer.advertise").next() else { return Ok(None) };
        let address = value::host_port(item);
        address.map(Some).ok_or_else(|| self.invalid("peer.advertise", format!("{item}: expected host:port")))
    }
}

impl Config {
    /// Whether this node is, or will be, one of several.
    #[must_use]
    pub fn is_clustered(&self) -> bool {
        self.seeds.count() > 0
    }

    /// Whether there is an object store that every node of the cluster reaches. An embedded one belongs to its node.
    #[must_use]
    pub fn has_common_store(&self) -> bool {
        !self.is_clustered() || self.object_store != ObjectStore::Embedded
    }

    /// Where other nodes reach this one, `host:port`; `None` where nothing says so.
    #[must_use]
    pub fn peer_address(&self) -> Option<String> {
        let port = self.peer_listen.port();
        let named = self.listeners.iter().find_map(|listener| listener.advertised.as_ref());
        if let Some((host, port)) = &self.peer_advertise {
            return Some(format_address(host, *port));
        }
        if let Some((host, _)) = named {
            return Some(format_address(host, port));
        }
        (!self.peer_listen.ip().is_unspecified()).then(|| self.peer_listen.to_string())
    }

    pub(super) fn refuse_unreachable_addresses(&self) -> Result<(), ConfigError> {
        let unspecified = |host: &str| host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
        let bad = self
            .listeners
            .iter()
            .filter_map(|listener| listener.advertised.as_ref())
            .find(|(host, _)| unspecified(host));
        match bad {
            None => Ok(()),
            Some((host, _)) => Err(self.invalid(
                "advertise",
                format!("nobody can connect to {host}: advertise a name or address of this machine, or leave it empty"),
            )),
        }
    }

    pub(super) fn refuse_lonely_clusters(&self) -> Result<(), ConfigError> {
        if !self.is_clustered() {
            return Ok(());
        }
        let nowhere =
            |name, what| Err(self.invalid(name, format!("other nodes must be told where {what}: host:port")));
        let hidden = self
            .listeners
            .iter()
            .any(|listener| listener.advertised.is_none() && listener.address.ip().is_unspecified());
        if hidden {
            return nowhere("advertise", "clients reach this one");
        }
        if self.peer_address().is_none() {
            return nowhere("peer.advertise", "they reach this one");
        }
        Ok(())
    }
}

/// An address as it is written: IPv6 in brackets.
fn format_address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
