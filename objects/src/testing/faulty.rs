//! A store that fails on purpose, by a script or by chance from a seed.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use varve_common::{Clock, Digest, Entropy, ObjectKey, clock::BoxFuture};

use crate::{Body, Failure, GetError, HeadError, Operation, Page, PutError, Store, Suffix};

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request has no effect and fails.
    ErrorBefore,
    /// The request has its effect, and its answer is lost: a time-out after the effect.
    ErrorAfter,
    /// The request has no effect, and the store asks to slow down.
    Busy,
    /// The request takes so long.
    Slow(Duration),
    /// A read brings only the first half, with no sign of it.
    Truncated,
    /// A read brings as many bytes, one of them changed.
    Altered,
    /// A read, a head or a listing finds nothing.
    Missing,
    /// No answer ever comes, and the request has no effect.
    Stall,
}

/// How often chance brings each fault, of a thousand requests. They add up to at most 1,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// See [`Fault::ErrorBefore`].
    pub error_before: u16,
    /// See [`Fault::ErrorAfter`].
    pub error_after: u16,
    /// See [`Fault::Slow`].
    pub slow: u16,
    /// How long a slow request takes.
    pub slow_by: Duration,
    /// See [`Fault::Truncated`].
    pub truncated: u16,
    /// See [`Fault::Altered`].
    pub altered: u16,
    /// See [`Fault::Missing`].
    pub missing: u16,
    /// See [`Fault::Stall`].
    pub stall: u16,
}

impl FaultRates {
    fn draw(&self, entropy: &dyn Entropy) -> Option<Fault> {
        let ladder = [
            (self.error_before, Fault::ErrorBefore),
            (self.error_after, Fault::ErrorAfter),
            (self.slow, Fault::Slow(self.slow_by)),
            (self.truncated, Fault::Truncated),
            (self.altered, Fault::Altered),
            (self.missing, Fault::Missing),
            (self.stall, Fault::Stall),
        ];
        let mut rest = entropy.next_u64() % 1000;
        for (rate, fault) in ladder {
            match rest.checked_sub(u64::from(rate)) {
                None => return Some(fault),
                Some(less) => rest = less,
            }
        }
        None
    }
}

struct Plan {
    script: VecDeque<(Operation, Fault)>,
    rates: FaultRates,
}

/// The decorator. A scripted fault takes the place of chance for the next request of its operation.
pub struct FaultyStore<S> {
    inner: S,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    plan: Mutex<Plan>,
}

impl<S: Store> FaultyStore<S> {
    /// Wraps a store, without faults at first.
    pub fn new(inner: S, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let plan = Mutex::new(Plan { script: VecDeque::new(), rates: FaultRates::default() });
        Self { inner, clock, entropy, plan }
    }

    /// The store below, which does not fail.
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// Sets how often chance brings faults from now on.
    pub fn set_rates(&self, rates: FaultRates) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).rates = rates;
    }

    /// Lets the next unscripted request of an operation go wrong.
    pub fn script(&self, operation: Operation, fault: Fault) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).script.push_back((operation, fault));
    }

    fn next_fault(&self, operation: Operation) -> Option<Fault> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = plan.script.iter().position(|(scripted, _)| *scripted == operation) {
            return plan.script.remove(at).map(|(_, fault)| fault);
        }
        plan.rates.draw(self.entropy.as_ref())
    }

    /// Runs a request under the next fault. `missing` is the answer of a store that finds nothing, `spoil` what
    /// becomes of a body; requests that have none pass unharmed.
    async fn run<'a, T, E: From<Failure>>(
        &'a self,
        operation: Operation,
        request: BoxFuture<'a, Result<T, E>>,
        missing: Option<Result<T, E>>,
        spoil: impl FnOnce(T, &dyn Fn(Bytes) -> Bytes) -> T + Send,
    ) -> Result<T, E> {
        let fault = self.next_fault(operation);
        match fault {
            None => request.await,
            Some(Fault::ErrorBefore) => Err(Failure::Retry("injected: no effect".into()).into()),
            Some(Fault::Busy) => Err(Failure::Busy("injected".into()).into()),
            Some(Fault::ErrorAfter) => {
                let _ = request.await;
                Err(Failure::Retry("injected: the answer was lost".into()).into())
            }
            Some(Fault::Slow(span)) => {
                self.clock.sleep(span).await;
                request.await
            }
            Some(Fault::Missing) => match missing {
                Some(answer) => answer,
                None => request.await,
            },
            Some(Fault::Stall) => std::future::pending().await,
            Some(Fault::Truncated) => request.await.map(|value| spoil(value, &truncate)),
            Some(Fault::Altered) => {
                let place = self.entropy.next_u64() as usize;
                request.await.map(|value| spoil(value, &|body| alter(&body, place)))
            }
        }
    }
}

fn truncate(body: Bytes) -> Bytes {
    body.slice(..body.len() / 2)
}

fn alter(body: &Bytes, place: usize) -> Bytes {
    let mut altered = body.to_vec();
    if !altered.is_empty() {
        let place = place % altered.len();
        altered[place] ^= 0x40;
    }
    altered.into()
}

impl<S: Store> Store for FaultyStore<S> {
    fn put_new<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Body,
        sha256: Digest,
    ) -> BoxFuture<'a, Result<(), PutError>> {
        let request = self.inner.put_new(key, body, sha256);
        Box::pin(self.run(Operation::Put, request, None, |(), _| ()))
    }

    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Bytes, GetError>> {
        let missing = Some(Err(GetError::NotFound));
        Box::pin(self.run(Operation::Get, self.inner.get(key), missing, |body, spoil| spoil(body)))
    }

    fn get_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, GetError>> {
        let missing = Some(Err(GetError::NotFound));
        let request = self.inner.get_range(key, range);
        Box::pin(self.run(Operation::GetRange, request, missing, |body, spoil| spoil(body)))
    }

    fn get_suffix<'a>(&'a self, key: &'a ObjectKey, bytes: u64) -> BoxFuture<'a, Result<Suffix, GetError>> {
        let missing = Some(Err(GetError::NotFound));
        let request = self.inner.get_suffix(key, bytes);
        Box::pin(self.run(Operation::GetSuffix, request, missing, |suffix: Suffix, spoil| Suffix {
            bytes: spoil(suffix.bytes),
            object_bytes: suffix.object_bytes,
        }))
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<u64, HeadError>> {
        let missing = Some(Err(HeadError::NotFound));
        Box::pin(self.run(Operation::Head, self.inner.head(key), missing, |bytes, _| bytes))
    }

    fn list<'a>(
        &'a self,
        folder: &'a str,
        start_after: Option<&'a ObjectKey>,
    ) -> BoxFuture<'a, Result<Page, Failure>> {
        let request = self.inner.list(folder, start_after);
        Box::pin(self.run(Operation::List, request, Some(Ok(Page::default())), |page, _| page))
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.run(Operation::Delete, self.inner.delete(key), None, |(), _| ()))
    }
}
