//! Files that brokers export while they run (`varve.archive.parquet`): every record that is tiered comes to be in one of them, and in
//! no two, whatever ends in between.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use varve_tests::{
    clients::{create_topic, script, topic_id, varve},
    cluster::Cluster,
    faults::{files_below, flip_at},
    node::{Node, Options},
    raw::list_offset,
    s3::Store,
    tool::{self, Tool},
    wait_for,
};

const TOPIC: &str = "followed";
const ON: [&str; 4] = ["-s", "varve.archive.parquet=true", "-s", "varve.archive.max.age.ms=1000"];

/// Records are tiered at once, and a file takes a megabyte of them.
fn quick() -> Options {
    Options::small()
        .env("VARVE_TIER_MAX_AGE_MS", "500")
        .env("VARVE_MEMORY_BYTES_MAX", "32MiB")
        .env("VARVE_S3_REQUEST_TIMEOUT_MS", "3000")
}

fn alter(node: &Node, changes: &[&str]) {
    let _ = varve(node, &[&["topic", "alter-config", TOPIC][..], changes].concat());
}

fn write(node: &Node, records: usize, round: usize) {
    let (ledger, records) = (node.folder().join("ledger"), records.to_string());
    let ledger = ledger.display().to_string();
    let _ = script("writer.py", node, &[&ledger, &format!("w{round}"), TOPIC, &records]);
}

/// The end of a partition, once all of it is in the bucket, as its leader says.
fn tiered_end(leader: &Node, partition: i32) -> Option<i64> {
    let end = list_offset(leader.kafka(), TOPIC, partition, -1).ok()?;
    (list_offset(leader.kafka(), TOPIC, partition, -5) == Ok(end - 1)).then_some(end)
}

/// The same of both partitions of a node that is alone.
fn tiered(node: &Node) -> Option<Vec<i64>> {
    (0..2).map(|partition| tiered_end(node, partition)).collect()
}

/// From where to where files hold a partition; two that overlap, or a gap between two, end the test.
fn covered(keys: &[String]) -> BTreeMap<i64, (i64, i64)> {
    let mut ranges: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
    for key in keys.iter().filter(|key| key.contains("/archive/v1/") && key.contains(TOPIC)) {
        let partition = key.split("/partition=").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
        let name = key.rsplit('/').next().unwrap();
        let range = (name[..20].parse().unwrap(), name[21..41].parse::<i64>().unwrap() + 1);
        ranges.entry(partition.parse().unwrap()).or_default().push(range);
    }
    let whole = |mut ranges: Vec<(i64, i64)>| {
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].1 == pair[1].0), "{ranges:?}");
        (ranges[0].0, ranges[ranges.len() - 1].1)
    };
    ranges.into_iter().map(|(partition, ranges)| (partition, whole(ranges))).collect()
}

/// Waits until all that was written is in files.
fn wait_for_files(tiered: impl Fn() -> Option<Vec<i64>>, keys: impl Fn() -> Vec<String>) {
    wait_for("everything to be in files", 180, || {
        let Some(ends) = tiered() else { return false };
        let files = covered(&keys());
        (0..).zip(&ends).all(|(partition, end)| files.get(&partition) == Some(&(0, *end)))
    });
}

/// What DuckDB and Polars find in the files of a folder is what a consumer reads.
fn assert_read(node: &Node, folder: &Path) -> Value {
    let lines = varve(node, &["consume", TOPIC, "-o", "json", "--exit"]);
    let consumed = folder.join("consumed");
    fs::write(&consumed, lines).unwrap();
    let mut command = Command::new(tool::cache().join("data/bin/python"));
    let read = command.arg(tool::scripts().join("archive_tree.py")).arg(folder).args([TOPIC]).arg(consumed);
    let read = read.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    let error = String::from_utf8_lossy(&read.stderr);
    serde_json::from_slice(&read.stdout).unwrap_or_else(|_| panic!("{error}"))
}

/// The archive's objects as files.
fn download(store: &Store, folder: &Path) {
    for key in store.keys("/archive") {
        let below = key.split_once("/archive").map(|(_, below)| format!("archive{below}")).unwrap();
        let path = folder.join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, store.get(&key)).unwrap();
    }
}

