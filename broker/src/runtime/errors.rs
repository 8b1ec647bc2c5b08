//! Why a broker does not run, or not any more: one error for each cause, as the command line prints it.

use std::{io, path::PathBuf};

use tokio::sync::oneshot;
use varve_common::ClusterId;
use varve_snapshot::claim::ClaimError;

use super::{
    birth::{BirthError, ForgetError},
    certificates::CertificatesError,
    data::LockError,
    formation::FormationError,
    guard::FoundError,
    joining::JoinError,
    small_file::SmallFileError,
    store::TierError,
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
    /// The log gets no file.
    #[error("write-ahead log: {0}")]
    Begin(#[from] varve_wal::AppendError),
    /// Whether the log is the one that was there cannot be told.
    #[error(transparent)]
    Birth(#[from] BirthError),
    /// The log is lost, and nobody else has what was in it.
    #[error(
        "the write-ahead log in {} is not the one that this data directory began with, or is gone: acknowledged records, votes and metadata that were in it alone are lost; bring it back, or give up what it held with `varve storage recover --accept-loss`",
        .0.display()
    )]
    LogLost(PathBuf),
    /// The log is lost, and this disk does not get rid of what it was with it.
    #[error(transparent)]
    Forget(#[from] ForgetError),
    /// The metadata cannot be opened: without it nothing can be served.
    #[error(transparent)]
    Metadata(#[from] OpenError),
    /// The metadata group did not come up.
    #[error("this node is not registered: {0}")]
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
    /// It holds a part of a cluster.
    #[error("a restore into {} did not come to its end: run `varve restore` once more", .0.display())]
    Unrestored(PathBuf),
    /// A node of several was started as if it were alone.
    #[error("the data directory is of a node of a cluster: name its seeds")]
    NeedsSeeds,
}

pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::System { what, source }
}

/// What the shard's thread said last, if it came to that.
pub(super) fn log_failed(why: Result<String, oneshot::error::RecvError>) -> RunError {
    RunError::LogFailed(why.unwrap_or_else(|_| "its thread ended".to_owned()))
}
