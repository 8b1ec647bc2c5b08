//! Whose the prefix is, and in which of its lives.
//!
//! A claim is made create-only: of two clusters that want one prefix, one gets it. Whoever comes with an empty data
//! directory and finds a claim is a wiped node or cluster, or a stranger: it refuses (TIERING.md 8).
//!
//! ```text
//! claim/0000000001   claim/0000000002   claim/0000000003   (nobody's)
//!   founded            restored           this life          asked for by check(): 404, so nobody came after us
//! ```
//! Invariants
//! - Lives are claimed in order and without a gap: the first by who founds the cluster ([`establish`]), each later one
//!   only by who has read the claim of the life before it ([`begin`]).
//! - A claim is never deleted and never written again. So while the key of the next life is free, no life after this one
//!   was ever begun, and [`check`] has to list nothing.

use bytes::Bytes;
use varve_common::{ClusterId, Digest, Incarnation, ObjectKey, codec::DecodeError};
use varve_formats::{
    claim::{Claim, Complete, FORMAT},
    keys::{Key, ParseKeyError, Prefix},
};
use varve_objects::{Failure, GetError, PutError, Store};

use crate::{
    choose::list_all,
    limits::{CLAIMS_MAX, READS_MAX},
};

/// What this node's data directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataDirectory {
    /// Nothing: it is new, or wiped.
    Empty,
    /// It belongs to this life of this cluster.
    Of(ClusterId, Incarnation),
}

/// How a claim came to be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Established {
    /// It was made now.
    Created(Claim),
    /// It was there.
    Confirmed(Claim),
}

/// Why the prefix must not be written to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// As the failure says: whose the prefix is is not known now. Never taken for "nobody's".
    #[error(transparent)]
    Store(#[from] Failure),
    /// The operator: the data directory is empty, and the prefix holds a cluster.
    #[error(
        "the prefix holds cluster {} (incarnation {}), and this data directory is empty: run `varve restore` to \
         bring that cluster back, or choose another prefix", .0.cluster, .0.incarnation.0
    )]
    Existing(Claim),
    /// The operator: the prefix is another cluster's.
    #[error("the prefix belongs to cluster {}, not to {mine}: choose another prefix", .claim.cluster)]
    Foreign {
        /// The claim that is there.
        claim: Claim,
        /// This node's cluster.
        mine: ClusterId,
    },
    /// The process: a restore has begun a later life. Stop acknowledging and deleting.
    #[error("the cluster was restored as incarnation {}, this is {}", .claim.incarnation.0, .mine.0)]
    Superseded {
        /// The newest claim.
        claim: Claim,
        /// This node's life.
        mine: Incarnation,
    },
    /// The operator: the claim of this node's life is not there, although the life began.
    #[error("there is no claim for incarnation {}", .0.0)]
    Missing(Incarnation),
    /// The operator: a claim is there and cannot be read.
    #[error("{key} is damaged: {error}")]
    Damaged {
        /// Which.
        key: ObjectKey,
        /// Why.
        error: DecodeError,
    },
    /// The operator: the claim does not say what its key says, or lives are of several clusters.
    #[error("{0} contradicts its key or another claim")]
    Contradiction(ObjectKey),
    /// The operator: something else lies among the claims.
    #[error(transparent)]
    Stranger(#[from] ParseKeyError),
    /// The operator: the prefix was written by a later release.
    #[error("the prefix has format {0}, this release knows {FORMAT}")]
    Format(u16),
    /// The operator: more claims than there can have been restores.
    #[error("more than {CLAIMS_MAX} claims")]
    TooMany,
    /// The operator: the prefix is somebody's, and no copy of what is to be copied there.
    #[error(
        "the prefix belongs to cluster {}, which is no copy of this life of this cluster: choose an empty prefix", .0.cluster
    )]
    NoCopy(Claim),
    /// Retry: a claim was listed, or is in the way of a new one, and is not there.
    #[error("{0} was there and is not found")]
    Vanished(ObjectKey),
}

/// The lives of a cluster on a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lives {
    /// The newest claim.
    pub newest: Claim,
    /// The newest life in which every group has a verified checkpoint: restore starts from it.
    pub complete: Option<Incarnation>,
}

impl Lives {
    /// A restore that was begun and not finished: it is resumed, never skipped.
    #[must_use]
    pub fn to_resume(&self) -> Option<Incarnation> {
        let newest = self.newest.incarnation;
        let unfinished = self.complete.is_some_and(|complete| newest > complete);
        unfinished.then_some(newest)
    }
}

