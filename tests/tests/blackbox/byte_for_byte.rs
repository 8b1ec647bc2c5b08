//! The batch that a producer sent is the batch that is stored, tiered and fetched: to the byte, its CRC as produced.
//!
//! ```text
//!   0 base offset | 8 length | 12 leader epoch | 16 magic | 17 CRC and all that it is of
//!     the broker's             the broker's
//! ```

use varve_tests::{
    batch::{Batch, CODECS, produce_code},
    clients::create_topic,
    marked::{fill, value},
    node::{Node, Options},
    raw::{fetch_near, list_offset},
    tool::Tool,
    wait_for,
};

const TOPIC: &str = "bytes";
const CRC_AT: usize = 17;
const FILLER_BYTES: usize = 20_000;
/// Some segments: the log is cut below the older of two checkpoints, and those follow records.
const FILLERS: i64 = 50;

/// A batch per codec, compressed by a client's own library, of records that say which they are.
fn batches() -> Vec<(&'static str, Batch)> {
    let plain = |number: i64| {
        let values: Vec<_> = (0..3).map(|record| value(TOPIC, 10 * number + record, 200)).collect();
        Batch::of(&values.iter().map(Vec::as_slice).collect::<Vec<_>>())
    };
    let compressed = (1..).zip(CODECS).map(|(number, codec)| (codec.0, plain(number).compressed(codec)));
    [("none", plain(0))].into_iter().chain(compressed).collect()
}

/// Fetches each batch by its first offset and holds it against what was sent.
fn check(node: &Node, sent: &[(&str, Batch)], when: &str) {
    let mut offset = 0;
    for (codec, batch) in sent {
        let bytes = batch.encode();
        let (code, _, fetched) = fetch_near(node.kafka(), TOPIC, offset, "", 500);
        assert_eq!(code, 0, "{codec} {when}");
        assert_eq!(fetched[..8], offset.to_be_bytes(), "{codec} {when}: the base offset");
        assert_eq!(fetched[8..12], bytes[8..12], "{codec} {when}: the length");
        assert_eq!(fetched[16], 2, "{codec} {when}: the format");
        assert!(
            fetched[CRC_AT..bytes.len()] == bytes[CRC_AT..],
            "{codec} {when}: other bytes than were sent"
        );
        offset += i64::from(batch.count);
    }
}

#[test]
fn batches_of_every_codec_stay_as_they_were_sent_hot_cold_and_after_kills() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let mut node = Node::start(Options::small());
    let configs = ["segment.bytes=262144", "local.retention.bytes=1", "retention.ms=-1"];
    create_topic(&node, TOPIC, 1, &configs);
    let sent = batches();
    for (codec, batch) in &sent {
        assert_eq!(produce_code(node.kafka(), TOPIC, -1, &batch.encode()), Some(0), "{codec}");
    }
    let end: i64 = sent.iter().map(|(_, batch)| i64::from(batch.count)).sum();
    let local_start = |node: &Node| list_offset(node.kafka(), TOPIC, 0, -4).unwrap();
    assert_eq!(local_start(&node), 0, "all is on this node yet");
    check(&node, &sent, "hot");
    node.kill();
    node.restart();
    check(&node, &sent, "hot, after a kill");

    let mut filled = end;
    wait_for("the local bytes to go", 120, || {
        fill(&node, TOPIC, filled..filled + FILLERS, FILLER_BYTES);
        filled += FILLERS;
        local_start(&node) >= end
    });
    check(&node, &sent, "from the object store");
    node.kill();
    node.restart();
    assert!(local_start(&node) >= end, "local bytes are back");
    check(&node, &sent, "from the object store, after a kill");
}
