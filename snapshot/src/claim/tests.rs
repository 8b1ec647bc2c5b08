use std::{sync::Arc, time::Duration};

use varve_common::NodeId;
use varve_formats::claim::Origin;
use varve_objects::{
    Operation,
    testing::{Fault, FaultyStore, InstantClock, MemoryStore, SeededEntropy},
};

use super::*;
use crate::testing::{block_on, cluster, prefix};

type TestStore = FaultyStore<MemoryStore>;

fn store() -> TestStore {
    let (clock, entropy) = (Arc::new(InstantClock::default()), Arc::new(SeededEntropy::new(1)));
    FaultyStore::new(MemoryStore::default(), clock, entropy)
}

fn claim(cluster: ClusterId, incarnation: u32) -> Claim {
    let node = NodeId::new(1).unwrap();
    Claim {
        cluster,
        incarnation: Incarnation(incarnation),
        created_ms: 5,
        node,
        format: FORMAT,
        origin: None,
    }
}

fn mine() -> Claim {
    claim(cluster(), 1)
}

fn other() -> ClusterId {
    ClusterId::from_random(10)
}

fn run(store: &TestStore, mine: Claim, data: DataDirectory) -> Result<Established, ClaimError> {
    block_on(establish(store, &prefix(), mine, data))
}

fn of(incarnation: u32) -> DataDirectory {
    DataDirectory::Of(cluster(), Incarnation(incarnation))
}

#[test]
fn a_prefix_without_claims_is_claimed_and_then_confirmed() {
    let store = store();
    assert_eq!(run(&store, mine(), DataDirectory::Empty), Ok(Established::Created(mine())));
    assert_eq!(run(&store, mine(), of(1)), Ok(Established::Confirmed(mine())));
    assert_eq!(block_on(check(&store, &prefix(), cluster(), Incarnation(1))), Ok(mine()));
}

#[test]
fn s5_an_empty_data_directory_refuses_a_claimed_prefix_and_names_restore() {
    let store = store();
    run(&store, mine(), DataDirectory::Empty).unwrap();
    let error = run(&store, claim(other(), 1), DataDirectory::Empty).unwrap_err();
    assert_eq!(error, ClaimError::Existing(mine()));
    assert!(error.to_string().contains("varve restore"), "{error}");
}

#[test]
fn s5_another_clusters_prefix_is_refused() {
    let store = store();
    run(&store, claim(other(), 1), DataDirectory::Empty).unwrap();
    let error = ClaimError::Foreign { claim: claim(other(), 1), mine: cluster() };
    assert_eq!(run(&store, mine(), of(1)), Err(error.clone()));
    assert_eq!(block_on(check(&store, &prefix(), cluster(), Incarnation(1))), Err(error));
}

#[test]
fn s5_a_superseded_incarnation_is_told() {
    let store = store();
    run(&store, mine(), DataDirectory::Empty).unwrap();
    let next = claim(cluster(), 2);
    assert_eq!(block_on(begin(&store, &prefix(), next)), Ok(Established::Created(next)));
    let superseded = ClaimError::Superseded { claim: next, mine: Incarnation(1) };
    assert_eq!(block_on(check(&store, &prefix(), cluster(), Incarnation(1))), Err(superseded));
    assert_eq!(block_on(begin(&store, &prefix(), next)), Ok(Established::Confirmed(next)));
    let rival = Claim { created_ms: 6, ..next };
    let lost = ClaimError::Superseded { claim: next, mine: Incarnation(2) };
    assert_eq!(block_on(begin(&store, &prefix(), rival)), Err(lost));
}

#[test]
fn of_two_that_claim_at_once_one_gets_it() {
    let store = store();
    store.script(Operation::List, Fault::Missing);
    run(&store, claim(other(), 1), DataDirectory::Empty).unwrap();
    store.script(Operation::List, Fault::Missing);
    let error = run(&store, mine(), DataDirectory::Empty).unwrap_err();
    assert_eq!(error, ClaimError::Existing(claim(other(), 1)));
}

#[test]
fn a_lost_answer_is_our_own_claim_on_the_next_try() {
    let store = store();
    store.script(Operation::Put, Fault::ErrorAfter);
    assert!(matches!(run(&store, mine(), DataDirectory::Empty), Err(ClaimError::Store(_))));
    assert_eq!(run(&store, mine(), DataDirectory::Empty), Ok(Established::Confirmed(mine())));
}

