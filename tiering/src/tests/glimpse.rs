//! First looks into segments that are not open.

use std::time::Duration;

use varve_common::Offset;
use varve_objects::{Operation, testing::Fault};

use super::support::{Node, ranges_asked, read_all};
use crate::{Batches, ReadLimits, chunks};

const MIB: usize = 1 << 20;

/// One segment of 40 batches in chunks of 4 MiB; the records of the last 20 have `last_bytes` bytes.
fn node(last_bytes: usize) -> Node {
    let mut node = Node::with(chunks::Options { chunk_bytes: 4 * MIB as u64, bytes_max: 64 * MIB }, 1 << 20);
    (0..20).for_each(|_| node.fill(2, 50 << 10));
    (0..20).for_each(|_| node.fill(2, last_bytes));
    let roll = node.roll();
    node.tier();
    node.cut(roll.roll_index);
    node.forget_tail();
    node
}

fn read(node: &Node, from: u64, bytes_max: usize) -> Batches {
    let limits = ReadLimits { bytes_max, below: node.next };
    node.executor.run(node.view.read(&node.extent(), Offset(from), limits)).unwrap()
}

/// Whole batches from the one that holds `from`.
fn is_right(node: &Node, from: u64, bytes_max: usize) -> bool {
    let (read, expected) = (read(node, from, bytes_max), node.expected(Offset(from)));
    !read.chunks.is_empty() && read.chunks[..] == expected[..read.chunks.len()]
}

#[test]
fn the_first_read_of_a_segment_asks_for_its_index_and_beside_it_for_no_more_than_it_wants() {
    for from in [0, 7, 41, 79] {
        let node = node(50 << 10);
        assert!(is_right(&node, from, MIB), "{from}");
        let asked = node.counting.counters().snapshot()[&Operation::GetRange];
        assert_eq!(asked.requests, 2, "{from}");
        assert!(asked.bytes < 5 * MIB as u64 / 2, "{from}: {} bytes", asked.bytes);
        // Who goes on is read for in chunks.
        assert_eq!(read_all(&node, Offset(0), MIB).unwrap(), node.expected(Offset(0)));
        assert_eq!(ranges_asked(&node), 3, "{from}");
    }
}

#[test]
fn both_are_asked_for_before_either_has_come() {
    let node = node(50 << 10);
    (0..2).for_each(|_| node.store.script(Operation::GetRange, Fault::Stall));
    let limits = ReadLimits { bytes_max: 1, below: node.next };
    let extent = node.extent();
    assert!(node.executor.try_run(node.view.read(&extent, Offset(41), limits)).is_none());
    assert_eq!(ranges_asked(&node), 2);
}

#[test]
fn a_guess_that_is_wrong_costs_a_request_and_nothing_else() {
    // Half of the offsets lie in a third of the bytes.
    for from in [1, 20, 39, 41, 60, 79] {
        let node = node(110 << 10);
        assert!(is_right(&node, from, MIB), "{from}");
        assert!(ranges_asked(&node) <= 4, "{from}: index, look, and the chunks that a block may lie in");
        assert_eq!(read_all(&node, Offset(0), MIB).unwrap(), node.expected(Offset(0)));
    }
}

#[test]
fn row_56_a_spoiled_look_is_not_served() {
    for fault in [Fault::Altered, Fault::Truncated, Fault::Missing] {
        for spoiled in 0..2 {
            let node = node(50 << 10);
            if spoiled == 0 && matches!(fault, Fault::Missing) {
                continue;
            }
            (0..spoiled).for_each(|_| node.store.script(Operation::GetRange, Fault::Slow(Duration::ZERO)));
            node.store.script(Operation::GetRange, fault);
            assert!(is_right(&node, 41, MIB), "{fault:?} {spoiled}");
        }
    }
}

#[test]
fn what_a_reader_that_gave_up_had_asked_for_is_there_for_the_next() {
    let node = node(50 << 10);
    (0..2).for_each(|_| node.store.script(Operation::GetRange, Fault::Slow(Duration::from_secs(1))));
    {
        let (extent, limits) = (node.extent(), ReadLimits { bytes_max: 1, below: node.next });
        let mut reading = Box::pin(node.view.read(&extent, Offset(41), limits));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        (0..2).for_each(|_| {
            assert!(reading.as_mut().poll(&mut context).is_pending());
            node.executor.turn();
        });
    }
    (0..10).for_each(|_| node.executor.turn());
    let asked = ranges_asked(&node);
    assert!(is_right(&node, 41, 1));
    assert!(ranges_asked(&node) <= asked + 1, "the index, if it was not open yet");
}

#[test]
fn what_was_read_for_a_fetch_that_has_left_is_there_for_the_next() {
    let node = node(50 << 10);
    drop(read(&node, 41, 1));
    (0..10).for_each(|_| node.executor.turn());
    let asked = ranges_asked(&node);
    assert!(is_right(&node, 41, 1));
    assert_eq!(ranges_asked(&node), asked);
}
