//! The first look into a segment that is not open: the bytes around the place where an offset most likely lies, asked for
//! beside the index that will tell. One round trip less until the first batch, and no chunk of which most is not wanted yet.
//!
//! ```text
//!            most likely here
//! [block][block][bl|ock][block][block][block] … [index][footer]
//!               |--|------ wanted ------|--|           |------|
//!               before                 behind      asked for beside it
//! ```
//! Records of about one size lie where a straight line says. Where they do not, the reader goes on as if nobody had looked:
//! what is given out was found by the index, and has the CRC of its block.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::Shared};
use varve_common::{ObjectKey, clock::BoxFuture};

use crate::{
    chunks::{ChunkCache, Object},
    limits::GLIMPSES_MAX,
    lru::Lru,
    turns::Consumer,
};

/// A part of an object.
#[derive(Clone)]
struct Seen {
    range: Range<u64>,
    bytes: Bytes,
}

impl Seen {
    fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        let within = self.range.start <= range.start && range.end <= self.range.end;
        within.then(|| {
            let start = (range.start - self.range.start) as usize;
            self.bytes.slice(start..start + (range.end - range.start) as usize)
        })
    }
}

/// A look that is under way.
#[derive(Clone)]
pub(crate) struct Glimpse {
    range: Range<u64>,
    seen: Shared<BoxFuture<'static, Option<Seen>>>,
}

impl Glimpse {
    /// The bytes of `range`, where they are among those that are looked at. What went wrong is met again, and told, by whoever
    /// asks for them next.
    pub(crate) async fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        if range.start < self.range.start || range.end > self.range.end {
            return None;
        }
        self.seen.clone().await?.slice(range)
    }
}

/// The last look into each of the objects that were looked at last: for readers that come again. A fetch that has left lets its
/// read go on to its end, so nobody here knows whether what was read was given to anyone.
pub(crate) struct Glimpses {
    last: Arc<Lru<ObjectKey, Seen>>,
    /// What a look brings at the most.
    bytes: u64,
}

impl Glimpses {
    /// Looks of at most so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { last: Arc::new(Lru::new(bytes * GLIMPSES_MAX)), bytes: bytes as u64 }
    }

    /// The bytes of `range`, where they were seen.
    pub(crate) fn slice(&self, object: &Object, range: &Range<u64>) -> Option<Bytes> {
        self.last.get(&object.key)?.slice(range)
    }

    /// Looks for `wanted` bytes at about `position`. Where that is as much as the chunk there, or the chunk is at hand, the
    /// chunk is asked for.
    pub(crate) fn look(
        &self,
        chunks: &ChunkCache,
        consumer: Consumer,
        object: &Object,
        (position, wanted): (u64, usize),
    ) -> Option<Glimpse> {
        let (margin, wanted) = (self.bytes / 4, (wanted as u64).min(self.bytes / 2));
        let range = position.saturating_sub(margin)..(position + wanted + margin).min(object.bytes);
        if range.end - range.start >= chunks.chunk_bytes_at(object, position)
            || chunks.is_at_hand(object, position)
        {
            return None;
        }
        let asked = chunks.read_past(consumer, object, range.clone());
        let place = range.clone();
        let seen = async move { asked.await.ok().map(|bytes| Seen { range: place, bytes }) };
        let seen = (Box::pin(seen) as BoxFuture<'static, Option<Seen>>).shared();
        let (driven, kept, key) = (seen.clone(), Arc::clone(&self.last), object.key.clone());
        chunks.beside(async move {
            if let Some(seen) = driven.await {
                let bytes = seen.bytes.len();
                kept.insert(key, seen, bytes);
            }
        });
        Some(Glimpse { range, seen })
    }
}
