//! Reads from the bucket, with everything that goes wrong there.

use std::time::Duration;

use bytes::Bytes;
use varve_common::Offset;
use varve_objects::{
    Failure, Operation,
    testing::{Fault, FaultRates},
};

use super::support::{GROUP, Node, ranges_asked, read_all};
use crate::{ColdError, Hot, ReadError, ReadLimits, chunks};

fn limits(bytes_max: usize, node: &Node) -> ReadLimits {
    ReadLimits { bytes_max, below: node.next }
}

fn read(node: &Node, from: u64) -> Result<crate::Batches, ReadError> {
    node.executor.run(node.view.read(&node.extent(), Offset(from), limits(1, node)))
}

#[test]
fn many_segments_below_nodes_of_nodes_read_back_from_every_offset() {
    let mut node = Node::all_cold(0, 0, 0);
    for _ in 0..40 {
        node.grow_cold(1, 2, 40);
        node.fold();
    }
    assert!(node.root.nodes.iter().any(|reference| reference.level > 0), "the tree has grown");
    assert!(node.root.entries.len() <= 4 && node.root.nodes.len() <= 4);
    for from in 0..node.next.0 {
        let read = read(&node, from).unwrap();
        assert_eq!(read.chunks, node.expected(Offset(from))[..1], "{from}");
    }
    assert_eq!(read_all(&node, Offset(0), 10_000).unwrap(), node.expected(Offset(0)));
}

#[test]
fn row_56_wrong_or_truncated_bytes_are_asked_for_again_and_never_served() {
    for fault in [Fault::Altered, Fault::Truncated] {
        // The first two requests bring footer and chunk; each in turn is spoiled once.
        for spoiled in 0..2 {
            let node = Node::all_cold(2, 3, 100);
            for place in 0..2 {
                let fault = if place == spoiled { fault } else { Fault::Slow(Duration::ZERO) };
                node.store.script(Operation::GetRange, fault);
            }
            assert_eq!(read(&node, 0).unwrap().chunks, node.expected(Offset(0))[..1], "{fault:?} {spoiled}");
        }
        let node = Node::all_cold(2, 3, 100);
        node.store.set_rates(rates(fault));
        let error = read(&node, 0).unwrap_err();
        assert!(matches!(&error, ReadError::Cold(error) if error.is_damage()), "{error}");
        node.store.set_rates(FaultRates::default());
        assert_eq!(read_all(&node, Offset(0), 1000).unwrap(), node.expected(Offset(0)));
    }
}

fn rates(fault: Fault) -> FaultRates {
    match fault {
        Fault::Altered => FaultRates { altered: 1000, ..FaultRates::default() },
        Fault::Truncated => FaultRates { truncated: 1000, ..FaultRates::default() },
        Fault::Missing => FaultRates { missing: 1000, ..FaultRates::default() },
        _ => FaultRates { stall: 1000, ..FaultRates::default() },
    }
}

#[test]
fn row_60_bytes_changed_behind_us_are_a_loud_error_wherever_they_lie() {
    let node = Node::all_cold(1, 3, 100);
    let (key, object) = node.store.inner().objects().remove(0);
    let expected = node.expected(Offset(0));
    for place in (0..object.len()).step_by(7) {
        let mut changed = object.to_vec();
        changed[place] ^= 4;
        let mut fresh = Node::all_cold(1, 3, 100);
        fresh.store = node.store.clone();
        fresh.store.inner().tamper(&key, Bytes::from(changed));
        let chunks = chunks::ChunkCache::new(
            fresh.store.clone(),
            std::sync::Arc::new(fresh.executor.clone()),
            chunks::Options { chunk_bytes: 512, bytes_max: 1 << 20 },
        );
        let cold = crate::ColdReader::new(
            fresh.store.clone(),
            fresh.keys.clone(),
            chunks,
            crate::ColdOptions::default(),
        );
        fresh.view =
            crate::LogView::new(fresh.view.tail().clone(), fresh.wal.clone(), fresh.local.clone(), cold);
        match read_all(&fresh, Offset(0), 1000) {
            Ok(read) => assert_eq!(read, expected),
            Err(error) => assert!(matches!(&error, ReadError::Cold(error) if error.is_damage()), "{error}"),
        }
    }
}

