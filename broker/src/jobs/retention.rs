//! Old checkpoints leave the bucket: the newest three stay, and a grid of hours and days for restores.
//!
//! What is there is learned once a term, by a listing and a look at each header, and remembered from then on: in steady
//! state a publish costs deletes only. What is left is told to the group, which deletes no object that one of them names
//! (B8); so a checkpoint whose header cannot be read is left alone, and counts as one that is there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use varve_common::{Digest, LogIndex, ObjectKey, Term};
use varve_formats::{
    checkpoint::{CheckpointHeader, PEEK_BYTES},
    command::PublishedCheckpoint,
    keys::{CheckpointName, Key, Keys},
};
use varve_objects::{Failure, Store};
use varve_replica::checkpoint::Captured;
use varve_snapshot::{Grid, list_all, surplus};

/// A checkpoint in the bucket.
#[derive(Clone)]
struct Present {
    applied: LogIndex,
    /// `None` where its header cannot be read.
    described: Option<PublishedCheckpoint>,
}

/// A group's checkpoints, as known since this term.
#[derive(Clone)]
struct Folder {
    term: Term,
    present: BTreeMap<ObjectKey, Present>,
}

/// Remembers which checkpoints are in the bucket. Clones share it.
#[derive(Clone, Default)]
pub struct Retention {
    folders: Arc<Mutex<HashMap<String, Folder>>>,
    grid: Grid,
}

/// What a publication left in the bucket.
#[derive(Debug)]
pub struct Swept {
    /// The applied index of every checkpoint of the group that is there.
    pub kept: Vec<LogIndex>,
    /// How many went.
    pub deleted: usize,
    /// Why others that are surplus did not: they stay until the next publication.
    pub failed: Option<Failure>,
}

/// Why checkpoints that are surplus stay until the next publication.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The store: what is there could not be listed, or one did not go.
    #[error(transparent)]
    Store(#[from] Failure),
    /// A listing that lacks one lacks others too. Where it is right, somebody removed the checkpoint: sweeps go on once the group
    /// names two newer ones.
    #[error(
        "the listing of {folder} lacks checkpoints that were put there and are in use, with the uids {uids:?}: not listed yet, or removed by somebody else"
    )]
    Lacks {
        /// Where they should be.
        folder: String,
        /// Which, as their names end.
        uids: Vec<String>,
    },
}

impl Retention {
    /// Takes note of a checkpoint that was published under `key`, and deletes those that it makes surplus, but for those
    /// in `named`: a publish whose commit never came is newer than what the group names, and must not push that out.
    /// Fails where what is there cannot be listed.
    pub async fn after_publish(
        &self,
        store: &dyn Store,
        keys: &Keys,
        (key, published): (&ObjectKey, PublishedCheckpoint),
        named: &[u64],
    ) -> Result<Swept, SweepError> {
        let (name, term, now_ms, uid) =
            (folder_of(key), published.key_term, published.published_ms, published.uid);
        // In another term another node may have published.
        let known = self.lock().get(&name).filter(|folder| folder.term == term).cloned();
        let mut folder = match known {
            Some(folder) => folder,
            None => {
                let present = learn(store, keys, &name).await?;
                must_show(&present, keys, key, (uid, named))?;
                Folder { term, present }
            }
        };
        let present = Present { applied: published.applied_index, described: Some(published) };
        folder.present.insert(key.clone(), present);
        let all: Vec<PublishedCheckpoint> =
            folder.present.values().filter_map(|present| present.described.clone()).collect();
        let mut gone = surplus(&all, &self.grid, now_ms);
        // Nor may one that was put and did not read back, of the same state, push out this one.
        gone.retain(|surplus| !named.contains(surplus) && *surplus != uid);
        let is_gone =
            |present: &Present| present.described.as_ref().is_some_and(|one| gone.contains(&one.uid));
        let surplus: Vec<ObjectKey> = folder
            .present
            .iter()
            .filter(|(_, present)| is_gone(present))
            .map(|(key, _)| key.clone())
            .collect();
        let (mut deleted, mut failed) = (0, None);
        for key in surplus {
            match store.delete(&key).await {
                Ok(()) => {
                    folder.present.remove(&key);
                    deleted += 1;
                }
                Err(failure) => failed = Some(failure),
            }
        }
        let kept = folder.present.values().map(|present| present.applied).collect();
        self.lock().insert(name, folder);
        Ok(Swept { kept, deleted, failed })
    }

