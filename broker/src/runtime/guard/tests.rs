use std::sync::atomic::{AtomicU32, Ordering};

use varve_common::{Digest, Monotonic, NodeId, clock::BoxFuture};
use varve_objects::{Counting, Operation, testing::MemoryStore};

use super::*;

const CLUSTER: ClusterId = ClusterId([7; 16]);
const LOOKS: u32 = 5;

fn prefix() -> Prefix {
    Prefix::new("p")
}

fn identity() -> Identity {
    Identity { cluster: CLUSTER, incarnation: Incarnation::FIRST, node: NodeId::new(1).unwrap() }
}

fn claim(incarnation: u32) -> Claim {
    let Identity { cluster, node, .. } = identity();
    Claim {
        cluster,
        incarnation: Incarnation(incarnation),
        created_ms: 5,
        node,
        format: FORMAT,
        origin: None,
    }
}

/// A clock in whose last pause somebody restores the cluster.
struct Restorer {
    store: Arc<Counting<MemoryStore>>,
    pauses: AtomicU32,
}

impl Clock for Restorer {
    fn monotonic(&self) -> Monotonic {
        Monotonic(CHECK_INTERVAL * self.pauses.load(Ordering::Relaxed))
    }

    fn wall_ms(&self) -> i64 {
        1
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        let is_last = self.pauses.fetch_add(1, Ordering::Relaxed) + 1 == LOOKS;
        let store = Arc::clone(&self.store);
        Box::pin(async move {
            if is_last {
                claim::begin(&*store, &prefix(), claim(2)).await.unwrap();
            }
        })
    }
}

#[tokio::test]
async fn s5_a_later_life_ends_the_watch_and_only_the_first_look_lists() {
    let store = Arc::new(Counting::new(MemoryStore::default()));
    let counters = store.counters();
    let clock = Arc::new(Restorer { store: Arc::clone(&store), pauses: AtomicU32::new(0) });
    let ended = watch(store, prefix(), identity(), clock).await;
    assert!(matches!(&ended, ClaimError::Superseded { claim: found, .. } if *found == claim(2)), "{ended}");
    let counted = counters.snapshot();
    // The first look made the claim; the last one was told by a read.
    assert_eq!(counted[&Operation::List].requests, 1, "{counted:?}");
}

#[tokio::test]
async fn a_prefix_that_was_given_to_another_cluster_ends_the_watch() {
    let store = Arc::new(MemoryStore::default());
    let other = Claim { cluster: ClusterId([8; 16]), ..claim(1) };
    let bytes = other.to_bytes();
    let sha256 = Digest::of(&bytes);
    store.put_new(&prefix().claim(other.incarnation), bytes.into(), sha256).await.unwrap();
    let clock = varve_objects::testing::InstantClock::default();
    let ended = watch(store, prefix(), identity(), Arc::new(clock)).await;
    assert!(matches!(ended, ClaimError::Foreign { .. }), "{ended}");
}