#[test]
fn s4_a_claim_that_cannot_be_read_is_never_taken_for_nobodys() {
    let store = store();
    run(&store, mine(), DataDirectory::Empty).unwrap();
    for operation in [Operation::List, Operation::Get] {
        store.script(operation, Fault::ErrorBefore);
        assert!(matches!(run(&store, mine(), of(1)), Err(ClaimError::Store(_))));
    }
    for read in 0..2 {
        // Its own claim, and the next one: "not known" is neither "not there" nor "free".
        (0..read).for_each(|_| store.script(Operation::Get, Fault::Slow(Duration::ZERO)));
        store.script(Operation::Get, Fault::ErrorBefore);
        let checked = block_on(check(&store, &prefix(), cluster(), Incarnation(1)));
        assert!(matches!(checked, Err(ClaimError::Store(_))), "read {read}: {checked:?}");
    }
    store.script(Operation::Get, Fault::Missing);
    assert!(matches!(run(&store, mine(), of(1)), Err(ClaimError::Vanished(_))));
    store.inner().tamper(&prefix().claim(Incarnation(1)), Bytes::from_static(b"rot"));
    assert!(matches!(run(&store, mine(), of(1)), Err(ClaimError::Damaged { .. })));
    assert!(matches!(run(&store, mine(), DataDirectory::Empty), Err(ClaimError::Damaged { .. })));
}

#[test]
fn a_checked_claim_is_never_made() {
    let store = store();
    let missing = ClaimError::Missing(Incarnation(1));
    assert_eq!(block_on(check(&store, &prefix(), cluster(), Incarnation(1))), Err(missing));
    assert!(store.inner().objects().is_empty());
}

#[test]
fn the_newest_complete_life_is_restored_and_its_incomplete_successor_resumed() {
    let store = store();
    let lives = || block_on(lives(&store, &prefix())).unwrap();
    assert_eq!(lives(), None);
    run(&store, mine(), DataDirectory::Empty).unwrap();
    assert_eq!(lives().unwrap().to_resume(), None);
    let marker = |incarnation| Complete {
        cluster: cluster(),
        incarnation: Incarnation(incarnation),
        completed_ms: 1,
        groups: 2,
        token: 0,
    };
    block_on(complete(&store, &prefix(), marker(1))).unwrap();
    block_on(complete(&store, &prefix(), marker(1))).unwrap();
    assert_eq!(lives().unwrap(), Lives { newest: mine(), complete: Some(Incarnation(1)) });
    block_on(begin(&store, &prefix(), claim(cluster(), 2))).unwrap();
    let begun = lives().unwrap();
    assert_eq!((begun.complete, begun.to_resume()), (Some(Incarnation(1)), Some(Incarnation(2))));
    block_on(complete(&store, &prefix(), marker(2))).unwrap();
    let done = lives().unwrap();
    assert_eq!((done.complete, done.to_resume()), (Some(Incarnation(2)), None));
}

#[test]
fn s5_a_completion_of_another_cluster_or_without_its_claim_is_refused() {
    let store = store();
    let marker =
        |cluster, incarnation| Complete { cluster, incarnation, completed_ms: 1, groups: 2, token: 0 };
    block_on(complete(&store, &prefix(), marker(cluster(), Incarnation(1)))).unwrap();
    assert_eq!(block_on(lives(&store, &prefix())), Err(ClaimError::Missing(Incarnation(1))));
    let error = run(&store, mine(), DataDirectory::Empty).unwrap_err();
    assert_eq!(error, ClaimError::Missing(Incarnation(1)));
    let store = self::store();
    run(&store, mine(), DataDirectory::Empty).unwrap();
    block_on(complete(&store, &prefix(), marker(other(), Incarnation(1)))).unwrap();
    assert!(matches!(block_on(lives(&store, &prefix())), Err(ClaimError::Contradiction(_))));
}

/// The claims that [`check`] rests on: each life's in order, the last one's by whoever comes next.
fn lived(lives: u32) -> TestStore {
    let store = store();
    run(&store, mine(), DataDirectory::Empty).unwrap();
    for life in 2..=lives {
        block_on(begin(&store, &prefix(), claim(cluster(), life))).unwrap();
    }
    store
}

