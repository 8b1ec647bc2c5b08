//! A store that could not be probed at the start: nothing is put there, and nothing removed, until it was.
//!
//! Who starts while the store is away serves what it holds. That the store may be one that overwrites, or loses what it took, is found
//! out before the first byte is trusted to it, and not only by those who start while it answers.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::lock::Mutex;
use varve_common::{Clock, Digest, Entropy, Monotonic, ObjectKey, clock::BoxFuture};

use crate::{
    Body, Failure, GetError, HeadError, Page, PutError, ReadBack, Store, Suffix,
    probe::{ProbeError, probe},
};

/// Between two probes of a store that does not let itself be asked.
const PAUSE: Duration = Duration::from_secs(5);

/// What the last probe came to, where it came to nothing good.
enum Last {
    /// It broke a promise: for ever.
    Refused(String),
    /// It could not be asked.
    Failed(Monotonic, Failure),
}

/// Wraps a store until it has been probed; then it is the store, read back where it needs that.
pub struct Proving<S> {
    store: Arc<S>,
    read_back: ReadBack<Arc<S>>,
    prefix: String,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    last: Mutex<Option<Last>>,
    /// Whether puts are read back, once that is known.
    reads_back: OnceLock<bool>,
}

impl<S: Store> Proving<S> {
    /// Wraps a store whose probes are put below `prefix`.
    pub fn new(store: Arc<S>, prefix: &str, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let read_back = ReadBack::new(Arc::clone(&store));
        let (last, reads_back) = (Mutex::new(None), OnceLock::new());
        Self { store, read_back, prefix: prefix.to_owned(), clock, entropy, last, reads_back }
    }

    /// Whether puts are to be read back. Who comes while a probe goes on waits for it.
    async fn proven(&self) -> Result<bool, Failure> {
        if let Some(reads_back) = self.reads_back.get() {
            return Ok(*reads_back);
        }
        let mut last = self.last.lock().await;
        if let Some(reads_back) = self.reads_back.get() {
            return Ok(*reads_back);
        }
        let now = self.clock.monotonic();
        match &*last {
            Some(Last::Refused(why)) => return Err(Failure::Invalid(why.clone())),
            Some(Last::Failed(at, why)) if now.since(*at) < PAUSE => return Err(why.clone()),
            _ => {}
        }
        match probe(&*self.store, &self.prefix, self.entropy.next_u128()).await {
            Ok(report) => Ok(*self.reads_back.get_or_init(|| !report.warnings.is_empty())),
            Err(error @ ProbeError::Unsafe { .. }) => {
                *last = Some(Last::Refused(error.to_string()));
                Err(Failure::Invalid(error.to_string()))
            }
            Err(ProbeError::Failed { failure, .. }) => {
                *last = Some(Last::Failed(self.clock.monotonic(), failure.clone()));
                Err(failure)
            }
        }
    }
}

impl<S: Store> Store for Proving<S> {
    fn put_new<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Body,
        sha256: Digest,
    ) -> BoxFuture<'a, Result<(), PutError>> {
        Box::pin(async move {
            if self.proven().await? {
                self.read_back.put_new(key, body, sha256).await
            } else {
                self.store.put_new(key, body, sha256).await
            }
        })
    }

    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Bytes, GetError>> {
        self.store.get(key)
    }

    fn get_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, GetError>> {
        self.store.get_range(key, range)
    }

    fn get_suffix<'a>(&'a self, key: &'a ObjectKey, bytes: u64) -> BoxFuture<'a, Result<Suffix, GetError>> {
        self.store.get_suffix(key, bytes)
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<u64, HeadError>> {
        self.store.head(key)
    }

    fn list<'a>(
        &'a self,
        folder: &'a str,
        start_after: Option<&'a ObjectKey>,
    ) -> BoxFuture<'a, Result<Page, Failure>> {
        self.store.list(folder, start_after)
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            self.proven().await?;
            self.store.delete(key).await
        })
    }
}
