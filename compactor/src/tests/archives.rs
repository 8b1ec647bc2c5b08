use varve_formats::state::{ArchivePlan, ArchiveState};

use super::*;

fn asks(status: &GroupStatus) -> (bool, Option<Duration>) {
    let plan = planned(status);
    (plan.actions.contains(&Action::Archive), plan.look_again_after)
}

/// A topic that is exported, with so many bytes in the bucket between two offsets.
fn exported(from: u64, end: u64, bytes: u64) -> GroupStatus {
    let mut tiered = entry(from, end);
    tiered.batch_bytes = bytes;
    let options =
        GroupOptions { archive_age_ms: Some(60_000), retention_ms: None, ..GroupOptions::default() };
    GroupStatus {
        options,
        root: Arc::new(Root { start: Offset(from), nodes: vec![], entries: vec![tiered] }),
        tiered_end: Offset(end),
        unarchived_since_ms: Some(NOW_MS),
        ..idle()
    }
}

#[test]
fn a_file_is_made_when_it_is_full_and_when_its_oldest_record_has_waited() {
    let few = exported(0, 100, 1_000);
    assert_eq!(asks(&few), (false, Some(Duration::from_secs(60))));
    assert!(asks(&GroupStatus { unarchived_since_ms: Some(NOW_MS - 60_000), ..few.clone() }).0);
    let full = exported(0, 100, 128 << 20);
    assert!(asks(&full).0);
    // Of what is in files nothing waits, and of half a segment the other half.
    let at = |end| Some(ArchiveState::starting_at(Offset(end)));
    assert!(!asks(&GroupStatus { archive: at(50), ..full.clone() }).0);
    assert!(!asks(&GroupStatus { archive: at(100), unarchived_since_ms: Some(0), ..full.clone() }).0);
    // Trimmed beyond what is tiered.
    assert!(!asks(&GroupStatus { log_start: Offset(100), unarchived_since_ms: Some(0), ..full }).0);
}

#[test]
fn what_is_announced_is_due_and_one_step_is_taken_at_a_time() {
    let mut status = exported(0, 100, 1_000);
    let plan = ArchivePlan { base: Offset(0), end: Offset(100), day: 1 };
    status.archive = Some(ArchiveState { plan: Some(plan), ..ArchiveState::default() });
    assert!(asks(&status).0);
    assert!(!asks(&GroupStatus { archive_pending: true, ..status.clone() }).0);
    assert!(!asks(&GroupStatus { ready: false, ..status.clone() }).0);
    let mut running = status.clone();
    running.jobs.running.insert(JobKind::Archive, 1);
    assert!(!asks(&running).0);
    let mut failed = status.clone();
    failed.jobs.failures.insert(JobKind::Archive, (3, now().monotonic));
    assert!(!asks(&failed).0);
    let off = GroupOptions { archive_age_ms: None, ..status.options.clone() };
    assert!(!asks(&GroupStatus { options: off, ..status.clone() }).0);
    let draining = PlanOptions { draining: true, ..PlanOptions::default() };
    assert!(!plan_of(&status, &draining).contains(&Action::Archive));
    let pressure = Pressure { groups: BTreeSet::new(), urgent: true, disk: false };
    assert!(
        !plan_of(&status, &PlanOptions { pressure, ..PlanOptions::default() }).contains(&Action::Archive)
    );
}

fn plan_of(status: &GroupStatus, options: &PlanOptions) -> Vec<Action> {
    super::plan(status, options, now(), &Counter).actions
}
