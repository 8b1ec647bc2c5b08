//! What the bucket holds of one partition.

use std::{fmt, ops::Range, sync::Arc};

use varve_common::{GroupId, LogIndex, Offset, PartitionIndex, Term};
use varve_formats::{
    PartitionIdentity,
    checkpoint::{CheckpointHeader, PartitionCheckpoint},
    keys::PartitionKeys,
    manifest::Root,
    segment::SegmentState,
};
use varve_replica::metadata::Topic;
use varve_snapshot::{
    ChooseError, Which,
    choose::{Candidate, Chosen, Damaged},
};
use varve_tiering::PartitionExtent;

use super::{History, HistoryError, Stop, Tail, Walk, chosen, remains::Remains, tail};

/// Offsets that no object has, before one that is there: it is still on its way, or lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole(pub Range<Offset>);

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what begins at {} does not follow on {}", self.0.end, self.0.start)
    }
}

/// One partition.
#[derive(Clone, Debug)]
pub struct PartitionHistory {
    /// Whose: the life that is read, and the topic's name in its metadata.
    pub identity: PartitionIdentity,
    /// Its Raft group.
    pub group: GroupId,
    /// The checkpoint that is used; `None` where none was ever published.
    pub checkpoint: Option<(Candidate, CheckpointHeader)>,
    /// What it says; nothing where there is none.
    pub state: PartitionCheckpoint,
    /// Newer checkpoints that were passed over.
    pub damaged: Vec<Damaged>,
    /// What lies behind the manifest's end.
    pub tail: Tail,
}

impl PartitionHistory {
    /// The directory of its keys in the life that is read.
    #[must_use]
    pub const fn at(&self) -> PartitionKeys {
        keys_of(&self.identity)
    }

    /// The first offset that readers may see.
    #[must_use]
    pub const fn log_start(&self) -> Offset {
        self.state.bucket.log_start
    }

    /// The end of what the bucket holds without a gap, the tail included.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.tail.segments.last().map_or_else(|| self.state.root.end(), |last| last.entry.end())
    }

    /// What is missing before an object that is there.
    #[must_use]
    pub const fn hole(&self) -> Option<Hole> {
        match self.tail.stop {
            Stop::Gap { end, next } => Some(Hole(end..next)),
            _ => None,
        }
    }

    /// Whether records of it were only on nodes when the checkpoint was made: what is missing here is a gap.
    #[must_use]
    pub fn records_were_local(&self) -> bool {
        self.checkpoint.as_ref().is_some_and(|(_, header)| header.records_local)
    }

    /// The end of the log as far as the checkpoint knows it: where that lies behind [`PartitionHistory::end`], records are
    /// missing here.
    #[must_use]
    pub fn known_end(&self) -> Offset {
        let checkpoint = self.checkpoint.as_ref().map_or(Offset::ZERO, |(_, header)| header.state.offset);
        let rolled = self.state.rolls.last().map_or(Offset::ZERO, |roll| roll.end);
        self.end().max(checkpoint).max(rolled)
    }

    /// The manifest with the tail behind it.
    #[must_use]
    pub fn root(&self) -> Root {
        let mut root = self.state.root.clone();
        root.entries.extend(self.tail.segments.iter().map(|segment| segment.entry.clone()));
        root
    }

    /// Producers, epochs and aborted transactions as of [`PartitionHistory::end`].
    #[must_use]
    pub fn state_at_end(&self) -> SegmentState {
        let PartitionCheckpoint { producers, aborted, epochs, .. } = &self.state;
        let mut aborted = aborted.clone();
        match &self.tail.state {
            None => SegmentState { producers: producers.clone(), aborted, epochs: epochs.clone() },
            Some(tail) => {
                aborted.extend(tail.aborted.iter().copied());
                SegmentState { aborted, ..tail.clone() }
            }
        }
    }

    /// For [`varve_tiering::ColdReader`].
    #[must_use]
    pub fn view(&self) -> View {
        let (identity, group, log_start) = (self.identity.clone(), self.group, self.log_start());
        View { identity, group, log_start, end: self.end(), root: Arc::new(self.root()) }
    }
}

