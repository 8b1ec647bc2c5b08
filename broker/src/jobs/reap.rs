//! What is left of a deleted topic, and whether this node may delete at all (TIERING.md 8 and 9).
//!
//! A listing is the truth: whatever lies below a partition's folder goes, of every incarnation, whether a manifest ever
//! named it or not. The work is not remembered anywhere: after a crash the next listing shows what is left.

use futures_util::future::join_all;
use varve_common::{Incarnation, ObjectKey, PartitionIndex};
use varve_formats::keys::Keys;
use varve_objects::{Failure, Store};
use varve_replica::metadata::Topic;
use varve_snapshot::{ClaimError, claim};

use super::Surroundings;

/// Deletes that are on their way at a time.
const DELETES_MAX: usize = 8;

/// Why something was not deleted; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReapError {
    /// The prefix is not known to be ours: nothing is deleted there.
    #[error("nothing is deleted: {0}")]
    Claim(#[from] ClaimError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] Failure),
    /// A file of this node stays.
    #[error("files of group {group}: {error}")]
    File {
        /// Whose.
        group: varve_common::GroupId,
        /// Why.
        error: std::io::Error,
    },
    /// Objects are listed that were deleted: the store is behind, or somebody still writes.
    #[error("{0} is listed after it was deleted, or was written since")]
    Left(ObjectKey),
}

/// Deletes what lies on a prefix, as long as that is ours.
#[derive(Clone, Copy)]
pub struct Reaper<'a> {
    /// The tier.
    pub store: &'a dyn Store,
    /// Where objects are.
    pub keys: &'a Keys,
    /// See [`Surroundings::claimed`].
    pub claimed: Option<Incarnation>,
}

impl Surroundings {
    /// Deletes objects by their keys.
    #[must_use]
    pub fn reaper(&self) -> Reaper<'_> {
        Reaper { store: &*self.store, keys: &self.keys, claimed: self.claimed }
    }

    /// Deletes a topic's files and objects; gives how many objects went. On `Ok` a listing has found nothing.
    pub(super) async fn reap(&self, topic: &Topic) -> Result<u64, ReapError> {
        for partition in &topic.partitions {
            let group = partition.group;
            self.remove_group(group).map_err(|error| ReapError::File { group, error })?;
        }
        let mut objects = 0;
        for (number, _) in (0_i32..).zip(&topic.partitions) {
            let folder = self.keys.partition(topic.id, PartitionIndex(number));
            objects += self.reaper().remove_folder(&folder).await?;
        }
        Ok(objects)
    }
}

impl Reaper<'_> {
    /// Asks whose the prefix is: before each batch of deletes.
    pub async fn may_delete(&self) -> Result<(), ClaimError> {
        let Some(incarnation) = self.claimed else { return Ok(()) };
        claim::check(self.store, self.keys.prefix(), self.keys.cluster(), incarnation).await.map(drop)
    }

    /// Deletes objects, a few at a time; missing ones are fine.
    pub async fn remove(&self, keys: &[&ObjectKey]) -> Result<(), ReapError> {
        self.may_delete().await?;
        for some in keys.chunks(DELETES_MAX) {
            let deletes = some.iter().map(|key| self.store.delete(key));
            join_all(deletes).await.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    /// Deletes all that a folder holds, page by page.
    pub async fn remove_folder(&self, folder: &str) -> Result<u64, ReapError> {
        let (mut objects, mut last) = (0, None);
        loop {
            let page = self.store.list(folder, last.as_ref()).await?;
            let Some(newest) = page.objects.last() else { break };
            let keys: Vec<_> = page.objects.iter().map(|listed| &listed.key).collect();
            self.remove(&keys).await?;
            objects += page.objects.len() as u64;
            last = Some(newest.key.clone());
        }
        if last.is_none() {
            return Ok(objects);
        }
        // What came below the last page since, and whatever did not go.
        match self.store.list(folder, None).await?.objects.into_iter().next() {
            Some(left) => Err(ReapError::Left(left.key)),
            None => Ok(objects),
        }
    }
}

#[cfg(test)]
mod tests {
    use varve_common::{ClusterId, Digest, NodeId, TopicId};
    use varve_formats::{
        claim::{Claim, FORMAT},
        keys::Prefix,
    };
    use varve_objects::testing::MemoryStore;

    use super::*;

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    async fn put(store: &MemoryStore, key: &ObjectKey, bytes: bytes::Bytes) {
        let sha256 = Digest::of(&bytes);
        store.put_new(key, bytes.into(), sha256).await.unwrap();
    }

    async fn claimed_by(store: &MemoryStore, cluster: ClusterId, incarnation: u32) {
        let node = NodeId::new(1).unwrap();
        let incarnation = Incarnation(incarnation);
        let claim = Claim { cluster, incarnation, created_ms: 1, node, format: FORMAT, origin: None };
        put(store, &Prefix::new("").claim(incarnation), claim.to_bytes()).await;
    }

    /// A store with 1200 objects of a partition, more than a listing's page holds, and one of its neighbour.
    async fn filled() -> (MemoryStore, Keys, String) {
        let (store, keys) = (MemoryStore::default(), Prefix::new("").cluster(CLUSTER));
        let folder = keys.partition(TopicId::from_random(1), PartitionIndex(0));
        for number in 0..1_200 {
            put(&store, &ObjectKey::new(format!("{folder}/i0000000001/seg/{number:05}")), "x".into()).await;
        }
        put(&store, &ObjectKey::new(format!("{folder}0/seg/1")), "x".into()).await;
        (store, keys, folder)
    }

    #[tokio::test]
    async fn a_folder_is_emptied_over_pages_and_its_neighbour_stays() {
        let (store, keys, folder) = filled().await;
        claimed_by(&store, CLUSTER, 1).await;
        let reaper = Reaper { store: &store, keys: &keys, claimed: Some(Incarnation(1)) };
        assert_eq!(reaper.remove_folder(&folder).await.unwrap(), 1_200);
        assert_eq!(store.objects().len(), 2, "the neighbour and the claim");
        assert_eq!(reaper.remove_folder(&folder).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn b8_nothing_is_deleted_from_a_prefix_that_is_not_ours_any_more() {
        let (store, keys, folder) = filled().await;
        let reaper = Reaper { store: &store, keys: &keys, claimed: Some(Incarnation(1)) };
        assert!(matches!(reaper.remove_folder(&folder).await, Err(ReapError::Claim(_))), "nobody's");
        claimed_by(&store, CLUSTER, 1).await;
        claimed_by(&store, CLUSTER, 2).await;
        let refused = reaper.remove_folder(&folder).await;
        assert!(matches!(refused, Err(ReapError::Claim(ClaimError::Superseded { .. }))), "{refused:?}");
        assert_eq!(store.objects().len(), 1_203);
    }
}
