//! The grammar. One struct per command, with its words for `--help`; what they do is in `commands`.

mod archive;
mod cluster;
mod group;
mod names;
mod restore;
mod server;
#[cfg(test)]
mod tests;
mod topic;

use clap::{Parser, Subcommand};

pub use self::{
    archive::{
        ArchiveCommand, BucketCommand, Cat, Drill, Export, ExportFormat, PartitionFlags, ReadFlags,
        SnapshotCommand,
    },
    cluster::{
        ClusterCertificates, ClusterCommand, ClusterFlags, ClusterPartitions, OneNode, ReplaceNode,
        TransferLeader, Wait,
    },
    group::{GroupCommand, GroupDelete, GroupDescribe, GroupList, GroupSeek},
    names::{AcksName, CodecName, Page, Shell},
    restore::Restore,
    server::{ServerFlags, StoreFlags},
    topic::{
        TopicAddPartitions, TopicAlterConfig, TopicCommand, TopicCreate, TopicDelete, TopicDescribe,
        TopicDescribeStorage, TopicList, TopicTrim,
    },
};
use crate::{output::OutputFlags, pattern::parse_header};

const EXIT_CODES: &str = "Exit codes: 0 done, 1 it went wrong or something is damaged, 2 the command line is wrong, 3 what was to be verified could not be read.";

/// A Kafka-compatible broker, and the commands to use and inspect it.
///
/// Without a command, `varve` is `varve serve`: it needs no configuration, no format step and no bucket.
#[derive(Debug, Parser)]
#[command(name = "varve", version, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub server: ServerFlags,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker
    Serve(ServerFlags),
    /// Run the broker, or a cluster of brokers, in a temporary directory that is removed at the end
    Dev(DevFlags),
    /// Run a node of `dev --nodes`
    #[command(hide = true)]
    DevNode(ServerFlags),
    /// Create, list, describe, configure, extend, trim and delete topics
    #[command(subcommand)]
    Topic(TopicCommand),
    /// List, describe, move and delete groups of consumers
    #[command(subcommand)]
    Group(GroupCommand),
    /// Show how a cluster of nodes is, and who leads what; and change that
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Write records: from the arguments, or one per line from standard input
    Produce(Produce),
    /// Read records and print them
    Consume(Consume),
    /// List, show and verify the snapshots in the object store; never writes there
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Read history from the object store, without a broker; never writes there
    #[command(subcommand)]
    Archive(ArchiveCommand),
    /// Check that the object store holds all that it should, and nothing else; never writes there
    #[command(subcommand)]
    Bucket(BucketCommand),
    /// Bring a cluster back from its object store alone, into an empty data directory. What will be there is printed first
    Restore(Restore),
    /// Find out what is wrong with what the broker stands on, and what to change
    #[command(subcommand)]
    Doctor(DoctorCommand),
    /// Show what is damaged on the disk of a stopped node, and give it up
    #[command(subcommand)]
    Storage(StorageCommand),
    /// Show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the version
    Version(OutputFlags),
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page (roff) of varve, or of one of its commands
    Man {
        /// Which command, as: topic create
        command: Vec<String>,
    },
    /// Print a generated page of the documentation
    #[command(hide = true)]
    Docs {
        /// Which page
        page: Page,
    },
}

/// A broker for a while.
#[derive(Clone, Debug, clap::Args)]
pub struct DevFlags {
    /// How many nodes: each is a process, its ports 100 above those of the one before
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: u16,
    #[command(flatten)]
    pub server: ServerFlags,
}

