//! Background jobs: what the core asked for, done over the object store and the local disk.
//!
//! A job is a future without a runtime of its own: tokio runs it in production, the simulator's executor in a simulation.
//! It decides nothing. A failure is told as such and the planner tries again, under a new uid where an object may have
//! been made.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use varve_common::{Access, Clock, Digest, Disk, GroupId};
use varve_formats::{
    PartitionIdentity,
    command::PublishedCheckpoint,
    compression::Codec,
    keys::{CheckpointName, Key, Keys, PartitionKeys},
    manifest::FoldPlan,
    segment::{BlockCompression, SegmentState},
};
use varve_objects::{Body, Store, get_verified, put_or_confirm};
use varve_replica::{
    Job, JobKind, JobOutcome, LocalCheckpoint,
    checkpoint::{self, Captured},
    partition::{FoldContents, RecordState},
};
use varve_tiering::{LocalSegments, RangeSource, Remover, RolledSegment, UploadKey, Uploader, put_node};
use varve_wal::Reader;

use crate::driver::group_directory;

/// What jobs work on. Clones share everything.
#[derive(Clone)]
pub struct Surroundings {
    /// The local disk.
    pub disk: Arc<dyn Disk>,
    /// The tier.
    pub store: Arc<dyn Store>,
    /// Where objects go.
    pub keys: Keys,
    /// Puts segments, within a budget.
    pub uploader: Uploader,
    /// Sealed files.
    pub local: LocalSegments,
    /// The log.
    pub wal: Reader,
    /// The folder with a folder of checkpoints for each group.
    pub groups: PathBuf,
    /// How checkpoints are compressed.
    pub codec: Codec,
    /// For the time of publishing.
    pub clock: Arc<dyn Clock>,
}

/// Does a job.
pub async fn run(job: Job, at: &Surroundings) -> (GroupId, JobOutcome) {
    let (group, kind) = (job.group(), job.kind());
    let outcome = match job {
        Job::Upload { identity, intent, roll, frozen, .. } => {
            let segment = rolled(identity, frozen.as_deref());
            let source = RangeSource::new(at.wal.clone(), group, roll);
            let key = UploadKey { term: intent.term, uid: intent.uid };
            let uid = intent.uid;
            match at.uploader.upload(&segment, source, key).await {
                Ok(entry) => JobOutcome::Uploaded { uid, entry },
                Err(error) => JobOutcome::UploadFailed { uid, why: error.to_string() },
            }
        }
        Job::Seal { identity, roll, frozen, .. } => {
            let (base, segment) = (roll.base, rolled(identity, frozen.as_deref()));
            let source = RangeSource::new(at.wal.clone(), group, roll);
            match at.local.seal(group, &segment, source) {
                Ok(mark) => JobOutcome::Sealed(mark),
                Err(error) => JobOutcome::SealFailed { base, why: error.to_string() },
            }
        }
        Job::Unseal { seal, .. } => outcome(kind, at.local.remove(group, seal.base, seal.end), |()| {
            JobOutcome::Unsealed { base: seal.base }
        }),
        Job::CheckpointLocal { index, term, captured, .. } => {
            let name = format!("{:020}-{:08x}.ckpt", index.0, term.0);
            outcome(kind, at.write_checkpoint(group, &name, &captured), |sha256| {
                JobOutcome::CheckpointWritten(LocalCheckpoint { index, term, file: name, sha256 })
            })
        }
        Job::RemoveCheckpoint { checkpoint, .. } => {
            outcome(kind, at.remove_checkpoint(group, &checkpoint.file), |()| JobOutcome::CheckpointRemoved)
        }
        Job::Publish { identity, uid, key_term, captured, .. } => {
            let name = CheckpointName { applied_index: captured.header().applied.index, term: key_term, uid };
            match at.publish(identity.as_ref(), name, &captured).await {
                Ok(checkpoint) => JobOutcome::CheckpointPublished(checkpoint),
                Err(why) => JobOutcome::Failed { kind, why },
            }
        }
        Job::Fold { identity, uid, contents, .. } => {
            let put = put_node(&*at.store, &at.keys, &identity, fold_plan(contents), uid).await;
            outcome(kind, put, |node| JobOutcome::Folded { node })
        }
        Job::Delete { identity, tombstones, .. } => {
            let remover = Remover::new(&*at.store, &at.keys, &identity);
            let mut uids = Vec::with_capacity(tombstones.len());
            let mut failed = None;
            for tombstone in &tombstones {
                match remover.remove(tombstone).await {
                    Ok(()) => uids.push(tombstone.uid),
                    Err(error) => failed = Some(error.to_string()),
                }
            }
            match failed {
                Some(why) if uids.is_empty() => JobOutcome::Failed { kind, why },
                _ => JobOutcome::Deleted { uids },
            }
        }
    };
    (group, outcome)
}

