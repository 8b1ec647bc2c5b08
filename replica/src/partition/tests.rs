//! The two clocks of TIERING.md 5, interleaving by interleaving.

use varve_common::{ClusterId, Digest, Incarnation, LogIndex, Offset, PartitionIndex, Term, TopicId};
use varve_formats::{
    command::{Command, Fence, IntentExpired, TierAppend, TierIntent, TierTrim, TrimCause, encode_records},
    manifest::{Entry, EntryKind as ManifestKind},
    state::ConfState,
};

use super::*;

mod frozen;
mod manifest;
mod replaced;

fn fresh() -> PartitionState {
    PartitionState::new(PartitionIdentity {
        cluster: ClusterId::from_random(1),
        incarnation: Incarnation(1),
        topic_id: TopicId::from_random(2),
        topic: "orders".into(),
        partition: PartitionIndex(0),
    })
}

/// A log in term 3, and the state of a replica that applied all of it.
struct Log {
    state: PartitionState,
    entries: Vec<LogEntry>,
    term: Term,
}

impl Log {
    fn new() -> Self {
        let mut log = Self { state: fresh(), entries: Vec::new(), term: Term(3) };
        log.push(1, Bytes::new());
        log
    }

    fn push(&mut self, kind: u8, data: Bytes) -> Applied {
        let index = self.state.applied().0.next();
        let entry = LogEntry { index, term: self.term, kind, offset: self.state.records().log_end, data };
        self.entries.push(entry.clone());
        self.state.apply(&entry).unwrap()
    }

    fn command(&mut self, command: &Command) -> Applied {
        let data = command.encode(self.term, 5_000);
        self.push(0, data)
    }

    fn records(&mut self, sequence: i32, count: u32) {
        let mut data = encode_records(&sample((9, 0, sequence), count, b"x"), self.term, 5_000);
        place(&mut data[20..], self.state.records().log_end, self.term.leader_epoch());
        self.push(0, data.freeze());
    }

    fn roll(&mut self) -> RollEntry {
        let roll = self.state.records().open.roll(self.state.records().log_end);
        let Applied::Rolled(roll) = self.command(&Command::Roll(roll)) else { panic!("not rolled") };
        roll
    }

    fn intent(&mut self, uid: u64, roll: &RollEntry) -> Applied {
        self.command(&Command::TierIntent(TierIntent {
            uid,
            term: self.term,
            base: roll.base,
            end: roll.end,
        }))
    }

    fn fence(&self) -> Fence {
        Fence { term: self.term, manifest_seq: self.state.bucket().manifest_seq }
    }

    fn entry(&self, uid: u64, roll: &RollEntry) -> Entry {
        Entry {
            store_id: 0,
            kind: ManifestKind::Raw,
            incarnation: 1,
            term: self.term,
            uid,
            position: 0,
            length: 1,
            base: roll.base,
            last: Offset(roll.end.0 - 1),
            count: roll.end.since(roll.base),
            min_timestamp: -1,
            max_timestamp: -1,
            first_index: roll.first_index,
            roll_index: roll.roll_index,
            roll_term: roll.roll_term,
            terms: (self.term, self.term),
            txn_index_empty: true,
            delete_horizon_ms: 0,
            batch_bytes: roll.bytes,
            sha256: Digest::default(),
        }
    }

    fn append(&mut self, uid: u64, roll: &RollEntry, fence: Fence) -> Applied {
        let entries = vec![self.entry(uid, roll)];
        self.command(&Command::TierAppend(TierAppend { fence, entries }))
    }

    /// Five more records, in the bucket under `uid`.
    fn tier(&mut self, uid: u64) -> RollEntry {
        self.records(self.state.records().log_end.0 as i32, 5);
        let roll = self.roll();
        self.intent(uid, &roll);
        let fence = self.fence();
        assert!(matches!(self.append(uid, &roll, fence), Applied::Changed(_)));
        roll
    }

    fn trim(&mut self, log_start: u64) -> Applied {
        let trim =
            TierTrim { fence: self.fence(), log_start: Offset(log_start), cause: TrimCause::DeleteRecords };
        self.command(&Command::TierTrim(trim))
    }

    /// A replica seeded as of `s` and this log's end, replayed to the index at which this log stands.
    fn seeded(&self, s: &RecordState) -> PartitionState {
        PartitionState::decode(self.state.identity().clone(), self.state.encode_as_of(s)).unwrap()
    }

    fn replay(&self, state: &mut PartitionState, to: LogIndex) {
        for entry in &self.entries {
            if entry.index > state.applied().0 && entry.index <= to {
                state.apply(entry).unwrap();
            }
        }
    }

    fn end(&self) -> LogIndex {
        self.state.applied().0
    }
}

/// Records are deleted up to the log's end, in a range that is open: when that is closed it lies below the log start, and the next
/// upload begins behind it, also on a replica that was seeded in between.
#[test]
fn t39_a_range_that_was_trimmed_while_it_was_open_is_passed_when_it_is_closed() {
    let mut log = Log::new();
    log.tier(1);
    let s = log.state.records().clone();
    log.records(5, 3);
    log.trim(8);
    assert_eq!((log.state.bucket().log_start, log.state.bucket().tiered_end), (Offset(8), Offset(5)));
    let mut seeded = log.seeded(&s);
    let roll = log.roll();
    assert_eq!((roll.base, roll.end), (Offset(5), Offset(8)));
    assert_eq!((log.state.bucket().tiered_end, log.state.bucket().root.end()), (Offset(8), Offset(8)));
    assert_eq!(log.state.bucket().tiered_roll, (roll.roll_index, roll.roll_term));
    let mut late = log.seeded(&s);
    log.tier(2);
    assert_eq!(log.state.bucket().tiered_end, Offset(13));
    for replica in [&mut seeded, &mut late] {
        log.replay(replica, log.end());
        assert_eq!(replica.hash(), log.state.hash());
    }
}

