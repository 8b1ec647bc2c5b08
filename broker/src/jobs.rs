//! Background jobs: what the core asked for, done over the object store and the local disk.
//!
//! A job is a future without a runtime of its own: tokio runs it in production, the simulator's executor in a simulation.
//! It decides nothing. A failure is told as such and the planner tries again, under a new uid where an object may have
//! been made.

mod archive;
mod install;
mod mend;
mod offer;
pub mod orphans;
mod reap;
mod retention;

use std::{io, path::PathBuf, sync::Arc};

use varve_common::{Clock, Disk, GroupId, Incarnation, LogIndex, ObjectKey, Offset, Term};
use varve_formats::{
    PartitionIdentity,
    command::PublishedCheckpoint,
    compression::Codec,
    keys::{CheckpointName, Key, Keys, PartitionKeys},
    manifest::Entry,
    segment::{BlockCompression, SegmentState},
    state::{Intent, Tombstone},
};
use varve_objects::{Failure, PutError, Store, Stores};
use varve_replica::{
    Job, JobKind, JobOutcome, LocalCheckpoint, Mended, SealMark, Stall, checkpoint::Captured,
    partition::RecordState,
};
use varve_snapshot::{PublishError, local, publish};
use varve_tiering::{
    LocalSegments, RangeSource, Remover, RolledSegment, SealError, SourceError, TailCache, UploadError,
    UploadKey, Uploaders, put_node,
};
use varve_wal::{ReadError, Reader};

use crate::transfer::Transfers;
pub use archive::Archives;
use mend::MendError;
pub use reap::{ReapError, Reaper};
use retention::SweepError;
pub use retention::{Retention, published};

/// What jobs work on. Clones share everything.
#[derive(Clone)]
pub struct Surroundings {
    /// The local disk.
    pub disk: Arc<dyn Disk>,
    /// The tier, as what the node keeps there for itself may use it.
    pub store: Arc<dyn Store>,
    /// The tier by class, for work that has one of its own.
    pub stores: Stores,
    /// Where objects go.
    pub keys: Keys,
    /// Put segments, each within its budgets.
    pub uploaders: Uploaders,
    /// Sealed files.
    pub local: LocalSegments,
    /// The log.
    pub wal: Reader,
    /// What of it is in memory.
    pub tail: TailCache,
    /// The data directory.
    pub data: PathBuf,
    /// How checkpoints are compressed.
    pub codec: Codec,
    /// The life in which the prefix is ours: asked before each batch of deletes. `None` where nobody else can come, in a
    /// simulation.
    pub claimed: Option<Incarnation>,
    /// Which published checkpoints stay.
    pub retention: Retention,
    /// For the time of publishing.
    pub clock: Arc<dyn Clock>,
    /// What comes from other nodes.
    pub transfers: Transfers,
    /// Files for other systems.
    pub archives: Archives,
}

/// Does a job.
pub async fn run(job: Job, at: &Surroundings) -> (GroupId, JobOutcome) {
    let (group, kind) = (job.group(), job.kind());
    let outcome = match job {
        Job::Upload { identity, intent, roll, frozen, seal, .. } => {
            let segment = rolled(identity, frozen.as_deref());
            let mut source = RangeSource::new(at.wal.clone(), group, roll).with_tail(at.tail.clone());
            if let Some(seal) = seal {
                match at.local.open(group, &segment.identity, &seal) {
                    Ok(file) => source = source.or_sealed(file),
                    Err(damaged) => tracing::error!(%group, %damaged, "sealed file is damaged"),
                }
            }
            let key = UploadKey { term: intent.term, uid: intent.uid };
            let uid = intent.uid;
            uploaded(uid, at.uploaders.uploads.upload(&segment, source, key).await)
        }
        Job::Restore { identity, intent, entry, seal, .. } => {
            let uid = intent.uid;
            uploaded(uid, at.restore(group, identity, intent, &entry, seal).await)
        }
        Job::Merge { identity, intent, entries, .. } => {
            let key = UploadKey { term: intent.term, uid: intent.uid };
            merged(entries.len(), intent.uid, at.uploaders.merges.merge(&identity, &entries, key).await)
        }
        Job::Seal { identity, roll, frozen, .. } => {
            let (base, segment) = (roll.base, rolled(identity, frozen.as_deref()));
            let source = RangeSource::new(at.wal.clone(), group, roll).with_tail(at.tail.clone());
            match at.local.seal(group, &segment, source) {
                Ok(mark) => JobOutcome::Sealed(mark),
                Err(error) => not_sealed(base, &error),
            }
        }
        Job::Unseal { seal, .. } => outcome(kind, at.local.remove(group, seal.base, seal.end), |()| {
            JobOutcome::Unsealed { base: seal.base }
        }),
        Job::CheckpointLocal { index, term, captured, .. } => {
            outcome(kind, at.write_checkpoint(group, (index, term), &captured), JobOutcome::CheckpointWritten)
        }
        Job::RemoveCheckpoint { checkpoint, .. } => {
            outcome(kind, at.remove_checkpoint(group, &checkpoint.file), |()| JobOutcome::CheckpointRemoved)
        }
        Job::Publish { identity, uid, key_term, captured, .. } => {
            let name = CheckpointName { applied_index: captured.header().applied.index, term: key_term, uid };
            outcome(kind, at.publish(identity.as_ref(), name, &captured).await, |(checkpoint, kept)| {
                JobOutcome::CheckpointPublished { checkpoint, kept }
            })
        }
        Job::Fold { identity, uid, contents, .. } => {
            let put = put_node(&*at.store, &at.keys, &identity, contents, uid).await;
            outcome(kind, put, |node| JobOutcome::Folded { node })
        }
        Job::Mend { identity, uid, leaf, range, .. } => {
            let announced = range.as_ref().map(|(intent, _)| intent.uid);
            mended(announced, at.mend(group, &identity, uid, &leaf, range).await)
        }
        job @ Job::Archive { .. } => at.archive(&job).await,
        job @ (Job::Offer { .. } | Job::Install { .. } | Job::Refetch { .. }) => at.move_files(job).await,
        Job::Delete { identity, tombstones, .. } => {
            outcome(kind, at.delete(&identity, &tombstones).await, |uids| JobOutcome::Deleted { uids })
        }
        Job::Reap { topic, pass, .. } => outcome(kind, at.reap(&topic).await, |objects| JobOutcome::Reaped {
            topic: topic.id,
            pass,
            objects,
        }),
    };
    (group, outcome)
}

