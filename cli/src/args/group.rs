//! Groups of consumers.

use clap::Subcommand;

use super::BrokerFlags;
use crate::output::OutputFlags;

#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List groups, with where they stand
    List(GroupList),
    /// Show the members of a group and what it has committed
    Describe(GroupDescribe),
    /// Set what a group without members has committed in a topic
    Seek(GroupSeek),
    /// Delete groups without members, with all that they have committed
    Delete(GroupDelete),
}

#[derive(Debug, clap::Args)]
pub struct GroupList {
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, clap::Args)]
pub struct GroupDescribe {
    /// Which groups
    #[arg(required = true, value_name = "GROUP")]
    pub groups: Vec<String>,
    /// Show how many records are left to read
    #[arg(long)]
    pub lag: bool,
    /// Show how old the next record to read is: one record of each partition is read for it
    #[arg(long)]
    pub time_lag: bool,
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, clap::Args)]
pub struct GroupSeek {
    /// Which group
    pub group: String,
    /// In which topic
    pub topic: String,
    /// In which partitions [default: all]
    #[arg(short, long = "partition", value_name = "PARTITION", value_delimiter = ',')]
    pub partitions: Vec<i32>,
    /// Where it goes on: start, end, an offset, +n behind the start, -n before the end, or @time
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    pub to: String,
    /// Show what would be set, and set nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, clap::Args)]
pub struct GroupDelete {
    /// Which groups
    #[arg(required = true, value_name = "GROUP")]
    pub groups: Vec<String>,
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}