    /// Takes note of a publication that failed: whether its object is there is unknown, so that the next one lists anew.
    pub fn after_failure(&self, key: &ObjectKey) {
        self.lock().remove(&folder_of(key));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Folder>> {
        self.folders.lock().expect("no holder of this lock panics")
    }
}

fn folder_of(key: &ObjectKey) -> String {
    key.as_str().rsplit_once('/').map_or("", |(folder, _)| folder).to_owned()
}

/// A listing that lacks what was put a moment ago, or what the group names, lacks others too: those are not gone, and what
/// they name must stay (B8). A restore may take one that was put and never committed, where what is newer is damaged.
fn must_show(
    present: &BTreeMap<ObjectKey, Present>,
    keys: &Keys,
    key: &ObjectKey,
    (uid, named): (u64, &[u64]),
) -> Result<(), SweepError> {
    let uid_of = |key: &ObjectKey| match keys.parse(key) {
        Ok(Key::MetadataCheckpoint(_, name) | Key::Checkpoint(_, name)) => Some(name.uid),
        _ => None,
    };
    let shown: BTreeSet<u64> = present.keys().filter_map(uid_of).collect();
    let lacks = named.iter().filter(|uid| !shown.contains(uid));
    let lacks = (!present.contains_key(key)).then_some(&uid).into_iter().chain(lacks);
    let uids: Vec<String> = lacks.map(|uid| format!("{uid:016x}")).collect();
    if uids.is_empty() {
        return Ok(());
    }
    Err(SweepError::Lacks { folder: folder_of(key), uids })
}

async fn learn(
    store: &dyn Store,
    keys: &Keys,
    folder: &str,
) -> Result<BTreeMap<ObjectKey, Present>, Failure> {
    let mut found = BTreeMap::new();
    for listed in list_all(store, folder).await? {
        let name = match keys.parse(&listed.key) {
            Ok(Key::MetadataCheckpoint(_, name) | Key::Checkpoint(_, name)) => name,
            _ => continue,
        };
        let beginning = store.get_range(&listed.key, 0..listed.bytes.min(PEEK_BYTES)).await.ok();
        let header = beginning.and_then(|beginning| CheckpointHeader::peek(beginning).ok());
        let described = header.map(|header| described(&header, name, listed.bytes));
        found.insert(listed.key, Present { applied: name.applied_index, described });
    }
    Ok(found)
}

/// A checkpoint that was put under this name, whole.
pub fn published(
    captured: &Captured,
    name: CheckpointName,
    (bytes, sha256): (u64, Digest),
    published_ms: i64,
) -> PublishedCheckpoint {
    let log_start = captured.log_start();
    PublishedCheckpoint { log_start, sha256, published_ms, ..described(captured.header(), name, bytes) }
}

/// What the beginning of a checkpoint says of it, under its name; log start and digest are not told there.
fn described(header: &CheckpointHeader, name: CheckpointName, bytes: u64) -> PublishedCheckpoint {
    PublishedCheckpoint {
        uid: name.uid,
        key_term: name.term,
        state_index: header.state.index,
        state_term: header.state.term,
        state_offset: header.state.offset,
        applied_index: header.applied.index,
        log_start: Default::default(),
        bytes,
        sha256: Default::default(),
        published_ms: header.append_time_ms,
    }
}

#[cfg(test)]
mod tests {
    use varve_common::{ClusterId, Digest, Incarnation, LogIndex, Term};
    use varve_formats::keys::Prefix;
    use varve_objects::{
        Operation,
        testing::{Fault, FaultyStore, InstantClock, MemoryStore, SeededEntropy},
    };

    use super::*;

    async fn publish(retention: &Retention, store: &MemoryStore, (applied, term): (u64, u64)) -> Swept {
        let keys = keys();
        let name = CheckpointName { applied_index: LogIndex(applied), term: Term(term), uid: applied };
        let key = keys.build(&Key::MetadataCheckpoint(Incarnation(1), name));
        let body = bytes::Bytes::from_static(b"checkpoint");
        store.put_new(&key, body.clone().into(), Digest::of(&body)).await.unwrap();
        // The first is what the group names: the commits of the others never came.
        retention.after_publish(store, &keys, (&key, published((applied, term))), &[1]).await.unwrap()
    }