fn uploaded(uid: u64, done: Result<Entry, UploadError>) -> JobOutcome {
    match done {
        Ok(entry) => JobOutcome::Uploaded { uid, entry },
        Err(error) => JobOutcome::UploadFailed { uid, stall: stall(&error), why: error.to_string() },
    }
}

fn not_sealed(base: Offset, error: &SealError) -> JobOutcome {
    let why = error.to_string();
    match error {
        SealError::Source(SourceError::Wal(ReadError::Missing { .. })) => {
            JobOutcome::SealPassed { base, why }
        }
        _ => JobOutcome::SealFailed { base, why },
    }
}

const fn stall(error: &UploadError) -> Stall {
    match error {
        UploadError::Put(PutError::Failed(failure)) => match failure {
            Failure::Retry(_) => Stall::NoAnswer,
            Failure::Busy(_) => Stall::SlowDown,
            Failure::Denied(_) => Stall::Denied,
            Failure::Invalid(_) => Stall::Refused,
            Failure::Corrupt(_) => Stall::Damaged,
            Failure::Fatal(_) => Stall::Local,
        },
        // Another uid is drawn.
        UploadError::Put(PutError::AlreadyExists) => Stall::Refused,
        UploadError::Count { .. } => Stall::Damaged,
        UploadError::Source(_) | UploadError::Write(_) => Stall::Local,
    }
}

fn merged(segments: usize, uid: u64, done: Result<Entry, impl ToString>) -> JobOutcome {
    match done {
        Ok(entry) => JobOutcome::Merged { entry, segments },
        Err(error) => JobOutcome::MergeFailed { uid, why: error.to_string() },
    }
}

fn mended(uid: Option<u64>, done: Result<Mended, MendError>) -> JobOutcome {
    match done {
        Ok(mended) => JobOutcome::Mended(Box::new(mended)),
        Err(error) => JobOutcome::MendFailed { uid, why: error.to_string() },
    }
}

fn outcome<T, E: ToString>(
    kind: JobKind,
    done: Result<T, E>,
    success: impl FnOnce(T) -> JobOutcome,
) -> JobOutcome {
    match done {
        Ok(value) => success(value),
        Err(error) => JobOutcome::Failed { kind, why: error.to_string() },
    }
}

/// Two may remove the same at once: the group's end, and the end of its topic.
fn fine_if_absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn rolled(identity: PartitionIdentity, frozen: Option<&RecordState>) -> RolledSegment {
    let state = frozen.map_or_else(SegmentState::default, |records| SegmentState {
        producers: records.producers.values().cloned().collect(),
        aborted: records.aborted.to_vec(),
        epochs: records.epochs.to_vec(),
    });
    RolledSegment { identity, state, compression: BlockCompression::WhereItPays }
}

