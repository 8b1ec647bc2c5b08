//! `varve bucket verify` finds what is made wrong in a bucket that a broker has written, and nothing where nothing is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use varve_tests::{
    clients::create_topic,
    faults::files_below,
    marked::fill,
    node::{Node, Options},
    raw::list_offset,
    tool::{self, Tool},
    wait_for,
};

const TOPIC: &str = "verified";
const VALUE_BYTES: usize = 1_000;
const RECORDS: i64 = 600;

/// A data directory whose objects are files: what is done to them is done to the bucket.
struct Bucket {
    node: Node,
}

impl Bucket {
    fn new() -> Self {
        let options =
            Options::small().env("VARVE_MANIFEST_FAN_OUT", "4").env("VARVE_TIER_MAX_AGE_MS", "1000");
        let node = Node::start(options);
        create_topic(&node, TOPIC, 1, &["segment.bytes=40000", "retention.ms=-1"]);
        let mut bucket = Self { node };
        bucket.write(0..RECORDS);
        bucket
    }

    /// Writes, waits until all of it is in the bucket and in a snapshot, and ends the broker in order.
    fn write(&mut self, numbers: std::ops::Range<i64>) {
        fill(&self.node, TOPIC, numbers, VALUE_BYTES);
        let node = &self.node;
        wait_for("everything to be in the bucket", 90, || {
            let end = list_offset(node.kafka(), TOPIC, 0, -1);
            end.is_ok_and(|end| list_offset(node.kafka(), TOPIC, 0, -5) == Ok(end - 1))
        });
        assert!(self.node.terminate().success());
    }

    fn objects(&self) -> PathBuf {
        self.node.data().join("objects/data")
    }

    /// Objects below a folder of this name, in their order.
    fn find(&self, folder: &str) -> Vec<PathBuf> {
        let parent = |path: &PathBuf| path.parent().is_some_and(|parent| parent.ends_with(folder));
        let mut found: Vec<_> = files_below(&self.objects()).into_iter().filter(parent).collect();
        found.sort_unstable();
        found
    }

    /// Segments that the manifest names: verification says nothing of them.
    fn segments(&self) -> Vec<PathBuf> {
        let (_, report) = self.verify(&[]);
        let findings = report["findings"].as_array().unwrap();
        let is_told =
            |path: &PathBuf| findings.iter().any(|finding| path.ends_with(finding["key"].as_str().unwrap()));
        let mut all = [self.find("seg"), self.find("mseg")].concat();
        all.retain(|path| !is_told(path));
        assert!(all.len() >= 2, "{report}");
        all
    }

    /// The exit code and what was found.
    fn verify(&self, arguments: &[&str]) -> (i32, Value) {
        self.run(&[&["bucket", "verify"], arguments].concat())
    }

