//! Every seeded bug of a cluster is found within the seeds that every change runs.

use std::panic::{AssertUnwindSafe, catch_unwind};

use varve_consensus::bugs as consensus;
use varve_replica::bugs as replica;

use super::world::World;

enum Bug {
    Consensus(consensus::Bug),
    Replica(replica::Bug),
}

fn plant(bug: Option<&Bug>) {
    consensus::plant(None);
    replica::seed(None);
    match bug {
        Some(Bug::Consensus(bug)) => consensus::plant(Some(*bug)),
        Some(Bug::Replica(bug)) => replica::seed(Some(*bug)),
        None => {}
    }
}

/// What the first seed says that finds it.
fn found(bug: &Bug, seeds: u64) -> String {
    plant(Some(bug));
    let said = (0..seeds).find_map(|seed| {
        let failed = catch_unwind(AssertUnwindSafe(|| World::run(seed, 3, 3000))).err()?;
        let text = failed.downcast_ref::<String>().cloned();
        Some(
            text.or_else(|| failed.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default(),
        )
    });
    plant(None);
    said.expect("no seed finds the bug")
}

fn is_found(bug: &Bug, seeds: u64, checkers: &[&str]) {
    let said = found(bug, seeds);
    assert!(checkers.iter().any(|checker| said.contains(checker)), "found by: {said}");
}

fn scenario_finds(bug: &Bug, checker: &str, scenario: impl FnOnce()) {
    plant(Some(bug));
    let failed = catch_unwind(AssertUnwindSafe(scenario));
    plant(None);
    let said = failed.expect_err("the scenario does not find it");
    let said = said.downcast_ref::<String>();
    assert!(said.is_some_and(|said| said.contains(checker)), "found by: {said:?}");
}

#[test]
fn speaking_before_durable_is_found() {
    let checkers = ["R1", "R3", "R4", "R6", "H3", "H1", "never stops", "stopped"];
    is_found(&Bug::Consensus(consensus::Bug::SpeaksBeforeDurable), 150, &checkers);
}

#[test]
fn a_forgotten_vote_is_found() {
    is_found(&Bug::Consensus(consensus::Bug::VoteForgotten), 150, &["R5", "R1"]);
}

#[test]
fn serving_before_the_own_entry_is_found() {
    let checkers = ["stopped", "R9", "H1", "H2", "H3", "H6", "F3", "an index is proposed once"];
    is_found(&Bug::Consensus(consensus::Bug::ServesBeforeOwnEntry), 150, &checkers);
}

#[test]
fn reading_alone_is_found() {
    scenario_finds(
        &Bug::Consensus(consensus::Bug::ReadsAlone),
        "F3",
        super::scenarios::reads_at_a_leader_cut_off,
    );
}

#[test]
fn bucket_class_applied_twice_by_a_seeded_replica_is_found() {
    is_found(&Bug::Replica(replica::Bug::BucketClassBelowA), 150, &["R9"]);
}

#[test]
fn ignoring_only_appends_below_a_is_found() {
    is_found(&Bug::Replica(replica::Bug::OnlyAppendsBelowAIgnored), 150, &["R9"]);
}

#[test]
fn a_reseeded_checkpoint_that_forgets_a_is_found() {
    let scenario = || {
        let _ = super::scenarios::restarts_between_the_clocks(3);
    };
    scenario_finds(&Bug::Replica(replica::Bug::ReseededForgetsA), "R9", scenario);
}

#[test]
fn a_bucket_checkpoint_that_replaces_a_tail_is_found() {
    let checkers = ["R6", "R4", "R3", "H3", "never stops", "stopped", "R5"];
    is_found(&Bug::Replica(replica::Bug::BucketReplacesTail), 150, &checkers);
}
