use std::sync::Arc;

use varve_common::{Digest, LogIndex, ObjectKey, Offset, PartitionIndex, clock::BoxFuture};
use varve_formats::state::ArchiveState;
use varve_objects::Store as _;
use varve_tiering::Spawn;

use crate::{
    archive::{Exporter, Parquet},
    history::{
        Reader,
        testing::{Bucket, TOPIC, block_on, prefix},
    },
    verify::{Depth, Kind, Silent, Verifier, opened},
};

/// Whoever waits for a task polls it.
struct Inline;

impl Spawn for Inline {
    fn spawn(&self, _: BoxFuture<'static, ()>) {}
}

/// Files of a hundred records, four or so, and a snapshot that knows them; with the keys of files and of their entries, in order.
fn archived(word: &str) -> (Bucket, Vec<ObjectKey>, Vec<ObjectKey>) {
    let bucket = Bucket::new();
    bucket.checkpoint(300, &bucket.manifest(80, 4), 0);
    bucket.segment(80..90, 3, word);
    bucket.segment(90..100, 3, word);
    let history = Arc::new(bucket.open().unwrap());
    let topic = history.topic(TOPIC).unwrap().clone();
    let view = block_on(history.partition(&topic, PartitionIndex(0))).unwrap().view();
    let reader = Reader::new(&history, Arc::new(Inline));
    let (keys, into) = (history.keys().clone(), bucket.store.clone());
    let exporter = Exporter::new(history, reader, into, keys, Arc::new(Parquet)).with_file_bytes_max(400);
    let files = block_on(exporter.export(&view, Offset(0)..Offset(100), &|_| {})).unwrap();
    assert!(files.len() >= 3, "{files:?}");
    let objects = bucket.store.objects();
    let of = |part: &str| -> Vec<ObjectKey> {
        objects.iter().map(|(key, _)| key.clone()).filter(|key| key.as_str().contains(part)).collect()
    };
    let (files, entries) = (of("/archive/v1/"), of("/archive-meta/"));
    let newest = block_on(bucket.store.get(entries.last().unwrap())).unwrap();
    let state = ArchiveState {
        entry_sha256: Some(Digest::of(&newest)),
        files: files.len() as u64,
        ..ArchiveState::starting_at(Offset(100))
    };
    bucket.checkpoint_archived(LogIndex(301), state);
    (bucket, files, entries)
}

fn look(bucket: &Bucket, depth: Depth) -> Vec<(Kind, String)> {
    let history = block_on(opened(bucket.store.clone(), &prefix())).unwrap();
    let topic = history.topic(TOPIC).unwrap().clone();
    let verifier = Verifier::new(history, depth, Arc::new(Inline), Arc::new(Silent));
    let report = block_on(verifier.partition(&topic, PartitionIndex(0)));
    report.findings.into_iter().map(|finding| (finding.kind, finding.key)).collect()
}

fn found(kind: Kind, key: &ObjectKey) -> (Kind, String) {
    (kind, key.to_string())
}

fn remove(bucket: &Bucket, key: &ObjectKey) {
    block_on(bucket.store.delete(key)).unwrap();
}

#[test]
fn files_that_are_whole_show_nothing() {
    let (bucket, ..) = archived("");
    assert_eq!(look(&bucket, Depth::Content), []);
}

#[test]
fn files_that_are_missing_cut_or_changed_are_found() {
    let (bucket, files, _) = archived("");
    bucket.tamper(&files[1], |bytes| bytes[30] ^= 1);
    assert_eq!(look(&bucket, Depth::Names), []);
    assert_eq!(look(&bucket, Depth::Content), [found(Kind::Content, &files[1])]);
    bucket.tamper(&files[1], |bytes| bytes.truncate(100));
    assert_eq!(look(&bucket, Depth::Names), [found(Kind::Length, &files[1])]);
    remove(&bucket, &files[1]);
    assert_eq!(look(&bucket, Depth::Content), [found(Kind::Missing, &files[1])]);
}

#[test]
fn entries_that_are_missing_or_changed_are_found() {
    let (bucket, files, entries) = archived("");
    bucket.tamper(&entries[1], |bytes| bytes.push(b' '));
    assert_eq!(look(&bucket, Depth::Names), [found(Kind::Content, &entries[1])]);
    bucket.tamper(&entries[1], Vec::clear);
    let wrong = look(&bucket, Depth::Names);
    assert!(wrong.contains(&found(Kind::Content, &entries[1])), "{wrong:?}");
    remove(&bucket, &entries[1]);
    let expected = [found(Kind::Missing, &entries[2]), found(Kind::Missing, &files[1])];
    assert_eq!(look(&bucket, Depth::Names), expected);
    // With its file: what follows says that something came before.
    remove(&bucket, &files[1]);
    assert_eq!(look(&bucket, Depth::Names), [found(Kind::Missing, &entries[2])]);
}

#[test]
fn the_last_entry_is_the_one_that_the_snapshot_knows() {
    let (bucket, files, entries) = archived("");
    let (file, entry) = (files.last().unwrap(), entries.last().unwrap());
    let mut folder = entry.as_str().rsplit_once('/').unwrap().0.to_owned();
    bucket.tamper(entry, |bytes| bytes.push(b' '));
    assert_eq!(look(&bucket, Depth::Names), [found(Kind::Content, entry)]);
    remove(&bucket, entry);
    remove(&bucket, file);
    assert_eq!(look(&bucket, Depth::Names), [(Kind::Missing, std::mem::take(&mut folder))]);
}

#[test]
fn what_rules_of_the_bucket_removed_from_the_beginning_is_a_notice() {
    let (bucket, files, entries) = archived("");
    remove(&bucket, &files[0]);
    remove(&bucket, &entries[0]);
    assert_eq!(look(&bucket, Depth::Content), [found(Kind::Gap, &entries[1])]);
    for key in files[1..].iter().chain(&entries[1..]) {
        remove(&bucket, key);
    }
    let found = look(&bucket, Depth::Content);
    assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), [Kind::Gap]);
}

