//! The object store that the configuration names.

use std::{io, path::Path, sync::Arc};

use varve_common::{Clock, Disk, Entropy};
use varve_formats::keys::Prefix;
use varve_objects::{
    Counting, Directory, Failure, RetryOptions, Retrying, S3, Store,
    counting::Counters,
    s3::{Credentials, Options},
};

use crate::config::{Config, ObjectStore};

/// A store, what it counts, and where in it this cluster lives.
pub struct Tier {
    /// With retries and counters.
    pub store: Arc<dyn Store>,
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
    Directory(#[from] io::Error),
    /// The bucket's options do not make a client.
    #[error("object store: {0}")]
    Bucket(#[from] Failure),
}

/// Opens the store. A bucket is not asked anything yet.
pub fn open(
    config: &Config,
    embedded: &Path,
    disk: &Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Tier, TierError> {
    let (store, prefix, name): (Arc<dyn Store>, _, _) = match &config.object_store {
        ObjectStore::Embedded => {
            (Arc::new(Directory::open(Arc::clone(disk), embedded)?), Prefix::new(""), format!("embedded ({})", embedded.display()))
        }
        ObjectStore::Directory(path) => {
            (Arc::new(Directory::open(Arc::clone(disk), path)?), Prefix::new(""), format!("directory {}", path.display()))
        }
        ObjectStore::S3 { bucket, prefix } => {
            let options = Options {
                bucket: bucket.clone(),
                region: config.s3.region.clone(),
                endpoint: config.s3.endpoint.clone(),
                credentials: Credentials::Chain,
            };
            let name = match &config.s3.endpoint {
                Some(endpoint) => format!("s3://{bucket}/{prefix} at {endpoint}"),
                None => format!("s3://{bucket}/{prefix}"),
            };
            (Arc::new(S3::new(options)?), Prefix::new(prefix), name)
        }
    };
    let counting = Counting::new(store);
    let counters = counting.counters();
    let store = Arc::new(Retrying::new(counting, clock, entropy, RetryOptions::default()));
    Ok(Tier { store, counters, prefix, name })
}
