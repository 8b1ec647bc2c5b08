//! Topics configured while they are in use, and what the switches of the tier do to running producers and readers.

use std::fs;

use serde_json::Value;
use varve_tests::{
    batch::{Batch, produce_patiently},
    clients::{create_topic, script, topic_id, try_varve, varve},
    marked::{fill, value},
    node::{Node, Options},
    raw::{fetch, fetch_stored, list_offset},
    tool::Tool,
    wait_for,
};

const VALUE_BYTES: usize = 20_000;
const SEGMENT_BYTES: u64 = 256 << 10;
/// More than the log may hold.
const MUCH: i64 = 1_000;

fn check_served(node: &Node, topic: &str, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let (code, records) = fetch_stored(node.kafka(), topic, number);
        let wanted = format!("<{topic} {number:06}>");
        let found = records.windows(wanted.len()).any(|window| window == wanted.as_bytes());
        assert!(code == 0 && found, "{topic} {number}: error {code}");
    }
}

/// `alter`, `check` or `replace` of a topic by confluent-kafka; the name of the error, if it is one.
fn alter(node: &Node, verb: &str, topic: &str, changes: &[&str]) -> Result<(), String> {
    let arguments: Vec<&str> = [verb, topic].into_iter().chain(changes.iter().copied()).collect();
    let told = script("admin.py", node, &arguments)[0].clone();
    told["error"].as_str().map_or(Ok(()), |error| Err(error.to_owned()))
}

fn described(node: &Node, topic: &str) -> Value {
    script("admin.py", node, &["describe", topic])[0].clone()
}

fn log_start(node: &Node, topic: &str) -> i64 {
    list_offset(node.kafka(), topic, 0, -2).expect("the partition is served")
}

/// The last offset in the bucket.
fn tiered_last(node: &Node, topic: &str) -> i64 {
    list_offset(node.kafka(), topic, 0, -5).expect("the partition is served")
}

fn wait_for_tier(node: &Node, topic: &str, last: i64) {
    wait_for("everything to be in the bucket", 90, || tiered_last(node, topic) == last);
}

/// Segments of the topic in the embedded store.
fn segments(node: &Node, topic: &str) -> usize {
    fn count(folder: &std::path::Path, part: &str) -> usize {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let counts = entries.map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                return count(&path, part);
            }
            let text = path.display().to_string();
            usize::from(text.contains(part) && text.ends_with(".seg"))
        });
        counts.sum()
    }
    count(&node.data().join("objects"), &topic_id(node, topic))
}

fn topic(node: &Node, name: &str) {
    create_topic(node, name, 1, &[&format!("segment.bytes={SEGMENT_BYTES}"), "retention.ms=-1"]);
}

#[test]
fn a_stock_client_changes_a_topic_in_use_and_wrong_values_change_nothing() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = Node::start(Options::small());
    topic(&node, "altered");
    let values = |node: &Node| {
        let described = described(node, "altered");
        let of = |name: &str| described[name].as_str().unwrap().to_owned();
        [of("retention.ms"), of("segment.bytes"), of("cleanup.policy"), of("max.message.bytes")]
    };
    let first = ["-1", "262144", "delete", "1048588"];
    assert_eq!(alter(&node, "check", "altered", &["retention.ms=5"]), Ok(()));
    assert_eq!(values(&node), first, "a check changed something");
    for wrong in ["retention.msec=1", "retention.ms=soon", "segment.bytes=3", "+retention.ms=1"] {
        // A sound change beside a wrong one is not made either.
        let told = alter(&node, "alter", "altered", &["max.message.bytes=2000000", wrong]);
        assert_eq!(told, Err("INVALID_CONFIG".to_owned()), "{wrong}");
    }
    assert_eq!(
        alter(&node, "alter", "no-such", &["retention.ms=1"]),
        Err("UNKNOWN_TOPIC_OR_PART".to_owned())
    );
    assert_eq!(values(&node), first);
    let changes = ["max.message.bytes=100", "+cleanup.policy=compact", "-segment.bytes"];
    assert_eq!(alter(&node, "alter", "altered", &changes), Ok(()));
    let second = ["-1", "67108864", "delete,compact", "100"];
    assert_eq!(values(&node), second);
    let batch = Batch::of(&[&value("altered", 0, VALUE_BYTES)]).encode();
    assert_eq!(produce_patiently(node.kafka(), "altered", &batch), Some(10), "the new bound is not in force");
    node.kill();
    node.restart();
    assert_eq!(values(&node), second, "a restart loses the change");
    assert_eq!(alter(&node, "replace", "altered", &["segment.bytes=524288"]), Ok(()));
    assert_eq!(values(&node), ["604800000", "524288", "delete", "1048588"]);
    assert_eq!(alter(&node, "replace", "altered", &["segment.bytes=x"]), Err("INVALID_CONFIG".to_owned()));

    let told = varve(
        &node,
        &["topic", "alter-config", "altered", "-s", "retention.ms=2d", "-d", "segment.bytes", "--dry"],
    );
    assert_eq!(told, "topic altered could be configured so\n");
    let told =
        varve(&node, &["topic", "alter-config", "altered", "-s", "retention.ms=2d", "-d", "segment.bytes"]);
    assert_eq!(told, "topic altered configured\n");
    assert_eq!(values(&node), ["172800000", "67108864", "delete", "1048588"]);
    let (done, told) = try_varve(&node, &["topic", "alter-config", "altered", "--set", "no.such=1"]);
    assert!(!done && told.contains("unknown topic config name: no.such"), "{told}");
}

