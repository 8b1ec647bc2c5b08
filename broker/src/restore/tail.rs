//! What lies behind the manifest of a checkpoint: segments that were put after it, found by listing, read whole, verified, and
//! taken as far as they go on without a gap.
//!
//! ```text
//!  manifest of the checkpoint |---|---|---|end
//!  listing from `end`                      |---|---|   |---|      the third does not follow: told, and left
//!                                          taken       beyond
//! ```
//! Only committed records are ever uploaded, so a segment that is whole counts, whether or not its append was committed. Of
//! two that begin at one offset both hold the same records; the newer term is taken, and the other one is tried where that
//! is damaged. Where a newer checkpoint is damaged, segments that it named may have been merged and removed since: there
//! what they were merged into counts as well. Compacted ones lack records, and never do.

use std::collections::BTreeMap;

use bytes::Bytes;
use varve_common::{Digest, ObjectKey, Offset};
use varve_formats::{
    PartitionIdentity,
    keys::{Key, Keys, PartitionKeys, SegmentName},
    manifest::{Entry, EntryKind, FoldPlan, NodeReference, Root},
    node::Node,
    segment::{self, SegmentState, VerifiedSegment},
};
use varve_objects::{Failure, GetError, Listed, Store};

use super::RestoreError;

/// The only store there is.
const STORE_ID: u16 = 0;
/// How often an object whose bytes are wrong is read: the way here may have spoiled it.
const READS_MAX: usize = 2;

/// A segment that was taken; its bytes where they are wanted.
pub(super) struct Segment {
    pub(super) entry: Entry,
    pub(super) state: SegmentState,
    pub(super) bytes: Bytes,
    pub(super) verified: VerifiedSegment,
}

/// What was found behind a manifest's end.
#[derive(Default)]
pub(super) struct Tail {
    pub(super) segments: Vec<Segment>,
    /// Objects that could have followed and are not whole, with what is wrong.
    pub(super) damaged: Vec<(ObjectKey, String)>,
    /// Objects that begin behind the end of all: something before them is missing.
    pub(super) beyond: usize,
}

/// A partition's objects in one life.
pub(super) struct Place<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) keys: &'a Keys,
    pub(super) identity: &'a PartitionIdentity,
    /// Whether the records of the tail are wanted, beside what they come to.
    pub(super) keeps_bytes: bool,
}

