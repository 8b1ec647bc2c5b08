//! Two leaders before one bucket: who led is stopped (SIGSTOP) in the middle of a segment's PUT, the next leader tiers the same range under
//! a name of its own, and then the first wakes up and is told that its PUT is done. Real processes, a real S3 server, and a proxy
//! that keeps the PUT, or its answer, until it is told to let it go.

use serde_json::Value;
use varve_localstack::proxy::Seen;
use varve_tests::{
    clients::topic_id,
    cluster::Cluster,
    marked::fill_led,
    node::{Node, Options},
    s3::Store,
    tool::Tool,
    wait_for,
};

use crate::{
    anomalies::manifest_sequence,
    cluster_faults::{LARGE_BYTES, check_large},
    rig::{range, verify_bucket},
};

const TOPIC: &str = "led";
const PREFIX: &str = "two-leaders";
/// As many records as two segments have, and some: of about five each.
const ROUND: i64 = 15;

/// A cluster of three, and the PUT in the middle of which its leader was stopped.
struct Rivals {
    // First to go: brokers without their store would log their end.
    cluster: Cluster,
    store: Store,
    written: i64,
    /// Who was stopped.
    first: usize,
    /// The name under which it puts the range.
    key: String,
}

impl Rivals {
    /// The leader of a new topic puts a segment, its PUT meets the fault, and it is stopped there; another one leads.
    fn start(fault: &str) -> Option<Self> {
        if !Tool::need(&[Tool::Kcat, Tool::Python, Tool::Minio]) {
            return None;
        }
        let store = Store::start().behind_proxy(1);
        let options = Options::small()
            .env("VARVE_TIER_MAX_AGE_MS", "1000")
            // What is stopped is not to give its PUT up meanwhile.
            .env("VARVE_S3_REQUEST_TIMEOUT_MS", "300000")
            .env("VARVE_ORPHANS_INTERVAL_MS", "3000");
        let cluster = Cluster::start(3, &store.options(options, PREFIX));
        let local = "local.retention.bytes=1";
        cluster.create_topic(TOPIC, 1, 3, &["segment.bytes=262144", local, "retention.ms=-1"]);
        wait_for("all to be in sync", 120, || cluster.in_sync(0, TOPIC, 0) == [0, 1, 2]);
        let first = cluster.wait_leader(0, TOPIC, 0, None);
        let mut rivals = Self { cluster, store, written: 0, first, key: String::new() };
        // Not the first of all: the ranges before it are named already.
        rivals.write(first, ROUND);
        rivals.wait_tiered(first, 0);
        rivals.store.set_rules(&[&format!("{fault} method=PUT on=/seg/ times=1")]);
        rivals.write(first, ROUND);
        wait_for("a PUT to be on its way", 60, || rivals.held().is_some());
        rivals.key = rivals.held().expect("it was just seen").target;
        let asked = rivals.others()[0];
        rivals.first = rivals.cluster.wait_leader(asked, TOPIC, 0, None);
        assert_eq!(rivals.first, first, "the leader has changed before it was stopped");
        rivals.cluster.nodes[first].signal("STOP");
        let next = rivals.cluster.wait_leader(asked, TOPIC, 0, Some(first));
        println!("node {} was stopped in {}, node {} leads", first + 1, rivals.name(), next + 1);
        Some(rivals)
    }

    fn others(&self) -> Vec<usize> {
        (0..3).filter(|node| *node != self.first).collect()
    }

    /// The PUT that met the fault.
    fn held(&self) -> Option<Seen> {
        self.store.seen().into_iter().find(|seen| seen.fault.is_some())
    }

    /// Its object, without the folders.
    fn name(&self) -> &str {
        self.key.rsplit('/').next().expect("there is always a last part")
    }

    fn write(&mut self, asked: usize, more: i64) {
        fill_led(&self.cluster, asked, TOPIC, self.written..self.written + more, LARGE_BYTES);
        self.written += more;
    }

    /// Waits until an offset is in the bucket and named there, as the leader says.
    fn wait_tiered(&self, asked: usize, offset: i64) {
        wait_for(&format!("offset {offset} to be in the bucket"), 120, || {
            let leader = self.cluster.leader(asked, TOPIC, 0).map(|leader| &self.cluster.nodes[leader]);
            leader.is_some_and(|leader| {
                varve_tests::raw::list_offset(leader.kafka(), TOPIC, 0, -5).is_ok_and(|last| last >= offset)
            })
        });
    }

    /// The objects that hold the first record of the PUT that was held.
    fn holders(&self) -> Vec<String> {
        let (base, _) = range(&self.key);
        let mut keys = [self.store.keys("/seg/"), self.store.keys("/mseg/")].concat();
        keys.retain(|key| (range(key).0..=range(key).1).contains(&base));
        keys
    }

    fn is_there(&self) -> bool {
        !self.store.keys(self.name()).is_empty()
    }

    /// Whether anybody has asked for it to be deleted.
    fn is_deleted(&self) -> bool {
        self.store.seen().iter().any(|seen| seen.method == "DELETE" && seen.target.ends_with(self.name()))
    }

