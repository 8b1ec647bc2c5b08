//! A closed leaf of the manifest gives way to another: because its object is damaged, or a segment that it names is, or
//! several of its segments become one. The old one stays until no checkpoint names it; that is not decided here.

use varve_common::{GroupId, codec::DecodeError};
use varve_formats::{
    PartitionIdentity,
    manifest::{Entry, FoldPlan, NodeReference},
    node::Node,
    state::Intent,
};
use varve_objects::{Class, Failure, GetError, PutError, get_verified};
use varve_replica::{Mended, SealMark};
use varve_tiering::{MergeError, RebuildError, UploadError, UploadKey, put_node, rebuild_leaf};

use super::Surroundings;

/// Why a leaf stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// Its object does not read back, and cannot be made again.
    #[error("the leaf cannot be made again: {0}")]
    Rebuild(#[from] RebuildError),
    /// The store does not give it.
    #[error(transparent)]
    Store(#[from] Failure),
    /// It is not damaged.
    #[error("the leaf reads back")]
    Whole,
    /// It is, and has to be made again first.
    #[error("the leaf is damaged")]
    Damaged,
    /// It names no run of entries over this range.
    #[error("the leaf names no segments from {0} on that end where the range ends")]
    NoSuchRun(varve_common::Offset),
    /// A segment of it could not be put there once more.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// Segments of it could not be merged.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The new leaf was not taken.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl Surroundings {
    /// Puts a leaf that can take the place of `leaf`, and what it names instead.
    pub(super) async fn mend(
        &self,
        group: GroupId,
        identity: &PartitionIdentity,
        uid: u64,
        leaf: &NodeReference,
        range: Option<(Intent, Option<SealMark>)>,
    ) -> Result<Mended, MendError> {
        let (node, range) = match (self.leaf(identity, leaf).await?, range) {
            (Some(_), None) => return Err(MendError::Whole),
            (Some(node), Some(range)) => (node, Some(range)),
            (None, None) => {
                (rebuild_leaf(&*self.stores.of(Class::Scrub), &self.keys, identity, leaf).await?, None)
            }
            // To make it again is scrub's: it reads all that the leaf names.
            (None, Some(_)) => return Err(MendError::Damaged),
        };
        let FoldPlan::Leaf(mut entries) = node.body else { return Err(RebuildError::Incomplete.into()) };
        let exchanged = match range {
            None => None,
            Some((intent, seal)) => {
                let run = run_over(&entries, &intent)?;
                let gone = entries[run.clone()].to_vec();
                let entry = self.replacing(group, identity, intent, &gone, seal).await?;
                entries.splice(run, [entry.clone()]);
                Some((gone, entry))
            }
        };
        let is_merge = exchanged.as_ref().is_some_and(|(gone, _)| gone.len() > 1);
        let store = self.stores.of(if is_merge { Class::Merge } else { Class::Scrub });
        let node = put_node(&*store, &self.keys, identity, FoldPlan::Leaf(entries), uid).await?;
        Ok(Mended { removed: leaf.uid, node, exchanged })
    }

    /// The leaf; `None` where its object is not what the reference names.
    async fn leaf(
        &self,
        identity: &PartitionIdentity,
        leaf: &NodeReference,
    ) -> Result<Option<Node>, MendError> {
        let key = self.keys.node(identity.topic_id, identity.partition, leaf);
        let store = self.stores.of(Class::Scrub);
        match get_verified(&*store, &key, leaf.length, leaf.sha256).await {
            Ok(bytes) => {
                let node = Node::verify(&bytes, leaf, identity);
                node.map(Some).or_else(|DecodeError { what, .. }| {
                    tracing::error!(%key, what, "manifest node is damaged");
                    Ok(None)
                })
            }
            Err(GetError::NotFound | GetError::OutOfRange(_) | GetError::Failed(Failure::Corrupt(_))) => {
                Ok(None)
            }
            Err(GetError::Failed(failure)) => Err(failure.into()),
        }
    }

    /// What stands in the place of `gone`: one that is put there once more, or several that become one.
    async fn replacing(
        &self,
        group: GroupId,
        identity: &PartitionIdentity,
        intent: Intent,
        gone: &[Entry],
        seal: Option<SealMark>,
    ) -> Result<Entry, MendError> {
        if let [entry] = gone {
            return Ok(self.restore(group, identity.clone(), intent, entry, seal).await?);
        }
        let key = UploadKey { term: intent.term, uid: intent.uid };
        Ok(self.uploaders.merges.merge(identity, gone, key).await?)
    }
}

/// The entries that begin and end where the intent's range does.
fn run_over(entries: &[Entry], intent: &Intent) -> Result<std::ops::Range<usize>, MendError> {
    let first = entries.iter().position(|entry| entry.base == intent.base);
    let last = entries.iter().position(|entry| entry.end() == intent.end);
    match (first, last) {
        (Some(first), Some(last)) if first <= last => Ok(first..last + 1),
        _ => Err(MendError::NoSuchRun(intent.base)),
    }
}
