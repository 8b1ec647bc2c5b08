//! A manifest of a million segments: what of it a node holds in memory, and what it asks of the store to find a record of which
//! it knows nothing but the partition.
//!
//! The segments are made up; the tree is made, published, chosen and read by the code that a broker does it with.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use tokio::runtime::Runtime;
use varve_common::{
    ClusterId, Digest, Entropy as _, GroupId, Incarnation, LogIndex, Offset, PartitionIndex, Term, TopicId,
    clock::BoxFuture,
};
use varve_formats::{
    PartitionIdentity, Stored as _,
    checkpoint::{AppliedPoint, CheckpointHeader, CheckpointKind, PartitionCheckpoint, StatePoint},
    compression::Codec,
    keys::{CheckpointName, Key, Keys, PartitionKeys, Prefix},
    manifest::{Entry, EntryKind, FanOut, FoldPlan, NodeReference, Root},
    state::{BucketState, ConfState},
};
use varve_objects::{
    Counting, Operation, Store,
    testing::{MemoryStore, SeededEntropy},
};
use varve_snapshot::{Which, choose, publish};
use varve_tiering::{ChunkCache, ColdOptions, ColdReader, PartitionExtent, Spawn, chunks, put_node};

use super::Bench;
use crate::report::{Figure, Goal};

/// As the issue asks.
const RESIDENT_MIB: f64 = 1.0;
const GETS: f64 = 2.0;
/// Records of a segment.
const RECORDS: u64 = 1_000;
/// Offsets that are looked for, each by a node that knows nothing.
const LOOKS: usize = 50;
/// Roots that are held at once to see what one takes.
const COPIES: usize = 64;

/// Memory and requests of one large manifest.
pub fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let segments = bench.scale.manifest_segments;
    let made = Made::new(segments, |_| true)?;
    let (resident, looks) = (made.resident_mib()?, made.looks(LOOKS)?);
    let lists = looks.iter().map(|look| look.lists).max().unwrap_or(0);
    ensure!(lists == 1, "{lists} listings to find one offset");
    let gets: Vec<f64> = looks.iter().map(|look| look.gets as f64).collect();
    let most = gets.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        Figure {
            name: "MiB resident of a manifest of a million segments".to_owned(),
            ratios: vec![resident],
            goal: Goal::AtMost(RESIDENT_MIB),
            detail: format!(
                "{segments} segments, {} nodes and {} entries in the root, {} KiB stored",
                made.root.nodes.len(),
                made.root.entries.len(),
                made.root.to_bytes().len() >> 10
            ),
        },
        Figure {
            name: "GETs to open it at a random offset, after one LIST, at most".to_owned(),
            ratios: vec![most],
            goal: Goal::AtMost(GETS),
            detail: format!(
                "{LOOKS} offsets, {:.2} on average: the checkpoint, then the leaf",
                gets.iter().sum::<f64>() / gets.len().max(1) as f64
            ),
        },
    ])
}

/// A partition in a bucket in memory.
struct Made {
    runtime: Runtime,
    store: Arc<MemoryStore>,
    keys: Keys,
    identity: PartitionIdentity,
    root: Root,
    /// Where segments begin whose leaf is in the bucket, or that the root names itself.
    findable: Vec<Offset>,
}

/// What one look for an offset asked of the store.
struct Look {
    lists: u64,
    gets: u64,
}

/// Reads ahead nothing.
struct Nobody;

impl Spawn for Nobody {
    fn spawn(&self, _: BoxFuture<'static, ()>) {}
}

impl Made {
    /// So many segments, with the fan-out that brokers have. Of the leaves those are put into the bucket that `keeps` names
    /// by their number; the others are but referred to.
    fn new(segments: u64, keeps: impl Fn(u64) -> bool) -> anyhow::Result<Self> {
        let cluster = ClusterId::from_random(9);
        let identity = PartitionIdentity {
            cluster,
            incarnation: Incarnation::FIRST,
            topic_id: TopicId::from_random(77),
            topic: "orders".into(),
            partition: PartitionIndex(4),
        };
        let mut made = Self {
            runtime: tokio::runtime::Builder::new_current_thread().build()?,
            store: Arc::default(),
            keys: Prefix::new("bench").cluster(cluster),
            identity,
            root: Root::default(),
            findable: Vec::new(),
        };
        let entropy = SeededEntropy::new(1);
        let mut nodes = 0;
        for number in 0..segments {
            made.root.append(vec![entry(number, &entropy)], Offset::ZERO)?;
            while let Some(plan) = made.root.plan_fold(FanOut::DEFAULT) {
                let uid = entropy.next_u64().max(1);
                let reference = if keeps(nodes) {
                    if let FoldPlan::Leaf(entries) = &plan {
                        made.findable.extend(entries.iter().map(|entry| entry.base));
                    }
                    made.runtime.block_on(put_node(&*made.store, &made.keys, &made.identity, plan, uid))?
                } else {
                    referred_to(&plan, uid)
                };
                nodes += 1;
                made.root.fold(&reference)?;
            }
        }
        made.findable.extend(made.root.entries.iter().map(|entry| entry.base));
        made.publish()?;
        Ok(made)
    }