#[test]
fn seeded_intent_resurrection() {
    let mut log = Log::new();
    log.records(0, 5);
    let first = log.roll();
    let s = log.state.records().clone();
    log.records(5, 5);
    let second = log.roll();
    log.intent(10, &first);
    let fence = log.fence();
    log.append(10, &first, fence);
    log.intent(11, &second);
    let fence = log.fence();
    log.append(11, &second, fence);
    let mut seeded = log.seeded(&s);
    log.replay(&mut seeded, log.end());
    assert!(seeded.bucket().intents.is_empty(), "an intent below A must not come back to life");
    assert_eq!(seeded.hash(), log.state.hash());
}

#[test]
fn trim_between_clocks() {
    let mut log = Log::new();
    log.records(0, 5);
    let first = log.roll();
    let s = log.state.records().clone();
    log.intent(10, &first);
    let fence = log.fence();
    log.append(10, &first, fence);
    log.records(5, 10);
    log.trim(12);
    let mut seeded = log.seeded(&s);
    assert!(seeded.bucket().log_start > seeded.records().log_end, "legal until A");
    assert!(!seeded.is_whole());
    log.replay(&mut seeded, log.end());
    assert!(seeded.is_whole());
    assert_eq!(seeded.hash(), log.state.hash());
}

#[test]
fn reseeded_local_checkpoint() {
    let mut log = Log::new();
    log.records(0, 5);
    let first = log.roll();
    let s = log.state.records().clone();
    log.intent(10, &first);
    let fence = log.fence();
    log.append(10, &first, fence);
    log.records(5, 3);
    let between = log.end();
    log.trim(3);
    let mut seeded = log.seeded(&s);
    log.replay(&mut seeded, between);
    // A restart between S and A: the local checkpoint keeps A.
    let mut restarted =
        PartitionState::decode(seeded.identity().clone(), seeded.encode(&[], |_| ConfState::default()))
            .unwrap();
    assert_eq!(restarted.bucket_index(), log.end());
    log.replay(&mut restarted, log.end());
    assert_eq!(restarted.bucket().manifest_seq, log.state.bucket().manifest_seq);
    assert_eq!(restarted.hash(), log.state.hash());
}

#[test]
fn b3_a_tier_command_that_misses_its_fence_does_nothing() {
    let mut log = Log::new();
    log.records(0, 5);
    let roll = log.roll();
    log.intent(10, &roll);
    let stale = Fence { manifest_seq: 9, ..log.fence() };
    assert!(matches!(log.append(10, &roll, stale), Applied::Fenced(_)));
    let zombie = Fence { term: Term(2), ..log.fence() };
    assert!(matches!(log.append(10, &roll, zombie), Applied::Fenced(_)));
    let fence = log.fence();
    assert!(matches!(log.append(99, &roll, fence), Applied::Fenced(_)), "without an intent");
    assert_eq!((log.state.bucket().manifest_seq, log.state.fenced()), (0, 3));
    let fence = log.fence();
    assert!(matches!(log.append(10, &roll, fence), Applied::Changed(_)));
    assert_eq!(log.state.bucket().manifest_seq, 1);
    assert!(log.state.records().rolls.is_empty());
}

#[test]
fn an_expired_intent_leaves_a_tombstone_and_can_not_be_appended() {
    let mut log = Log::new();
    log.records(0, 5);
    let roll = log.roll();
    log.intent(10, &roll);
    log.command(&Command::IntentExpired(IntentExpired { term: log.term, uids: vec![10] }));
    let fence = log.fence();
    assert!(matches!(log.append(10, &roll, fence), Applied::Fenced(_)));
    let tombstone = &log.state.bucket().tombstones[0];
    assert_eq!((tombstone.uid, tombstone.base, tombstone.last), (10, Offset(0), Offset(4)));
    assert!(log.state.bucket().may_delete(tombstone));
}

#[test]
fn apply_asserts_that_a_batch_begins_at_the_log_end() {
    let mut log = Log::new();
    log.records(0, 5);
    let mut data = encode_records(&sample((9, 0, 5), 1, b"x"), log.term, 1);
    place(&mut data[20..], Offset(9), log.term.leader_epoch());
    let index = log.end().next();
    let entry = LogEntry { index, term: log.term, kind: 0, offset: Offset(5), data: data.freeze() };
    let expected = ApplyError::OffsetMismatch { expected: Offset(5), found: Offset(9) };
    assert_eq!(log.state.apply(&entry), Err(expected));
}

#[test]
fn an_unknown_command_stops_the_group() {
    let mut log = Log::new();
    let mut data = vec![0; 20];
    data[0] = 200;
    let entry =
        LogEntry { index: log.end().next(), term: log.term, kind: 0, offset: Offset(0), data: data.into() };
    assert!(matches!(log.state.apply(&entry), Err(ApplyError::Command(_))));
}

/// `snapshot show` names what every section of ours holds.
#[test]
fn no_section_of_a_checkpoint_is_unknown_to_people() {
    assert_eq!(stored::POSITION.name(), Some("place in the log"));
}
