use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures_util::future::join_all;

use varve_common::{Clock, Monotonic, Offset, PartitionIndex, clock::BoxFuture};
use varve_objects::{
    Operation,
    testing::{Fault, FaultyStore, InstantClock, MemoryStore, SeededEntropy},
};
use varve_tiering::Spawn;

use super::*;
use crate::{
    history::{
        Found, Stop,
        testing::{Bucket, TOPIC, block_on},
    },
    verify::{Depth, Silent, Verifier},
};

/// Whoever waits for a task polls it.
struct Inline;

impl Spawn for Inline {
    fn spawn(&self, _: BoxFuture<'static, ()>) {}
}

/// Time in which segments come: the next of them each time that somebody sleeps.
struct Uploading {
    bucket: Arc<Bucket>,
    segments: Vec<Range<u64>>,
    slept: AtomicU32,
}

impl Clock for Uploading {
    fn monotonic(&self) -> Monotonic {
        Monotonic::default()
    }

    fn wall_ms(&self) -> i64 {
        0
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        let slept = self.slept.fetch_add(1, Ordering::Relaxed);
        if let Some(range) = self.segments.get(slept as usize) {
            self.bucket.segment(range.clone(), 3, "");
        }
        Box::pin(std::future::ready(()))
    }
}

fn elsewhere() -> Prefix {
    Prefix::new("other")
}

fn other() -> ClusterId {
    ClusterId::from_random(10)
}

/// Twenty segments, most of them below nodes, of which two levels, and a tail of two.
fn bucket() -> Bucket {
    let bucket = Bucket::new();
    let root = bucket.manifest(200, 2);
    bucket.checkpoint(300, &root, 20);
    bucket.segment(200..210, 3, "");
    bucket.segment(210..220, 3, "");
    bucket
}

/// Claims the other prefix, as who calls the copier does.
fn claimed() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::default());
    let claim = varve_formats::claim::Claim {
        cluster: other(),
        incarnation: LIFE,
        created_ms: 1_000,
        node: varve_common::NodeId::new(1).unwrap(),
        format: varve_formats::claim::FORMAT,
        origin: None,
    };
    let bytes = claim.to_bytes();
    let sha256 = varve_common::Digest::of(&bytes);
    block_on(store.put_new(&elsewhere().claim(LIFE), bytes.into(), sha256)).unwrap();
    store
}

fn copy(bucket: &Bucket, store: Arc<dyn Store>, resumes: bool) -> Result<CopiedPartition, CopyError> {
    copy_by(Arc::new(InstantClock::default()), bucket, store, resumes)
}

fn copy_by(
    clock: Arc<dyn Clock>,
    bucket: &Bucket,
    store: Arc<dyn Store>,
    resumes: bool,
) -> Result<CopiedPartition, CopyError> {
    let history = Arc::new(bucket.open()?);
    let copier = Copier::new(Arc::clone(&history), store, elsewhere().cluster(other()), resumes, clock);
    let topic = history.topic(TOPIC)?.clone();
    let copied = block_on(copier.partition(&topic, PartitionIndex(0)))?;
    block_on(copier.metadata(&history.metadata().state))?;
    Ok(copied)
}

fn objects(store: &MemoryStore) -> Vec<(ObjectKey, bytes::Bytes)> {
    store.objects()
}