    fn published((applied, term): (u64, u64)) -> PublishedCheckpoint {
        PublishedCheckpoint {
            uid: applied,
            key_term: Term(term),
            state_index: LogIndex(applied),
            state_term: Term(1),
            state_offset: Default::default(),
            applied_index: LogIndex(applied),
            log_start: Default::default(),
            bytes: 10,
            sha256: Default::default(),
            published_ms: 7_200_000 + applied as i64,
        }
    }

    fn faulty() -> FaultyStore<MemoryStore> {
        let (clock, entropy) = (Arc::new(InstantClock::default()), Arc::new(SeededEntropy::new(1)));
        FaultyStore::new(MemoryStore::default(), clock, entropy)
    }

    fn keys() -> Keys {
        Prefix::new("p").cluster(ClusterId::from_random(1))
    }

    #[tokio::test]
    async fn b1_the_newest_three_stay_and_what_the_group_names_and_others_of_the_hour_go() {
        let (store, retention) = (MemoryStore::default(), Retention::default());
        let (mut deleted, mut kept) = (0, Vec::new());
        for applied in 1..=7_u64 {
            let swept = publish(&retention, &store, (applied, 1)).await;
            deleted += swept.deleted;
            kept = swept.kept;
        }
        let left = list_all(&store, &keys().metadata_checkpoints(Incarnation(1))).await.unwrap();
        assert_eq!((deleted, left.len()), (3, 4));
        assert_eq!(kept, [1, 5, 6, 7].map(LogIndex));
    }

    /// Publications of one state whose commit never came lie beside the one that counts, under the same A: whatever their uids, that
    /// one stays, though the group does not name it yet.
    #[tokio::test]
    async fn b1_failed_publications_of_the_same_state_do_not_push_out_the_one_that_counts() {
        let (store, retention, keys) = (MemoryStore::default(), Retention::default(), keys());
        for uid in (1..8).rev() {
            let name = CheckpointName { applied_index: LogIndex(2), term: Term(1), uid };
            let key = keys.build(&Key::MetadataCheckpoint(Incarnation(1), name));
            let body = bytes::Bytes::from_static(b"checkpoint");
            store.put_new(&key, body.clone().into(), Digest::of(&body)).await.unwrap();
            let published = PublishedCheckpoint { uid, ..published((2, 1)) };
            retention.after_publish(&store, &keys, (&key, published), &[]).await.unwrap();
            assert!(store.head(&key).await.is_ok(), "{uid} was just published and is gone");
        }
    }

    /// What a restore finds is not what one listing showed: an empty one, and one that lacks what the group names.
    #[tokio::test]
    async fn b8_a_listing_that_lacks_what_is_there_says_nothing_of_what_is_kept() {
        let (store, before, retention) = (faulty(), Retention::default(), Retention::default());
        publish(&before, store.inner(), (1, 1)).await;
        let name = CheckpointName { applied_index: LogIndex(2), term: Term(2), uid: 2 };
        let key = keys().build(&Key::MetadataCheckpoint(Incarnation(1), name));
        let body = bytes::Bytes::from_static(b"checkpoint");
        store.inner().put_new(&key, body.clone().into(), Digest::of(&body)).await.unwrap();
        let keys = keys();
        let sweep = |named| retention.after_publish(&store, &keys, (&key, published((2, 2))), named);
        store.script(Operation::List, Fault::Missing);
        assert!(sweep(&[]).await.is_err(), "an empty listing");
        let lacks = sweep(&[1, 7]).await.unwrap_err().to_string();
        assert!(lacks.contains("0000000000000007") && !lacks.contains("did not answer"), "{lacks}");
        assert_eq!(sweep(&[1]).await.unwrap().kept, [1, 2].map(LogIndex));
    }

    #[tokio::test]
    async fn b8_what_another_term_published_or_nobody_can_read_counts_as_kept() {
        let (store, mine, others) = (MemoryStore::default(), Retention::default(), Retention::default());
        publish(&mine, &store, (1, 1)).await;
        publish(&others, &store, (2, 2)).await;
        let swept = publish(&mine, &store, (3, 3)).await;
        assert_eq!((swept.kept, swept.deleted), ([1, 2, 3].map(LogIndex).to_vec(), 0));
    }
}
