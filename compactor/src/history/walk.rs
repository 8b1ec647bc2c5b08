//! A manifest, entry by entry, whatever its size: of each level one node is held.
//!
//! ```text
//! root  [node 1][node 0][node 0][entry][entry]      a stack: the first place that is left lies on top
//!          └ [node 0][node 0]…                      a node that is opened gives its place to what it holds
//! ```

use varve_common::Offset;
use varve_formats::{
    PartitionIdentity,
    keys::Keys,
    manifest::{Entry, FoldPlan, NodeReference, Root, Sums},
    node::Node,
};
use varve_objects::{Store, get_verified};

use super::Trouble;

/// What a walk comes by, in the order of offsets; a node before what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A node, read and verified, and what it holds in sum.
    Node(NodeReference, Sums),
    /// A node that cannot be read: what lies below it is not shown.
    Unreadable(NodeReference, Trouble),
    /// A range in a segment.
    Entry(Entry),
}

pub(super) enum Place {
    Node(NodeReference),
    Entry(Entry),
}

/// See the module.
pub struct Walk<'a> {
    store: &'a dyn Store,
    keys: &'a Keys,
    identity: &'a PartitionIdentity,
    from: Offset,
    pub(super) places: Vec<Place>,
    passed_ms: i64,
}

impl<'a> Walk<'a> {
    /// Walks over what `root` names of this partition from the place that holds `from` on.
    #[must_use]
    pub fn new(
        store: &'a dyn Store,
        keys: &'a Keys,
        identity: &'a PartitionIdentity,
        root: &Root,
        from: Offset,
    ) -> Self {
        let mut walk = Self { store, keys, identity, from, places: Vec::new(), passed_ms: -1 };
        walk.take(root.entries.iter().cloned().map(Place::Entry));
        walk.take(root.nodes.iter().cloned().map(Place::Node));
        walk
    }

    fn take(&mut self, places: impl DoubleEndedIterator<Item = Place>) {
        for place in places.rev() {
            let (end, newest_ms) = match &place {
                Place::Node(node) => (node.end(), node.max_timestamp),
                Place::Entry(entry) => (entry.end(), entry.max_timestamp),
            };
            if end > self.from {
                self.places.push(place);
            } else {
                self.passed_ms = self.passed_ms.max(newest_ms);
            }
        }
    }

    /// The largest timestamp of what lies wholly before where the walk began, known once its first entry was shown; -1 where
    /// there is none.
    #[must_use]
    pub const fn passed_ms(&self) -> i64 {
        self.passed_ms
    }

    /// The next; `None` at the end.
    pub async fn next(&mut self) -> Option<Found> {
        let reference = match self.places.pop()? {
            Place::Entry(entry) => return Some(Found::Entry(entry)),
            Place::Node(reference) => reference,
        };
        let body = match self.read(&reference).await {
            Ok(body) => body,
            Err(trouble) => return Some(Found::Unreadable(reference, trouble)),
        };
        let sums = body.sums();
        match body {
            FoldPlan::Leaf(entries) => self.take(entries.into_iter().map(Place::Entry)),
            FoldPlan::Inner { references, .. } => self.take(references.into_iter().map(Place::Node)),
        }
        Some(Found::Node(reference, sums))
    }

    async fn read(&self, reference: &NodeReference) -> Result<FoldPlan, Trouble> {
        let key = self.keys.node(self.identity.topic_id, self.identity.partition, reference);
        let bytes = get_verified(self.store, &key, reference.length, reference.sha256).await?;
        Ok(Node::verify(&bytes, reference, self.identity)?.body)
    }
}