fn verify(options: &Options) -> Value {
    let mut command = Command::new(tool::varve());
    tool::without_our_variables(&mut command).envs(options.environment.iter().cloned());
    let output =
        command.args(["bucket", "verify", "--deep", "--json"]).args(&options.arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// History first, then what follows: killed with a file put and the cursor not moved, with its entry put, and anywhere; switched off and on.
#[test]
fn an_old_topic_is_exported_from_its_first_record_on_and_once_whatever_is_killed() {
    if !Tool::need(&[Tool::Python, Tool::Minio, Tool::Data]) {
        return;
    }
    let store = Store::start().behind_proxy(10);
    let options = store.options(quick(), "followed");
    let mut node = Node::start(options.clone());
    create_topic(&node, TOPIC, 2, &["segment.bytes=65536", "retention.ms=-1"]);
    write(&node, 3_000, 0);
    wait_for("history to be in the bucket", 120, || tiered(&node).is_some());
    assert_eq!(store.keys("/archive"), Vec::<String>::new(), "nobody asked for files");
    alter(&node, &ON);
    wait_for_files(|| tiered(&node), || store.keys("/archive/"));
    for round in 1..=4 {
        let place = if round % 2 == 0 { "archive-meta" } else { "/archive/v1/" };
        store.forget_seen();
        store.set_rules(&[&format!("hang-after method=PUT on={place} times=1")]);
        write(&node, 300, round);
        let put = |store: &Store| {
            let seen = store.seen();
            seen.iter().any(|seen| seen.method == "PUT" && seen.target.contains(place))
        };
        wait_for("a put in the archive", 60, || put(&store));
        node.kill();
        store.set_rules(&[]);
        node.restart();
    }
    wait_for_files(|| tiered(&node), || store.keys("/archive/"));
    assert_eq!(node.metric("varve_archive_skipped_records_total"), 0.0);
    switched_off_and_on(&node, &store);
    let folder = node.folder().join("tree");
    fs::create_dir(&folder).unwrap();
    download(&store, &folder);
    let said = assert_read(&node, &folder);
    assert!(said["files"].as_u64() >= Some(6) && said["chained"].as_u64() >= Some(4), "{said}");
    let report = verify(&options);
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    assert!(!findings.iter().any(|found| found.to_string().contains("/archive")), "{report:#}");
    stays_when_the_topic_goes(&node, &store);
}

/// What is written while it is off is exported once it is on again.
fn switched_off_and_on(node: &Node, store: &Store) {
    alter(node, &["-s", "varve.archive.parquet=false"]);
    let before = store.keys("/archive/");
    for round in 10..12 {
        write(node, 200, round);
        wait_for("what was written to be in the bucket", 60, || tiered(node).is_some());
    }
    assert_eq!(store.keys("/archive/"), before, "it is switched off");
    alter(node, &ON);
    wait_for_files(|| tiered(node), || store.keys("/archive/"));
}

fn stays_when_the_topic_goes(node: &Node, store: &Store) {
    let before = store.keys("/archive");
    let _ = varve(node, &["topic", "delete", TOPIC]);
    wait_for("the topic to be gone", 120, || node.metric("varve_cluster_topics_reaped_total") >= 1.0);
    assert_eq!(store.keys("/archive"), before, "files went with their topic");
}

/// Three nodes: leadership goes round, and leaders are killed, while records come.
#[test]
fn each_record_is_in_one_file_however_often_leaders_change() {
    if !Tool::need(&[Tool::Python, Tool::Data]) {
        return;
    }
    let mut cluster = Cluster::start(3, &quick());
    cluster.create_topic(TOPIC, 2, 3, &["segment.bytes=65536", "retention.ms=-1"]);
    alter(&cluster.nodes[0], &ON);
    for round in 0..6 {
        write(&cluster.nodes[0], 400, round);
        let partition = (round % 2) as i32;
        if round % 3 == 2 {
            let leader = cluster.wait_leader(0, TOPIC, partition, None);
            let victim = if leader == 0 { 1 } else { leader };
            cluster.nodes[victim].kill();
            write(&cluster.nodes[0], 100, 20 + round);
            cluster.nodes[victim].restart();
        } else {
            let next = (cluster.wait_leader(0, TOPIC, partition, None) + 1) % 3;
            cluster.lead(next, TOPIC, partition);
        }
    }
    let bucket = PathBuf::from(cluster.bucket());
    let keys = || files_below(&bucket).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    let ends = || {
        let leader = |partition| Some(&cluster.nodes[cluster.leader(0, TOPIC, partition)?]);
        (0..2).map(|partition| tiered_end(leader(partition)?, partition)).collect()
    };
    wait_for_files(ends, keys);
    let parquet =
        files_below(&bucket).into_iter().find(|path| path.extension().is_some_and(|end| end == "parquet"));
    let root = parquet
        .unwrap()
        .ancestors()
        .find(|path| path.ends_with("archive"))
        .unwrap()
        .parent()
        .unwrap()
        .to_owned();
    let said = assert_read(&cluster.nodes[0], &root);
    assert!(said["files"].as_u64() >= Some(4), "{said}");
}

/// A segment of partition 0.
fn segment_of(objects: &Path, topic_id: &str) -> PathBuf {
    let is = |path: &PathBuf| {
        let path = path.display().to_string();
        [topic_id, "/00000/", "/seg/"].iter().all(|part| path.contains(part))
    };
    files_below(objects).into_iter().find(is).expect("the topic has a segment")
}

/// A damaged segment stops the export of its partition, and nothing else; it goes on once the segment is whole again.
#[test]
fn a_damaged_segment_stops_the_export_of_its_partition_alone_and_is_told() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let node = Node::start(quick().env("VARVE_SCRUB_INTERVAL_MS", "2592000000"));
    create_topic(&node, TOPIC, 2, &["segment.bytes=65536", "retention.ms=-1"]);
    write(&node, 600, 0);
    wait_for("history to be in the bucket", 60, || tiered(&node).is_some());
    let objects = node.data().join("objects");
    let damaged = segment_of(&objects, &topic_id(&node, TOPIC));
    flip_at(&damaged, 1_000);
    alter(&node, &ON);
    let keys = || keys_below(&objects);
    let ends = tiered(&node).unwrap();
    wait_for("the sound partition to be in files, and failures of the other", 60, || {
        covered(&keys()).get(&1) == Some(&(0, ends[1])) && node.metric("varve_archive_errors_total") >= 2.0
    });
    assert!(!covered(&keys()).contains_key(&0), "records behind damage were exported");
    write(&node, 200, 1);
    wait_for("tiering to go on", 60, || tiered(&node).is_some_and(|now| now[0] > ends[0]));
    assert!(node.log().contains("Archive"), "failures are not told");
    // Figures are told from time to time.
    wait_for("the lag to be told", 60, || node.metric("varve_archive_lag_records") > 0.0);
    flip_at(&damaged, 1_000);
    wait_for_files(|| tiered(&node), keys);
}

/// `varve archive export` of a topic, as exit code and what it says.
fn export(node: &Node, to: &Path, more: &[&str]) -> (Option<i32>, String) {
    let mut export = Command::new(tool::varve());
    tool::without_our_variables(&mut export);
    export.args(["archive", "export", TOPIC, "--data-dir"]).arg(node.data()).arg("-o").arg(to).args(more);
    let told = export.output().unwrap();
    (told.status.code(), String::from_utf8_lossy(&told.stderr).into_owned())
}

/// Two writers would make files of different bounds of the same records; whoever reads all of them would see records twice.
#[test]
fn an_export_to_where_brokers_make_the_files_themselves_is_refused() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let node = Node::start(quick());
    create_topic(&node, TOPIC, 2, &["segment.bytes=65536", "retention.ms=-1"]);
    alter(&node, &ON);
    write(&node, 300, 0);
    let objects = node.data().join("objects/data");
    let keys = || keys_below(&objects);
    wait_for_files(|| tiered(&node), keys);
    let place = objects.join("..").join("data");
    wait_for("the newest snapshot to say that it is exported", 60, || {
        export(&node, &place, &[]).0 == Some(2)
    });
    let before = keys();
    let (code, told) = export(&node, &place, &[]);
    assert!(code == Some(2) && told.contains("varve.archive.parquet=true"), "{code:?}: {told}");
    let archived =
        |keys: Vec<String>| keys.into_iter().filter(|key| key.contains("/archive")).collect::<Vec<_>>();
    assert_eq!(archived(keys()), archived(before), "a refusal writes nothing");
    // Elsewhere, and as something else, it stands in nobody's way.
    for (to, more) in [(node.folder().join("elsewhere"), &[][..]), (place, &["--format", "jsonl"][..])] {
        let (code, told) = export(&node, &to, more);
        assert_eq!(code, Some(0), "{told}");
    }
    assert!(!covered(&keys_below(&node.folder().join("elsewhere"))).is_empty());
}

