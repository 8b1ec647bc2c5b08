use std::sync::Arc;

use varve_common::{LogIndex, Offset, PartitionIndex, clock::BoxFuture};
use varve_formats::{
    keys::Key,
    manifest::Root,
    state::{NAMED_EVER, Tombstone},
};
use varve_objects::{
    Operation, Store,
    testing::{Fault, FaultyStore, InstantClock, SeededEntropy},
};

use super::*;
use crate::history::testing::{Bucket, TOPIC, block_on, prefix, topic_id};

/// Whoever waits for a task polls it.
struct Inline;

impl Spawn for Inline {
    fn spawn(&self, _: BoxFuture<'static, ()>) {}
}

fn verifier(store: Arc<dyn Store>, depth: Depth) -> Result<Verifier, Report> {
    let history = block_on(opened(store, &prefix()))?;
    Ok(Verifier::new(history, depth, Arc::new(Inline), Arc::new(Silent)))
}

fn look_at(store: Arc<dyn Store>, depth: Depth) -> Report {
    let verifier = match verifier(store, depth) {
        Ok(verifier) => verifier,
        Err(report) => return report,
    };
    let mut report = block_on(verifier.around());
    let topic = verifier.history().topic(TOPIC).unwrap().clone();
    report.add(block_on(verifier.partition(&topic, PartitionIndex(0))));
    report
}

fn look(bucket: &Bucket, depth: Depth) -> Vec<(Kind, String)> {
    let report = look_at(bucket.store.clone(), depth);
    report.findings.into_iter().map(|finding| (finding.kind, finding.key)).collect()
}

/// Twenty segments, most of them below nodes, and a tail of two.
fn bucket() -> (Bucket, Root) {
    let bucket = Bucket::new();
    let root = bucket.manifest(200, 4);
    bucket.checkpoint(300, &root, 0);
    bucket.segment(200..210, 3, "");
    bucket.segment(210..220, 3, "");
    (bucket, root)
}

fn key(bucket: &Bucket, range: std::ops::Range<u64>, term: u64) -> varve_common::ObjectKey {
    let (name, ..) = bucket.segment_bytes(range, term, "");
    bucket.keys.build(&Key::Segment(bucket.at(), name))
}

#[test]
fn a_bucket_that_is_whole_shows_nothing_and_everything_was_read() {
    let (bucket, _) = bucket();
    assert_eq!(look(&bucket, Depth::Content), []);
    let looked = look_at(bucket.store.clone(), Depth::Content).looked;
    assert_eq!((looked.segments, looked.segments_read), (22, 22));
    assert!(looked.nodes >= 4);
    assert_eq!(look_at(bucket.store.clone(), Depth::Names).looked.segments_read, 0);
}

#[test]
fn what_is_missing_cut_or_changed_is_found_wherever_it_is() {
    for range in [0..10, 190..200] {
        let (bucket, _) = bucket();
        let key = key(&bucket, range.clone(), 3);
        bucket.tamper(&key, |bytes| bytes[30] ^= 1);
        assert_eq!(look(&bucket, Depth::Names), []);
        assert_eq!(look(&bucket, Depth::Content), [(Kind::Content, key.to_string())]);
        bucket.tamper(&key, |bytes| bytes.truncate(100));
        assert_eq!(look(&bucket, Depth::Names), [(Kind::Length, key.to_string())]);
        block_on(bucket.store.delete(&key)).unwrap();
        assert_eq!(look(&bucket, Depth::Names), [(Kind::Missing, key.to_string())]);
        assert_eq!(look(&bucket, Depth::Content), [(Kind::Missing, key.to_string())]);
    }
}

#[test]
fn what_a_reader_cannot_ask_for_is_unread_and_no_damage() {
    let (bucket, _) = bucket();
    let clock = Arc::new(InstantClock::default());
    let faulty = Arc::new(FaultyStore::new(bucket.store.clone(), clock, Arc::new(SeededEntropy::new(1))));
    faulty.script(Operation::List, Fault::ErrorBefore);
    let report = look_at(faulty, Depth::Names);
    assert_eq!(report.severity(), Some(Severity::Unread), "{:?}", report.findings);
}

#[test]
fn a_manifest_that_contradicts_itself_is_found() {
    let gap = |root: &mut Root| {
        root.entries.remove(1);
    };
    let overlap = |root: &mut Root| root.entries[1].base = Offset(root.entries[1].base.0 - 1);
    let count = |root: &mut Root| root.entries[0].count += 1;
    let sums = |root: &mut Root| root.nodes[0].entries += 1;
    let changes: [fn(&mut Root); 4] = [gap, overlap, count, sums];
    for change in changes {
        let (bucket, mut root) = bucket();
        change(&mut root);
        bucket.checkpoint(301, &root, 0);
        let found = look(&bucket, Depth::Names);
        assert!(found.iter().any(|(kind, _)| *kind == Kind::Algebra), "{found:?}");
    }
    // What was trimmed before it was tiered is no gap.
    let (bucket, mut root) = bucket();
    root.trim(Offset(20));
    bucket.checkpoint(301, &root, 20);
    assert!(look(&bucket, Depth::Names).iter().all(|(kind, _)| kind.severity() == Severity::Notice));
}

#[test]
fn extra_objects_are_told_by_what_they_are() {
    let (bucket, _) = bucket();
    // The same records by another leader, other records, of a gap behind the tail, of no name.
    let (same, _) = bucket.segment(10..20, 8, "");
    let (other, _) = bucket.segment(30..40, 8, "other");
    let (behind, _) = bucket.segment(500..510, 8, "");
    let unknown = varve_common::ObjectKey::new(format!("{}/seg/x", bucket.keys.directory(bucket.at())));
    bucket.put(&unknown, "x".into());
    let found = look(&bucket, Depth::Names);
    for expected in [
        (Kind::Orphan, same.to_string()),
        (Kind::Fork, other.to_string()),
        (Kind::Newer, behind.to_string()),
        (Kind::Unknown, unknown.to_string()),
        (Kind::Gap, String::new()),
    ] {
        assert!(found.contains(&expected), "{expected:?} in {found:?}");
    }
    assert_eq!(found.len(), 5, "{found:?}");
}

#[test]
fn a_fork_behind_the_manifest_is_one_too() {
    let (bucket, _) = bucket();
    bucket.segment(210..220, 9, "other");
    let found = look(&bucket, Depth::Names);
    assert!(found.iter().filter(|(kind, _)| *kind == Kind::Fork).count() == 2, "{found:?}");
}

#[test]
fn two_lives_and_two_clusters_on_one_prefix_are_two_writers() {
    let (mut bucket, root) = bucket();
    bucket.claim(2);
    bucket.complete(2);
    bucket.metadata(2, 10);
    bucket.incarnation = 2;
    bucket.checkpoint(310, &root, 0);
    bucket.segment(200..210, 5, "alive");
    let found = look(&bucket, Depth::Names);
    let dead =
        found.iter().find(|(kind, _)| *kind == Kind::TwoWriters).unwrap_or_else(|| panic!("{found:?}"));
    assert!(dead.1.contains("/i0000000001/"), "{found:?}");
    let (bucket, _) = self::bucket();
    let other = prefix().cluster(varve_common::ClusterId::from_random(10));
    bucket.put(&varve_common::ObjectKey::new(format!("{}/meta/x", other.root())), "x".into());
    assert!(look(&bucket, Depth::Names).iter().any(|(kind, _)| *kind == Kind::TwoWriters));
}

#[test]
fn topics_that_nobody_knows_are_strangers() {
    let (bucket, _) = bucket();
    let mut at = bucket.at();
    at.topic_id = varve_common::TopicId::from_random(1_234);
    let (name, bytes, _) = bucket.segment_bytes(0..10, 3, "");
    let key = bucket.keys.build(&Key::Segment(at, name));
    bucket.put(&key, bytes);
    assert_eq!(look(&bucket, Depth::Names), [(Kind::Stranger, key.to_string())]);
}

#[test]
fn a_snapshot_is_verified_with_all_that_it_names() {
    let (bucket, root) = bucket();
    let verifier = verifier(bucket.store.clone(), Depth::Content).ok().unwrap();
    let folder = varve_snapshot::choose::folder(
        &bucket.keys,
        varve_snapshot::Which::Partition(topic_id(), PartitionIndex(0)),
        varve_common::Incarnation(1),
    );
    let listed = block_on(varve_snapshot::list_all(&*bucket.store, &folder)).unwrap();
    let candidate = varve_snapshot::choose::candidates(&bucket.keys, &listed).remove(0);
    let report = block_on(verifier.snapshot(&candidate));
    assert_eq!((report.findings, report.looked.segments_read), (vec![], 20));
    bucket.tamper(&key(&bucket, 0..10, 3), |bytes| bytes[30] ^= 1);
    let again = verifier_of(&bucket);
    let report = block_on(again.snapshot(&candidate));
    assert_eq!(report.findings[0].kind, Kind::Content);
    // Trimmed since: it may go.
    let mut trimmed = root;
    trimmed.trim(Offset(10));
    bucket.checkpoint(400, &trimmed, 10);
    let report = block_on(verifier_of(&bucket).snapshot(&candidate));
    assert_eq!(report.findings, []);
}

fn verifier_of(bucket: &Bucket) -> Verifier {
    verifier(bucket.store.clone(), Depth::Content).ok().unwrap()
}

#[test]
fn what_waits_to_be_deleted_is_no_orphan() {
    let (bucket, _) = bucket();
    let (name, bytes, _) = bucket.segment_bytes(10..20, 8, "replaced");
    let key = bucket.keys.build(&Key::MergedSegment(bucket.at(), name));
    bucket.put(&key, bytes);
    assert_eq!(look(&bucket, Depth::Names)[0].0, Kind::Fork);
    let tombstone = Tombstone {
        uid: name.uid,
        node_level: None,
        alone: false,
        kind: varve_formats::manifest::EntryKind::Merged,
        incarnation: 1,
        term: name.term,
        base: name.base,
        last: name.last,
        since_ms: 0,
        log_start: Offset(0),
        named: NAMED_EVER,
    };
    bucket.checkpoint_with(LogIndex(350), tombstone);
    assert_eq!(look(&bucket, Depth::Names), [(Kind::Tombstone, key.to_string())]);
}
