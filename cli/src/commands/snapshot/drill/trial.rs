//! A restore that only tries whether it can be done, and what its errors tell.

use varve_broker::{
    config::Config,
    restore::{Bucket, Copied, RestoreError},
};
use varve_common::PartitionIndex;
use varve_compactor::copy::CopyError;
use varve_snapshot::{ChooseError, ClaimError};

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
        RestoreError::Copy(CopyError::Hole { .. }) => return Ok((Kind::Left, why.to_string())),
        RestoreError::Copy(error) => (error.is_damage(), error.is_unread()),
        RestoreError::History(error) => (error.is_damage(), error.is_unread()),
        RestoreError::Segment { .. } | RestoreError::Lost(_) => (true, false),
        RestoreError::Store(_)
        | RestoreError::Claim(ClaimError::Store(_))
        | RestoreError::Choose { why: ChooseError::Store(_), .. } => (false, true),
        _ => (false, false),
    };
    match (is_damage, is_unread) {
        (true, _) => Ok((Kind::Damaged, why.to_string())),
        (false, true) => Ok((Kind::Unread, why.to_string())),
        (false, false) => Err(failed(why)),
    }
}

#[cfg(test)]
mod tests {
    use varve_compactor::history::HistoryError;
    use varve_objects::Failure as Away;

    use super::*;

    #[test]
    fn a_store_that_goes_away_is_none_that_lost_something_whoever_asks_it() {
        let away = || Away::Retry("gone".to_owned());
        let histories = [
            HistoryError::Store(away()),
            HistoryError::Claim(ClaimError::Store(away())),
            HistoryError::Choose { of: "orders-0".to_owned(), error: ChooseError::Store(away()) },
        ];
        for history in histories {
            for why in [RestoreError::History(history.clone()), RestoreError::Copy(history.clone().into())] {
                let told = why.to_string();
                assert_eq!(judge(why).map_err(|_| ()), Ok((Kind::Unread, told)));
            }
        }
        assert_eq!(judge(RestoreError::Store(away())).unwrap().0, Kind::Unread);
        assert_eq!(judge(RestoreError::Lost(vec!["orders-0".to_owned()])).unwrap().0, Kind::Damaged);
        assert!(judge(RestoreError::Restless).is_err());
    }
}
