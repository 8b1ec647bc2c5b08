//! Counts requests, failures and bytes by operation.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use varve_common::{Digest, ObjectKey, clock::BoxFuture};

use crate::{Body, Failure, GetError, HeadError, Operation, Page, PutError, Store, Suffix};

/// What was asked of a store so far, for one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests begun.
    pub requests: u64,
    /// Requests that ended in a [`Failure`]: "taken", "not there" and "out of range" are answers.
    pub failures: u64,
    /// Bytes of bodies sent by puts that succeeded and received by gets that did.
    pub bytes: u64,
}

#[derive(Default)]
struct Cell {
    requests: AtomicU64,
    failures: AtomicU64,
    bytes: AtomicU64,
}

/// The counts of a store, shared by whoever shows them.
#[derive(Default)]
pub struct Counters([Cell; Operation::ALL.len()]);

impl Counters {
    /// The counts so far, by operation.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<Operation, Count> {
        let read = |cell: &Cell| Count {
            requests: cell.requests.load(Ordering::Relaxed),
            failures: cell.failures.load(Ordering::Relaxed),
            bytes: cell.bytes.load(Ordering::Relaxed),
        };
        Operation::ALL.iter().map(|&operation| (operation, read(self.cell(operation)))).collect()
    }

    fn cell(&self, operation: Operation) -> &Cell {
        &self.0[operation as usize]
    }
}

/// A store that counts what it passes on. Outside [`crate::Retrying`] it counts what callers asked; inside, what the
/// bucket's owner pays for.
pub struct Counting<S> {
    inner: S,
    counters: Arc<Counters>,
}

impl<S: Store> Counting<S> {
    /// Wraps a store.
    pub fn new(inner: S) -> Self {
        Self { inner, counters: Arc::default() }
    }

    /// The counts, which go on counting.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    fn count<'a, T, E>(
        &'a self,
        operation: Operation,
        request: BoxFuture<'a, Result<T, E>>,
        measure: impl Fn(&T) -> u64 + Send + 'a,
        is_failure: impl Fn(&E) -> bool + Send + 'a,
    ) -> BoxFuture<'a, Result<T, E>>
    where
        T: Send + 'a,
        E: Send + 'a,
    {
        let cell = self.counters.cell(operation);
        Box::pin(async move {
            cell.requests.fetch_add(1, Ordering::Relaxed);
            let result = request.await;
            match &result {
                Ok(value) => cell.bytes.fetch_add(measure(value), Ordering::Relaxed),
                Err(error) => cell.failures.fetch_add(u64::from(is_failure(error)), Ordering::Relaxed),
            };
            result
        })
    }
}

const fn get_failed(error: &GetError) -> bool {
    matches!(error, GetError::Failed(_))
}

impl<S: Store> Store for Counting<S> {
    fn put_new<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Body,
        sha256: Digest,
    ) -> BoxFuture<'a, Result<(), PutError>> {
        let bytes = body.bytes();
        let request = self.inner.put_new(key, body, sha256);
        self.count(Operation::Put, request, move |()| bytes, |error| matches!(error, PutError::Failed(_)))
    }

    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Bytes, GetError>> {
        self.count(Operation::Get, self.inner.get(key), |body| body.len() as u64, get_failed)
    }

    fn get_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, GetError>> {
        let request = self.inner.get_range(key, range);
        self.count(Operation::GetRange, request, |body| body.len() as u64, get_failed)
    }

    fn get_suffix<'a>(&'a self, key: &'a ObjectKey, bytes: u64) -> BoxFuture<'a, Result<Suffix, GetError>> {
        let request = self.inner.get_suffix(key, bytes);
        self.count(Operation::GetSuffix, request, |suffix| suffix.bytes.len() as u64, get_failed)
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<u64, HeadError>> {
        let is_failure = |error: &HeadError| matches!(error, HeadError::Failed(_));
        self.count(Operation::Head, self.inner.head(key), |_| 0, is_failure)
    }

    fn list<'a>(
        &'a self,
        folder: &'a str,
        start_after: Option<&'a ObjectKey>,
    ) -> BoxFuture<'a, Result<Page, Failure>> {
        self.count(Operation::List, self.inner.list(folder, start_after), |_| 0, |_| true)
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Failure>> {
        self.count(Operation::Delete, self.inner.delete(key), |()| 0, |_| true)
    }
}
