//! What Kafka's broker properties mean here, where they have no key of the same name.

/// What a property means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The same as this key.
    Key(&'static str),
    /// `data.dir`, where it is one.
    Directory,
    /// `seeds`.
    Seeds,
    /// `listen`.
    Listeners,
    /// `advertise`.
    Advertised,
    /// It can only be this; the text says why.
    Switch { only: &'static str, why: &'static str },
    /// Nothing that anybody would have to say here.
    Needless(&'static str),
    /// Something that is not there.
    Missing(&'static str),
}

use Meaning::{Advertised, Directory, Key, Listeners, Missing, Needless, Seeds, Switch};

const EXACT: &[(&str, Meaning)] = &[
    ("broker.id", Key("node.id")),
    ("log.dirs", Directory),
    ("log.dir", Directory),
    ("listeners", Listeners),
    ("advertised.listeners", Advertised),
    ("controller.quorum.voters", Seeds),
    ("controller.quorum.bootstrap.servers", Seeds),
    ("max.connections", Key("varve.connections.max")),
    ("max.connections.per.ip", Key("varve.connections.per.ip.max")),
    ("process.roles", Needless("every node is broker and controller")),
    ("listener.security.protocol.map", Needless("read for the listeners: only PLAINTEXT is there")),
    (
        "unclean.leader.election.enable",
        Switch { only: "false", why: "a replica that lacks committed records never leads" },
    ),
    ("delete.topic.enable", Switch { only: "true", why: "topics can be deleted, by anybody" }),
    (
        "remote.log.storage.system.enable",
        Needless("every topic tiers; remote.storage.enable=false on a topic switches it off"),
    ),
    ("replica.selector.class", Needless("consumers are sent to replicas in their rack: varve.follower.read")),
    ("reserved.broker.max.id", Needless("numbers of nodes are given by hand")),
    ("broker.id.generation.enable", Needless("numbers of nodes are given by hand")),
    ("leader.imbalance.per.broker.percentage", Needless("each partition goes back by itself")),
    ("log.message.format.version", Needless("records are stored in the newest format")),
    (
        "log.message.timestamp.difference.max.ms",
        Missing("log.message.timestamp.before.max.ms and after say it"),
    ),
    ("log.message.downconversion.enable", Needless("records are stored in the newest format")),
    ("compression.lz4.level", Needless("LZ4 has one level here, the fastest")),
    ("create.topic.policy.class.name", Missing("no class of the JVM runs here")),
    ("alter.config.policy.class.name", Missing("no class of the JVM runs here")),
    ("max.connection.creation.rate", Missing("connections are bounded by number: varve.connections.max")),
    (
        "max.connections.per.ip.overrides",
        Missing("one bound for all addresses: varve.connections.per.ip.max"),
    ),
];

const THREADS: &str = "threads follow the machine";
const RAFT: &str = "replicas and leaders are Raft's";
const SECURITY: &str = "clients are neither authenticated nor encrypted yet";
const METRICS: &str = "metrics are at /metrics of admin.listen";

/// By how they begin; the first that fits.
const PREFIXES: &[(&str, Meaning)] = &[
    ("zookeeper.", Needless("there is no ZooKeeper")),
    (
        "controller.",
        Needless("every node is broker and controller; peer.listen and seeds say where they meet"),
    ),
    ("metadata.log.", Needless("the metadata is a group like any other")),
    ("metadata.max.", Needless("the metadata is a group like any other")),
    ("initial.broker.", Needless("nodes are known by their numbers")),
    ("broker.heartbeat.", Needless(RAFT)),
    ("broker.session.", Needless(RAFT)),
    ("inter.broker.", Needless("nodes meet on peer.listen, in their own protocol")),
    ("replica.", Needless(RAFT)),
    ("num.replica.", Needless(RAFT)),
    ("log.flush.", Needless("every acknowledged record is fsynced")),
    ("log.index.", Needless("indexes have sizes and intervals of their own")),
    ("log.preallocate", Needless("the log is always preallocated")),
    ("log.segment.delete.", Needless("files go once nothing names them")),
    ("log.retention.check.", Needless("retention is looked at as records come")),
    ("log.cleaner.", Missing("compaction is not there yet")),
    ("log.initial.", Needless(THREADS)),
    ("num.", Needless(THREADS)),
    ("background.threads", Needless(THREADS)),
    ("queued.max.", Needless("requests in flight are bounded by bytes: varve.requests.bytes.max")),
    ("socket.", Needless("the system sizes buffers and queues of sockets")),
    ("offsets.", Needless("a commit is answered once a quorum has fsynced it, and no cache is loaded")),
    ("group.", Missing("groups of consumers speak the classic protocol")),
    ("share.", Missing("share groups are not there")),
    ("transaction", Missing("transactions are not there yet")),
    ("producer.purgatory.", Needless("requests wait in no purgatory")),
    ("fetch.purgatory.", Needless("requests wait in no purgatory")),
    ("delete.records.purgatory.", Needless("requests wait in no purgatory")),
    ("request.timeout.", Needless("what is under way is answered once it is decided")),
    (
        "remote.log.",
        Needless("uploads and reads share varve.store.requests.per.second and varve.store.bytes.per.second"),
    ),
    ("quota.", Missing("there are no quotas")),
    ("client.quota.", Missing("there are no quotas")),
    ("ssl.", Missing(SECURITY)),
    ("sasl.", Missing(SECURITY)),
    ("security.", Missing(SECURITY)),
    ("listener.name.", Missing(SECURITY)),
    ("authorizer.", Missing("there are no access rules yet")),
    ("super.users", Missing("there are no access rules yet")),
    ("allow.everyone.", Missing("there are no access rules yet")),
    ("principal.", Missing(SECURITY)),
    ("early.start.", Needless("listeners open once the node serves")),
    ("connections.max.reauth.", Missing(SECURITY)),
    ("delegation.token.", Missing(SECURITY)),
    ("password.encoder.", Missing(SECURITY)),
    ("metric", Needless(METRICS)),
    ("auto.include.jmx.", Needless(METRICS)),
    ("kafka.metrics.", Needless(METRICS)),
    ("telemetry.", Missing("clients push no metrics here")),
    ("client.telemetry.", Missing("clients push no metrics here")),
    ("confluent.", Missing("no property of Apache Kafka")),
];

/// What a property means.
pub fn meaning(name: &str) -> Meaning {
    let exact = EXACT.iter().find(|(exact, _)| *exact == name);
    let found = exact.or_else(|| PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)));
    found.map_or(Missing("no property of Apache Kafka that is known here"), |(_, meaning)| *meaning)
}

/// Who wins in Kafka among those that say the same: the lowest.
pub fn rank(name: &str) -> usize {
    const LATER: &[&str] = &["minutes", "hours", "broker.id", "log.dir", "controller.quorum.voters"];
    LATER
        .iter()
        .position(|later| name == *later || name.ends_with(&format!(".{later}")))
        .map_or(0, |at| at + 1)
}