/// A partition, tail included, as readers of the bucket take it.
#[derive(Clone, Debug)]
pub struct View {
    identity: PartitionIdentity,
    group: GroupId,
    log_start: Offset,
    end: Offset,
    root: Arc<Root>,
}

impl View {
    /// What a reader is given.
    #[must_use]
    pub const fn extent(&self) -> PartitionExtent<'_> {
        PartitionExtent {
            group: self.group,
            identity: &self.identity,
            log_start: self.log_start,
            root: &self.root,
            rolls: &[],
            seals: &[],
        }
    }

    /// Whose.
    #[must_use]
    pub const fn identity(&self) -> &PartitionIdentity {
        &self.identity
    }

    /// The first offset that can be read: what lies below the log start is not to be seen, and what was never brought here
    /// cannot be.
    #[must_use]
    pub fn start(&self) -> Offset {
        self.root.first().unwrap_or(self.end).max(self.log_start).min(self.end.max(self.log_start))
    }

    /// The first offset behind what can be read.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.end.max(self.log_start)
    }

    /// Nodes and entries, from the one that holds `from` on.
    #[must_use]
    pub fn walk<'a>(&'a self, history: &'a History, from: Offset) -> Walk<'a> {
        Walk::new(&**history.store(), history.keys(), &self.identity, &self.root, from)
    }
}

const fn keys_of(identity: &PartitionIdentity) -> PartitionKeys {
    let PartitionIdentity { topic_id, partition, incarnation, .. } = *identity;
    PartitionKeys { topic_id, partition, incarnation }
}

pub(super) async fn load(
    history: &History,
    topic: &Topic,
    partition: PartitionIndex,
) -> Result<PartitionHistory, HistoryError> {
    let (identity, group) = place_of(history, topic, partition)?;
    let which = Which::Partition(topic.id, partition);
    let of = format!("{}-{}", topic.name, partition.0);
    let found = chosen(&*history.store, &history.keys, which, history.incarnation, &of).await;
    let (checkpoint, state, damaged) = match found {
        Ok(Chosen { candidate, checkpoint, damaged }) => {
            // Its sections were read once already, to verify it.
            let state = PartitionCheckpoint::from_checkpoint(&checkpoint)
                .map_err(|error| HistoryError::Metadata { key: candidate.key.clone(), error })?;
            (Some((candidate, checkpoint.header)), state, damaged)
        }
        Err(HistoryError::Choose { error: ChooseError::NoneListed(folder), .. }) => {
            if !Remains::list(history, topic.id, partition).await?.are_unpublished() {
                return Err(HistoryError::Removed { of, folder });
            }
            (None, PartitionCheckpoint::default(), Vec::new())
        }
        Err(error) => return Err(error),
    };
    let after = after(&state, checkpoint.as_ref().map(|(_, header)| header));
    let from = tail::From { end: state.root.end(), log_start: state.bucket.log_start, after };
    let tail = tail::discover(history, &identity, from).await?;
    Ok(PartitionHistory { identity, group, checkpoint, state, damaged, tail })
}

/// Which partition, and its group.
pub(super) fn place_of(
    history: &History,
    topic: &Topic,
    partition: PartitionIndex,
) -> Result<(PartitionIdentity, GroupId), HistoryError> {
    let name = || topic.name.to_string();
    let place = usize::try_from(partition.0).ok().and_then(|place| topic.partitions.get(place));
    let place = place.ok_or_else(|| HistoryError::NoPartition { topic: name(), partition })?;
    let identity = PartitionIdentity {
        cluster: history.keys.cluster(),
        incarnation: history.incarnation,
        topic_id: topic.id,
        topic: name(),
        partition,
    };
    Ok((identity, place.group))
}

/// The roll and the term behind which a segment of the same lineage lies.
fn after(state: &PartitionCheckpoint, header: Option<&CheckpointHeader>) -> (LogIndex, Term) {
    let last = state.root.entries.last().map(|entry| (entry.roll_index, entry.terms.1));
    let known = header.filter(|header| header.state.offset <= state.root.end());
    let known = known.map(|header| (header.state.index, Term::ZERO));
    last.or(known).unwrap_or_default()
}
