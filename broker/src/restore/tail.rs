//! What a restore needs of segments beside what their manifest entries say.

use bytes::Bytes;
use varve_common::{LogIndex, ObjectKey};
use varve_compactor::history::{History, PartitionHistory, Stop};
use varve_formats::{
    batch::BatchHeader,
    manifest::{Entry, FoldPlan, NodeReference},
    node::Node,
    segment::{self, SegmentState},
};
use varve_objects::{Failure, GetError};
use varve_replica::coordinator::Groups;
use varve_tiering::budget::Reservation;

use super::RestoreError;

/// A store that does not answer is no damage.
fn unread(key: ObjectKey, error: GetError) -> RestoreError {
    match error {
        GetError::Failed(failure) if !matches!(failure, Failure::Corrupt(_)) => failure.into(),
        error => RestoreError::Segment { key, why: error.to_string() },
    }
}

/// Segments of one partition.
pub(super) struct Segments<'a> {
    pub(super) history: &'a History,
    pub(super) of: &'a PartitionHistory,
}

impl Segments<'_> {
    /// What the last segment says of its end: the checkpoint may be as of an earlier one. `None` where there is none.
    pub(super) async fn state_at_end(&self) -> Result<Option<SegmentState>, RestoreError> {
        let root = self.of.root();
        let entry = match (root.entries.last(), root.nodes.last()) {
            (Some(entry), _) => entry.clone(),
            (None, Some(node)) => self.last_below(node).await?,
            (None, None) => return Ok(None),
        };
        let (key, bytes, _held) = self.read(&entry).await?;
        let verified =
            segment::verify(&bytes).map_err(|error| RestoreError::Segment { key, why: error.to_string() })?;
        Ok(Some(verified.state))
    }

    async fn read(&self, entry: &Entry) -> Result<(ObjectKey, Bytes, Reservation), RestoreError> {
        let held = self.history.memory().reserve(entry.length).await;
        let (topic, partition) = (self.of.identity.topic_id, self.of.identity.partition);
        let key = self.history.keys().entry(topic, partition, entry).ok_or(RestoreError::Pack)?;
        match varve_objects::get_verified(&**self.history.store(), &key, entry.length, entry.sha256).await {
            Ok(bytes) => Ok((key, bytes, held)),
            Err(error) => Err(unread(key, error)),
        }
    }

    async fn last_below(&self, node: &NodeReference) -> Result<Entry, RestoreError> {
        let (store, identity) = (self.history.store(), &self.of.identity);
        let mut reference = node.clone();
        loop {
            let key = self.history.keys().node(identity.topic_id, identity.partition, &reference);
            let unreadable = |why: String| RestoreError::Segment { key: key.clone(), why };
            let bytes = store.get(&key).await.map_err(|error| unread(key.clone(), error))?;
            let node =
                Node::verify(&bytes, &reference, identity).map_err(|error| unreadable(error.to_string()))?;
            let empty = || unreadable("it names nothing".to_owned());
            match node.body {
                FoldPlan::Leaf(entries) => return entries.last().cloned().ok_or_else(empty),
                FoldPlan::Inner { references, .. } => {
                    reference = references.last().cloned().ok_or_else(empty)?;
                }
            }
        }
    }

    /// Commits that came after the checkpoint: groups are as of A, and segments that end behind A say more. Each record says
    /// all of its key, so that one which is taken in again changes nothing, as long as those behind it follow.
    pub(super) async fn replay(&self, groups: &mut Groups, applied: LogIndex) -> Result<(), RestoreError> {
        let behind = self.of.tail.segments.iter().filter(|segment| segment.entry.roll_index > applied);
        for segment in behind {
            let (key, bytes, _held) = self.read(&segment.entry).await?;
            let damaged = |error: varve_common::codec::DecodeError| RestoreError::Segment {
                key: key.clone(),
                why: error.to_string(),
            };
            let verified = segment::verify(&bytes).map_err(damaged)?;
            for block in &verified.index.blocks {
                let range = block.range();
                let stored = bytes.slice(range.start as usize..range.end as usize);
                let mut raw = segment::decode_block(stored, block).map_err(damaged)?;
                while let Ok(header) = BatchHeader::read(&raw) {
                    groups.apply(&raw.split_to(header.bytes));
                }
            }
        }
        Ok(())
    }
}

/// What is wrong with what lies behind the end.
pub(super) fn stopped(stop: &Stop) -> Option<String> {
    match stop {
        Stop::End | Stop::Gap { .. } => None,
        Stop::Fork { base, keys } => {
            let keys: Vec<&str> = keys.iter().map(ObjectKey::as_str).collect();
            Some(format!("objects at {base} overlap and do not agree: {}", keys.join(", ")))
        }
        Stop::Broken { key, trouble } => Some(format!("{key}: {trouble}; nothing behind it follows")),
        Stop::Stray(key) => Some(format!("{key} is of another lineage")),
    }
}
