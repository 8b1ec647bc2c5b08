//! The runtime of background work: jobs and cold reads, with threads of their own, so that produce and tail fetches are
//! never starved by them.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    time::Instant,
};
use varve_common::{GroupId, Monotonic, clock::BoxFuture};
use varve_consensus::Fetch;
use varve_replica::{Job, JobKind, JobOutcome, ReapPass};
use varve_tiering::Spawn;

use super::{
    mailbox::{Mail, Mailbox},
    shard::StartJob,
};
use crate::{
    driver,
    jobs::{self, Surroundings},
    metrics::{Handles, Metrics, Stalls},
};

/// Threads for background work; they block on disks.
const THREADS: usize = 4;

/// How nice these threads are, in steps of nice(2), others being at 0: where processors are short, about a third of a hot thread's
/// share.
const NICENESS: i32 = 5;

/// Makes the runtime.
pub fn runtime() -> std::io::Result<Runtime> {
    let begin = || {
        // Where it is refused they share alike.
        let _ = rustix::process::setpriority_process(None, NICENESS);
    };
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(THREADS).thread_name("cold").on_thread_start(begin).enable_all().build()
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
        let (metrics, began) = (Arc::clone(&self.metrics), Instant::now());
        let seed_bytes = if let Job::Install { checkpoint, .. } = &job { checkpoint.bytes } else { 0 };
        self.runtime.spawn(async move {
            let (group, outcome) = jobs::run(job, &surroundings).await;
            log(group, &outcome);
            let ended = Ended { took: began.elapsed(), wall_ms: surroundings.clock.wall_ms(), seed_bytes };
            count(&metrics.handles, &outcome, &ended);
            watch_stalls(&metrics.stalls, group, &outcome, surroundings.clock.monotonic());
            mailbox.send(Mail::JobDone(group, outcome));
        });
    }

    fn fetch(&self, group: GroupId, fetch: Fetch) {
        let (surroundings, mailbox) = (Arc::clone(&self.surroundings), self.mailbox.clone());
        self.runtime.spawn(async move {
            mailbox.send(Mail::Peer(driver::fetched(&surroundings.wal, group, fetch), None));
        });
    }

    fn sweep(&self, group: GroupId) {
        let (surroundings, mailbox) = (Arc::clone(&self.surroundings), self.mailbox.clone());
        self.runtime.spawn(async move {
            if let Err(error) = surroundings.remove_group(group) {
                // What stays is rubbish, and no reason to wait.
                tracing::warn!(%group, %error, "files of a replica that has left could not be removed");
            }
            mailbox.send(Mail::Event(Box::new(driver::Event::Swept(group))));
        });
    }
}

fn watch_stalls(stalls: &Stalls, group: GroupId, outcome: &JobOutcome, now: Monotonic) {
    match outcome {
        JobOutcome::Uploaded { .. } => stalls.end(group),
        JobOutcome::UploadFailed { stall, .. } => stalls.begin(group, *stall, now),
        _ => {}
    }
}

/// What is counted of a job beside its outcome.
struct Ended {
    took: Duration,
    wall_ms: i64,
    /// Bytes of the checkpoint that it was to bring.
    seed_bytes: u64,
}

