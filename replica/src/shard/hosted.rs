//! One group on this node: its raft replica, its state, and what is under way.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use varve_common::{Digest, GroupId, LogIndex, Monotonic, Offset, ReplicaId, Term, TopicId};
use varve_consensus::{
    Entry, EntryKind, Group, GroupConfig, HardState, Membership, Recovered, Role, TermRun, Violation,
};
use varve_formats::{
    command::{Command, HEADER_BYTES, Kind},
    manifest,
};

use super::{
    archiving::Archiving,
    coordinate::Coordinating,
    holders::Holders,
    installs::Installs,
    members::{MembersSince, Pins},
    missed::Missed,
    pending::{Pending, Proposal, Waiter},
    produce::Request,
    speculation::Speculation,
};
use crate::{
    api::{
        Effect, GroupKind, GroupOptions, GroupState, JobsStatus, LocalCheckpoint, LogEntry, Mark, Mended,
        Now, OpenGroup, PartitionView, PeerEffect, Refusal, Reply, SealMark, StopReason,
    },
    metadata::{Deletion, MetadataState},
    partition::{BatchHeader, PartitionState},
};

/// What a group's entries mean.
#[allow(clippy::large_enum_variant)]
pub(super) enum Machine {
    Partition(PartitionState),
    Metadata(MetadataState),
}

/// Progress since a checkpoint was captured.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) bytes: u64,
    pub(super) changes: u64,
}

/// One group.
pub(super) struct Hosted {
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
    pub(super) raft: Group,
    pub(super) machine: Machine,
    pub(super) options: GroupOptions,
    pub(super) pending: Pending,
    /// What a quorum has, and as many replicas as were asked for not yet.
    pub(super) held: Holders,
    pub(super) speculation: Speculation,
    /// Requests that came before the leader's no-op was applied.
    pub(super) queue: VecDeque<Request>,
    pub(super) queued_bytes: u64,
    /// Producers whose first batch was refused.
    pub(super) missed: Missed,
    /// Log ends after the entries that are appended and not applied.
    pub(super) tail: VecDeque<(LogIndex, Offset)>,
    marks: BTreeMap<u64, Mark>,
    next_mark: u64,
    pub(super) seals: Arc<Vec<SealMark>>,
    pub(super) local_checkpoints: Vec<LocalCheckpoint>,
    pub(super) truncated: (LogIndex, Term),
    pub(super) wal_start: Offset,
    pub(super) log_bytes: u64,
    pub(super) since_checkpoint: Progress,
    /// Whether state changed since the newest published checkpoint was captured.
    pub(super) publish_dirty: bool,
    pub(super) first_unpublished_ms: Option<i64>,
    /// The entry that commits the newest published checkpoint: until it is applied the state names older ones.
    pub(super) publishing: LogIndex,
    pub(super) jobs: JobsStatus,
    pub(super) uploading: BTreeSet<u64>,
    pub(super) uploaded: BTreeMap<u64, manifest::Entry>,
    pub(super) upload_failed: BTreeSet<u64>,
    pub(super) unsealing: BTreeMap<u64, SealMark>,
    /// What the node holds that is being written, or waits below.
    pub(super) folding: Option<manifest::FoldPlan>,
    /// A node in the bucket whose `NodeFolded` waits for its turn.
    pub(super) folded: Option<manifest::NodeReference>,
    /// A leaf in the bucket whose `LeafReplaced` waits for its turn, or is not applied.
    pub(super) mended: Option<Mended>,
    /// Deleted topics of which the early pass found nothing any more.
    pub(super) reaped_early: BTreeSet<TopicId>,
    /// Who was in it, from which entry on.
    pub(super) members: MembersSince,
    /// Learners for which the log is kept.
    pub(super) pins: Pins,
    /// Sealed files (by base) that do not read back, and are to be had from other nodes.
    pub(super) broken: BTreeSet<Offset>,
    /// Checkpoints that members are sent to, this one or others.
    pub(super) installs: Installs,
    /// Files for other systems.
    pub(super) archiving: Archiving,
    /// Groups of consumers, while this replica leads a partition of their topic.
    pub(super) coordinating: Coordinating,
    pub(super) published_view: Option<PartitionView>,
    /// For the peers' sake: log reads, the ends of reads, snapshots.
    pub(super) told: Vec<PeerEffect>,
    /// Something that readers or the planner see may have changed.
    pub(super) touched: bool,
    stopped: Option<StopReason>,
}

