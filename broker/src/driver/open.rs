//! Which groups this node runs, and what each starts from: the log's recovery, the newest valid local checkpoint, and
//! the entries above it.
//!
//! The metadata group is opened first; its image then says which partitions belong here. A local checkpoint that cannot
//! be read is reported and the one before it is used, never "empty": without any the log must reach back to the first
//! entry, or the group stays offline.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use varve_common::{
    ClusterId, Disk, GroupId, Incarnation, LogIndex, NodeId, Offset, PartitionIndex, ReplicaId, Term,
};
use varve_consensus::{Membership, TermRun};
use varve_formats::checkpoint::CheckpointHeader;
use varve_replica::{
    GroupKind, GroupOptions, GroupState, Input, LocalCheckpoint, LogEntry, OpenGroup, PartitionIdentity,
    PartitionView, PersistedHardState, SealMark,
    checkpoint::{self, Decoded},
    metadata::{BrokerConfigs, Image, Partition, Topic},
    seeding::Seed,
};
use varve_snapshot::{
    local::{self, LoadError},
    verify::Expected,
};
use varve_wal::{self as wal, RecoveredGroup};

use super::{Event, Opening, loss::Stopped, remains};

/// How many bytes of entries one read of the log asks for.
pub(super) const READ_BYTES: u64 = 8 << 20;

/// Why a group stays offline. Its clients get KAFKA_STORAGE_ERROR; the others are served.
#[derive(Debug, thiserror::Error)]
#[error("{group} stays offline: {why}")]
pub struct OpenError {
    group: GroupId,
    why: Why,
}

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error(
        "acknowledged entries above {0} are damaged; `varve storage recover --accept-loss` on the stopped node ends this"
    )]
    Damaged(LogIndex),
    #[error(
        "no local checkpoint can be read and the log begins only at {0}; `varve storage scrub` on the stopped node rebuilds one from the bucket"
    )]
    NoCheckpoint(LogIndex),
    #[error(transparent)]
    Read(#[from] wal::ReadError),
}

impl OpenError {
    /// Which group.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        self.group
    }
}

/// Turns a topic's configuration into a partition's options.
pub type OptionsOf = Arc<dyn Fn(&Image, &Topic) -> GroupOptions + Send + Sync>;

/// What this node is, and where its files are.
#[derive(Clone)]
pub struct Placement {
    /// This node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The cluster's life on its prefix.
    pub incarnation: Incarnation,
    /// The data directory.
    pub data: PathBuf,
    /// How topics are run.
    pub options_of: OptionsOf,
}

/// The groups of a node.
pub struct Groups {
    disk: Arc<dyn Disk>,
    wal: wal::Reader,
    placement: Placement,
    recovered: BTreeMap<GroupId, RecoveredGroup>,
    log_bytes: BTreeMap<GroupId, u64>,
    open: BTreeMap<GroupId, (ReplicaId, Arc<Topic>)>,
    /// What topics inherited when the open groups were configured.
    inherited: Arc<BrokerConfigs>,
    /// Groups of which nothing of an earlier replica is left on this node.
    swept: BTreeSet<GroupId>,
    /// The counter of the metadata's replica here: what was handed out before it was on a disk that is lost.
    first_counter: u64,
    /// The last entry of the metadata that the log held: its term, and its index.
    metadata_end: (Term, LogIndex),
}

/// What follows from a change of the metadata.
pub enum Change {
    /// A group is opened or configured.
    Feed(Box<Event>),
    /// A group cannot be opened; what is left of it to read.
    Offline(OpenError, Option<Arc<PartitionView>>),
    /// A group leaves this node.
    Gone(GroupId),
    /// A replica joins a group that is older than it: before it opens, what an earlier one left behind goes.
    Sweep(GroupId),
}

impl Change {
    fn feed(event: impl Into<Event>) -> Self {
        Self::Feed(Box::new(event.into()))
    }
}

