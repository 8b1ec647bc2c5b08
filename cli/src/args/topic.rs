//! Topics.

use clap::Subcommand;

use super::{BrokerFlags, PartitionFlags, key_value};
use crate::output::OutputFlags;

#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create topics
    Create(TopicCreate),
    /// List topics
    List(TopicList),
    /// Describe topics: partitions, leaders, offsets, configurations
    Describe(TopicDescribe),
    /// Show per partition what is local, in the object store, in both, and not yet uploaded
    DescribeStorage(TopicDescribeStorage),
    /// Change the configuration of topics while they are in use
    AlterConfig(TopicAlterConfig),
    /// Add partitions to topics; records stay where they are, and keys may go elsewhere from then on
    AddPartitions(TopicAddPartitions),
    /// Delete the oldest records of a topic, up to an offset or a time
    Trim(TopicTrim),
    /// Delete topics and all their records
    Delete(TopicDelete),
}

#[derive(Debug, clap::Args)]
pub struct TopicCreate {
    /// Their names
    #[arg(required = true, value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Partitions of each [default: as the broker is configured]
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: Option<i32>,
    /// Replicas of each partition [default: as the broker is configured]
    #[arg(short, long, visible_alias = "replicas", value_name = "COUNT", value_parser = clap::value_parser!(i16).range(1..))]
    pub replication_factor: Option<i16>,
    /// A topic configuration under Kafka's name; may be repeated
    #[arg(short = 'c', long = "config", visible_alias = "topic-config", value_name = "KEY=VALUE", value_parser = key_value)]
    pub configs: Vec<(String, String)>,
    /// Only check whether the topics could be created
    #[arg(long, visible_alias = "dry")]
    pub dry_run: bool,
    /// A topic that exists is no error
    #[arg(long, visible_alias = "if-not-exist")]
    pub if_not_exists: bool,
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, clap::Args)]
pub struct TopicList {
    /// Internal topics too
    #[arg(short = 'i', long)]
    pub internal: bool,
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, clap::Args)]
pub struct TopicDescribe {
    /// Their names
    #[arg(required = true, value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// The summary only, unless -p or -c ask for more
    #[arg(short = 's', long)]
    pub summary: bool,
    /// The partitions only, unless -s or -c ask for more
    #[arg(short = 'p', long)]
    pub partitions: bool,
    /// The configurations too
    #[arg(short = 'c', long)]
    pub configs: bool,
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, clap::Args)]
pub struct TopicDescribeStorage {
    /// Its name
    pub topic: String,
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub struct TopicAlterConfig {
    /// Their names
    #[arg(required = true, value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Give a configuration this value; may be repeated
    #[arg(short = 's', long, group = "change", value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Let the topic inherit a configuration again; may be repeated
    #[arg(short = 'd', long, group = "change", value_name = "KEY")]
    pub delete: Vec<String>,
    /// Add words to a list such as cleanup.policy; may be repeated
    #[arg(long, group = "change", value_name = "KEY=VALUE", value_parser = key_value)]
    pub append: Vec<(String, String)>,
    /// Take words from a list; may be repeated
    #[arg(long, group = "change", value_name = "KEY=VALUE", value_parser = key_value)]
    pub subtract: Vec<(String, String)>,
    /// Only check whether the configurations could be changed
    #[arg(long, visible_alias = "dry")]
    pub dry_run: bool,
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, clap::Args)]
pub struct TopicDelete {
    /// Their names
    #[arg(required = true, value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// A topic that does not exist is no error
    #[arg(long)]
    pub if_exists: bool,
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, clap::Args)]
pub struct TopicAddPartitions {
    /// Their names
    #[arg(required = true, value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// How many each gets beside those that it has
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    pub num: i32,
    /// Only check whether they could be added
    #[arg(long, visible_alias = "dry")]
    pub dry_run: bool,
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("place").required(true))]
pub struct TopicTrim {
    /// Its name
    pub topic: String,
    /// The first offset that stays: an offset, end, +n behind the start, -n before the end, or @time
    #[arg(long, group = "place", value_name = "PLACE", allow_hyphen_values = true)]
    pub offset: Option<String>,
    /// Records before this time go: milliseconds, seconds, 2006-01-02, 2006-01-02T15:04:05Z, -1h (ago)
    #[arg(long, group = "place", value_name = "TIME", allow_hyphen_values = true)]
    pub timestamp: Option<String>,
    #[command(flatten)]
    pub partitions: PartitionFlags,
    /// Show what would be the first offsets, and delete nothing
    #[arg(long, visible_alias = "dry")]
    pub dry_run: bool,
    #[command(flatten)]
    pub brokers: BrokerFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}
