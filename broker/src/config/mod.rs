//! Configuration: raw text from four layers turned into validated values, once.
//!
//! ```text
//! defaults < TOML file < environment VARVE_… < flags  ->  Layers (text + origin)  ->  Config (values)
//! ```
//! [`keys`] is the one table: name, kind, default, documentation. [`layers`] says which text a key has and where it
//! came from; nothing unknown is skipped. [`Config::build`] parses the texts and refuses pairs that would hurt: listening
//! beyond loopback without saying so, advertising an address that nobody can connect to. [`topic`] is the table of topic
//! configurations under Kafka's names; [`print`] writes `config print`, `docs/config.md` and the commented file.
//!
//! This room is the only reader of the environment (but for the credentials chain in `objects`), and of the profiles of the
//! AWS command line ([`profile`]).

pub mod alter;
mod bucket;
mod cluster;
pub mod dynamic;
mod effective;
mod fetch;
mod groups;
pub mod import;
pub mod keys;
pub mod layers;
pub mod memory;
mod orphans;
mod peer_tls;
pub mod print;
mod profile;
mod secret;
pub mod topic;
pub mod value;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use varve_common::NodeId;
use varve_objects::s3::Credentials;

pub use self::{
    bucket::S3,
    cluster::Seeds,
    fetch::{Fetch, FollowerRead},
    groups::{GroupTopic, Groups},
    layers::{LayerError, Layers, Origin, Sources},
    memory::Budgets,
    orphans::{Orphans, OrphansMode},
    peer_tls::{PeerPem, PeerTls, PeerTlsError},
    secret::{REDACTED, Secret},
    value::Share,
};

/// A configuration that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// One layer is wrong in itself.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A text that is not what its key means.
    #[error("{name}: {text:?} ({origin}): {why}")]
    Invalid {
        /// The key.
        name: &'static str,
        /// Its text.
        text: String,
        /// Who says so.
        origin: Origin,
        /// What is wrong.
        why: String,
    },
}

/// A Kafka listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name, `kafka` where none is given.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What clients on it are told; `None`: the address that they connected to.
    pub advertised: Option<(String, u16)>,
}

/// Where the tier lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectStore {
    /// In the data directory.
    Embedded,
    /// In a directory of its own.
    Directory(PathBuf),
    /// In a bucket.
    S3 {
        /// The bucket.
        bucket: String,
        /// What every key begins with, without slashes at its ends; may be empty.
        prefix: String,
    },
}

/// When snapshots are taken and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// After this many tiered segments.
    pub segments: u32,
    /// At least this often while a partition changes.
    pub age_max: Duration,
    /// From this share of the log's limit on.
    pub wal_percent: u8,
    /// How many of the newest are kept.
    pub keep: u32,
    /// gzip instead of zstd.
    pub gzip: bool,
}

/// How topics come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicCreation {
    /// Partitions where nobody says how many.
    pub partitions: i32,
    /// Replicas where nobody says how many.
    pub replication_factor: i16,
    /// Whether asking for a topic creates it.
    pub auto_create: bool,
}

/// Bounds on connections and requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// In all.
    pub total_max: usize,
    /// From one address.
    pub per_address_max: usize,
    /// Without a request for so long: closed.
    pub idle_max: Duration,
    /// The largest request.
    pub frame_bytes_max: usize,
}

