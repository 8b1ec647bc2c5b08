//! Aligned chunks of bucket objects, in bounded memory and, where they are asked for again, on disk ([`Slab`]).
//!
//! ```text
//! object  |0      4 MiB  |4 MiB     8 MiB |8 MiB … |
//! read             [------------]                       touches chunks 0 and 1
//! ahead                         [ chunk 2 ][ chunk 3 ]  asked for by a reader that goes on in order
//! ```
//! One request is on its way for a chunk at any time (single flight): later readers wait for the same answer. Objects
//! never change, so a cached chunk is never stale. Bytes here are not verified: every block carries its own CRC and
//! whoever decodes it checks it.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, future::Shared};
use varve_common::{ObjectKey, clock::BoxFuture};
use varve_objects::{Failure, GetError, Store};

use crate::{
    limits::{FILLS_AHEAD_MAX, FILLS_MAX},
    slab::Slab,
    turns::{Consumer, Need, Ticket, Turns},
};

/// The seam to whatever runs futures in the background: tokio in production, the simulator's executor in a simulation.
pub trait Spawn: Send + Sync + 'static {
    /// Runs `task` to its end, beside the caller.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// One object as the manifest promises it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Where it is.
    pub key: ObjectKey,
    /// How long it is.
    pub bytes: u64,
}

/// What the cache holds and how it asks.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The alignment and size of a chunk.
    pub chunk_bytes: u64,
    /// The most that all cached chunks may hold together.
    pub bytes_max: usize,
}

/// A chunk: its object, and its place in it.
pub(crate) type ChunkId = (ObjectKey, u64);
type Fill = Shared<BoxFuture<'static, Result<Bytes, GetError>>>;

struct Cached {
    bytes: Bytes,
    used: u64,
}

#[derive(Default)]
struct Inner {
    cached: HashMap<ChunkId, Cached>,
    /// By last use: the first is the next to go.
    order: BTreeMap<u64, ChunkId>,
    /// With their places in line.
    filling: HashMap<ChunkId, (Fill, u64)>,
    bytes: usize,
    uses: u64,
    hits: u64,
    misses: u64,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkCounts {
    /// Chunks found in memory.
    pub hits: u64,
    /// Chunks asked of the store.
    pub misses: u64,
    /// Bytes held now.
    pub bytes: usize,
}

/// A handle to the cache; clones share it.
#[derive(Clone)]
pub struct ChunkCache {
    inner: Arc<Mutex<Inner>>,
    store: Arc<dyn Store>,
    spawn: Arc<dyn Spawn>,
    slab: Option<Slab>,
    turns: Turns,
    options: Options,
}

impl ChunkCache {
    /// An empty cache over `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, spawn: Arc<dyn Spawn>, options: Options) -> Self {
        let turns = Turns::new(FILLS_MAX, FILLS_AHEAD_MAX);
        Self { inner: Arc::default(), store, spawn, slab: None, turns, options }
    }

    /// Keeps on disk what is asked for more than once.
    #[must_use]
    pub fn with_slab(mut self, slab: Option<Slab>) -> Self {
        self.slab = slab;
        self
    }

    /// What is kept on disk.
    #[must_use]
    pub const fn slab(&self) -> Option<&Slab> {
        self.slab.as_ref()
    }

    /// Reads `range` of an object through its chunks.
    pub async fn read(&self, object: &Object, range: Range<u64>) -> Result<Bytes, GetError> {
        self.read_for(Consumer::default(), object, range).await
    }

    /// The same for a reader that takes its turn with others.
    pub(crate) async fn read_for(
        &self,
        consumer: Consumer,
        object: &Object,
        range: Range<u64>,
    ) -> Result<Bytes, GetError> {
        if range.is_empty() || range.end > object.bytes {
            return Err(GetError::OutOfRange(range));
        }
        let chunks = self.chunks(&range);
        if chunks.end - chunks.start == 1 {
            let start = chunks.start * self.options.chunk_bytes;
            let chunk = self.chunk(object, chunks.start, (consumer, Need::Now)).await?;
            return Ok(chunk.slice((range.start - start) as usize..(range.end - start) as usize));
        }
        // All chunks are asked for at once; the answers are put together in order.
        let fills: Vec<_> =
            chunks.clone().map(|chunk| self.chunk(object, chunk, (consumer, Need::Now))).collect();
        let parts = futures_util::future::try_join_all(fills).await?;
        let mut joined = BytesMut::with_capacity((range.end - range.start) as usize);
        for (chunk, bytes) in chunks.zip(parts) {
            let start = chunk * self.options.chunk_bytes;
            let from = range.start.saturating_sub(start) as usize;
            let to = ((range.end - start) as usize).min(bytes.len());
            joined.extend_from_slice(&bytes[from..to]);
        }
        Ok(joined.freeze())
    }

