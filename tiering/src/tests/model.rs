//! Reads across all boundaries against a naive model.

use proptest::prelude::*;
use varve_common::Offset;
use varve_protocol::batch::Codec;

use super::support::{Node, noise};
use crate::{ReadLimits, chunks};

#[derive(Clone, Debug)]
enum Step {
    Append { records: u64, bytes: usize, codec: usize },
    Elect,
    Roll,
    Seal,
    Tier,
    Cut,
    Unseal,
    Fold,
    Restart,
    Read { from: u16, bytes_max: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..5_u64, 0..300_usize, 0..3_usize).prop_map(|(records, bytes, codec)| Step::Append { records, bytes, codec }),
        1 => Just(Step::Elect),
        4 => Just(Step::Roll),
        2 => Just(Step::Seal),
        3 => Just(Step::Tier),
        2 => Just(Step::Cut),
        1 => Just(Step::Unseal),
        2 => Just(Step::Fold),
        1 => Just(Step::Restart),
        4 => (any::<u16>(), 1..2_000_usize).prop_map(|(from, bytes_max)| Step::Read { from, bytes_max }),
    ]
}

fn open(node: &Node) -> Offset {
    node.rolls.last().map_or(node.root.end(), |roll| roll.end)
}

fn apply(node: &mut Node, step: &Step) {
    match *step {
        Step::Append { records, bytes, codec } => {
            let codec = [Codec::None, Codec::Zstd, Codec::Lz4][codec];
            let values: Vec<_> = (0..records).map(|place| noise(bytes, node.next.0 + place)).collect();
            let records: Vec<(i64, &[u8])> = values.iter().map(|value| (1_i64, &value[..])).collect();
            node.append(codec, &records);
        }
        Step::Elect => node.elect(),
        Step::Roll if open(node) < node.next => drop(node.roll()),
        Step::Seal => {
            let sealed = node.seals.last().map_or(Offset(0), |seal| seal.end).max(node.root.end());
            if let Some(roll) = node.rolls.iter().find(|roll| roll.base >= sealed).cloned() {
                node.seal(&roll);
            }
        }
        Step::Tier if !node.rolls.is_empty() => node.tier(),
        Step::Cut => {
            // Rule B4: up to what is tiered or sealed, contiguously.
            let tiered = node.root.entries.last().map(|entry| (entry.end(), entry.roll_index));
            let mut bound = tiered;
            for seal in &node.seals {
                if seal.base <= bound.map_or(Offset(0), |(end, _)| end)
                    && Some(seal.end) > bound.map(|(end, _)| end)
                {
                    bound = Some((seal.end, seal.last_index));
                }
            }
            if let Some((_, index)) = bound {
                node.cut(index);
            }
        }
        Step::Unseal if node.seals.first().is_some_and(|seal| seal.end <= node.root.end()) => {
            let seal = node.seals.remove(0);
            node.local.remove(super::support::GROUP, seal.base, seal.end).unwrap();
        }
        Step::Fold => node.fold(),
        Step::Restart => node.forget_tail(),
        Step::Read { from, bytes_max } if node.next > Offset(0) => {
            check(node, Offset(u64::from(from) % node.next.0), bytes_max, node.next);
        }
        _ => {}
    }
}

/// Exactly the batches of the model, the first whatever its size, the others within the limits.
fn check(node: &Node, from: Offset, bytes_max: usize, below: Offset) {
    let limits = ReadLimits { bytes_max, below };
    let read = node.executor.run(node.view.read(&node.extent(), from, limits)).unwrap();
    let expected: Vec<_> = node.model.iter().filter(|batch| batch.1 > from && batch.1 <= below).collect();
    assert_eq!(read.chunks.is_empty(), expected.is_empty(), "from {from} below {below}");
    assert!(read.chunks.len() <= expected.len());
    for (found, (_, _, batch)) in read.chunks.iter().zip(&expected) {
        assert_eq!(found, batch, "from {from}");
    }
    assert_eq!(read.bytes, read.chunks.iter().map(bytes::Bytes::len).sum::<usize>());
    assert!(read.bytes <= bytes_max || read.chunks.len() == 1);
    let end = read.chunks.len().checked_sub(1).map_or(from, |last| expected[last].1);
    assert_eq!(read.next, end);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn b7_every_offset_is_read_exactly_once_across_all_places(steps in prop::collection::vec(step(), 1..120)) {
        let mut node = Node::with(chunks::Options { chunk_bytes: 256, bytes_max: 8 << 10 }, 16 << 10);
        steps.iter().for_each(|step| apply(&mut node, step));
        for from in 0..node.next.0 {
            check(&node, Offset(from), 1 + (from as usize * 37) % 900, node.next);
            let below = node.model.iter().map(|batch| batch.1).find(|end| end.0 > from).unwrap_or(node.next);
            check(&node, Offset(from), 1 << 20, below);
        }
    }
}
