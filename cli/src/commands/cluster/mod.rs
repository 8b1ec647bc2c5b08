//! `cluster …`: the cluster as any one of its nodes knows it, and what it is told to become.
//!
//! Nodes and who leads come from Metadata and DescribeCluster, how far replicas are from DescribeQuorum.

mod certificates;
mod drain;
mod health;
mod info;
mod members;
mod partitions;
mod survey;
mod transfer;

use varve_broker::config::Sources;

use crate::{args::ClusterCommand, failure::Failure};

pub fn run(command: ClusterCommand, sources: &Sources) -> Result<(), Failure> {
    match command {
        ClusterCommand::Info(flags) => info::run(&flags, sources),
        ClusterCommand::Health(flags) => health::run(&flags, sources),
        ClusterCommand::Partitions(flags) => partitions::run(&flags, sources),
        ClusterCommand::TransferLeader(flags) => transfer::run(&flags, sources),
        ClusterCommand::AddNode(flags) => members::add(&flags, sources),
        ClusterCommand::RemoveNode(flags) => members::remove(&flags, sources),
        ClusterCommand::ReplaceNode(flags) => members::replace(&flags, sources),
        ClusterCommand::Certificates(flags) => certificates::run(&flags),
        ClusterCommand::Drain(flags) => drain::run(&flags, sources),
    }
}

/// Node ids as a table shows them.
fn ids<'a>(nodes: impl IntoIterator<Item = &'a i32>) -> String {
    nodes.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
