//! Every seeded bug is found within the seeds that every change runs, and by the checker that is meant to find it.

use varve_sim::{bugs::Bug, plan::Length, run::run, trace::Trace};

/// Runs seeds until one of these checkers finds the bug. Another one may see what follows from it first.
fn is_found(bug: Bug, mut seeds: std::ops::Range<u64>, checkers: &[&str]) {
    let finds = |seed| run(seed, Length::Short, Some(bug), Trace::default()).violation;
    let found = seeds.any(|seed| finds(seed).is_some_and(|violation| checkers.contains(&violation.checker)));
    assert!(found, "no seed finds {}", bug.name());
}

#[test]
fn w1_finds_an_acknowledgement_before_the_fsync() {
    is_found(Bug::AckBeforeFsync, 0..10, &["W1", "W2", "R5"]);
}

#[test]
fn r5_finds_a_hard_state_that_is_not_persisted() {
    is_found(Bug::HardStateNotPersisted, 0..10, &["R5"]);
}

#[test]
fn s3_finds_a_checkpoint_without_producers() {
    is_found(Bug::DedupDroppedFromCheckpoint, 0..10, &["S3", "H2"]);
}

#[test]
fn h7_finds_a_window_of_one_batch() {
    is_found(Bug::DedupWindowOne, 0..10, &["H7", "H2", "S3"]);
}

#[test]
fn w2_finds_an_ignored_checksum() {
    is_found(Bug::CrcIgnored, 0..60, &["W2", "H13", "B7", "B6"]);
}

#[test]
fn w3_finds_a_log_that_goes_on_behind_a_torn_tail() {
    is_found(Bug::TornTailAppendedBehind, 0..60, &["W2", "W1"]);
}

#[test]
fn b4_finds_a_cut_before_the_append_is_applied() {
    is_found(Bug::CutBeforeAppend, 0..40, &["B4"]);
}

#[test]
fn b4_finds_a_cut_before_the_seal_mark_is_synced() {
    is_found(Bug::CutBeforeSealMark, 0..60, &["B4"]);
}

#[test]
fn b3_finds_an_ignored_fence() {
    // H3: a trim that nobody living asked for.
    is_found(Bug::FenceIgnored, 0..60, &["S3", "B2", "H3"]);
}

#[test]
fn b1_finds_an_embedded_put_without_fsync() {
    is_found(Bug::EmbeddedPutUnsynced, 0..30, &["B1", "B7"]);
}

#[test]
fn s4_finds_a_damaged_checkpoint_that_counts_as_empty() {
    is_found(Bug::DamagedCheckpointIsEmpty, 0..60, &["H10", "S3", "S4", "R5"]);
}

#[test]
fn w6_finds_files_freed_out_of_order() {
    is_found(Bug::FilesFreedOutOfOrder, 0..60, &["W2", "W6", "W1"]);
}

#[test]
fn w6_finds_a_queued_forward_rewrite() {
    is_found(Bug::QueuedForwardRewrite, 0..30, &["R5", "W6", "W1", "W2"]);
}

#[test]
fn r9_finds_rolls_by_a_local_rule() {
    is_found(Bug::RollByLocalRule, 0..10, &["S3", "R9", "S4"]);
}