/// Everything that the process needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where local data lives.
    pub data_directory: PathBuf,
    /// Who this node is.
    pub node: NodeId,
    /// Where it stands.
    pub rack: Option<String>,
    /// Where Kafka clients connect.
    pub listeners: Vec<Listener>,
    /// Where other nodes connect.
    pub peer_listen: SocketAddr,
    /// Where metrics and health are served.
    pub admin_listen: SocketAddr,
    /// What other nodes are told to connect to, where that is said.
    pub peer_advertise: Option<(String, u16)>,
    /// What this node proves itself by among them; `None` where whoever reaches `peer_listen` is believed.
    pub peer_tls: Option<PeerTls>,
    /// The nodes that form the cluster; empty for a cluster of one.
    pub seeds: Seeds,
    /// Whether nodes that a service names may found a cluster without an object store that all share.
    pub found: bool,
    /// Who is asked for a service's nodes; `None`: whom the machine asks.
    pub dns_server: Option<SocketAddr>,
    /// Where the tier lives.
    pub object_store: ObjectStore,
    /// How a bucket is reached.
    pub s3: S3,
    /// How fast the object store is asked.
    pub store_budget: varve_objects::BudgetOptions,
    /// Limit of the write-ahead log; [`Config::wal_bytes_max`] resolves it.
    pub wal_bytes: Share,
    /// Size of one log file.
    pub wal_file_bytes: u64,
    /// Limit of log and local segments; [`Config::hot_bytes_max`] resolves it.
    pub hot_bytes: Share,
    /// How long a record may wait for its upload.
    pub tier_age_max: Duration,
    /// Bytes per second, each way, of what moves between nodes beside logs.
    pub move_rate: u64,
    /// Within what everything is read again; `None` for never.
    pub scrub_interval: Option<Duration>,
    /// How many bytes of it per second at most.
    pub scrub_rate: u64,
    /// When snapshots are taken.
    pub snapshot: Snapshot,
    /// How often retention looks at a partition.
    pub retention_interval: Duration,
    /// How long objects stay that nothing needs any more.
    pub delete_grace: Duration,
    /// Objects that nothing names.
    pub orphans: Orphans,
    /// Entries in a manifest root before they are folded.
    pub manifest_fan_out: u32,
    /// Memory, and who may hold how much of it.
    pub memory: Budgets,
    /// Disk for them; [`Config::cold_cache_disk_bytes`] resolves it.
    pub cold_cache_disk: Share,
    /// How topics come to be.
    pub topics: TopicCreation,
    /// How long a preferred replica must have kept up before it leads again; `None`: it never does by itself.
    pub leader_return: Option<Duration>,
    /// Groups of consumers.
    pub groups: Groups,
    /// What topics inherit from this broker.
    pub topic_defaults: topic::Defaults,
    /// Bounds on connections.
    pub connections: Connections,
    /// Bounds on fetches.
    pub fetch: Fetch,
    /// How log lines look: `auto`, `pretty`, `logfmt`, `json`.
    pub log_format: String,
    /// Which are written.
    pub log_filter: String,
    /// Every key's text with its origin, for `config print` and DescribeConfigs.
    pub layers: Layers,
}

const WAL_BYTES_AUTO_MAX: u64 = 8 << 30;
const COLD_CACHE_DISK_AUTO_MAX: u64 = 4 << 30;
/// Less than this holds no useful tail.
const WAL_BYTES_MIN: u64 = 16 << 20;

