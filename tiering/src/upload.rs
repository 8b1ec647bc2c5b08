//! A rolled range becomes one object: one create-only PUT under the intent's key (TIERING.md 2, 3).
//!
//! The manifest entry is what the caller then proposes in a `TierAppend`. Nothing here decides: an upload that fails is
//! given up with its uid, because it may still take effect, and the next one draws another.

use std::sync::Arc;

use varve_common::Term;
use varve_formats::{
    keys::{Key, Keys, PartitionKeys},
    manifest::{Entry, EntryKind},
    segment::{SegmentName, WriteError},
};
use varve_objects::{Body, Class, PutError, Store, Stores, put_or_confirm};

use crate::{
    budget::UploadBudget,
    limits::SEGMENT_OVERHEAD_BYTES,
    seal::RolledSegment,
    source::{RangeSource, SourceError},
};

/// Which store of the cluster's registry segments go to: the first, and as yet only one.
pub const STORE_ID: u16 = 0;

/// What the intent put into the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadKey {
    /// The term of the leader that announced it.
    pub term: Term,
    /// Drawn at random.
    pub uid: u64,
}

/// Why nothing is known to be in the bucket.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The records.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The segment.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// What should replace an object does not hold what that held: Corrupt.
    #[error("{found} records are there, {expected} were in the bucket")]
    Count {
        /// So many.
        expected: u64,
        /// These.
        found: u64,
    },
    /// The store. The object may be there all the same: expire the intent and draw another uid.
    #[error(transparent)]
    Put(#[from] PutError),
}

/// Who puts segments on a node, each as what it is (TIERING.md 12). What can wait holds neither requests nor memory that
/// uploads need: it has a share of its own of both.
#[derive(Clone)]
pub struct Uploaders {
    /// Rolled ranges on their way out of the log.
    pub uploads: Uploader,
    /// Small segments that become one.
    pub merges: Uploader,
    /// Objects that scrub found damaged, put there once more.
    pub repairs: Uploader,
}

/// What segments may take in memory, together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadMemory {
    /// Of uploads.
    pub uploads: u64,
    /// Of merges and repairs.
    pub background: u64,
}

impl Uploaders {
    /// Puts to the cluster's store, under its `keys`.
    #[must_use]
    pub fn new(stores: &Stores, keys: &Keys, memory: UploadMemory) -> Self {
        let of = |class, budget: &UploadBudget| Uploader::new(stores.of(class), keys.clone(), budget.clone());
        let background = UploadBudget::new(memory.background);
        Self {
            uploads: of(Class::Upload, &UploadBudget::new(memory.uploads)),
            merges: of(Class::Merge, &background),
            repairs: of(Class::Scrub, &background),
        }
    }

    /// What segments may take in memory that are read for other work in the background.
    #[must_use]
    pub const fn background(&self) -> &UploadBudget {
        &self.merges.budget
    }
}

/// Puts segments, within one budget of memory.
#[derive(Clone)]
pub struct Uploader {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Keys,
    pub(crate) budget: UploadBudget,
}

impl Uploader {
    /// Uploads to `store` under the cluster's `keys`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, keys: Keys, budget: UploadBudget) -> Self {
        Self { store, keys, budget }
    }

    /// Reads the range, puts the object and gives the entry that commits it. Waits while other uploads hold the budget.
    pub async fn upload(
        &self,
        segment: &RolledSegment,
        source: RangeSource,
        key: UploadKey,
    ) -> Result<Entry, UploadError> {
        self.put(EntryKind::Raw, segment, source, key).await
    }

    /// The same for what takes the place of an object that is damaged: it must hold as many records as that did.
    pub async fn upload_again(
        &self,
        segment: &RolledSegment,
        source: RangeSource,
        key: UploadKey,
        replaced: &Entry,
    ) -> Result<Entry, UploadError> {
        let entry = self.put(EntryKind::Merged, segment, source, key).await?;
        let (expected, found) = (replaced.count, entry.count);
        if expected == found { Ok(entry) } else { Err(UploadError::Count { expected, found }) }
    }

    async fn put(
        &self,
        kind: EntryKind,
        segment: &RolledSegment,
        mut source: RangeSource,
        key: UploadKey,
    ) -> Result<Entry, UploadError> {
        let roll = source.roll().clone();
        let _reserved = self.budget.reserve(roll.bytes + SEGMENT_OVERHEAD_BYTES).await;
        let mut writer = segment.writer_of(kind, &roll);
        let mut pieces = Vec::new();
        while let Some(batches) = source.next_batches()? {
            pieces.extend(writer.push(batches)?);
        }
        let (rest, summary) = writer.finish(&segment.state)?;
        pieces.extend(rest);
        let identity = &segment.identity;
        let at = PartitionKeys {
            topic_id: identity.topic_id,
            partition: identity.partition,
            incarnation: identity.incarnation,
        };
        let name = SegmentName {
            base: summary.footer.base,
            last: summary.footer.last,
            term: key.term,
            uid: key.uid,
        };
        let object = self.keys.build(&match kind {
            EntryKind::Merged => Key::MergedSegment(at, name),
            _ => Key::Segment(at, name),
        });
        put_or_confirm(&*self.store, &object, Body::from(pieces), summary.sha256).await?;
        Ok(summary.footer.entry(name, STORE_ID, summary.bytes, summary.sha256))
    }
}
