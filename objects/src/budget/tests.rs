use bytes::Bytes;
use futures_util::{FutureExt as _, future::join_all};
use varve_common::{Digest, ObjectKey, clock::BoxFuture};

use super::*;
use crate::{
    Failure, GetError, Operation, RetryOptions, Store as _, Stores,
    testing::{Fault, FaultyStore, MemoryStore, SeededEntropy},
};

const BODY: Bytes = Bytes::from_static(b"0123456789");

/// A sleep is over when it is polled again, and moves time on by its length.
#[derive(Default)]
struct StepClock(Arc<Mutex<Duration>>);

impl Clock for StepClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(*self.0.lock().unwrap())
    }

    fn wall_ms(&self) -> i64 {
        0
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        let (now, mut polled) = (Arc::clone(&self.0), false);
        Box::pin(poll_fn(move |context| {
            if polled {
                *now.lock().unwrap() += span;
                return Poll::Ready(());
            }
            polled = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    }
}

fn budgets(requests_per_second: u32, bytes_per_second: Option<u64>) -> (Budgets, Arc<dyn Clock>) {
    let clock: Arc<dyn Clock> = Arc::new(StepClock::default());
    (Budgets::new(Arc::clone(&clock), BudgetOptions { requests_per_second, bytes_per_second }), clock)
}

#[tokio::test]
async fn within_the_rate_nobody_waits() {
    let (budgets, clock) = budgets(1_000, None);
    for _ in 0..300 {
        budgets.acquire(Class::ClientRead, 1 << 30).await;
    }
    assert_eq!(clock.monotonic(), Monotonic::default());
    let spent = budgets.report().spent[&Class::ClientRead];
    assert_eq!(spent, Spent { requests: 300, bytes: 300 << 30, ..Spent::default() });
}

#[tokio::test]
async fn beyond_the_rate_of_requests_or_bytes_they_wait_and_none_is_lost() {
    for (rates, bytes) in [(budgets(100, None), 1_u64 << 20), (budgets(5_000, Some(100 << 20)), 1 << 20)] {
        let (budgets, clock) = rates;
        for _ in 0..500 {
            budgets.acquire(Class::Merge, bytes).await;
        }
        let took = clock.monotonic().0.as_secs_f64();
        assert!((3.9..5.1).contains(&took), "{took}");
        let spent = budgets.report().spent[&Class::Merge];
        assert_eq!((spent.requests, spent.waiting), (500, 0));
        assert!(spent.waited.as_secs_f64() > 3.0);
    }
}

#[tokio::test]
async fn in_a_class_it_goes_by_order_of_arrival_and_who_gives_up_leaves_no_gap() {
    let (budgets, _) = budgets(100, None);
    while budgets.acquire(Class::Export, 0).now_or_never().is_some() {}
    let order = Mutex::new(Vec::new());
    let mut waiting: Vec<_> = (0..6)
        .map(|number| {
            let (budgets, order) = (&budgets, &order);
            Box::pin(async move {
                budgets.acquire(Class::Export, 0).await;
                order.lock().unwrap().push(number);
            })
        })
        .collect();
    // Each takes its place in the queue with its first poll; then one gives up.
    poll_fn(|context| {
        waiting.iter_mut().for_each(|one| assert!(one.as_mut().poll(context).is_pending()));
        Poll::Ready(())
    })
    .now_or_never();
    drop(waiting.remove(2));
    join_all(waiting).await;
    assert_eq!(*order.lock().unwrap(), [0, 1, 3, 4, 5]);
}

#[tokio::test]
async fn uploads_under_pressure_have_their_own_share() {
    let (budgets, _) = budgets(100, None);
    let drained = |budgets: &Budgets| {
        let mut got = 0;
        while budgets.acquire(Class::Upload, 0).now_or_never().is_some() {
            got += 1;
        }
        got
    };
    let first = drained(&budgets);
    assert!(first >= 20, "{first}");
    assert_eq!(drained(&budgets), 0);
    budgets.press(true);
    assert!(drained(&budgets) >= 20);
    assert_eq!(budgets.report().spent[&Class::PressedUpload].requests, 0, "told as what they are");
}

#[tokio::test]
async fn a_busy_store_is_asked_half_as_often_and_slowly_more_again() {
    let (budgets, clock) = budgets(5_000, None);
    for _ in 0..2_000 {
        budgets.acquire(Class::ClientRead, 0).await;
    }
    budgets.slow_down();
    budgets.slow_down();
    let report = budgets.report();
    assert_eq!((report.requests_per_second, report.slow_downs), (1_000.0, 1));
    clock.sleep(SLOW_DOWN_EVERY).await;
    budgets.slow_down();
    assert!(budgets.report().requests_per_second <= 500.0);
    clock.sleep(Duration::from_secs(10)).await;
    let later = budgets.report().requests_per_second;
    assert!((1_000.0..2_000.0).contains(&later), "{later}");
    clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(budgets.report().requests_per_second, 5_000.0);
}

#[tokio::test]
async fn every_try_through_the_stores_is_paid_for_by_its_class() {
    let (budgets, clock) = budgets(5_000, Some(1 << 30));
    let entropy: Arc<dyn varve_common::Entropy> = Arc::new(SeededEntropy::new(1));
    let faulty = Arc::new(FaultyStore::new(MemoryStore::default(), Arc::clone(&clock), Arc::clone(&entropy)));
    let stores =
        Stores::new(Arc::clone(&faulty) as _, budgets.clone(), &clock, &entropy, RetryOptions::default());
    let key = ObjectKey::new("a".into());
    stores.of(Class::Upload).put_new(&key, BODY.into(), Digest::of(&BODY)).await.unwrap();
    faulty.script(Operation::Get, Fault::Busy);
    assert_eq!(stores.of(Class::Scrub).get(&key).await, Ok(BODY));
    assert_eq!(stores.of(Class::ClientRead).get_range(&key, 2..4).await, Ok(BODY.slice(2..4)));
    let missing = ObjectKey::new("b".into());
    assert_eq!(stores.of(Class::Export).get(&missing).await, Err(GetError::NotFound));
    let report = budgets.report();
    let spent = |class: Class| (report.spent[&class].requests, report.spent[&class].bytes);
    assert_eq!(spent(Class::Upload), (1, 10));
    assert_eq!(spent(Class::Scrub), (2, 10));
    assert_eq!(spent(Class::ClientRead), (1, 2));
    assert_eq!(spent(Class::Export), (1, 0));
    assert_eq!(report.slow_downs, 1);
    assert!(Failure::Busy(String::new()).is_retriable());
}
