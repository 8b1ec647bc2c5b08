//! `varve cluster`.

use clap::Subcommand;

use super::BrokerFlags;
use crate::output::OutputFlags;

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show the nodes: which are up, what they lead and hold, and how far behind they are
    Info(ClusterFlags),
    /// Find out whether every node is up, every partition is led and every replica keeps up; exit code 1 when not
    Health(ClusterFlags),
    /// Show per partition who leads, who holds it, who keeps up, and how far behind the others are
    Partitions(ClusterPartitions),
    /// Let the replica on a node lead; it must be in sync
    TransferLeader(TransferLeader),
    /// Wait until a node that was started with --seeds is part of the cluster and has its share of partitions
    AddNode(OneNode),
    /// Move everything away from a node and take it out of the cluster for good; its process can be stopped then
    RemoveNode(OneNode),
    /// Move everything from a node to another and take it out of the cluster for good
    ReplaceNode(ReplaceNode),
    /// Make the certificates by which nodes prove themselves to each other, and who signs them
    Certificates(ClusterCertificates),
    /// Let others lead what a node leads, before it is stopped for a while
    Drain(OneNode),
}

#[derive(Debug, clap::Args)]
pub struct ClusterCertificates {
    /// Where they go; an authority that is there already signs these, too
    #[arg(value_name = "DIRECTORY")]
    pub directory: std::path::PathBuf,
    /// For which nodes
    #[arg(long, value_name = "NODE,...", value_delimiter = ',', required = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub nodes: Vec<u32>,
    /// For how long they are good
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, clap::Args)]
pub struct OneNode {
    /// Which node
    #[arg(value_name = "NODE", value_parser = clap::value_parser!(i32).range(1..))]
    pub node: i32,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, clap::Args)]
pub struct ReplaceNode {
    /// Which node leaves
    #[arg(value_name = "NODE", value_parser = clap::value_parser!(i32).range(1..))]
    pub node: i32,
    /// Which node takes its place; it must be up
    #[arg(long, value_name = "NODE", value_parser = clap::value_parser!(i32).range(1..))]
    pub with: i32,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Wait {
    /// How many seconds it may take; what is under way then goes on by itself
    #[arg(long = "timeout", value_name = "SECONDS", default_value_t = 600)]
    pub seconds: u64,
}

#[derive(Debug, clap::Args)]
pub struct ClusterFlags {
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, clap::Args)]
pub struct ClusterPartitions {
    /// Of these topics [default: all]
    #[arg(value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Only partitions with something wrong
    #[arg(long)]
    pub unhealthy: bool,
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, clap::Args)]
pub struct TransferLeader {
    /// Of what: topic-0, or metadata for the group that decides about the cluster
    #[arg(required = true, value_name = "TOPIC-N")]
    pub partitions: Vec<String>,
    /// To which node
    #[arg(long, value_name = "NODE", value_parser = clap::value_parser!(i32).range(1..))]
    pub to: i32,
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}
