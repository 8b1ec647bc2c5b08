//! The named anomalies and invariants of the tier (FAULTS.md 1 and 2) against a real process and a real S3 server, where no fault row has
//! them already: docs/anomalies.md says which test has which.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use varve_tests::{
    batch::{Batch, produce_patiently},
    clients::{create_topic, script, varve},
    marked,
    node::{Node, Options},
    raw::{fetch, fetch_stored, list_offset},
    s3::Store,
    tool::{self, Tool},
    wait_for,
};

use crate::{
    rig::{RECORDS, Rig, TOPIC, range},
    rot::storage,
};

/// The base offsets of the segments in the bucket.
fn bases(rig: &Rig) -> Vec<u64> {
    rig.store.keys("/seg/").iter().map(|key| range(key).0).collect()
}

#[test]
fn t37_a_range_that_was_put_twice_over_a_kill_is_read_once() {
    let Some(mut rig) = Rig::start() else { return };
    rig.store.set_rules(&["hang-after method=PUT on=/seg/ times=1"]);
    rig.write(RECORDS);
    wait_for("a PUT that nobody answers", 30, || rig.store.seen().iter().any(|seen| seen.fault.is_some()));
    wait_for("its object", 10, || !bases(&rig).is_empty());
    let seen = rig.store.seen();
    let lost = seen.iter().find(|seen| seen.fault.is_some()).expect("it was just seen");
    let base = range(&lost.target).0;
    rig.node.kill();
    rig.store.set_rules(&[]);
    rig.node.restart();
    let mut twice = false;
    wait_for("the same range under another name", 60, || {
        twice |= bases(&rig).iter().filter(|other| **other == base).count() == 2;
        twice
    });
    rig.wait_until_cold();
    rig.check_all();
    wait_for("the first of them to go", 60, || {
        bases(&rig).iter().filter(|other| **other == base).count() == 1
    });
    rig.check_all();
}

#[test]
fn t38_switching_the_tier_while_the_store_is_away_loses_nothing() {
    let Some(mut rig) = Rig::start() else { return };
    rig.write(RECORDS);
    rig.store.set_rules(&["reset"]);
    let set = |node: &Node, value: &str| {
        let _ = varve(node, &["topic", "alter-config", TOPIC, "--set", value]);
    };
    // More than the log may hold: what is only here goes into files, and those must stay through all of this.
    for value in ["remote.storage.enable=false", "remote.storage.enable=true", "remote.log.copy.disable=true"]
    {
        set(&rig.node, value);
        rig.write(9_000);
    }
    rig.node.kill();
    rig.node.restart();
    rig.store.set_rules(&[]);
    set(&rig.node, "remote.log.copy.disable=false");
    rig.wait_until_cold();
    rig.segments_are_one_log();
    rig.check_all();
}

#[test]
fn t39_records_deleted_beyond_the_tier_do_not_wedge_uploads() {
    let Some(mut rig) = Rig::start_cold() else { return };
    rig.store.set_rules(&["status:500:InternalError method=PUT on=/seg/"]);
    rig.write(RECORDS);
    let (tiered, end) = (rig.offset(-5), rig.offset(-1));
    let before = end - 10;
    assert!(tiered < before, "all is tiered: {tiered} of {end}");
    let said = script("admin.py", &rig.node, &["delete-records", TOPIC, "0", &before.to_string()]);
    assert_eq!(said[0]["low_watermark"], before);
    rig.store.set_rules(&[]);
    rig.write(RECORDS);
    wait_for("uploads behind the gap", 60, || rig.offset(-5) > before);
    rig.node.kill();
    rig.node.restart();
    assert_eq!(rig.offset(-2), before);
    rig.check_from(before as u64);
}

