use varve_common::{Digest, LogIndex, Offset, Term};
use varve_formats::manifest::{Entry, EntryKind, FanOut, FoldPlan, Root};
use varve_objects::{
    Operation,
    testing::{Fault, FaultyStore, InstantClock, SeededEntropy},
};
use varve_snapshot::ChooseError;

use super::{
    testing::{Bucket, TOPIC, block_on, prefix},
    *,
};

fn ranges(bucket: &Bucket, from: u64) -> Vec<(u64, u64)> {
    let (history, partition) = (bucket.open().unwrap(), bucket.partition().unwrap());
    let view = partition.view();
    let mut walk = view.walk(&history, Offset(from));
    let mut ranges = Vec::new();
    while let Some(found) = block_on(walk.next()) {
        if let Found::Entry(entry) = found {
            ranges.push((entry.base.0, entry.end().0));
        }
    }
    ranges
}

#[test]
fn a_manifest_is_walked_in_order_through_its_nodes_and_its_tail() {
    let bucket = Bucket::new();
    let root = bucket.manifest(200, 2);
    bucket.checkpoint(300, &root, 0);
    bucket.segment(200..210, 3, "");
    bucket.segment(210..217, 4, "");
    let mut expected: Vec<_> = (0..210).step_by(10).map(|base| (base, base + 10)).collect();
    expected.push((210, 217));
    assert_eq!(ranges(&bucket, 0), expected);
    assert_eq!(ranges(&bucket, 95), expected[9..]);
    assert_eq!(ranges(&bucket, 216), [(210, 217)]);
    assert_eq!(ranges(&bucket, 217), []);
    let partition = bucket.partition().unwrap();
    assert_eq!((partition.end(), &partition.tail.stop), (Offset(217), &Stop::End));
    assert!(partition.tail.state.is_some() && partition.state_at_end().epochs.len() == 1);
}

#[test]
fn a_node_that_is_gone_is_told_and_the_walk_goes_on_behind_it() {
    let bucket = Bucket::new();
    let root = bucket.manifest(200, 4);
    bucket.checkpoint(300, &root, 0);
    let gone = bucket.keys.node(testing::topic_id(), PartitionIndex(0), &root.nodes[0]);
    block_on(bucket.store.delete(&gone)).unwrap();
    let (history, partition) = (bucket.open().unwrap(), bucket.partition().unwrap());
    let view = partition.view();
    let mut walk = view.walk(&history, Offset(0));
    assert_eq!(block_on(walk.next()), Some(Found::Unreadable(root.nodes[0].clone(), Trouble::Missing)));
    assert!(block_on(walk.next()).is_some());
}

#[test]
fn s4_t14_a_damaged_checkpoint_is_told_the_one_before_is_used_and_the_tail_makes_up_for_it() {
    let bucket = Bucket::new();
    let old = bucket.manifest(50, 1_024);
    bucket.checkpoint(60, &old, 0);
    let mut new = old.clone();
    new.append(vec![bucket.segment(50..60, 3, "").1], Offset(0)).unwrap();
    let newest = bucket.checkpoint(70, &new, 0);
    bucket.tamper(&newest, |bytes| bytes[40] ^= 1);
    let partition = bucket.partition().unwrap();
    assert_eq!(partition.damaged.len(), 1);
    assert_eq!((partition.state.root.end(), partition.end()), (Offset(50), Offset(60)));
}

#[test]
fn s4_damage_is_never_emptiness() {
    let bucket = Bucket::new();
    let only = bucket.checkpoint(60, &bucket.manifest(50, 1_024), 0);
    bucket.tamper(&only, |bytes| bytes.truncate(30));
    let error = bucket.partition().unwrap_err();
    assert!(error.is_damage(), "{error}");
    let metadata = bucket.metadata(1, 11);
    bucket.tamper(&metadata, |bytes| bytes[20] ^= 1);
    assert_eq!(bucket.open().unwrap().metadata().damaged.len(), 1);
}