    fn run(&self, arguments: &[&str]) -> (i32, Value) {
        let mut command = Command::new(tool::varve());
        tool::without_our_variables(&mut command)
            .args(arguments)
            .arg("--json")
            .arg("--data-dir")
            .arg(self.node.data());
        let output = command.stdin(Stdio::null()).output().unwrap();
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!(
                "{error}: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        });
        (output.status.code().unwrap(), report)
    }

    /// Verification ends with `code` and finds `kind` of this object.
    fn expect(&self, arguments: &[&str], code: i32, kind: &str, path: &Path) {
        let (found, report) = self.verify(arguments);
        let findings = report["findings"].as_array().unwrap();
        let is_it =
            |finding: &&Value| finding["kind"] == kind && path.ends_with(finding["key"].as_str().unwrap());
        assert!(findings.iter().any(|finding| is_it(&finding)), "{kind} of {}: {report:#}", path.display());
        assert_eq!(found, code, "{report:#}");
    }

    fn expect_whole(&self) {
        let (code, report) = self.verify(&["--deep"]);
        assert_eq!((code, &report["ok"]), (0, &true.into()), "{report:#}");
        assert!(
            report["segments"].as_u64() == report["segments_read"].as_u64()
                && report["nodes"].as_u64() > Some(0)
        );
    }
}

/// A file that is made wrong and comes back as it was.
struct Wrong {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Wrong {
    fn make(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let bytes = fs::read(path).unwrap();
        let mut changed = bytes.clone();
        change(&mut changed);
        fs::write(path, changed).unwrap();
        Self { path: path.to_owned(), bytes }
    }
}

impl Drop for Wrong {
    fn drop(&mut self) {
        fs::write(&self.path, &self.bytes).unwrap();
    }
}

#[test]
fn bucket_verify_finds_each_thing_that_is_made_wrong() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let bucket = Bucket::new();
    bucket.expect_whole();
    let segments = bucket.segments();
    let (one, other) = (&segments[0], &segments[1]);
    flipped_and_cut(&bucket, one);
    {
        let _one = Wrong::make(one, |bytes| *bytes = fs::read(other).unwrap());
        let _other = Wrong { path: other.clone(), bytes: fs::read(other).unwrap() };
        fs::write(other, &_one.bytes).unwrap();
        bucket.expect(&["--deep"], 1, "content", one);
        bucket.expect(&["--deep"], 1, "content", other);
    }
    gone(&bucket, one);
    extra(&bucket, one);
    snapshots(&bucket);
    bucket.expect_whole();
}

fn flipped_and_cut(bucket: &Bucket, segment: &Path) {
    {
        let _wrong = Wrong::make(segment, |bytes| bytes[100] ^= 1);
        assert_eq!(bucket.verify(&[]).0, 0, "a flipped bit is for --deep to find");
        bucket.expect(&["--deep"], 1, "content", segment);
        let (code, report) = bucket.run(&["snapshot", "verify", "--deep"]);
        assert_eq!((code, &report["damaged"]), (1, &1.into()), "{report:#}");
    }
    let _wrong = Wrong::make(segment, |bytes| bytes.truncate(bytes.len() / 2));
    bucket.expect(&[], 1, "length", segment);
    let node = &bucket.find("node")[0];
    let _wrong = Wrong::make(node, |bytes| bytes[30] ^= 1);
    bucket.expect(&[], 1, "content", node);
}

fn gone(bucket: &Bucket, segment: &Path) {
    let bytes = fs::read(segment).unwrap();
    fs::remove_file(segment).unwrap();
    bucket.expect(&[], 1, "missing", segment);
    bucket.expect(&["--topic", TOPIC], 1, "missing", segment);
    fs::write(segment, bytes).unwrap();
    assert_eq!(bucket.verify(&[]).0, 0);
}

/// The same records under another uid, and what has no name of ours.
fn extra(bucket: &Bucket, segment: &Path) {
    let name = segment.file_name().unwrap().to_str().unwrap();
    let (kept, _) = name.rsplit_once('-').unwrap();
    for (name, kind) in
        [(format!("{kept}-00000000000000aa.seg"), "orphan"), ("stranger.txt".to_owned(), "unknown")]
    {
        let path = segment.with_file_name(name);
        fs::copy(segment, &path).unwrap();
        bucket.expect(&[], 0, kind, &path);
        fs::remove_file(path).unwrap();
    }
}

fn snapshots(bucket: &Bucket) {
    let newest = bucket.find("ckpt").pop().unwrap();
    let _wrong = Wrong::make(&newest, |bytes| bytes[60] ^= 1);
    bucket.expect(&[], 1, "content", &newest);
}

/// A disk that was copied, and both copies went on: one life of one cluster, and two histories of the same offsets. Then another
/// cluster writes to the same prefix.
#[test]
fn bucket_verify_finds_two_histories_and_two_writers() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut bucket = Bucket::new();
    let before = files_below(&bucket.objects());
    let copy = bucket.node.folder().join("copy");
    let copied = Command::new("cp").arg("-a").arg(bucket.node.data()).arg(&copy).status().unwrap();
    assert!(copied.success());
    bucket.node.restart();
    bucket.write(1_000..1_200);
    let mut other = Node::stopped(
        Options { data: Some(copy.clone()), ..Options::small() }.env("VARVE_TIER_MAX_AGE_MS", "1000"),
    );
    other.restart();
    let mut other = Bucket { node: other };
    other.write(2_000..2_200);
    bucket.expect_whole();
    let folder = copy.join("objects/data");
    let theirs = files_below(&folder).into_iter().filter(|path| {
        let below = path.strip_prefix(&folder).unwrap();
        path.parent().unwrap().ends_with("seg") && !before.contains(&bucket.objects().join(below))
    });
    let mut forked = None;
    for path in theirs {
        let here = bucket.objects().join(path.strip_prefix(&folder).unwrap());
        fs::copy(&path, &here).unwrap();
        forked = forked.or(Some(here));
    }
    bucket.expect(&[], 1, "fork", &forked.expect("the copy wrote segments of its own"));
    another_cluster(&bucket);
}

