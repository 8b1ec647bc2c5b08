//! What the names of a partition's objects tell, where no checkpoint of it is listed.
//!
//! A group that has nothing to say publishes nothing: a partition that never held a record has no object, in no life. One that
//! was created lately has its first segments, from offset 0 on, before its first checkpoint, and none of them goes before two
//! of these are there. A partition that a restore has carried over has had a checkpoint since its life was complete. So where
//! there is more than such segments, or less, and no checkpoint, it was removed: that is damage, and never "empty".

use std::{collections::BTreeMap, ops::Range};

use varve_common::{Offset, PartitionIndex, TopicId};
use varve_formats::{
    checkpoint::{CheckpointHeader, PEEK_BYTES, PartitionCheckpoint},
    keys::{CheckpointName, Key},
    manifest::Root,
};
use varve_objects::{Failure, GetError, Listed};
use varve_replica::metadata::Topic;

use super::{
    History, HistoryError, PartitionHistory, Tail, partition,
    tail::{self, NAMES_MAX},
};

/// What is there of one partition, in the life that is read and those before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Remains {
    /// Where segments of this life as they were rolled begin and end.
    rolled: BTreeMap<Offset, Offset>,
    /// Where what was made of them ends.
    made_end: Offset,
    /// Where what earlier lives have of it ends.
    older_end: Option<Offset>,
    /// Checkpoints of this life.
    checkpoints: Vec<(Listed, CheckpointName)>,
}

impl Remains {
    /// Lists what there is.
    pub(super) async fn list(
        history: &History,
        topic_id: TopicId,
        partition: PartitionIndex,
    ) -> Result<Self, Failure> {
        let folder = history.keys.partition(topic_id, partition);
        let (mut remains, mut last) = (Self::default(), None);
        loop {
            let page = history.store.list(&folder, last.as_ref()).await?;
            for listed in &page.objects {
                if let Ok(key) = history.keys.parse(&listed.key) {
                    remains.take(history, listed, &key);
                }
            }
            if remains.rolled.len() > NAMES_MAX {
                return Err(Failure::Invalid(format!("{folder}: more than {NAMES_MAX} objects")));
            }
            match page.objects.last() {
                Some(newest) if page.more => last = Some(newest.key.clone()),
                _ => return Ok(remains),
            }
        }
    }

    fn take(&mut self, history: &History, listed: &Listed, key: &Key) {
        let (Key::Segment(at, _) | Key::MergedSegment(at, _) | Key::Node(at, _) | Key::Checkpoint(at, _)) =
            key
        else {
            return;
        };
        if at.incarnation > history.incarnation {
            return;
        }
        let end = match key {
            Key::Segment(_, name) | Key::MergedSegment(_, name) => name.last.next(),
            Key::Node(_, name) => name.last.next(),
            _ => Offset::ZERO,
        };
        match key {
            _ if at.incarnation < history.incarnation => {
                self.older_end = Some(self.older_end.unwrap_or_default().max(end));
            }
            Key::Segment(_, name) => {
                let known = self.rolled.entry(name.base).or_default();
                *known = end.max(*known);
            }
            Key::Checkpoint(_, name) => self.checkpoints.push((listed.clone(), *name)),
            _ => self.made_end = self.made_end.max(end),
        }
    }

    /// The runs of rolled segments that follow on each other.
    fn runs(&self) -> Vec<Range<Offset>> {
        let mut runs = Vec::<Range<Offset>>::new();
        for (base, end) in &self.rolled {
            match runs.last_mut() {
                Some(run) if *base <= run.end => run.end = run.end.max(*end),
                _ => runs.push(*base..*end),
            }
        }
        runs
    }

    /// Behind every offset that is known to have been given out: by names, and by what damaged checkpoints still say of
    /// themselves.
    async fn end(&self, history: &History) -> Result<Offset, Failure> {
        let run = self.runs().last().map_or(Offset::ZERO, |run| run.end);
        let mut end = run.max(self.made_end).max(self.older_end.unwrap_or_default());
        for (listed, name) in &self.checkpoints {
            let range = 0..listed.bytes.min(PEEK_BYTES);
            let beginning = match history.store.get_range(&listed.key, range).await {
                Ok(beginning) => beginning,
                Err(GetError::Failed(failure)) if !matches!(failure, Failure::Corrupt(_)) => {
                    return Err(failure);
                }
                Err(_) => continue,
            };
            // A header that does not even say what its name says is not listened to.
            if let Ok(header) = CheckpointHeader::peek(beginning)
                && (header.applied.index, header.applied.term) == (name.applied_index, name.term)
            {
                end = end.max(header.state.offset);
            }
        }
        Ok(end)
    }

    /// Whether there never was a checkpoint: nothing is there, or segments from the first record on, as far as anything was made
    /// of them. One of them may be missing that was still to be uploaded.
    pub(super) fn are_unpublished(&self) -> bool {
        let run = self.runs().first().cloned().unwrap_or_default();
        self.older_end.is_none() && run.start == Offset::ZERO && self.made_end <= run.end
    }
}

/// A partition of which no manifest is left: the newest segments that follow on each other, where nothing was given out behind
/// them; else nothing, behind all that was.
pub(super) async fn load(
    history: &History,
    topic: &Topic,
    partition: PartitionIndex,
) -> Result<PartitionHistory, HistoryError> {
    let (identity, group) = partition::place_of(history, topic, partition)?;
    let remains = Remains::list(history, topic.id, partition).await?;
    let end = remains.end(history).await?;
    let (mut start, mut tail) = (end, Tail::default());
    if let Some(run) = remains.runs().pop().filter(|run| run.end == end) {
        let from = tail::From { end: run.start, log_start: run.start, after: Default::default() };
        let found = tail::discover(history, &identity, from).await?;
        if found.segments.last().is_some_and(|last| last.entry.end() == end) {
            (start, tail) = (run.start, found);
        }
    }
    let mut state = PartitionCheckpoint::default();
    state.bucket.log_start = start;
    state.root = Root { start, ..Root::default() };
    Ok(PartitionHistory { identity, group, checkpoint: None, state, damaged: Vec::new(), tail })
}
