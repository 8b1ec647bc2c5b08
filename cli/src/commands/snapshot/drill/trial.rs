//! A restore that only tries whether it can be done, and what its errors tell.

use varve_broker::{
    config::Config,
    restore::{Bucket, Copied, RestoreError},
};
use varve_common::PartitionIndex;
use varve_compactor::{copy::CopyError, history::HistoryError};
use varve_snapshot::ClaimError;

use crate::{
    commands::restore::{Bar, Place, failed},
    failure::Failure,
};

/// What became of a restore that only tries whether it can be done.
pub enum Trial {
    /// It can.
    Restored(Copied),
    /// What is in the bucket is lost or damaged.
    Damaged(String),
    /// The bucket does not answer.
    Unread(String),
    /// It could not be tried.
    Failed(Failure),
}

/// Restores what is chosen to `target`, from a bucket, with so many partitions of the groups' own topic.
pub async fn rehearse(
    target: &Config,
    source: (Bucket, i32),
    chosen: &(dyn Fn(&str, PartitionIndex) -> bool + Sync),
) -> Trial {
    let progress = Bar::default();
    let place = match Place::open(target).await {
        Ok(place) => place,
        Err(failure) => return Trial::Failed(failure),
    };
    let done = place.fill(target, source, &progress, chosen).await;
    progress.end();
    done.map_or_else(judge, |(copied, ..)| Trial::Restored(copied))
}

/// Whether an error tells of the bucket or of the trial.
pub fn judge(why: RestoreError) -> Trial {
    let (is_damage, is_unread) = match &why {
        RestoreError::Copy(error) => (error.is_damage(), matches!(error, CopyError::Source { .. })),
        RestoreError::History(error) => (error.is_damage(), matches!(error, HistoryError::Store(_))),
        RestoreError::Segment { .. } | RestoreError::Lost(_) => (true, false),
        RestoreError::Store(_) | RestoreError::Claim(ClaimError::Store(_)) => (false, true),
        _ => (false, false),
    };
    match (is_damage, is_unread) {
        (true, _) => Trial::Damaged(why.to_string()),
        (false, true) => Trial::Unread(why.to_string()),
        (false, false) => Trial::Failed(failed(why)),
    }
}