fn another_cluster(bucket: &Bucket) {
    let stranger = Bucket::new();
    let theirs = fs::read_dir(stranger.objects()).unwrap().flatten().map(|entry| entry.path());
    let cluster = theirs.into_iter().find(|path| !path.ends_with("claim")).unwrap();
    let here = bucket.objects().join(cluster.file_name().unwrap());
    assert!(Command::new("cp").arg("-a").arg(&cluster).arg(&here).status().unwrap().success());
    let (code, report) = bucket.verify(&[]);
    let found = report["findings"].as_array().unwrap().iter().any(|finding| finding["kind"] == "two_writers");
    assert!(code == 1 && found, "{report:#}");
    // And its claim in the place of the next life's.
    let claim = bucket.objects().join("claim/0000000002");
    fs::copy(stranger.objects().join("claim/0000000001"), claim).unwrap();
    let (code, report) = bucket.verify(&[]);
    assert!(code == 1 && report["findings"][0]["kind"] == "two_writers", "{report:#}");
}

/// Hides a file until it is dropped.
struct Hidden {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Hidden {
    fn of(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        Self { path: path.to_owned(), bytes }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        fs::write(&self.path, &self.bytes).unwrap();
    }
}

/// A topic that is exported while it is written: three files or more, and a snapshot that knows the third.
fn exported() -> (Bucket, Vec<PathBuf>, Vec<PathBuf>) {
    let options =
        Options::small().env("VARVE_TIER_MAX_AGE_MS", "500").env("VARVE_SNAPSHOT_MAX_AGE_MS", "1000");
    let node = Node::start(options);
    let configs = ["retention.ms=-1", "varve.archive.parquet=true", "varve.archive.max.age.ms=1000"];
    create_topic(&node, TOPIC, 1, &configs);
    let bucket = Bucket { node };
    let list = |part: &str| {
        let is_it = |path: &PathBuf| path.to_string_lossy().contains(part);
        let mut found: Vec<_> = files_below(&bucket.objects()).into_iter().filter(is_it).collect();
        found.sort_unstable();
        found
    };
    let mut written = 0;
    for round in 1..=3 {
        fill(&bucket.node, TOPIC, written..written + 100, VALUE_BYTES);
        written += 100;
        wait_for("a file and its entry", 90, || list("/archive-meta/").len() >= round);
    }
    let (files, entries) = (list("/archive/v1/"), list("/archive-meta/"));
    wait_for("a snapshot that knows the third file", 90, || {
        let _hidden = Hidden::of(&entries[2]);
        let (code, report) = bucket.verify(&[]);
        let findings = report["findings"].as_array().unwrap();
        let is_it = |finding: &Value| finding["kind"] == "missing";
        let knows = code == 1 && findings.iter().any(is_it);
        if !knows {
            // Snapshots follow records.
            fill(&bucket.node, TOPIC, written..written + 10, VALUE_BYTES);
            written += 10;
        }
        knows
    });
    (bucket, files, entries)
}

/// The broker runs on beside all of it.
#[test]
fn bucket_verify_finds_what_is_made_wrong_with_files_that_brokers_exported() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let (bucket, files, entries) = exported();
    let whole = |what: &str| {
        let (code, report) = bucket.verify(&["--deep"]);
        assert_eq!((code, &report["damaged"]), (0, &0.into()), "{what}: {report:#}");
    };
    whole("nothing was done to it");
    let (file, entry) = (&files[1], &entries[1]);
    {
        let _gone = Hidden::of(file);
        bucket.expect(&["--topic", TOPIC], 1, "missing", file);
    }
    {
        let _gone = Hidden::of(entry);
        bucket.expect(&[], 1, "missing", file);
    }
    {
        let _cut = Wrong::make(file, |bytes| bytes.truncate(bytes.len() / 2));
        bucket.expect(&[], 1, "length", file);
    }
    {
        let _flipped = Wrong::make(file, |bytes| bytes[40] ^= 1);
        assert_eq!(bucket.verify(&[]).0, 0, "a flipped bit is for --deep to find");
        bucket.expect(&["--deep"], 1, "content", file);
    }
    {
        let _written_anew = Wrong::make(entry, |bytes| bytes.push(b' '));
        bucket.expect(&[], 1, "content", entry);
    }
    let name = file.file_name().unwrap().to_str().unwrap();
    let first: u64 = name[..20].parse().unwrap();
    let extra = file.with_file_name(format!("{:020}{}", first + 1, &name[20..]));
    fs::copy(file, &extra).unwrap();
    bucket.expect(&[], 1, "fork", &extra);
    fs::remove_file(&extra).unwrap();
    whole("all of it was taken back");
}
