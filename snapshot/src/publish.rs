//! Publishing: a checkpoint counts only once it was read back by GET and verified whole (S2).

use bytes::Bytes;
use varve_common::{Digest, ObjectKey};
use varve_formats::{checkpoint::CheckpointHeader, keys::Keys};
use varve_objects::{Failure, GetError, Put, PutError, Store, get_verified, put_or_confirm};

use crate::verify::{Damage, ReportError, check_name, expected_by_key, verify_named};

/// A checkpoint that is in the bucket and whole there: `CkptPublished` may be proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where.
    pub key: ObjectKey,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: Digest,
    /// What it says of itself, as it was read back.
    pub header: CheckpointHeader,
    /// Whether this try made it, or an earlier one whose answer was lost.
    pub put: Put,
}

/// Why a checkpoint does not count as published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The caller: what it wants to publish is not a whole checkpoint, or not the one of this key. Nothing was put.
    #[error("not put: {0}")]
    Unfit(#[from] Damage),
    /// The caller: the key is not a checkpoint's of this cluster. Nothing was put.
    #[error("not put: {0}")]
    Key(ReportError),
    /// The caller, with a new uid: the key holds something else.
    #[error("{0} holds something else")]
    Taken(ObjectKey),
    /// As the failure says: it may be there or not.
    #[error("put: {0}")]
    Put(Failure),
    /// As the error says: it was put, and did not come back. Retry, or use a new uid where it stays corrupt.
    #[error("read back: {0}")]
    ReadBack(GetError),
}

impl PublishError {
    /// Whether the same call may do better later.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Put(failure) | Self::ReadBack(GetError::Failed(failure)) => failure.is_retriable(),
            // What was just put and is not found is a stale read.
            Self::ReadBack(GetError::NotFound) => true,
            _ => false,
        }
    }
}

/// Puts a checkpoint under a key of its own, reads it back and verifies all of it.
pub async fn publish(
    store: &dyn Store,
    keys: &Keys,
    key: &ObjectKey,
    bytes: Bytes,
    sha256: Digest,
) -> Result<Published, PublishError> {
    let (expected, name) = expected_by_key(keys, key).map_err(PublishError::Key)?;
    let check = |bytes: &Bytes| -> Result<CheckpointHeader, Damage> {
        let checkpoint = verify_named(bytes, sha256, Some(&expected))?;
        check_name(&checkpoint.header, &name)?;
        Ok(checkpoint.header)
    };
    check(&bytes)?;
    let length = bytes.len() as u64;
    let put = match put_or_confirm(store, key, bytes.into(), sha256).await {
        Ok(put) => put,
        Err(PutError::AlreadyExists) => return Err(PublishError::Taken(key.clone())),
        Err(PutError::Failed(failure)) => return Err(PublishError::Put(failure)),
    };
    let read = get_verified(store, key, length, sha256).await.map_err(PublishError::ReadBack)?;
    let header = check(&read)?;
    Ok(Published { key: key.clone(), bytes: length, sha256, header, put })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use varve_common::LogIndex;
    use varve_objects::{
        Operation,
        testing::{Fault, FaultyStore, InstantClock, MemoryStore, SeededEntropy},
    };

    use super::*;
    use crate::testing::{block_on, checkpoint, key, keys};

    fn store() -> FaultyStore<MemoryStore> {
        FaultyStore::new(
            MemoryStore::default(),
            Arc::new(InstantClock::default()),
            Arc::new(SeededEntropy::new(1)),
        )
    }

    fn run(store: &dyn Store, applied: u64, bytes: Bytes) -> Result<Published, PublishError> {
        let sha256 = Digest::of(&bytes);
        block_on(publish(store, &keys(), &key(1, applied, 9), bytes, sha256))
    }

    #[test]
    fn s2_a_checkpoint_counts_only_after_it_was_read_back_whole() {
        let store = store();
        let bytes = checkpoint(1, 40, 55);
        let published = run(&store, 55, bytes.clone()).unwrap();
        assert_eq!((published.put, published.header.applied.index), (Put::Created, LogIndex(55)));
        for fault in [Fault::Altered, Fault::Truncated] {
            for _ in 0..10 {
                store.script(Operation::Get, fault);
            }
            let error = run(&store, 55, bytes.clone()).unwrap_err();
            assert!(matches!(error, PublishError::ReadBack(_)), "{fault:?}: {error}");
            while block_on(store.get(&key(1, 55, 9))).as_ref() != Ok(&bytes) {}
        }
        store.script(Operation::Get, Fault::Missing);
        let error = run(&store, 55, bytes.clone()).unwrap_err();
        assert_eq!(error, PublishError::ReadBack(GetError::NotFound));
        assert!(error.is_retriable());
    }

    #[test]
    fn s2_a_lost_answer_is_confirmed_on_the_next_try() {
        let store = store();
        store.script(Operation::Put, Fault::ErrorAfter);
        let bytes = checkpoint(1, 40, 55);
        assert!(run(&store, 55, bytes.clone()).unwrap_err().is_retriable());
        assert_eq!(run(&store, 55, bytes).unwrap().put, Put::Confirmed);
    }

    #[test]
    fn s2_a_taken_key_is_never_overwritten_or_counted() {
        let store = store();
        store.inner().tamper(&key(1, 55, 9), Bytes::from_static(b"of another length"));
        assert_eq!(run(&store, 55, checkpoint(1, 40, 55)), Err(PublishError::Taken(key(1, 55, 9))));
        // Our length, other bytes: the read-back tells.
        let bytes = checkpoint(1, 40, 55);
        store.inner().tamper(&key(1, 55, 9), vec![0; bytes.len()].into());
        assert!(matches!(run(&store, 55, bytes), Err(PublishError::ReadBack(_))));
    }

    #[test]
    fn s1_what_is_not_as_of_its_keys_a_is_not_put() {
        let store = store();
        let error = run(&store, 56, checkpoint(1, 40, 55)).unwrap_err();
        assert!(matches!(error, PublishError::Unfit(Damage::Foreign(_))), "{error}");
        let bytes = checkpoint(1, 40, 55);
        let cut = bytes.slice(..bytes.len() - 1);
        assert!(matches!(run(&store, 55, cut), Err(PublishError::Unfit(Damage::Bytes(_)))));
        assert!(store.inner().objects().is_empty());
    }

    #[test]
    fn s1_a_state_beyond_what_was_applied_is_refused() {
        let store = store();
        let error = run(&store, 55, checkpoint(1, 56, 55)).unwrap_err();
        assert!(matches!(error, PublishError::Unfit(Damage::Bytes(_))), "{error}");
    }
}