    /// Sends the first leader on, and waits until it follows the others.
    fn wake(&self) {
        self.cluster.nodes[self.first].signal("CONT");
        wait_for("the first leader to follow", 120, || {
            self.cluster.in_sync(self.others()[0], TOPIC, 0) == [0, 1, 2]
        });
        let status = self.held().and_then(|seen| seen.status);
        assert_eq!(status, Some(200), "its PUT did not succeed");
    }

    /// The bucket, every object read, is whole; what is said of the object that was put by who led first, nothing where it is not there.
    fn verdict(&self) -> Option<(String, String)> {
        let report = verify_bucket(&self.store, PREFIX);
        let findings = report["findings"].as_array().unwrap();
        let of_it = |finding: &&Value| finding["key"].as_str().unwrap().ends_with(self.name());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        findings.iter().find(of_it).map(|finding| (text(&finding["kind"]), text(&finding["what"])))
    }

    /// Who led first leads again and tiers more, and each of the three gives every record, once.
    fn all_is_read_and_tiering_goes_on(&mut self) {
        let first = self.first;
        self.cluster.lead(first, TOPIC, 0);
        let before = self.written;
        self.write(first, ROUND);
        self.wait_tiered(first, before);
        let written = self.written;
        self.cluster.each_leads(TOPIC, |node| check_large(node, TOPIC, written));
        self.manifest_only_moved_on();
    }

    /// B3, by the checkpoints of the topic in the bucket: their keys are in the log's order.
    fn manifest_only_moved_on(&self) {
        let id = topic_id(&self.cluster.nodes[self.first], TOPIC);
        let mut checkpoints = self.store.keys("/ckpt/");
        checkpoints.retain(|key| key.contains(&id));
        let sequences: Vec<u64> =
            checkpoints.iter().map(|key| manifest_sequence(&self.store, PREFIX, key)).collect();
        assert!(sequences.is_sorted() && sequences.first() < sequences.last(), "{sequences:?}");
    }
}

/// The object of the first leader is there, and only its answer is late: both names hold the range for a while.
#[test]
fn t37_b3_two_leaders_put_one_range_and_only_the_second_name_counts() {
    let Some(mut rivals) = Rivals::start("hold-after") else { return };
    let asked = rivals.others()[0];
    let (base, last) = range(&rivals.key);
    rivals.write(asked, ROUND);
    let mut twice = Vec::new();
    wait_for("the range under both names", 120, || {
        twice = rivals.holders();
        twice.len() >= 2
    });
    assert!(twice.iter().any(|key| key.ends_with(rivals.name())), "{twice:?}");
    rivals.wait_tiered(asked, last as i64);
    // The answer is there before the first word of the others: it may take it for a success of its own.
    rivals.store.set_rules(&[]);
    rivals.wake();
    rivals.all_is_read_and_tiering_goes_on();
    wait_for("the first name to go", 120, || rivals.is_deleted() && !rivals.is_there());
    assert!(!rivals.holders().is_empty(), "nothing holds {base} to {last}");
    assert_eq!(rivals.verdict(), None);
}

/// The PUT comes after the next leader has tiered the range, given the announced name up and had it deleted: nobody waits for it any more.
#[test]
fn t40_b3_a_put_that_comes_after_its_name_was_collected_is_an_orphan_and_found() {
    let Some(mut rivals) = Rivals::start("hold") else { return };
    let asked = rivals.others()[0];
    let (_, last) = range(&rivals.key);
    wait_for("the announced name to be given up", 180, || {
        // Deletion follows checkpoints, and those follow records.
        rivals.write(asked, ROUND);
        rivals.is_deleted()
    });
    rivals.wait_tiered(asked, last as i64);
    assert!(!rivals.is_there(), "the PUT was not held");
    rivals.store.set_rules(&[]);
    wait_for("the late PUT to come", 30, || rivals.is_there());
    rivals.wake();
    rivals.all_is_read_and_tiering_goes_on();
    let mut verdict = None;
    wait_for("verification to name the orphan", 120, || {
        verdict = rivals.verdict();
        verdict.as_ref().is_some_and(|(kind, _)| kind == "orphan")
    });
    let what = verdict.expect("it was just found").1;
    assert!(what.contains("its records are those of the manifest"), "{what}");
    let tells = |node: &Node| node.metric("varve_tier_orphans") >= 1.0 && node.log().contains(rivals.name());
    wait_for("a node to tell of the orphan", 120, || rivals.cluster.nodes.iter().any(tells));
    assert!(rivals.is_there(), "a dry run has deleted it");
    rivals.orphans_go_on_demand();
}

impl Rivals {
    fn orphans_go_on_demand(&mut self) {
        for node in &mut self.cluster.nodes {
            node.kill();
            let options = node.options();
            *options = std::mem::take(options).env("VARVE_ORPHANS_MODE", "delete");
        }
        self.cluster.launch_all();
        wait_for("the orphan to go", 120, || !self.is_there());
        assert_eq!(self.verdict(), None);
        let written = self.written;
        let leader = self.cluster.wait_leader(0, TOPIC, 0, None);
        check_large(&self.cluster.nodes[leader], TOPIC, written);
    }
}