#[test]
fn t43_offset_zero_and_the_end_are_served_where_only_commands_are_left_of_the_log() {
    let Some(store) = minio() else { return };
    let mut node = Node::start(store.options(quick(), "t43"));
    create_topic(&node, "t", 1, &["local.retention.bytes=1", "retention.ms=-1"]);
    for number in 0..3 {
        let batch = Batch::of(&[format!("record {number}").as_bytes()]).encode();
        assert_eq!(produce_patiently(node.kafka(), "t", &batch), Some(0));
    }
    let offset = |node: &Node, special| list_offset(node.kafka(), "t", 0, special).unwrap_or(-1);
    wait_for("all to be in the bucket", 60, || offset(&node, -5) == 2);
    for _ in 0..2 {
        node.kill();
        node.restart();
        assert_eq!((offset(&node, -2), offset(&node, -1)), (0, 3));
        for number in 0..3 {
            let (code, records) = fetch_stored(node.kafka(), "t", number);
            let wanted = format!("record {number}");
            let found = records.windows(wanted.len()).any(|window| window == wanted.as_bytes());
            assert!(code == 0 && found, "{number}: error {code}");
        }
        let begin = Instant::now();
        let (code, records) = fetch(node.kafka(), "t", 3);
        assert!(code == 0 && records.is_empty(), "at the end: error {code}, {} bytes", records.len());
        assert!(begin.elapsed() < Duration::from_secs(5), "a fetch at the end hangs");
    }
    let batch = Batch::of(&[b"record 3"]).encode();
    assert_eq!(produce_patiently(node.kafka(), "t", &batch), Some(0));
    let (code, records) = fetch(node.kafka(), "t", 3);
    assert!(code == 0 && records.ends_with(b"record 3\0"), "error {code}, {} bytes", records.len());
}

fn minio() -> Option<Store> {
    Tool::need(&[Tool::Kcat, Tool::Python, Tool::Minio]).then(Store::start)
}

/// Small everything, and uploads after a second.
fn quick() -> Options {
    Options::small().env("VARVE_TIER_MAX_AGE_MS", "1000")
}

const VALUE_BYTES: usize = 20_000;

fn value(number: u64) -> Vec<u8> {
    marked::value("t", number as i64, VALUE_BYTES)
}

/// Writes so many batches of one record each, and gives the batches as the broker serves them while they are hot.
fn write(node: &Node, numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    let written = numbers.map(|number| {
        assert_eq!(produce_patiently(node.kafka(), "t", &Batch::of(&[&value(number)]).encode()), Some(0));
        let (code, records) = fetch_stored(node.kafka(), "t", number as i64);
        assert_eq!(code, 0, "{number}");
        // A batch begins with its base offset, 8 bytes, and its length, 4.
        let batch = &records[..];
        let length = u32::from_be_bytes(batch[8..12].try_into().unwrap()) as usize;
        assert_eq!(u64::from_be_bytes(batch[..8].try_into().unwrap()), number);
        batch[..12 + length].to_vec()
    });
    written.collect()
}

