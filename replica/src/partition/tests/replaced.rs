//! B8 for objects that others replaced: they are at or above the log start, and old checkpoints name them.

use varve_formats::{
    command::{CkptPublished, PublishedCheckpoint, TierReplace},
    state::{NAMED_EVER, Tombstone},
};

use super::*;

impl Log {
    /// A verified checkpoint as of now, when those with the applied indexes `kept` are in the bucket beside it.
    pub(super) fn publish(&mut self, kept: Option<&[LogIndex]>) -> LogIndex {
        let (records, bucket) = (self.state.records(), self.state.bucket());
        let applied_index = self.end();
        let checkpoint = PublishedCheckpoint {
            uid: 1_000 + applied_index.0,
            key_term: self.term,
            state_index: records.index,
            state_term: records.term,
            state_offset: records.log_end,
            applied_index,
            log_start: bucket.log_start,
            bytes: 1,
            sha256: Digest::default(),
            published_ms: 1,
        };
        let kept = kept.map(|kept| kept.iter().copied().chain([applied_index]).collect());
        let command = CkptPublished { term: self.term, checkpoint, kept };
        assert!(matches!(self.command(&Command::CkptPublished(command)), Applied::Changed(_)));
        applied_index
    }

    /// Replaces the ranges under 1 and 2 by one under 3; the tombstone of the first.
    fn merge(&mut self, first: &RollEntry, second: &RollEntry) -> Tombstone {
        let both = RollEntry { end: second.end, roll_index: second.roll_index, ..first.clone() };
        self.intent(3, &both);
        let added = vec![Entry { kind: ManifestKind::Merged, ..self.entry(3, &both) }];
        let replace = TierReplace { fence: self.fence(), removed: vec![1, 2], added };
        assert!(matches!(self.command(&Command::TierReplace(replace)), Applied::Changed(_)));
        let tombstones = &self.state.bucket().tombstones;
        assert_eq!(tombstones.iter().map(|tombstone| tombstone.uid).collect::<Vec<_>>(), [1, 2]);
        tombstones[0].clone()
    }

    fn may_delete(&self, tombstone: &Tombstone) -> bool {
        let restored = PartitionState::decode(
            self.state.identity().clone(),
            self.state.encode(&[], |_| ConfState::default()),
        );
        assert_eq!(
            restored.unwrap().bucket().may_delete(tombstone),
            self.state.bucket().may_delete(tombstone)
        );
        self.state.bucket().may_delete(tombstone)
    }
}

#[test]
fn b8_a_replaced_object_stays_while_any_kept_checkpoint_names_it() {
    let mut log = Log::new();
    let (first, second) = (log.tier(1), log.tier(2));
    let names_it = log.publish(Some(&[]));
    let gone = log.merge(&first, &second);
    assert!(!log.may_delete(&gone));
    let newer = log.publish(Some(&[names_it]));
    assert!(!log.may_delete(&gone), "the older of the two newest names it");
    let newest = log.publish(Some(&[names_it, newer]));
    assert!(!log.may_delete(&gone), "the third, or one of the grid, names it");
    log.publish(Some(&[newer, newest]));
    assert!(log.may_delete(&gone));
}

#[test]
fn b8_a_checkpoint_from_before_the_objects_roll_does_not_hold_it() {
    let mut log = Log::new();
    log.records(0, 5);
    let before = log.publish(Some(&[]));
    let first = log.roll();
    log.intent(1, &first);
    let fence = log.fence();
    log.append(1, &first, fence);
    let second = log.tier(2);
    let gone = log.merge(&first, &second);
    let newer = log.publish(Some(&[before]));
    log.publish(Some(&[before, newer]));
    assert!(log.may_delete(&gone));
}

#[test]
fn b8_what_is_kept_and_not_known_holds_a_replaced_object() {
    let mut log = Log::new();
    let (first, second) = (log.tier(1), log.tier(2));
    let gone = log.merge(&first, &second);
    log.publish(None);
    let older = log.publish(None);
    assert!(!log.may_delete(&gone), "the bucket could not be listed");
    let newer = log.publish(Some(&[older]));
    assert!(log.may_delete(&gone));
    let of_an_earlier_release = Tombstone { named: NAMED_EVER, ..gone.clone() };
    assert!(!log.may_delete(&of_an_earlier_release));
    log.publish(Some(&[older, newer]));
    assert!(!log.may_delete(&of_an_earlier_release));
}

#[test]
fn b8_below_the_log_start_the_grid_holds_nothing() {
    let mut log = Log::new();
    let (first, second) = (log.tier(1), log.tier(2));
    let names_it = log.publish(Some(&[]));
    let gone = log.merge(&first, &second);
    log.trim(first.end.0);
    let newer = log.publish(Some(&[names_it]));
    assert!(!log.may_delete(&gone), "one checkpoint carries the log start");
    log.publish(Some(&[names_it, newer]));
    assert!(log.may_delete(&gone));
    assert!(!log.may_delete(&log.state.bucket().tombstones[1]), "the other object is not below it");
}

#[test]
fn b8_an_object_that_the_manifest_names_never_goes() {
    let mut log = Log::new();
    log.tier(1);
    let second = log.tier(2);
    log.intent(9, &RollEntry { ..second.clone() });
    let intent = log.state.bucket().intents[0].clone();
    log.command(&Command::IntentExpired(IntentExpired { term: log.term, uids: vec![intent.uid] }));
    let given_up = log.state.bucket().tombstones[0].clone();
    assert!(log.may_delete(&given_up));
    assert!(!log.may_delete(&Tombstone { uid: 2, ..given_up }));
}

#[test]
fn b8_checkpoints_of_an_earlier_life_are_not_judged_by_this_ones_indexes() {
    let mut log = Log::new();
    let (first, second) = (log.tier(1), log.tier(2));
    log.state.identity.incarnation = Incarnation(2);
    let gone = log.merge(&first, &second);
    assert_eq!((gone.incarnation, gone.named.clone()), (1, NAMED_EVER));
    let older = log.publish(Some(&[]));
    log.publish(Some(&[older]));
    assert!(!log.may_delete(&gone));
}