impl Hosted {
    pub(super) fn open(
        open: OpenGroup,
        membership: Membership,
        runs: Vec<TermRun>,
        config: GroupConfig,
    ) -> Result<Self, String> {
        let (machine, options) = machine_of(&open)?;
        let applied = match &machine {
            Machine::Partition(state) => state.applied(),
            Machine::Metadata(state) => state.applied(),
        };
        if applied.0 < open.truncated.0 {
            return Err(format!(
                "the state is as of {} and the log was cut at {}",
                applied.0, open.truncated.0
            ));
        }
        let members = MembersSince::new(applied.0, membership.clone());
        let recovered = recovered(&open, applied, membership, runs)?;
        let raft = Group::open(recovered, config).map_err(|error| error.to_string())?;
        let mut hosted = Self {
            group: open.group,
            replica: open.replica,
            raft,
            machine,
            options,
            pending: Pending::default(),
            held: Holders::default(),
            speculation: Speculation::default(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            missed: Missed::default(),
            tail: VecDeque::new(),
            marks: BTreeMap::new(),
            next_mark: 1,
            seals: Arc::new(open.seals),
            local_checkpoints: open.local_checkpoints,
            truncated: open.truncated,
            wal_start: open.local_start,
            log_bytes: open.log_bytes,
            since_checkpoint: Progress::default(),
            publish_dirty: false,
            first_unpublished_ms: None,
            publishing: LogIndex::ZERO,
            jobs: JobsStatus::default(),
            uploading: BTreeSet::new(),
            uploaded: BTreeMap::new(),
            upload_failed: BTreeSet::new(),
            unsealing: BTreeMap::new(),
            folding: None,
            folded: None,
            mended: None,
            reaped_early: BTreeSet::new(),
            members,
            pins: Pins::new(),
            broken: BTreeSet::new(),
            installs: Installs::default(),
            archiving: Archiving::default(),
            coordinating: Coordinating::default(),
            published_view: None,
            told: Vec::new(),
            touched: true,
            stopped: None,
        };
        hosted.recover_dirt();
        for entry in &open.entries {
            hosted.extend_tail(entry.index, entry.kind, &entry.data);
        }
        Ok(hosted)
    }

    /// After a restart a checkpoint counts as stale unless nothing but its own publication followed it.
    pub(super) fn recover_dirt(&mut self) {
        let (applied, published, time) = match &self.machine {
            Machine::Partition(state) => {
                (state.applied().0, state.bucket().published.last().cloned(), state.records().append_time_ms)
            }
            Machine::Metadata(state) => {
                (state.applied().0, state.published().last().cloned(), state.append_time_ms)
            }
        };
        self.publish_dirty = match published {
            Some(newest) => applied > newest.applied_index.plus(2),
            None => applied > LogIndex::ZERO,
        };
        if self.unpublished_segments() > 0 {
            self.first_unpublished_ms = Some(time);
        }
        if let Machine::Partition(state) = &self.machine {
            self.archiving.recover(state.bucket(), time);
        }
    }

    /// The metadata as it is applied; `None` for partitions.
    pub(super) fn image(&self) -> Option<crate::metadata::Image> {
        match &self.machine {
            Machine::Metadata(state) => Some(state.image().clone()),
            Machine::Partition(_) => None,
        }
    }

    /// Deleted topics that are not reaped; none in partitions.
    pub(super) fn deletions(&self) -> Arc<BTreeMap<TopicId, Deletion>> {
        match &self.machine {
            Machine::Metadata(state) => Arc::clone(&state.image().deletions),
            Machine::Partition(_) => Arc::default(),
        }
    }

    pub(super) fn wants_tick(&self) -> bool {
        self.stopped.is_none() && self.raft.wants_tick()
    }

    pub(super) fn persisted(&mut self, ready: u64, effects: &mut Vec<Effect>) {
        self.raft.persisted(ready);
        self.installed(ready, effects);
    }

    pub(super) fn configure(&mut self, options: GroupOptions) {
        self.touched |= self.options != options;
        self.options = options;
    }

    pub(super) const fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    pub(super) fn stop(&mut self, why: StopReason, effects: &mut Vec<Effect>) {
        self.fail_waiters(&Refusal::StorageError, effects);
        effects.push(Effect::Stopped { group: self.group, why: why.clone() });
        // Whoever cannot apply, or has lost what it acknowledged, neither leads nor votes.
        self.raft.fence(Violation::Stopped);
        self.stopped = Some(why);
        self.end_reads();
    }

    /// Ends every read that waits for a quorum.
    pub(super) fn end_reads(&mut self) {
        let reads = self.raft.end_reads().into_iter();
        self.told.extend(reads.map(|read| PeerEffect::Read { ticket: read.ticket, outcome: read.outcome }));
    }

    /// Ends every waiting request. What was queued was never appended, but the client may not care.
    pub(super) fn fail_waiters(&mut self, refusal: &Refusal, effects: &mut Vec<Effect>) {
        self.pending.fail(refusal, effects);
        self.fail_held(refusal, effects);
        self.end_coordinator(effects);
        self.queued_bytes = 0;
        for request in std::mem::take(&mut self.queue) {
            self.miss(&request.meta);
            effects.push(Effect::Reply { ticket: request.ticket, reply: Reply::Refused(refusal.clone()) });
        }
    }

    /// Writes a mark; what follows from it waits for `Marked`.
    pub(super) fn mark(&mut self, mark: Mark, effects: &mut Vec<Effect>) -> u64 {
        let number = self.next_mark;
        self.next_mark += 1;
        self.marks.insert(number, mark.clone());
        // Not of the state: that of a checkpoint is ahead of the log until the write that installs it is durable.
        let applied = self.raft.applied_index();
        let applied = (applied, self.raft.term_at(applied).unwrap_or(Term::ZERO));
        let (group, replica) = (self.group, self.replica);
        effects.push(Effect::Mark { group, replica, number, applied, mark });
        number
    }

    pub(super) fn take_mark(&mut self, number: u64) -> Option<Mark> {
        self.marks.remove(&number)
    }

    /// Whether a file has its name and its mark is not durable.
    pub(super) fn seal_waits_for_its_mark(&self) -> bool {
        self.marks.values().any(|mark| matches!(mark, Mark::Sealed(_)))
    }

    /// Whether a local checkpoint of this index, or a later one, is written and its mark is not.
    pub(super) fn checkpoint_waits_for_its_mark(&self, index: LogIndex) -> bool {
        let later = |mark: &Mark| matches!(mark, Mark::Snapshot(checkpoint) if checkpoint.index >= index);
        self.marks.values().any(later)
    }

    /// Whether it takes proposals: it leads, its own no-op is applied, and its state is whole.
    pub(super) fn is_ready(&self) -> bool {
        let whole = match &self.machine {
            Machine::Partition(state) => state.is_whole(),
            Machine::Metadata(_) => true,
        };
        whole && self.stopped.is_none() && self.raft.is_settled()
    }

    pub(super) fn is_leader(&self) -> bool {
        self.raft.role() == Role::Leader
    }

    /// Proposes a command; `None` where raft refuses it: then nothing was appended.
    pub(super) fn propose(
        &mut self,
        now: Now,
        command: &Command,
        waiter: Option<Waiter>,
    ) -> Option<LogIndex> {
        if !self.is_ready() {
            return None;
        }
        self.propose_data(command.encode(self.raft.term(), now.wall_ms), None, waiter)
    }

    pub(super) fn propose_data(
        &mut self,
        data: Bytes,
        base_offset: Option<Offset>,
        waiter: Option<Waiter>,
    ) -> Option<LogIndex> {
        let bytes = data.len() as u64;
        let index = self.raft.propose(data).ok()?;
        let term = self.raft.term();
        self.pending.insert(
            index,
            Proposal { term, bytes, base_offset, waiters: waiter.into_iter().collect(), repeats: 0 },
        );
        Some(index)
    }

    /// The log end before the entry at `index`, which is appended now; a conflict drops what it replaces.
    pub(super) fn extend_tail(&mut self, index: LogIndex, kind: u8, data: &[u8]) -> Offset {
        while self.tail.back().is_some_and(|last| last.0 >= index) {
            self.tail.pop_back();
        }
        let applied_end = match &self.machine {
            Machine::Partition(state) => state.records().log_end,
            Machine::Metadata(_) => return Offset::ZERO,
        };
        let before = self.tail.back().map_or(applied_end, |last| last.1);
        let is_records = kind == EntryKind::Normal.to_u8() && data.first() == Some(&(Kind::Records as u8));
        let batch = data.get(HEADER_BYTES..).filter(|_| is_records).and_then(BatchHeader::parse);
        let after = batch.map_or(before, |header| before.plus(u64::from(header.meta.last_offset_delta) + 1));
        self.tail.push_back((index, after));
        before
    }

    pub(super) fn applied_to(&mut self, index: LogIndex) {
        while self.tail.front().is_some_and(|first| first.0 <= index) {
            self.tail.pop_front();
        }
        if self.tail.is_empty() {
            self.tail = VecDeque::new();
        }
    }

    /// The last entry that took effect.
    pub(super) fn applied(&self) -> LogIndex {
        match &self.machine {
            Machine::Partition(state) => state.applied().0,
            Machine::Metadata(state) => state.applied().0,
        }
    }

    pub(super) fn state_hash(&self) -> Option<(LogIndex, Digest)> {
        match &self.machine {
            Machine::Partition(state) => state.is_whole().then(|| (state.applied().0, state.hash())),
            Machine::Metadata(state) => Some((state.applied().0, state.hash())),
        }
    }

    pub(super) fn job_failed(&mut self, kind: crate::api::JobKind, why: String, at: Monotonic) {
        let failures = self.jobs.failures.entry(kind).or_insert((0, at));
        *failures = (failures.0.saturating_add(1), at);
        self.jobs.last_failure = Some((kind, why));
    }
}

fn machine_of(open: &OpenGroup) -> Result<(Machine, GroupOptions), String> {
    match (&open.kind, &open.state) {
        (GroupKind::Metadata { cluster, incarnation }, GroupState::New) => {
            Ok((Machine::Metadata(MetadataState::new(*cluster, *incarnation)), GroupOptions::default()))
        }
        (GroupKind::Metadata { cluster, .. }, GroupState::Metadata(state))
            if state.image().cluster == *cluster =>
        {
            Ok((Machine::Metadata(state.as_ref().clone()), GroupOptions::default()))
        }
        (GroupKind::Partition { identity, options }, GroupState::New) => {
            Ok((Machine::Partition(PartitionState::new(identity.clone())), options.clone()))
        }
        (GroupKind::Partition { identity, options }, GroupState::Partition(state))
            if (state.identity().topic_id, state.identity().partition)
                == (identity.topic_id, identity.partition) =>
        {
            Ok((Machine::Partition(state.as_ref().clone()), options.clone()))
        }
        _ => Err("the checkpoint is of another group".to_owned()),
    }
}

fn recovered(
    open: &OpenGroup,
    applied: (LogIndex, Term),
    membership: Membership,
    runs: Vec<TermRun>,
) -> Result<Recovered, String> {
    let mut entries = Vec::with_capacity(open.entries.len());
    for entry in &open.entries {
        let kind =
            EntryKind::from_u8(entry.kind).ok_or_else(|| format!("unknown kind of entry {}", entry.kind))?;
        entries.push(Entry { index: entry.index, term: entry.term, kind, data: entry.data.clone() });
    }
    // The WAL may hold no commit as high as what a checkpoint proves to be committed and applied.
    let hard_state = HardState {
        term: open.hard_state.term,
        vote: ReplicaId::from_raw(open.hard_state.vote),
        commit: open.hard_state.commit.max(applied.0),
    };
    Ok(Recovered {
        replica: open.replica,
        membership,
        hard_state,
        truncated: if runs.is_empty() { applied } else { open.truncated },
        applied: applied.0,
        runs,
        entries,
    })
}

/// An entry on its way to the WAL.
pub(super) fn log_entry(entry: &Entry, offset: Offset) -> LogEntry {
    LogEntry {
        index: entry.index,
        term: entry.term,
        kind: entry.kind.to_u8(),
        offset,
        data: entry.data.clone(),
    }
}
