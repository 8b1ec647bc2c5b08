//! The stores that need no server, against the suite that holds for all; and the decorators.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;

use varve_common::{Clock as _, Digest, ObjectKey};
use varve_objects::{
    Body, Counting, Directory, Failure, GetError, Operation, Put, PutError, ReadBack, RetryOptions, Retrying,
    Store, conformance, get_verified, put_or_confirm,
    testing::{Fault, FaultRates, FaultyStore, InstantClock, MemoryStore, PlainDisk, SeededEntropy},
};

fn faulty() -> FaultyStore<MemoryStore> {
    FaultyStore::new(MemoryStore::default(), Arc::<InstantClock>::default(), Arc::new(SeededEntropy::new(7)))
}

fn retrying<S: Store>(inner: S) -> (Retrying<S>, Arc<InstantClock>) {
    let clock = Arc::<InstantClock>::default();
    let entropy = Arc::new(SeededEntropy::new(9));
    (Retrying::new(inner, clock.clone(), entropy, RetryOptions::default()), clock)
}

fn key() -> ObjectKey {
    ObjectKey::new("c/p/seg/00-09-uid.seg".into())
}

const BODY: Bytes = Bytes::from_static(b"ten records");

#[tokio::test]
async fn memory_conforms() {
    conformance::run(&MemoryStore::default(), "x/y").await.unwrap();
}

#[tokio::test]
async fn directory_conforms_and_leaves_nothing_staged() {
    let root = tempfile::tempdir().unwrap();
    let store = Directory::open(Arc::<PlainDisk>::default(), root.path(), 1).unwrap();
    conformance::run(&store, "x/y").await.unwrap();
    assert_eq!(std::fs::read_dir(root.path().join("staging")).unwrap().count(), 0);
}

#[tokio::test]
async fn decorated_stores_conform() {
    let (store, _) = retrying(Counting::new(ReadBack::new(MemoryStore::default())));
    conformance::run(&store, "x").await.unwrap();
}

#[tokio::test]
async fn directory_keeps_objects_and_removes_staged_files_over_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::<PlainDisk>::default();
    let store = Directory::open(disk.clone(), root.path(), 1).unwrap();
    store.put_new(&key(), BODY.into(), Digest::of(&BODY)).await.unwrap();
    drop(store);
    std::fs::write(root.path().join("staging/0000000000000000"), b"half").unwrap();
    let store = Directory::open(disk, root.path(), 2).unwrap();
    assert_eq!(store.get(&key()).await, Ok(BODY));
    assert_eq!(std::fs::read_dir(root.path().join("staging")).unwrap().count(), 0);
}

#[tokio::test]
async fn directory_accepts_no_change_after_a_failed_sync_of_a_directory() {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::<PlainDisk>::default();
    let store = Directory::open(disk.clone(), root.path(), 1).unwrap();
    disk.directory_syncs_fail.store(true, Ordering::Relaxed);
    let put = store.put_new(&key(), BODY.into(), Digest::of(&BODY)).await;
    assert!(matches!(put, Err(PutError::Failed(Failure::Fatal(_)))), "{put:?}");
    disk.directory_syncs_fail.store(false, Ordering::Relaxed);
    let put = store.put_new(&key(), BODY.into(), Digest::of(&BODY)).await;
    assert!(matches!(put, Err(PutError::Failed(Failure::Fatal(_)))), "{put:?}");
    assert!(matches!(store.delete(&key()).await, Err(Failure::Fatal(_))));
}

#[tokio::test]
async fn t41_a_put_that_took_effect_although_its_answer_was_lost_is_our_own_success() {
    let inner = faulty();
    inner.script(Operation::Put, Fault::ErrorAfter);
    let (store, _) = retrying(inner);
    assert_eq!(put_or_confirm(&store, &key(), BODY.into(), Digest::of(&BODY)).await, Ok(Put::Confirmed));
    let other = ObjectKey::new("c/other".into());
    assert_eq!(put_or_confirm(&store, &other, BODY.into(), Digest::of(&BODY)).await, Ok(Put::Created));
}

