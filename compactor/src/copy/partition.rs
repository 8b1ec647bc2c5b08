//! One partition: its segments, the nodes that name them, its checkpoint, its tail.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use varve_common::{Digest, ObjectKey, Offset, PartitionIndex, TopicId, clock::BoxFuture};
use varve_formats::{
    PartitionIdentity,
    checkpoint::{PartitionCheckpoint, SectionId},
    command::PublishedCheckpoint,
    keys::{Key, PartitionKeys},
    manifest::{Entry, FoldPlan, NodeReference, Root},
    node::Node,
    state::{Intent, Tombstone},
};
use varve_objects::{Put, PutError, get_verified, put_or_confirm};
use varve_replica::metadata::Topic;
use varve_snapshot::{ChooseError, choose};
use varve_tiering::budget::Reservation;

use super::*;
use crate::history::{Hole, PartitionHistory, Stop, Tail};

/// How often a partition is looked at anew because something of it was gone: brokers that run merge and retain.
const LOOKS_MAX: usize = 8;
/// How long it is waited between looks at a hole behind which something lies: uploads of a partition are under way side by side, and
/// what is overtaken comes within a request's time. Where the last two looks see the same, nobody uploads there any more.
const HOLE_WAITS: [Duration; 4] =
    [Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8), Duration::from_secs(16)];

/// A partition that was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedPartition {
    /// Its topic.
    pub topic: String,
    /// Its topic's id.
    pub topic_id: TopicId,
    /// Its number.
    pub partition: PartitionIndex,
    /// The first offset that readers may see.
    pub start: Offset,
    /// The end of what was copied.
    pub end: Offset,
    /// Why that is not all: what lies behind it was not copied.
    pub left: Option<Hole>,
}

impl Copier {
    /// Copies what the source holds of a partition now.
    pub async fn partition(
        &self,
        topic: &Topic,
        number: PartitionIndex,
    ) -> Result<CopiedPartition, CopyError> {
        let mut gone: Option<(CopyError, Sight)> = None;
        // What one look has copied is there for the next.
        let again = Self { resumes: true, ..self.clone() };
        for look in 0..LOOKS_MAX {
            let (found, _place) = self.look(topic, number).await?;
            // Two looks that saw the same: it is lost.
            if let Some((error, before)) = gone.take()
                && before == Sight::of(&found)
            {
                return Err(error);
            }
            let copier = if look == 0 { self } else { &again };
            match copier.copy(&found).await {
                Ok(()) => {
                    let view = found.view();
                    return Ok(CopiedPartition {
                        topic: topic.name.to_string(),
                        topic_id: topic.id,
                        partition: number,
                        start: view.start(),
                        end: view.end(),
                        left: found.hole(),
                    });
                }
                Err(error @ CopyError::Source { trouble: Trouble::Missing, .. }) => {
                    gone = Some((error, Sight::of(&found)))
                }
                Err(error) => return Err(error),
            }
        }
        Err(gone.expect("every look but the last ended otherwise").0)
    }

    /// What the source holds of it, where nothing is on its way any more. What is before a hole is copied where nothing came of that
    /// partition since the look before, as it is restored in place: the source has ended. So it is before another hole, for a source
    /// that writes may be ever about to fill one. Where it goes on, and the hole stays, what is missing there may still come, or is lost.
    ///
    /// It comes with a place among those that are copied at once; who waits has none, for after a cluster's end many may have to.
    async fn look(
        &self,
        topic: &Topic,
        number: PartitionIndex,
    ) -> Result<(PartitionHistory, Reservation), CopyError> {
        let mut waits = HOLE_WAITS.into_iter();
        let mut before: Option<(Hole, Sight)> = None;
        loop {
            let place = self.places.reserve(1).await;
            let found = self.source.partition(topic, number).await?;
            let Some(hole) = found.hole() else { return Ok((found, place)) };
            let sight = Sight::of(&found);
            let Some(wait) = waits.next() else {
                return match before {
                    Some((seen, before)) if seen.0.start == hole.0.start && before != sight => {
                        Err(CopyError::Hole { of: format!("{}-{number}", topic.name), missing: hole.0 })
                    }
                    _ => Ok((found, place)),
                };
            };
            before = Some((hole, sight));
            drop((found, place));
            self.clock.sleep(wait).await;
        }
    }

    async fn copy(&self, found: &PartitionHistory) -> Result<(), CopyError> {
        broken(&found.tail.stop)?;
        if let Some(from) = candidate(found) {
            self.checkpoint(found, from).await?;
        }
        let tail = found.tail.segments.iter().map(|segment| segment.entry.clone());
        self.segments(&found.identity, tail.collect()).await.map(drop)
    }

