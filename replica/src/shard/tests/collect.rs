//! From a trim to an object that is gone (TIERING.md 9, B8): a crash anywhere between is safe, and nothing is forgotten.

use super::*;

/// Two ranges in the bucket, 0..5 under uid 1 and 5..8 under uid 2, and the log start at `log_start`.
fn trimmed(log_start: u64) -> Node {
    let mut node = Node::ready();
    let first = node.roll((9, 0, 0), 5);
    node.tier(1, first);
    let second = node.roll((9, 0, 5), 3);
    node.tier(2, second);
    node.trim(log_start);
    node
}

impl Node {
    fn trim(&mut self, log_start: u64) {
        self.act(Action::Trim { log_start: Offset(log_start), cause: TrimCause::Retention });
    }

    fn buried(&self) -> Vec<u64> {
        self.status().tombstones.iter().map(|tombstone| tombstone.uid).collect()
    }

    /// The tombstones that a deletion of these would take now.
    fn delete(&mut self, uids: &[u64]) -> Vec<u64> {
        self.take_effects();
        self.act(Action::Delete { uids: uids.to_vec() });
        let taken = |effect: &Effect| match effect {
            Effect::Start(Job::Delete { tombstones, .. }) => {
                Some(tombstones.iter().map(|one| one.uid).collect())
            }
            _ => None,
        };
        self.effects.iter().find_map(taken).unwrap_or_default()
    }
}

#[test]
fn b8_a_trimmed_object_goes_when_the_two_newest_checkpoints_carry_the_log_start() {
    let mut node = trimmed(6);
    assert_eq!((node.buried(), node.status().root.entries.len()), (vec![1], 1));
    assert!(node.delete(&[1]).is_empty(), "no checkpoint carries it");
    node.publish(11);
    assert!(node.delete(&[1]).is_empty(), "one checkpoint carries it");
    node.publish(12);
    assert_eq!(node.delete(&[1, 2]), [1], "and never what the manifest names");
    node.done(JobOutcome::Deleted { uids: vec![1] });
    assert!(node.buried().is_empty());
    let (before, after) = (node.status(), node.reopen().status());
    assert_eq!((after.log_start, after.tombstones), (before.log_start, before.tombstones));
}

#[test]
fn b8_a_crash_between_the_deletion_and_its_command_deletes_again() {
    let mut node = trimmed(6);
    node.publish(11);
    node.publish(12);
    assert_eq!(node.delete(&[1]), [1]);
    // The objects are gone; the process is too.
    let mut node = node.reopen();
    assert_eq!(node.buried(), [1]);
    assert_eq!(node.delete(&[1]), [1], "a missing object is fine");
    node.done(JobOutcome::Deleted { uids: vec![1] });
    assert!(node.buried().is_empty());
    let seq = node.status().manifest_seq;
    node.done(JobOutcome::Deleted { uids: vec![1] });
    let status = node.status();
    assert_eq!((status.manifest_seq, status.fenced_commands), (seq, 1), "reaped twice is a counted no-op");
}

#[test]
fn b8_one_deletion_runs_at_a_time_and_a_refused_one_wakes_nobody() {
    let mut node = trimmed(8);
    assert_eq!(node.buried(), [1, 2]);
    assert!(node.shard.take_changed().contains(&GROUP));
    assert!(node.delete(&[1, 2]).is_empty());
    assert!(node.shard.take_changed().is_empty(), "or the planner would offer it again for ever");
    node.publish(11);
    node.publish(12);
    assert_eq!(node.delete(&[1]), [1]);
    assert!(node.delete(&[2]).is_empty());
    node.done(JobOutcome::Deleted { uids: vec![1] });
    assert_eq!(node.delete(&[2]), [2]);
}

#[test]
fn b1_no_checkpoint_is_captured_that_does_not_name_the_one_before() {
    let mut node = trimmed(6);
    node.publish(11);
    node.act(Action::PublishCheckpoint { uid: 12 });
    let Job::Publish { captured, key_term, .. } = node.job() else { panic!("no publication") };
    let checkpoint = published(12, key_term, &captured);
    let starts = |node: &mut Node| {
        node.take_effects();
        node.step(Input::Act { group: GROUP, action: Action::PublishCheckpoint { uid: 13 } });
        let started = |effect: &Effect| matches!(effect, Effect::Start(Job::Publish { .. }));
        node.effects.iter().any(started)
    };
    // The job has ended; its command is not fsynced.
    let outcome = JobOutcome::CheckpointPublished { checkpoint, kept: None };
    node.step(Input::JobDone { group: GROUP, outcome });
    assert!(node.status().publication_pending);
    let waiting = std::mem::take(&mut node.effects);
    assert!(!starts(&mut node), "it would push 12 out of the bucket, and 12 is named next");
    node.effects = waiting;
    node.settle();
    assert!(!node.status().publication_pending);
    assert!(starts(&mut node));
}

#[test]
fn b1_b9_the_log_start_and_what_it_leaves_survive_a_kill() {
    let node = trimmed(6);
    let (before, node) = (node.status(), node.reopen());
    let after = node.status();
    assert_eq!((after.log_start, after.tiered_end, after.manifest_seq), (Offset(6), Offset(8), 3));
    assert_eq!((after.root, after.tombstones), (before.root, before.tombstones));
}

#[test]
fn a_given_up_upload_goes_without_a_checkpoint() {
    let mut node = Node::ready();
    let range = node.roll((9, 0, 0), 5);
    node.announce(1, range);
    node.done(JobOutcome::UploadFailed { uid: 1, stall: Stall::NoAnswer, why: "reset".into() });
    node.act(Action::Expire { uids: vec![1] });
    assert_eq!(node.delete(&[1]), [1]);
    node.tier(2, range);
    assert_eq!(node.status().tiered_end, Offset(5), "the range was tiered under another uid");
}

#[test]
fn a_node_is_buried_once_all_below_it_is_trimmed() {
    let mut node = Node::ready();
    for n in 0..5 {
        node.tier_next(n);
    }
    node.fold(50);
    node.trim(7);
    assert!(node.buried().is_empty(), "the node still holds 7");
    node.trim(8);
    let status = node.status();
    assert_eq!(
        (status.tombstones.len(), status.tombstones[0].node_level),
        (1, Some(0)),
        "for all that it names"
    );
    assert_eq!((status.root.nodes.len(), status.root.entries.len()), (0, 1));
    assert!(node.delete(&[50]).is_empty());
    node.publish(61);
    node.publish(62);
    assert_eq!(node.delete(&[50]), [50]);
}