#[tokio::test]
async fn fault_53_a_put_that_times_out_after_its_effect_leaves_one_object() {
    let store = Arc::new(faulty());
    store.script(Operation::Put, Fault::ErrorAfter);
    let (retrying, _) = retrying(store.clone());
    put_or_confirm(&retrying, &key(), BODY.into(), Digest::of(&BODY)).await.unwrap();
    assert_eq!(store.inner().objects(), vec![(key(), BODY)]);
}

#[tokio::test]
async fn fault_54_a_taken_key_of_another_length_is_not_ours() {
    let store = MemoryStore::default();
    store.tamper(&key(), Bytes::from_static(b"other"));
    let put = put_or_confirm(&store, &key(), BODY.into(), Digest::of(&BODY)).await;
    assert_eq!(put, Err(PutError::AlreadyExists));
}

#[tokio::test]
async fn fault_56_spoiled_bodies_are_fetched_again_and_never_served() {
    for fault in [Fault::Truncated, Fault::Altered] {
        let store = faulty();
        store.put_new(&key(), BODY.into(), Digest::of(&BODY)).await.unwrap();
        store.script(Operation::Get, fault);
        let read = get_verified(&store, &key(), BODY.len() as u64, Digest::of(&BODY)).await;
        assert_eq!(read, Ok(BODY));
        for _ in 0..3 {
            store.script(Operation::Get, fault);
        }
        let read = get_verified(&store, &key(), BODY.len() as u64, Digest::of(&BODY)).await;
        assert!(matches!(read, Err(GetError::Failed(Failure::Corrupt(_)))), "{read:?}");
    }
}

#[tokio::test]
async fn fault_51_a_store_that_fails_often_serves_with_retries_and_loses_nothing() {
    let store = Arc::new(faulty());
    store.set_rates(FaultRates { error_before: 200, error_after: 100, ..FaultRates::default() });
    let (retrying, _) = retrying(store.clone());
    let mut kept = 0;
    for number in 0..200 {
        let key = ObjectKey::new(format!("k/{number:03}"));
        kept += usize::from(put_or_confirm(&retrying, &key, BODY.into(), Digest::of(&BODY)).await.is_ok());
    }
    assert!(kept > 190, "{kept}");
    assert!(store.inner().objects().len() >= kept);
}

#[tokio::test]
async fn fault_58_a_stalled_request_is_given_up_and_repeated() {
    let store = faulty();
    store.put_new(&key(), BODY.into(), Digest::of(&BODY)).await.unwrap();
    store.script(Operation::Get, Fault::Stall);
    let (retrying, clock) = retrying(store);
    assert_eq!(retrying.get(&key()).await, Ok(BODY));
    assert!(clock.monotonic().0 >= RetryOptions::default().attempt_timeout);
}

#[tokio::test]
async fn retries_are_bounded_and_spaced_within_the_backoff() {
    let store = faulty();
    store.set_rates(FaultRates { error_before: 1000, ..FaultRates::default() });
    let counting = Counting::new(store);
    let counters = counting.counters();
    let (retrying, clock) = retrying(counting);
    assert!(matches!(retrying.head(&key()).await, Err(varve_objects::HeadError::Failed(Failure::Retry(_)))));
    let options = RetryOptions::default();
    let count = counters.snapshot()[&Operation::Head];
    assert_eq!((count.requests, count.failures), (5, 5));
    assert!(clock.monotonic().0 <= options.backoff_first * 15 && clock.monotonic().0 > Duration::ZERO);
}

#[tokio::test]
async fn what_is_not_retriable_is_asked_once() {
    let counting = Counting::new(MemoryStore::default());
    let counters = counting.counters();
    let (retrying, _) = retrying(counting);
    assert_eq!(retrying.get(&key()).await, Err(GetError::NotFound));
    let wrong = retrying.put_new(&key(), BODY.into(), Digest::of(b"other")).await;
    assert!(matches!(wrong, Err(PutError::Failed(Failure::Corrupt(_)))));
    let counts = counters.snapshot();
    assert_eq!((counts[&Operation::Get].requests, counts[&Operation::Get].failures), (1, 0));
    assert_eq!((counts[&Operation::Put].requests, counts[&Operation::Put].failures), (1, 1));
}

