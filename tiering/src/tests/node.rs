//! Finding by time, folding and removing.

use varve_common::Offset;
use varve_formats::{
    manifest::EntryKind,
    state::{NAMED_EVER, Tombstone},
};
use varve_objects::{Operation, testing::Fault};
use varve_protocol::batch::Codec;

use super::support::{Node, TERM, objects};
use crate::{RemoveError, Remover, TimestampOffset};

fn find(node: &Node, timestamp: i64) -> Option<(u64, i64)> {
    let found = node.executor.run(node.view.find_timestamp(&node.extent(), timestamp, node.next)).unwrap();
    found.map(|TimestampOffset { offset, timestamp, term }| {
        assert_eq!(term, TERM);
        (offset.0, timestamp)
    })
}

/// Records 0..: bucket (folded), sealed file, log rolled, log open; times are not in order.
fn spread() -> (Node, Vec<i64>) {
    let times: Vec<i64> = (0..60).map(|place: i64| 1_000 + place * 10 - (place % 7) * 25).collect();
    let mut node = Node::new();
    for (place, pair) in times.chunks(2).enumerate() {
        node.append(Codec::None, &[(pair[0], b"one"), (pair[1], b"other")]);
        match place {
            4 | 8 | 12 | 16 | 18 | 20 => {
                let roll = node.roll();
                node.tier();
                node.cut(roll.roll_index);
                node.fold();
            }
            23 => {
                let roll = node.roll();
                node.seal(&roll);
                node.cut(roll.roll_index);
            }
            26 => drop(node.roll()),
            _ => {}
        }
    }
    node.forget_tail();
    (node, times)
}

#[test]
fn h12_a_time_finds_the_first_record_at_or_after_it_in_every_place() {
    let (mut node, times) = spread();
    assert!(!node.root.nodes.is_empty() && node.seals.len() == 1 && node.rolls.len() == 2);
    for log_start in [0, 1, 7, 43, 47, 55] {
        node.log_start = Offset(log_start);
        for timestamp in 950..1_620 {
            let expected = times
                .iter()
                .enumerate()
                .skip(log_start as usize)
                .find(|(_, time)| **time >= timestamp)
                .map(|(offset, time)| (offset as u64, *time));
            assert_eq!(find(&node, timestamp), expected, "time {timestamp} from {log_start}");
        }
    }
}

#[test]
fn the_largest_time_is_found_above_the_log_start_only() {
    let (mut node, times) = spread();
    for (log_start, below) in [(0, 60), (1, 60), (0, 10), (5, 42), (44, 48), (59, 60), (3, 50)] {
        node.log_start = Offset(log_start);
        let inside = &times[log_start as usize..below as usize];
        let largest = *inside.iter().max().unwrap();
        let offset = log_start + inside.iter().position(|time| *time == largest).unwrap() as u64;
        let found =
            node.executor.run(node.view.max_timestamp(&node.extent(), Offset(below))).unwrap().unwrap();
        assert_eq!((found.offset.0, found.timestamp), (offset, largest), "{log_start}..{below}");
    }
}

fn tombstone(node: &Node, level: Option<u8>) -> Tombstone {
    let (uid, incarnation, term, base, last) = match level {
        Some(_) => {
            let reference = &node.root.nodes[0];
            (reference.uid, reference.incarnation, varve_common::Term::ZERO, reference.base, reference.last)
        }
        None => {
            let entry = &node.root.entries[0];
            (entry.uid, entry.incarnation, entry.term, entry.base, entry.last)
        }
    };
    Tombstone {
        uid,
        node_level: level,
        alone: false,
        kind: EntryKind::Raw,
        incarnation,
        term,
        base,
        last,
        since_ms: 0,
        log_start: Offset(0),
        named: NAMED_EVER,
    }
}

#[test]
fn a_tombstone_of_a_node_stands_for_all_that_it_names() {
    let mut node = Node::all_cold(0, 0, 0);
    for _ in 0..24 {
        node.grow_cold(1, 1, 10);
        node.fold();
    }
    let level = node.root.nodes[0].level;
    assert!(level > 0);
    let below = node.root.nodes[0].entries as usize;
    let kept = node.root.segments() as usize - below;
    let tombstone = tombstone(&node, Some(level));
    let remover = Remover::new(&*node.store, &node.keys, &node.identity);
    // A crash at any delete leaves what is needed to go on.
    for _ in 0..3 {
        node.store.script(Operation::Delete, Fault::ErrorBefore);
        assert!(matches!(node.executor.run(remover.remove(&tombstone)), Err(RemoveError::Store { .. })));
    }
    node.executor.run(remover.remove(&tombstone)).unwrap();
    node.executor.run(remover.remove(&tombstone)).unwrap();
    let segments = objects(&node).iter().filter(|key| key.ends_with(".seg")).count();
    assert_eq!(segments, kept);
    let first = node.root.nodes.get(1).map_or(node.root.entries[0].base, |next| next.base);
    node.log_start = first;
    assert_eq!(super::support::read_all(&node, first, 1000).unwrap(), node.expected(first));
}

#[test]
fn removing_a_segment_is_exact_and_may_be_repeated() {
    let node = Node::all_cold(3, 1, 10);
    let tombstone = tombstone(&node, None);
    let remover = Remover::new(&*node.store, &node.keys, &node.identity);
    node.executor.run(remover.remove(&tombstone)).unwrap();
    node.executor.run(remover.remove(&tombstone)).unwrap();
    assert_eq!(objects(&node).len(), 2);
}
