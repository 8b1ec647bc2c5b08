//! The seam to object storage.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use varve_common::{Digest, ObjectKey, clock::BoxFuture};

use crate::{Body, Failure, GetError, HeadError, PutError};

/// The end of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suffix {
    /// The last bytes: as many as were asked for, or the whole object where it is shorter.
    pub bytes: Bytes,
    /// The length of the whole object.
    pub object_bytes: u64,
}

/// One object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: ObjectKey,
    /// Its length.
    pub bytes: u64,
}

/// A part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// At most [`crate::limits::LIST_PAGE_MAX`] objects, ascending by the bytes of their keys.
    pub objects: Vec<Listed>,
    /// Whether there may be more after the last of them.
    pub more: bool,
}

/// A bucket or something like it. See the crate's invariants.
pub trait Store: Send + Sync + 'static {
    /// Makes an object, durable on `Ok`; `AlreadyExists`, and nothing changed, where the key is taken. The store
    /// refuses bytes that `sha256` is not of (`Corrupt`), where it can tell: see [`crate::probe`].
    fn put_new<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Body,
        sha256: Digest,
    ) -> BoxFuture<'a, Result<(), PutError>>;

    /// Reads a whole object.
    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Bytes, GetError>>;

    /// Reads exactly `range`; `OutOfRange` where it is empty or reaches past the end.
    fn get_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, GetError>>;

    /// Reads the last `bytes` bytes, or the whole of a shorter object; `OutOfRange` where `bytes` is zero.
    fn get_suffix<'a>(&'a self, key: &'a ObjectKey, bytes: u64) -> BoxFuture<'a, Result<Suffix, GetError>>;

    /// The length of an object.
    fn head<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<u64, HeadError>>;

    /// The objects whose keys begin with `{folder}/` (all where `folder` is empty) and lie after `start_after`.
    fn list<'a>(
        &'a self,
        folder: &'a str,
        start_after: Option<&'a ObjectKey>,
    ) -> BoxFuture<'a, Result<Page, Failure>>;

    /// Removes an object, for good on `Ok`. Fine where there is none.
    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Failure>>;
}

impl<S: Store + ?Sized> Store for Arc<S> {
    fn put_new<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Body,
        sha256: Digest,
    ) -> BoxFuture<'a, Result<(), PutError>> {
        (**self).put_new(key, body, sha256)
    }

    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Bytes, GetError>> {
        (**self).get(key)
    }

    fn get_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, GetError>> {
        (**self).get_range(key, range)
    }

    fn get_suffix<'a>(&'a self, key: &'a ObjectKey, bytes: u64) -> BoxFuture<'a, Result<Suffix, GetError>> {
        (**self).get_suffix(key, bytes)
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<u64, HeadError>> {
        (**self).head(key)
    }

    fn list<'a>(
        &'a self,
        folder: &'a str,
        start_after: Option<&'a ObjectKey>,
    ) -> BoxFuture<'a, Result<Page, Failure>> {
        (**self).list(folder, start_after)
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Failure>> {
        (**self).delete(key)
    }
}