impl Groups {
    /// The groups that the log holds; none is open yet.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, wal: wal::Reader, recovery: wal::Recovery, placement: Placement) -> Self {
        let log_bytes = wal.usage().groups;
        let metadata_end = (Term::ZERO, LogIndex::ZERO);
        let recovered = recovery.groups;
        Self {
            disk,
            wal,
            placement,
            recovered,
            log_bytes,
            open: BTreeMap::new(),
            inherited: Arc::default(),
            swept: BTreeSet::new(),
            first_counter: 0,
            metadata_end,
        }
    }

    /// What peers know this node's life by.
    pub(super) fn life(&self) -> ClusterId {
        self.placement.cluster.in_life(self.placement.incarnation)
    }

    pub(super) const fn metadata_end(&self) -> (Term, LogIndex) {
        self.metadata_end
    }

    /// The metadata group, of which this node has a replica; `voters` found it where nothing on this node says who is in it.
    pub fn metadata(&mut self, replica: ReplicaId, voters: Vec<ReplicaId>) -> Result<Event, OpenError> {
        let kind =
            GroupKind::Metadata { cluster: self.placement.cluster, incarnation: self.placement.incarnation };
        self.first_counter = replica.counter();
        let found = self.recovered.get(&GroupId::METADATA).filter(|found| found.replica == replica);
        self.metadata_end = found.map_or(self.metadata_end, |found| (found.last_term, found.last_index));
        self.open(GroupId::METADATA, replica, voters, kind)
    }

    /// Makes the open groups those that the metadata places on this node.
    pub fn reconcile(&mut self, image: &Image) -> Vec<Change> {
        let mut changes = Vec::new();
        let is_gone = |(group, (replica, _)): &(&GroupId, &(ReplicaId, Arc<Topic>))| {
            image.partition_of(**group).and_then(|(_, _, partition)| self.hosted(partition)) != Some(*replica)
        };
        let gone: Vec<GroupId> = self.open.iter().filter(is_gone).map(|(group, _)| *group).collect();
        for group in gone {
            self.open.remove(&group);
            changes.push(Change::feed(Input::Close { group }));
            changes.push(Change::Gone(group));
        }
        for group in image.groups.keys() {
            let Some((topic, number, partition)) = image.partition_of(*group) else { continue };
            let Some(replica) = self.hosted(partition) else { continue };
            let at = (topic, number, partition.founders());
            changes.extend(self.place(image, (*group, replica), at));
        }
        self.inherited = Arc::clone(&image.broker_configs);
        changes
    }

    /// The replica of a partition that belongs on this node: none where it was on a disk that is lost.
    fn hosted(&self, partition: &Partition) -> Option<ReplicaId> {
        partition.on(self.placement.node).filter(|replica| replica.counter() >= self.first_counter)
    }

    /// What the partitions say of a disk of this node that is lost: the first counter of the present one.
    pub(super) fn lost(&self, image: &Image) -> Option<(NodeId, u64)> {
        let (node, first) = (self.placement.node, self.first_counter);
        let is_lost = |replica: &ReplicaId| replica.node() == node && replica.counter() < first;
        let lost = |partition: &Partition| partition.wanted().iter().any(is_lost);
        let some = image.topics.values().any(|topic| topic.partitions.iter().any(lost));
        some.then_some((node, first))
    }

    /// Whether a group is shown here.
    pub(super) fn is_open(&self, group: GroupId) -> bool {
        group == GroupId::METADATA || self.open.contains_key(&group)
    }

    /// Nothing of an earlier replica is left.
    pub(super) fn swept(&mut self, group: GroupId) {
        self.swept.insert(group);
    }

    /// What did not open at once is swept again before it does.
    pub(super) fn forget_swept(&mut self) {
        self.swept.clear();
    }

    fn place(
        &mut self,
        image: &Image,
        (group, replica): (GroupId, ReplicaId),
        (topic, partition, founders): (&Arc<Topic>, PartitionIndex, &[ReplicaId]),
    ) -> Option<Change> {
        if let Some((_, known)) = self.open.get(&group) {
            let inherits_others = self.inherited != image.broker_configs;
            if Arc::ptr_eq(known, topic) && !inherits_others {
                return None;
            }
            let changed = inherits_others || known.configs != topic.configs;
            self.open.insert(group, (replica, Arc::clone(topic)));
            let options = (self.placement.options_of)(image, topic);
            return changed.then(|| Change::feed(Input::Configure { group, options }));
        }
        let is_known = self.recovered.get(&group).is_some_and(|found| found.replica == replica);
        if !is_known && !founders.contains(&replica) && !self.swept.remove(&group) {
            return Some(Change::Sweep(group));
        }
        self.open.insert(group, (replica, Arc::clone(topic)));
        let identity = PartitionIdentity {
            cluster: self.placement.cluster,
            incarnation: self.placement.incarnation,
            topic_id: topic.id,
            topic: topic.name.to_string(),
            partition,
        };
        let kind = GroupKind::Partition { identity, options: (self.placement.options_of)(image, topic) };
        let found = self.recovered.get(&group).filter(|found| found.damage.is_some()).cloned();
        Some(match self.open(group, replica, founders.to_vec(), kind.clone()) {
            Ok(opening) => Change::feed(opening),
            Err(error) => Change::Offline(error, found.and_then(|found| self.left(group, &found, &kind))),
        })
    }

    fn left(&self, group: GroupId, found: &RecoveredGroup, kind: &GroupKind) -> Option<Arc<PartitionView>> {
        let stopped = Stopped { disk: &self.disk, data: &self.placement.data, wal: &self.wal };
        remains::view(&stopped, group, found, kind)
    }

    /// Replicas in the log that the metadata, once it is complete, does not place here: their topics are gone.
    pub fn take_orphans(&mut self) -> Vec<(GroupId, ReplicaId)> {
        std::mem::take(&mut self.recovered).into_iter().map(|(group, found)| (group, found.replica)).collect()
    }

    fn open(
        &mut self,
        group: GroupId,
        replica: ReplicaId,
        voters: Vec<ReplicaId>,
        kind: GroupKind,
    ) -> Result<Event, OpenError> {
        let failed = |why| OpenError { group, why };
        let Some(found) = self.recovered.remove(&group).filter(|found| found.replica == replica) else {
            return Ok(new_group(group, replica, voters, kind));
        };
        if let Some(damage) = &found.damage {
            return Err(failed(Why::Damaged(damage.last_index)));
        }
        let mut local_checkpoints: Vec<LocalCheckpoint> =
            found.snapshots.iter().map(local_checkpoint).collect();
        let Start { state, applied, membership, earlier } = self.newest_state(group, &kind, &found.snapshots);
        let newest = local_checkpoints.last().map_or(LogIndex::ZERO, |newest| newest.index);
        if super::bugs::damaged_is_empty() && applied < newest {
            return Ok(new_group(group, replica, voters, kind));
        }
        // One that is damaged lets nothing be cut.
        local_checkpoints.retain(|checkpoint| checkpoint.index <= applied);
        if applied < found.truncated.0 {
            return Err(failed(Why::NoCheckpoint(found.truncated.0)));
        }
        let entries =
            self.entries_above(group, applied, found.last_index).map_err(|error| failed(error.into()))?;
        let hard_state = found.hard_state.unwrap_or_default();
        let membership = membership.unwrap_or_else(|| Membership::from(voters.clone()));
        let runs = self.runs_to(group, applied);
        let group = OpenGroup {
            group,
            replica,
            voters,
            kind,
            hard_state: PersistedHardState {
                term: hard_state.term,
                vote: hard_state.vote,
                commit: hard_state.commit,
            },
            truncated: found.truncated,
            local_start: self.local_start(group, &found, &state),
            log_bytes: self.log_bytes.remove(&group).unwrap_or(0),
            state,
            seals: found.seals.into_values().map(seal_mark).collect(),
            local_checkpoints,
            entries,
        };
        Ok(Event::Open(Box::new(Opening { group, membership, earlier, runs })))
    }

    /// The terms of the log up to `applied`: whoever leads sends entries from there, too.
    fn runs_to(&self, group: GroupId, applied: LogIndex) -> Vec<TermRun> {
        let terms = self.wal.terms(group).into_iter().take_while(|(start, _)| *start <= applied);
        terms.map(|(start, term)| TermRun { start, term }).collect()
    }

    /// The newest local checkpoint that reads back whole.
    fn newest_state(&self, group: GroupId, kind: &GroupKind, marks: &[wal::SnapshotMark]) -> Start {
        let marks: Vec<local::Mark> = marks.iter().map(local_mark).collect();
        let expected = expected(group, kind);
        let loaded = match local::load(&*self.disk, &self.placement.data, group, &expected, &marks) {
            Ok(loaded) => loaded,
            Err(LoadError::NeverWritten) => return Start::new(),
            Err(error @ LoadError::AllUnusable(_)) => {
                tracing::error!(%group, %error, "no local checkpoint can be used");
                return Start::new();
            }
        };
        for passed in &loaded.passed_over {
            tracing::error!(%group, file = passed.mark.file, why = %passed.why, "local checkpoint is damaged; the one before it is used");
        }
        match checkpoint::restore(loaded.checkpoint) {
            Ok(Decoded::Partition { header, state, members, .. }) => Start {
                earlier: members,
                ..Start::of(&header, GroupState::Partition(state), loaded.mark.index)
            },
            Ok(Decoded::Metadata { header, state }) => {
                Start::of(&header, GroupState::Metadata(state), loaded.mark.index)
            }
            Err(error) => {
                tracing::error!(%group, file = loaded.mark.file, %error, "local checkpoint does not restore");
                Start::new()
            }
        }
    }

    fn entries_above(
        &self,
        group: GroupId,
        applied: LogIndex,
        last: LogIndex,
    ) -> Result<Vec<LogEntry>, wal::ReadError> {
        let mut entries = Vec::new();
        let mut from = applied.next();
        while from <= last {
            let read = self.wal.entries(group, from, READ_BYTES)?;
            let Some(end) = read.last() else { break };
            from = end.index.next();
            entries.extend(read.into_iter().map(log_entry));
        }
        Ok(entries)
    }

    /// The first offset in the log; the state's end where the log holds no entry.
    fn local_start(&self, group: GroupId, found: &RecoveredGroup, state: &GroupState) -> Offset {
        let first =
            self.wal.entries(group, found.truncated.0.next(), 0).ok().and_then(|read| read.first().cloned());
        first.map(|entry| entry.offset).unwrap_or_else(|| match state {
            GroupState::Partition(state) => state.records().log_end,
            GroupState::New | GroupState::Metadata(_) => Offset::ZERO,
        })
    }
}

