//! The shard, driven by a driver that persists when told: golden traces and the rules of RAFT.md 4.

use std::time::Duration;

use bytes::Bytes;
use varve_common::{
    ClusterId, Digest, GroupId, Incarnation, LogIndex, Monotonic, NodeId, Offset, PartitionIndex, ReplicaId,
    Term, TopicId,
};
use varve_formats::{
    command::{MetadataCommand, PublishedCheckpoint, TrimCause},
    compression::Codec,
    manifest::{Entry, EntryKind},
};

use crate::{
    Shard,
    api::*,
    checkpoint::{self, Captured, Decoded},
    partition::{BatchHeader, sample},
};

const GROUP: GroupId = GroupId(7);

fn identity() -> PartitionIdentity {
    PartitionIdentity {
        cluster: ClusterId::from_random(1),
        incarnation: Incarnation(1),
        topic_id: TopicId::from_random(2),
        topic: "orders".into(),
        partition: PartitionIndex(0),
    }
}

fn replica() -> ReplicaId {
    ReplicaId::new(NodeId::new(1).unwrap(), 5).unwrap()
}

fn open_group(state: GroupState) -> OpenGroup {
    let kind = GroupKind::Partition { identity: identity(), options: GroupOptions::default() };
    OpenGroup {
        group: GROUP,
        replica: replica(),
        voters: vec![replica()],
        kind,
        hard_state: PersistedHardState::default(),
        truncated: (LogIndex::ZERO, Term::ZERO),
        state,
        seals: Vec::new(),
        local_checkpoints: Vec::new(),
        local_start: Offset::ZERO,
        log_bytes: 0,
        entries: Vec::new(),
    }
}

/// A shard with one group, and what its WAL holds.
struct Node {
    shard: Shard,
    effects: Vec<Effect>,
    log: Vec<LogEntry>,
    hard_state: PersistedHardState,
    ticket: u64,
    wall_ms: i64,
}

impl Node {
    fn empty() -> Self {
        let (shard, effects, log) = (Shard::new(1), Vec::new(), Vec::new());
        Self { shard, effects, log, hard_state: PersistedHardState::default(), ticket: 0, wall_ms: 1_000 }
    }

    fn open(state: GroupState) -> Self {
        let mut node = Self::empty();
        node.step(Input::Open(Box::new(open_group(state))));
        node
    }

    fn ready() -> Self {
        let mut node = Self::open(GroupState::New);
        node.settle();
        node.effects.clear();
        node
    }

    /// The same log after kill -9, with this state.
    fn restart(&self, state: GroupState, above: LogIndex) -> Self {
        let mut node = Self::empty();
        (node.log, node.hard_state, node.wall_ms) = (self.log.clone(), self.hard_state, self.wall_ms);
        let mut open = open_group(state);
        open.hard_state = self.hard_state;
        open.entries = self.log.iter().filter(|entry| entry.index > above).cloned().collect();
        node.step(Input::Open(Box::new(open)));
        node.settle();
        node
    }

    fn step(&mut self, input: Input) {
        let now = Now { monotonic: Monotonic(Duration::ZERO), wall_ms: self.wall_ms };
        self.shard.step(now, input, &mut self.effects);
    }

    /// Writes everything down until nothing is left to write.
    fn settle(&mut self) {
        let mut done = 0;
        while done < self.effects.len() {
            let effect = self.effects[done].clone();
            done += 1;
            match effect {
                Effect::Persist { group, ready, hard_state, entries, .. } => {
                    self.hard_state = hard_state.unwrap_or(self.hard_state);
                    for entry in entries {
                        self.log.retain(|kept| kept.index < entry.index);
                        self.log.push(entry);
                    }
                    self.step(Input::Persisted { group, ready });
                }
                Effect::Mark { group, number, .. } => self.step(Input::Marked { group, number }),
                _ => {}
            }
        }
    }

    fn send(&mut self, producer: (i64, i16, i32), count: u32) -> Ticket {
        self.send_stamped(producer, count, Timestamps::Create)
    }

