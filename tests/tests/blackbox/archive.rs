//! History without a broker: what `varve archive` reads from a bucket that a broker has filled, and that it never writes there.

use serde_json::Value;

use crate::offline::{Offline, SHAPES, YOUNG};

#[test]
fn archive_cat_prints_what_consume_printed_and_only_reads() {
    let Some(mut offline) = Offline::fill(4_000) else { return };
    let keys = offline.store.keys("");
    list(&offline);
    let mut printed: Vec<String> = Vec::new();
    for topic in [SHAPES, YOUNG] {
        printed.extend(offline.print(&["archive", "cat", topic, "--json"]).lines().map(str::to_owned));
    }
    printed.sort_unstable();
    assert_eq!(printed.len(), 4_002);
    assert!(printed == offline.consumed, "archive cat and consume print other records");
    places(&offline);
    let report = offline.json(&["bucket", "verify", "--deep"]);
    assert_eq!(report["segments"], report["segments_read"], "{report:#}");
    offline.assert_read_only();
    assert_eq!(offline.store.keys(""), keys);
    let refused = offline.run(&["archive", "cat", "nothing"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&refused.stderr)
            .contains("there is no topic nothing; see `varve archive ls`")
    );
    // What cannot be read is no damage, and no health.
    offline.store.stop();
    let away = offline.run(&["bucket", "verify", "--set", "s3.request.timeout.ms=500"]);
    assert_eq!(away.status.code(), Some(3), "{}", String::from_utf8_lossy(&away.stderr));
}

fn list(offline: &Offline) {
    let topics = offline.json(&["archive", "ls"]);
    let named = |name: &str| {
        let topics = topics.as_array().unwrap();
        topics
            .iter()
            .find(|topic| topic["topic"] == name)
            .unwrap_or_else(|| panic!("{name}: {topics:?}"))
            .clone()
    };
    let young = &named(YOUNG)["partitions"][0];
    assert_eq!((&young["end_offset"], &young["tail_segments"]), (&2.into(), &1.into()), "{young}");
    assert_eq!(young["checkpoint_append_time_ms"], Value::Null, "it was to have no snapshot");
    let shapes = named(SHAPES);
    let partitions = shapes["partitions"].as_array().unwrap();
    let ends: u64 = partitions.iter().map(|partition| partition["end_offset"].as_u64().unwrap()).sum();
    assert_eq!((partitions.len(), ends), (2, 4_000));
    assert!(partitions.iter().all(|partition| partition["warnings"] == Value::Array(vec![])), "{shapes}");
    assert!(!offline.store.keys("/node/").is_empty(), "no manifest has a node");
    let table = offline.print(&["archive", "ls", SHAPES]);
    assert!(table.starts_with("PARTITION  START  END"), "{table}");
}

/// Places, counts, partitions and formats are those of `consume`.
fn places(offline: &Offline) {
    let cat =
        |arguments: &[&str]| offline.print(&[&["archive", "cat", SHAPES, "-p", "1"], arguments].concat());
    let all: Vec<Value> = cat(&["--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let offsets = |text: &str| -> Vec<i64> { text.lines().map(|line| line.parse().unwrap()).collect() };
    let at = |place: &str| offsets(&cat(&["-o", place, "-f", "%o\\n"]));
    let end = all.len() as i64;
    assert_eq!(at("17:20"), [17, 18, 19]);
    assert_eq!(at("-3"), [end - 3, end - 2, end - 1]);
    assert_eq!(at("+5:7"), [5, 6]);
    assert_eq!(offsets(&cat(&["-n", "2", "-o", "100", "-f", "%o\\n"])), [100, 101]);
    let middle = all[all.len() / 2]["timestamp"].as_i64().unwrap();
    let first = all.iter().find(|record| record["timestamp"].as_i64() >= Some(middle)).unwrap();
    assert_eq!(at(&format!("@{middle}")).first().copied(), first["offset"].as_i64());
}