#[test]
fn s5_a_second_claimant_is_noticed_without_a_listing_by_every_life_before_it() {
    let store = lived(4);
    // A listing would fail.
    (0..8).for_each(|_| store.script(Operation::List, Fault::ErrorBefore));
    let check = |life: u32| block_on(check(&store, &prefix(), cluster(), Incarnation(life)));
    for life in 1..4 {
        let next = claim(cluster(), life + 1);
        assert_eq!(check(life), Err(ClaimError::Superseded { claim: next, mine: Incarnation(life) }));
    }
    assert_eq!(check(4), Ok(claim(cluster(), 4)));
    assert_eq!(check(5), Err(ClaimError::Missing(Incarnation(5))));
    store.inner().tamper(&prefix().claim(Incarnation(5)), claim(other(), 5).to_bytes());
    assert!(matches!(check(4), Err(ClaimError::Foreign { .. })), "of another cluster");
    store.inner().tamper(&prefix().claim(Incarnation(5)), Bytes::from_static(b"rot"));
    assert!(matches!(check(4), Err(ClaimError::Damaged { .. })), "unreadable");
    store.inner().tamper(&prefix().claim(Incarnation(5)), claim(cluster(), 6).to_bytes());
    assert!(matches!(check(4), Err(ClaimError::Contradiction(_))), "of another life");
}

#[test]
fn lives_are_begun_in_order_and_without_a_gap() {
    let store = lived(2);
    let begin = |claim| block_on(begin(&store, &prefix(), claim));
    assert_eq!(begin(claim(cluster(), 4)), Err(ClaimError::Missing(Incarnation(3))));
    assert_eq!(begin(claim(cluster(), 1)), Err(ClaimError::Missing(Incarnation(1))));
    let foreign = ClaimError::Foreign { claim: claim(cluster(), 2), mine: other() };
    assert_eq!(begin(claim(other(), 3)), Err(foreign));
    assert_eq!(store.inner().objects().len(), 2);
}

#[test]
fn a_later_life_is_not_made_up_where_a_listing_shows_no_claims() {
    let (stale, empty) = (lived(3), store());
    stale.script(Operation::List, Fault::Missing);
    let (third, of_third) = (claim(cluster(), 3), of(3));
    assert_eq!(run(&stale, third, of_third), Ok(Established::Confirmed(third)));
    assert_eq!(run(&empty, third, of_third), Err(ClaimError::Missing(Incarnation(3))));
    assert!(empty.inner().objects().is_empty());
}

#[test]
fn a_copy_takes_an_empty_prefix_or_goes_on_with_its_own() {
    let origin = |incarnation| Some(Origin { cluster: other(), incarnation: Incarnation(incarnation) });
    let copy = |cluster, of| Claim { origin: origin(of), ..claim(cluster, 1) };
    let store = store();
    let begin = |mine| block_on(begin_copy(&store, &prefix(), mine));
    assert_eq!(begin(copy(cluster(), 3)), Ok(Established::Created(copy(cluster(), 3))));
    let again = copy(ClusterId::from_random(12), 3);
    assert_eq!(
        begin(again),
        Ok(Established::Confirmed(copy(cluster(), 3))),
        "it keeps the id it was begun with"
    );
    assert_eq!(
        begin(copy(cluster(), 4)),
        Err(ClaimError::NoCopy(copy(cluster(), 3))),
        "another life was copied"
    );
    block_on(super::begin(&store, &prefix(), claim(cluster(), 2))).unwrap();
    assert_eq!(
        begin(again),
        Ok(Established::Confirmed(copy(cluster(), 3))),
        "also once a restore has begun there"
    );
}

#[test]
fn a_copy_never_goes_to_anybodys_prefix() {
    let store = store();
    run(&store, mine(), DataDirectory::Empty).unwrap();
    let origin = Some(Origin { cluster: cluster(), incarnation: Incarnation(1) });
    let refused = block_on(begin_copy(&store, &prefix(), Claim { origin, ..claim(other(), 1) }));
    assert_eq!(refused, Err(ClaimError::NoCopy(mine())));
}