    /// The checkpoint, after all that it names. Where an earlier try has put it all of that is there.
    async fn checkpoint(&self, found: &PartitionHistory, from: &ObjectKey) -> Result<(), CopyError> {
        let unreadable = |trouble| CopyError::Source { key: from.clone(), trouble };
        let Ok(Key::Checkpoint(at, name)) = self.source.keys().parse(from) else {
            return Err(unreadable(Trouble::Damaged("it is no checkpoint of a partition".to_owned())));
        };
        let to = self.keys.build(&Key::Checkpoint(PartitionKeys { incarnation: LIFE, ..at }, name));
        if self.resumes && self.has(&to).await? {
            return Ok(());
        }
        let read = choose::read(&**self.source.store(), self.source.keys(), from).await;
        let mut checkpoint = match read {
            Ok(Ok(checkpoint)) => checkpoint,
            Ok(Err(damage)) => return Err(unreadable(Trouble::Damaged(damage.to_string()))),
            Err(ChooseError::Vanished(_)) => return Err(unreadable(Trouble::Missing)),
            Err(ChooseError::Store(failure)) => return Err(unreadable(Trouble::Unread(failure))),
            Err(error) => return Err(unreadable(Trouble::Damaged(error.to_string()))),
        };
        let state = PartitionCheckpoint::from_checkpoint(&checkpoint).map_err(|e| unreadable(e.into()))?;
        let root = self.root(&found.identity, &state.root).await?;
        checkpoint.put(SectionId::MANIFEST_ROOT, &root);
        // What these name is not copied: uploads under way, what waits to be deleted, older checkpoints.
        checkpoint.put(SectionId::INTENTS, &Vec::<Intent>::new());
        checkpoint.put(SectionId::TOMBSTONES, &Vec::<Tombstone>::new());
        checkpoint.put(SectionId::PUBLISHED, &Vec::<PublishedCheckpoint>::new());
        // Nor are files for other systems: the copy makes its own, from its first offset on.
        checkpoint.sections.remove(&SectionId::ARCHIVE);
        checkpoint.header.identity.cluster = self.keys.cluster();
        checkpoint.header.identity.incarnation = LIFE;
        self.publish(to, &checkpoint).await
    }

    async fn root(&self, identity: &PartitionIdentity, root: &Root) -> Result<Root, CopyError> {
        let mut nodes = Vec::with_capacity(root.nodes.len());
        for node in &root.nodes {
            nodes.push(self.node(identity, node).await?);
        }
        let entries = self.segments(identity, root.entries.clone()).await?;
        Ok(Root { start: root.start, nodes, entries })
    }

