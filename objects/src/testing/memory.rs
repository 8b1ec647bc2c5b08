//! Objects in a map.

use std::{
    collections::BTreeMap,
    ops::{Bound, Range},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use varve_common::{Digest, ObjectKey, clock::BoxFuture};

use crate::{
    Body, Failure, GetError, HeadError, Listed, Page, PutError, Store, Suffix, key, limits::LIST_PAGE_MAX,
};

/// A store that a restart empties. It behaves as every store does, without failures: wrap it for those.
#[derive(Default)]
pub struct MemoryStore(Mutex<BTreeMap<ObjectKey, Bytes>>);

impl MemoryStore {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<ObjectKey, Bytes>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every object, in the order of keys: for assertions.
    #[must_use]
    pub fn objects(&self) -> Vec<(ObjectKey, Bytes)> {
        self.with(|map| map.iter().map(|(key, body)| (key.clone(), body.clone())).collect())
    }

    /// Overwrites an object behind everybody's back (fault row 60).
    pub fn tamper(&self, key: &ObjectKey, body: Bytes) {
        self.with(|map| map.insert(key.clone(), body));
    }

    fn put(&self, key: &ObjectKey, body: &Body, sha256: Digest) -> Result<(), PutError> {
        key::check(key)?;
        if body.digest() != sha256 {
            return Err(Failure::Corrupt(format!("object {key} is not {sha256}")).into());
        }
        self.with(|map| {
            if map.contains_key(key) {
                return Err(PutError::AlreadyExists);
            }
            map.insert(key.clone(), body.joined());
            Ok(())
        })
    }

    fn read(&self, key: &ObjectKey) -> Result<Bytes, GetError> {
        key::check(key)?;
        self.with(|map| map.get(key).cloned()).ok_or(GetError::NotFound)
    }

    fn read_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, GetError> {
        let body = self.read(key)?;
        if range.is_empty() || range.end > body.len() as u64 {
            return Err(GetError::OutOfRange(range));
        }
        Ok(body.slice(range.start as usize..range.end as usize))
    }

    fn read_suffix(&self, key: &ObjectKey, bytes: u64) -> Result<Suffix, GetError> {
        if bytes == 0 {
            return Err(GetError::OutOfRange(0..0));
        }
        let body = self.read(key)?;
        let object_bytes = body.len() as u64;
        let from = object_bytes.saturating_sub(bytes) as usize;
        Ok(Suffix { bytes: body.slice(from..), object_bytes })
    }

    fn page(&self, folder: &str, start_after: Option<&ObjectKey>) -> Result<Page, Failure> {
        key::check_folder(folder)?;
        let from = start_after.map_or(Bound::Unbounded, Bound::Excluded);
        self.with(|map| {
            let mut found = map
                .range::<ObjectKey, _>((from, Bound::Unbounded))
                .filter(|(key, _)| key::is_within(key.as_str(), folder))
                .map(|(key, body)| Listed { key: key.clone(), bytes: body.len() as u64 });
            let objects = found.by_ref().take(LIST_PAGE_MAX).collect();
            Ok(Page { objects, more: found.next().is_some() })
        })
    }

    fn remove(&self, key: &ObjectKey) -> Result<(), Failure> {
        key::check(key)?;
        self.with(|map| map.remove(key));
        Ok(())
    }
}

impl Store for MemoryStore {
    fn put_new<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Body,
        sha256: Digest,
    ) -> BoxFuture<'a, Result<(), PutError>> {
        Box::pin(async move { self.put(key, &body, sha256) })
    }

    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Bytes, GetError>> {
        Box::pin(async move { self.read(key) })
    }

    fn get_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, GetError>> {
        Box::pin(async move { self.read_range(key, range) })
    }

    fn get_suffix<'a>(&'a self, key: &'a ObjectKey, bytes: u64) -> BoxFuture<'a, Result<Suffix, GetError>> {
        Box::pin(async move { self.read_suffix(key, bytes) })
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<u64, HeadError>> {
        Box::pin(async move {
            key::check(key)?;
            self.with(|map| map.get(key).map(|body| body.len() as u64)).ok_or(HeadError::NotFound)
        })
    }

    fn list<'a>(
        &'a self,
        folder: &'a str,
        start_after: Option<&'a ObjectKey>,
    ) -> BoxFuture<'a, Result<Page, Failure>> {
        Box::pin(async move { self.page(folder, start_after) })
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move { self.remove(key) })
    }
}
