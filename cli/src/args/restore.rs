//! `restore`.

use std::path::PathBuf;

use super::StoreFlags;
use crate::output::OutputFlags;

/// A cluster from its bucket.
#[derive(Clone, Debug, clap::Args)]
pub struct Restore {
    #[command(flatten)]
    pub store: StoreFlags,
    /// Into another place, s3://bucket/prefix or a directory, as a new cluster of a copy of everything: the old one may run on, and of its store only reads and listings are asked
    #[arg(long, value_name = "S3://BUCKET/PREFIX|DIR")]
    pub to: Option<String>,
    /// Configuration file of what is at --to, where credentials or the endpoint are others: it is read instead of --config and the --s3 flags
    #[arg(long, requires = "to", value_name = "FILE")]
    pub to_config: Option<PathBuf>,
    /// Number of the node that is made; others join it with empty data directories
    #[arg(long, default_value_t = 1, value_name = "ID", value_parser = clap::value_parser!(u32).range(1..))]
    pub node: u32,
    /// Only print what would be restored, and what is missing; nothing is written
    #[arg(long, visible_alias = "dry-run")]
    pub plan: bool,
    /// Restore the others also where nothing that is whole says what this topic was, or this partition, as TOPIC-N; may be repeated. The plan says what is lost of it, and where it goes on
    #[arg(long, value_name = "TOPIC[-N]", conflicts_with = "to")]
    pub accept_loss: Vec<String>,
    /// Do not ask
    #[arg(short = 'y', long, conflicts_with = "plan")]
    pub yes: bool,
    /// Seconds between the claim and the first step: a node that still runs in the old cluster sees the claim within 30 s and stops. Less only where none runs; with --to there is nobody to wait for
    #[arg(long, default_value_t = 60, value_name = "SECONDS", conflicts_with = "to")]
    pub wait: u64,
    #[command(flatten)]
    pub output: OutputFlags,
}