#[test]
fn nobodys_prefix_and_a_store_that_is_away_are_two_answers() {
    let bucket = Bucket::new();
    let nobody = block_on(History::open(bucket.store.clone(), &Prefix::new("other"))).err();
    assert_eq!(nobody, Some(HistoryError::Nobody));
    let clock = Arc::new(InstantClock::default());
    let faulty = Arc::new(FaultyStore::new(bucket.store.clone(), clock, Arc::new(SeededEntropy::new(1))));
    faulty.script(Operation::List, Fault::ErrorBefore);
    let away = block_on(History::open(faulty, &prefix())).err().unwrap();
    assert!(!away.is_damage() && away != HistoryError::Nobody, "{away}");
}

#[test]
fn a_new_topic_has_no_checkpoint_and_all_of_it_is_tail() {
    let bucket = Bucket::new();
    bucket.segment(0..10, 3, "");
    bucket.segment(10..20, 3, "");
    let partition = bucket.partition().unwrap();
    assert!(partition.checkpoint.is_none());
    assert_eq!((partition.log_start(), partition.end()), (Offset(0), Offset(20)));
}

#[test]
fn a_partition_that_never_held_a_record_is_empty_in_every_life() {
    let mut bucket = Bucket::new();
    assert_eq!(bucket.partition().unwrap().end(), Offset(0));
    bucket.claim(2);
    bucket.complete(2);
    bucket.metadata(2, 10);
    bucket.incarnation = 2;
    let partition = bucket.partition().unwrap();
    assert!(partition.checkpoint.is_none());
    assert_eq!((partition.log_start(), partition.end()), (Offset(0), Offset(0)));
    bucket.segment(0..10, 3, "");
    assert_eq!(bucket.partition().unwrap().end(), Offset(10), "nor does the first segment need one");
}

#[test]
fn s4_a_partition_whose_checkpoints_were_removed_is_damaged_and_never_empty() {
    let is_removed = |bucket: &Bucket| matches!(bucket.partition(), Err(HistoryError::Removed { .. }));
    // Of what a manifest named something was collected, which a checkpoint precedes.
    let bucket = Bucket::new();
    let root = bucket.manifest(50, 2);
    assert_eq!(bucket.partition().unwrap().end(), Offset(50), "all is there as it was rolled");
    for base in (0..50).step_by(10) {
        let (name, ..) = bucket.segment_bytes(base..base + 10, 3, "");
        let key = bucket.keys.build(&varve_formats::keys::Key::Segment(bucket.at(), name));
        block_on(bucket.store.delete(&key)).unwrap();
    }
    assert!(!root.nodes.is_empty() && is_removed(&bucket));
    let bucket = Bucket::new();
    let (name, bytes, _) = bucket.segment_bytes(0..10, 3, "");
    bucket.put(&bucket.keys.build(&varve_formats::keys::Key::MergedSegment(bucket.at(), name)), bytes);
    assert!(is_removed(&bucket));
    let bucket = Bucket::new();
    bucket.segment(10..20, 3, "");
    assert!(is_removed(&bucket));
    // What a life that is not complete has is nothing.
    let mut bucket = Bucket::new();
    bucket.claim(2);
    bucket.incarnation = 2;
    bucket.checkpoint(60, &Root::default(), 0);
    bucket.incarnation = 1;
    assert!(bucket.partition().unwrap().checkpoint.is_none());
}

#[test]
fn of_a_partition_without_a_manifest_the_newest_run_of_segments_is_left_or_nothing_behind_all_that_was() {
    let remains = |bucket: &Bucket| {
        let history = bucket.open().unwrap();
        let topic = history.topic(TOPIC).unwrap().clone();
        let left = block_on(history.remains(&topic, PartitionIndex(0))).unwrap();
        (left.log_start().0, left.end().0, left.tail.segments.len())
    };
    let bucket = Bucket::new();
    for range in [10..20, 30..40, 40..50] {
        bucket.segment(range, 3, "");
    }
    assert_eq!(remains(&bucket), (30, 50, 2));
    let (name, bytes, _) = bucket.segment_bytes(50..60, 3, "");
    bucket.put(&bucket.keys.build(&varve_formats::keys::Key::MergedSegment(bucket.at(), name)), bytes);
    assert_eq!(remains(&bucket), (60, 60, 0), "something that is lost lay behind them");
    // What a checkpoint whose sections are damaged says of itself counts.
    let mut root = Root::default();
    root.entries.push(bucket.segment_bytes(60..90, 3, "").2);
    let damaged = bucket.checkpoint(100, &root, 0);
    bucket.tamper(&damaged, |bytes| *bytes.last_mut().unwrap() ^= 1);
    assert!(bucket.partition().unwrap_err().is_lost());
    assert_eq!(remains(&bucket), (90, 90, 0));
}

