//! A leaf of the manifest whose object is damaged, made again from what it named (TIERING.md 2: footers describe their
//! segments themselves).
//!
//! ```text
//! listing of the partition -> segments within the leaf's range -> chains of as many entries and bytes as the reference says
//!                          -> each read whole and verified -> the leaf's bytes -> the SHA-256 that the reference names, or nothing
//! ```
//! Nothing is guessed: what comes out is, byte for byte, the leaf that was sealed, or there is no answer. Beside what the
//! leaf named the listing may show what was replaced, or came of uploads that were given up; the digest tells them apart.

use std::collections::{BTreeMap, btree_map::Entry as Slot};

use varve_common::{Digest, Incarnation, ObjectKey, Offset, codec::DecodeError};
use varve_formats::{
    PartitionIdentity,
    keys::{Key, Keys, SegmentName},
    manifest::{Entry, FoldPlan, NodeReference},
    node::Node,
    segment,
};
use varve_objects::{Failure, GetError, Store};

use crate::{
    limits::{CHAIN_STEPS_MAX, CHAINS_MAX},
    upload::STORE_ID,
};

/// Why a leaf cannot be made again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RebuildError {
    /// The store: Retry by its failure.
    #[error(transparent)]
    Store(#[from] Failure),
    /// No segments in the bucket cover its range in as many objects and bytes: one is gone, or it is no leaf.
    #[error("the segments that it named are not all there")]
    Incomplete,
    /// A segment of its range does not read back either: that one is to be mended first.
    #[error("{key}: {cause}")]
    Damaged {
        /// Which.
        key: ObjectKey,
        /// What is wrong.
        cause: DecodeError,
    },
    /// What the segments say is not what the leaf said.
    #[error("the segments that are there are not those that it named")]
    Different,
}

/// A segment as a listing shows it.
#[derive(Clone, Debug)]
struct Listed {
    key: ObjectKey,
    name: SegmentName,
    bytes: u64,
}

/// Makes the leaf again that `reference` names.
pub async fn rebuild_leaf(
    store: &dyn Store,
    keys: &Keys,
    identity: &PartitionIdentity,
    reference: &NodeReference,
) -> Result<Node, RebuildError> {
    if reference.level != 0 {
        return Err(RebuildError::Incomplete);
    }
    let found = within(store, keys, identity, reference).await?;
    let chains = Chains::of(&found, reference);
    if chains.is_empty() {
        return Err(RebuildError::Incomplete);
    }
    let mut known = BTreeMap::new();
    let (mut damaged, mut identity) = (None, identity.clone());
    identity.incarnation = Incarnation(reference.incarnation);
    for chain in chains {
        let mut entries = Vec::with_capacity(chain.len());
        for listed in chain {
            match described(store, &identity, listed, &mut known).await? {
                Ok(entry) => entries.push(entry),
                Err(cause) => damaged = Some(RebuildError::Damaged { key: listed.key.clone(), cause }),
            }
        }
        let node = Node { identity: identity.clone(), body: FoldPlan::Leaf(entries) };
        let bytes = node.to_bytes();
        if bytes.len() as u64 == reference.length && Digest::of(&bytes) == reference.sha256 {
            return Ok(node);
        }
    }
    Err(damaged.unwrap_or(RebuildError::Different))
}

/// The partition's segments that lie in the leaf's range, by where they begin.
async fn within(
    store: &dyn Store,
    keys: &Keys,
    identity: &PartitionIdentity,
    reference: &NodeReference,
) -> Result<BTreeMap<Offset, Vec<Listed>>, Failure> {
    let folder = keys.partition(identity.topic_id, identity.partition);
    let (mut found, mut last) = (BTreeMap::<_, Vec<_>>::new(), None);
    loop {
        let page = store.list(&folder, last.as_ref()).await?;
        let Some(newest) = page.objects.last() else { break };
        last = Some(newest.key.clone());
        for listed in page.objects {
            let Ok(Key::Segment(_, name) | Key::MergedSegment(_, name)) = keys.parse(&listed.key) else {
                continue;
            };
            if reference.base <= name.base && name.last <= reference.last {
                let listed = Listed { key: listed.key, name, bytes: listed.bytes };
                found.entry(name.base).or_default().push(listed);
            }
        }
        if !page.more {
            break;
        }
    }
    Ok(found)
}

/// The entry that a segment's own footer makes of it; each object is read once.
async fn described(
    store: &dyn Store,
    identity: &PartitionIdentity,
    listed: &Listed,
    known: &mut BTreeMap<ObjectKey, Result<Entry, DecodeError>>,
) -> Result<Result<Entry, DecodeError>, Failure> {
    let slot = match known.entry(listed.key.clone()) {
        Slot::Occupied(known) => return Ok(known.get().clone()),
        Slot::Vacant(slot) => slot,
    };
    let wrong = |what| Err(DecodeError { what, position: 0 });
    let entry = match store.get(&listed.key).await {
        Err(GetError::Failed(failure)) => return Err(failure),
        Err(GetError::NotFound | GetError::OutOfRange(_)) => wrong("it was listed and is not there"),
        Ok(bytes) => match segment::verify(&bytes) {
            Err(cause) => Err(cause),
            Ok(verified) => {
                let footer = verified.footer;
                let range = (footer.base, footer.last) == (listed.name.base, listed.name.last);
                if range && footer.identity.same_partition(identity) {
                    Ok(footer.entry(listed.name, STORE_ID, bytes.len() as u64, Digest::of(&bytes)))
                } else {
                    wrong("a segment of another partition or range")
                }
            }
        },
    };
    Ok(slot.insert(entry).clone())
}

/// Ways through the leaf's range, from segment to segment.
struct Chains<'a> {
    found: &'a BTreeMap<Offset, Vec<Listed>>,
    reference: &'a NodeReference,
    chains: Vec<Vec<&'a Listed>>,
    steps: usize,
}

impl<'a> Chains<'a> {
    /// Those of as many segments and bytes as the reference says, up to the bounds.
    fn of(found: &'a BTreeMap<Offset, Vec<Listed>>, reference: &'a NodeReference) -> Vec<Vec<&'a Listed>> {
        let mut search = Self { found, reference, chains: Vec::new(), steps: 0 };
        let (mut way, mut bytes) = (Vec::new(), 0);
        // Where to go on at each depth: the number of the next choice.
        let mut choices = vec![0];
        while let Some(choice) = choices.pop() {
            search.steps += 1;
            if search.steps > CHAIN_STEPS_MAX || search.chains.len() >= CHAINS_MAX {
                break;
            }
            match search.step(&way, bytes, choice) {
                Some(next) => {
                    choices.push(choice + 1);
                    bytes += next.bytes;
                    way.push(next);
                    search.take(&way, bytes);
                    choices.push(0);
                }
                None => bytes -= way.pop().map_or(0, |last: &Listed| last.bytes),
            }
        }
        search.chains
    }

    fn step(&self, way: &[&Listed], bytes: u64, choice: usize) -> Option<&'a Listed> {
        let room = (way.len() as u64) < self.reference.entries && bytes < self.reference.segment_bytes;
        let next = way.last().map_or(self.reference.base, |last| last.name.last.next());
        self.found.get(&next).filter(|_| room)?.get(choice)
    }

    fn take(&mut self, way: &[&'a Listed], bytes: u64) {
        let whole = way.last().is_some_and(|last| last.name.last == self.reference.last)
            && way.len() as u64 == self.reference.entries
            && bytes == self.reference.segment_bytes;
        if whole {
            self.chains.push(way.to_vec());
        }
    }
}
