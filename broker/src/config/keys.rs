//! The one table of broker keys: the parser, `config print` and `docs/config.md` all read it.
//!
//! A key's dotted name is its place in the TOML file; with dots as dashes it is the flag (`--data-dir`), upper-cased
//! with dots as underscores behind `VARVE_` the variable (`VARVE_DATA_DIR`, `VARVE_WAL_BYTES_MAX`: a leading `varve.`
//! is not said twice). No name is a prefix of another, or the file could not hold both.

use super::value::Kind;

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its dotted name.
    pub name: &'static str,
    /// What it looks like.
    pub kind: Kind,
    /// Its value where nobody says otherwise, as text.
    pub default: &'static str,
    /// Whether `varve serve` has a flag for it.
    pub flag: bool,
    /// What it does and what it costs.
    pub doc: &'static str,
}

impl Key {
    /// The variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        let name = self.name.strip_prefix("varve.").unwrap_or(self.name);
        format!("VARVE_{}", name.to_ascii_uppercase().replace(['.', '-'], "_"))
    }

    /// The flag that sets it, without dashes in front.
    #[must_use]
    pub fn flag(&self) -> Option<String> {
        self.flag.then(|| self.name.replace('.', "-"))
    }
}

/// The key with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

const fn flag(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, default, flag: true, doc }
}

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, default, flag: false, doc }
}

const COUNT: Kind = Kind::Integer { min: 1, max: i32::MAX as i64 };
const MILLIS: Kind = Kind::Millis { min: 1 };
const MILLIS_OR_NEVER: Kind = Kind::Millis { min: -1 };