/// Where brokers are.
#[derive(Clone, Debug, clap::Args)]
pub struct BrokerFlags {
    /// Brokers to start from, host:port separated by commas [default: VARVE_BROKERS, else 127.0.0.1:9092]
    #[arg(
        short = 'b',
        long = "bootstrap-server",
        visible_alias = "brokers",
        value_delimiter = ',',
        value_name = "HOST:PORT"
    )]
    pub brokers: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct Produce {
    /// Where to write; the broker creates it if it may
    pub topic: String,
    /// Values to write, one record each; none, or a single -: lines of standard input
    #[arg(value_name = "VALUE", allow_hyphen_values = false)]
    pub values: Vec<String>,
    /// Key of every record [default: none]
    #[arg(short, long)]
    pub key: Option<String>,
    /// A header of every record; may be repeated
    #[arg(short = 'H', long = "header", value_name = "KEY=VALUE", value_parser = header)]
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// How batches are compressed
    #[arg(
        short = 'z',
        long = "compression",
        visible_alias = "compression-codec",
        value_enum,
        default_value = "none"
    )]
    pub codec: CodecName,
    /// Who must have a record before it counts: all in-sync replicas, the leader (1), nobody (0). All is idempotent: a batch sent twice is stored once
    #[arg(
        long,
        visible_alias = "request-required-acks",
        value_enum,
        default_value = "all",
        allow_hyphen_values = true
    )]
    pub acks: AcksName,
    /// Partition of every record [default: by key as Java's client chooses, else in turn per batch]
    #[arg(short, long)]
    pub partition: Option<i32>,
    /// How a line is read: %k key, %v value, %h headers as a=b,c=d, %p partition, %d milliseconds, \t; or json, as consume writes it
    #[arg(short = 'f', long, value_name = "FORMAT", default_value = "%v\\n")]
    pub format: String,
    /// json prints partition and offset of every record
    #[command(flatten)]
    pub output: OutputFlags,
    #[command(flatten)]
    pub brokers: BrokerFlags,
}

#[derive(Debug, clap::Args)]
pub struct Consume {
    /// What to read
    pub topic: String,
    #[command(flatten)]
    pub reading: ReadFlags,
    /// Stop at what was the end when the command began
    #[arg(short = 'e', long)]
    pub exit: bool,
    #[command(flatten)]
    pub brokers: BrokerFlags,
}

#[derive(Debug, Subcommand)]
pub enum DoctorCommand {
    /// Check a bucket: what it promises, what may be done there, its settings, how fast it is; exit code 1 when it cannot be used
    S3(DoctorS3),
}

#[derive(Debug, clap::Args)]
pub struct DoctorS3 {
    #[command(flatten)]
    pub store: StoreFlags,
    /// Make the bucket first, where it is not there: for development
    #[arg(long)]
    pub create_bucket: bool,
    /// Requests of each kind that are timed
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub samples: u32,
    #[command(flatten)]
    pub output: OutputFlags,
}

/// Where a running node answers.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct AdminFlag {
    /// Admin address of a node that runs, here or elsewhere: it is asked, and no directory is looked at [default: admin.listen of the configuration, where the node runs]
    #[arg(long = "admin", value_name = "HOST:PORT")]
    pub address: Option<std::net::SocketAddr>,
}

#[derive(Debug, Subcommand)]
pub enum StorageCommand {
    /// Show which partitions have lost acknowledged records, and which; exit code 1 when one has. Of a running node the admin address is asked
    Status {
        #[command(flatten)]
        store: StoreFlags,
        #[command(flatten)]
        admin: AdminFlag,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Read everything again, on the node and in its bucket, and repair what is damaged; exit code 1 when damage is left, or something could not be read. The node may run
    Scrub {
        #[command(flatten)]
        store: StoreFlags,
        #[command(flatten)]
        admin: AdminFlag,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Let damaged partitions go on without what they have lost, which is printed; there is no way back. The node must not run
    Recover {
        #[command(flatten)]
        store: StoreFlags,
        /// Yes, acknowledged records are lost
        #[arg(long, required = true)]
        accept_loss: bool,
        /// Only this one, as topic-0, or metadata; may be repeated [default: all that are damaged]
        #[arg(long = "partition", value_name = "TOPIC-N")]
        partitions: Vec<String>,
        #[command(flatten)]
        output: OutputFlags,
    },
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Every key with its value, and whether that came from the default, the file, the environment or a flag
    Print {
        #[command(flatten)]
        server: ServerFlags,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// A configuration file with every key, its meaning and its default, commented out
    Reference(OutputFlags),
    /// Read a server.properties of Kafka: what each property becomes here, and which have no place, and why; exit code 1 where a value cannot be taken over
    Import {
        /// The file
        file: std::path::PathBuf,
        /// Write the configuration file there; one that is there stays
        #[arg(short, long, value_name = "FILE")]
        write: Option<std::path::PathBuf>,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Check the configuration without running it
    Validate {
        #[command(flatten)]
        server: ServerFlags,
        #[command(flatten)]
        output: OutputFlags,
    },
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn header(text: &str) -> Result<(String, Option<Vec<u8>>), String> {
    parse_header(text)
}