    fn send_stamped(&mut self, producer: (i64, i16, i32), count: u32, timestamps: Timestamps) -> Ticket {
        self.ticket += 1;
        let batch = sample(producer, count, b"some records");
        let meta = BatchHeader::parse(&batch).unwrap().meta;
        self.step(Input::Produce { ticket: Ticket(self.ticket), group: GROUP, batch, meta, timestamps });
        Ticket(self.ticket)
    }

    fn act(&mut self, action: Action) {
        self.step(Input::Act { group: GROUP, action });
        self.settle();
    }

    fn done(&mut self, outcome: JobOutcome) {
        self.step(Input::JobDone { group: GROUP, outcome });
        self.settle();
    }

    fn reply(&self, ticket: Ticket) -> Option<Reply> {
        let mut replies = self.effects.iter().filter_map(|effect| match effect {
            Effect::Reply { ticket: found, reply } if *found == ticket => Some(reply.clone()),
            _ => None,
        });
        let reply = replies.next();
        assert!(replies.next().is_none(), "a ticket is answered once");
        reply
    }

    fn job(&self) -> Job {
        let start = |effect: &Effect| if let Effect::Start(job) = effect { Some(job.clone()) } else { None };
        self.effects.iter().rev().find_map(start).expect("a job was started")
    }

    fn status(&self) -> GroupStatus {
        self.shard.status(GROUP).unwrap()
    }

    fn trace(&mut self) -> Vec<String> {
        std::mem::take(&mut self.effects).iter().map(line).collect()
    }

    fn roll(&mut self, producer: (i64, i16, i32), count: u32) -> RollRange {
        self.send(producer, count);
        self.settle();
        self.act(Action::Roll { cause: RollCause::Bytes });
        let status = self.status();
        let roll = status.rolls.last().unwrap();
        RollRange { base: roll.base, end: roll.end }
    }

    fn announce(&mut self, uid: u64, range: RollRange) -> Entry {
        self.act(Action::Announce { uid, base: range.base, end: range.end });
        self.act(Action::Upload { uid });
        let Job::Upload { intent, roll, .. } = self.job() else { panic!("not an upload") };
        assert_eq!(intent.uid, uid);
        Entry {
            store_id: 0,
            kind: EntryKind::Raw,
            incarnation: 1,
            term: intent.term,
            uid,
            position: 0,
            length: 10,
            base: roll.base,
            last: Offset(roll.end.0 - 1),
            count: roll.end.since(roll.base),
            min_timestamp: -1,
            max_timestamp: roll.max_timestamp,
            first_index: roll.first_index,
            roll_index: roll.roll_index,
            roll_term: roll.roll_term,
            terms: (intent.term, intent.term),
            txn_index_empty: true,
            delete_horizon_ms: 0,
            batch_bytes: roll.bytes,
            sha256: Digest::default(),
        }
    }

    fn tier(&mut self, uid: u64, range: RollRange) {
        let entry = self.announce(uid, range);
        self.done(JobOutcome::Uploaded { uid, entry });
        self.act(Action::Append);
    }

    fn checkpoint(&mut self) -> GroupState {
        self.act(Action::CheckpointLocal);
        let Job::CheckpointLocal { index, term, captured, .. } = self.job() else { panic!("no checkpoint") };
        let encoded = captured.encode(Codec::Zstd);
        let file = format!("{index:020}");
        self.done(JobOutcome::CheckpointWritten(LocalCheckpoint {
            index,
            term,
            file,
            sha256: encoded.sha256,
        }));
        decoded(&encoded.bytes)
    }

    fn publish(&mut self, uid: u64) -> GroupState {
        self.act(Action::PublishCheckpoint { uid });
        let Job::Publish { captured, key_term, .. } = self.job() else { panic!("no publication") };
        self.done(JobOutcome::CheckpointPublished(published(uid, key_term, &captured)));
        decoded(&captured.encode(Codec::Zstd).bytes)
    }
}