fn outcome<T, E: ToString>(kind: JobKind, done: Result<T, E>, success: impl FnOnce(T) -> JobOutcome) -> JobOutcome {
    match done {
        Ok(value) => success(value),
        Err(error) => JobOutcome::Failed { kind, why: error.to_string() },
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

fn fold_plan(contents: FoldContents) -> FoldPlan {
    match contents {
        FoldContents::Entries(entries) => FoldPlan::Leaf(entries),
        FoldContents::Nodes { level, nodes } => FoldPlan::Inner { level, references: nodes },
    }
}

impl Surroundings {
    /// Temporary file, fsync, rename, directory fsync: the name appears only on whole checkpoints (T6).
    fn write_checkpoint(&self, group: GroupId, name: &str, captured: &Captured) -> io::Result<Digest> {
        let encoded = captured.encode(self.codec);
        let directory = group_directory(&self.groups, group);
        self.disk.create_directory(&directory)?;
        let temporary = directory.join(format!("{name}.tmp"));
        self.remove_if_there(&temporary)?;
        let file = self.disk.create(&temporary, Access::Buffered)?;
        file.write_at(&encoded.bytes, 0)?;
        file.sync_data()?;
        self.disk.rename(&temporary, &directory.join(name))?;
        self.disk.sync_directory(&directory)?;
        Ok(encoded.sha256)
    }

    fn remove_checkpoint(&self, group: GroupId, name: &str) -> io::Result<()> {
        self.remove_if_there(&group_directory(&self.groups, group).join(name))
    }

    fn remove_if_there(&self, path: &Path) -> io::Result<()> {
        match self.disk.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Puts a checkpoint and reads it back whole by GET before it counts (S2).
    async fn publish(
        &self,
        identity: Option<&PartitionIdentity>,
        name: CheckpointName,
        captured: &Captured,
    ) -> Result<PublishedCheckpoint, String> {
        let header = captured.header();
        let key = self.keys.build(&match identity {
            None => Key::MetadataCheckpoint(header.identity.incarnation, name),
            Some(identity) => Key::Checkpoint(
                PartitionKeys {
                    topic_id: identity.topic_id,
                    partition: identity.partition,
                    incarnation: identity.incarnation,
                },
                name,
            ),
        });
        let encoded = captured.encode(self.codec);
        let bytes = encoded.bytes.len() as u64;
        put_or_confirm(&*self.store, &key, Body::from(encoded.bytes), encoded.sha256)
            .await
            .map_err(|error| error.to_string())?;
        let read =
            get_verified(&*self.store, &key, bytes, encoded.sha256).await.map_err(|error| error.to_string())?;
        checkpoint::decode(&read).map_err(|error| format!("checkpoint does not read back: {error}"))?;
        Ok(PublishedCheckpoint {
            uid: name.uid,
            key_term: name.term,
            state_index: header.state.index,
            state_term: header.state.term,
            state_offset: header.state.offset,
            applied_index: header.applied.index,
            log_start: captured.log_start(),
            bytes,
            sha256: encoded.sha256,
            published_ms: self.clock.wall_ms(),
        })
    }

    /// Removes what a group that left this node has left behind.
    pub fn remove_group(&self, group: GroupId) -> io::Result<()> {
        self.local.remove_group(group)?;
        let directory = group_directory(&self.groups, group);
        let names = match self.disk.list(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            names => names?,
        };
        names.iter().try_for_each(|name| self.disk.remove(&directory.join(name)))?;
        self.disk.remove_directory(&directory)?;
        self.disk.sync_directory(&self.groups)
    }
}
