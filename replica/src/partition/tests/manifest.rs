//! B2, B3: what changes the manifest, and what must not.

use varve_formats::{
    command::{NodeFolded, TierReplace},
    manifest::{FanOut, NodeReference},
};

use super::*;

impl Log {
    /// The reference to the node that the next fold at fan-out 4 would write.
    fn node(&self, uid: u64) -> NodeReference {
        let body = self.state.bucket().root.plan_fold(FanOut(4)).unwrap();
        let identity = self.state.identity().clone();
        varve_formats::node::Node { identity, body }.seal(uid).1
    }

    fn fold(&mut self, node: NodeReference, fence: Fence) -> Applied {
        self.command(&Command::NodeFolded(NodeFolded { fence, node }))
    }

    fn assert_fenced(&mut self, act: impl FnOnce(&mut Self) -> Applied) {
        let (before, fenced) = (self.state.bucket().clone(), self.state.fenced());
        assert!(matches!(act(self), Applied::Fenced(_)));
        assert_eq!((self.state.bucket(), self.state.fenced()), (&before, fenced + 1));
    }
}

fn five_tiered() -> Log {
    let mut log = Log::new();
    for uid in 1..=5 {
        log.tier(uid);
    }
    log
}

#[test]
fn b3_a_stale_node_folded_does_nothing() {
    let mut log = five_tiered();
    let (node, fence) = (log.node(50), log.fence());
    let behind = Fence { manifest_seq: fence.manifest_seq - 1, ..fence };
    log.assert_fenced(|log| log.fold(node.clone(), behind));
    let zombie = Fence { term: Term(2), ..fence };
    log.assert_fenced(|log| log.fold(node.clone(), zombie));
    let wrong = NodeReference { entries: node.entries + 1, ..node.clone() };
    log.assert_fenced(|log| log.fold(wrong, fence));
    assert!(matches!(log.fold(node.clone(), fence), Applied::Changed(_)));
    let fence = log.fence();
    log.assert_fenced(|log| log.fold(node, fence));
}

#[test]
fn b3_a_stale_append_or_trim_does_nothing() {
    let mut log = five_tiered();
    log.records(25, 5);
    let roll = log.roll();
    log.intent(6, &roll);
    let stale = log.fence();
    log.trim(1);
    log.assert_fenced(|log| log.append(6, &roll, stale));
    let trim = TierTrim { fence: stale, log_start: Offset(7), cause: TrimCause::Retention };
    log.assert_fenced(|log| log.command(&Command::TierTrim(trim)));
    let fence = log.fence();
    assert!(matches!(log.append(6, &roll, fence), Applied::Changed(_)));
}

#[test]
fn b2_an_append_leaves_no_gap_and_no_overlap() {
    let mut log = five_tiered();
    log.records(25, 5);
    let next = log.roll();
    log.records(30, 5);
    let behind = log.roll();
    log.intent(6, &next);
    log.intent(7, &behind);
    let fence = log.fence();
    log.assert_fenced(|log| log.append(7, &behind, fence));
    assert!(matches!(log.append(6, &next, fence), Applied::Changed(_)));
    let fence = log.fence();
    log.assert_fenced(|log| log.append(6, &next, fence));
}

#[test]
fn b2_the_manifest_ends_where_the_tier_does() {
    let ends = |log: &Log| {
        let bucket = log.state.bucket();
        assert_eq!(bucket.root.end(), bucket.tiered_end);
        bucket.tiered_end.0
    };
    let mut log = Log::new();
    let first = log.tier(1);
    assert_eq!(ends(&log), 5);
    log.trim(first.end.0);
    assert_eq!(ends(&log), 5, "all of it trimmed");
    log.records(5, 5);
    log.roll();
    log.records(10, 5);
    log.roll();
    log.trim(12);
    assert_eq!(ends(&log), 10, "the range that holds the log start is next");
    log.records(15, 5);
    log.trim(17);
    assert_eq!(ends(&log), 15, "also where that range is still open");
    let decoded =
        PartitionState::decode(log.state.identity().clone(), log.state.encode(&[], |_| ConfState::default()))
            .unwrap();
    assert_eq!(decoded.hash(), log.state.hash());
}

#[test]
fn b3_a_replacement_needs_its_fence_its_intent_and_the_same_range() {
    let mut log = Log::new();
    let (first, second) = (log.tier(1), log.tier(2));
    let both = RollEntry { end: second.end, ..first.clone() };
    let replace = |fence, removed: &[u64], added| {
        Command::TierReplace(TierReplace { fence, removed: removed.to_vec(), added })
    };
    let (fence, merged) = (log.fence(), vec![log.entry(3, &both)]);
    log.assert_fenced(|log| log.command(&replace(fence, &[1, 2], merged.clone())));
    log.intent(3, &both);
    let stale = Fence { manifest_seq: 0, ..fence };
    log.assert_fenced(|log| log.command(&replace(stale, &[1, 2], merged.clone())));
    log.assert_fenced(|log| log.command(&replace(fence, &[2, 1], merged.clone())));
    log.assert_fenced(|log| log.command(&replace(fence, &[1], merged.clone())));
    assert!(matches!(log.command(&replace(fence, &[1, 2], merged)), Applied::Changed(_)));
    let bucket = log.state.bucket();
    assert_eq!((bucket.root.entries.len(), bucket.root.entries[0].uid, bucket.intents.len()), (1, 3, 0));
    assert_eq!((bucket.tiered_end, bucket.manifest_seq), (Offset(10), 3));
}

#[test]
fn an_upload_is_announced_for_a_rolled_range_or_a_run_of_the_root() {
    let mut log = Log::new();
    let (first, second) = (log.tier(1), log.tier(2));
    let half = RollEntry { end: Offset(7), ..first.clone() };
    log.assert_fenced(|log| log.intent(3, &half));
    log.intent(3, &RollEntry { end: second.end, ..first.clone() });
    let intent = log.state.bucket().intents[0].clone();
    assert_eq!((intent.kind, log.state.bucket().is_overtaken(&intent)), (ManifestKind::Merged, false));
    log.trim(5);
    assert!(log.state.bucket().is_overtaken(&intent), "its range is no run of the root any more");
    log.command(&Command::IntentExpired(IntentExpired { term: log.term, uids: vec![3] }));
    let tombstone = log.state.bucket().tombstones.last().unwrap();
    assert_eq!((tombstone.uid, tombstone.kind), (3, ManifestKind::Merged), "the key depends on it");
    assert!(log.state.bucket().may_delete(tombstone));
}
