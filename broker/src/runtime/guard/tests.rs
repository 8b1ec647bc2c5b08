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

/// A clock that is set, and never rings.
struct Set(AtomicU32);

impl Clock for Set {
    fn monotonic(&self) -> Monotonic {
        Monotonic(CHECK_INTERVAL * self.0.load(Ordering::Relaxed))
    }

    fn wall_ms(&self) -> i64 {
        1
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn nobody_passes_the_gate_who_is_of_an_earlier_life_and_a_look_counts_for_as_long_as_one_of_the_watch()
{
    let store = Arc::new(Counting::new(MemoryStore::default()));
    let counters = store.counters();
    let looks = || counters.snapshot().get(&Operation::List).map_or(0, |list| list.requests);
    let clock = Arc::new(Set(AtomicU32::new(0)));
    let mut gate = Gate::new(store.clone(), prefix(), identity(), clock.clone());
    gate.pass().await.unwrap();
    gate.pass().await.unwrap();
    assert_eq!(looks(), 1);
    claim::begin(&*store, &prefix(), claim(2)).await.unwrap();
    clock.0.store(1, Ordering::Relaxed);
    let kept_out = gate.pass().await.unwrap_err();
    assert!(matches!(kept_out, ClaimError::Superseded { .. }), "{kept_out}");
}

#[tokio::test]
async fn a_store_that_does_not_answer_keeps_nobody_out() {
    use varve_objects::testing::{Fault, FaultyStore, InstantClock, SeededEntropy};
    let clock = Arc::new(InstantClock::default());
    let store = FaultyStore::new(MemoryStore::default(), clock.clone(), Arc::new(SeededEntropy::new(1)));
    store.script(Operation::List, Fault::ErrorBefore);
    let mut gate = Gate::new(Arc::new(store), prefix(), identity(), clock);
    gate.pass().await.unwrap();
}