    fn publish(&self) -> anyhow::Result<()> {
        let (index, term) = (LogIndex(5_000_000), Term(3));
        let header = CheckpointHeader {
            kind: CheckpointKind::Partition,
            group: GroupId(3),
            identity: self.identity.clone(),
            state: StatePoint { index, term, offset: self.root.end() },
            applied: AppliedPoint { index, term },
            conf_state: ConfState::default(),
            manifest_seq: 1,
            feature_level: 1,
            append_time_ms: 5,
            records_local: false,
        };
        let state = PartitionCheckpoint {
            root: self.root.clone(),
            bucket: BucketState { log_start: Offset::ZERO, manifest_seq: 1 },
            ..PartitionCheckpoint::default()
        };
        let bytes = state.into_checkpoint(header).encode(Codec::Zstd);
        let PartitionIdentity { topic_id, partition, incarnation, .. } = self.identity;
        let name = CheckpointName { applied_index: index, term, uid: 1 };
        let key = self.keys.build(&Key::Checkpoint(PartitionKeys { topic_id, partition, incarnation }, name));
        let digest = Digest::of(&bytes);
        self.runtime.block_on(publish(&*self.store, &self.keys, &key, bytes, digest))?;
        Ok(())
    }

    /// Looks for random offsets, each from nothing: which checkpoint is the newest, and where it says that the record is.
    fn looks(&self, count: usize) -> anyhow::Result<Vec<Look>> {
        let entropy = SeededEntropy::new(2);
        let random = || {
            let at = entropy.next_u64() as usize % self.findable.len();
            self.findable[at].plus(entropy.next_u64() % RECORDS)
        };
        (0..count).map(|_| self.look(random())).collect()
    }

    fn look(&self, offset: Offset) -> anyhow::Result<Look> {
        let counting = Counting::new(Arc::clone(&self.store));
        let counters = counting.counters();
        let store: Arc<dyn Store> = Arc::new(counting);
        let which = Which::Partition(self.identity.topic_id, self.identity.partition);
        let chosen = self.runtime.block_on(choose(&*store, &self.keys, which, self.identity.incarnation))?;
        let root = Arc::new(PartitionCheckpoint::from_checkpoint(&chosen.checkpoint)?.root);
        let options = chunks::Options { chunk_bytes: 4 << 20, bytes_max: 4 << 20 };
        let chunks = ChunkCache::new(Arc::clone(&store), Arc::new(Nobody), options);
        let reader = ColdReader::new(store, self.keys.clone(), chunks, ColdOptions::default());
        let extent = PartitionExtent {
            group: GroupId(3),
            identity: &self.identity,
            log_start: Offset::ZERO,
            root: &root,
            rolls: &[],
            seals: &[],
        };
        let found = self.runtime.block_on(reader.find(&extent, offset))?.context("it is nowhere")?;
        ensure!(found.base <= offset && offset < found.end(), "{offset} is not at {}", found.base);
        let counted = counters.snapshot();
        let of = |operation: Operation| counted.get(&operation).map_or(0, |count| count.requests);
        let gets =
            of(Operation::Get) + of(Operation::GetRange) + of(Operation::GetSuffix) + of(Operation::Head);
        Ok(Look { lists: of(Operation::List), gets })
    }

    /// What one root takes of this process: the growth by many of them, each read from its stored form.
    fn resident_mib(&self) -> anyhow::Result<f64> {
        let bytes = self.root.to_bytes();
        let before = resident_bytes()?;
        let held: Vec<Root> =
            (0..COPIES).map(|_| Root::from_bytes(bytes.clone())).collect::<Result<_, _>>()?;
        let grown = resident_bytes()?.saturating_sub(before);
        ensure!(held.iter().all(|root| root.segments() == self.root.segments()), "a root lost segments");
        Ok(grown as f64 / COPIES as f64 / 1_048_576.0)
    }
}

/// A node that is in no bucket, of the length that it would have.
fn referred_to(plan: &FoldPlan, uid: u64) -> NodeReference {
    plan.reference(1, uid, (200 << 10, Digest::default()))
}

fn entry(number: u64, entropy: &SeededEntropy) -> Entry {
    let base = Offset(number * RECORDS);
    Entry {
        store_id: 0,
        kind: EntryKind::Raw,
        incarnation: 1,
        term: Term(3),
        uid: entropy.next_u64().max(1),
        position: 0,
        length: 64 << 20,
        base,
        last: Offset(base.0 + RECORDS - 1),
        count: RECORDS,
        min_timestamp: 1_700_000_000_000 + number as i64,
        max_timestamp: 1_700_000_000_001 + number as i64,
        first_index: LogIndex(5 * number + 1),
        roll_index: LogIndex(5 * number + 5),
        roll_term: Term(3),
        terms: (Term(3), Term(3)),
        txn_index_empty: true,
        delete_horizon_ms: 0,
        batch_bytes: 64 << 20,
        sha256: Digest::of(&entropy.next_u64().to_le_bytes()),
    }
}

fn resident_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_segments_open_at_a_random_offset_with_two_gets_after_one_list() {
        let made = Made::new(1_000_000, |leaf| leaf % 61 == 0).unwrap();
        assert_eq!(made.root.segments(), 1_000_000);
        assert!(made.root.nodes.iter().all(|node| node.level == 0), "a leaf lies below another node");
        let looks = made.looks(20).unwrap();
        assert!(looks.iter().all(|look| look.lists == 1 && look.gets <= 2), "more than 2 gets");
        assert!(looks.iter().any(|look| look.gets == 2), "no offset lay in a leaf");
        // Of this size in memory, whatever the allocator adds.
        let (nodes, entries) = (&made.root.nodes, &made.root.entries);
        let held = std::mem::size_of_val(&nodes[..]) + std::mem::size_of_val(&entries[..]);
        assert!(held <= 1 << 20, "{held} bytes");
    }
}
