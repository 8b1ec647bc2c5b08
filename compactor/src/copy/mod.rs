//! A cluster's history as another cluster's, in another place: for `varve restore --to` and `varve snapshot drill`.
//!
//! ```text
//!  source (read only)                                    destination: the first life of a new cluster
//!    checkpoint ── manifest ── segments of all lives ──>   segments ── manifest ── checkpoint      partition by partition
//!                              tail behind it        ──>   tail
//!    metadata                                        ──────────────────────────────> metadata      last
//! ```
//! Objects name their cluster and their life, and readers hold that against what they look for. So a copy is made of other
//! bytes: the segment's footer ([`rehomed`]), the nodes of the manifest, whose entries say the SHA-256 of segments, and the
//! checkpoint with its root. Lengths and all records stay as they are. What comes of it is a prefix like any other: nothing that
//! reads, verifies or collects has to know that it is a copy.
//!
//! Invariants
//! - Every object is held against the checksum that names it before it is copied; what is not whole is not copied, and the
//!   copy does not come to its end.
//! - Keys follow from the source's and are created once. A copy that is begun anew holds what it finds against the source's
//!   checksum, by the way back of [`rehomed`], and takes it; anything else under such a key is told and left alone.
//! - An object is put after all that it names, the metadata after everything: a prefix without metadata is a copy that did not
//!   come to its end, and nothing can be restored from it.
//! - The source may live meanwhile: where something is gone the partition is looked at again under its newest checkpoint, and an
//!   object that was overtaken by the one behind it has a while to come. Where it does not come, and nothing else does, the source
//!   has ended: what is before the hole is copied, what is behind it is left, and that is told.
//! - Memory: [`BYTES_MAX`] of segments, of each partition that is copied one node of the manifest a level, of each that waits for what is
//!   missing the names of its tail. Requests: [`SEGMENTS_AT_ONCE`] for each of [`PARTITIONS_AT_ONCE`], however many the caller begins.

mod partition;
#[cfg(test)]
mod tests;

use std::{ops::Range, sync::Arc};

use varve_common::{Clock, ClusterId, Incarnation, ObjectKey, Offset};
use varve_formats::{
    checkpoint::{Checkpoint, SectionId},
    compression::Codec,
    keys::{Key, Keys, Prefix},
    segment::rehomed,
};
use varve_objects::{Body, Failure, GetError, Store};
use varve_replica::metadata::MetadataState;
use varve_snapshot::{ChooseError, PublishError, Which, choose, publish};
use varve_tiering::UploadBudget;

use crate::history::{History, HistoryError, Trouble};

pub use partition::CopiedPartition;

/// Bytes of segments that are on their way at a time, for all partitions together.
pub const BYTES_MAX: u64 = 192 << 20;
/// Partitions that are read and copied at a time, beside those that wait.
pub const PARTITIONS_AT_ONCE: u64 = 8;
/// Segments of one partition that are on their way at a time.
pub const SEGMENTS_AT_ONCE: usize = 4;
/// The life that a copy is.
pub const LIFE: Incarnation = Incarnation::FIRST;

/// Why history is not copied. What was copied stays, and is used by the next try.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// The source's history cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// An object that the source's history names.
    #[error("{key}: {trouble}")]
    Source {
        /// Which.
        key: ObjectKey,
        /// What is wrong with it.
        trouble: Trouble,
    },
    /// Something lies behind what is not there, and it did not come for long enough, while more came behind it.
    #[error("{of}: what begins at {} does not follow: offsets {} to {} are in no object, and the source goes on behind them", .missing.end, .missing.start, .missing.end)]
    Hole {
        /// Of which partition.
        of: String,
        /// What is not there.
        missing: Range<Offset>,
    },
    /// The operator: the destination has something else under a key of the copy.
    #[error("{0} is there, and is not what would be copied there")]
    Taken(ObjectKey),
    /// As the failure says: the destination.
    #[error("{key}: {failure}")]
    Destination {
        /// Which object.
        key: ObjectKey,
        /// Why.
        failure: Failure,
    },
    /// A checkpoint is not in the destination.
    #[error("{key}: {why}")]
    Publish {
        /// Which.
        key: ObjectKey,
        /// Why.
        why: PublishError,
    },
    /// The caller, with a later release: no release writes them.
    #[error("an object that several partitions share")]
    Pack,
}

