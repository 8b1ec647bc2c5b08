//! Records that say whose and which they are, and that no codec makes smaller: what takes less of a disk than it says proves nothing.

use std::ops::Range;

use crate::{
    batch::{Batch, noise, produce_code, produce_patiently},
    cluster::Cluster,
    node::Node,
    wait_for,
};

/// The producer that writes to clusters.
const PRODUCER: i64 = 6_000;

/// A value of `bytes` bytes that stands once in all files; `<topic number>` is what it begins with.
#[must_use]
pub fn value(topic: &str, number: i64, bytes: usize) -> Vec<u8> {
    let noise = noise(number as u64 * 0x9e37_79b9 + topic.len() as u64);
    format!("<{topic} {number:06}>").into_bytes().into_iter().chain(noise).take(bytes).collect()
}

/// Writes such values, each a batch of its own; each is acknowledged.
///
/// # Panics
/// Where one is refused.
pub fn fill(node: &Node, topic: &str, numbers: Range<i64>, bytes: usize) {
    for number in numbers {
        let batch = Batch::of(&[&value(topic, number, bytes)]).encode();
        assert_eq!(produce_patiently(node.kafka(), topic, &batch), Some(0), "{topic} {number}");
    }
}

/// The same to partition 0 of a topic that nobody else writes to, from its first record on, wherever it is led, as a node tells: a leader
/// whose disk is slow hands over in the middle. Each is stored once, as an idempotent producer's.
///
/// # Panics
/// Where one is not acknowledged within a minute.
pub fn fill_led(cluster: &Cluster, asked: usize, topic: &str, numbers: Range<i64>, bytes: usize) {
    let mut leader = cluster.leader(asked, topic, 0);
    for number in numbers {
        let batch = Batch::of(&[&value(topic, number, bytes)]).sequenced(PRODUCER, number).encode();
        wait_for(&format!("{topic} {number} to be acknowledged"), 60, || {
            let code =
                leader.and_then(|leader| produce_code(cluster.nodes[leader].kafka(), topic, -1, &batch));
            if code != Some(0) {
                leader = cluster.leader(asked, topic, 0);
            }
            code == Some(0)
        });
    }
}

/// The same as a line of text, of at least `bytes` bytes: known without being kept.
#[must_use]
pub fn line(number: u64, bytes: usize) -> String {
    let mut random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = format!("{number:08} ");
    while text.len() < bytes {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        text += &format!("{random:016x}");
    }
    text
}