#[test]
fn there_is_no_fall_back_below_the_newest_complete_life() {
    let mut bucket = Bucket::new();
    bucket.checkpoint(60, &bucket.manifest(50, 1_024), 0);
    bucket.claim(2);
    assert_eq!(bucket.open().unwrap().incarnation(), Incarnation(1), "the second is not complete");
    bucket.complete(2);
    let error = bucket.open().err().unwrap();
    assert!(matches!(error, HistoryError::Choose { error: ChooseError::NoneListed(_), .. }), "{error}");
    bucket.metadata(2, 10);
    // What the first life has of it says that it had a checkpoint when the second was complete.
    let error = bucket.partition().unwrap_err();
    assert!(matches!(error, HistoryError::Removed { .. }) && error.is_damage(), "{error}");
    // What the second life names may lie in the first; what the first wrote later is a dead lineage.
    let old = bucket.partition_of_first_life();
    bucket.segment(50..60, 3, "dead");
    bucket.incarnation = 2;
    bucket.checkpoint(80, &old, 0);
    assert_eq!(bucket.partition().unwrap().end(), Offset(50));
    bucket.segment(50..55, 9, "alive");
    assert_eq!(bucket.partition().unwrap().end(), Offset(55));
}

impl Bucket {
    fn partition_of_first_life(&self) -> Root {
        let mut root = Root::default();
        for base in (0..50).step_by(10) {
            root.entries.push(self.segment_bytes(base..base + 10, 3, "").2);
        }
        root
    }
}

#[test]
fn segments_of_many_partitions_that_are_read_at_once_share_one_budget() {
    let bucket = Bucket::new();
    let lengths = [0..10, 10..30].map(|range| bucket.segment(range, 3, "").1.length);
    let mut history = bucket.open().unwrap();
    history.memory = UploadBudget::new(lengths[1]);
    let topic = history.topic(TOPIC).unwrap().clone();
    let reads = (0..8).map(|_| history.partition(&topic, PartitionIndex(0)));
    let read = block_on(futures_util::future::join_all(reads));
    assert!(read.iter().all(|read| read.as_ref().unwrap().end() == Offset(30)));
    assert_eq!((history.memory().held(), history.memory().held_max()), (0, lengths[1]));
}

#[test]
fn of_two_leaders_with_equal_records_the_higher_term_is_taken() {
    let bucket = Bucket::new();
    let (lower, _) = bucket.segment(0..10, 3, "");
    let (higher, _) = bucket.segment(0..10, 5, "");
    let tail = bucket.partition().unwrap().tail;
    assert_eq!((&tail.segments[0].key, &tail.twins), (&higher, &vec![lower.clone()]));
    // The other stands in where it is not whole, and that is told.
    bucket.tamper(&higher, |bytes| bytes[20] ^= 1);
    let tail = bucket.partition().unwrap().tail;
    assert_eq!((&tail.segments[0].key, tail.passed.len()), (&lower, 1));
}

#[test]
fn a_fork_a_gap_and_a_broken_object_end_the_tail_and_say_why() {
    let bucket = Bucket::new();
    bucket.segment(0..10, 3, "");
    bucket.segment(20..30, 3, "");
    let tail = bucket.partition().unwrap().tail;
    assert_eq!(tail.stop, Stop::Gap { end: Offset(10), next: Offset(20) });
    bucket.segment(10..20, 3, "one");
    bucket.segment(10..20, 4, "other");
    let tail = bucket.partition().unwrap().tail;
    assert!(matches!(&tail.stop, Stop::Fork { base: Offset(10), keys } if keys.len() == 2), "{tail:?}");
    assert_eq!(tail.segments.len(), 1);
    let bucket = Bucket::new();
    let (key, _) = bucket.segment(0..10, 3, "");
    for cut in [0, 5, 100] {
        bucket.tamper(&key, |bytes| bytes.truncate(bytes.len() - cut.min(bytes.len()) - 1));
        let stop = bucket.partition().unwrap().tail.stop;
        assert!(matches!(stop, Stop::Broken { .. }), "{stop:?}");
    }
}