impl Place<'_> {
    const fn at(&self) -> PartitionKeys {
        PartitionKeys {
            topic_id: self.identity.topic_id,
            partition: self.identity.partition,
            incarnation: self.identity.incarnation,
        }
    }

    /// Follows the segments from `end` on.
    pub(super) async fn tail(&self, end: Offset, merged_too: bool) -> Result<Tail, RestoreError> {
        let mut found = self.listed(end).await?;
        if merged_too {
            let folder = format!("{}/mseg", self.keys.directory(self.at()));
            let merged = varve_snapshot::list_all(self.store, &folder).await?;
            collect(self.keys, merged, end, &mut found);
        }
        let (mut tail, mut next) = (Tail::default(), end);
        while let Some(candidates) = found.get(&next) {
            let mut taken = None;
            for (name, key) in candidates {
                match self.read(key, *name, merged_too).await? {
                    Ok(segment) => {
                        taken = Some(segment);
                        break;
                    }
                    Err(why) => tail.damaged.push((key.clone(), why)),
                }
            }
            let Some(segment) = taken else { break };
            next = segment.entry.end();
            tail.segments.push(segment);
        }
        tail.beyond = found.range(next..).map(|(_, candidates)| candidates.len()).sum::<usize>();
        let at_next = found.get(&next).map_or(0, Vec::len);
        tail.beyond -= at_next;
        Ok(tail)
    }

    /// Rolled segments that begin at `end` or behind it: names sort as their offsets do.
    async fn listed(&self, end: Offset) -> Result<Candidates, Failure> {
        let folder = self.keys.segments(self.at());
        let (mut found, mut last) = (Candidates::new(), ObjectKey::new(format!("{folder}/{:020}", end.0)));
        loop {
            let page = self.store.list(&folder, Some(&last)).await?;
            let Some(newest) = page.objects.last() else { return Ok(found) };
            last = newest.key.clone();
            collect(self.keys, page.objects, end, &mut found);
            if !page.more {
                return Ok(found);
            }
        }
    }

    /// Reads a segment whole; the inner error says why it does not count.
    async fn read(
        &self,
        key: &ObjectKey,
        name: SegmentName,
        merged_too: bool,
    ) -> Result<Result<Segment, String>, Failure> {
        let mut why = String::new();
        for _ in 0..READS_MAX {
            let bytes = match self.store.get(key).await {
                Ok(bytes) => bytes,
                Err(GetError::Failed(failure)) => return Err(failure),
                Err(error) => return Ok(Err(error.to_string())),
            };
            let verified = match segment::verify(&bytes) {
                Ok(verified) => verified,
                Err(error) => {
                    why = error.to_string();
                    continue;
                }
            };
            let footer = &verified.footer;
            let is_ours = footer.identity.same_partition(self.identity)
                && footer.identity.incarnation == self.identity.incarnation
                && (footer.base, footer.last) == (name.base, name.last);
            let counts = footer.kind == EntryKind::Raw || merged_too && footer.kind == EntryKind::Merged;
            if !is_ours || !counts {
                return Ok(Err("it is not what its key says".to_owned()));
            }
            let entry = footer.entry(name, STORE_ID, bytes.len() as u64, Digest::of(&bytes));
            let bytes = if self.keeps_bytes { bytes } else { Bytes::new() };
            return Ok(Ok(Segment { entry, state: verified.state.clone(), bytes, verified }));
        }
        Ok(Err(why))
    }

    /// What the last segment that a manifest names says of its end; `None` where it names none.
    pub(super) async fn state_at_end(&self, root: &Root) -> Result<Option<SegmentState>, RestoreError> {
        let entry = match (root.entries.last(), root.nodes.last()) {
            (Some(entry), _) => entry.clone(),
            (None, Some(node)) => self.last_below(node).await?,
            (None, None) => return Ok(None),
        };
        let (topic, partition) = (self.identity.topic_id, self.identity.partition);
        let unreadable = |key: &ObjectKey, why: String| RestoreError::Segment { key: key.clone(), why };
        let key = self.keys.entry(topic, partition, &entry).ok_or(RestoreError::Pack)?;
        let bytes = varve_objects::get_verified(self.store, &key, entry.length, entry.sha256)
            .await
            .map_err(|error| unreadable(&key, error.to_string()))?;
        let verified = segment::verify(&bytes).map_err(|error| unreadable(&key, error.to_string()))?;
        Ok(Some(verified.state))
    }

    async fn last_below(&self, node: &NodeReference) -> Result<Entry, RestoreError> {
        let mut reference = node.clone();
        loop {
            let key = self.keys.node(self.identity.topic_id, self.identity.partition, &reference);
            let unreadable = |why: String| RestoreError::Segment { key: key.clone(), why };
            let bytes = self.store.get(&key).await.map_err(|error| unreadable(error.to_string()))?;
            let node = Node::verify(&bytes, &reference, self.identity)
                .map_err(|error| unreadable(error.to_string()))?;
            match node.body {
                FoldPlan::Leaf(entries) => {
                    return entries.last().cloned().ok_or_else(|| unreadable("it names nothing".to_owned()));
                }
                FoldPlan::Inner { references, .. } => {
                    reference = references
                        .last()
                        .cloned()
                        .ok_or_else(|| unreadable("it names nothing".to_owned()))?;
                }
            }
        }
    }
}

/// Segments by where they begin, the one to try first in front.
type Candidates = BTreeMap<Offset, Vec<(SegmentName, ObjectKey)>>;

fn collect(keys: &Keys, objects: Vec<Listed>, end: Offset, found: &mut Candidates) {
    for listed in objects {
        let Ok(Key::Segment(_, name) | Key::MergedSegment(_, name)) = keys.parse(&listed.key) else {
            continue;
        };
        if name.base < end {
            continue;
        }
        let candidates = found.entry(name.base).or_default();
        candidates.push((name, listed.key));
        // The longest first: what was merged spares the small ones that are left.
        candidates.sort_by_key(|(name, _)| std::cmp::Reverse((name.last, name.term, name.uid)));
    }
}
