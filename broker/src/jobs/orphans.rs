//! Objects that nothing names (TIERING.md 9): found by listing what partitions have in the bucket.
//!
//! ```text
//! listing --judge--> suspects --grace--> judge again, HEAD --> orphans --> reported, or deleted
//! ```
//! An object may be there before anything names it (a manifest node, until its command is applied) and after nothing does
//! (until its deletion took place): so a suspect is judged twice, with the grace between. What this node cannot judge is
//! no suspect: partitions that it does not lead, later lives of the cluster, checkpoints, keys that are not ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use varve_common::{GroupId, Incarnation, ObjectKey, Offset};
use varve_formats::{
    keys::{Key, Keys, PartitionKeys},
    state::Tombstone,
};
use varve_objects::{Failure, HeadError};
use varve_replica::{PartitionView, metadata};
use varve_tiering::{RemoveError, Remover};

use super::reap::Reaper;

/// Suspects that one round remembers; the next round finds the rest.
pub const SUSPECTS_MAX: usize = 10_000;

/// An object and its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Which.
    pub key: ObjectKey,
    /// How long it is.
    pub bytes: u64,
}

/// Why a round was given up; the next one begins anew.
#[derive(Debug, thiserror::Error)]
pub enum OrphansError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] Failure),
    /// What a manifest node names is not known.
    #[error(transparent)]
    Node(#[from] RemoveError),
}

/// What the node knows at one moment.
pub trait Knowledge: Send + Sync {
    /// The metadata.
    fn image(&self) -> metadata::Image;
    /// Whether that was the newest metadata of the cluster when this look began: an older one does not know new topics.
    fn is_newest(&self) -> bool;
    /// A partition's newest view.
    fn view(&self, group: GroupId) -> Option<Arc<PartitionView>>;
}

/// What an object's key says, of those that a manifest could name.
struct Named {
    at: PartitionKeys,
    base: Offset,
    uid: u64,
}

/// Judges objects by what is known now; what manifest nodes name is read once.
pub struct Judge<'a> {
    reaper: Reaper<'a>,
    incarnation: Incarnation,
    knowledge: &'a dyn Knowledge,
    /// By the node's uid.
    below: BTreeMap<u64, BTreeSet<u64>>,
}

impl<'a> Judge<'a> {
    /// A judge of this life of the cluster.
    #[must_use]
    pub fn new(reaper: Reaper<'a>, incarnation: Incarnation, knowledge: &'a dyn Knowledge) -> Self {
        Self { reaper, incarnation, knowledge, below: BTreeMap::new() }
    }

    /// Lists what partitions have, and gives what nothing names.
    pub async fn suspects(&mut self) -> Result<Vec<Suspect>, OrphansError> {
        let folder = self.reaper.keys.partitions();
        let (mut suspects, mut last) = (Vec::new(), None);
        loop {
            let page = self.reaper.store.list(&folder, last.as_ref()).await?;
            let Some(newest) = page.objects.last() else { break };
            last = Some(newest.key.clone());
            for listed in page.objects {
                if self.is_suspect(&listed.key).await? {
                    suspects.push(Suspect { key: listed.key, bytes: listed.bytes });
                }
            }
            // Names are dear to keep and cheap to read again.
            self.below.clear();
            if !page.more || suspects.len() >= SUSPECTS_MAX {
                break;
            }
        }
        Ok(suspects)
    }

    /// Those of them that are still there, and that still nothing names.
    pub async fn orphans(&mut self, suspects: Vec<Suspect>) -> Result<Vec<Suspect>, OrphansError> {
        let mut orphans = Vec::new();
        for suspect in suspects {
            if !self.is_suspect(&suspect.key).await? {
                continue;
            }
            match self.reaper.store.head(&suspect.key).await {
                Ok(_) => orphans.push(suspect),
                Err(HeadError::NotFound) => {}
                Err(HeadError::Failed(failure)) => return Err(failure.into()),
            }
        }
        Ok(orphans)
    }

    async fn is_suspect(&mut self, key: &ObjectKey) -> Result<bool, OrphansError> {
        let Some(named) = parse(self.reaper.keys, key) else { return Ok(false) };
        if named.at.incarnation > self.incarnation {
            return Ok(false);
        }
        let image = self.knowledge.image();
        let Some(topic) = image.topic(named.at.topic_id) else {
            // A deletion that is under way finds it by itself.
            let is_deleted = image.deletions.contains_key(&named.at.topic_id);
            return Ok(self.is_known_by_nobody(&named) && !is_deleted);
        };
        let number = usize::try_from(named.at.partition.0).ok();
        let Some(partition) = number.and_then(|number| topic.partitions.get(number)) else {
            return Ok(self.is_known_by_nobody(&named));
        };
        let Some(view) = self.knowledge.view(partition.group).filter(|view| view.ready) else {
            return Ok(false);
        };
        Ok(!is_named(&view, &named) && !self.is_below_a_node(&view, &named).await?)
    }