/// Every key, in the order of the reference.
pub const KEYS: &[Key] = &[
    flag(
        "data.dir",
        Kind::Text,
        "./varve-data",
        "Directory that holds the log, checkpoints, segments and, without a bucket, the object store.",
    ),
    flag(
        "node.id",
        Kind::Integer { min: 1, max: 0x00ff_ffff },
        "1",
        "This node's number, unique in the cluster.",
    ),
    flag(
        "broker.rack",
        Kind::Text,
        "",
        "Where this node stands: a rack, a zone. Replicas of a partition go to different racks as long as there are any, and consumers that name the same as `client.rack` are sent to a replica in it. Empty: nowhere in particular.",
    ),
    flag(
        "listen",
        Kind::Text,
        "127.0.0.1:9092",
        "Kafka listeners: addresses separated by commas, each with an optional name as in `internal=10.0.0.5:9092`. Beyond loopback needs authentication or `insecure`.",
    ),
    flag(
        "peer.listen",
        Kind::Text,
        "127.0.0.1:9093",
        "Address for other nodes of the cluster. A node without seeds does not listen there. Beyond loopback needs `peer.tls.ca` or `insecure`.",
    ),
    key(
        "peer.advertise",
        Kind::Text,
        "",
        "What other nodes are told to connect to, `host:port`. Empty: the advertised host, else the address of `peer.listen`.",
    ),
    key(
        "peer.tls.ca",
        Kind::Text,
        "",
        "File with the certificate, or certificates, of the cluster's authority (PEM). With it nodes speak TLS 1.3 and let nobody in whom it has not signed; several while it is replaced. Empty: whoever reaches `peer.listen` is believed.",
    ),
    key(
        "peer.tls.certificate",
        Kind::Text,
        "",
        "File with this node's certificate (PEM), for the names `peer.varve` and `node-<id>.peer.varve`, as server and as client. The three files are read again within a minute after they change.",
    ),
    key("peer.tls.key", Kind::Text, "", "File with its private key (PEM)."),
    flag("admin.listen", Kind::Text, "127.0.0.1:9094", "Address of /metrics, /livez and /readyz."),
    flag(
        "advertise",
        Kind::Text,
        "",
        "What clients are told to connect to: `host:port`, or `name=host:port` per listener, separated by commas; without a port, that of the listener. Empty: the address that they connected to; in a cluster, the listener's.",
    ),
    flag(
        "seeds",
        Kind::Text,
        "",
        "The nodes that form the cluster, this one among them: `host:port` of their `peer.listen`, separated by commas, the same on all of them. Or `dns+srv://name?nodes=3`: whom the SRV records of that name lead to, once they are so many. Empty: a cluster of one.",
    ),
    flag(
        "found",
        Kind::Switch,
        "false",
        "With seeds that DNS names and no object store that all nodes share: this start may found a cluster. DNS may leave out nodes that live, so without it they only join one. For the first start, and no other; nothing to nodes that are part of a cluster.",
    ),
    key(
        "dns.server",
        Kind::Text,
        "",
        "Who is asked for SRV records: an address, with a port where that is not 53. Empty: whom /etc/resolv.conf names.",
    ),
    flag(
        "object.store",
        Kind::Text,
        "",
        "Where sealed history and snapshots live: `s3://bucket/prefix` or a directory. Empty: a directory inside the data directory.",
    ),
    flag(
        "s3.endpoint",
        Kind::Text,
        "",
        "URL of an S3-compatible service. Empty: what AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the profile says, else AWS.",
    ),
    flag(
        "s3.region",
        Kind::Text,
        "",
        "Region of the bucket. Empty: what AWS_REGION, AWS_DEFAULT_REGION or the profile says, else us-east-1.",
    ),
    flag(
        "s3.profile",
        Kind::Text,
        "",
        "Profile of the AWS command line that gives credentials, and region and endpoint where nothing else says them. Empty: what AWS_PROFILE says, else `default` if it is there. Keys in the environment go before it.",
    ),
    flag(
        "s3.path.style",
        Kind::SwitchOrAuto,
        "auto",
        "Bucket in the path instead of the host name. auto: yes where an endpoint is set or the bucket's name has dots.",
    ),
    key(
        "s3.request.timeout.ms",
        MILLIS,
        "3min",
        "The longest that one request to the bucket may take with its body, before it is repeated.",
    ),
    flag("insecure", Kind::Switch, "false", "Allows listening beyond loopback without authentication."),
    key(
        "varve.wal.bytes.max",
        Kind::Share,
        "auto",
        "The most that the write-ahead log takes on disk; beyond it producers wait. auto: 10 % of the disk, at most 8 GiB.",
    ),
    key(
        "varve.wal.file.bytes",
        Kind::Bytes { min: 1 << 20 },
        "64MiB",
        "Size of one write-ahead log file, preallocated. Smaller ones free space sooner, larger ones are created less often.",
    ),
    key(
        "varve.hot.bytes.max",
        Kind::Share,
        "auto",
        "The most that log and local segments take on disk together, with varve.wal.bytes.max set aside for the log; the oldest tiered segments go first. auto: 50 % of the disk.",
    ),
    key(
        "varve.tier.max.age.ms",
        MILLIS,
        "10min",
        "How long a record may wait for its upload: what a lost node can cost a cluster restored from the bucket alone.",
    ),
    key(
        "varve.move.bytes.per.second",
        Kind::Bytes { min: 1 << 20 },
        "64MiB",
        "The most that this node sends, and takes in, of checkpoints and sealed files of other nodes: replicas that begin, or lag, and lost files. Less disturbs clients less, and takes longer.",
    ),
    key(
        "varve.scrub.interval.ms",
        MILLIS_OR_NEVER,
        "30d",
        "Within this everything is read again, on this node and in its bucket, and what is damaged is repaired where a good copy is; -1: never by itself.",
    ),
    key(
        "varve.scrub.rate.bytes",
        Kind::Bytes { min: 1 << 16 },
        "32MiB",
        "The most that this reads per second.",
    ),
    key(
        "varve.snapshot.segments",
        COUNT,
        "8",
        "A partition is snapshotted after this many tiered segments, at most once a second.",
    ),
    key(
        "varve.snapshot.max.age.ms",
        MILLIS,
        "1h",
        "A partition that changed is snapshotted at least this often, the metadata at least once a minute.",
    ),
    key(
        "varve.snapshot.wal.percent",
        Kind::Integer { min: 1, max: 100 },
        "50",
        "From this share of varve.wal.bytes.max on, snapshots are taken to free the log.",
    ),
    key(
        "log.retention.check.interval.ms",
        MILLIS,
        "5min",
        "How often a partition is looked at for records that are kept no longer.",
    ),
    key(
        "varve.delete.grace.ms",
        MILLIS,
        "10min",
        "Objects that nothing needs any more stay this long in the object store: longer than any upload, read or clock skew.",
    ),
    key(
        "varve.orphans.mode",
        Kind::Choice(&["off", "dry-run", "delete"]),
        "dry-run",
        "What happens to objects below this cluster's prefix that nothing names. dry-run: they are counted and named in the log.",
    ),
    key(
        "varve.orphans.interval.ms",
        MILLIS,
        "1d",
        "How often they are looked for: each time one listing of all objects. The first time at most an hour after a start.",
    ),
    key(
        "varve.snapshot.keep",
        Kind::Integer { min: 1, max: 1000 },
        "3",
        "How many of the newest snapshots of a partition are kept, beside a grid over time.",
    ),
    key(
        "varve.snapshot.compression",
        Kind::Choice(&["zstd", "gzip"]),
        "zstd",
        "How the sections of snapshots are compressed.",
    ),
    key(
        "varve.manifest.fan.out",
        Kind::Integer { min: 2, max: 65_536 },
        "1024",
        "Entries held in the root of a partition's manifest before they move to an object of their own. For tests.",
    ),
    key(
        "varve.store.requests.per.second",
        COUNT,
        "5000",
        "The most requests a second to the object store, shared by class: cold reads and uploads before upkeep. A store that asks to slow down is asked less often for a while.",
    ),
    key(
        "varve.store.bytes.per.second",
        Kind::Bytes { min: 0 },
        "0",
        "The most bytes a second to and from the object store, shared likewise. 0: without limit.",
    ),
    key(
        "varve.cold.cache.bytes",
        Kind::MemoryShare,
        "auto",
        "Memory for chunks read from the object store. auto: a sixteenth of the memory, at most 64 MiB.",
    ),
    key(
        "varve.cold.cache.disk.bytes",
        Kind::ShareOrNone,
        "auto",
        "Disk for chunks that were read from the object store more than once, in one file below data.dir that is made when it is first needed and given back when the disk runs short. 0: none. auto: 5 % of the disk, at most 4 GiB, and none where the object store is a directory.",
    ),
    key(
        "varve.connections.max",
        COUNT,
        "10000",
        "The most connections in all; further ones are closed at once.",
    ),
    key("varve.connections.per.ip.max", COUNT, "2000", "The most connections from one address."),
    key(
        "varve.memory.bytes.max",
        Kind::MemoryShare,
        "auto",
        "Memory that all budgets of the process are shares of where it is little; about three fifths of it is given to them. auto: what the machine has, or the limit of its control group where that is less. `varve config print` shows what follows from it.",
    ),
    key(
        "varve.requests.bytes.max",
        Kind::MemoryShare,
        "auto",
        "Memory for requests in flight over all connections; beyond it sockets are not read, but for one request at a time that is larger than all of it. auto: an eighth of the memory, at most 512 MiB.",
    ),
    key("connections.max.idle.ms", MILLIS, "10min", "A connection without a request for so long is closed."),
    key("socket.request.max.bytes", Kind::Bytes { min: 1024 }, "100MiB", "The largest request."),
    key(
        "fetch.max.bytes",
        Kind::Bytes { min: 1024 },
        "55MiB",
        "The most that one fetch returns, whatever the client asks.",
    ),
    key(
        "varve.follower.read",
        Kind::Choice(&["none", "stale", "linearizable"]),
        "stale",
        "Whether this node serves fetches of partitions that another leads, and as a leader sends consumers to replicas in their rack. stale: what it knows to be committed, some milliseconds behind the leader. linearizable: it asks the leader first, so that whatever was acknowledged before a fetch is in its answer. none: leaders serve alone.",
    ),
    key(
        "max.incremental.fetch.session.cache.slots",
        COUNT,
        "1000",
        "How many incremental fetch sessions are remembered.",
    ),
    key(
        "num.partitions",
        Kind::Integer { min: 1, max: 100_000 },
        "1",
        "Partitions of a topic where nobody says how many.",
    ),
    key(
        "default.replication.factor",
        Kind::Integer { min: 1, max: 1_000 },
        "3",
        "Replicas of a topic where nobody says how many: at most one for each broker, so a cluster of one node has one.",
    ),
    key(
        "auto.leader.rebalance.enable",
        Kind::Switch,
        "true",
        "Leadership goes back by itself to the replica that stands first, after a node was away.",
    ),
    key(
        "leader.imbalance.check.interval.seconds",
        COUNT,
        "300",
        "For how long such a replica must have kept up before. One that loses what it was given waits twice as long the next time. Nothing goes back while the log of the node that leads is pressed.",
    ),
    key("auto.create.topics.enable", Kind::Switch, "true", "Topics come to be when a client asks for them."),
    key(
        "message.max.bytes",
        Kind::Bytes { min: 0 },
        "1048588",
        "The largest record batch; topics override it as max.message.bytes.",
    ),
    key(
        "log.segment.bytes",
        Kind::Bytes { min: 1 << 10 },
        "64MiB",
        "Size at which a range is rolled, sealed and tiered; topics override it as segment.bytes.",
    ),
    key(
        "log.roll.ms",
        MILLIS,
        "7d",
        "Age at which a range is rolled; topics override it as segment.ms. varve.tier.max.age.ms may roll earlier.",
    ),
    key("log.roll.jitter.ms", Kind::Millis { min: 0 }, "0", "Topics override it as segment.jitter.ms."),
    key("log.cleanup.policy", Kind::Text, "delete", "Topics override it as cleanup.policy."),
    key(
        "compression.type",
        Kind::Choice(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "producer",
        "The codec in which batches are stored; topics override it.",
    ),
    key("compression.gzip.level", Kind::Integer { min: -1, max: 9 }, "-1", "Topics override it."),
    key("compression.zstd.level", Kind::Integer { min: -131_072, max: 22 }, "3", "Topics override it."),
    key(
        "min.insync.replicas",
        Kind::Integer { min: 0, max: i32::MAX as i64 },
        "0",
        "Replicas in sync for acks=all; topics override it. 0: the majority of a topic's replicas.",
    ),
    key(
        "log.retention.ms",
        MILLIS_OR_NEVER,
        "7d",
        "How long records are kept, -1 for ever; topics override it as retention.ms.",
    ),
    key(
        "log.retention.bytes",
        Kind::Bytes { min: -1 },
        "-1",
        "How much of a partition is kept, -1 without limit; topics override it as retention.bytes.",
    ),
    key(
        "log.local.retention.ms",
        Kind::Millis { min: -2 },
        "-2",
        "How long tiered records stay on the local disk within varve.hot.bytes.max, -1 without limit, -2 as long as they are kept; where .bytes is -2 too, what the log holds anyway; topics override it as local.retention.ms.",
    ),
    key(
        "log.local.retention.bytes",
        Kind::Bytes { min: -2 },
        "-2",
        "How many tiered bytes of a partition stay on the local disk within varve.hot.bytes.max, -1 without limit, -2 as many as are kept; where .ms is -2 too, what the log holds anyway; topics override it as local.retention.bytes.",
    ),
    key(
        "log.message.timestamp.type",
        Kind::Choice(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        "Whose clock stamps records; topics override it as message.timestamp.type.",
    ),
    key(
        "log.message.timestamp.before.max.ms",
        Kind::Millis { min: 0 },
        "9223372036854775807",
        "How far a record's timestamp may lie in the past; topics override it.",
    ),
    key(
        "log.message.timestamp.after.max.ms",
        Kind::Millis { min: 0 },
        "1h",
        "How far a record's timestamp may lie in the future; topics override it.",
    ),
    key(
        "offsets.topic.num.partitions",
        Kind::Integer { min: 1, max: 1_000 },
        "50",
        "Partitions of `__consumer_offsets`, which is made when the first group is asked for. Each coordinates its share of the groups; the number does not change afterwards.",
    ),
    key(
        "offsets.topic.replication.factor",
        Kind::Integer { min: 1, max: 1_000 },
        "3",
        "Its replicas, at most one for each broker.",
    ),
    key("offsets.topic.segment.bytes", Kind::Bytes { min: 1 << 10 }, "100MiB", "Its segment.bytes."),
    key(
        "offsets.retention.minutes",
        Kind::Integer { min: 1, max: i32::MAX as i64 },
        "10080",
        "How long offsets outlive the last member of their group, or their commit where it never had members.",
    ),
    key(
        "offsets.retention.check.interval.ms",
        MILLIS,
        "10min",
        "How often a coordinator looks for offsets that are older.",
    ),
    key(
        "offset.metadata.max.bytes",
        Kind::Integer { min: 0, max: 32_767 },
        "4096",
        "The longest metadata that a client may commit beside an offset.",
    ),
    key(
        "group.min.session.timeout.ms",
        MILLIS,
        "6s",
        "The shortest time after which a silent member of a group is given up that a client may ask for.",
    ),
    key("group.max.session.timeout.ms", MILLIS, "30min", "The longest."),
    key(
        "group.initial.rebalance.delay.ms",
        Kind::Millis { min: 0 },
        "3s",
        "How long an empty group waits for more members after the first, so that those that start together share from the beginning.",
    ),
    key("group.max.size", COUNT, "2147483647", "Members of one group."),
    key("producer.id.expiration.ms", MILLIS, "1d", "A producer id unused for so long is forgotten."),
    key(
        "log.format",
        Kind::Choice(&["auto", "pretty", "logfmt", "json"]),
        "auto",
        "How log lines look. auto: pretty on a terminal, logfmt elsewhere.",
    ),
    key(
        "log.filter",
        Kind::Text,
        "info",
        "Which log lines are written, as `info,varve_wal=debug`. VARVE_LOG and RUST_LOG are read too.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_key_and_documented() {
        for key in KEYS {
            assert_eq!(key.kind.check(key.default), Ok(()), "{}", key.name);
            assert!(key.doc.ends_with('.'), "{}", key.name);
        }
    }

    #[test]
    fn no_name_is_a_prefix_of_another_and_no_variable_is_shared() {
        let mut variables = std::collections::BTreeSet::new();
        for key in KEYS {
            assert!(variables.insert(key.variable()), "{}", key.name);
            assert!(
                !KEYS.iter().any(|other| other.name.starts_with(&format!("{}.", key.name))),
                "{}",
                key.name
            );
        }
    }
}
