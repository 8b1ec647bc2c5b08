//! What is in the bucket: all that the newest state names, and the older checkpoints that a restore may want.

use varve_common::{Digest, ObjectKey, checksum::DigestBuilder, codec::DecodeError};
use varve_formats::{
    manifest::{Entry, FoldPlan, NodeReference},
    node::Node,
};
use varve_objects::{Failure, GetError, get_verified};
use varve_snapshot::choose::{self, Candidate, ChooseError, Which};

use super::{Outcome, Pass, Place, Target};

/// How much of an object one request asks for.
const PIECE_BYTES: u64 = 4 << 20;
/// Wrong bytes are asked for once more, in case the way here spoiled them.
const TRIES: u32 = 2;

/// How an object reads.
enum Read {
    Good,
    /// It is not what it should be.
    Bad(String),
    /// The store does not say.
    Unknown(String),
}

impl Read {
    fn failed(error: GetError) -> Self {
        match error {
            GetError::NotFound => Self::Bad("it is gone".to_owned()),
            GetError::OutOfRange(_) => Self::Bad("it is too short".to_owned()),
            GetError::Failed(failure @ Failure::Corrupt(_)) => Self::Bad(failure.to_string()),
            GetError::Failed(failure) => Self::Unknown(failure.to_string()),
        }
    }
}

