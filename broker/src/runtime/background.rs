//! The runtime of background work: jobs and cold reads, with threads of their own, so that produce and tail fetches are
//! never starved by them.

use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};
use varve_common::{GroupId, clock::BoxFuture};
use varve_replica::{Job, JobOutcome};
use varve_tiering::Spawn;

use super::{
    mailbox::{Mail, Mailbox},
    shard::StartJob,
};
use crate::{
    jobs::{self, Surroundings},
    metrics::Metrics,
};

/// Threads for background work; they block on disks.
const THREADS: usize = 4;

/// Makes the runtime.
pub fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(THREADS).thread_name("cold").enable_all().build()
}

/// Spawns on the background runtime.
#[derive(Clone)]
pub struct Background(pub Handle);

impl Spawn for Background {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }
}

/// Runs jobs in the background and posts their outcomes.
pub struct JobRunner {
    /// Where they run.
    pub runtime: Handle,
    /// What they work on.
    pub surroundings: Arc<Surroundings>,
    /// Where outcomes go.
    pub mailbox: Mailbox,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl StartJob for JobRunner {
    fn start(&self, job: Job) {
        let (surroundings, mailbox) = (Arc::clone(&self.surroundings), self.mailbox.clone());
        self.runtime.spawn(async move {
            let (group, outcome) = jobs::run(job, &surroundings).await;
            log(group, &outcome);
            mailbox.send(Mail::JobDone(group, outcome));
        });
    }

    fn remove(&self, group: GroupId) {
        let surroundings = Arc::clone(&self.surroundings);
        self.runtime.spawn(async move {
            if let Err(error) = surroundings.remove_group(group) {
                tracing::warn!(%group, %error, "files of a deleted partition could not be removed");
            }
        });
    }
}

fn log(group: GroupId, outcome: &JobOutcome) {
    match outcome {
        JobOutcome::UploadFailed { uid, why } => tracing::warn!(%group, uid, why, "upload failed"),
        JobOutcome::SealFailed { base, why } => tracing::warn!(%group, %base, why, "sealing failed"),
        JobOutcome::Failed { kind, why } => tracing::warn!(%group, ?kind, why, "background job failed"),
        JobOutcome::CheckpointPublished(checkpoint) => {
            tracing::info!(%group, state = %checkpoint.state_index, applied = %checkpoint.applied_index, bytes = checkpoint.bytes, "checkpoint published");
        }
        done => tracing::debug!(%group, ?done, "background job done"),
    }
}
