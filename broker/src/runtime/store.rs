//! The object store that the configuration names.

use std::{path::Path, sync::Arc};

use varve_common::{Clock, Disk, Entropy};
use varve_formats::keys::Prefix;
use varve_objects::{
    Budgets, Class, Counters, Counting, Directory, OpenError, Proving, ReadBack, S3, Store, Stores,
    probe::{ProbeError, probe},
    s3::ConfigureError,
};

use super::clock::SystemEntropy;
use crate::config::{Config, ObjectStore};

/// A directory whose objects are files for others to read.
///
/// # Errors
/// It cannot be made or written.
pub fn plain_directory(root: &Path) -> Result<Arc<dyn Store>, OpenError> {
    let writer = SystemEntropy::default().next_u64();
    Ok(Arc::new(Directory::open_plain(Arc::new(varve_wal::NativeDisk), root, writer)?))
}

/// A store, what it counts, and where in it this cluster lives.
pub struct Tier {
    /// With retries and counters, by the class of who asks.
    pub stores: Stores,
    /// Requests and bytes, by operation.
    pub counters: Arc<Counters>,
    /// What all keys begin with.
    pub prefix: Prefix,
    /// For the banner.
    pub name: String,
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum TierError {
    /// The directory cannot be opened.
    #[error("object store directory: {0}")]
    Directory(#[from] OpenError),
    /// The bucket's options do not make a client.
    #[error("object store: {0}")]
    Bucket(#[from] ConfigureError),
    /// The bucket lies about something that durability rests on.
    #[error(transparent)]
    Unsafe(ProbeError),
}

/// Opens the store. A bucket is probed first: one that breaks a promise is refused with the reason (TIERING.md 8). One
/// that does not answer is not: hot data must be served without it, and nothing is put there until it was probed.
pub async fn open(
    config: &Config,
    embedded: &Path,
    disk: &Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Tier, TierError> {
    let (store, prefix, name): (Arc<dyn Store>, _, _) = match &config.object_store {
        ObjectStore::Embedded => {
            let name = format!("embedded ({})", embedded.display());
            (
                Arc::new(Directory::open(Arc::clone(disk), embedded, entropy.next_u64())?),
                Prefix::new(""),
                name,
            )
        }
        ObjectStore::Directory(path) => {
            let name = format!("directory {}", path.display());
            (Arc::new(Directory::open(Arc::clone(disk), path, entropy.next_u64())?), Prefix::new(""), name)
        }
        ObjectStore::S3 { bucket, prefix } => {
            let store = Arc::new(S3::new(config.s3.options(bucket))?);
            let name = match &config.s3.endpoint {
                Some(endpoint) => format!("s3://{bucket}/{prefix} at {endpoint}"),
                None => format!("s3://{bucket}/{prefix}"),
            };
            (probed(store, prefix, &clock, &entropy).await?, Prefix::new(prefix), name)
        }
    };
    let counting = Counting::new(store);
    let counters = counting.counters();
    let budgets = Budgets::new(Arc::clone(&clock), config.store_budget);
    let stores = Stores::new(Arc::new(counting), budgets, &clock, &entropy, config.s3.retries());
    Ok(Tier { stores, counters, prefix, name })
}

impl Tier {
    /// The store for what the node itself keeps there: claims, checkpoints, nodes, and what is removed.
    pub fn store(&self) -> Arc<dyn Store> {
        self.stores.of(Class::Checkpoint)
    }
}

async fn probed(
    store: Arc<S3>,
    prefix: &str,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> Result<Arc<dyn Store>, TierError> {
    match probe(&*store, prefix, entropy.next_u128()).await {
        Ok(report) if report.warnings.is_empty() => Ok(store),
        Ok(report) => {
            tracing::warn!(warnings = ?report.warnings, "the object store is used with care: every put is read back");
            Ok(Arc::new(ReadBack::new(store)))
        }
        Err(error @ ProbeError::Unsafe { .. }) => Err(TierError::Unsafe(error)),
        Err(error) => {
            tracing::warn!(%error, "the object store could not be probed; hot data is served, uploads wait until it was");
            Ok(Arc::new(Proving::new(store, prefix, Arc::clone(clock), Arc::clone(entropy))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The suite of all stores over the disk that `serve` uses.
    #[tokio::test]
    async fn the_embedded_store_over_the_real_disk_conforms() {
        let root = tempfile::tempdir().unwrap();
        let store = Directory::open(Arc::new(varve_wal::NativeDisk), root.path(), 1).unwrap();
        varve_objects::conformance::run(&store, "x/y").await.unwrap();
    }
}