fn count(handles: &Handles, outcome: &JobOutcome, ended: &Ended) {
    match outcome {
        JobOutcome::Uploaded { entry, .. } => {
            handles.uploads.inc();
            handles.uploaded.inc_by(entry.length);
            handles.upload_latency.observe(ended.took.as_secs_f64());
        }
        JobOutcome::UploadFailed { .. } => {
            handles.upload_errors.inc();
        }
        JobOutcome::Merged { entry, segments } => {
            handles.merges.inc();
            handles.merged_segments.inc_by(*segments as u64);
            handles.merged.inc_by(entry.length);
        }
        JobOutcome::Mended(mended) if !mended.merged().is_empty() => {
            handles.merges.inc();
            handles.merged_segments.inc_by(mended.merged().len() as u64);
            handles.merged.inc_by(mended.exchanged.as_ref().map_or(0, |(_, entry)| entry.length));
        }
        JobOutcome::MergeFailed { .. } => {
            handles.merge_errors.inc();
        }
        JobOutcome::Archived { file: Some(file), .. } => {
            handles.archive_files.inc();
            handles.archive_bytes.inc_by(file.bytes);
        }
        JobOutcome::ArchiveMeasured { skipped, .. } => {
            handles.archive_skipped.inc_by(*skipped);
        }
        JobOutcome::Archived { base, end, file: None, .. } => {
            handles.archive_skipped.inc_by(end.0 - base.0);
        }
        JobOutcome::Failed { kind: JobKind::Archive, .. } => {
            handles.archive_errors.inc();
        }
        JobOutcome::CheckpointPublished { checkpoint, .. } => {
            handles.snapshots.inc();
            handles.raft_snapshot_bytes.inc_by(checkpoint.bytes);
            handles.snapshot_last.set(checkpoint.published_ms as f64 / 1000.0);
        }
        JobOutcome::Deleted { uids } => {
            handles.deleted_objects.inc_by(uids.len() as u64);
        }
        JobOutcome::Reaped { objects, pass, .. } => {
            handles.deleted_objects.inc_by(*objects);
            handles.topics_reaped.inc_by(u64::from(*pass == ReapPass::Final));
        }
        JobOutcome::CheckpointWritten(_) => {
            handles.raft_snapshots.inc();
            handles.raft_snapshot_last.set(ended.wall_ms as f64 / 1000.0);
        }
        JobOutcome::Installable(_) => {
            handles.raft_seeds.inc();
            handles.raft_seed_bytes.inc_by(ended.seed_bytes);
        }
        JobOutcome::Failed { kind: JobKind::Publish, .. } => {
            handles.snapshot_errors.inc();
        }
        _ => {}
    }
}

fn log(group: GroupId, outcome: &JobOutcome) {
    match outcome {
        JobOutcome::UploadFailed { uid, stall, why } => {
            tracing::warn!(%group, uid, stall = stall.name(), why, "upload failed");
        }
        JobOutcome::Merged { entry, segments } => {
            tracing::info!(%group, base = %entry.base, segments, bytes = entry.length, "small segments merged");
        }
        JobOutcome::Mended(mended) => {
            let (base, last) = (mended.node.base, mended.node.last);
            tracing::info!(%group, %base, %last, "a leaf of the manifest gives way to another");
        }
        JobOutcome::MendFailed { why, .. } => {
            tracing::warn!(%group, why, "a leaf of the manifest was not mended")
        }
        JobOutcome::MergeFailed { uid, why } => tracing::warn!(%group, uid, why, "merging failed"),
        JobOutcome::ArchiveMeasured { plan, skipped, .. } if *skipped > 0 => {
            tracing::warn!(%group, base = %plan.base, skipped, "records are in no file of the archive: they were trimmed first");
        }
        JobOutcome::Archived { base, end, file: None, .. } => {
            tracing::warn!(%group, %base, %end, "records are in no file of the archive that this node has made: they were trimmed, or files of others hold them");
        }
        JobOutcome::SealFailed { base, why } => tracing::warn!(%group, %base, why, "sealing failed"),
        JobOutcome::Failed { kind, why } => tracing::warn!(%group, ?kind, why, "background job failed"),
        JobOutcome::CheckpointPublished { checkpoint, .. } => {
            tracing::info!(%group, state = %checkpoint.state_index, applied = %checkpoint.applied_index, bytes = checkpoint.bytes, "checkpoint published");
        }
        JobOutcome::Reaped { topic, pass, objects } => {
            tracing::info!(%topic, ?pass, objects, "objects of a deleted topic are gone");
        }
        done => tracing::debug!(%group, ?done, "background job done"),
    }
}