#[test]
fn row_57_a_listed_segment_that_is_not_there_is_loud_and_hot_reads_go_on() {
    let mut node = Node::all_cold(2, 3, 100);
    node.fill(2, 50);
    node.store.set_rates(rates(Fault::Missing));
    let error = read(&node, 0).unwrap_err();
    assert!(matches!(&error, ReadError::Cold(ColdError::Missing { .. })), "{error}");
    let hot = read(&node, node.next.0 - 1).unwrap();
    assert_eq!(hot.chunks, node.expected(Offset(node.next.0 - 1)));
}

#[test]
fn row_57_a_missing_or_wrong_node_is_loud() {
    let mut node = Node::all_cold(6, 1, 20);
    node.fold();
    node.store.set_rates(rates(Fault::Missing));
    assert!(matches!(read(&node, 0), Err(ReadError::Cold(ColdError::Missing { .. }))));
    node.store.set_rates(rates(Fault::Altered));
    let error = read(&node, 0).unwrap_err();
    assert!(matches!(&error, ReadError::Cold(error) if error.is_damage()), "{error}");
    node.store.set_rates(FaultRates::default());
    assert_eq!(read(&node, 0).unwrap().chunks, node.expected(Offset(0))[..1]);
}

#[test]
fn row_58_a_store_that_does_not_answer_holds_up_cold_reads_only() {
    let mut node = Node::all_cold(2, 3, 100);
    node.fill(2, 50);
    node.store.set_rates(rates(Fault::Stall));
    assert!(node.executor.try_run(node.view.read(&node.extent(), Offset(0), limits(1, &node))).is_none());
    let from = Offset(node.next.0 - 1);
    assert!(node.view.read_tail(GROUP, from, limits(1, &node)).is_some());
    node.forget_tail();
    assert!(
        matches!(node.view.read_hot(&node.extent(), from, limits(1, &node)), Hot::Read(_)),
        "from the log"
    );
    assert!(matches!(node.view.read_hot(&node.extent(), Offset(0), limits(1, &node)), Hot::Elsewhere));
}

#[test]
fn row_52_a_store_that_is_away_is_a_retriable_error_never_no_data() {
    let node = Node::all_cold(2, 3, 100);
    node.store.set_rates(FaultRates { error_before: 1000, ..FaultRates::default() });
    let error = read(&node, 0).unwrap_err();
    assert!(
        matches!(&error, ReadError::Cold(ColdError::Store { failure: Failure::Retry(_), .. })),
        "{error}"
    );
}

#[test]
fn row_15_a_log_that_cannot_be_read_is_passed_over_where_a_colder_place_holds_the_range() {
    let mut node = Node::new();
    (0..3).for_each(|_| node.fill(2, 100));
    let roll = node.roll();
    node.forget_tail();
    let wal_file = node.disk_file();
    node.disk.overwrite(&wal_file, 4096, &[0xee; 3 * 4096]);
    let error = read(&node, 2).unwrap_err();
    assert!(matches!(error, ReadError::Wal(_)), "{error}");
    let mut good = Node::new();
    (0..3).for_each(|_| good.fill(2, 100));
    good.roll();
    good.seal(&roll);
    good.tier();
    good.forget_tail();
    let wal_file = good.disk_file();
    good.disk.overwrite(&wal_file, 4096, &[0xee; 3000]);
    assert_eq!(read_all(&good, Offset(0), 1000).unwrap(), good.expected(Offset(0)), "from the sealed file");
    let seal = good.seals[0].clone();
    good.disk.overwrite(&good.local.path(GROUP, seal.base, seal.end), 0, &[0xee; 200]);
    assert_eq!(read_all(&good, Offset(0), 1000).unwrap(), good.expected(Offset(0)), "from the bucket");
}

#[test]
fn an_offset_that_an_old_extent_does_not_place_is_nowhere_and_not_out_of_range() {
    let mut node = Node::new();
    node.fill(2, 100);
    let roll = node.roll();
    let old = (node.root.clone(), node.rolls.clone());
    node.tier();
    node.cut(roll.roll_index);
    node.forget_tail();
    let new = (std::mem::replace(&mut node.root, old.0), std::mem::replace(&mut node.rolls, old.1));
    assert!(matches!(read(&node, 0), Err(ReadError::Nowhere { offset: Offset(0) })));
    (node.root, node.rolls) = new;
    assert_eq!(read(&node, 0).unwrap().chunks, node.expected(Offset(0)));
    node.log_start = Offset(1);
    assert!(matches!(read(&node, 0), Err(ReadError::BelowLogStart { .. })));
}