#[tokio::test]
async fn a_read_back_put_succeeds_only_with_its_own_bytes() {
    let store = faulty();
    store.script(Operation::Get, Fault::Altered);
    let store = ReadBack::new(store);
    let put = store.put_new(&key(), BODY.into(), Digest::of(&BODY)).await;
    assert!(matches!(put, Err(PutError::Failed(Failure::Corrupt(_)))), "{put:?}");
    let again = store.put_new(&key(), BODY.into(), Digest::of(&BODY)).await;
    assert_eq!(again, Err(PutError::AlreadyExists));
}

#[tokio::test]
async fn the_same_seed_brings_the_same_faults() {
    let trace = async |seed| {
        let clock = Arc::<InstantClock>::default();
        let store = FaultyStore::new(MemoryStore::default(), clock, Arc::new(SeededEntropy::new(seed)));
        store.set_rates(FaultRates { error_before: 300, missing: 300, ..FaultRates::default() });
        let mut trace = Vec::new();
        for _ in 0..64 {
            trace.push(store.head(&key()).await);
        }
        trace
    };
    assert_eq!(trace(1).await, trace(1).await);
    assert_ne!(trace(1).await, trace(2).await);
}

/// Lengths around whole blocks and around the reads that go past the page cache, from places that are no multiple of either.
#[tokio::test]
async fn directory_gives_back_long_objects_of_any_length() {
    let root = tempfile::tempdir().unwrap();
    let store = Directory::open(Arc::<PlainDisk>::default(), root.path(), 1).unwrap();
    for (number, length) in [4095, 4096, 4097, (2 << 20) - 1, (3 << 20) + 17, 5 << 20].into_iter().enumerate()
    {
        let body: Vec<u8> = (0..length).map(|at: usize| (at / 7) as u8 ^ number as u8).collect();
        let (body, key) = (Bytes::from(body), ObjectKey::new(format!("a/{number}-{length}")));
        let halves = Body::from(vec![body.slice(..length / 3), body.slice(length / 3..)]);
        store.put_new(&key, halves, Digest::of(&body)).await.unwrap();
        assert_eq!(store.head(&key).await, Ok(length as u64));
        assert_eq!(store.get(&key).await.unwrap(), body);
        let ranges = [0..length, 1..length, length / 5..length - 1, length - 1..length];
        for range in ranges {
            let read = store.get_range(&key, range.start as u64..range.end as u64).await.unwrap();
            assert!(read == body[range.clone()], "{length}: {range:?}");
        }
    }
}

/// Each puts objects of its own while others come and go: whoever was told that its put succeeded finds its own bytes there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_share_a_directory_never_publish_each_others_bytes() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_owned();
    let node = |writer: u64| {
        let path = path.clone();
        async move {
            let mut kept = 0;
            for start in 0..20 {
                // Each start draws another number.
                let disk = Arc::<PlainDisk>::default();
                let store = Directory::open(disk, &path, writer << 32 | start).unwrap();
                for number in 0..10 {
                    let key = ObjectKey::new(format!("n/{writer}-{start}-{number}"));
                    let body = Bytes::from(key.as_str().repeat(5_000));
                    // A start of another may have removed what was staged.
                    if store.put_new(&key, body.clone().into(), Digest::of(&body)).await.is_ok() {
                        assert!(store.get(&key).await.unwrap() == body, "{key} holds another's bytes");
                        kept += 1;
                    }
                }
            }
            kept
        }
    };
    let nodes: Vec<_> = (1..=4).map(|writer| tokio::spawn(node(writer))).collect();
    for node in nodes {
        assert!(node.await.unwrap() > 0);
    }
}
