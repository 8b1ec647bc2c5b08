//! A quiet partition's small segments become larger ones while it is written and read, within a tenth of what the node uploads.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use varve_tests::{
    clients::create_topic,
    marked::{fill, value},
    node::{Node, Options},
    raw::{fetch_stored, list_offset},
    tool::Tool,
    wait_for,
};

const VALUE_BYTES: usize = 30_000;
/// Of the quiet topic; each is a segment of its own.
const RECORDS: i64 = 120;
/// Of the busy topic, whose segments are larger: ten times what the quiet one's merges write, and more.
const BUSY: i64 = 2_000;
/// What a node may merge however little it uploads.
const GIVEN_PER_SECOND: f64 = 16_384.0;

fn check_served(node: &Node, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let (code, records) = fetch_stored(node.kafka(), "quiet", number);
        let wanted = value("quiet", number, VALUE_BYTES);
        let found = records.windows(wanted.len()).any(|window| window == wanted);
        assert!(code == 0 && found, "{number}: error {code}");
    }
}

/// Objects of all partitions in a folder of theirs: `seg` as uploaded, `mseg` merged.
fn objects(folder: &Path, kind: &str) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let counts = entries.map(|entry| {
        let path = entry.path();
        if path.is_dir() { objects(&path, kind) } else { usize::from(path.parent().unwrap().ends_with(kind)) }
    });
    counts.sum()
}

#[test]
fn small_segments_are_merged_within_budget_and_no_reader_notices() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = Node::start(Options::small());
    create_topic(&node, "quiet", 1, &["segment.bytes=20000", "retention.ms=-1"]);
    create_topic(&node, "busy", 1, &["segment.bytes=8388608", "retention.ms=-1"]);
    fill(&node, "quiet", 0..RECORDS, VALUE_BYTES);
    wait_for("everything quiet to be in the bucket", 60, || {
        list_offset(node.kafka(), "quiet", 0, -5) == Ok(RECORDS - 1)
    });
    assert!(node.metric("varve_tier_uploads_total") >= 60.0, "the quiet topic's segments are not small");
    let (store, begin) = (node.data().join("objects"), Instant::now());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) || rounds == 0 {
                check_served(&node, 0..RECORDS);
                rounds += 1;
            }
            rounds
        });
        fill(&node, "busy", 0..BUSY, VALUE_BYTES);
        // Its own records bring the checkpoints that no longer name what was replaced.
        for number in RECORDS..RECORDS + 40 {
            fill(&node, "quiet", number..number + 1, VALUE_BYTES);
            thread::sleep(std::time::Duration::from_millis(200));
        }
        wait_for("replaced segments to go", 120, || {
            node.metric("varve_tier_merges_total") >= 2.0
                && node.metric("varve_tier_deleted_objects_total") >= 8.0
        });
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    let (merged, uploaded) =
        (node.metric("varve_tier_merged_bytes_total"), node.metric("varve_tier_uploaded_bytes_total"));
    // And a little that is given with time, from the start of the node on.
    let budget = uploaded / 10.0 * 1.05 + GIVEN_PER_SECOND * (begin.elapsed().as_secs_f64() + 60.0);
    assert!(merged > 0.0 && merged <= budget, "{merged} bytes merged of {uploaded} uploaded");
    assert!(node.metric("varve_tier_merged_segments_total") >= 16.0);
    let asked = node.metric_of("varve_store_budget_requests_total", "class=\"merge\"");
    assert!(asked >= 16.0, "merging asked the store {asked} times as what it is");
    assert!(objects(&store, "mseg") >= 1, "no merged object is in the bucket");
    assert_eq!(node.metric("varve_tier_merge_errors_total"), 0.0);
    check_served(&node, 0..RECORDS + 40);
    node.kill();
    node.restart();
    check_served(&node, 0..RECORDS + 40);
    assert_eq!(node.metric("varve_tier_read_damage_total"), 0.0);
}

/// Nothing is uploaded any more that would pay for it, and most was folded into leaves of the manifest before there was room.
#[test]
fn what_a_partition_leaves_behind_at_rest_becomes_few_objects_within_what_time_gives() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let begin = Instant::now();
    let mut node = Node::start(Options::small().env("VARVE_MANIFEST_FAN_OUT", "8"));
    create_topic(&node, "quiet", 1, &["segment.bytes=20000", "retention.ms=-1"]);
    fill(&node, "quiet", 0..27, VALUE_BYTES);
    wait_for("everything but the open range to be in the bucket", 60, || {
        list_offset(node.kafka(), "quiet", 0, -5).is_ok_and(|last| last >= 25)
    });
    let store = node.data().join("objects");
    assert!(objects(&store, "node") >= 1, "nothing was folded");
    // 780 kB, of which uploads pay for a tenth.
    wait_for("leaves to be merged", 180, || node.metric("varve_tier_merged_segments_total") >= 16.0);
    let merged = node.metric("varve_tier_merged_bytes_total");
    let budget = node.metric("varve_tier_uploaded_bytes_total") / 10.0 * 1.05;
    let budget = budget + GIVEN_PER_SECOND * begin.elapsed().as_secs_f64();
    assert!(merged <= budget, "{merged} bytes merged, {budget} were given");
    check_served(&node, 0..27);
    wait_for("what was merged to go", 120, || objects(&store, "seg") <= 18);
    check_served(&node, 0..27);
    node.kill();
    node.restart();
    check_served(&node, 0..27);
    assert_eq!(node.metric("varve_tier_read_damage_total"), 0.0);
    assert_eq!(node.metric("varve_tier_merge_errors_total"), 0.0);
}
