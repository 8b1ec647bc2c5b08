//! The newest committed batches of all partitions, in memory: consumers at the tail never touch a disk.
//!
//! One budget for the node, first in first out over all groups. A group's cached batches are contiguous and end at its
//! high watermark, because the driver pushes each committed batch before it publishes the watermark that shows it.
//!
//! ```text
//! group 7   … [40,44) [44,45) [45,60) |high watermark 60
//!               ^ oldest kept
//! ```

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::{Bytes, BytesMut};
use varve_common::{GroupId, Offset};

/// How much a read may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// Whole batches are returned up to this many bytes, and the first whatever its size.
    pub bytes_max: usize,
    /// Batches at or above this offset are left out: the high watermark, or the last stable offset.
    pub below: Offset,
}

/// Whole batches, in order; the first holds the offset that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batches {
    /// Each chunk is one or more whole batches.
    pub chunks: Vec<Bytes>,
    /// The sum of the chunks' lengths.
    pub bytes: usize,
    /// The offset behind the last batch; where nothing was read, the offset that was asked for.
    pub next: Offset,
}

impl Batches {
    /// Nothing read yet from `offset`.
    #[must_use]
    pub fn none_at(offset: Offset) -> Self {
        Self { next: offset, ..Self::default() }
    }

    /// Takes the batch [.., `end`) unless the limits forbid it; says whether it did.
    pub fn take(&mut self, limits: ReadLimits, end: Offset, batch: &Bytes) -> bool {
        let full = !self.chunks.is_empty() && self.bytes + batch.len() > limits.bytes_max;
        if full || end > limits.below {
            return false;
        }
        self.bytes += batch.len();
        self.next = end;
        self.chunks.push(batch.clone());
        true
    }

    /// The same in memory of its own. Slices of a large buffer keep all of it for as long as a slow client takes to read
    /// its answer.
    #[must_use]
    pub fn detached(mut self) -> Self {
        let mut joined = BytesMut::with_capacity(self.bytes);
        self.chunks.iter().for_each(|chunk| joined.extend_from_slice(chunk));
        let mut joined = joined.freeze();
        for chunk in &mut self.chunks {
            *chunk = joined.split_to(chunk.len());
        }
        self
    }
}

#[derive(Clone, Debug)]
struct CachedBatch {
    base: Offset,
    end: Offset,
    bytes: Bytes,
}

#[derive(Default)]
struct Inner {
    groups: HashMap<GroupId, VecDeque<CachedBatch>>,
    /// Whose batch came when: the front is the next to go.
    order: VecDeque<GroupId>,
    bytes: usize,
}

/// A handle to the cache; clones share it.
#[derive(Clone)]
pub struct TailCache {
    inner: Arc<Mutex<Inner>>,
    bytes_max: usize,
}

impl TailCache {
    /// An empty cache that keeps at most `bytes_max` bytes of batches.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { inner: Arc::default(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    /// Appends a committed batch. One that does not follow on the cached ones (after a cut or a restart) replaces them.
    pub fn push(&self, group: GroupId, base: Offset, end: Offset, bytes: Bytes) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.bytes += bytes.len();
        let batches = inner.groups.entry(group).or_default();
        if batches.back().is_some_and(|last| last.end != base) {
            // Their places in `order` stay and are skipped when they come up.
            inner.bytes -= batches.drain(..).map(|batch| batch.bytes.len()).sum::<usize>();
        }
        batches.push_back(CachedBatch { base, end, bytes });
        inner.order.push_back(group);
        while inner.bytes > self.bytes_max {
            let Some(oldest) = inner.order.pop_front() else { break };
            evict_one(inner, oldest);
        }
    }

    /// Forgets a group.
    pub fn remove(&self, group: GroupId) {
        let mut inner = self.lock();
        let bytes: usize =
            inner.groups.remove(&group).into_iter().flatten().map(|batch| batch.bytes.len()).sum();
        inner.bytes -= bytes;
        inner.order.retain(|other| *other != group);
    }

    /// Batches from the one that holds `from`, `None` where that is not cached.
    #[must_use]
    pub fn read(&self, group: GroupId, from: Offset, limits: ReadLimits) -> Option<Batches> {
        let inner = self.lock();
        let batches = inner.groups.get(&group)?;
        if batches.front()?.base > from || batches.back()?.end <= from {
            return None;
        }
        let first = batches.partition_point(|batch| batch.end <= from);
        let mut read = Batches::none_at(from);
        for batch in batches.range(first..) {
            if !read.take(limits, batch.end, &batch.bytes) {
                break;
            }
        }
        Some(read)
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }
}

fn evict_one(inner: &mut Inner, group: GroupId) {
    let Some(batches) = inner.groups.get_mut(&group) else { return };
    if let Some(batch) = batches.pop_front() {
        inner.bytes -= batch.bytes.len();
    }
    if batches.is_empty() {
        inner.groups.remove(&group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(7);

    fn limits(bytes_max: usize, below: u64) -> ReadLimits {
        ReadLimits { bytes_max, below: Offset(below) }
    }

    fn cache_of_ten() -> TailCache {
        let cache = TailCache::new(100);
        for base in (0..10).map(|batch| batch * 2) {
            cache.push(GROUP, Offset(base), Offset(base + 2), Bytes::from(vec![base as u8; 10]));
        }
        cache
    }

    #[test]
    fn a_read_begins_with_the_batch_that_holds_the_offset() {
        let read = cache_of_ten().read(GROUP, Offset(5), limits(25, 20)).unwrap();
        assert_eq!((read.chunks[0][0], read.chunks.len(), read.next), (4, 2, Offset(8)));
    }

    #[test]
    fn the_first_batch_is_returned_whatever_its_size() {
        let read = cache_of_ten().read(GROUP, Offset(4), limits(1, 20)).unwrap();
        assert_eq!((read.chunks.len(), read.next), (1, Offset(6)));
    }

    #[test]
    fn what_is_detached_is_the_same_elsewhere() {
        let read = cache_of_ten().read(GROUP, Offset(4), limits(25, 20)).unwrap();
        let detached = read.clone().detached();
        assert_eq!(detached, read);
        assert_ne!(detached.chunks[0].as_ptr(), read.chunks[0].as_ptr());
        assert_eq!(Batches::none_at(Offset(4)).detached(), Batches::none_at(Offset(4)));
    }

    #[test]
    fn nothing_at_or_above_the_bound_is_returned() {
        let read = cache_of_ten().read(GROUP, Offset(4), limits(100, 7)).unwrap();
        assert_eq!(read.next, Offset(6));
        let none = cache_of_ten().read(GROUP, Offset(6), limits(100, 7)).unwrap();
        assert_eq!(none, Batches::none_at(Offset(6)));
    }

    #[test]
    fn the_oldest_batch_of_the_node_goes_first() {
        let cache = cache_of_ten();
        cache.push(GroupId(8), Offset(0), Offset(1), Bytes::from(vec![9; 25]));
        assert_eq!(cache.bytes(), 95);
        assert_eq!(cache.read(GROUP, Offset(5), limits(100, 20)), None);
        assert!(cache.read(GROUP, Offset(6), limits(100, 20)).is_some());
    }

    #[test]
    fn a_gap_drops_what_was_before_it() {
        let cache = cache_of_ten();
        cache.push(GROUP, Offset(30), Offset(31), Bytes::from_static(b"x"));
        assert_eq!((cache.bytes(), cache.read(GROUP, Offset(19), limits(100, 40))), (1, None));
        cache.remove(GROUP);
        assert_eq!(cache.bytes(), 0);
    }
}