impl Pass<'_> {
    pub(super) async fn bucket_checkpoints(&self, target: &Target) {
        let which = match &target.identity {
            None => Which::Metadata,
            Some(identity) => Which::Partition(identity.topic_id, identity.partition),
        };
        let keys = &self.places.keys;
        let folder = choose::folder(keys, which, target.incarnation);
        let listing = match choose::list_all(&*self.places.store, &folder).await {
            Ok(listing) => listing,
            Err(failure) => return self.unreadable(target, &folder, &failure.to_string()),
        };
        let candidates = choose::candidates(keys, &listing);
        for candidate in &candidates {
            match self.read_checkpoint(candidate).await {
                Read::Good => {}
                Read::Bad(cause) => {
                    self.on_checkpoint(target, candidate.name.uid, candidate.key.as_str(), cause).await
                }
                Read::Unknown(why) => self.unreadable(target, candidate.key.as_str(), &why),
            }
            self.took(Place::BucketCheckpoint, candidate.bytes).await;
        }
        for named in &target.published {
            if !candidates.iter().any(|candidate| candidate.name.uid == named.uid) {
                let what = format!("as of entry {}", named.applied_index);
                self.on_checkpoint(target, named.uid, &what, "it is gone".to_owned()).await;
            }
        }
    }

    async fn read_checkpoint(&self, candidate: &Candidate) -> Read {
        match choose::read(&*self.places.store, &self.places.keys, &candidate.key).await {
            Ok(Ok(_)) => Read::Good,
            Ok(Err(damage)) => Read::Bad(damage.to_string()),
            // Swept meanwhile; where the state names it that is seen below.
            Err(ChooseError::Vanished(_)) => Read::Good,
            Err(error) => Read::Unknown(error.to_string()),
        }
    }

    async fn on_checkpoint(&self, target: &Target, uid: u64, what: &str, cause: String) {
        let named = |now: &Target| now.published.iter().any(|checkpoint| checkpoint.uid == uid);
        let now = self.again(target).await;
        let outcome = match now.as_ref() {
            Some(now) if named(now) => self.repairs.published(now, uid).await,
            // It was named when the pass began: a newer one has taken its place.
            _ if named(target) => return,
            _ if target.offline => Outcome::Unrepaired("the partition is offline".to_owned()),
            _ => Outcome::Unrepaired("an older one, of use to a restore to its time alone".to_owned()),
        };
        self.found(target, Place::BucketCheckpoint, what.to_owned(), cause, outcome);
    }

    /// Nodes from the root down, and the segments that they and the root name.
    pub(super) async fn manifest(&self, target: &Target) {
        let mut nodes: Vec<NodeReference> = target.root.nodes.iter().rev().cloned().collect();
        while let Some(reference) = nodes.pop() {
            let Some(node) = self.node(target, &reference).await else { continue };
            match node.body {
                FoldPlan::Leaf(entries) => {
                    for entry in &entries {
                        self.segment(target, entry).await;
                    }
                }
                FoldPlan::Inner { references, .. } => nodes.extend(references.into_iter().rev()),
            }
        }
        for entry in &target.root.entries {
            self.segment(target, entry).await;
        }
    }

    async fn node(&self, target: &Target, reference: &NodeReference) -> Option<Node> {
        let identity = target.identity.as_ref()?;
        let key = self.places.keys.node(identity.topic_id, identity.partition, reference);
        let got = get_verified(&*self.places.store, &key, reference.length, reference.sha256).await;
        self.took(Place::ManifestNode, reference.length).await;
        let read = match got {
            Ok(bytes) => match Node::verify(&bytes, reference, identity) {
                Ok(node) => return Some(node),
                Err(DecodeError { what, .. }) => Read::Bad(what.to_owned()),
            },
            Err(error) => Read::failed(error),
        };
        let names = |now: &Target| {
            now.root.nodes.iter().any(|node| node.base <= reference.base && node.last >= reference.last)
        };
        match read {
            Read::Bad(cause) => {
                let now = self.again(target).await.filter(names)?;
                let is_leaf_of_root = now.root.nodes.iter().any(|node| node == reference && node.level == 0);
                let outcome = if is_leaf_of_root {
                    self.repairs.leaf(&now, reference).await
                } else {
                    Outcome::Unrepaired(
                        "a node names it that is closed itself; what is below names itself".to_owned(),
                    )
                };
                self.found(target, Place::ManifestNode, key.as_str().to_owned(), cause, outcome);
            }
            Read::Unknown(why) => self.unreadable(target, key.as_str(), &why),
            Read::Good => {}
        }
        None
    }

    async fn segment(&self, target: &Target, entry: &Entry) {
        let Some(key) = self.key_of(target, entry) else { return };
        let mut read = self.read_segment(&key, entry).await;
        for _ in 1..TRIES {
            if matches!(read, Read::Bad(_)) {
                read = self.read_segment(&key, entry).await;
            }
        }
        match read {
            Read::Good => {}
            Read::Unknown(why) => self.unreadable(target, key.as_str(), &why),
            Read::Bad(cause) => {
                // Trimmed or replaced meanwhile: then it goes by right.
                let Some(now) = self.again(target).await else { return };
                let in_root = now.root.entries.iter().any(|known| known.uid == entry.uid);
                let folded =
                    now.root.nodes.iter().any(|node| node.base <= entry.base && node.last >= entry.last);
                let in_leaf = now.root.leaf_over(entry.base, entry.end()).is_some();
                let outcome = match (in_root || in_leaf, folded) {
                    (true, _) => self.repairs.object(&now, entry).await,
                    (false, true) => Outcome::Unrepaired(
                        "the node that names it is named by another that is closed".to_owned(),
                    ),
                    (false, false) => return,
                };
                self.found(target, Place::Segment, key.as_str().to_owned(), cause, outcome);
            }
        }
    }

    async fn read_segment(&self, key: &ObjectKey, entry: &Entry) -> Read {
        let mut digest = DigestBuilder::default();
        let mut position = entry.position;
        let end = entry.position + entry.length;
        while position < end {
            let piece = position..(position + PIECE_BYTES).min(end);
            position = piece.end;
            match self.places.store.get_range(key, piece).await {
                Ok(bytes) => {
                    digest.update(&bytes);
                    self.took(Place::Segment, bytes.len() as u64).await;
                }
                Err(error) => return Read::failed(error),
            }
        }
        let found: Digest = digest.finish();
        if found == entry.sha256 {
            Read::Good
        } else {
            Read::Bad(format!("its sha-256 is {found}, not what the manifest says"))
        }
    }
}