/// B1 and B3: over kills no object ever holds anything else, each that is named is there and whole, and the manifest's sequence in the
/// checkpoints only grows with the log.
#[test]
fn b1_b3_objects_never_change_and_the_manifest_only_moves_on() {
    let Some(store) = minio() else { return };
    let mut node = Node::start(store.options(quick(), "b1"));
    create_topic(&node, "t", 1, &["segment.bytes=262144", "local.retention.bytes=1", "retention.ms=-1"]);
    let mut contents: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for round in 0..4 {
        let (segments, checkpoints) = (store.keys("/seg/"), store.keys("/ckpt/"));
        let tiered = list_offset(node.kafka(), "t", 0, -5).unwrap_or(-1);
        drop(write(&node, round * 60..(round + 1) * 60));
        // Killed as the last record is acknowledged, then as an object is there, as it is named, and as a checkpoint is there:
        // what follows upon each is under way.
        wait_for("the moment of the kill", 60, || match round {
            0 => true,
            1 => store.keys("/seg/").iter().any(|key| !segments.contains(key)),
            2 => list_offset(node.kafka(), "t", 0, -5).is_ok_and(|last| last > tiered),
            _ => store.keys("/ckpt/").iter().any(|key| !checkpoints.contains(key)),
        });
        node.kill();
        for key in store.keys("") {
            let digest = Sha256::digest(store.get(&key)).to_vec();
            let first = contents.entry(key.clone()).or_insert_with(|| digest.clone());
            assert_eq!(*first, digest, "{key} holds something else than before");
        }
        node.restart();
    }
    wait_for("the tier", 60, || list_offset(node.kafka(), "t", 0, -5).unwrap_or(-1) > 200);
    wait_for("checkpoints", 60, || store.keys("/ckpt/").len() >= 2);
    let (code, report) = storage(&node, &["scrub", "-o", "json", "--admin", &node.admin().to_string()]);
    let begin = report.find('{').unwrap_or_else(|| panic!("{report}"));
    let report: serde_json::Value = serde_json::from_str(&report[begin..]).unwrap();
    assert!(code == 0 && report["damaged"].as_array().unwrap().is_empty(), "{code} {report}");
    let sequences: Vec<u64> =
        store.keys("/ckpt/").iter().map(|key| manifest_sequence(&store, "b1", key)).collect();
    // Keys begin with the applied index: they are in the log's order.
    assert!(sequences.is_sorted(), "the manifest went back: {sequences:?}");
    assert!(sequences.first() < sequences.last(), "{sequences:?}");
}

