//! Old checkpoints leave the bucket: the newest three stay, and a grid of hours and days for restores.
//!
//! What is there is learned once a start, by a listing and a look at each header, and remembered from then on: in steady
//! state a publish costs deletes only. A checkpoint whose header cannot be read is left alone and not counted.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use varve_common::ObjectKey;
use varve_formats::{
    checkpoint::{CheckpointHeader, PEEK_BYTES},
    command::PublishedCheckpoint,
    keys::{CheckpointName, Key, Keys},
};
use varve_objects::{Failure, Store};
use varve_snapshot::{Grid, list_all, surplus};

type Folder = BTreeMap<ObjectKey, PublishedCheckpoint>;

/// Remembers which checkpoints are in the bucket. Clones share it.
#[derive(Clone, Default)]
pub struct Retention {
    folders: Arc<Mutex<HashMap<String, Folder>>>,
    grid: Grid,
}

impl Retention {
    /// Takes note of a checkpoint that was published under `key`, and deletes those that it makes surplus, but for those
    /// in `named`: a publish whose commit never came is newer than what the group names, and must not push that out.
    /// Gives how many went. A failure leaves surplus ones for the next publish.
    pub async fn after_publish(
        &self,
        store: &dyn Store,
        keys: &Keys,
        (key, published): (&ObjectKey, PublishedCheckpoint),
        named: &[u64],
    ) -> Result<usize, Failure> {
        let name = key.as_str().rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let known = self.lock().get(&name).cloned();
        let mut folder = match known {
            Some(folder) => folder,
            None => learn(store, keys, &name).await?,
        };
        let now_ms = published.published_ms;
        folder.insert(key.clone(), published);
        let all: Vec<PublishedCheckpoint> = folder.values().cloned().collect();
        let mut gone = surplus(&all, &self.grid, now_ms);
        gone.retain(|uid| !named.contains(uid));
        let mut deleted = 0;
        let mut failed = None;
        for (key, _) in folder.clone().iter().filter(|(_, checkpoint)| gone.contains(&checkpoint.uid)) {
            match store.delete(key).await {
                Ok(()) => {
                    folder.remove(key);
                    deleted += 1;
                }
                Err(failure) => failed = Some(failure),
            }
        }
        self.lock().insert(name, folder);
        failed.map_or(Ok(deleted), Err)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Folder>> {
        self.folders.lock().expect("no holder of this lock panics")
    }
}

async fn learn(store: &dyn Store, keys: &Keys, folder: &str) -> Result<Folder, Failure> {
    let mut found = Folder::new();
    for listed in list_all(store, folder).await? {
        let name = match keys.parse(&listed.key) {
            Ok(Key::MetadataCheckpoint(_, name) | Key::Checkpoint(_, name)) => name,
            _ => continue,
        };
        let Ok(beginning) = store.get_range(&listed.key, 0..listed.bytes.min(PEEK_BYTES)).await else {
            continue;
        };
        if let Ok(header) = CheckpointHeader::peek(beginning) {
            found.insert(listed.key, described(&header, name, listed.bytes));
        }
    }
    Ok(found)
}

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
    use varve_objects::testing::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn b1_the_newest_three_stay_and_what_the_group_names_and_others_of_the_hour_go() {
        let (store, keys) = (MemoryStore::default(), Prefix::new("p").cluster(ClusterId::from_random(1)));
        let retention = Retention::default();
        let mut deleted = 0;
        for applied in 1..=7_u64 {
            let name = CheckpointName { applied_index: LogIndex(applied), term: Term(1), uid: applied };
            let key = keys.build(&Key::MetadataCheckpoint(Incarnation(1), name));
            let body = bytes::Bytes::from_static(b"checkpoint");
            store.put_new(&key, body.clone().into(), Digest::of(&body)).await.unwrap();
            let header = PublishedCheckpoint {
                uid: applied,
                key_term: Term(1),
                state_index: LogIndex(applied),
                state_term: Term(1),
                state_offset: Default::default(),
                applied_index: LogIndex(applied),
                log_start: Default::default(),
                bytes: 10,
                sha256: Default::default(),
                published_ms: 7_200_000 + applied as i64,
            };
            // The first is what the group names: the commits of the others never came.
            deleted += retention.after_publish(&store, &keys, (&key, header), &[1]).await.unwrap();
        }
        let left = list_all(&store, &keys.metadata_checkpoints(Incarnation(1))).await.unwrap();
        assert_eq!((deleted, left.len()), (3, 4));
    }
}
