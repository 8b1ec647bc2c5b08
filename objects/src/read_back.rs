//! Reads back what was put, for stores that check no checksum.

use std::ops::Range;

use bytes::Bytes;
use varve_common::{Digest, ObjectKey, clock::BoxFuture};

use crate::{Body, Failure, GetError, HeadError, Page, PutError, Store, Suffix};

/// A store that lets a put succeed only after it has read the same bytes back. See [`crate::probe::Warning`].
pub struct ReadBack<S>(S);

impl<S: Store> ReadBack<S> {
    /// Wraps a store.
    pub const fn new(inner: S) -> Self {
        Self(inner)
    }

    /// A taken key is read too: it may be an earlier try of ours that was never read back, and callers take one with
    /// the right length for a success.
    async fn put(&self, key: &ObjectKey, body: Body, sha256: Digest) -> Result<(), PutError> {
        let bytes = body.bytes();
        let put = self.0.put_new(key, body, sha256).await;
        if !matches!(put, Ok(()) | Err(PutError::AlreadyExists)) {
            return put;
        }
        match self.0.get(key).await {
            Ok(found) if Digest::of(&found) == sha256 => put,
            Ok(found) if put.is_err() && found.len() as u64 != bytes => put,
            Ok(_) => Err(Failure::Corrupt(format!("object {key} reads back other than it was put")).into()),
            Err(GetError::Failed(failure)) => Err(failure.into()),
            Err(error) => Err(Failure::Retry(format!("object {key} after its put: {error}")).into()),
        }
    }
}

impl<S: Store> Store for ReadBack<S> {
    fn put_new<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Body,
        sha256: Digest,
    ) -> BoxFuture<'a, Result<(), PutError>> {
        Box::pin(self.put(key, body, sha256))
    }

    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Bytes, GetError>> {
        self.0.get(key)
    }

    fn get_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, GetError>> {
        self.0.get_range(key, range)
    }

    fn get_suffix<'a>(&'a self, key: &'a ObjectKey, bytes: u64) -> BoxFuture<'a, Result<Suffix, GetError>> {
        self.0.get_suffix(key, bytes)
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<u64, HeadError>> {
        self.0.head(key)
    }

    fn list<'a>(
        &'a self,
        folder: &'a str,
        start_after: Option<&'a ObjectKey>,
    ) -> BoxFuture<'a, Result<Page, Failure>> {
        self.0.list(folder, start_after)
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Failure>> {
        self.0.delete(key)
    }
}
