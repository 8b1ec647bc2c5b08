use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use varve_common::{Offset, PartitionIndex, clock::BoxFuture};
use varve_formats::keys::Prefix;
use varve_objects::{
    Operation,
    testing::{Fault, FaultyStore, InstantClock, MemoryStore, SeededEntropy},
};
use varve_tiering::Spawn;

use super::*;
use crate::history::{
    Reader,
    testing::{Bucket, TOPIC, block_on},
};

/// Whoever waits for a task polls it.
struct Inline;

impl Spawn for Inline {
    fn spawn(&self, _: BoxFuture<'static, ()>) {}
}

/// Three files of a hundred records.
const FILE_BYTES: u64 = 400;

fn bucket() -> Bucket {
    let bucket = Bucket::new();
    bucket.checkpoint(300, &bucket.manifest(80, 4), 0);
    bucket.segment(80..90, 3, "");
    bucket.segment(90..100, 3, "");
    bucket
}

fn export(
    bucket: &Bucket,
    destination: Arc<dyn varve_objects::Store>,
    format: Arc<dyn Format>,
    wanted: std::ops::Range<u64>,
) -> Result<Vec<Exported>, ExportError> {
    let history = Arc::new(bucket.open().unwrap());
    let topic = history.topic(TOPIC).unwrap().clone();
    let view = block_on(history.partition(&topic, PartitionIndex(0))).unwrap().view();
    let reader = Reader::new(&history, Arc::new(Inline));
    let keys = Prefix::new("out").cluster(history.keys().cluster());
    let exporter = Exporter::new(history, reader, destination, keys, format).with_file_bytes_max(FILE_BYTES);
    let told = Mutex::new(0);
    let count = |_: &Exported| *told.lock().unwrap() += 1;
    let files = block_on(exporter.export(&view, Offset(wanted.start)..Offset(wanted.end), &count))?;
    assert_eq!(*told.lock().unwrap(), files.len());
    Ok(files)
}

fn ranges(files: &[Exported]) -> Vec<(u64, u64)> {
    files.iter().map(|file| (file.offsets.start.0, file.offsets.end.0)).collect()
}

fn objects(store: &MemoryStore) -> Vec<(String, Vec<u8>)> {
    store.objects().into_iter().map(|(key, bytes)| (key.as_str().to_owned(), bytes.to_vec())).collect()
}

#[test]
fn files_follow_each_other_and_nothing_but_parquet_is_in_their_tree() {
    let (bucket, store) = (bucket(), Arc::new(MemoryStore::default()));
    let files = export(&bucket, store.clone(), Arc::new(Parquet), 0..100).unwrap();
    assert!(files.len() >= 3, "{files:?}");
    assert!(files.windows(2).all(|pair| pair[0].offsets.end == pair[1].offsets.start));
    assert_eq!((files[0].offsets.start, files[files.len() - 1].offsets.end), (Offset(0), Offset(100)));
    assert_eq!(files.iter().map(|file| file.records.unwrap()).sum::<u64>(), 100);
    let keys: Vec<_> = objects(&store).into_iter().map(|(key, _)| key).collect();
    let tree = keys.iter().filter(|key| key.contains("/archive/v1/"));
    assert!(tree.clone().count() == files.len() && tree.into_iter().all(|key| key.ends_with(".parquet")));
    let first = "/archive/v1/topic=orders/partition=0/date=1970-01-01/00000000000000000000-";
    assert!(keys.iter().any(|key| key.contains(first)), "{keys:?}");
    assert_eq!(keys.iter().filter(|key| key.contains("/archive-meta/v1/parquet/")).count(), files.len());
}

#[test]
fn the_same_offsets_are_the_same_bytes_however_segments_lie() {
    for format in [Arc::new(Parquet) as Arc<dyn Format>, Arc::new(Arrow)] {
        let (one, other) = (Arc::new(MemoryStore::default()), Arc::new(MemoryStore::default()));
        export(&bucket(), one.clone(), Arc::clone(&format), 0..100).unwrap();
        let long = Bucket::new();
        long.segment(0..100, 3, "");
        export(&long, other.clone(), format, 0..100).unwrap();
        assert!(objects(&one) == objects(&other));
    }
}

#[test]
fn an_export_that_was_killed_at_any_step_goes_on_to_the_same_files() {
    let (bucket, whole) = (bucket(), Arc::new(MemoryStore::default()));
    export(&bucket, whole.clone(), Arc::new(Parquet), 0..100).unwrap();
    let puts = objects(&whole).len();
    for kill in 0..puts {
        let inner = Arc::new(MemoryStore::default());
        let clock = Arc::new(InstantClock::default());
        let faulty = Arc::new(FaultyStore::new(Arc::clone(&inner), clock, Arc::new(SeededEntropy::new(1))));
        (0..kill).for_each(|_| faulty.script(Operation::Put, Fault::Slow(Duration::ZERO)));
        faulty.script(Operation::Put, if kill % 2 == 0 { Fault::ErrorAfter } else { Fault::ErrorBefore });
        let error = export(&bucket, faulty, Arc::new(Parquet), 0..100).unwrap_err();
        assert!(matches!(error, ExportError::Store(_)), "{error}");
        export(&bucket, inner.clone(), Arc::new(Parquet), 0..100).unwrap();
        assert!(objects(&inner) == objects(&whole), "killed at put {kill}");
        assert_eq!(export(&bucket, inner, Arc::new(Parquet), 0..100).unwrap(), []);
    }
}

#[test]
fn ranges_are_less_what_files_have() {
    let (bucket, store) = (bucket(), Arc::new(MemoryStore::default()));
    let first = export(&bucket, store.clone(), Arc::new(Parquet), 33..52).unwrap();
    assert_eq!((first[0].offsets.start, first[first.len() - 1].offsets.end), (Offset(33), Offset(52)));
    let rest = export(&bucket, store, Arc::new(Parquet), 0..100).unwrap();
    let mut all = ranges(&[first, rest].concat());
    all.sort_unstable();
    assert!(all[0].0 == 0 && all[all.len() - 1].1 == 100);
    assert!(all.windows(2).all(|pair| pair[0].1 == pair[1].0), "{all:?}");
}

#[test]
fn what_is_not_ours_under_a_files_name_is_never_taken_for_it() {
    let (bucket, store) = (bucket(), Arc::new(MemoryStore::default()));
    export(&bucket, store.clone(), Arc::new(Parquet), 0..100).unwrap();
    let file = store.objects().into_iter().find(|(key, _)| key.as_str().ends_with(".parquet")).unwrap().0;
    store.tamper(&file, "other".into());
    let error = export(&bucket, store.clone(), Arc::new(Parquet), 0..100).unwrap_err();
    assert!(matches!(error, ExportError::Damaged(_)), "{error}");
    let entries: Vec<_> =
        store.objects().into_iter().filter(|(key, _)| key.as_str().ends_with(".json")).collect();
    for (key, _) in entries {
        block_on(varve_objects::Store::delete(&*store, &key)).unwrap();
    }
    let error = export(&bucket, store, Arc::new(Parquet), 0..100).unwrap_err();
    assert_eq!(error, ExportError::Taken(file));
}