#[test]
fn a_copy_holds_the_same_records_as_another_clusters_and_is_whole() {
    let bucket = bucket();
    let before = objects(&bucket.store);
    let store = claimed();
    let copied = copy(&bucket, Arc::clone(&store) as _, false).unwrap();
    assert_eq!((copied.start, copied.end), (Offset(20), Offset(220)));
    assert_eq!(objects(&bucket.store), before, "the source is only read");

    let history = block_on(History::open(Arc::clone(&store) as _, &elsewhere())).unwrap();
    assert_eq!((history.keys().cluster(), history.image().cluster), (other(), other()));
    let topic = history.topic(TOPIC).unwrap().clone();
    let found = block_on(history.partition(&topic, PartitionIndex(0))).unwrap();
    assert_eq!((found.log_start(), found.end(), &found.tail.stop), (Offset(20), Offset(220), &Stop::End));
    assert_eq!(found.tail.segments.len(), 2);
    let verifier = Verifier::new(Arc::new(history), Depth::Content, Arc::new(Inline), Arc::new(Silent));
    let mut report = block_on(verifier.around());
    report.add(block_on(verifier.partition(&topic, PartitionIndex(0))));
    assert_eq!(report.findings, []);
    assert_eq!((report.looked.segments, report.looked.segments_read), (22, 22));
    assert!(report.looked.nodes >= 4);
}

#[test]
fn what_several_lives_wrote_becomes_one_life() {
    let mut bucket = Bucket::new();
    let root = bucket.manifest(40, 2);
    bucket.incarnation = 2;
    bucket.claim(2);
    bucket.metadata(2, 500);
    bucket.checkpoint(600, &root, 0);
    bucket.segment(40..50, 3, "");
    bucket.complete(2);
    let store = claimed();
    copy(&bucket, Arc::clone(&store) as _, false).unwrap();
    let history = block_on(History::open(Arc::clone(&store) as _, &elsewhere())).unwrap();
    let topic = history.topic(TOPIC).unwrap().clone();
    let found = block_on(history.partition(&topic, PartitionIndex(0))).unwrap();
    assert_eq!(found.end(), Offset(50));
    let view = found.view();
    let mut walk = view.walk(&history, Offset(0));
    let mut end = Offset(0);
    while let Some(found) = block_on(walk.next()) {
        if let Found::Entry(entry) = found {
            assert_eq!((entry.incarnation, entry.base), (1, end));
            end = entry.end();
        }
    }
    assert_eq!(end, Offset(50));
}

#[test]
fn wherever_a_copy_ends_the_next_goes_on_and_comes_to_the_same() {
    let bucket = bucket();
    let whole = claimed();
    copy(&bucket, Arc::clone(&whole) as _, false).unwrap();
    let puts = objects(&whole).len() - 1;
    for ends_at in 0..puts {
        let store = claimed();
        let (clock, entropy) = (Arc::new(InstantClock::default()), Arc::new(SeededEntropy::new(1)));
        let faulty = FaultyStore::new(Arc::clone(&store), clock, entropy);
        for _ in 0..ends_at {
            faulty.script(Operation::Put, Fault::Slow(Duration::ZERO));
        }
        (0..10).for_each(|_| faulty.script(Operation::Put, Fault::ErrorBefore));
        copy(&bucket, Arc::new(faulty), false).unwrap_err();
        let history = block_on(History::open(Arc::clone(&store) as _, &elsewhere()));
        assert!(history.is_err(), "nothing is restored from what is half there");
        copy(&bucket, Arc::clone(&store) as _, true).unwrap();
        assert_eq!(objects(&store), objects(&whole), "ended before object {ends_at}");
    }
}

#[test]
fn what_is_damaged_or_missing_in_the_source_is_told_and_the_copy_does_not_end() {
    for range in [30..40, 190..200] {
        for gone in [false, true] {
            let bucket = bucket();
            let (name, ..) = bucket.segment_bytes(range.clone(), 3, "");
            let key = bucket.keys.build(&Key::Segment(bucket.at(), name));
            bucket.tamper(&key, |bytes| bytes[30] ^= 1);
            if gone {
                block_on(bucket.store.delete(&key)).unwrap();
            }
            let store = claimed();
            let error = copy(&bucket, Arc::clone(&store) as _, false).unwrap_err();
            assert!(error.is_damage() && error.to_string().contains(key.as_str()), "{error}");
            assert!(!block_on(is_whole(&*store, &elsewhere(), other())).unwrap());
        }
    }
}

