//! The sections of a partition's checkpoint as one value.

use bytes::Bytes;
use varve_common::codec::DecodeError;

use super::{Checkpoint, CheckpointHeader, CheckpointKind, SectionId};
use crate::{
    command::PublishedCheckpoint,
    manifest::Root,
    state::{
        AbortedTransaction, ArchiveState, BucketState, EpochStart, FrozenRoll, Intent, OpenTransaction,
        ProducerEntry, RollEntry, SealEntry, Tombstone,
    },
};

/// A partition's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionCheckpoint {
    /// As of A.
    pub root: Root,
    /// As of S.
    pub producers: Vec<ProducerEntry>,
    /// As of S.
    pub open_transactions: Vec<OpenTransaction>,
    /// As of S.
    pub aborted: Vec<AbortedTransaction>,
    /// As of S.
    pub epochs: Vec<EpochStart>,
    /// As of A.
    pub bucket: BucketState,
    /// As of A.
    pub intents: Vec<Intent>,
    /// As of A.
    pub tombstones: Vec<Tombstone>,
    /// Ranges that are neither tiered nor trimmed.
    pub rolls: Vec<RollEntry>,
    /// As of A.
    pub published: Vec<PublishedCheckpoint>,
    /// Only of a local checkpoint: this node's segment files.
    pub seals: Vec<SealEntry>,
    /// Only of a local checkpoint: candidates for S.
    pub frozen: Vec<FrozenRoll>,
    /// Of a coordinator's partition, as `replica` encodes it.
    pub coordinator: Option<Bytes>,
    /// As of A; `None` where no file for other systems was ever made.
    pub archive: Option<ArchiveState>,
}

impl PartitionCheckpoint {
    /// The container. Lists that only local checkpoints have are left out where they are empty.
    #[must_use]
    pub fn into_checkpoint(self, header: CheckpointHeader) -> Checkpoint {
        let mut checkpoint = Checkpoint::new(header);
        checkpoint.put(SectionId::MANIFEST_ROOT, &self.root);
        checkpoint.put(SectionId::PRODUCERS, &self.producers);
        checkpoint.put(SectionId::OPEN_TRANSACTIONS, &self.open_transactions);
        checkpoint.put(SectionId::ABORTED_TRANSACTIONS, &self.aborted);
        checkpoint.put(SectionId::LEADER_EPOCHS, &self.epochs);
        checkpoint.put(SectionId::BUCKET_STATE, &self.bucket);
        checkpoint.put(SectionId::INTENTS, &self.intents);
        checkpoint.put(SectionId::TOMBSTONES, &self.tombstones);
        checkpoint.put(SectionId::ROLLS, &self.rolls);
        checkpoint.put(SectionId::PUBLISHED, &self.published);
        if !self.seals.is_empty() {
            checkpoint.put(SectionId::SEALS, &self.seals);
        }
        if !self.frozen.is_empty() {
            checkpoint.put(SectionId::FROZEN_ROLLS, &self.frozen);
        }
        if let Some(coordinator) = self.coordinator {
            checkpoint.sections.insert(SectionId::COORDINATOR, coordinator);
        }
        if let Some(archive) = &self.archive {
            checkpoint.put(SectionId::ARCHIVE, archive);
        }
        checkpoint
    }

    /// Reads the sections. What every partition has must be there: a missing section is damage, not emptiness.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self, DecodeError> {
        let error = |what| DecodeError { what, position: 0 };
        if checkpoint.header.kind == CheckpointKind::Metadata {
            return Err(error("the metadata group's checkpoint is not a partition's"));
        }
        let coordinator = checkpoint.sections.get(&SectionId::COORDINATOR).cloned();
        // The first release that had coordinators called theirs a partition's.
        if checkpoint.header.kind == CheckpointKind::Coordinator && coordinator.is_none() {
            return Err(error("a coordinator's state is missing"));
        }
        let bucket: BucketState = checkpoint.require(SectionId::BUCKET_STATE)?;
        if bucket.manifest_seq != checkpoint.header.manifest_seq {
            return Err(error("header and sections disagree on manifest_seq"));
        }
        Ok(Self {
            root: checkpoint.require(SectionId::MANIFEST_ROOT)?,
            producers: checkpoint.require(SectionId::PRODUCERS)?,
            open_transactions: checkpoint.require(SectionId::OPEN_TRANSACTIONS)?,
            aborted: checkpoint.require(SectionId::ABORTED_TRANSACTIONS)?,
            epochs: checkpoint.require(SectionId::LEADER_EPOCHS)?,
            bucket,
            intents: checkpoint.require(SectionId::INTENTS)?,
            tombstones: checkpoint.require(SectionId::TOMBSTONES)?,
            rolls: checkpoint.require(SectionId::ROLLS)?,
            published: checkpoint.require(SectionId::PUBLISHED)?,
            seals: checkpoint.get(SectionId::SEALS)?.unwrap_or_default(),
            frozen: checkpoint.get(SectionId::FROZEN_ROLLS)?.unwrap_or_default(),
            coordinator,
            archive: checkpoint.get(SectionId::ARCHIVE)?,
        })
    }
}