/// What a checkpoint of a group says of its manifest's commands.
pub(crate) fn manifest_sequence(store: &Store, prefix: &str, key: &str) -> u64 {
    let mut show = std::process::Command::new(tool::varve());
    let options = store.options(Options::default(), prefix);
    tool::without_our_variables(&mut show).args(["snapshot", "show", key]);
    let output = show.args(&options.arguments).envs(options.environment).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("MANIFEST")).unwrap_or_else(|| panic!("{output:?}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// B2, B5 and B6, by nothing but keys, bytes and what clients were told: a kill in the middle of uploads leaves no segment beyond what
/// is committed, those that are named follow each other, and each holds the batches as the broker served them before.
#[test]
fn b2_b5_b6_segments_are_the_logs_bytes_without_a_gap_and_not_beyond_its_end() {
    let Some(store) = minio() else { return };
    let mut node = Node::start(store.options(quick(), "b6"));
    create_topic(&node, "t", 1, &["segment.bytes=262144", "local.retention.bytes=1", "retention.ms=-1"]);
    let mut batches = Vec::new();
    for round in 0..4_u64 {
        batches.extend(write(&node, round * 60..(round + 1) * 60));
        node.kill();
        node.restart();
        let end = list_offset(node.kafka(), "t", 0, -1).unwrap() as u64;
        assert_eq!(end, batches.len() as u64, "acknowledged, and nothing else was sent");
        for key in store.keys("/seg/") {
            assert!(range(&key).1 < end, "{key} holds more than the log, which ends at {end}");
        }
    }
    let end = batches.len() as u64;
    wait_for("all to be in the bucket", 60, || list_offset(node.kafka(), "t", 0, -5) == Ok(end as i64 - 1));
    // A kill may have left a range twice: then both hold the same batches, and either continues the log.
    let mut keys = store.keys("/seg/");
    keys.extend(store.keys("/mseg/"));
    let mut reached = 0;
    while reached < end {
        let next = keys.iter().filter(|key| range(key).0 == reached).map(|key| range(key).1 + 1).max();
        reached = next.unwrap_or_else(|| panic!("no segment begins at {reached}: {keys:?}"));
    }
    for key in &keys {
        let (object, (base, last)) = (store.get(key), range(key));
        let mut from = 0;
        for number in base..=last {
            let batch = &batches[number as usize];
            let place = object[from..].windows(batch.len()).position(|window| window == batch);
            from +=
                place.unwrap_or_else(|| panic!("{key} does not hold the batch at {number} as it was served"));
        }
    }
}

/// B9: retention of a topic in the bucket takes whole ranges that are too many, never more, and what it took stays away. The records
/// take next to nothing there: it is the log's bytes that count.
#[test]
fn b9_retention_of_a_tiered_topic_leaves_what_was_asked_for() {
    const KEPT: u64 = 1 << 20;
    let Some(store) = minio() else { return };
    let mut node = Node::start(store.options(quick(), "b9"));
    let kept = format!("retention.bytes={KEPT}");
    create_topic(
        &node,
        "t",
        1,
        &["segment.bytes=131072", "local.retention.bytes=1", "retention.ms=-1", &kept],
    );
    let offset = |node: &Node, special| list_offset(node.kafka(), "t", 0, special).unwrap_or(-1);
    let mut start = 0;
    let mut look = |node: &Node| {
        // The end after the start: what is written between the two is there as well.
        let (now, end) = (offset(node, -2), offset(node, -1));
        assert!(now >= start, "the log begins at {now}, and began at {start}");
        assert!(
            now == 0 || (end - now) as u64 * VALUE_BYTES as u64 >= KEPT - (KEPT >> 6),
            "{now} to {end} is too little"
        );
        start = now;
        now
    };
    let batch = Batch::of(&[&[b'v'; VALUE_BYTES]]).encode();
    for _ in 0..150 {
        assert_eq!(produce_patiently(node.kafka(), "t", &batch), Some(0));
        look(&node);
    }
    wait_for("retention", 60, || look(&node) > 50);
    let before = look(&node);
    node.kill();
    node.restart();
    assert!(look(&node) >= before);
    let (code, records) = fetch_stored(node.kafka(), "t", before);
    assert!(code == 1 || (code == 0 && records.len() > VALUE_BYTES), "at {before}: error {code}");
}

/// S5: the newest local checkpoints of two groups change places, each whole. A server adds nothing: they are files of the node.
#[test]
fn s5_checkpoints_of_other_groups_are_not_used() {
    if !Tool::need(&[Tool::Kcat, Tool::Python]) {
        return;
    }
    let mut node = Node::start(quick());
    for topic in ["t", "u"] {
        create_topic(&node, topic, 1, &["segment.bytes=262144", "retention.ms=-1"]);
    }
    let mut rounds = 0;
    wait_for("two checkpoints each", 120, || {
        drop(write(&node, rounds * 30..(rounds + 1) * 30));
        marked::fill(&node, "u", 0..30, VALUE_BYTES);
        rounds += 1;
        let full = checkpoints(&node).into_iter().filter(|files| files.len() >= 2).count();
        full >= 2
    });
    node.kill();
    let newest: Vec<PathBuf> = checkpoints(&node)
        .into_iter()
        .filter(|files| files.len() >= 2)
        .filter_map(|mut files| files.pop())
        .collect();
    let (one, other) = (fs::read(&newest[0]).unwrap(), fs::read(&newest[1]).unwrap());
    fs::write(&newest[0], other).unwrap();
    fs::write(&newest[1], one).unwrap();
    node.restart();
    for number in (0..rounds * 30).step_by(7) {
        let (code, records) = fetch_stored(node.kafka(), "t", number as i64);
        let wanted = value(number);
        assert!(
            code == 0 && records.windows(64).any(|window| window == &wanted[..64]),
            "{number}: error {code}"
        );
    }
    assert_eq!(list_offset(node.kafka(), "t", 0, -1), Ok(rounds as i64 * 30));
}

/// The local checkpoints of each group, oldest first.
fn checkpoints(node: &Node) -> Vec<Vec<PathBuf>> {
    let groups = fs::read_dir(node.data().join("groups")).unwrap().flatten();
    let of_group = groups.map(|group| {
        let files = fs::read_dir(group.path()).unwrap().flatten().map(|file| file.path());
        let mut files: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|ending| ending == "ckpt")).collect();
        files.sort();
        files
    });
    of_group.collect()
}