/// A state to start from.
struct Start {
    state: GroupState,
    applied: LogIndex,
    /// As of it; `None` where only the founders are known.
    membership: Option<Membership>,
    /// As of earlier entries.
    earlier: Vec<(LogIndex, Membership)>,
}

impl Start {
    const fn new() -> Self {
        Self { state: GroupState::New, applied: LogIndex::ZERO, membership: None, earlier: Vec::new() }
    }

    fn of(header: &CheckpointHeader, state: GroupState, applied: LogIndex) -> Self {
        let membership = Some(Seed::of(header).membership);
        Self { state, applied, membership, earlier: Vec::new() }
    }
}

fn new_group(group: GroupId, replica: ReplicaId, voters: Vec<ReplicaId>, kind: GroupKind) -> Event {
    // Whoever did not found it learns it.
    let membership = Membership::from(voters.clone()).seen_by(replica);
    let group = OpenGroup {
        group,
        replica,
        voters,
        kind,
        hard_state: PersistedHardState::default(),
        truncated: (LogIndex::ZERO, Term::ZERO),
        state: GroupState::New,
        seals: Vec::new(),
        local_checkpoints: Vec::new(),
        local_start: Offset::ZERO,
        log_bytes: 0,
        entries: Vec::new(),
    };
    Event::Open(Box::new(Opening { group, membership, earlier: Vec::new(), runs: Vec::new() }))
}

