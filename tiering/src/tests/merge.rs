//! Several small segments as one.

use std::sync::Arc;

use std::time::Duration;

use futures_util::FutureExt as _;
use varve_common::{Clock, Entropy, Monotonic, Offset, clock::BoxFuture};
use varve_formats::{manifest::EntryKind, segment};
use varve_objects::{BudgetOptions, Budgets, Class, RetryOptions, Stores, testing::SeededEntropy};

use super::support::{Node, TERM, objects, read_all};
use crate::{MergeError, UploadKey, UploadMemory, Uploaders, limits::SEGMENT_OVERHEAD_BYTES};

fn key(node: &mut Node) -> UploadKey {
    UploadKey { term: TERM, uid: node.uid() }
}

#[test]
fn b6_a_merged_segment_holds_the_same_bytes_and_its_readers_read_the_same() {
    let mut node = Node::all_cold(6, 3, 200);
    let before = read_all(&node, Offset(0), 1_000).unwrap();
    let run = node.root.entries[1..5].to_vec();
    let key = key(&mut node);
    let merged = node.executor.run(node.uploader.merge(&node.identity, &run, key)).unwrap();
    assert_eq!((merged.base, merged.last, merged.kind), (run[0].base, run[3].last, EntryKind::Merged));
    assert_eq!((merged.first_index, merged.roll_index), (run[0].first_index, run[3].roll_index));
    assert_eq!(merged.batch_bytes, run.iter().map(|entry| entry.batch_bytes).sum::<u64>());
    assert_eq!(merged.count, run.iter().map(|entry| entry.count).sum::<u64>());
    assert_eq!(merged.max_timestamp, run[3].max_timestamp);
    // A reader with the old manifest goes on while the new object is there.
    assert_eq!(read_all(&node, Offset(0), 1_000).unwrap(), before);
    let removed: Vec<u64> = run.iter().map(|entry| entry.uid).collect();
    Arc::make_mut(&mut node.root).replace(&removed, vec![merged.clone()]).unwrap();
    assert_eq!(node.root.entries.len(), 3);
    for from in [Offset(0), Offset(7), merged.base, merged.last, merged.end()] {
        assert_eq!(read_all(&node, from, 1_000).unwrap(), node.expected(from), "{from}");
    }
    let stored = node.store.inner().objects();
    let (_, object) = stored.iter().find(|(key, _)| key.to_string().contains("/mseg/")).unwrap();
    let verified = segment::verify(object).unwrap();
    assert_eq!(verified.footer.kind, EntryKind::Merged);
    assert_eq!(verified.state.epochs.len(), 1, "the state at the end comes along");

    // And a merged segment is merged again.
    let run = node.root.entries.clone();
    let key = UploadKey { term: TERM, uid: node.uid() };
    let all = node.executor.run(node.uploader.merge(&node.identity, &run, key)).unwrap();
    let removed: Vec<u64> = run.iter().map(|entry| entry.uid).collect();
    Arc::make_mut(&mut node.root).replace(&removed, vec![all]).unwrap();
    assert_eq!(read_all(&node, Offset(0), 1_000).unwrap(), node.expected(Offset(0)));
}

#[test]
fn what_is_damaged_missing_or_alone_is_not_merged() {
    let mut node = Node::all_cold(3, 2, 200);
    let run = node.root.entries.clone();
    let before = objects(&node).len();
    let alone = key(&mut node);
    let error = node.executor.run(node.uploader.merge(&node.identity, &run[..1], alone)).unwrap_err();
    assert!(matches!(error, MergeError::Unknown(Offset(0))), "{error}");
    let gap = [run[0].clone(), run[2].clone()];
    let error = node.executor.run(node.uploader.merge(&node.identity, &gap, alone)).unwrap_err();
    assert!(matches!(error, MergeError::Write(_)), "{error}");
    let mut lost = run.clone();
    lost[1].uid ^= 1;
    let error = node.executor.run(node.uploader.merge(&node.identity, &lost, alone)).unwrap_err();
    assert!(matches!(error, MergeError::Get(_)), "{error}");
    let mut other = run.clone();
    other[1].sha256.0[0] ^= 1;
    let error = node.executor.run(node.uploader.merge(&node.identity, &other, alone)).unwrap_err();
    assert!(matches!(error, MergeError::Get(_)), "{error}");
    assert_eq!(objects(&node).len(), before, "nothing was put");
}

/// Time stands still: who waits for the next request waits for ever.
struct StillClock;

impl Clock for StillClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic::default()
    }

    fn wall_ms(&self) -> i64 {
        0
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

#[test]
fn uploads_and_repairs_get_their_turn_while_a_merge_waits() {
    let mut node = Node::all_cold(6, 3, 200);
    node.fill(2, 200);
    let roll = node.roll();
    let clock: Arc<dyn Clock> = Arc::new(StillClock);
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
    let budgets =
        Budgets::new(Arc::clone(&clock), BudgetOptions { requests_per_second: 100, bytes_per_second: None });
    let stores =
        Stores::new(node.counting.clone(), budgets.clone(), &clock, &entropy, RetryOptions::default());
    // Of each kind one, and no more, finds room in memory.
    let memory = UploadMemory {
        uploads: SEGMENT_OVERHEAD_BYTES + (8 << 10),
        background: 2 * SEGMENT_OVERHEAD_BYTES + (16 << 10),
    };
    let uploaders = Uploaders::new(&stores, &node.keys, memory);
    while budgets.acquire(Class::Merge, 0).now_or_never().is_some() {}

    let (identity, run) = (node.identity.clone(), node.root.entries[1..5].to_vec());
    let (merging, uploading, repairing) = (key(&mut node), key(&mut node), key(&mut node));
    let mut merge = Box::pin(uploaders.merges.merge(&identity, &run, merging));
    assert!(node.executor.try_run(&mut merge).is_none(), "the merge has no request left, and got one");
    let segment = node.segment();
    let upload = uploaders.uploads.upload(&segment, node.source(&roll), uploading);
    assert_eq!(
        node.executor.try_run(upload).expect("an upload waits for a merge").unwrap().uid,
        uploading.uid
    );
    let repair = uploaders.repairs.upload(&segment, node.source(&roll), repairing);
    assert_eq!(
        node.executor.try_run(repair).expect("a repair waits for a merge").unwrap().uid,
        repairing.uid
    );
    let report = budgets.report();
    let asked = |class| (report.spent[&class].requests, report.spent[&class].waiting);
    assert_eq!((asked(Class::Upload), asked(Class::Scrub)), ((1, 0), (1, 0)));
    assert_eq!(report.spent[&Class::Merge].waiting, 1);
    assert!(node.executor.try_run(&mut merge).is_none());
}