    /// Starts to fetch what `range` touches and is not there, in the background and in a reader's turn. What is on its way already
    /// hurries where it is needed now.
    pub(crate) fn begin(&self, ask: (Consumer, Need), object: &Object, range: Range<u64>) {
        let range = range.start.min(object.bytes)..range.end.min(object.bytes);
        if range.is_empty() {
            return;
        }
        for chunk in self.chunks(&range) {
            if !self.lock().knows(&(object.key.clone(), chunk)) {
                let fill = self.chunk(object, chunk, ask);
                // A failure is met again, and told, by the read that needs the chunk.
                self.spawn.spawn(Box::pin(async move { drop(fill.await) }));
            }
        }
    }

    /// How many bytes the chunk at `position` has.
    pub(crate) fn chunk_bytes_at(&self, object: &Object, position: u64) -> u64 {
        let start = position - position % self.options.chunk_bytes;
        self.options.chunk_bytes.min(object.bytes - start)
    }

    /// Whether the chunk at `position` is in memory or on its way.
    pub(crate) fn is_at_hand(&self, object: &Object, position: u64) -> bool {
        self.lock().knows(&(object.key.clone(), position / self.options.chunk_bytes))
    }

    /// Reads `range` past the cache, in a reader's turn.
    pub(crate) fn read_past(
        &self,
        consumer: Consumer,
        object: &Object,
        range: Range<u64>,
    ) -> impl Future<Output = Result<Bytes, GetError>> + Send + use<> {
        let (cache, key) = (self.clone(), object.key.clone());
        let mut ticket = self.turns.stand(consumer, Need::Now);
        async move {
            ticket.turn().await;
            cache.ask(&key, range).await
        }
    }

    /// Runs something in the background.
    pub(crate) fn beside(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn.spawn(Box::pin(task));
    }

    /// Drops what `range` touches, so that it is asked for anew: its bytes were found to be wrong.
    pub fn forget(&self, object: &Object, range: Range<u64>) {
        for chunk in self.chunks(&range) {
            let id = (object.key.clone(), chunk);
            self.lock().forget(&id);
            if let Some(slab) = &self.slab {
                slab.forget(&id);
            }
        }
    }

    /// From now on at most `going` chunks are on their way at a time, and never more than [`FILLS_MAX`]: what is asked for at
    /// once keeps processors busy at once.
    pub fn bound_fills(&self, going: usize) {
        self.turns.bound(going.clamp(1, FILLS_MAX), going.clamp(1, FILLS_AHEAD_MAX));
    }

    /// What the cache was made with.
    #[must_use]
    pub const fn options(&self) -> Options {
        self.options
    }