/// Reads who has claimed the prefix, `None` where nobody has.
pub async fn lives(store: &dyn Store, prefix: &Prefix) -> Result<Option<Lives>, ClaimError> {
    let listing = list_all(store, &prefix.claims()).await?;
    if listing.len() > CLAIMS_MAX {
        return Err(ClaimError::TooMany);
    }
    let mut claims = Vec::new();
    let mut complete = None;
    for listed in listing {
        match prefix.parse_claim(&listed.key)? {
            Key::Claim(incarnation) => claims.push(incarnation),
            Key::Complete(incarnation) => complete = complete.max(Some(incarnation)),
            _ => return Err(ClaimError::Contradiction(listed.key)),
        }
    }
    let Some(newest) = claims.iter().max() else {
        // A completion without any claim: the claim was taken away, the prefix is not nobody's.
        return complete.map_or(Ok(None), |incarnation| Err(ClaimError::Missing(incarnation)));
    };
    let newest = read(store, prefix, *newest).await?;
    if let Some(incarnation) = complete {
        let marker = read_complete(store, prefix, incarnation).await?;
        if marker.cluster != newest.cluster || !claims.contains(&incarnation) {
            return Err(ClaimError::Contradiction(prefix.complete(incarnation)));
        }
    }
    Ok(Some(Lives { newest, complete }))
}

/// Reads the claim of one life.
pub async fn read(store: &dyn Store, prefix: &Prefix, incarnation: Incarnation) -> Result<Claim, ClaimError> {
    let key = prefix.claim(incarnation);
    let claim: Claim = read_verified(store, &key, Claim::from_bytes).await?;
    if claim.incarnation != incarnation {
        return Err(ClaimError::Contradiction(key));
    }
    if claim.format > FORMAT {
        return Err(ClaimError::Format(claim.format));
    }
    Ok(claim)
}

/// Reads the completion of one life.
pub async fn completion(
    store: &dyn Store,
    prefix: &Prefix,
    incarnation: Incarnation,
) -> Result<Complete, ClaimError> {
    read_complete(store, prefix, incarnation).await
}

async fn read_complete(
    store: &dyn Store,
    prefix: &Prefix,
    incarnation: Incarnation,
) -> Result<Complete, ClaimError> {
    let key = prefix.complete(incarnation);
    let complete: Complete = read_verified(store, &key, Complete::from_bytes).await?;
    if complete.incarnation == incarnation { Ok(complete) } else { Err(ClaimError::Contradiction(key)) }
}

async fn read_verified<T>(
    store: &dyn Store,
    key: &ObjectKey,
    decode: impl Fn(&Bytes) -> Result<T, DecodeError>,
) -> Result<T, ClaimError> {
    let mut error = DecodeError { what: "never read", position: 0 };
    for _ in 0..READS_MAX {
        let bytes = match store.get(key).await {
            Ok(bytes) => bytes,
            Err(GetError::NotFound) => return Err(ClaimError::Vanished(key.clone())),
            Err(GetError::Failed(failure)) => return Err(failure.into()),
            Err(GetError::OutOfRange(_)) => {
                return Err(Failure::Invalid(format!("{key}: a whole read has no range")).into());
            }
        };
        match decode(&bytes) {
            Ok(value) => return Ok(value),
            Err(damage) => error = damage,
        }
    }
    Err(ClaimError::Damaged { key: key.clone(), error })
}

/// Makes sure that the prefix is this cluster's: claims it where nobody has, confirms the claim where it is ours.
/// `mine` is the claim that this node would make; with an empty data directory only a prefix without claims will do.
pub async fn establish(
    store: &dyn Store,
    prefix: &Prefix,
    mine: Claim,
    data: DataDirectory,
) -> Result<Established, ClaimError> {
    match lives(store, prefix).await? {
        None if mine.incarnation == Incarnation::FIRST => create(store, prefix, mine, data).await,
        // A later life is begun by its restore, and never made up afterwards: the listing is stale, or claims are gone.
        None => {
            let found = check(store, prefix, mine.cluster, mine.incarnation).await?;
            judge(found, mine, data).map(Established::Confirmed)
        }
        Some(lives) => judge(lives.newest, mine, data).map(Established::Confirmed),
    }
}

async fn create(
    store: &dyn Store,
    prefix: &Prefix,
    mine: Claim,
    data: DataDirectory,
) -> Result<Established, ClaimError> {
    match put(store, prefix, mine).await? {
        None => Ok(Established::Created(mine)),
        // The listing was stale, another was faster, or an earlier try of ours took effect.
        Some(found) if found == mine => Ok(Established::Created(mine)),
        Some(found) => judge(found, mine, data).map(Established::Confirmed),
    }
}