impl Surroundings {
    /// Puts what this node holds of a range there once more; the log is asked first, then the sealed file.
    async fn restore(
        &self,
        group: GroupId,
        identity: PartitionIdentity,
        intent: Intent,
        entry: &Entry,
        seal: Option<SealMark>,
    ) -> Result<Entry, UploadError> {
        let segment = rolled(identity, None);
        let mut source = RangeSource::of_entry(self.wal.clone(), group, entry);
        if let Some(file) = seal.and_then(|seal| self.local.open(group, &segment.identity, &seal).ok()) {
            source = source.or_sealed(file);
        }
        let key = UploadKey { term: intent.term, uid: intent.uid };
        self.uploaders.repairs.upload_again(&segment, source, key, entry).await
    }

    fn write_checkpoint(
        &self,
        group: GroupId,
        at: (LogIndex, Term),
        captured: &Captured,
    ) -> Result<LocalCheckpoint, local::WriteError> {
        let encoded = captured.encode(self.codec);
        let mark = local::write(&*self.disk, &self.data, group, at, &encoded.bytes)?;
        Ok(LocalCheckpoint { index: mark.index, term: mark.term, file: mark.file, sha256: mark.sha256 })
    }

    /// Deletes what tombstones name; gives those of which all is gone.
    async fn delete(
        &self,
        identity: &PartitionIdentity,
        tombstones: &[Tombstone],
    ) -> Result<Vec<u64>, String> {
        self.reaper().may_delete().await.map_err(|error| error.to_string())?;
        let remover = Remover::new(&*self.store, &self.keys, identity);
        let mut uids = Vec::with_capacity(tombstones.len());
        let mut failed = None;
        for tombstone in tombstones {
            match remover.remove(tombstone).await {
                Ok(()) => uids.push(tombstone.uid),
                Err(error) => failed = Some(error.to_string()),
            }
        }
        match failed {
            Some(why) if uids.is_empty() => Err(why),
            _ => Ok(uids),
        }
    }

    fn remove_checkpoint(&self, group: GroupId, name: &str) -> io::Result<()> {
        fine_if_absent(self.disk.remove(&local::directory(&self.data, group).join(name)))
    }

    fn checkpoint_key(
        &self,
        incarnation: Incarnation,
        partition: Option<&PartitionIdentity>,
        name: CheckpointName,
    ) -> ObjectKey {
        self.keys.build(&match partition {
            None => Key::MetadataCheckpoint(incarnation, name),
            Some(PartitionIdentity { topic_id, partition, incarnation, .. }) => {
                let (topic_id, partition, incarnation) = (*topic_id, *partition, *incarnation);
                Key::Checkpoint(PartitionKeys { topic_id, partition, incarnation }, name)
            }
        })
    }

    /// Puts a checkpoint and reads it back whole by GET before it counts (S2); then older ones may go. Gives also the
    /// applied indexes of those that are left, where they are known.
    async fn publish(
        &self,
        identity: Option<&PartitionIdentity>,
        name: CheckpointName,
        captured: &Captured,
    ) -> Result<(PublishedCheckpoint, Option<Vec<LogIndex>>), PublishError> {
        let key = self.checkpoint_key(captured.header().identity.incarnation, identity, name);
        let encoded = captured.encode(self.codec);
        let done = publish(&*self.store, &self.keys, &key, encoded.bytes, encoded.sha256)
            .await
            .inspect_err(|_| self.retention.after_failure(&key))?;
        let checkpoint = published(captured, name, (done.bytes, done.sha256), self.clock.wall_ms());
        if let Err(error) = self.reaper().may_delete().await {
            tracing::warn!(%key, %error, "surplus checkpoints stay until the next publish");
            return Ok((checkpoint, None));
        }
        let swept = self
            .retention
            .after_publish(&*self.store, &self.keys, (&key, checkpoint.clone()), &captured.published())
            .await;
        let (kept, failed) = match swept {
            Ok(swept) => (Some(swept.kept), swept.failed.map(SweepError::from)),
            Err(error) => (None, Some(error)),
        };
        if let Some(error) = failed {
            tracing::warn!(%key, %error, "surplus checkpoints stay until the next publish");
        }
        Ok((checkpoint, kept))
    }

    /// Removes what a group that left this node has left behind.
    pub fn remove_group(&self, group: GroupId) -> io::Result<()> {
        self.local.remove_group(group)?;
        varve_wal::remove_evidence(&*self.disk, &self.data.join("wal"), group)?;
        let directory = local::directory(&self.data, group);
        let names = match self.disk.list(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            names => names?,
        };
        names.iter().try_for_each(|name| fine_if_absent(self.disk.remove(&directory.join(name))))?;
        fine_if_absent(self.disk.remove_directory(&directory))?;
        directory.parent().map_or(Ok(()), |groups| self.disk.sync_directory(groups))
    }
}
