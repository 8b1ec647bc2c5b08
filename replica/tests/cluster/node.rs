//! A node: its shard, its disk, and what it is about to do.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use varve_common::{
    ClusterId, Digest, GroupId, Incarnation, LogIndex, NodeId, Offset, PartitionIndex, ReplicaId, Term,
    TopicId,
};
use varve_consensus::{Membership, TermRun};
use varve_formats::manifest::FanOut;
use varve_replica::{
    GroupKind, GroupOptions, GroupState, Installable, Job, JobOutcome, LocalCheckpoint, LogEntry, Mark,
    OpenGroup, PartitionIdentity, PersistedHardState, Shard,
    checkpoint::{self, Decoded},
    partition::PartitionState,
    seeding::{self, Seed},
};

pub const GROUP: GroupId = GroupId(7);
pub const CLUSTER: ClusterId = ClusterId([5; 16]);

pub fn node_id(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

pub fn identity() -> PartitionIdentity {
    PartitionIdentity {
        cluster: CLUSTER,
        incarnation: Incarnation(1),
        topic_id: TopicId::from_random(2),
        topic: "orders".into(),
        partition: PartitionIndex(0),
    }
}

/// One write on its way to the disk.
pub enum Write {
    Persist {
        ready: u64,
        hard_state: Option<PersistedHardState>,
        installed: Option<LocalCheckpoint>,
        entries: Vec<LogEntry>,
    },
    Mark {
        number: u64,
        mark: Mark,
    },
}

/// What a power cut leaves.
#[derive(Clone, Default)]
pub struct Disk {
    pub log: Vec<LogEntry>,
    pub hard_state: PersistedHardState,
    pub truncated: (LogIndex, Term),
    pub snapshots: Vec<LocalCheckpoint>,
    pub files: BTreeMap<String, Bytes>,
}

impl Disk {
    /// Writes; whether entries of the log were replaced.
    pub fn write(&mut self, write: &Write) -> bool {
        match write {
            Write::Persist { hard_state, installed, entries, .. } => {
                self.hard_state = hard_state.unwrap_or(self.hard_state);
                if let Some(checkpoint) = installed {
                    self.truncated = (checkpoint.index, checkpoint.term);
                    self.snapshots.push(checkpoint.clone());
                    self.log.clear();
                }
                let before = self.log.len();
                let kept = entries.first().map_or(before, |first| {
                    self.log.retain(|entry| entry.index < first.index);
                    self.log.len()
                });
                self.log.extend(entries.iter().cloned());
                kept < before
            }
            Write::Mark { mark: Mark::Truncated { index, term }, .. } => {
                self.truncated = (*index, *term);
                self.log.retain(|entry| entry.index > *index);
                false
            }
            Write::Mark { mark: Mark::Snapshot(checkpoint), .. } => {
                self.snapshots.push(checkpoint.clone());
                false
            }
            Write::Mark { .. } => false,
        }
    }

    pub fn last(&self) -> LogIndex {
        self.log.last().map_or(self.truncated.0, |entry| entry.index)
    }

    pub fn get(&self, index: LogIndex) -> Option<&LogEntry> {
        self.log.get(index.0.checked_sub(self.truncated.0.0 + 1)? as usize)
    }

    pub fn holds(&self, index: LogIndex, term: Term) -> bool {
        index <= self.truncated.0 || self.get(index).is_some_and(|entry| entry.term == term)
    }

    fn newest(&self) -> Option<Start> {
        let whole = self.snapshots.iter().filter(|kept| self.files.contains_key(&kept.file));
        let newest = whole.max_by_key(|kept| kept.index)?;
        Some(Start::of(&self.files[&newest.file]))
    }
}

/// A state and the members as of it.
pub struct Start {
    pub state: Box<PartitionState>,
    pub seed: Seed,
    pub header: varve_formats::checkpoint::CheckpointHeader,
}

impl Start {
    pub fn of(bytes: &Bytes) -> Self {
        let Ok(Decoded::Partition { header, state, .. }) = checkpoint::decode(bytes) else {
            panic!("checkpoints here are whole")
        };
        Self { state, seed: Seed::of(&header), header }
    }
}

/// What opens a replica.
pub struct Opening {
    pub open: OpenGroup,
    pub membership: Membership,
    pub runs: Vec<TermRun>,
}

pub struct Node {
    pub replica: ReplicaId,
    pub shard: Option<Shard>,
    pub disk: Disk,
    pub writing: VecDeque<Write>,
    pub jobs: Vec<Job>,
    pub applied: LogIndex,
    /// The members as of `applied`.
    pub members: Membership,
    pub life: u64,
}

impl Node {
    pub fn new(id: u32) -> Self {
        Self {
            replica: ReplicaId::new(node_id(id), 1).unwrap(),
            shard: None,
            disk: Disk::default(),
            writing: VecDeque::new(),
            jobs: Vec::new(),
            applied: LogIndex::ZERO,
            members: Membership::default(),
            life: 0,
        }
    }

    /// What this disk opens with: its newest checkpoint, and the log above.
    pub fn opening(&self, first_members: &Membership) -> Opening {
        let hard_state = self.disk.hard_state;
        match self.disk.newest() {
            Some(start) => self.opening_from(start, hard_state, self.disk.log.clone()),
            None => {
                let open =
                    self.open_group(GroupState::New, hard_state, self.disk.log.clone(), LogIndex::ZERO);
                Opening { open, membership: first_members.clone(), runs: Vec::new() }
            }
        }
    }

    /// The same with a bucket checkpoint in the place of its own, where the rule allows it.
    pub fn stand_in(&mut self, bytes: &Bytes) -> Option<Opening> {
        let start = Start::of(bytes);
        let (disk, state) = (&self.disk, start.header.state);
        let (hard_state, entries) =
            seeding::stand_in(&start.header, disk.truncated, disk.hard_state, disk.log.clone()).ok()?;
        // What the rule gives is what the log holds from now on; a sound one gives all of it above S.
        let above = disk.log.iter().filter(|entry| entry.index > state.index).count();
        if entries.len() < above || disk.truncated.0 > state.index || disk.last() < state.index {
            self.disk.log.clear();
            self.disk.truncated = (state.index, state.term);
            self.disk.hard_state = hard_state;
        }
        let log = self.disk.log.clone();
        Some(self.opening_from(start, hard_state, log))
    }

    fn opening_from(&self, start: Start, hard_state: PersistedHardState, log: Vec<LogEntry>) -> Opening {
        let applied = start.header.state.index;
        let below = log.iter().filter(|entry| entry.index <= applied);
        let runs = below.map(|entry| TermRun { start: entry.index, term: entry.term }).collect();
        let membership = start.seed.membership;
        let open = self.open_group(GroupState::Partition(start.state), hard_state, log, applied);
        Opening { open, membership, runs }
    }

    fn open_group(
        &self,
        state: GroupState,
        hard_state: PersistedHardState,
        log: Vec<LogEntry>,
        applied: LogIndex,
    ) -> OpenGroup {
        let options = GroupOptions { fan_out: FanOut(4), ..GroupOptions::default() };
        let kept = self.disk.snapshots.iter().filter(|kept| self.disk.files.contains_key(&kept.file));
        let mut local_checkpoints: Vec<_> = kept.filter(|kept| kept.index <= applied).cloned().collect();
        local_checkpoints.sort_by_key(|kept| kept.index);
        local_checkpoints.drain(..local_checkpoints.len().saturating_sub(2));
        OpenGroup {
            group: GROUP,
            replica: self.replica,
            voters: Vec::new(),
            kind: GroupKind::Partition { identity: identity(), options },
            hard_state,
            truncated: self.disk.truncated,
            state,
            seals: Vec::new(),
            local_checkpoints,
            local_start: log.first().map_or(Offset::ZERO, |entry| entry.offset),
            log_bytes: log.iter().map(|entry| entry.data.len() as u64).sum(),
            entries: log.into_iter().filter(|entry| entry.index > applied).collect(),
        }
    }

    /// What a leader sent this node to is durable here.
    pub fn install(&mut self, bytes: &Bytes) -> JobOutcome {
        let Start { state, header, seed, .. } = Start::of(bytes);
        let (index, term) = (header.state.index, header.state.term);
        let file = format!("{index:020}-{:08x}.installed", term.0);
        self.disk.files.insert(file.clone(), bytes.clone());
        let checkpoint = LocalCheckpoint { index, term, file, sha256: Digest::of(bytes) };
        let state = GroupState::Partition(state);
        JobOutcome::Installable(Box::new(Installable {
            checkpoint,
            membership: seed.membership,
            state,
            trimmed: Offset::ZERO,
        }))
    }

    /// A new disk for a new learner: the checkpoint, and the marks that make its log begin behind it.
    pub fn seed(&mut self, bytes: &Bytes) {
        let seed = Start::of(bytes).seed;
        let (index, term) = seed.truncated;
        let file = "seed".to_owned();
        let checkpoint = LocalCheckpoint { index, term, file: file.clone(), sha256: Digest::of(bytes) };
        self.disk = Disk {
            hard_state: seed.hard_state,
            truncated: seed.truncated,
            snapshots: vec![checkpoint],
            files: BTreeMap::from([(file, bytes.clone())]),
            log: Vec::new(),
        };
    }
}