fn published(uid: u64, key_term: Term, captured: &Captured) -> PublishedCheckpoint {
    let (encoded, header) = (captured.encode(Codec::Zstd), captured.header());
    PublishedCheckpoint {
        uid,
        key_term,
        state_index: header.state.index,
        state_term: header.state.term,
        state_offset: header.state.offset,
        applied_index: header.applied.index,
        log_start: captured.log_start(),
        bytes: encoded.bytes.len() as u64,
        sha256: encoded.sha256,
        published_ms: 1,
    }
}

#[derive(Clone, Copy)]
struct RollRange {
    base: Offset,
    end: Offset,
}

fn decoded(bytes: &Bytes) -> GroupState {
    match checkpoint::decode(bytes).unwrap() {
        Decoded::Partition { state, .. } => GroupState::Partition(state),
        Decoded::Metadata { state, .. } => GroupState::Metadata(state),
    }
}

fn line(effect: &Effect) -> String {
    match effect {
        Effect::Persist { ready, entries, must_sync, .. } => {
            let entries: Vec<_> =
                entries.iter().map(|e| format!("{}/{}@{}", e.index, e.term, e.offset)).collect();
            format!("persist {ready} [{}] sync={must_sync}", entries.join(" "))
        }
        Effect::Reply { ticket, reply } => format!("reply {} {reply:?}", ticket.0),
        Effect::Tail { base, end, term, .. } => format!("tail {base}..{end} term {term}"),
        Effect::Publish { view, .. } => {
            format!("publish hw={} ready={} start={}", view.high_watermark, view.ready, view.log_start)
        }
        Effect::Start(job) => format!("start {:?}", job.kind()),
        Effect::Mark { mark, .. } => format!("mark {mark:?}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn golden_trace_of_a_produce() {
    let mut node = Node::open(GroupState::New);
    node.settle();
    let opening = node.trace();
    assert!(opening.iter().any(|line| line == "persist 1 [1/1@0] sync=true"), "{opening:#?}");
    assert_eq!(opening.last().unwrap(), "publish hw=0 ready=true start=0");
    node.send((9, 0, 0), 3);
    let before = node.trace();
    assert_eq!(before, ["persist 3 [2/1@0] sync=true"]);
    node.step(Input::Persisted { group: GROUP, ready: 3 });
    let after = node.trace();
    assert_eq!(
        after.iter().filter(|line| !line.starts_with("persist")).collect::<Vec<_>>(),
        [
            "tail 0..3 term 1",
            "reply 1 Produced { base_offset: Offset(0), append_time_ms: -1, log_start: Offset(0) }",
            "publish hw=3 ready=true start=0",
        ]
    );
}

#[test]
fn nothing_is_assigned_before_the_leaders_own_no_op_is_applied() {
    let mut node = Node::open(GroupState::New);
    let ticket = node.send((9, 0, 0), 1);
    assert_eq!(node.reply(ticket), None);
    assert!(
        !node
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Persist { entries, .. } if entries.len() > 1))
    );
    node.settle();
    assert!(matches!(node.reply(ticket), Some(Reply::Produced { base_offset: Offset(0), .. })));
}

#[test]
fn h7_five_batches_in_flight_keep_their_order() {
    let mut node = Node::ready();
    let tickets: Vec<_> = (0..5).map(|n| node.send((9, 0, n * 2), 2)).collect();
    assert!(tickets.iter().all(|ticket| node.reply(*ticket).is_none()));
    node.settle();
    for (n, ticket) in tickets.into_iter().enumerate() {
        let expected = Offset(n as u64 * 2);
        assert!(
            matches!(node.reply(ticket), Some(Reply::Produced { base_offset, .. }) if base_offset == expected)
        );
    }
    let bases: Vec<_> = node.log.iter().map(|entry| entry.offset.0).collect();
    assert_eq!(bases, [0, 0, 2, 4, 6, 8]);
}

#[test]
fn h2_a_retry_of_a_pending_batch_waits_for_it() {
    let mut node = Node::ready();
    let first = node.send((9, 0, 0), 1);
    let retry = node.send((9, 0, 0), 1);
    assert_eq!((node.reply(first), node.reply(retry)), (None, None));
    node.settle();
    assert!(matches!(node.reply(first), Some(Reply::Produced { base_offset: Offset(0), .. })));
    assert!(matches!(node.reply(retry), Some(Reply::Duplicate { base_offset: Offset(0), .. })));
    assert_eq!(node.status().high_watermark, Offset(1));
}