#[test]
fn uploads_pause_and_go_on_while_the_topic_is_written_and_read() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = Node::start(Options::small());
    topic(&node, "paused");
    fill(&node, "paused", 0..50, VALUE_BYTES);
    wait_for_tier(&node, "paused", 49);
    assert_eq!(alter(&node, "alter", "paused", &["remote.log.copy.disable=true"]), Ok(()));
    // An upload that was on its way may end.
    fill(&node, "paused", 50..52, VALUE_BYTES);
    let reached = tiered_last(&node, "paused");
    fill(&node, "paused", 52..MUCH, VALUE_BYTES);
    assert_eq!(tiered_last(&node, "paused"), reached, "a paused topic uploads");
    check_served(&node, "paused", 0..MUCH);
    assert!(node.disk_bytes("segments") > 0, "the log has let go of nothing");
    node.kill();
    node.restart();
    assert_eq!((log_start(&node, "paused"), tiered_last(&node, "paused")), (0, reached));
    check_served(&node, "paused", 0..MUCH);
    assert_eq!(alter(&node, "alter", "paused", &["-remote.log.copy.disable"]), Ok(()));
    wait_for_tier(&node, "paused", MUCH - 1);
    wait_for("files that the bucket has to go", 60, || node.disk_bytes("segments") < 1 << 20);
    check_served(&node, "paused", 0..MUCH);
}

#[test]
fn a_tier_that_is_switched_off_stays_readable_and_one_that_is_forgotten_goes() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = Node::start(Options::small());
    topic(&node, "off");
    topic(&node, "on");
    fill(&node, "off", 0..200, VALUE_BYTES);
    wait_for_tier(&node, "off", 199);
    assert_eq!(alter(&node, "alter", "off", &["remote.storage.enable=false"]), Ok(()));
    fill(&node, "off", 200..MUCH, VALUE_BYTES);
    assert_eq!((log_start(&node, "off"), tiered_last(&node, "off")), (0, 199));
    check_served(&node, "off", 0..MUCH);
    let had = segments(&node, "off");
    node.kill();
    node.restart();
    check_served(&node, "off", 0..MUCH);
    assert_eq!((log_start(&node, "off"), segments(&node, "off")), (0, had));

    // What the bucket alone has is given up, by the topic's own wish; the rest is on this node.
    assert_eq!(alter(&node, "alter", "off", &["remote.log.delete.on.disable=true"]), Ok(()));
    wait_for("the tier to be forgotten", 30, || log_start(&node, "off") == 200);
    node.kill();
    node.restart();
    assert_eq!(log_start(&node, "off"), 200);
    assert_eq!(fetch(node.kafka(), "off", 199).0, 1, "OFFSET_OUT_OF_RANGE");
    wait_for("its objects to go", 90, || segments(&node, "off") == 0);
    check_served(&node, "off", 200..MUCH);

    // And on again, from where the log begins.
    let back = ["remote.storage.enable=true", "-remote.log.delete.on.disable"];
    assert_eq!(alter(&node, "alter", "off", &back), Ok(()));
    wait_for_tier(&node, "off", MUCH - 1);
    assert_eq!(log_start(&node, "off"), 200);
    check_served(&node, "off", 200..MUCH);
}
