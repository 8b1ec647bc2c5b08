//! The snapshots of the cluster that has claimed the prefix, found by listing.

use std::{path::Path, sync::Arc};

use varve_broker::{
    config::{Config, ObjectStore},
    runtime::clock::{SystemClock, SystemEntropy},
};
use varve_common::{ObjectKey, TopicId};
use varve_formats::{
    checkpoint::{CheckpointHeader, PEEK_BYTES},
    keys::{CheckpointName, Key, Keys, PartitionKeys, Prefix},
};
use varve_objects::{Directory, Failure as StoreFailure, GetError, Listed, Retrying, S3, Store};
use varve_snapshot::{claim, list_all, verify};

use super::read_only::ReadOnlyDisk;
use crate::failure::Failure;

/// The object store, and whose snapshots are in it.
pub struct Catalog {
    store: Arc<dyn Store>,
    keys: Keys,
}

/// A snapshot as its key tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub key: ObjectKey,
    pub bytes: u64,
    pub name: CheckpointName,
    pub incarnation: u32,
    /// `None` for the metadata group.
    pub partition: Option<(TopicId, i32)>,
}

impl Snapshot {
    /// What `list` prints and `show` takes.
    pub fn uid(&self) -> String {
        format!("{:016x}", self.name.uid)
    }

    fn is(&self, id: &str) -> bool {
        self.key.as_str() == id || self.uid() == id
    }

    /// Metadata first, then by partition; the newest of each first.
    fn order(&self) -> impl Ord + use<> {
        let newest_first = std::cmp::Reverse((self.incarnation, self.name));
        (self.partition, newest_first)
    }
}

impl Catalog {
    /// Opens the configured store and reads who has claimed it.
    pub async fn open(config: &Config) -> Result<Self, Failure> {
        let (store, prefix) = open_store(config)?;
        let lives = claim::lives(&store, &prefix).await;
        let lives = lives.map_err(|why| Failure::failed(why, "check --object-store and its credentials"))?;
        let Some(lives) = lives else {
            let what = format!("no cluster has claimed {}", describe(config));
            return Err(Failure::failed(
                what,
                "name the store of a cluster with --data-dir or --object-store",
            ));
        };
        let keys = prefix.cluster(lives.newest.cluster);
        Ok(Self { store, keys })
    }

