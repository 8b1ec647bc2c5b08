//! A restore that only tries whether it can be done, and what its errors tell.

use varve_broker::{
    config::Config,
    restore::{Bucket, Copied, RestoreError},
};
use varve_common::PartitionIndex;
use varve_compactor::{copy::CopyError, history::HistoryError};
use varve_snapshot::ClaimError;

use super::report::Kind;
use crate::{
    commands::restore::{Bar, Place, failed},
    failure::Failure,
};

/// What the bucket lacks, and how that is counted.
pub type Problem = (Kind, String);

/// Restores what is chosen to `target`, from a bucket, with so many partitions of the groups' own topic. Fails where it could not be
/// tried.
pub async fn rehearse(
    target: &Config,
    source: (Bucket, i32),
    chosen: &(dyn Fn(&str, PartitionIndex) -> bool + Sync),
) -> Result<Result<Copied, Problem>, Failure> {
    let progress = Bar::default();
    let done = Place::open(target).await?.fill(target, source, &progress, chosen).await;
    progress.end();
    match done {
        Ok((copied, ..)) => Ok(Ok(copied)),
        Err(why) => judge(why).map(Err),
    }
}

/// What an error tells of the bucket; else it is one of the trial.
pub fn judge(why: RestoreError) -> Result<Problem, Failure> {
    let (is_damage, is_unread) = match &why {
        RestoreError::Copy(error) => (error.is_damage(), matches!(error, CopyError::Source { .. })),
        RestoreError::History(error) => (error.is_damage(), matches!(error, HistoryError::Store(_))),
        RestoreError::Segment { .. } | RestoreError::Lost(_) => (true, false),
        RestoreError::Store(_) | RestoreError::Claim(ClaimError::Store(_)) => (false, true),
        _ => (false, false),
    };
    match (is_damage, is_unread) {
        (true, _) => Ok((Kind::Damaged, why.to_string())),
        (false, true) => Ok((Kind::Unread, why.to_string())),
        (false, false) => Err(failed(why)),
    }
}
