//! Objects that a node has written, changed at random and decoded: no decoder panics, and none gives what it was not given.
//!
//! ```text
//! a node lives ──> segments, merged segments, nodes, checkpoints ──> a change in the outer bytes, or in a section that is
//! (the bucket and the node's own files)                              unpacked and packed again ──> checksums made to fit ──> decoders
//! ```
//! `VARVE_MUTATIONS` says how many of each kind (the gate's 4,000 by default), `VARVE_SEED` which; `VARVE_CORPUS` names a folder
//! into which the objects go, as a corpus for the fuzzer.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use varve_formats::{checkpoint::Checkpoint, compression::Codec};
use varve_replica::checkpoint::{Decoded, decode};
use varve_sim::{
    plan::{Length, Plan, StoreKind},
    trace::Trace,
    world::World,
};

#[path = "../../formats/fuzz/src/targets.rs"]
#[allow(dead_code)]
mod targets;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Segment,
    Node,
    Checkpoint,
}

/// No more of a kind: the largest are slow, and say nothing new.
const OBJECTS_MAX: usize = 24;
const BYTES_MAX: usize = 24 << 10;

fn kind_of(name: &str) -> Option<Kind> {
    match Path::new(name).extension()?.to_str()? {
        "seg" => Some(Kind::Segment),
        "mn" => Some(Kind::Node),
        "ckpt" => Some(Kind::Checkpoint),
        _ => None,
    }
}

/// What a few lives leave in the bucket and on the disk.
fn objects() -> BTreeMap<Kind, Vec<Bytes>> {
    let mut all: BTreeMap<Kind, Vec<Bytes>> = BTreeMap::new();
    for seed in 0..6 {
        let mut world = World::new(seed, Length::Short, None, Trace::default());
        let tiered = if seed % 3 == 2 { None } else { Some(true) };
        world.plan = Plan { store: StoreKind::Remote, zombies: 0, topics: 2, tiered, ..world.plan };
        assert!(world.start().unwrap());
        for _ in 0..4_000 {
            world.step().unwrap();
        }
        let files =
            world.disk.files().into_iter().map(|(path, bytes)| (path.display().to_string(), bytes.into()));
        let objects = world.objects().into_iter().map(|(key, bytes)| (key.as_str().to_owned(), bytes));
        for (name, bytes) in objects.chain(files) {
            let kind = kind_of(&name).filter(|_| bytes.len() <= BYTES_MAX);
            all.entry(kind.unwrap_or(Kind::Segment)).or_default().extend(kind.map(|_| bytes));
        }
    }
    for found in all.values_mut() {
        let apart = found.len().div_ceil(OBJECTS_MAX);
        *found = std::mem::take(found).into_iter().step_by(apart.max(1)).collect();
    }
    all
}

/// One change of some bytes.
fn change(bytes: &mut Vec<u8>, others: &[Bytes], random: &mut ChaCha8Rng) {
    if bytes.is_empty() {
        return bytes.push(random.random());
    }
    let at = random.random_range(0..bytes.len());
    match random.random_range(0..8) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
        2 => bytes.truncate(at),
        kind @ 3..6 => {
            // Numbers are little-endian, of four or eight bytes: the largest, the smallest, and the neighbours.
            let width = if kind == 3 { 4 } else { 8 };
            if let Some(field) = bytes.get_mut(at..at + width) {
                let mut number = [0; 8];
                number[..width].copy_from_slice(field);
                let old = u64::from_le_bytes(number);
                let new = [0, u64::MAX, i64::MAX as u64, old.wrapping_add(1), old.wrapping_sub(1), old << 1];
                field.copy_from_slice(&new[random.random_range(0..new.len())].to_le_bytes()[..width]);
            }
        }
        6 => {
            let end = (at + random.random_range(1..64)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            if random.random_bool(0.5) {
                bytes.splice(at..at, piece);
            } else {
                bytes.drain(at..end);
            }
        }
        _ => {
            let other = &others[random.random_range(0..others.len())];
            let from = random.random_range(0..other.len());
            let end = (from + random.random_range(1..256)).min(other.len());
            let until = (at + end - from).min(bytes.len());
            bytes.splice(at..until, other[from..end].iter().copied());
        }
    }
}

fn changed(bytes: &[u8], others: &[Bytes], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..5) {
        change(&mut bytes, others, random);
    }
    bytes
}

/// A checkpoint with one section changed from the inside: whatever is around it fits.
fn with_changed_section(bytes: &Bytes, others: &[Bytes], random: &mut ChaCha8Rng) -> Bytes {
    let mut checkpoint = Checkpoint::decode(bytes).expect("a node has written it");
    let place = random.random_range(0..checkpoint.sections.len());
    let section = checkpoint.sections.values_mut().nth(place).expect("there are so many");
    let old = section.to_vec();
    *section = changed(&old, others, random).into();
    if random.random_bool(0.1) {
        let id = *checkpoint.sections.keys().next().expect("there is one");
        checkpoint.sections.remove(&id);
    }
    checkpoint.encode(if random.random_bool(0.5) { Codec::None } else { Codec::Zstd })
}

