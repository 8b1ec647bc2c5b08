//! A broker whose tier is behind a proxy that fails as told, before a real S3 server, with one topic that leaves the local disk as soon as it
//! is tiered.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use varve_localstack::proxy::Seen;
use varve_tests::{
    batch::{Batch, produce_patiently},
    clients::{create_topic, kcat, try_script},
    marked::line,
    node::{Node, Options},
    raw::{fetch, list_offset},
    s3::Store,
    scale, tool,
    tool::Tool,
};

pub(crate) const TOPIC: &str = "hostile";
pub(crate) const PREFIX: &str = "hostile";
pub(crate) const RECORDS: u64 = 1500;
const VALUE_BYTES: usize = 1000;
/// A time-out of one request that lets a test meet several.
const REQUEST_TIMEOUT_MS: &str = "2000";

/// See the module.
pub(crate) struct Rig {
    // First to go: a broker without its store would log its end.
    pub(crate) node: Node,
    pub(crate) store: Store,
    pub(crate) written: u64,
}

impl Rig {
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// With variables of its environment beside the rig's own.
    pub(crate) fn start_with(variables: &[(&str, &str)]) -> Option<Self> {
        if !Tool::need(&[Tool::Python, Tool::Kcat, Tool::Minio]) {
            return None;
        }
        let store = Store::start().behind_proxy(scale("VARVE_SEED", 51));
        let options = Options::small()
            .env("VARVE_S3_REQUEST_TIMEOUT_MS", REQUEST_TIMEOUT_MS)
            .env("VARVE_TIER_MAX_AGE_MS", "1000")
            .env("VARVE_COLD_CACHE_BYTES", "1MiB");
        let options = variables.iter().fold(options, |options, (name, value)| options.env(name, *value));
        let node = Node::start(store.options(options, PREFIX));
        create_topic(&node, TOPIC, 1, &["segment.bytes=262144", "local.retention.bytes=1"]);
        Some(Self { node, store, written: 0 })
    }

    /// A rig with records that only the bucket has.
    pub(crate) fn start_cold() -> Option<Self> {
        let mut rig = Self::start()?;
        rig.write(RECORDS);
        rig.wait_until_cold();
        Some(rig)
    }

    /// Writes so many more records; each was acknowledged.
    pub(crate) fn write(&mut self, records: u64) {
        let lines: String =
            (self.written..self.written + records).map(|number| line(number, VALUE_BYTES) + "\n").collect();
        // Idempotent: where producers wait for room in the log, others may be written twice, or out of order.
        let producer = ["-P", "-t", TOPIC, "-X", "enable.idempotence=true", "-X", "linger.ms=5"];
        let _ = kcat(&self.node, &producer, lines.as_bytes());
        self.written += records;
    }

    pub(crate) fn offset(&self, special: i64) -> i64 {
        list_offset(self.node.kafka(), TOPIC, 0, special).unwrap_or(-1)
    }

    /// Waits until the bucket alone has nearly all of what was written. The log is cut below the older of two checkpoints, and
    /// those follow records: so some more are written all the while.
    pub(crate) fn wait_until_cold(&mut self) {
        let wanted = self.written as i64 * 3 / 4;
        let begin = Instant::now();
        while self.offset(-4) < wanted {
            assert!(begin.elapsed() < Duration::from_secs(120), "records did not leave the local disk");
            self.write(300);
            thread::sleep(Duration::from_millis(400));
        }
        assert_eq!(self.offset(-2), 0, "nothing may go from the log itself");
    }

    /// Reads all that was written, cold and hot, with a restarted broker: nothing comes from its memory.
    pub(crate) fn check_all(&mut self) {
        self.node.kill();
        self.node.restart();
        self.check_from(0);
    }

    pub(crate) fn check_from(&self, from: u64) {
        let offset = from.to_string();
        let read = ["-C", "-q", "-e", "-t", TOPIC, "-p", "0", "-o", &offset, "-X", "check.crcs=true"];
        let read = String::from_utf8(kcat(&self.node, &read, b"")).unwrap();
        let mut lines = read.lines();
        for number in from..self.written {
            assert_eq!(
                lines.next(),
                Some(line(number, VALUE_BYTES).as_str()),
                "record {number} is lost or other"
            );
        }
        assert_eq!(lines.next(), None, "there is more than was written");
    }

    /// The newest records come from the local log, in no time.
    pub(crate) fn hot_path_works(&mut self) {
        let begin = Instant::now();
        let from = self.written;
        self.write(1);
        self.check_from(from);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(5), "a hot write and read took {took:?}");
    }

    /// How long it takes until one more record is acknowledged and read.
    pub(crate) fn hot_write_and_read(&mut self) -> Duration {
        let value = line(self.written, VALUE_BYTES);
        let batch = Batch::of(&[value.as_bytes()]).encode();
        let begin = Instant::now();
        assert_eq!(produce_patiently(self.node.kafka(), TOPIC, &batch), Some(0));
        let (code, records) = fetch(self.node.kafka(), TOPIC, self.written as i64);
        let took = begin.elapsed();
        let found = records.windows(value.len()).any(|window| window == value.as_bytes());
        assert!(code == 0 && found, "record {}: error {code}", self.written);
        self.written += 1;
        took
    }

    /// A reader of a cold record gets nothing, and is told nothing but to come again.
    pub(crate) fn cold_is_not_served(&self) {
        let (is_read, why) = try_script("cold_reader.py", &self.node, &[TOPIC, "0", "0"]);
        assert!(!is_read, "a record was served that the store did not give");
        assert!(why.contains("retriable"), "{why}");
        assert_eq!(self.offset(-2), 0, "the log's start has moved");
    }

    pub(crate) fn requests(&self, method: &str, part: &str) -> Vec<Seen> {
        let seen = self.store.seen();
        seen.into_iter().filter(|seen| seen.method == method && seen.target.contains(part)).collect()
    }

    /// Waits until the bucket's segments, by the ranges in their names, are one log without overlap: uploads run side by side, and
    /// small segments are merged, so that both are there for a while. Not after a kill, which may leave an object that nothing names.
    pub(crate) fn segments_are_one_log(&self) {
        let begin = Instant::now();
        while let Err(wrong) = self.segments_in_order() {
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "the bucket's segments are not one log: {wrong}"
            );
            thread::sleep(Duration::from_millis(200));
        }
    }

    pub(crate) fn segments_in_order(&self) -> Result<(), String> {
        let mut keys = [self.store.keys("/seg/"), self.store.keys("/mseg/")].concat();
        keys.sort_by_key(|key| range(key));
        let mut end = 0;
        for key in keys {
            let (base, last) = range(&key);
            if base != end {
                return Err(format!("{key} where {end} follows"));
            }
            end = last + 1;
        }
        Ok(())
    }
}

/// The bucket below a prefix, every object of it read, is whole; what was found beside that.
pub(crate) fn verify_bucket(store: &Store, prefix: &str) -> Value {
    let mut verify = Command::new(tool::varve());
    tool::without_our_variables(&mut verify).args(["bucket", "verify", "--deep", "--json"]);
    store.show(&mut verify, prefix);
    let output = verify.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert!(output.status.success() && report["ok"] == true, "{report:#}");
    report
}

/// The first and last offset in a segment's key.
pub(crate) fn range(key: &str) -> (u64, u64) {
    let name = key.rsplit('/').next().unwrap();
    let mut parts = name.split('-').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}
