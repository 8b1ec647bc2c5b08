//! Deletes what tombstones name (TIERING.md 9). Whether it may go is decided and checked before.

use std::collections::BTreeSet;

use varve_common::{ObjectKey, clock::BoxFuture, codec::DecodeError};
use varve_formats::{
    PartitionIdentity,
    keys::Keys,
    manifest::{FoldPlan, NodeReference},
    node::Node,
    state::Tombstone,
};
use varve_objects::{Failure, GetError, Store};

/// Why an object is not known to be gone.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// The store: Retry by its failure.
    #[error("{key}: {failure}")]
    Store {
        /// Which object.
        key: ObjectKey,
        /// What it said.
        failure: Failure,
    },
    /// A node cannot be read, so that what it names cannot be found: the operator, or the daily listing.
    #[error("manifest node {key}: {cause}")]
    Corrupt {
        /// Which node.
        key: ObjectKey,
        /// What is wrong.
        cause: DecodeError,
    },
    /// A node that the manifest names is not there: scrub makes it again, or the operator; or it gave way to another just now.
    #[error("manifest node {key} is gone")]
    Gone {
        /// Which node.
        key: ObjectKey,
    },
}

/// Deletes objects of one partition.
pub struct Remover<'a> {
    store: &'a dyn Store,
    keys: &'a Keys,
    identity: &'a PartitionIdentity,
}

impl<'a> Remover<'a> {
    /// Deletes objects of `identity` from `store`.
    #[must_use]
    pub const fn new(store: &'a dyn Store, keys: &'a Keys, identity: &'a PartitionIdentity) -> Self {
        Self { store, keys, identity }
    }

    /// Deletes what a tombstone stands for: for a node, all that it names first and the node last, so that a crash in
    /// between leaves what is needed to go on. Missing objects are fine.
    pub async fn remove(&self, tombstone: &Tombstone) -> Result<(), RemoveError> {
        let key = self.keys.tombstone(self.identity.topic_id, self.identity.partition, tombstone);
        let Some(key) = key else { return Ok(()) };
        match tombstone.node_level {
            None => self.delete(key).await,
            // What it named another one names.
            Some(_) if tombstone.alone => self.delete(key).await,
            Some(level) => {
                let Some(node) = self.node(&key, level).await? else { return Ok(()) };
                self.remove_node(key, node).await
            }
        }
    }

    /// The uids of all that a node names, nodes below it included. One that is gone is an error: what it named cannot be told
    /// from what nothing names.
    pub fn named_below<'b>(
        &'b self,
        reference: &'b NodeReference,
    ) -> BoxFuture<'b, Result<BTreeSet<u64>, RemoveError>> {
        Box::pin(async move {
            let key = self.keys.node(self.identity.topic_id, self.identity.partition, reference);
            let Some(node) = self.node(&key, reference.level).await? else {
                return Err(RemoveError::Gone { key });
            };
            match node.body {
                FoldPlan::Leaf(entries) => Ok(entries.iter().map(|entry| entry.uid).collect()),
                FoldPlan::Inner { references, .. } => {
                    let mut uids: BTreeSet<u64> = references.iter().map(|below| below.uid).collect();
                    for below in &references {
                        uids.extend(self.named_below(below).await?);
                    }
                    Ok(uids)
                }
            }
        })
    }

    fn remove_node(&self, key: ObjectKey, node: Node) -> BoxFuture<'_, Result<(), RemoveError>> {
        Box::pin(async move {
            match node.body {
                FoldPlan::Leaf(entries) => {
                    for entry in &entries {
                        // Packs, which are shared, have no key of their own: nobody deletes them here.
                        let (topic, partition) = (self.identity.topic_id, self.identity.partition);
                        if let Some(key) = self.keys.entry(topic, partition, entry) {
                            self.delete(key).await?;
                        }
                    }
                }
                FoldPlan::Inner { references, .. } => {
                    for reference in &references {
                        self.remove_below(reference).await?;
                    }
                }
            }
            self.delete(key).await
        })
    }

    async fn remove_below(&self, reference: &NodeReference) -> Result<(), RemoveError> {
        let key = self.keys.node(self.identity.topic_id, self.identity.partition, reference);
        match self.node(&key, reference.level).await? {
            Some(node) => self.remove_node(key, node).await,
            None => Ok(()),
        }
    }

    /// A node; `None` where it, and so all that it named, is gone.
    async fn node(&self, key: &ObjectKey, level: u8) -> Result<Option<Node>, RemoveError> {
        let corrupt = |cause| RemoveError::Corrupt { key: key.clone(), cause };
        let bytes = match self.store.get(key).await {
            Ok(bytes) => bytes,
            Err(GetError::NotFound) => return Ok(None),
            Err(GetError::Failed(failure)) => return Err(RemoveError::Store { key: key.clone(), failure }),
            Err(GetError::OutOfRange(_)) => {
                return Err(corrupt(DecodeError { what: "a whole object is out of range", position: 0 }));
            }
        };
        let node = Node::from_bytes(&bytes).map_err(corrupt)?;
        if !node.identity.same_partition(self.identity) || node.body.level() != level {
            return Err(corrupt(DecodeError { what: "a node of another partition or level", position: 0 }));
        }
        Ok(Some(node))
    }

    async fn delete(&self, key: ObjectKey) -> Result<(), RemoveError> {
        self.store.delete(&key).await.map_err(|failure| RemoveError::Store { key, failure })
    }
}