pub(super) fn expected(group: GroupId, kind: &GroupKind) -> Expected {
    let (cluster, incarnation, partition) = match kind {
        GroupKind::Metadata { cluster, incarnation } => (*cluster, *incarnation, None),
        GroupKind::Partition { identity, .. } => {
            (identity.cluster, identity.incarnation, Some((identity.topic_id, identity.partition)))
        }
    };
    Expected { cluster, incarnation, partition, group: Some(group) }
}

pub(super) fn local_mark(mark: &wal::SnapshotMark) -> local::Mark {
    local::Mark { index: mark.index, term: mark.term, file: mark.file.clone(), sha256: mark.sha256 }
}

pub(crate) fn local_checkpoint(mark: &wal::SnapshotMark) -> LocalCheckpoint {
    LocalCheckpoint { index: mark.index, term: mark.term, file: mark.file.clone(), sha256: mark.sha256 }
}

pub(crate) fn seal_mark(seal: wal::SealMark) -> SealMark {
    SealMark {
        base: seal.base,
        end: seal.end,
        first_index: seal.first_index,
        last_index: seal.last_index,
        last_term: seal.last_term,
        bytes: seal.bytes,
        sha256: seal.sha256,
    }
}

/// The same for the log.
pub(super) fn wal_seal(seal: SealMark) -> wal::SealMark {
    wal::SealMark {
        base: seal.base,
        end: seal.end,
        first_index: seal.first_index,
        last_index: seal.last_index,
        last_term: seal.last_term,
        bytes: seal.bytes,
        sha256: seal.sha256,
    }
}

pub(super) fn log_entry(entry: wal::Entry) -> LogEntry {
    LogEntry {
        index: entry.index,
        term: entry.term,
        kind: entry.kind,
        offset: entry.offset,
        data: entry.data,
    }
}