impl CopyError {
    /// Whether an object of the source is certainly lost or damaged.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Source { trouble, .. } => trouble.is_damage(),
            Self::Hole { .. } => true,
            Self::History(error) => error.is_damage(),
            _ => false,
        }
    }

    /// Whether it is about what the source holds, and not about where that is copied to.
    #[must_use]
    pub const fn is_of_source(&self) -> bool {
        matches!(self, Self::History(_) | Self::Source { .. } | Self::Hole { .. })
    }

    /// Whether the source did not answer, so that nobody knows.
    #[must_use]
    pub const fn is_unread(&self) -> bool {
        match self {
            Self::Source { trouble, .. } => !trouble.is_damage(),
            Self::History(error) => error.is_unread(),
            _ => false,
        }
    }
}

/// Copies one history. Clones share the budget.
#[derive(Clone)]
pub struct Copier {
    source: Arc<History>,
    store: Arc<dyn Store>,
    keys: Keys,
    budget: UploadBudget,
    /// One for each partition that is copied now.
    places: UploadBudget,
    /// Whether something of an earlier try may be there.
    resumes: bool,
    clock: Arc<dyn Clock>,
}

impl Copier {
    /// From `source` to a cluster's place in `store`.
    #[must_use]
    pub fn new(
        source: Arc<History>,
        store: Arc<dyn Store>,
        keys: Keys,
        resumes: bool,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (budget, places) = (UploadBudget::new(BYTES_MAX), UploadBudget::new(PARTITIONS_AT_ONCE));
        Self { source, store, keys, budget, places, resumes, clock }
    }

    /// The same with newer metadata of the source.
    #[must_use]
    pub fn with(&self, source: Arc<History>) -> Self {
        Self { source, ..self.clone() }
    }

    /// What is copied.
    #[must_use]
    pub const fn source(&self) -> &Arc<History> {
        &self.source
    }

    /// Ends the copy: the source's metadata as `state` has it, which may know of more than the source's checkpoint.
    pub async fn metadata(&self, state: &MetadataState) -> Result<(), CopyError> {
        let found = self.source.metadata();
        let mut header = found.header.clone();
        header.identity.cluster = self.keys.cluster();
        header.identity.incarnation = LIFE;
        let Ok(Key::MetadataCheckpoint(_, name)) = self.source.keys().parse(&found.candidate.key) else {
            let trouble = Trouble::Damaged("it is no checkpoint of the metadata".to_owned());
            return Err(CopyError::Source { key: found.candidate.key.clone(), trouble });
        };
        let mut checkpoint = Checkpoint::new(header);
        let state = state.clone().rehomed(self.keys.cluster(), LIFE);
        checkpoint.sections.insert(SectionId::METADATA_IMAGE, state.encode());
        self.publish(self.keys.build(&Key::MetadataCheckpoint(LIFE, name)), &checkpoint).await
    }

    /// Puts a checkpoint and reads it back.
    async fn publish(&self, key: ObjectKey, checkpoint: &Checkpoint) -> Result<(), CopyError> {
        let bytes = checkpoint.encode(Codec::Zstd);
        let sha256 = varve_common::Digest::of(&bytes);
        match publish(&*self.store, &self.keys, &key, bytes, sha256).await {
            Ok(_) => Ok(()),
            Err(PublishError::Taken(_)) => Err(CopyError::Taken(key)),
            Err(why) => Err(CopyError::Publish { key, why }),
        }
    }

    /// Whether a checkpoint is in the destination, whole.
    async fn has(&self, key: &ObjectKey) -> Result<bool, CopyError> {
        match choose::read(&*self.store, &self.keys, key).await {
            Ok(Ok(_)) => Ok(true),
            Err(ChooseError::Vanished(_)) => Ok(false),
            Ok(Err(_)) => Err(CopyError::Taken(key.clone())),
            Err(ChooseError::Store(failure)) => Err(CopyError::Destination { key: key.clone(), failure }),
            Err(_) => Err(CopyError::Taken(key.clone())),
        }
    }
}

/// Whether a copy to this place has come to its end: its metadata is there.
pub async fn is_whole(store: &dyn Store, prefix: &Prefix, cluster: ClusterId) -> Result<bool, Failure> {
    let folder = choose::folder(&prefix.cluster(cluster), Which::Metadata, LIFE);
    Ok(!store.list(&folder, None).await?.objects.is_empty())
}