fn segment_key(bucket: &Bucket, range: Range<u64>) -> ObjectKey {
    bucket.keys.build(&Key::Segment(bucket.at(), bucket.segment_bytes(range, 3, "").0))
}

#[test]
fn what_is_damaged_behind_the_manifest_is_told_and_the_copy_does_not_end() {
    let damaged = |range| {
        let bucket = bucket();
        let key = segment_key(&bucket, range);
        bucket.tamper(&key, |bytes| bytes[30] ^= 1);
        (bucket, key.as_str().to_owned())
    };
    let forked = bucket();
    let (fork, _) = forked.segment(200..210, 4, "other");
    for (bucket, told) in [damaged(200..210), damaged(210..220), (forked, fork.as_str().to_owned())] {
        let store = claimed();
        let error = copy(&bucket, Arc::clone(&store) as _, false).unwrap_err();
        assert!(error.is_damage() && error.to_string().contains(&told), "{told}: {error}");
        assert!(!block_on(is_whole(&*store, &elsewhere(), other())).unwrap());
    }
}

/// Behind the manifest's end nothing but the next object says that there was one, and who ended between two uploads is not damaged.
#[test]
fn of_a_source_that_ended_between_two_uploads_what_is_before_the_hole_is_copied() {
    for (gone, end) in [(200..210, 200), (210..220, 210)] {
        let bucket = bucket();
        bucket.segment(220..230, 3, "");
        block_on(bucket.store.delete(&segment_key(&bucket, gone.clone()))).unwrap();
        let store = claimed();
        let copied = copy(&bucket, Arc::clone(&store) as _, false).unwrap();
        assert_eq!((copied.start, copied.end), (Offset(20), Offset(end)));
        let left = copied.left.unwrap().to_string();
        assert_eq!(left, format!("what begins at {} does not follow on {end}", gone.end));
        assert!(block_on(is_whole(&*store, &elsewhere(), other())).unwrap());
        let history = block_on(History::open(Arc::clone(&store) as _, &elsewhere())).unwrap();
        let topic = history.topic(TOPIC).unwrap().clone();
        let there = block_on(history.partition(&topic, PartitionIndex(0))).unwrap();
        assert_eq!((there.end(), there.tail.stop), (Offset(end), Stop::End), "nothing behind it came along");
    }
}

/// Time that goes on only once so many wait.
struct Together {
    all: u32,
    waiting: Arc<AtomicU32>,
}

impl Clock for Together {
    fn monotonic(&self) -> Monotonic {
        Monotonic::default()
    }

    fn wall_ms(&self) -> i64 {
        0
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        let (all, waiting) = (self.all, Arc::clone(&self.waiting));
        let mine = waiting.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::poll_fn(move |_| {
            let have_come = waiting.load(Ordering::Relaxed) >= (mine / all + 1) * all;
            if have_come { Poll::Ready(()) } else { Poll::Pending }
        }))
    }
}

/// After a cluster's end many partitions may have a hole: half a minute for all of them, and not for each few.
#[test]
fn partitions_that_wait_for_what_is_missing_wait_together() {
    let bucket = bucket();
    block_on(bucket.store.delete(&segment_key(&bucket, 200..210))).unwrap();
    let all = 3 * PARTITIONS_AT_ONCE as u32;
    let clock = Together { all, waiting: Arc::default() };
    let history = Arc::new(bucket.open().unwrap());
    let copier =
        Copier::new(Arc::clone(&history), claimed(), elsewhere().cluster(other()), false, Arc::new(clock));
    let topic = history.topic(TOPIC).unwrap();
    let copies = (0..all).map(|_| copier.partition(topic, PartitionIndex(0)));
    for copied in block_on(join_all(copies)) {
        assert_eq!(copied.unwrap().end, Offset(200));
    }
}

