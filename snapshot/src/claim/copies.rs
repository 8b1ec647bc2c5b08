//! A prefix that becomes the home of a copy: a cluster of its own, whose first life is what another's bucket held.

use varve_common::Incarnation;
use varve_formats::{claim::Claim, keys::Prefix};
use varve_objects::Store;

use super::{ClaimError, Established, lives, put, read};

/// Claims an empty prefix for a copy, or finds the claim of the same copy that was begun before. Whoever comes to a prefix of
/// anybody else, or of a copy of another life, is refused: what lies there would be mixed with what is to come.
pub async fn begin_copy(store: &dyn Store, prefix: &Prefix, mine: Claim) -> Result<Established, ClaimError> {
    let found = match lives(store, prefix).await? {
        None => match put(store, prefix, mine).await? {
            None => return Ok(Established::Created(mine)),
            Some(found) => found,
        },
        Some(_) => read(store, prefix, Incarnation::FIRST).await?,
    };
    match (found.origin, mine.origin) {
        (Some(origin), Some(wanted)) if origin == wanted => Ok(Established::Confirmed(found)),
        _ => Err(ClaimError::NoCopy(found)),
    }
}
