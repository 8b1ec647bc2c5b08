//! Asks again, within bounds, where asking again may help.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::{Either, select};
use varve_common::{Clock, Digest, Entropy, ObjectKey, clock::BoxFuture};

use crate::{
    Body, Failure, GetError, HeadError, Page, PutError, Store, Suffix,
    budget::{Budgets, Class},
    limits::{ATTEMPT_TIMEOUT, ATTEMPTS_MAX, BACKOFF_FIRST, BACKOFF_MAX},
};

/// How long to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOptions {
    /// The most tries, at least one.
    pub attempts_max: u32,
    /// The longest that one try may take.
    pub attempt_timeout: Duration,
    /// The pause after the first failed try; it doubles with each, up to `backoff_max`. Jitter takes up to all of it.
    pub backoff_first: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            attempts_max: ATTEMPTS_MAX,
            attempt_timeout: ATTEMPT_TIMEOUT,
            backoff_first: BACKOFF_FIRST,
            backoff_max: BACKOFF_MAX,
        }
    }
}

/// A store that repeats requests that failed with [`Failure::Retry`] or [`Failure::Busy`] or took too long, and no
/// others. A put that is repeated may find its own object: see [`crate::put_or_confirm`].
pub struct Retrying<S> {
    inner: S,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    options: RetryOptions,
    budget: Option<(Budgets, Class)>,
}

/// An error that may carry a failure.
pub(crate) trait Fails: From<Failure> {
    fn failure(&self) -> Option<&Failure>;
}

impl Fails for Failure {
    fn failure(&self) -> Option<&Failure> {
        Some(self)
    }
}

macro_rules! fails {
    ($($error:ident),*) => {$(
        impl Fails for $error {
            fn failure(&self) -> Option<&Failure> {
                if let Self::Failed(failure) = self { Some(failure) } else { None }
            }
        }
    )*};
}
fails!(PutError, GetError, HeadError);

impl<S: Store> Retrying<S> {
    /// Wraps a store.
    pub fn new(inner: S, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>, options: RetryOptions) -> Self {
        Self { inner, clock, entropy, options, budget: None }
    }

    /// Each try waits until the node's budget lets `class` go, outside of the time that a try may take.
    #[must_use]
    pub fn within(mut self, budgets: Budgets, class: Class) -> Self {
        self.budget = Some((budgets, class));
        self
    }

    async fn repeat<'a, T, E: Fails>(
        &'a self,
        bytes: u64,
        request: impl Fn() -> BoxFuture<'a, Result<T, E>> + Send,
    ) -> Result<T, E> {
        let mut attempt = 1;
        loop {
            if let Some((budgets, class)) = &self.budget {
                budgets.acquire(*class, bytes).await;
            }
            let result = match select(request(), self.clock.sleep(self.options.attempt_timeout)).await {
                Either::Left((result, _)) => result,
                Either::Right(_) => Err(Failure::Retry("no answer in time".into()).into()),
            };
            if let Some((budgets, _)) = &self.budget
                && matches!(result.as_ref().err().and_then(E::failure), Some(Failure::Busy(_)))
            {
                budgets.slow_down();
            }
            let again = result.as_ref().err().and_then(E::failure).is_some_and(Failure::is_retriable);
            if !again || attempt >= self.options.attempts_max {
                return result;
            }
            self.clock.sleep(self.pause(attempt)).await;
            attempt += 1;
        }
    }

    /// Full jitter: whoever failed together does not come back together.
    fn pause(&self, attempt: u32) -> Duration {
        let doubled = self.options.backoff_first.saturating_mul(1 << (attempt - 1).min(20));
        let micros = doubled.min(self.options.backoff_max).as_micros() as u64;
        Duration::from_micros(self.entropy.next_u64() % (micros + 1))
    }
}

impl<S: Store> Store for Retrying<S> {
    fn put_new<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Body,
        sha256: Digest,
    ) -> BoxFuture<'a, Result<(), PutError>> {
        Box::pin(self.repeat(body.bytes(), move || self.inner.put_new(key, body.clone(), sha256)))
    }

    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Bytes, GetError>> {
        Box::pin(async move {
            let got = self.repeat(0, move || self.inner.get(key)).await;
            if let (Ok(body), Some((budgets, class))) = (&got, &self.budget) {
                budgets.charge(*class, body.len() as u64);
            }
            got
        })
    }

    fn get_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, GetError>> {
        Box::pin(
            self.repeat(range.end.saturating_sub(range.start), move || {
                self.inner.get_range(key, range.clone())
            }),
        )
    }

    fn get_suffix<'a>(&'a self, key: &'a ObjectKey, bytes: u64) -> BoxFuture<'a, Result<Suffix, GetError>> {
        Box::pin(self.repeat(bytes, move || self.inner.get_suffix(key, bytes)))
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<u64, HeadError>> {
        Box::pin(self.repeat(0, move || self.inner.head(key)))
    }

    fn list<'a>(
        &'a self,
        folder: &'a str,
        start_after: Option<&'a ObjectKey>,
    ) -> BoxFuture<'a, Result<Page, Failure>> {
        Box::pin(self.repeat(0, move || self.inner.list(folder, start_after)))
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.repeat(0, move || self.inner.delete(key)))
    }
}