/// Puts a claim; gives the one that is there already.
async fn put(store: &dyn Store, prefix: &Prefix, claim: Claim) -> Result<Option<Claim>, ClaimError> {
    let bytes = claim.to_bytes();
    let sha256 = Digest::of(&bytes);
    match store.put_new(&prefix.claim(claim.incarnation), bytes.into(), sha256).await {
        Ok(()) => Ok(None),
        Err(PutError::AlreadyExists) => read(store, prefix, claim.incarnation).await.map(Some),
        Err(PutError::Failed(failure)) => Err(failure.into()),
    }
}

fn judge(found: Claim, mine: Claim, data: DataDirectory) -> Result<Claim, ClaimError> {
    match data {
        DataDirectory::Empty if found == mine => Ok(found),
        DataDirectory::Empty => Err(ClaimError::Existing(found)),
        DataDirectory::Of(cluster, _) if found.cluster != cluster => {
            Err(ClaimError::Foreign { claim: found, mine: cluster })
        }
        DataDirectory::Of(_, incarnation) if found.incarnation > incarnation => {
            Err(ClaimError::Superseded { claim: found, mine: incarnation })
        }
        DataDirectory::Of(_, incarnation) if found.incarnation < incarnation => {
            Err(ClaimError::Missing(incarnation))
        }
        DataDirectory::Of(..) => Ok(found),
    }
}

/// Asks whether the prefix is still this life's: every 30 s, and before each batch of deletes. Unlike [`establish`] it
/// never makes a claim.
///
/// It reads two keys and lists nothing, and says what a listing would say. Our own claim is there and ours: the prefix
/// was not emptied or given to another cluster. The claim of the next life is not there: lives are claimed in order,
/// create-only and for ever (see the module), so that any later life, whoever began it, would have left a claim under
/// that very key. The answers are in this order because the second one is what dates the whole: at that moment nobody
/// had come. Who comes between it and what follows is the race that a listing has as well, and the reason why a restore
/// waits a minute after its claim (TIERING.md 8). That the store does not remember "not found" is probed at the start
/// ([`varve_objects::conformance::Check::CreateOnly`]).
pub async fn check(
    store: &dyn Store,
    prefix: &Prefix,
    cluster: ClusterId,
    incarnation: Incarnation,
) -> Result<Claim, ClaimError> {
    let data = DataDirectory::Of(cluster, incarnation);
    let Some(mine) = read_if_there(store, prefix, incarnation).await? else {
        return Err(ClaimError::Missing(incarnation));
    };
    let mine = judge(mine, mine, data)?;
    let Some(next) = incarnation.next() else { return Ok(mine) };
    match read_if_there(store, prefix, next).await? {
        None => Ok(mine),
        Some(later) => judge(later, later, data),
    }
}

async fn read_if_there(
    store: &dyn Store,
    prefix: &Prefix,
    incarnation: Incarnation,
) -> Result<Option<Claim>, ClaimError> {
    match read(store, prefix, incarnation).await {
        Ok(claim) => Ok(Some(claim)),
        Err(ClaimError::Vanished(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Begins the next life: a restore's first act. A lost race is `Superseded`. The life before it must have been claimed
/// by the same cluster: a gap would hide this claim from whoever still lives that life.
pub async fn begin(store: &dyn Store, prefix: &Prefix, claim: Claim) -> Result<Established, ClaimError> {
    let previous = claim.incarnation.previous().ok_or(ClaimError::Missing(claim.incarnation))?;
    let before = read_if_there(store, prefix, previous).await?.ok_or(ClaimError::Missing(previous))?;
    if before.cluster != claim.cluster {
        return Err(ClaimError::Foreign { claim: before, mine: claim.cluster });
    }
    match put(store, prefix, claim).await? {
        None => Ok(Established::Created(claim)),
        Some(found) if found == claim => Ok(Established::Confirmed(found)),
        Some(found) => Err(ClaimError::Superseded { claim: found, mine: claim.incarnation }),
    }
}

/// Says that every group has a verified checkpoint in this life. Saying it twice is fine.
pub async fn complete(store: &dyn Store, prefix: &Prefix, marker: Complete) -> Result<(), ClaimError> {
    let (bytes, key) = (marker.to_bytes(), prefix.complete(marker.incarnation));
    let sha256 = Digest::of(&bytes);
    match store.put_new(&key, bytes.into(), sha256).await {
        Ok(()) => Ok(()),
        Err(PutError::AlreadyExists) => {
            let found = read_complete(store, prefix, marker.incarnation).await?;
            if found.cluster == marker.cluster { Ok(()) } else { Err(ClaimError::Contradiction(key)) }
        }
        Err(PutError::Failed(failure)) => Err(failure.into()),
    }
}

mod copies;
#[cfg(test)]
mod tests;

pub use copies::begin_copy;
