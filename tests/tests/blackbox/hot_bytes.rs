//! What of a tiered topic stays on the node: `local.retention.ms` and `varve.hot.bytes.max`, before a real S3 server. Disk comes back, every record
//! is read all the same, and what only this node has stays, whatever it takes.

use varve_tests::{
    clients::{create_topic, topic_id, varve, varve_json},
    marked::fill,
    node::{Node, Options},
    raw::{fetch_stored, list_offset},
    s3::Store,
    tool::Tool,
    wait_for,
};

const PREFIX: &str = "hot";
const VALUE_BYTES: usize = 60_000;
/// Somewhat less than the log may hold.
const RECORDS: i64 = 200;
const MIB: u64 = 1 << 20;
/// What files and directories take beside the bytes that count: their last blocks.
const BLOCKS: u64 = 64 << 10;

/// A node before a store that can be told to refuse segments of one topic.
struct Rig {
    node: Node,
    store: Store,
}

impl Rig {
    fn start(options: Options) -> Option<Self> {
        if !Tool::need(&[Tool::Python, Tool::Minio]) {
            return None;
        }
        let store = Store::start().behind_proxy(1);
        let options = options.env("VARVE_TIER_MAX_AGE_MS", "1000").env("VARVE_COLD_CACHE_BYTES", "1MiB");
        Some(Self { node: Node::start(store.options(options, PREFIX)), store })
    }

    /// A topic whose records are stamped as they come, and stay until they are asked to go.
    fn create(&self, topic: &str, more: &[&str]) {
        let stamped = "message.timestamp.type=LogAppendTime";
        let all = ["segment.bytes=1048576", "retention.ms=-1", stamped];
        create_topic(&self.node, topic, 1, &[&all, more].concat());
    }

    /// From now on no segment of this topic is taken.
    fn refuse(&self, topic: &str) {
        let folder = topic_id(&self.node, topic);
        self.store.set_rules(&[&format!("status:500:InternalError method=PUT on=/{folder}/")]);
    }

    fn offset(&self, topic: &str, special: i64) -> i64 {
        list_offset(self.node.kafka(), topic, 0, special).unwrap_or(-1)
    }

    fn wait_tiered(&self, topic: &str, end: i64) {
        wait_for(&format!("all of {topic} to be in the bucket"), 120, || self.offset(topic, -5) == end - 1);
    }

    /// Where its records are, as people are shown.
    fn shown(&self, topic: &str, name: &str) -> i64 {
        let (_, described) = varve_json(&self.node, &["topic", "describe-storage", topic]);
        described["partitions"][0][name].as_i64().unwrap_or_else(|| panic!("{name}: {described}"))
    }

    /// Bytes of its files on this node's disk.
    fn file_bytes(&self) -> u64 {
        self.node.disk_bytes("segments").saturating_sub(BLOCKS)
    }

    fn check(&self, topic: &str, numbers: std::ops::Range<i64>) {
        for number in numbers {
            let (code, records) = fetch_stored(self.node.kafka(), topic, number);
            let wanted = format!("<{topic} {number:06}>");
            let found = records.windows(wanted.len()).any(|window| window == wanted.as_bytes());
            assert!(code == 0 && found, "{topic} {number}: error {code}");
        }
    }
}

/// Both topics ask for the same. The store takes the segments of one alone: its files go as soon as they are older than asked, and those
/// of the other stay, as old as they are.
#[test]
fn local_retention_ms_frees_the_disk_of_what_is_in_the_bucket_and_of_nothing_else() {
    let Some(mut rig) = Rig::start(Options::small()) else { return };
    let keep = ["local.retention.ms=-1", "local.retention.bytes=-1"];
    rig.create("tiered", &keep);
    rig.create("held", &keep);
    rig.refuse("held");
    for topic in ["tiered", "held"] {
        fill(&rig.node, topic, 0..RECORDS, VALUE_BYTES);
    }
    rig.wait_tiered("tiered", RECORDS);
    // It asks for all to be here: so it is, in the bucket and in files.
    assert_eq!((rig.shown("tiered", "local_start"), rig.shown("tiered", "cloud_only")), (0, 0));
    let full = rig.file_bytes();
    assert!(full > 10 * MIB, "only {full} bytes are in files");
    for topic in ["tiered", "held"] {
        let _ = varve(&rig.node, &["topic", "alter-config", topic, "--set", "local.retention.ms=1000"]);
    }
    wait_for("the files of what is tiered to go", 60, || rig.offset("tiered", -4) > RECORDS * 3 / 4);
    assert!(rig.shown("tiered", "cloud_only") > RECORDS * 3 / 4, "people are told something else");
    rig.check("tiered", 0..RECORDS);
    // By now what is held is as old, and has been looked at as often.
    assert_eq!((rig.offset("held", -4), rig.offset("held", -2), rig.offset("held", -5)), (0, 0, -1));
    rig.check("held", 0..RECORDS);
    rig.node.kill();
    rig.node.restart();
    assert_eq!(rig.offset("held", -4), 0);
    rig.check("held", 0..RECORDS);
    rig.store.set_rules(&[]);
    rig.wait_tiered("held", RECORDS);
    wait_for("its files to go, too", 60, || rig.file_bytes() < full / 4);
    for topic in ["tiered", "held"] {
        rig.check(topic, 0..RECORDS);
        assert_eq!(rig.offset(topic, -2), 0, "nothing may go from the log itself");
    }
}

/// All asks to stay, and there is room for the log and 8 MiB more: the oldest of what is tiered goes, and all of it before anything that is
/// not.
#[test]
fn varve_hot_bytes_max_holds_and_what_is_not_in_the_bucket_does_not_count() {
    const LOG: u64 = 16 * MIB;
    const HOT: u64 = 24 * MIB;
    let Some(mut rig) = Rig::start(Options::small().env("VARVE_HOT_BYTES_MAX", "24MiB")) else { return };
    let keep = ["local.retention.ms=-1", "local.retention.bytes=-1"];
    rig.create("tiered", &keep);
    rig.create("held", &keep);
    rig.refuse("held");
    let many = 3 * RECORDS;
    fill(&rig.node, "tiered", 0..many, VALUE_BYTES);
    rig.wait_tiered("tiered", many);
    wait_for("the disk to hold what it may", 60, || rig.file_bytes() <= HOT - LOG);
    assert!(rig.file_bytes() >= (HOT - LOG) / 2, "{} bytes are in files", rig.file_bytes());
    assert!(rig.node.disk_bytes("wal") <= LOG, "the log takes {} bytes", rig.node.disk_bytes("wal"));
    let start = rig.offset("tiered", -4);
    assert!(start > 0 && rig.shown("tiered", "cloud_only") == start, "the oldest is still here");
    rig.check("tiered", 0..many);

    // 30 MB that nobody else has, of which the log can hold half.
    fill(&rig.node, "held", 0..many * 5 / 6, VALUE_BYTES);
    let held = many * 5 / 6;
    wait_for("it to drive out what is tiered", 60, || rig.offset("tiered", -4) > start);
    assert_eq!((rig.offset("held", -4), rig.offset("held", -5)), (0, -1), "what is nowhere else went");
    rig.node.kill();
    rig.node.restart();
    rig.check("held", 0..held);
    rig.check("tiered", 0..many);
    rig.store.set_rules(&[]);
    rig.wait_tiered("held", held);
    wait_for("the disk to hold what it may again", 60, || rig.file_bytes() <= HOT - LOG);
    rig.check("held", 0..held);
    assert_eq!((rig.offset("held", -2), rig.offset("tiered", -2)), (0, 0));
}