#[test]
fn memory_of_cold_reads_is_bounded() {
    let mut node = Node::with(chunks::Options { chunk_bytes: 512, bytes_max: 4_000 }, 8_000);
    for _ in 0..30 {
        node.grow_cold(1, 3, 200);
        node.fold();
    }
    assert_eq!(read_all(&node, Offset(0), 700).unwrap(), node.expected(Offset(0)));
    for from in (0..node.next.0).rev().step_by(5) {
        read(&node, from).unwrap();
        assert!(node.view.cold().chunks().counts().bytes <= 4_000);
        assert!(node.view.cold().index_bytes() <= 8_000);
    }
}

#[test]
fn read_ahead_asks_once_for_each_chunk_and_crosses_segments() {
    let node = Node::all_cold(6, 8, 300);
    assert_eq!(read_all(&node, Offset(0), 1).unwrap(), node.expected(Offset(0)));
    (0..10).for_each(|_| node.executor.turn());
    let chunks: u64 = node.root.entries.iter().map(|entry| entry.length.div_ceil(512)).sum();
    let footers = node.root.entries.len() as u64;
    assert!(ranges_asked(&node) <= chunks + footers, "{} of {chunks} + {footers}", ranges_asked(&node));
    assert_eq!(node.view.cold().chunks().counts().misses + footers, ranges_asked(&node));
    let next = node.root.entries[2].base;
    let asked = ranges_asked(&node);
    read(&node, next.0).unwrap();
    assert_eq!(ranges_asked(&node), asked, "all of it is cached");
}

#[test]
fn a_reader_that_seeks_is_not_read_ahead_for() {
    let node = Node::all_cold(1, 40, 300);
    for from in [70, 10, 50] {
        read(&node, from).unwrap();
        node.executor.turn();
    }
    // One block holds all of so small a segment: what is asked for is that block, its chunks, once.
    let chunks = node.root.entries[0].length.div_ceil(512);
    assert!(ranges_asked(&node) <= chunks + 1);
}

#[test]
fn a_fill_goes_on_when_its_reader_gives_up() {
    let node = Node::all_cold(1, 3, 100);
    // The footer comes at once, the block's chunks take their time.
    node.store.script(Operation::GetRange, Fault::Slow(Duration::ZERO));
    for _ in 0..8 {
        node.store.script(Operation::GetRange, Fault::Slow(Duration::from_secs(1)));
    }
    {
        let extent = node.extent();
        let mut reading = Box::pin(node.view.read(&extent, Offset(0), limits(1, &node)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        // The footer's three turns; then the chunks are on their way.
        (0..4).for_each(|_| assert!(reading.as_mut().poll(&mut context).is_pending()));
    }
    (0..10).for_each(|_| node.executor.turn());
    let asked = ranges_asked(&node);
    assert!(asked > 1 && node.view.cold().chunks().counts().bytes > 0, "the fill has landed");
    assert_eq!(read(&node, 0).unwrap().chunks, node.expected(Offset(0))[..1]);
    assert_eq!(ranges_asked(&node), asked);
}

#[test]
fn segments_of_several_blocks_read_back_and_a_seek_asks_for_no_more_than_its_block() {
    let mut node = Node::with(chunks::Options { chunk_bytes: 16 << 10, bytes_max: 4 << 20 }, 1 << 20);
    (0..16).for_each(|_| node.fill(2, 50 << 10));
    let roll = node.roll();
    let seal = node.seal(&roll);
    node.cut(roll.roll_index);
    node.forget_tail();
    assert_eq!(read_all(&node, Offset(0), 300 << 10).unwrap(), node.expected(Offset(0)), "from the file");
    node.tier();
    node.seals.clear();
    node.local.remove(GROUP, seal.base, seal.end).unwrap();
    let length = node.root.entries[0].length;
    assert_eq!(read(&node, 17).unwrap().chunks, node.expected(Offset(17))[..1]);
    (0..10).for_each(|_| node.executor.turn());
    let bytes = node.view.cold().chunks().counts().bytes as u64;
    assert!(bytes > 0 && bytes < length / 2, "{bytes} of {length}");
    for from in 0..32 {
        assert_eq!(read(&node, from).unwrap().chunks, node.expected(Offset(from))[..1]);
        let extent = node.extent();
        let found = node.view.find_timestamp(&extent, from as i64 * 10, node.next);
        assert_eq!(node.executor.run(found).unwrap().unwrap().offset, Offset(from));
    }
}
