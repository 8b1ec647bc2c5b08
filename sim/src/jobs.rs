//! Background jobs on the deterministic executor.

use varve_common::{GroupId, clock::BoxFuture};
use varve_replica::{Job, JobOutcome};

/// The job as a task.
#[must_use]
pub fn start(job: Job) -> BoxFuture<'static, (GroupId, JobOutcome)> {
    let (group, kind) = (job.group(), job.kind());
    let why = "no jobs yet".to_owned();
    let outcome = match job {
        Job::Upload { intent, .. } => JobOutcome::UploadFailed { uid: intent.uid, why },
        Job::Seal { roll, .. } => JobOutcome::SealFailed { base: roll.base, why },
        _ => JobOutcome::Failed { kind, why },
    };
    Box::pin(async move { (group, outcome) })
}

/// Whether it did not succeed.
#[must_use]
pub const fn is_failure(outcome: &JobOutcome) -> bool {
    matches!(outcome, JobOutcome::UploadFailed { .. } | JobOutcome::SealFailed { .. } | JobOutcome::Failed { .. })
}