    /// Every snapshot, of all incarnations.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, Failure> {
        let mut snapshots = Vec::new();
        for listed in list_all(&self.store, &self.keys.metadata()).await.map_err(unreadable)? {
            snapshots.extend(self.snapshot(&listed));
        }
        self.partition_snapshots(&mut snapshots).await.map_err(unreadable)?;
        snapshots.sort_by_key(Snapshot::order);
        Ok(snapshots)
    }

    /// Steps from partition to partition, over their segments: each is listed for its checkpoints only.
    async fn partition_snapshots(&self, snapshots: &mut Vec<Snapshot>) -> Result<(), StoreFailure> {
        let all = format!("{}/p", self.keys.root().trim_end_matches('/'));
        let mut start_after: Option<ObjectKey> = None;
        loop {
            let page = self.store.list(&all, start_after.as_ref()).await?;
            let Some(last) = page.objects.last() else { return Ok(()) };
            let mut behind = last.key.clone();
            let mut seen = None;
            for listed in &page.objects {
                let Some(at) = self.partition_of(&listed.key).filter(|at| seen != Some(*at)) else {
                    continue;
                };
                seen = Some(at);
                for listed in list_all(&self.store, &self.keys.checkpoints(at)).await? {
                    snapshots.extend(self.snapshot(&listed).filter(|snapshot| !snapshots.contains(snapshot)));
                }
                behind = self.behind(at);
            }
            if !page.more {
                return Ok(());
            }
            start_after = Some(behind.max(last.key.clone()));
        }
    }

    fn partition_of(&self, key: &ObjectKey) -> Option<PartitionKeys> {
        match self.keys.parse(key).ok()? {
            Key::Segment(at, _) | Key::MergedSegment(at, _) | Key::Node(at, _) | Key::Checkpoint(at, _) => {
                Some(at)
            }
            _ => None,
        }
    }

    /// A key behind all of a partition's: no folder of it sorts behind this.
    fn behind(&self, at: PartitionKeys) -> ObjectKey {
        ObjectKey::new(format!("{}/zzzz", self.keys.directory(at).trim_end_matches('/')))
    }

    fn snapshot(&self, listed: &Listed) -> Option<Snapshot> {
        let (name, incarnation, partition) = match self.keys.parse(&listed.key).ok()? {
            Key::MetadataCheckpoint(incarnation, name) => (name, incarnation, None),
            Key::Checkpoint(at, name) => (name, at.incarnation, Some((at.topic_id, at.partition.0))),
            _ => return None,
        };
        let (key, bytes, incarnation) = (listed.key.clone(), listed.bytes, incarnation.0);
        Some(Snapshot { key, bytes, name, incarnation, partition })
    }

    /// The snapshot of this key or uid.
    pub async fn find(&self, id: &str) -> Result<Snapshot, Failure> {
        let found = self.snapshots().await?.into_iter().find(|snapshot| snapshot.is(id));
        found.ok_or_else(|| Failure::failed(format!("no snapshot {id}"), "see `varve snapshot list`"))
    }

    /// What a snapshot says of itself at its beginning, unverified; `None` where that is damaged or gone.
    pub async fn peek(&self, snapshot: &Snapshot) -> Result<Option<CheckpointHeader>, Failure> {
        let range = 0..snapshot.bytes.min(PEEK_BYTES);
        match self.store.get_range(&snapshot.key, range).await {
            Ok(beginning) => Ok(CheckpointHeader::peek(beginning).ok()),
            Err(GetError::NotFound | GetError::OutOfRange(_)) => Ok(None),
            Err(GetError::Failed(failure)) => Err(unreadable(failure)),
        }
    }

    /// Reads and verifies all of it.
    pub async fn report(&self, snapshot: &Snapshot) -> Result<verify::Report, verify::ReportError> {
        verify::report_object(&self.store, &self.keys, &snapshot.key).await
    }
}

/// What cannot be read is an error, never "there is none".
pub fn unreadable(failure: impl std::fmt::Display) -> Failure {
    Failure::failed(failure, "try again when the object store answers")
}

fn describe(config: &Config) -> String {
    match &config.object_store {
        ObjectStore::Embedded => format!("the object store in {}", config.data_directory.display()),
        ObjectStore::Directory(path) => path.display().to_string(),
        ObjectStore::S3 { bucket, prefix } => format!("s3://{bucket}/{prefix}"),
    }
}

/// The store that the configuration names, and the cluster's place in it; never written.
pub fn open_store(config: &Config) -> Result<(Arc<dyn Store>, Prefix), Failure> {
    match &config.object_store {
        ObjectStore::Embedded => Ok((directory(&config.data_directory.join("objects"))?, Prefix::default())),
        ObjectStore::Directory(path) => Ok((directory(path)?, Prefix::default())),
        ObjectStore::S3 { bucket, prefix } => Ok((open_other(config, bucket)?, Prefix::new(prefix))),
    }
}

/// A bucket that the same flags reach.
pub fn open_other(config: &Config, bucket: &str) -> Result<Arc<dyn Store>, Failure> {
    let store =
        S3::new(config.s3.options(bucket)).map_err(|why| Failure::failed(why, "check the --s3 flags"))?;
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::default()));
    Ok(Arc::new(Retrying::new(store, clock, entropy, config.s3.retries())))
}

fn directory(path: &Path) -> Result<Arc<dyn Store>, Failure> {
    let store = Directory::open(Arc::new(ReadOnlyDisk), path, 0);
    let advice = "name the data directory with --data-dir, or the store with --object-store";
    Ok(Arc::new(store.map_err(|why| Failure::failed(why, advice))?))
}