    /// What was found and what was asked for.
    #[must_use]
    pub fn counts(&self) -> ChunkCounts {
        let inner = self.lock();
        ChunkCounts { hits: inner.hits, misses: inner.misses, bytes: inner.bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    fn chunks(&self, range: &Range<u64>) -> Range<u64> {
        range.start / self.options.chunk_bytes..range.end.div_ceil(self.options.chunk_bytes)
    }

    fn chunk(
        &self,
        object: &Object,
        chunk: u64,
        (consumer, need): (Consumer, Need),
    ) -> impl Future<Output = Result<Bytes, GetError>> + Send + use<> {
        let id = (object.key.clone(), chunk);
        let mut guard = self.lock();
        let inner = &mut *guard;
        if let Some(bytes) = inner.touch(&id) {
            inner.hits += 1;
            return futures_util::future::Either::Left(std::future::ready(Ok(bytes)));
        }
        if let Some((fill, ticket)) = inner.filling.get(&id).cloned() {
            drop(guard);
            if need == Need::Now {
                self.turns.hurry(ticket, consumer);
            }
            return futures_util::future::Either::Right(fill);
        }
        let ticket = self.turns.stand(consumer, need);
        let number = ticket.id();
        let fill = self.fill(object, id.clone(), ticket).boxed().shared();
        inner.filling.insert(id, (fill.clone(), number));
        futures_util::future::Either::Right(fill)
    }

    fn fill(
        &self,
        object: &Object,
        id: ChunkId,
        mut ticket: Ticket,
    ) -> impl Future<Output = Result<Bytes, GetError>> + Send + use<> {
        let start = id.1 * self.options.chunk_bytes;
        let range = start..(start + self.options.chunk_bytes).min(object.bytes);
        let cache = self.clone();
        // A fill that nobody polls to its end must not leave its place taken for ever.
        let place = FillPlace { cache: cache.clone(), id };
        async move {
            ticket.turn().await;
            let answer = cache.find(&place.id, range).await;
            if let Ok(bytes) = &answer {
                cache.lock().insert(place.id.clone(), bytes.clone(), cache.options.bytes_max);
            }
            drop(ticket);
            drop(place);
            answer
        }
    }
}

impl ChunkCache {
    /// A chunk that is not in memory.
    async fn find(&self, id: &ChunkId, range: Range<u64>) -> Result<Bytes, GetError> {
        let wanted = range.end - range.start;
        let kept = self.slab.as_ref().and_then(|slab| slab.read(id));
        if let Some(bytes) = kept.filter(|bytes| bytes.len() as u64 == wanted) {
            return Ok(bytes);
        }
        let bytes = self.ask(&id.0, range).await?;
        self.keep(id, &bytes);
        Ok(bytes)
    }

    /// Exactly these bytes, from the store.
    async fn ask(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, GetError> {
        let wanted = range.end - range.start;
        self.lock().misses += 1;
        let bytes = self.store.get_range(key, range).await?;
        if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(short(key, wanted, bytes.len())) }
    }

    /// Puts a chunk on disk where it is worth it, beside whoever waits for it.
    fn keep(&self, id: &ChunkId, bytes: &Bytes) {
        if let Some(slab) = self.slab.as_ref().filter(|slab| slab.wants(id)) {
            let (slab, id, bytes) = (slab.clone(), id.clone(), bytes.clone());
            self.spawn.spawn(Box::pin(async move { slab.write(&id, &bytes) }));
        }
    }
}

/// A store that breaks its promise must not break a slice (fault row 56).
fn short(key: &ObjectKey, wanted: u64, found: usize) -> GetError {
    Failure::Corrupt(format!("object {key}: {found} bytes of {wanted} arrived")).into()
}

struct FillPlace {
    cache: ChunkCache,
    id: ChunkId,
}

impl Drop for FillPlace {
    fn drop(&mut self) {
        let fill = self.cache.inner.lock().ok().and_then(|mut inner| inner.filling.remove(&self.id));
        // Dropped behind the lock: the last handle of a fill may drop another place.
        drop(fill);
    }
}

impl Inner {
    fn knows(&self, id: &ChunkId) -> bool {
        self.cached.contains_key(id) || self.filling.contains_key(id)
    }

    fn forget(&mut self, id: &ChunkId) {
        if let Some(gone) = self.cached.remove(id) {
            self.order.remove(&gone.used);
            self.bytes -= gone.bytes.len();
        }
    }

    fn touch(&mut self, id: &ChunkId) -> Option<Bytes> {
        let cached = self.cached.get_mut(id)?;
        self.order.remove(&cached.used);
        self.uses += 1;
        cached.used = self.uses;
        self.order.insert(self.uses, id.clone());
        Some(cached.bytes.clone())
    }

    fn insert(&mut self, id: ChunkId, bytes: Bytes, bytes_max: usize) {
        if bytes.len() > bytes_max || self.cached.contains_key(&id) {
            return;
        }
        self.uses += 1;
        self.bytes += bytes.len();
        self.order.insert(self.uses, id.clone());
        self.cached.insert(id, Cached { bytes, used: self.uses });
        while self.bytes > bytes_max {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            if let Some(gone) = self.cached.remove(&oldest) {
                self.bytes -= gone.bytes.len();
            }
        }
    }
}

#[cfg(test)]
mod tests;