#[test]
fn a_segment_whose_place_in_the_log_is_not_behind_is_of_another_lineage() {
    let bucket = Bucket::new();
    let mut root = bucket.manifest(50, 1_024);
    root.entries[4].roll_index = LogIndex(1_000);
    bucket.checkpoint(1_100, &root, 0);
    let (key, _) = bucket.segment(50..60, 3, "");
    assert_eq!(bucket.partition().unwrap().tail.stop, Stop::Stray(key));
}

#[test]
fn what_was_trimmed_before_it_was_tiered_is_no_gap() {
    let bucket = Bucket::new();
    bucket.checkpoint(300, &bucket.manifest(50, 1_024), 60);
    bucket.segment(60..70, 3, "");
    let partition = bucket.partition().unwrap();
    assert_eq!((partition.view().start(), partition.end()), (Offset(60), Offset(70)));
}

#[test]
fn merged_segments_are_never_a_tail() {
    let bucket = Bucket::new();
    bucket.checkpoint(60, &Root::default(), 0);
    let (name, bytes, _) = bucket.segment_bytes(0..10, 3, "");
    bucket.put(&bucket.keys.build(&varve_formats::keys::Key::MergedSegment(bucket.at(), name)), bytes);
    assert_eq!(bucket.partition().unwrap().end(), Offset(0));
}

#[test]
fn t46_topics_are_found_by_name_and_by_id_and_others_are_not_there() {
    let history = Bucket::new().open().unwrap();
    assert!(history.topic(TOPIC).is_ok() && history.topic(&testing::topic_id().to_string()).is_ok());
    assert_eq!(history.topic("nothing").err(), Some(HistoryError::NoTopic("nothing".into())));
    assert_eq!(history.partitions().count(), 1);
}

fn small(base: u64) -> Entry {
    Entry {
        store_id: 0,
        kind: EntryKind::Raw,
        incarnation: 1,
        term: Term(3),
        uid: base,
        position: 0,
        length: 10,
        base: Offset(base),
        last: Offset(base),
        count: 1,
        min_timestamp: 0,
        max_timestamp: 0,
        first_index: LogIndex(base),
        roll_index: LogIndex(base),
        roll_term: Term(3),
        terms: (Term(3), Term(3)),
        txn_index_empty: true,
        delete_horizon_ms: 0,
        batch_bytes: 10,
        sha256: Digest::default(),
    }
}

#[test]
fn a_manifest_of_a_million_segments_is_walked_node_by_node() {
    const SEGMENTS: u64 = 1 << 20;
    let bucket = Bucket::new();
    let mut root = Root::default();
    for leaf in 0..SEGMENTS / 1_024 {
        let entries: Vec<_> = (leaf * 1_024..(leaf + 1) * 1_024).map(small).collect();
        let plan = FoldPlan::Leaf(entries);
        let identity = bucket.identity(1);
        let node = block_on(varve_tiering::put_node(&*bucket.store, &bucket.keys, &identity, plan, leaf));
        root.nodes.push(node.unwrap());
        bucket.fold(&mut root, FanOut::DEFAULT.0 / 8);
    }
    let identity = bucket.identity(1);
    let mut walk = Walk::new(&*bucket.store, &bucket.keys, &identity, &root, Offset(0));
    let (mut next, mut held) = (0, 0);
    while let Some(found) = block_on(walk.next()) {
        held = held.max(walk.places.len());
        if let Found::Entry(entry) = found {
            assert_eq!(entry.base, Offset(next));
            next += 1;
        }
    }
    assert_eq!(next, SEGMENTS);
    assert!(held < 4 * 1_024, "{held} places were held at once");
}