impl Config {
    /// Reads all layers.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut layers = Layers::merge(sources)?;
        let mut credentials = Credentials::Chain;
        if matches!(Reader(&layers).object_store()?, ObjectStore::S3 { .. }) {
            credentials = profile::lay(&mut layers, &sources.environment)?;
        }
        let mut config = Self::build(layers, sources.memory)?;
        config.s3.credentials = credentials;
        Ok(config)
    }

    /// Turns texts into values, on a machine with so much memory.
    pub fn build(layers: Layers, memory: Option<u64>) -> Result<Self, ConfigError> {
        let read = Reader(&layers);
        let config = Self {
            data_directory: read.non_empty("data.dir")?.into(),
            node: NodeId::new(read.number("node.id")).expect("the table bounds node.id"),
            rack: Some(read.text("broker.rack")).filter(|rack| !rack.is_empty()).map(str::to_owned),
            listeners: read.listeners()?,
            peer_listen: read.socket("peer.listen")?,
            peer_advertise: read.peer_advertise()?,
            peer_tls: read.peer_tls()?,
            admin_listen: read.socket("admin.listen")?,
            seeds: read.seeds()?,
            found: read.switch("found"),
            dns_server: read.dns_server()?,
            object_store: read.object_store()?,
            s3: read.s3()?,
            store_budget: read.store_budget(),
            wal_bytes: read.share("varve.wal.bytes.max"),
            wal_file_bytes: read.bytes("varve.wal.file.bytes"),
            hot_bytes: read.share("varve.hot.bytes.max"),
            tier_age_max: read.span("varve.tier.max.age.ms"),
            move_rate: read.bytes("varve.move.bytes.per.second"),
            scrub_interval: value::span(read.text("varve.scrub.interval.ms")),
            scrub_rate: read.bytes("varve.scrub.rate.bytes"),
            snapshot: read.snapshot(),
            retention_interval: read.span("log.retention.check.interval.ms"),
            delete_grace: read.span("varve.delete.grace.ms"),
            orphans: read.orphans(),
            manifest_fan_out: read.number("varve.manifest.fan.out"),
            memory: Budgets::configured(|name| read.share(name), memory),
            cold_cache_disk: value::share_or_none(read.text("varve.cold.cache.disk.bytes"))
                .expect("the table checked that this is a share"),
            topics: TopicCreation {
                partitions: read.number("num.partitions") as i32,
                replication_factor: read.number("default.replication.factor") as i16,
                auto_create: read.switch("auto.create.topics.enable"),
            },
            leader_return: read.leader_return(),
            groups: read.groups(),
            topic_defaults: topic::Defaults::from_layers(&layers),
            connections: read.connections(),
            fetch: read.fetch(),
            log_format: read.text("log.format").to_owned(),
            log_filter: read.text("log.filter").to_owned(),
            layers: layers.clone(),
        };
        config.refuse_dangerous_pairs()?;
        Ok(config)
    }

    /// The write-ahead log's limit on a disk of this size.
    #[must_use]
    pub fn wal_bytes_max(&self, disk_bytes: u64) -> u64 {
        let floor = 4 * self.wal_file_bytes;
        self.wal_bytes.resolve(disk_bytes, |disk| (disk / 10).min(WAL_BYTES_AUTO_MAX).max(floor))
    }

    /// The limit of log and local segments together on a disk of this size.
    #[must_use]
    pub fn hot_bytes_max(&self, disk_bytes: u64) -> u64 {
        self.hot_bytes.resolve(disk_bytes, |disk| disk / 2)
    }

    /// What cold chunks may take on a disk of this size.
    #[must_use]
    pub fn cold_cache_disk_bytes(&self, disk_bytes: u64) -> u64 {
        self.cold_cache_disk.resolve(disk_bytes, |disk| match self.object_store {
            ObjectStore::S3 { .. } => (disk / 20).min(COLD_CACHE_DISK_AUTO_MAX),
            // They would be on a disk of this machine twice.
            ObjectStore::Embedded | ObjectStore::Directory(_) => 0,
        })
    }

    fn refuse_dangerous_pairs(&self) -> Result<(), ConfigError> {
        self.refuse_open_listeners()?;
        self.refuse_unreachable_addresses()?;
        self.refuse_lonely_clusters()?;
        if let Some((name, unfit)) = effective::unfit(&self.layers) {
            return Err(self.invalid(name, unfit.to_string()));
        }
        if let Share::Bytes(bytes) = self.wal_bytes
            && bytes < WAL_BYTES_MIN
        {
            return Err(
                self.invalid("varve.wal.bytes.max", format!("must be at least {} MiB", WAL_BYTES_MIN >> 20))
            );
        }
        Ok(())
    }

    fn refuse_open_listeners(&self) -> Result<(), ConfigError> {
        if Reader(&self.layers).switch("insecure") {
            return Ok(());
        }
        let open = |address: &SocketAddr| !address.ip().is_loopback();
        let peers = self.peer_tls.is_none().then_some(("peer.listen", self.peer_listen));
        let named = peers.into_iter().chain([("admin.listen", self.admin_listen)]);
        let kafka = self.listeners.iter().map(|listener| ("listen", listener.address));
        match kafka.chain(named).find(|(_, address)| open(address)) {
            None => Ok(()),
            Some((name, address)) => Err(self.invalid(
                name,
                format!("{address} is reachable from other machines and clients are not authenticated: say --insecure if that is meant"),
            )),
        }
    }

    fn invalid(&self, name: &'static str, why: String) -> ConfigError {
        Reader(&self.layers).invalid(name, why)
    }
}

/// A listener's name and what clients on it are told; without a port: the listener's.
type Advertised<'a> = (&'a str, (String, Option<u16>));

/// Texts that passed the table's check, as values.
struct Reader<'a>(&'a Layers);

