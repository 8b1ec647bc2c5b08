//! The shard, driven by a driver that persists when told: one file a concern, named by the rules that it holds.

mod checkpoints;
mod collect;
mod fold;
mod leaf;
mod merge;
mod metadata;
mod produce;
mod reopen;
#[cfg(feature = "seeded-bugs")]
mod seeded;
mod tier;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use varve_common::{
    ClusterId, Digest, GroupId, Incarnation, LogIndex, Monotonic, NodeId, Offset, PartitionIndex, ReplicaId,
    Term, TopicId,
};
use varve_formats::{
    command::{MetadataCommand, PublishedCheckpoint, TrimCause},
    compression::Codec,
    manifest::{Entry, EntryKind, FanOut, NodeReference},
    state::RollEntry,
};

use crate::{
    Shard,
    api::*,
    checkpoint::{self, Captured, Decoded},
    partition::{BatchHeader, PartitionState, sample},
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
    let options = GroupOptions { fan_out: FanOut(4), ..GroupOptions::default() };
    let kind = GroupKind::Partition { identity: identity(), options };
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

/// What outlives a kill -9: the group's part of the WAL, and its checkpoint files.
#[derive(Clone, Default)]
struct Disk {
    log: Vec<LogEntry>,
    hard_state: PersistedHardState,
    truncated: (LogIndex, Term),
    seals: Vec<SealMark>,
    snapshots: Vec<LocalCheckpoint>,
    files: BTreeMap<String, Bytes>,
    /// A of each checkpoint in the bucket.
    bucket: Vec<LogIndex>,
}

impl Disk {
    fn mark(&mut self, mark: Mark) {
        match mark {
            Mark::Truncated { index, term } => {
                self.truncated = (index, term);
                self.log.retain(|entry| entry.index > index);
            }
            Mark::Snapshot(checkpoint) => self.snapshots.push(checkpoint),
            Mark::Sealed(seal) => self.seals.push(seal),
            Mark::Unsealed { base, .. } => self.seals.retain(|seal| seal.base != base),
            Mark::Destroyed => *self = Self::default(),
            Mark::Damaged { .. } => unreachable!("nothing here damages a log"),
        }
    }

    fn append(&mut self, entries: Vec<LogEntry>) {
        for entry in entries {
            self.log.retain(|kept| kept.index < entry.index);
            self.log.push(entry);
        }
    }

    /// What the driver makes of it: the newest checkpoint that reads back, and every entry above it.
    fn recover(&self) -> OpenGroup {
        let kept = &self.snapshots[self.snapshots.len().saturating_sub(2)..];
        let newest = kept.iter().rev().find_map(|checkpoint| {
            let bytes = self.files.get(&checkpoint.file)?;
            Some((checkpoint.index, read(bytes)?))
        });
        let (applied, state) = newest.unwrap_or((LogIndex::ZERO, GroupState::New));
        let end = partition(&state).map_or(Offset::ZERO, |state| state.records().log_end);
        OpenGroup {
            hard_state: self.hard_state,
            truncated: self.truncated,
            seals: self.seals.clone(),
            local_checkpoints: kept
                .iter()
                .filter(|checkpoint| checkpoint.index <= applied)
                .cloned()
                .collect(),
            local_start: self.log.first().map_or(end, |entry| entry.offset),
            log_bytes: self.log.iter().map(|entry| entry.data.len() as u64).sum(),
            entries: self.log.iter().filter(|entry| entry.index > applied).cloned().collect(),
            ..open_group(state)
        }
    }
}

/// A shard with one group, and its disk.
struct Node {
    shard: Shard,
    effects: Vec<Effect>,
    /// How many of the effects are done.
    done: usize,
    disk: Disk,
    ticket: u64,
    wall_ms: i64,
}

impl Node {
    fn empty() -> Self {
        let (shard, effects) = (Shard::new(1), Vec::new());
        Self { shard, effects, done: 0, disk: Disk::default(), ticket: 0, wall_ms: 1_000 }
    }

    fn open(state: GroupState) -> Self {
        let mut node = Self::empty();
        node.step(Input::Open(Box::new(open_group(state))));
        node
    }

    fn ready() -> Self {
        let mut node = Self::open(GroupState::New);
        node.settle();
        node.take_effects();
        node
    }

    /// The same log after kill -9, with this state.
    fn restart(&self, state: GroupState, above: LogIndex) -> Self {
        let mut open = open_group(state);
        open.hard_state = self.disk.hard_state;
        open.entries = self.disk.log.iter().filter(|entry| entry.index > above).cloned().collect();
        self.kill(open)
    }

    /// The same after kill -9 from a checkpoint of now: nothing is replayed.
    fn restart_from_checkpoint(&mut self) -> Self {
        let state = self.checkpoint();
        let above = partition(&state).expect("it has a partition").applied().0;
        self.restart(state, above)
    }

    /// After kill -9, from what its disk holds.
    fn reopen(&self) -> Self {
        self.kill(self.disk.recover())
    }

    fn kill(&self, open: OpenGroup) -> Self {
        let mut node = Self { disk: self.disk.clone(), wall_ms: self.wall_ms, ..Self::empty() };
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
        while let Some(effect) = self.effects.get(self.done).cloned() {
            self.done += 1;
            match effect {
                Effect::Persist { group, ready, hard_state, entries, .. } => {
                    self.disk.hard_state = hard_state.unwrap_or(self.disk.hard_state);
                    self.disk.append(entries);
                    self.step(Input::Persisted { group, ready });
                }
                Effect::Mark { group, number, mark, .. } => {
                    self.disk.mark(mark);
                    self.step(Input::Marked { group, number });
                }
                _ => {}
            }
        }
    }

    fn send(&mut self, producer: (i64, i16, i32), count: u32) -> Ticket {
        self.send_stamped(producer, count, Timestamps::Create)
    }

    fn send_stamped(&mut self, producer: (i64, i16, i32), count: u32, timestamps: Timestamps) -> Ticket {
        self.hand(sample(producer, count, b"some records"), timestamps)
    }

    fn send_batch(&mut self, batch: Bytes) -> Ticket {
        self.hand(batch, Timestamps::Create)
    }

    fn hand(&mut self, batch: Bytes, timestamps: Timestamps) -> Ticket {
        self.ticket += 1;
        let meta = BatchHeader::parse(&batch).unwrap().meta;
        self.step(Input::Produce {
            ticket: Ticket(self.ticket),
            group: GROUP,
            batch,
            meta,
            timestamps,
            replicas_min: 0,
        });
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

    fn take_effects(&mut self) -> Vec<Effect> {
        self.done = 0;
        std::mem::take(&mut self.effects)
    }

    fn trace(&mut self) -> Vec<String> {
        self.take_effects().iter().map(line).collect()
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
        self.disk.files.insert(file.clone(), encoded.bytes.clone());
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
        let checkpoint = published(uid, key_term, &captured);
        self.disk.bucket.push(checkpoint.applied_index);
        let kept = Some(self.disk.bucket.clone());
        self.done(JobOutcome::CheckpointPublished { checkpoint, kept });
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

fn seal_of(roll: &RollEntry) -> SealMark {
    SealMark {
        base: roll.base,
        end: roll.end,
        first_index: roll.first_index,
        last_index: roll.roll_index,
        last_term: roll.roll_term,
        bytes: 1,
        sha256: Digest::default(),
    }
}

#[derive(Clone, Copy)]
struct RollRange {
    base: Offset,
    end: Offset,
}

fn read(bytes: &Bytes) -> Option<GroupState> {
    match checkpoint::decode(bytes).ok()? {
        Decoded::Partition { state, .. } => Some(GroupState::Partition(state)),
        Decoded::Metadata { state, .. } => Some(GroupState::Metadata(state)),
    }
}

fn decoded(bytes: &Bytes) -> GroupState {
    read(bytes).unwrap()
}

const fn partition(state: &GroupState) -> Option<&PartitionState> {
    if let GroupState::Partition(state) = state { Some(state) } else { None }
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
