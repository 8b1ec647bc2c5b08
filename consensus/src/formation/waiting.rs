//! What keeps a cluster from being formed.

use super::SeedSet;

/// What the formation waits for; shown to the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Waiting {
    /// The directory names fewer seeds than found a cluster, or more.
    #[error("DNS names {found} nodes, and {count} of them form the cluster: {seeds:?}")]
    Count {
        /// How many it names.
        found: usize,
        /// How many it takes.
        count: usize,
        /// Which it names.
        seeds: SeedSet,
    },
    /// Nobody who is named is part of a cluster, and nothing would tell a new one from one that is merely not named.
    #[error(
        "waiting for a node of a cluster: without an object store that all nodes share none is founded by nodes that DNS names, unless they are started with `--found`"
    )]
    NobodyFormed,
    /// Not all seeds answer.
    #[error("waiting for the seeds {0:?}")]
    Answers(Vec<String>),
    /// A seed names others.
    #[error("seed {0} names other seeds than this node")]
    OtherSeeds(String),
    /// Two seeds are one node.
    #[error("two seeds answer as node {0}")]
    SameNode(u32),
    /// A seed has promised a cluster that the seed which drew it no longer knows: a disk was wiped while the cluster was
    /// formed, or after. If none of the seeds ever started, their data directories may be emptied.
    #[error("seed {0} has promised a cluster that its coordinator has forgotten")]
    Wiped(String),
    /// This disk promised with other seeds than are configured now: the cluster may be formed with those. Configure them
    /// again; or, if none of them ever started, the data directories may be emptied.
    #[error("this disk has promised to form a cluster with the seeds {0:?}, not with those configured now")]
    SeedsChanged(SeedSet),
    /// Seeds have promised a cluster that only this node may decide on, and it is no seed any more: it may have formed it.
    #[error("seed {seed} has promised a cluster that only node {coordinator} may form")]
    Decider {
        /// Who promised.
        seed: String,
        /// Who may decide; 0 where the promise does not say.
        coordinator: u32,
    },
    /// The others' promises.
    #[error("waiting for promises")]
    Promises,
    /// The disk, or the bucket.
    #[error("waiting for the disk or the bucket")]
    Storage,
}