impl Reader<'_> {
    fn text(&self, name: &'static str) -> &str {
        self.0.get(name).text.trim()
    }

    fn invalid(&self, name: &'static str, why: String) -> ConfigError {
        let layered = self.0.get(name);
        ConfigError::Invalid { name, text: layered.text.clone(), origin: layered.origin.clone(), why }
    }

    fn non_empty(&self, name: &'static str) -> Result<&str, ConfigError> {
        Some(self.text(name))
            .filter(|text| !text.is_empty())
            .ok_or_else(|| self.invalid(name, "must not be empty".into()))
    }

    fn number(&self, name: &'static str) -> u32 {
        self.text(name).parse().expect("the table checked that this is an integer within bounds")
    }

    fn bytes(&self, name: &'static str) -> u64 {
        let bytes = value::bytes(self.text(name)).expect("the table checked that this is a size");
        u64::try_from(bytes).expect("the table bounds this size from below")
    }

    fn share(&self, name: &'static str) -> Share {
        value::share(self.text(name)).expect("the table checked that this is a share")
    }

    fn span(&self, name: &'static str) -> Duration {
        value::span(self.text(name)).expect("the table checked that this is a span")
    }

    fn switch(&self, name: &'static str) -> bool {
        value::switch(self.text(name)).expect("the table checked that this is a switch")
    }

    fn socket(&self, name: &'static str) -> Result<SocketAddr, ConfigError> {
        value::socket(self.text(name))
            .ok_or_else(|| self.invalid(name, "expected address:port, as 127.0.0.1:9094".into()))
    }

    fn list(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.text(name).split(',').map(str::trim).filter(|item| !item.is_empty())
    }

    fn listeners(&self) -> Result<Vec<Listener>, ConfigError> {
        let advertised = self.advertised()?;
        let mut listeners: Vec<Listener> = Vec::new();
        for item in self.list("listen") {
            let (name, address) = item.split_once('=').unwrap_or((DEFAULT_LISTENER, item));
            let address = value::socket(address).ok_or_else(|| {
                self.invalid("listen", format!("{address}: expected address:port, as 127.0.0.1:9092"))
            })?;
            if listeners.iter().any(|other| other.name == name) {
                return Err(self.invalid(
                    "listen",
                    format!("two listeners are called {name}: give them names, as a=127.0.0.1:9092"),
                ));
            }
            let advertised = advertised.iter().find(|(of, _)| *of == name);
            let advertised =
                advertised.map(|(_, (host, port))| (host.clone(), port.unwrap_or(address.port())));
            listeners.push(Listener { name: name.to_owned(), address, advertised });
        }
        if listeners.is_empty() {
            return Err(self.invalid("listen", "needs at least one address".into()));
        }
        if let Some((name, _)) =
            advertised.iter().find(|(of, _)| !listeners.iter().any(|listener| listener.name == *of))
        {
            return Err(self.invalid("advertise", format!("no listener is called {name}")));
        }
        Ok(listeners)
    }

    fn advertised(&self) -> Result<Vec<Advertised<'_>>, ConfigError> {
        let parse = |item: &'_ str| {
            value::host_and_port(item)
                .ok_or_else(|| self.invalid("advertise", format!("{item}: expected host or host:port")))
        };
        self.list("advertise")
            .map(|item| {
                let (name, at) = item.split_once('=').unwrap_or((DEFAULT_LISTENER, item));
                Ok((name, parse(at)?))
            })
            .collect()
    }

    fn object_store(&self) -> Result<ObjectStore, ConfigError> {
        let text = self.text("object.store");
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(if text.is_empty() {
                ObjectStore::Embedded
            } else {
                ObjectStore::Directory(text.into())
            });
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        match scheme {
            "file" => Ok(ObjectStore::Directory(rest.into())),
            "s3" if bucket.is_empty() => {
                Err(self.invalid("object.store", "names no bucket: s3://bucket/prefix".into()))
            }
            "s3" => {
                Ok(ObjectStore::S3 { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
            }
            other => {
                Err(self
                    .invalid("object.store", format!("{other}: expected s3://bucket/prefix or a directory")))
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            segments: self.number("varve.snapshot.segments"),
            age_max: self.span("varve.snapshot.max.age.ms"),
            wal_percent: self.number("varve.snapshot.wal.percent") as u8,
            keep: self.number("varve.snapshot.keep"),
            gzip: self.text("varve.snapshot.compression") == "gzip",
        }
    }

    fn orphans(&self) -> Orphans {
        let mode = OrphansMode::from_name(self.text("varve.orphans.mode"));
        Orphans { mode, interval: self.span("varve.orphans.interval.ms") }
    }

    fn connections(&self) -> Connections {
        Connections {
            total_max: self.number("varve.connections.max") as usize,
            per_address_max: self.number("varve.connections.per.ip.max") as usize,
            idle_max: self.span("connections.max.idle.ms"),
            frame_bytes_max: self.bytes("socket.request.max.bytes").min(i32::MAX as u64) as usize,
        }
    }
}

/// The name of a listener that was given none.
pub const DEFAULT_LISTENER: &str = "kafka";

#[cfg(test)]
mod tests;
