//! Why a broker does not run.

use std::io;

use varve_common::ClusterId;
use varve_snapshot::claim::ClaimError;

use super::{
    certificates::CertificatesError, data::LockError, formation::FormationError, guard::FoundError,
    joining::JoinError, small_file::SmallFileError, store::TierError,
};
use crate::{driver::OpenError, net::BindError, node::MetadataRefusal, peers::ServiceError, telemetry};

/// Why the broker does not run, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The operating system refuses something basic.
    #[error("{what}: {source}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The data directory is in use.
    #[error("data directory {path}: {source}")]
    Lock {
        /// Which.
        path: String,
        /// Why.
        source: LockError,
    },
    /// Logging cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] telemetry::TelemetryError),
    /// The object store cannot be used.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// The directory or the prefix is another's.
    #[error(transparent)]
    Found(#[from] FoundError),
    /// The log cannot be opened.
    #[error("write-ahead log: {0}")]
    Wal(#[from] varve_wal::OpenError),
    /// The metadata cannot be opened: without it nothing can be served.
    #[error(transparent)]
    Metadata(#[from] OpenError),
    /// The metadata group did not come up.
    #[error("the metadata group does not lead: {0}")]
    Register(MetadataRefusal),
    /// A listener is taken.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// This node cannot prove itself among the others.
    #[error(transparent)]
    Certificates(#[from] CertificatesError),
    /// The log, or the metadata's replica, has failed: nothing was acknowledged after that. A restart recovers.
    #[error("the write-ahead log failed: {0}")]
    LogFailed(String),
    /// The prefix is not ours any more.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// No cluster was formed.
    #[error(transparent)]
    Formation(#[from] FormationError),
    /// A small file of the data directory.
    #[error(transparent)]
    SmallFile(#[from] SmallFileError),
    /// The seeds' names cannot be looked up.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The cluster does not take this node.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The seeds are another cluster.
    #[error("the data directory is of cluster {mine}, the seeds are cluster {theirs}")]
    OtherCluster {
        /// Whose data this is.
        mine: ClusterId,
        /// Whose seeds these are.
        theirs: ClusterId,
    },
    /// A node of several was started as if it were alone.
    #[error("the data directory is of a node of a cluster: name its seeds")]
    NeedsSeeds,
}

pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::System { what, source }
}