/// What a start does with a checkpoint. A state that was made of it is one: it can be hashed and looked at.
fn becomes_a_state(bytes: &Bytes) -> bool {
    match decode(bytes) {
        Ok(Decoded::Partition { state, .. }) => {
            let _ = (state.hash(), state.applied(), state.bucket().root.end());
            true
        }
        Ok(Decoded::Metadata { state, .. }) => {
            let _ = (state.hash(), state.applied(), state.image());
            true
        }
        Err(_) => false,
    }
}

fn scale(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs `each` on so many changes of the objects of a kind; says how many of those it took for good.
fn mutate(objects: &[Bytes], mut each: impl FnMut(&Bytes, &mut ChaCha8Rng) -> bool) {
    let (first, count) = (scale("VARVE_SEED", 1), scale("VARVE_MUTATIONS", 4_000));
    let mut taken = 0_u64;
    for number in 0..count {
        let seed = first.wrapping_mul(1_000_003).wrapping_add(number);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let object = &objects[random.random_range(0..objects.len())];
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| each(object, &mut random)));
        match done {
            Ok(is_taken) => taken += u64::from(is_taken),
            Err(panic) => {
                println!("seed {seed}: VARVE_SEED={first}, number {number}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{count} changes of {} objects, {taken} decoded all the same", objects.len());
}

fn target(run: fn(&[u8]), modes: &[u8], bytes: &[u8], random: &mut ChaCha8Rng) {
    let mode = modes[random.random_range(0..modes.len())];
    run(&[&[mode], bytes].concat());
}

#[test]
fn changed_segments_of_a_node_are_decoded_or_refused() {
    let objects = &objects()[&Kind::Segment];
    assert!(objects.len() > 10, "{} segments", objects.len());
    export("segment", objects, &[0, 3]);
    mutate(objects, |object, random| {
        let bytes = changed(object, objects, random);
        target(targets::segment, &[0, 1, 2, 3], &bytes, random);
        // One bit of what was written is never passed over.
        let mut flipped = object.to_vec();
        let bit = random.random_range(0..flipped.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(varve_formats::segment::verify(&flipped.into()).is_err(), "bit {bit} does not matter");
        varve_formats::segment::verify(&bytes.into()).is_ok()
    });
}

#[test]
fn changed_nodes_of_a_manifest_are_decoded_or_refused() {
    let objects = &objects()[&Kind::Node];
    assert!(objects.len() > 4, "{} nodes", objects.len());
    export("checkpoint", objects, &[3, 8]);
    mutate(objects, |object, random| {
        let bytes = changed(object, objects, random);
        target(targets::checkpoint, &[3, 3, 3, 8], &bytes, random);
        varve_formats::node::Node::from_bytes(&bytes.into()).is_ok()
    });
}

#[test]
fn changed_checkpoints_and_the_manifests_in_them_are_decoded_or_refused() {
    let objects = &objects()[&Kind::Checkpoint];
    assert!(objects.len() > 10, "{} checkpoints", objects.len());
    let plain: Vec<Bytes> = objects
        .iter()
        .map(|bytes| Checkpoint::decode(bytes).expect("a node has written it").encode(Codec::None))
        .collect();
    export("checkpoint", &plain, &[0, 1, 7]);
    let roots: Vec<Bytes> = objects.iter().filter_map(root_of).collect();
    assert!(!roots.is_empty(), "no checkpoint has a manifest");
    export("checkpoint", &roots, &[2]);
    mutate(objects, |object, random| {
        let bytes = changed(&plain[random.random_range(0..plain.len())], &plain, random);
        target(targets::checkpoint, &[0, 1, 7, 7], &bytes, random);
        let root = changed(&roots[random.random_range(0..roots.len())], &roots, random);
        target(targets::checkpoint, &[2], &root, random);
        let inner = with_changed_section(object, &plain, random);
        target(targets::checkpoint, &[0], &inner, random);
        becomes_a_state(&inner)
    });
}

fn root_of(checkpoint: &Bytes) -> Option<Bytes> {
    let checkpoint = Checkpoint::decode(checkpoint).ok()?;
    checkpoint.sections.get(&varve_formats::checkpoint::SectionId::MANIFEST_ROOT).cloned()
}

/// Writes the objects as a fuzzer's corpus, where it is asked for, each behind the byte that chooses its mode.
#[allow(clippy::disallowed_methods, reason = "a corpus is asked for by hand, and goes where that says")]
fn export(target: &str, objects: &[Bytes], modes: &[u8]) {
    let Ok(folder) = std::env::var("VARVE_CORPUS") else { return };
    let folder = Path::new(&folder).join(target);
    std::fs::create_dir_all(&folder).unwrap();
    for (number, object) in objects.iter().enumerate() {
        for mode in modes {
            let name = format!("{:08x}-{number}-{mode}", varve_common::checksum::crc32c(object));
            std::fs::write(folder.join(name), [&[*mode], &object[..]].concat()).unwrap();
        }
    }
}