    /// Whether no metadata names the partition. What an earlier life knew is not told by this one's: it was restored from a
    /// checkpoint of its metadata, which may have been made before the partition was.
    fn is_known_by_nobody(&self, named: &Named) -> bool {
        self.knowledge.is_newest() && named.at.incarnation == self.incarnation
    }

    /// Whether a node of the manifest names it, or one that goes with all below it.
    async fn is_below_a_node(&mut self, view: &PartitionView, named: &Named) -> Result<bool, OrphansError> {
        let covers = |base: Offset, last: Offset| base <= named.base && named.base <= last;
        let goes_with_all = |tombstone: &&Tombstone| tombstone.node_level.is_some() && !tombstone.alone;
        let buried = view.tombstones.iter().filter(goes_with_all);
        if buried.into_iter().any(|tombstone| covers(tombstone.base, tombstone.last)) {
            return Ok(true);
        }
        for node in view.root.nodes.iter().filter(|node| covers(node.base, node.last)) {
            if !self.below.contains_key(&node.uid) {
                let remover = Remover::new(self.reaper.store, self.reaper.keys, &view.identity);
                self.below.insert(node.uid, remover.named_below(node).await?);
            }
            if self.below[&node.uid].contains(&named.uid) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn is_named(view: &PartitionView, named: &Named) -> bool {
    view.root.entries.iter().any(|entry| entry.uid == named.uid)
        || view.root.nodes.iter().any(|node| node.uid == named.uid)
        || view.intents.iter().any(|intent| intent.uid == named.uid)
        || view.tombstones.iter().any(|tombstone| tombstone.uid == named.uid)
}

fn parse(keys: &Keys, key: &ObjectKey) -> Option<Named> {
    match keys.parse(key).ok()? {
        Key::Segment(at, name) | Key::MergedSegment(at, name) => {
            Some(Named { at, base: name.base, uid: name.uid })
        }
        Key::Node(at, name) => Some(Named { at, base: name.base, uid: name.uid }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use varve_common::{ClusterId, Digest, LogIndex, PartitionIndex, Term, TopicId};
    use varve_formats::{
        keys::{CheckpointName, NodeName, Prefix, SegmentName},
        manifest::{Entry, EntryKind, FoldPlan},
        state::{Intent, NAMED_EVER},
    };
    use varve_objects::{Store as _, testing::MemoryStore};
    use varve_replica::metadata::{Deletion, Partition, Topic};
    use varve_tiering::put_node;

    use super::*;
    use crate::handlers::fake;

    const CLUSTER: ClusterId = ClusterId([7; 16]);
    const HERE: u128 = 1;
    const DELETED: u128 = 2;
    const NOWHERE: u128 = 3;

    struct Fixed(metadata::Image, Mutex<PartitionView>, Newest);

    /// Whether the metadata is known to be the newest.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Newest {
        Confirmed,
        Unknown,
    }

    impl Knowledge for Fixed {
        fn image(&self) -> metadata::Image {
            self.0.clone()
        }

        fn is_newest(&self) -> bool {
            self.2 == Newest::Confirmed
        }

        fn view(&self, _: GroupId) -> Option<Arc<PartitionView>> {
            Some(Arc::new(self.1.lock().unwrap().clone()))
        }
    }

    fn keys() -> Keys {
        Prefix::new("").cluster(CLUSTER)
    }

    fn place(topic: u128, incarnation: u32) -> PartitionKeys {
        let (topic_id, partition) = (TopicId::from_random(topic), PartitionIndex(0));
        PartitionKeys { topic_id, partition, incarnation: Incarnation(incarnation) }
    }

    /// The range of a uid: ten offsets from ten times the uid on.
    fn segment(at: PartitionKeys, uid: u64) -> Key {
        let (base, last) = (Offset(uid * 10), Offset(uid * 10 + 9));
        Key::Segment(at, SegmentName { base, last, term: Term(1), uid })
    }

    fn entry(uid: u64) -> Entry {
        Entry {
            store_id: 0,
            kind: EntryKind::Raw,
            incarnation: 1,
            term: Term(1),
            uid,
            position: 0,
            length: 10,
            base: Offset(uid * 10),
            last: Offset(uid * 10 + 9),
            count: 10,
            min_timestamp: -1,
            max_timestamp: -1,
            first_index: LogIndex(uid),
            roll_index: LogIndex(uid),
            roll_term: Term(1),
            terms: (Term(1), Term(1)),
            txn_index_empty: true,
            delete_horizon_ms: 0,
            batch_bytes: 10,
            sha256: Digest::default(),
        }
    }

    fn topic(id: u128) -> Arc<Topic> {
        Arc::new(Topic {
            id: TopicId::from_random(id),
            name: "t".into(),
            created_ms: 0,
            partitions: vec![Partition::new(GroupId(1), Vec::new())],
            configs: BTreeMap::new(),
        })
    }

    fn tombstone(uid: u64) -> Tombstone {
        Tombstone {
            uid,
            node_level: None,
            alone: false,
            kind: EntryKind::Raw,
            incarnation: 1,
            term: Term(1),
            base: Offset(uid * 10),
            last: Offset(uid * 10 + 9),
            since_ms: 0,
            log_start: Offset(0),
            named: NAMED_EVER,
        }
    }

    /// One topic that lives, with 1 in the manifest, 2 announced, 3 to be deleted; one whose deletion is under way.
    fn knowledge() -> Fixed {
        let mut image = metadata::Image::new(CLUSTER, Incarnation(1));
        let (here, deleted) = (topic(HERE), topic(DELETED));
        image.topics = Arc::new([(here.id, here)].into());
        let deletion = Deletion { topic: Arc::clone(&deleted), since_ms: 0, index: LogIndex(1) };
        image.deletions = Arc::new([(deleted.id, deletion)].into());
        let mut view = fake::empty_view();
        view.identity.topic_id = TopicId::from_random(HERE);
        Arc::make_mut(&mut view.root).entries.push(entry(1));
        let (base, end) = (Offset(20), Offset(30));
        let intent = Intent { uid: 2, term: Term(1), base, end, announced_ms: 0, kind: EntryKind::Raw };
        view.intents = Arc::new(vec![intent]);
        view.tombstones = Arc::new(vec![tombstone(3)]);
        Fixed(image, Mutex::new(view), Newest::Confirmed)
    }

    async fn put(store: &MemoryStore, key: &Key) -> ObjectKey {
        let (key, bytes) = (keys().build(key), bytes::Bytes::from_static(b"object"));
        let sha256 = Digest::of(&bytes);
        store.put_new(&key, bytes.into(), sha256).await.unwrap();
        key
    }

    fn judge<'a>(store: &'a MemoryStore, keys: &'a Keys, known: &'a Fixed) -> Judge<'a> {
        Judge::new(Reaper { store, keys, claimed: None }, Incarnation(1), known)
    }

    fn found(suspects: &[Suspect]) -> BTreeSet<ObjectKey> {
        suspects.iter().map(|suspect| suspect.key.clone()).collect()
    }

    #[tokio::test]
    async fn what_nothing_names_is_suspect_and_an_orphan_only_if_it_stays_so() {
        let (store, keys, known) = (MemoryStore::default(), keys(), knowledge());
        for uid in 1..=3 {
            put(&store, &segment(place(HERE, 1), uid)).await;
        }
        // What a later life wrote, a deletion under way, a checkpoint: none of this look's business.
        put(&store, &segment(place(HERE, 2), 7)).await;
        put(&store, &segment(place(DELETED, 1), 8)).await;
        let name = CheckpointName { applied_index: LogIndex(5), term: Term(1), uid: 9 };
        put(&store, &Key::Checkpoint(place(HERE, 1), name)).await;
        let late = put(&store, &segment(place(HERE, 1), 4)).await;
        let short = put(&store, &segment(place(HERE, 1), 5)).await;
        let name = NodeName { level: 0, base: Offset(0), last: Offset(9), uid: 6 };
        let node = put(&store, &Key::Node(place(HERE, 1), name)).await;
        let nowhere = put(&store, &segment(place(NOWHERE, 1), 10)).await;
        let suspects = judge(&store, &keys, &known).suspects().await.unwrap();
        let all = [&late, &short, &node, &nowhere].map(Clone::clone);
        assert_eq!(found(&suspects), BTreeSet::from(all));

        Arc::make_mut(&mut known.1.lock().unwrap().root).entries.push(entry(4));
        store.delete(&short).await.unwrap();
        let orphans = judge(&store, &keys, &known).orphans(suspects).await.unwrap();
        assert_eq!(found(&orphans), BTreeSet::from([node, nowhere]));
    }

    /// A node that is behind knows neither a new topic nor the new partitions of an old one: theirs are no orphans.
    #[tokio::test]
    async fn what_only_newer_metadata_could_name_is_no_suspect_until_it_is_confirmed() {
        let (store, keys, mut known) = (MemoryStore::default(), keys(), knowledge());
        let of_new_topic = put(&store, &segment(place(NOWHERE, 1), 10)).await;
        let new_partition = PartitionKeys { partition: PartitionIndex(5), ..place(HERE, 1) };
        let of_new_partition = put(&store, &segment(new_partition, 11)).await;
        known.2 = Newest::Unknown;
        let suspects = judge(&store, &keys, &known).suspects().await.unwrap();
        assert_eq!(suspects, []);

        known.2 = Newest::Confirmed;
        let suspects = judge(&store, &keys, &known).suspects().await.unwrap();
        assert_eq!(found(&suspects), BTreeSet::from([of_new_topic, of_new_partition]));
        // Confirmed when it was listed, and not any more when it is judged again.
        known.2 = Newest::Unknown;
        assert_eq!(judge(&store, &keys, &known).orphans(suspects).await.unwrap(), []);
    }

    /// Metadata that was restored may be older than what the life before it had made.
    #[tokio::test]
    async fn what_an_earlier_life_has_of_a_partition_that_nobody_knows_is_no_suspect() {
        let (store, keys, known) = (MemoryStore::default(), keys(), knowledge());
        for life in [1, 2] {
            let new_partition = PartitionKeys { partition: PartitionIndex(5), ..place(HERE, life) };
            put(&store, &segment(new_partition, 11)).await;
            put(&store, &segment(place(NOWHERE, life), 10)).await;
        }
        let reaper = Reaper { store: &store, keys: &keys, claimed: None };
        let suspects = Judge::new(reaper, Incarnation(2), &known).suspects().await.unwrap();
        assert!(suspects.iter().all(|suspect| suspect.key.as_str().contains("i0000000002")), "{suspects:?}");
        assert_eq!(suspects.len(), 2);
    }

    #[tokio::test]
    async fn what_a_folded_node_names_is_no_suspect_and_what_it_only_covers_is() {
        let (store, keys, known) = (MemoryStore::default(), keys(), knowledge());
        let identity = known.1.lock().unwrap().identity.clone();
        let node =
            put_node(&store, &keys, &identity, FoldPlan::Leaf(vec![entry(1), entry(2)]), 77).await.unwrap();
        {
            let mut view = known.1.lock().unwrap();
            view.intents = Arc::default();
            view.root = Arc::default();
            Arc::make_mut(&mut view.root).nodes.push(node);
        }
        for uid in [1, 2] {
            put(&store, &segment(place(HERE, 1), uid)).await;
        }
        let name = SegmentName { base: Offset(10), last: Offset(19), term: Term(2), uid: 99 };
        let twin = put(&store, &Key::Segment(place(HERE, 1), name)).await;
        let suspects = judge(&store, &keys, &known).suspects().await.unwrap();
        assert_eq!(found(&suspects), BTreeSet::from([twin]));
    }

    #[tokio::test]
    async fn where_a_node_of_the_manifest_is_gone_nothing_is_judged() {
        let (store, keys, known) = (MemoryStore::default(), keys(), knowledge());
        let identity = known.1.lock().unwrap().identity.clone();
        let node = put_node(&store, &keys, &identity, FoldPlan::Leaf(vec![entry(1)]), 77).await.unwrap();
        let key = keys.node(identity.topic_id, identity.partition, &node);
        Arc::make_mut(&mut known.1.lock().unwrap().root).nodes.push(node);
        Arc::make_mut(&mut known.1.lock().unwrap().root).entries.clear();
        put(&store, &segment(place(HERE, 1), 1)).await;
        assert!(judge(&store, &keys, &known).suspects().await.unwrap().is_empty());
        store.delete(&key).await.unwrap();
        // Only the node that is gone named it.
        judge(&store, &keys, &known).suspects().await.unwrap_err();
    }

    #[tokio::test]
    async fn nothing_of_a_partition_that_is_not_led_here_is_suspect() {
        let (store, keys, known) = (MemoryStore::default(), keys(), knowledge());
        known.1.lock().unwrap().ready = false;
        put(&store, &segment(place(HERE, 1), 50)).await;
        assert!(judge(&store, &keys, &known).suspects().await.unwrap().is_empty());
    }
}