/// Who runs knows what it has put, and says so in its next checkpoint: what is missing until then is no end.
#[test]
fn a_source_that_goes_on_behind_a_hole_is_not_left_there() {
    let bucket = bucket();
    block_on(bucket.store.delete(&segment_key(&bucket, 200..210))).unwrap();
    let bucket = Arc::new(bucket);
    let segments = (22..30).map(|ten| ten * 10..ten * 10 + 10).collect();
    let clock = Uploading { bucket: Arc::clone(&bucket), segments, slept: AtomicU32::new(0) };
    let store = claimed();
    let error = copy_by(Arc::new(clock), &bucket, Arc::clone(&store) as _, false).unwrap_err();
    assert!(error.is_damage() && error.to_string().contains("200 to 210"), "{error}");
    assert!(!block_on(is_whole(&*store, &elsewhere(), other())).unwrap());
}

/// Two uploads of a partition are under way at a time, and the second may come first.
#[test]
fn what_is_still_on_its_way_is_waited_for() {
    let bucket = Bucket::new();
    let root = bucket.manifest(200, 2);
    bucket.checkpoint(300, &root, 20);
    bucket.segment(210..220, 3, "");
    let bucket = Arc::new(bucket);
    // What comes first overtakes another; what comes then is what was overtaken.
    let segments = vec![230..240, 200..210, 220..230];
    let clock = Uploading { bucket: Arc::clone(&bucket), segments, slept: AtomicU32::new(0) };
    let store = claimed();
    let copied = copy_by(Arc::new(clock), &bucket, Arc::clone(&store) as _, false).unwrap();
    assert_eq!((copied.start, copied.end, copied.left), (Offset(20), Offset(240), None));
    let whole = claimed();
    copy(&bucket, Arc::clone(&whole) as _, false).unwrap();
    assert_eq!(objects(&store), objects(&whole));
}

/// The source merges while it is copied, so that a segment is gone: of those that came before nothing is sent again.
#[test]
fn what_a_look_has_copied_the_next_one_does_not_send_again() {
    let bucket = bucket();
    let (name, ..) = bucket.segment_bytes(190..200, 3, "");
    block_on(bucket.store.delete(&bucket.keys.build(&Key::Segment(bucket.at(), name)))).unwrap();
    let store = claimed();
    let missing = copy(&bucket, Arc::clone(&store) as _, false).unwrap_err();
    let there = objects(&store);
    assert!(there.len() > 17, "{}", there.len());
    // As many puts are answered as there are objects.
    let store = claimed();
    let (clock, entropy) = (Arc::new(InstantClock::default()), Arc::new(SeededEntropy::new(1)));
    let faulty = FaultyStore::new(Arc::clone(&store), clock, entropy);
    (1..there.len()).for_each(|_| faulty.script(Operation::Put, Fault::Slow(Duration::ZERO)));
    (0..100).for_each(|_| faulty.script(Operation::Put, Fault::ErrorBefore));
    assert_eq!(copy(&bucket, Arc::new(faulty), false), Err(missing));
    assert_eq!(objects(&store), there);
}

#[test]
fn what_else_lies_under_a_key_of_the_copy_is_told_and_left_alone() {
    let bucket = bucket();
    let whole = claimed();
    copy(&bucket, Arc::clone(&whole) as _, false).unwrap();
    let keys: BTreeSet<ObjectKey> = objects(&whole).into_iter().map(|(key, _)| key).collect();
    let keys = keys.into_iter().filter(|key| *key != elsewhere().claim(LIFE));
    for key in keys {
        for resumes in [false, true] {
            let store = claimed();
            let stranger = bytes::Bytes::from_static(b"somebody else's");
            let sha256 = varve_common::Digest::of(&stranger);
            block_on(store.put_new(&key, stranger.clone().into(), sha256)).unwrap();
            assert_eq!(copy(&bucket, Arc::clone(&store) as _, resumes), Err(CopyError::Taken(key.clone())));
            assert_eq!(block_on(store.get(&key)), Ok(stranger));
        }
    }
}
