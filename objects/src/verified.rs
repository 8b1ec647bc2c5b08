//! What a caller does with a store's answers.

use bytes::Bytes;
use varve_common::{Digest, ObjectKey};

use crate::{Body, Failure, GetError, HeadError, PutError, Store, limits::VERIFIED_READS_MAX};

/// How an object of ours came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// This try made it.
    Created,
    /// It was there with our length: an earlier try of ours took effect although its answer was lost.
    Confirmed,
}

/// Puts an object whose key holds a uid that no one else draws, so that a taken key with our length is our own doing
/// (FAULTS T41). A taken key with another length stays `AlreadyExists`: choose a new uid.
pub async fn put_or_confirm(
    store: &dyn Store,
    key: &ObjectKey,
    body: Body,
    sha256: Digest,
) -> Result<Put, PutError> {
    let bytes = body.bytes();
    match store.put_new(key, body, sha256).await {
        Ok(()) => return Ok(Put::Created),
        Err(PutError::AlreadyExists) => {}
        Err(error) => return Err(error),
    }
    match store.head(key).await {
        Ok(found) if found == bytes => Ok(Put::Confirmed),
        Ok(_) => Err(PutError::AlreadyExists),
        Err(HeadError::NotFound) => {
            Err(Failure::Retry(format!("object {key} is said to exist and not to exist")).into())
        }
        Err(HeadError::Failed(failure)) => Err(failure.into()),
    }
}

/// Reads a whole object that has `bytes` bytes and the SHA-256 `sha256`. Others are never handed out: they are asked
/// for again, in case the way here spoiled them, and then they are `Corrupt`.
pub async fn get_verified(
    store: &dyn Store,
    key: &ObjectKey,
    bytes: u64,
    sha256: Digest,
) -> Result<Bytes, GetError> {
    let mut found = (0, Digest::default());
    for _ in 0..VERIFIED_READS_MAX {
        let body = store.get(key).await?;
        found = (body.len() as u64, Digest::of(&body));
        if found == (bytes, sha256) {
            return Ok(body);
        }
    }
    let (length, digest) = found;
    let reason = format!("object {key}: {length} bytes with {digest}, not {bytes} with {sha256}");
    Err(Failure::Corrupt(reason).into())
}
