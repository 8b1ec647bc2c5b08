//! A step towards the next file for other systems. One at a time on a node: files are made in memory.

use std::sync::Arc;

use futures_util::lock::Mutex;
use varve_compactor::archive::{
    ExportError,
    follow::{Follower, Kept, Partition, Step},
};
use varve_objects::Class;
use varve_replica::{Job, JobKind, JobOutcome};
use varve_snapshot::ClaimError;

use super::Surroundings;

/// What the node's files for other systems share. Clones share it.
#[derive(Clone)]
pub struct Archives {
    turn: Arc<Mutex<()>>,
    kept: Kept,
    /// What the records of a file take at the most.
    file_bytes_max: u64,
}

#[derive(Debug, thiserror::Error)]
enum ArchiveError {
    /// The prefix is not known to be ours.
    #[error("nothing is put: {0}")]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The announced range, or what the manifest says to be there, is not there.
    #[error("nothing is there for a file from offset {0} on, or not yet all of it")]
    Nothing(varve_common::Offset),
}

impl Archives {
    /// Files whose records take so much at the most, decompressed.
    #[must_use]
    pub fn new(file_bytes_max: u64) -> Self {
        Self { turn: Arc::default(), kept: Kept::default(), file_bytes_max }
    }
}

impl Surroundings {
    pub(super) async fn archive(&self, job: &Job) -> JobOutcome {
        let Job::Archive { identity, root, offsets, archive, look, .. } = job else {
            unreachable!("the caller has told them apart")
        };
        let of = Partition { identity, root, offsets, archive };
        match self.archive_step(of, *look).await {
            Ok(Step::Measured { plan, alone }) => {
                let skipped = plan.base.0.saturating_sub(of.archive.end.0);
                JobOutcome::ArchiveMeasured { plan, alone, skipped }
            }
            Ok(Step::Done { base, end, newest_ms, file }) => {
                JobOutcome::Archived { base, end, newest_ms, file }
            }
            Ok(Step::Nothing) => failed(&ArchiveError::Nothing(of.archive.end)),
            Err(error) => failed(&error),
        }
    }

    async fn archive_step(&self, of: Partition<'_>, look: bool) -> Result<Step, ArchiveError> {
        let _turn = self.archives.turn.lock().await;
        if of.archive.plan.is_some() {
            // A cluster that was restored elsewhere makes its own.
            self.reaper().may_delete().await?;
        }
        let store = self.stores.of(Class::Export);
        let follower = Follower {
            store: &*store,
            keys: &self.keys,
            budget: self.uploaders.background(),
            kept: &self.archives.kept,
            file_bytes_max: self.archives.file_bytes_max,
        };
        Ok(follower.step(of, look).await?)
    }
}

fn failed(error: &ArchiveError) -> JobOutcome {
    JobOutcome::Failed { kind: JobKind::Archive, why: error.to_string() }
}