    /// A node, after all below it.
    fn node<'a>(
        &'a self,
        identity: &'a PartitionIdentity,
        reference: &'a NodeReference,
    ) -> BoxFuture<'a, Result<NodeReference, CopyError>> {
        Box::pin(async move {
            let (topic, partition) = (identity.topic_id, identity.partition);
            let from = self.source.keys().node(topic, partition, reference);
            let unreadable = |trouble| CopyError::Source { key: from.clone(), trouble };
            let store = &**self.source.store();
            let bytes = get_verified(store, &from, reference.length, reference.sha256).await;
            let bytes = bytes.map_err(|error| unreadable(error.into()))?;
            let mut node =
                Node::verify(&bytes, reference, identity).map_err(|error| unreadable(error.into()))?;
            node.body = match node.body {
                FoldPlan::Leaf(entries) => FoldPlan::Leaf(self.segments(identity, entries).await?),
                FoldPlan::Inner { level, references } => {
                    let mut copied = Vec::with_capacity(references.len());
                    for below in &references {
                        copied.push(self.node(identity, below).await?);
                    }
                    FoldPlan::Inner { level, references: copied }
                }
            };
            (node.identity.cluster, node.identity.incarnation) = (self.keys.cluster(), LIFE);
            let (bytes, copy) = node.seal(reference.uid);
            self.put_node(self.keys.node(topic, partition, &copy), bytes, copy.sha256).await?;
            Ok(copy)
        })
    }

    async fn put_node(&self, key: ObjectKey, bytes: Bytes, sha256: Digest) -> Result<(), CopyError> {
        let length = bytes.len() as u64;
        match put_or_confirm(&*self.store, &key, bytes.into(), sha256).await {
            Ok(Put::Created) => Ok(()),
            Ok(Put::Confirmed) => match get_verified(&*self.store, &key, length, sha256).await {
                Ok(_) => Ok(()),
                Err(GetError::Failed(failure)) if failure.is_retriable() => {
                    Err(CopyError::Destination { key, failure })
                }
                Err(_) => Err(CopyError::Taken(key)),
            },
            Err(PutError::AlreadyExists) => Err(CopyError::Taken(key)),
            Err(PutError::Failed(failure)) => Err(CopyError::Destination { key, failure }),
        }
    }

    /// Segments, in their order.
    async fn segments(
        &self,
        identity: &PartitionIdentity,
        entries: Vec<Entry>,
    ) -> Result<Vec<Entry>, CopyError> {
        let each = entries.into_iter().map(|entry| self.segment(identity, entry));
        stream::iter(each).buffered(SEGMENTS_AT_ONCE).try_collect().await
    }

    /// One segment; gives what the copy's manifest says of it.
    async fn segment(&self, identity: &PartitionIdentity, entry: Entry) -> Result<Entry, CopyError> {
        let (topic, partition) = (identity.topic_id, identity.partition);
        let from = self.source.keys().entry(topic, partition, &entry).ok_or(CopyError::Pack)?;
        let mut copy = Entry { incarnation: LIFE.0, ..entry.clone() };
        let to = self.keys.entry(topic, partition, &copy).ok_or(CopyError::Pack)?;
        let _room = self.budget.reserve(entry.length).await;
        if self.resumes
            && let Some(sha256) = self.present(&to, &entry).await?
        {
            copy.sha256 = sha256;
            return Ok(copy);
        }
        let unreadable = |trouble| CopyError::Source { key: from.clone(), trouble };
        let bytes = get_verified(&**self.source.store(), &from, entry.length, entry.sha256).await;
        let bytes = bytes.map_err(|error| unreadable(error.into()))?;
        let pieces = rehomed(&bytes, self.keys.cluster(), LIFE).map_err(|error| unreadable(error.into()))?;
        let body = Body::from(pieces);
        copy.sha256 = body.digest();
        match self.store.put_new(&to, body, copy.sha256).await {
            Ok(()) => Ok(copy),
            // Another try of ours, whose answer was lost, or who copies the same beside us.
            Err(PutError::AlreadyExists) => match self.present(&to, &entry).await? {
                Some(_) => Ok(copy),
                None => Err(CopyError::Taken(to)),
            },
            Err(PutError::Failed(failure)) => Err(CopyError::Destination { key: to, failure }),
        }
    }

    /// The SHA-256 of a copy that is there, held against that of the source by the way back.
    async fn present(&self, to: &ObjectKey, entry: &Entry) -> Result<Option<Digest>, CopyError> {
        let bytes = match self.store.get(to).await {
            Ok(bytes) => bytes,
            Err(GetError::NotFound) => return Ok(None),
            Err(GetError::OutOfRange(_)) => return Err(CopyError::Taken(to.clone())),
            Err(GetError::Failed(failure)) => {
                return Err(CopyError::Destination { key: to.clone(), failure });
            }
        };
        let back = rehomed(&bytes, self.source.keys().cluster(), Incarnation(entry.incarnation));
        match back.map(|pieces| Body::from(pieces).digest()) {
            Ok(digest) if digest == entry.sha256 => Ok(Some(Digest::of(&bytes))),
            _ => Err(CopyError::Taken(to.clone())),
        }
    }
}

/// Fails where history goes on in what cannot be used.
fn broken(stop: &Stop) -> Result<(), CopyError> {
    let (key, trouble) = match stop {
        Stop::Broken { key, trouble } => (key.clone(), trouble.clone()),
        Stop::Fork { base, keys } => {
            let others: Vec<&str> = keys[1..].iter().map(ObjectKey::as_str).collect();
            let what =
                format!("from {base} on others overlap with it and do not agree: {}", others.join(", "));
            (keys[0].clone(), Trouble::Damaged(what))
        }
        Stop::End | Stop::Gap { .. } | Stop::Stray(_) => return Ok(()),
    };
    Err(CopyError::Source { key, trouble })
}

/// What a look has seen: the same again where nothing came or went since.
#[derive(PartialEq, Eq)]
struct Sight {
    checkpoint: Option<ObjectKey>,
    tail: Tail,
}

impl Sight {
    fn of(found: &PartitionHistory) -> Self {
        Self { checkpoint: candidate(found).cloned(), tail: found.tail.clone() }
    }
}

/// The checkpoint that is used.
fn candidate(found: &PartitionHistory) -> Option<&ObjectKey> {
    found.checkpoint.as_ref().map(|(candidate, _)| &candidate.key)
}