#[test]
fn t28_a_batch_retried_after_a_kill_is_stored_once() {
    let mut node = Node::ready();
    for n in 0..5 {
        node.send((9, 0, n), 1);
    }
    node.settle();
    let mut node = node.restart(GroupState::New, LogIndex::ZERO);
    for n in 0..5 {
        let retry = node.send((9, 0, n), 1);
        assert_eq!(
            node.reply(retry),
            Some(Reply::Duplicate { base_offset: Offset(n as u64), log_start: Offset(0) })
        );
    }
}

#[test]
fn t30_the_producer_table_survives_a_checkpoint() {
    let mut node = Node::ready();
    node.send((9, 0, 0), 4);
    node.settle();
    let state = node.checkpoint();
    let GroupState::Partition(partition) = &state else { panic!() };
    let at = partition.applied().0;
    let mut node = node.restart(state, at);
    let retry = node.send((9, 0, 0), 4);
    assert!(matches!(node.reply(retry), Some(Reply::Duplicate { base_offset: Offset(0), .. })));
    let gap = node.send((9, 0, 9), 1);
    assert_eq!(node.reply(gap), Some(Reply::Refused(Refusal::OutOfOrderSequence { expected: 4, found: 9 })));
}

#[test]
fn a_failed_write_fails_every_waiter_and_acknowledges_nothing_more() {
    let mut node = Node::ready();
    let waiting = node.send((9, 0, 0), 1);
    let persisted = node.effects.iter().find_map(|effect| match effect {
        Effect::Persist { ready, .. } => Some(*ready),
        _ => None,
    });
    node.step(Input::PersistFailed);
    assert_eq!(node.reply(waiting), Some(Reply::Refused(Refusal::StorageError)));
    node.effects.clear();
    node.step(Input::Persisted { group: GROUP, ready: persisted.unwrap() });
    let late = node.send((9, 0, 1), 1);
    assert_eq!(node.trace(), ["reply 2 Refused(StorageError)"]);
    let _ = late;
}

#[test]
fn log_append_time_is_written_once_by_the_leader() {
    let mut node = Node::ready();
    node.wall_ms = 77_000;
    let ticket = node.send_stamped((-1, -1, -1), 2, Timestamps::Append);
    node.settle();
    assert!(matches!(node.reply(ticket), Some(Reply::Produced { append_time_ms: 77_000, .. })));
    let batch = node.log.last().unwrap().data.slice(20..);
    assert_eq!(BatchHeader::parse(&batch).unwrap().meta.max_timestamp, 77_000);
}

#[test]
fn b4_nothing_is_cut_before_its_append_is_applied() {
    let mut node = Node::ready();
    let range = node.roll((9, 0, 0), 5);
    let entry = node.announce(1, range);
    node.checkpoint();
    node.send((9, 0, 5), 1);
    node.settle();
    node.checkpoint();
    let first = node.status().rolls[0].first_index;
    assert!(node.status().cut_limit.0 < first, "announced is not tiered");
    node.done(JobOutcome::Uploaded { uid: 1, entry });
    assert!(node.status().cut_limit.0 < first, "uploaded is not tiered");
    node.act(Action::Append);
    let status = node.status();
    assert_eq!(status.tiered_end, range.end);
    assert!(status.cut_limit.0 >= first && status.cut_limit.0 <= status.local_checkpoints[0].index);
    node.act(Action::Cut { index: status.cut_limit.0, term: status.cut_limit.1 });
    assert_eq!(node.status().truncated, status.cut_limit);
    assert!(
        node.effects.iter().any(|effect| matches!(effect, Effect::Mark { mark: Mark::Truncated { .. }, .. }))
    );
}

