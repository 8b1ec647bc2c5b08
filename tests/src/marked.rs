//! Records that say whose and which they are, and that no codec makes smaller: what takes less of a disk than it says proves nothing.

use std::ops::Range;

use crate::{
    batch::{Batch, noise, produce_patiently},
    node::Node,
};

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
