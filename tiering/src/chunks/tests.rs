use std::sync::atomic::{AtomicUsize, Ordering};

use varve_common::Digest;
use varve_objects::{Body, Failure, HeadError, Page, PutError, Suffix, testing::InstantClock};
use varve_wal::testing::MemoryDisk;

use super::*;
use crate::{
    slab::{Admission, SlabOptions},
    tests::support::block_on,
};

/// Answers ranges of one object of 100 bytes, 0 to 99, once it is told to.
#[derive(Default)]
struct Counted {
    asked: AtomicUsize,
    fail: AtomicUsize,
}

impl Store for Counted {
    fn put_new<'a>(&'a self, _: &'a ObjectKey, _: Body, _: Digest) -> BoxFuture<'a, Result<(), PutError>> {
        unreachable!("the cache does not write")
    }

    fn get<'a>(&'a self, _: &'a ObjectKey) -> BoxFuture<'a, Result<Bytes, GetError>> {
        unreachable!("the cache reads ranges")
    }

    fn get_range<'a>(
        &'a self,
        _: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, GetError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let fail = self.fail.swap(0, Ordering::Relaxed) > 0;
        Box::pin(async move {
            if fail {
                return Err(GetError::Failed(Failure::Retry("busy".to_owned())));
            }
            Ok((range.start as u8..range.end as u8).collect())
        })
    }

    fn get_suffix<'a>(&'a self, _: &'a ObjectKey, _: u64) -> BoxFuture<'a, Result<Suffix, GetError>> {
        unreachable!("the cache reads ranges")
    }

    fn head<'a>(&'a self, _: &'a ObjectKey) -> BoxFuture<'a, Result<u64, HeadError>> {
        unreachable!("the cache knows lengths")
    }

    fn list<'a>(&'a self, _: &'a str, _: Option<&'a ObjectKey>) -> BoxFuture<'a, Result<Page, Failure>> {
        unreachable!("the cache lists nothing")
    }

    fn delete<'a>(&'a self, _: &'a ObjectKey) -> BoxFuture<'a, Result<(), Failure>> {
        unreachable!("the cache deletes nothing")
    }
}

struct Inline;

impl Spawn for Inline {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        block_on(task);
    }
}

fn cache() -> (Arc<Counted>, ChunkCache, Object) {
    let store = Arc::new(Counted::default());
    let options = Options { chunk_bytes: 10, bytes_max: 35 };
    let cache = ChunkCache::new(store.clone(), Arc::new(Inline), options);
    (store, cache, Object { key: ObjectKey::new("object".to_owned()), bytes: 95 })
}

#[test]
fn a_read_across_chunks_gives_exactly_its_range() {
    let (_, cache, object) = cache();
    for (from, to) in [(0, 1), (9, 11), (5, 35), (88, 95), (0, 95)] {
        let expected: Vec<u8> = (from as u8..to as u8).collect();
        assert_eq!(block_on(cache.read(&object, from..to)).unwrap(), expected, "{from}..{to}");
    }
    assert_eq!(block_on(cache.read(&object, 90..96)), Err(GetError::OutOfRange(90..96)));
}

#[test]
fn two_readers_of_one_chunk_ask_once() {
    let (store, cache, object) = cache();
    let (one, other) =
        block_on(async { futures_util::join!(cache.read(&object, 12..13), cache.read(&object, 17..19)) });
    assert_eq!((one.unwrap()[0], other.unwrap()[0], store.asked.load(Ordering::Relaxed)), (12, 17, 1));
}

#[test]
fn memory_is_bounded_and_the_least_recently_used_goes() {
    let (store, cache, object) = cache();
    for chunk in [0, 1, 2, 0, 3, 0] {
        block_on(cache.read(&object, chunk * 10..chunk * 10 + 1)).unwrap();
    }
    assert_eq!((cache.counts().bytes, store.asked.load(Ordering::Relaxed)), (30, 4));
    block_on(cache.read(&object, 10..11)).unwrap();
    assert_eq!(store.asked.load(Ordering::Relaxed), 5);
}

#[test]
fn a_failure_is_told_and_not_remembered() {
    let (store, cache, object) = cache();
    store.fail.store(1, Ordering::Relaxed);
    assert!(matches!(block_on(cache.read(&object, 0..1)), Err(GetError::Failed(Failure::Retry(_)))));
    assert_eq!(block_on(cache.read(&object, 0..1)).unwrap(), [0][..]);
}

#[test]
fn an_abandoned_fill_frees_its_place() {
    let (store, cache, object) = cache();
    drop(cache.read(&object, 0..1));
    drop(cache.chunk(&object, 0, (Consumer::default(), Need::Now)));
    assert_eq!(block_on(cache.read(&object, 0..1)).unwrap(), [0][..]);
    assert!(store.asked.load(Ordering::Relaxed) >= 1);
}

#[test]
fn read_ahead_fills_what_is_missing_up_to_the_end() {
    let (store, cache, object) = cache();
    cache.begin((Consumer::default(), Need::Ahead), &object, 80..500);
    assert_eq!((store.asked.load(Ordering::Relaxed), cache.counts().bytes), (2, 15));
    block_on(cache.read(&object, 85..95)).unwrap();
    assert_eq!(store.asked.load(Ordering::Relaxed), 2);
}

#[test]
fn what_is_asked_for_again_comes_from_disk_and_a_flipped_bit_is_asked_of_the_store() {
    let disk = MemoryDisk::default();
    let clock: Arc<dyn varve_common::Clock> = Arc::new(InstantClock::default());
    let options = SlabOptions {
        path: "/cache/slab".into(),
        frame_bytes: 10,
        bytes_max: 100,
        admission: Admission::Again,
    };
    let slab = Slab::new(Arc::new(disk.clone()), clock, options);
    let (store, cache, object) = cache();
    let cache = cache.with_slab(slab);
    let scan = || {
        for chunk in 0..10 {
            let (from, to) = (chunk * 10, (chunk * 10 + 10).min(object.bytes));
            let expected: Vec<u8> = (from as u8..to as u8).collect();
            assert_eq!(block_on(cache.read(&object, from..to)).unwrap(), expected, "{chunk}");
        }
        store.asked.swap(0, Ordering::Relaxed)
    };
    let written = || cache.slab().unwrap().counts().written;
    assert_eq!((scan(), written()), (10, 0), "one scan writes nothing");
    assert_eq!((scan(), written()), (10, 10), "memory holds three, none of them when it is needed");
    assert_eq!((scan(), written()), (0, 10));
    disk.flip_bit(std::path::Path::new("/cache/slab"), 8 * 42);
    assert_eq!(scan(), 1);
    assert_eq!(cache.slab().unwrap().counts().corrupt, 1);
    let counts = cache.counts();
    assert_eq!((counts.misses, counts.bytes), (21, 35));
}
