//! Small segments that are replaced by a merged one (TIERING.md 3, 9).

use super::*;

/// Three ranges in the bucket: 0..5, 5..8 and 8..10 under uids 1, 2 and 3.
fn tiered() -> Node {
    let mut node = Node::ready();
    let mut sequence = 0;
    for (uid, count) in [(1, 5), (2, 3), (3, 2)] {
        let range = node.roll((9, 0, sequence), count);
        node.tier(uid, range);
        sequence += count as i32;
    }
    node
}

impl Node {
    /// Announces a merge and gives what its job would put.
    fn merging(&mut self, uid: u64, base: u64, end: u64) -> Option<Entry> {
        self.act(Action::Announce { uid, base: Offset(base), end: Offset(end) });
        self.take_effects();
        self.act(Action::Upload { uid });
        let job = self.effects.iter().find_map(|effect| match effect {
            Effect::Start(Job::Merge { intent, entries, .. }) => Some((intent.clone(), entries.clone())),
            _ => None,
        });
        let (intent, entries) = job?;
        let (first, last) = (&entries[0], &entries[entries.len() - 1]);
        Some(Entry {
            kind: EntryKind::Merged,
            term: intent.term,
            uid,
            base: first.base,
            first_index: first.first_index,
            ..last.clone()
        })
    }

    fn merged(&mut self, entry: Entry) {
        self.done(JobOutcome::Merged { entry, segments: 2 });
    }

    fn uids(&self) -> Vec<u64> {
        self.status().root.entries.iter().map(|entry| entry.uid).collect()
    }

    fn waiting(&self) -> Vec<u64> {
        self.status().tombstones.iter().map(|tombstone| tombstone.uid).collect()
    }

    fn may_go(&mut self, uids: &[u64]) -> bool {
        self.take_effects();
        self.act(Action::Delete { uids: uids.to_vec() });
        self.effects.iter().any(|effect| matches!(effect, Effect::Start(Job::Delete { .. })))
    }
}

#[test]
fn b8_a_run_is_replaced_and_its_objects_go_when_no_checkpoint_names_them() {
    let mut node = tiered();
    node.publish(11);
    let merged = node.merging(4, 0, 8).unwrap();
    assert_eq!(node.uids(), [1, 2, 3], "nothing is replaced before the object is there");
    node.merged(merged);
    let status = node.status();
    assert_eq!((node.uids(), node.waiting()), (vec![4, 3], vec![1, 2]));
    assert_eq!((status.tiered_end, status.intents.len(), status.uploaded.len()), (Offset(10), 0, 0));
    assert!(!node.may_go(&[1, 2]), "the newest checkpoint names them");
    node.publish(12);
    assert!(!node.may_go(&[1, 2]), "the one before it does");
    node.publish(13);
    assert!(!node.may_go(&[1, 2]), "and one of the grid is kept");
    node.disk.bucket.remove(0);
    node.publish(14);
    assert!(node.may_go(&[1, 2]));
    let (before, after) = (node.status(), node.reopen().status());
    assert_eq!((after.root, after.tombstones), (before.root, before.tombstones));
}

#[test]
fn a_merge_that_lost_its_run_is_given_up_and_its_object_collected() {
    let mut node = tiered();
    let merged = node.merging(4, 0, 8).unwrap();
    node.act(Action::Trim { log_start: Offset(6), cause: TrimCause::Retention });
    node.merged(merged);
    assert_eq!(node.uids(), [2, 3], "a run of which a part is gone is not replaced");
    node.act(Action::Expire { uids: vec![4] });
    let status = node.status();
    assert_eq!((status.intents.len(), status.uploaded.len(), node.waiting()), (0, 0, vec![1, 4]));
}

#[test]
fn one_merge_runs_at_a_time_beside_uploads_and_a_failed_one_does_not_count_as_a_failed_upload() {
    let mut node = tiered();
    assert!(node.merging(4, 0, 8).is_some());
    assert!(node.merging(5, 5, 10).is_none());
    let range = node.roll((9, 0, 10), 4);
    node.tier(6, range);
    assert_eq!(node.uids(), [1, 2, 3, 6], "uploads go on");
    node.done(JobOutcome::MergeFailed { uid: 4, why: "no".into() });
    let failures = node.status().jobs.failures;
    assert!(failures.contains_key(&JobKind::Merge) && !failures.contains_key(&JobKind::Upload));
    node.act(Action::Expire { uids: vec![4] });
    assert_eq!(node.waiting(), [4]);
}

#[test]
fn a_merge_announced_before_a_crash_is_expired_after_it() {
    let mut node = tiered();
    assert!(node.merging(4, 0, 8).is_some());
    let mut node = node.reopen();
    node.settle();
    assert_eq!(node.status().intents.len(), 1);
    node.act(Action::Expire { uids: vec![4] });
    // Its object may be there: only a tombstone knows.
    assert_eq!((node.uids(), node.waiting()), (vec![1, 2, 3], vec![4]));
}
