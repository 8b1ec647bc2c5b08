//! A bucket that a real broker filled, and the commands that read it without one.

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use varve_tests::{
    clients::{create_topic, script, varve},
    node::{Node, Options},
    raw::list_offset,
    s3::Store,
    tool::{self, Tool},
    wait_for,
};

/// All codecs, keys, headers, nulls, bytes that are no text: in two partitions.
pub(crate) const SHAPES: &str = "shapes";
/// One segment that no manifest names yet, of a topic that has no snapshot.
pub(crate) const YOUNG: &str = "young";

/// What docs/archive.md asks.
pub(crate) const ORDERS: &str = "orders";

/// See the module.
pub(crate) struct Offline {
    // First to go: a broker without its store would log its end.
    pub(crate) node: Node,
    pub(crate) store: Store,
    options: Options,
    /// What `consume` said of both topics, a line a record, sorted.
    pub(crate) consumed: Vec<String>,
}

impl Offline {
    /// Fills a bucket and kills the broker.
    pub(crate) fn fill(records: usize) -> Option<Self> {
        if !Tool::need(&[Tool::Python, Tool::Minio]) {
            return None;
        }
        let store = Store::start().behind_proxy(8);
        let options = Options::small()
            .env("VARVE_SNAPSHOT_MAX_AGE_MS", "12000")
            .env("VARVE_TIER_MAX_AGE_MS", "1000")
            .env("VARVE_MANIFEST_FAN_OUT", "4");
        let options = store.options(options, "offline");
        let node = Node::start(options.clone());
        let mut offline = Self { node, store, options, consumed: Vec::new() };
        offline.write(records);
        offline.node.kill();
        offline.store.forget_seen();
        Some(offline)
    }

    fn write(&mut self, records: usize) {
        let node = &self.node;
        create_topic(node, SHAPES, 2, &["segment.bytes=65536", "retention.ms=-1"]);
        create_topic(node, YOUNG, 1, &["retention.ms=-1"]);
        create_topic(node, ORDERS, 1, &["retention.ms=-1"]);
        let orders: Vec<String> = (0..20).map(|n| format!("{{\"user\":\"u{n}\",\"total\":{n}}}")).collect();
        let produce = ["produce", ORDERS, "-H", "source=shop"].into_iter();
        let _ = varve(node, &produce.chain(orders.iter().map(String::as_str)).collect::<Vec<_>>());
        let ledger = node.folder().join("ledger");
        let records = records.to_string();
        let _ = script("writer.py", node, &[ledger.to_str().unwrap(), "w", SHAPES, &records]);
        wait_for("both partitions to be in the bucket, and a snapshot that knows the topics", 120, || {
            (0..2).all(|partition| tiered(node, SHAPES, partition))
                && tiered(node, ORDERS, 0)
                && self.run(&["archive", "ls", YOUNG]).status.success()
        });
        let _ = varve(node, &["produce", YOUNG, "one", "two", "-k", "key", "-H", "a=b"]);
        wait_for("the young topic to be in the bucket", 60, || tiered(node, YOUNG, 0));
        for topic in [SHAPES, YOUNG, ORDERS] {
            let lines = varve(node, &["consume", topic, "-o", "json", "--exit"]);
            self.consumed.extend(lines.lines().map(str::to_owned));
        }
        self.consumed.sort_unstable();
    }

    /// Runs `varve` on the bucket.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(tool::varve());
        tool::without_our_variables(&mut command).envs(self.options.environment.iter().cloned());
        command.args(arguments).args(&self.options.arguments).stdin(Stdio::null());
        command
    }

    /// A node's options that put its tier elsewhere on the same server.
    pub(crate) fn options_at(&self, url: &str) -> Options {
        let mut options = self.options.clone();
        let place = options.arguments.iter().position(|argument| argument == "--object-store").unwrap();
        options.arguments[place + 1] = url.to_owned();
        options
    }

    /// The same, where it must end well; what it printed.
    pub(crate) fn print(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let text = String::from_utf8(output.stdout).expect("it prints text");
        assert!(output.status.success(), "{arguments:?}: {error}{text}");
        text
    }

    /// The same with `-o json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.print(&[arguments, &["--json"]].concat())).expect("it prints JSON")
    }

    /// What the store was asked since the last time: nothing that writes.
    pub(crate) fn assert_read_only(&self) {
        let seen = self.store.seen();
        assert!(!seen.is_empty(), "nothing was asked of the store");
        for request in &seen {
            assert!(
                matches!(request.method.as_str(), "GET" | "HEAD"),
                "{} {}",
                request.method,
                request.target
            );
        }
        self.store.forget_seen();
    }
}

/// Whether all of a partition is in the bucket.
fn tiered(node: &Node, topic: &str, partition: i32) -> bool {
    let end = list_offset(node.kafka(), topic, partition, -1);
    end.is_ok_and(|end| end > 0 && list_offset(node.kafka(), topic, partition, -5) == Ok(end - 1))
}
