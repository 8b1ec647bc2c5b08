//! History without a broker: what `varve archive` reads from a bucket that a broker has filled, and that it never writes there.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use varve_tests::{
    faults::files_below,
    tool::{self, Tool},
};

use crate::offline::{ORDERS, Offline, SHAPES, YOUNG};

#[test]
fn archive_cat_prints_what_consume_printed_and_only_reads() {
    let Some(mut offline) = Offline::fill(4_000) else { return };
    let keys = offline.store.keys("");
    list(&offline);
    let mut printed: Vec<String> = Vec::new();
    for topic in [SHAPES, YOUNG, ORDERS] {
        printed.extend(offline.print(&["archive", "cat", topic, "--json"]).lines().map(str::to_owned));
    }
    printed.sort_unstable();
    assert_eq!(printed.len(), 4_022);
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

#[test]
fn archive_export_is_read_by_duckdb_polars_pandas_and_pyarrow_and_goes_on_where_it_ended() {
    if !Tool::need(&[Tool::Data]) {
        return;
    }
    let Some(offline) = Offline::fill(3_000) else { return };
    let folder = offline.node.folder().to_owned();
    let consumed = folder.join("consumed");
    fs::write(&consumed, offline.consumed.join("\n") + "\n").unwrap();
    let to = |name: &str| folder.join(name).display().to_string();
    for (name, form) in [("history", "parquet"), ("arrow", "arrow"), ("jsonl", "jsonl")] {
        for topic in [SHAPES, ORDERS] {
            let files = offline.json(&["archive", "export", topic, "--format", form, "-o", &to(name)]);
            let records: u64 =
                files.as_array().unwrap().iter().map(|file| file["records"].as_u64().unwrap()).sum();
            assert_eq!(records, if topic == SHAPES { 3_000 } else { 20 }, "{files:#}");
        }
    }
    offline.assert_read_only();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut script = Command::new(tool::cache().join("data/bin/python"));
    script
        .arg(tool::scripts().join("archive.py"))
        .args([SHAPES, "consumed"])
        .arg(root.join("docs/archive.md"));
    let read = script.current_dir(&folder).output().unwrap();
    let error = String::from_utf8_lossy(&read.stderr);
    let said: Value = serde_json::from_slice(&read.stdout).unwrap_or_else(|_| panic!("{error}"));
    assert_eq!((&said["rows"], said["blocks"].as_u64() >= Some(5)), (&3_000.into(), true), "{said}");
    goes_on(&offline, &to("history"), &folder.join("history"));
    in_parts(&offline, &to("parts"), &folder);
}

/// What is there is not written again; what a killed run left without an entry is made again, and is the same.
fn goes_on(offline: &Offline, to: &str, history: &Path) {
    let export = || offline.json(&["archive", "export", SHAPES, "-o", to]);
    assert_eq!(export(), Value::Array(vec![]), "a second run wrote something");
    let entries =
        files_below(history).into_iter().filter(|path| path.extension().is_some_and(|end| end == "json"));
    let entry = entries.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let before = fs::read(&entry).unwrap();
    fs::remove_file(&entry).unwrap();
    let topic = if String::from_utf8_lossy(&before).contains("\"orders\"") { ORDERS } else { SHAPES };
    let files = offline.json(&["archive", "export", topic, "-o", to]);
    assert_eq!((files.as_array().unwrap().len(), &files[0]["outcome"]), (1, &"kept".into()), "{files:#}");
    let entry_of = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let after = entry_of(&fs::read(&entry).unwrap());
    assert_eq!(after["sha256"], entry_of(&before)["sha256"]);
    // And a bucket gets the same bytes.
    offline.json(&["archive", "export", ORDERS, "-o", "s3://varve/exported"]);
    let key = offline.store.keys("exported/").into_iter().find(|key| key.ends_with(".parquet")).unwrap();
    let here = history.join(key.strip_prefix("exported/").unwrap());
    assert!(offline.store.get(&key) == fs::read(here).unwrap(), "{key} differs");
}

/// Ranges that overlap what is there are less what is there: no offset is in two files.
fn in_parts(offline: &Offline, to: &str, folder: &Path) {
    for range in [
        ["--from", "100", "--to", "300"],
        ["--from", "0", "--to", "200"],
        ["--from", "250", "--to", "100000"],
    ] {
        let arguments = [&["archive", "export", SHAPES, "-p", "1", "-o", to][..], &range].concat();
        let _ = offline.json(&arguments);
    }
    let names = files_below(&folder.join("parts"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "parquet"));
    let mut ranges: Vec<(u64, u64)> = names
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name[..20].parse().unwrap(), name[21..41].parse().unwrap())
        })
        .collect();
    ranges.sort_unstable();
    assert_eq!(ranges[0].0, 0);
    assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{ranges:?}");
}