#[test]
fn files_that_nothing_names_are_told_by_what_they_are() {
    let (bucket, files, _) = archived("");
    let (folder, name) = files[1].as_str().rsplit_once('/').unwrap();
    let id = &name[42..];
    let at = |range: &str| ObjectKey::new(format!("{folder}/{range}-{id}"));
    let within = at("00000000000000000001-00000000000000000002");
    let behind = at("00000000000000000100-00000000000000000110");
    let unknown = ObjectKey::new(format!("{folder}/readme.txt"));
    for key in [&within, &behind, &unknown] {
        bucket.put(key, "x".into());
    }
    let mut wrong = look(&bucket, Depth::Names);
    wrong.sort_unstable();
    let expected = [found(Kind::Fork, &within), found(Kind::Newer, &behind), found(Kind::Unknown, &unknown)];
    assert_eq!(wrong, expected);
}

/// A history that lost its last segments, and wrote others at their offsets: the files hold what was there before.
#[test]
fn a_file_of_other_records_than_the_segments_hold_is_a_fork() {
    let (bucket, files, _) = archived("");
    let (other, ..) = archived("other");
    for (key, bytes) in other.store.objects() {
        if key.as_str().contains("/seg/") && !bucket.store.objects().iter().any(|(known, _)| *known == key) {
            bucket.put(&key, bytes);
        } else if key.as_str().contains("/seg/") {
            bucket.tamper(&key, |there| *there = bytes.to_vec());
        }
    }
    assert_eq!(look(&bucket, Depth::Names), []);
    let wrong = look(&bucket, Depth::Content);
    assert!(wrong.iter().all(|found| found.0 == Kind::Fork) && !wrong.is_empty(), "{wrong:?}");
    assert!(wrong.contains(&found(Kind::Fork, files.last().unwrap())), "{wrong:?}");
}