#[test]
fn b4_a_sealed_range_counts_only_when_its_mark_is_fsynced() {
    let mut node = Node::ready();
    let range = node.roll((9, 0, 0), 5);
    node.checkpoint();
    node.send((9, 0, 5), 1);
    node.settle();
    node.checkpoint();
    node.act(Action::Seal { base: range.base });
    let Job::Seal { roll, .. } = node.job() else { panic!("not a seal") };
    let seal = SealMark {
        base: roll.base,
        end: roll.end,
        first_index: roll.first_index,
        last_index: roll.roll_index,
        last_term: roll.roll_term,
        bytes: 1,
        sha256: Digest::default(),
    };
    node.step(Input::JobDone { group: GROUP, outcome: JobOutcome::Sealed(seal) });
    assert!(node.status().cut_limit.0 < roll.first_index);
    node.settle();
    assert!(node.status().cut_limit.0 >= roll.roll_index);
}

#[test]
fn t39_a_trim_past_the_tiered_end_does_not_wedge_uploads() {
    let mut node = Node::ready();
    node.roll((9, 0, 0), 5);
    let second = node.roll((9, 0, 5), 5);
    node.act(Action::Trim { log_start: Offset(7), cause: TrimCause::DeleteRecords });
    assert_eq!((node.status().log_start, node.status().tiered_end), (Offset(7), Offset(5)));
    node.tier(4, second);
    assert_eq!(node.status().tiered_end, Offset(10));
    assert!(node.status().rolls.is_empty());
}

/// Each publication deletes surplus checkpoints but for those that the state names: with several commits on their way the
/// third would delete what the first is about to name.
#[test]
fn b1_no_checkpoint_is_published_while_the_commit_of_one_is_on_its_way() {
    let mut node = Node::ready();
    let range = node.roll((9, 0, 0), 5);
    node.tier(1, range);
    node.act(Action::PublishCheckpoint { uid: 2 });
    let Job::Publish { captured, key_term, .. } = node.job() else { panic!("no publication") };
    let published = published(2, key_term, &captured);
    node.effects.clear();
    node.step(Input::JobDone { group: GROUP, outcome: JobOutcome::CheckpointPublished(published) });
    node.step(Input::Act { group: GROUP, action: Action::PublishCheckpoint { uid: 3 } });
    assert!(!node.effects.iter().any(|effect| matches!(effect, Effect::Start(_))));
    node.settle();
    node.act(Action::PublishCheckpoint { uid: 4 });
    assert!(matches!(node.job(), Job::Publish { uid: 4, .. }));
}

#[test]
fn s3_a_node_from_a_bucket_checkpoint_and_tail_equals_one_from_the_full_log() {
    let mut node = Node::ready();
    let first = node.roll((9, 0, 0), 5);
    node.tier(1, first);
    node.roll((9, 0, 5), 3);
    node.send((8, 0, 0), 2);
    node.settle();
    let seed = node.publish(2);
    let GroupState::Partition(state) = &seed else { panic!() };
    let (mut seeded, from) = (state.as_ref().clone(), state.applied().0);
    assert!(!seeded.is_whole());
    for entry in node.log.iter().filter(|entry| entry.index > from) {
        seeded.apply(entry).unwrap();
    }
    assert!(seeded.is_whole());
    let (index, hash) = node.shard.state_hash(GROUP).unwrap();
    assert_eq!((seeded.applied().0, seeded.hash()), (index, hash));
}

#[test]
fn s1_r9_checkpoints_at_different_moments_give_the_same_state() {
    let mut node = Node::ready();
    let range = node.roll((9, 0, 0), 5);
    let early = node.checkpoint();
    node.tier(1, range);
    node.send((9, 0, 5), 2);
    node.settle();
    let late = node.checkpoint();
    let expected = node.shard.state_hash(GROUP).unwrap();
    for state in [early, late] {
        let GroupState::Partition(mut state) = state else { panic!() };
        let at = state.applied().0;
        for entry in node.log.iter().filter(|entry| entry.index > at) {
            state.apply(entry).unwrap();
        }
        assert_eq!((state.applied().0, state.hash()), expected);
    }
}