fn keys_below(folder: &Path) -> Vec<String> {
    files_below(folder).iter().map(|path| path.display().to_string()).collect()
}

/// The snapshot that a restore begins with may be older than the newest files: they are found, and what follows begins behind them.
#[test]
fn a_restored_cluster_goes_on_where_the_files_end() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let bucket = tempfile::tempdir().unwrap();
    let place = bucket.path().display().to_string();
    let mut first = Node::start(quick().args(&["--object-store", &place]));
    create_topic(&first, TOPIC, 2, &["segment.bytes=65536", "retention.ms=-1"]);
    alter(&first, &ON);
    let files = || keys_below(bucket.path());
    for round in 0..3 {
        write(&first, 300, round);
        wait_for_files(|| tiered(&first), files);
        if round == 0 {
            // From here on nothing is published: the newest snapshot knows the first files at most.
            first.kill();
            let unpublished = [("VARVE_SNAPSHOT_MAX_AGE_MS", "3600000"), ("VARVE_SNAPSHOT_SEGMENTS", "1000")];
            let unpublished = unpublished.map(|(name, value)| (name.to_owned(), value.to_owned()));
            first.options().environment.extend(unpublished);
            first.restart();
        }
    }
    let before = covered(&files());
    first.kill();
    let data = first.folder().join("restored");
    let mut restore = Command::new(tool::varve());
    tool::without_our_variables(&mut restore);
    restore.args(["restore", "--yes", "--wait", "0", "--object-store", &place, "--data-dir"]).arg(&data);
    let restored = restore.output().unwrap();
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let options = Options { data: Some(data), ..quick().args(&["--object-store", &place]) };
    let second = Node::start(options);
    // The metadata is as of its newest snapshot, and may not know that it was asked for.
    alter(&second, &ON);
    write(&second, 300, 3);
    wait_for_files(|| tiered(&second), files);
    assert!(covered(&files()).iter().any(|(partition, range)| range.1 > before[partition].1));
}