#[test]
fn b2_b3_only_one_change_of_the_manifest_is_in_flight() {
    let mut node = Node::ready();
    let first = node.roll((9, 0, 0), 5);
    let second = node.roll((9, 0, 5), 5);
    let later = node.announce(2, second);
    node.done(JobOutcome::Uploaded { uid: 2, entry: later });
    assert!(!node.status().appendable, "a gap");
    let entry = node.announce(1, first);
    node.done(JobOutcome::Uploaded { uid: 1, entry });
    node.step(Input::Act { group: GROUP, action: Action::Append });
    node.step(Input::Act {
        group: GROUP,
        action: Action::Trim { log_start: Offset(1), cause: TrimCause::Retention },
    });
    node.settle();
    let status = node.status();
    assert_eq!((status.manifest_seq, status.tiered_end, status.log_start), (1, Offset(10), Offset(0)));
    assert_eq!(status.root.entries.len(), 2);
}

#[test]
fn the_metadata_group_answers_what_it_did() {
    let mut node = Node::empty();
    let mut open = open_group(GroupState::New);
    open.group = GroupId::METADATA;
    open.kind = GroupKind::Metadata { cluster: ClusterId::from_random(1), incarnation: Incarnation(1) };
    node.step(Input::Open(Box::new(open)));
    node.settle();
    let command = MetadataCommand::AllocateProducerIds { count: 1000 };
    node.step(Input::Propose { ticket: Some(Ticket(1)), group: GroupId::METADATA, command });
    node.settle();
    let done = crate::metadata::MetadataDone::ProducerIds { first: 1, count: 1000 };
    assert_eq!(node.reply(Ticket(1)), Some(Reply::Metadata(Ok(done))));
}

/// Each seeded bug breaks what the tests above hold (feature `seeded-bugs`).
#[cfg(feature = "seeded-bugs")]
mod seeded {
    use super::*;
    use crate::bugs::{Bug, seed, set_roll_bytes};

    #[test]
    fn a_dedup_table_dropped_from_a_checkpoint_stores_a_retry_twice() {
        seed(Some(Bug::DedupDroppedFromCheckpoint));
        let mut node = Node::ready();
        node.send((9, 0, 0), 4);
        node.settle();
        let state = node.checkpoint();
        let GroupState::Partition(partition) = &state else { panic!() };
        let at = partition.applied().0;
        let mut node = node.restart(state, at);
        let retry = node.send((9, 0, 0), 4);
        node.settle();
        seed(None);
        assert!(matches!(node.reply(retry), Some(Reply::Produced { base_offset: Offset(4), .. })));
    }

    #[test]
    fn a_dedup_window_of_one_refuses_a_legal_retry() {
        seed(Some(Bug::DedupWindowOne));
        let mut node = Node::ready();
        node.send((9, 0, 0), 1);
        node.send((9, 0, 1), 1);
        let retry = node.send((9, 0, 0), 1);
        node.settle();
        seed(None);
        assert!(matches!(node.reply(retry), Some(Reply::Refused(Refusal::OutOfOrderSequence { .. }))));
    }

    #[test]
    fn a_cut_before_the_append_takes_the_only_copy() {
        let mut node = Node::ready();
        let range = node.roll((9, 0, 0), 5);
        node.announce(1, range);
        node.checkpoint();
        node.send((9, 0, 5), 1);
        node.settle();
        node.checkpoint();
        let sound = node.status().cut_limit.0;
        seed(Some(Bug::CutBeforeAppend));
        let broken = node.status().cut_limit.0;
        seed(None);
        assert!(sound < node.status().rolls[0].first_index && broken > sound);
    }

    #[test]
    fn a_roll_by_a_local_rule_stops_the_group_when_it_is_replayed() {
        seed(Some(Bug::RollByLocalRule));
        let mut node = Node::ready();
        for n in 0..100 {
            node.send((9, 0, n), 1);
        }
        node.settle();
        node.act(Action::Roll { cause: RollCause::Bytes });
        set_roll_bytes(3000);
        let restarted = node.restart(GroupState::New, LogIndex::ZERO);
        set_roll_bytes(4096);
        seed(None);
        assert!(node.shard.status(GROUP).is_some() && restarted.shard.status(GROUP).is_none());
        assert!(restarted.effects.iter().any(|effect| matches!(effect, Effect::Stopped { .. })));
    }
}
