//! Names of partitions' objects that a look for what nobody knows has listed anyway, so that they need not be listed again for each
//! partition: of 1,000 partitions 2,000 listings.
//!
//! A folder is answered from memory once. Whoever asks again was told of something that is not there, and means to see what is there
//! now. Only partitions of which all names were seen are answered so: of one that has more of them than a page, the store is asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use varve_common::{Digest, ObjectKey, clock::BoxFuture};
use varve_objects::{Body, Failure, GetError, HeadError, Listed, Page, PutError, Store, Suffix};

/// Names that are held, some 200 bytes each. Partitions that are listed behind them are listed again.
const NAMES_MAX: usize = 1 << 18;

/// A store, with what is known of its names.
pub(super) struct Foreseen {
    inner: Arc<dyn Store>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Of each partition all of its names, by its folder.
    names: BTreeMap<String, Arc<[Listed]>>,
    held: usize,
    /// Folders that were answered.
    answered: BTreeSet<String>,
}

impl Foreseen {
    pub(super) fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, known: Mutex::default() }
    }

    /// Keeps all names of a partition.
    pub(super) fn learn(&self, partition: String, names: Vec<Listed>) {
        let mut known = self.known();
        if known.held + names.len() <= NAMES_MAX {
            known.held += names.len();
            known.names.insert(partition, names.into());
        }
    }

    /// All names of a partition, where they are known.
    pub(super) fn names(&self, partition: &str) -> Option<Arc<[Listed]>> {
        self.known().names.get(partition).map(Arc::clone)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no holder of this lock panics")
    }

    fn answer(&self, folder: &str, start_after: Option<&ObjectKey>) -> Option<Page> {
        let mut known = self.known();
        let above = folder.match_indices('/').map(|(end, _)| &folder[..end]).chain([folder]);
        let names = above.filter_map(|above| known.names.get(above)).next().map(Arc::clone)?;
        if !known.answered.insert(folder.to_owned()) {
            return None;
        }
        let is_in = |listed: &&Listed| {
            listed.key.as_str().strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
        };
        let is_behind = |listed: &&Listed| start_after.is_none_or(|after| listed.key > *after);
        let objects = names.iter().filter(is_in).filter(is_behind).cloned().collect();
        Some(Page { objects, more: false })
    }
}

impl Store for Foreseen {
    fn put_new<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Body,
        sha256: Digest,
    ) -> BoxFuture<'a, Result<(), PutError>> {
        self.inner.put_new(key, body, sha256)
    }

    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Bytes, GetError>> {
        self.inner.get(key)
    }

    fn get_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, GetError>> {
        self.inner.get_range(key, range)
    }

    fn get_suffix<'a>(&'a self, key: &'a ObjectKey, bytes: u64) -> BoxFuture<'a, Result<Suffix, GetError>> {
        self.inner.get_suffix(key, bytes)
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<u64, HeadError>> {
        self.inner.head(key)
    }

    fn list<'a>(
        &'a self,
        folder: &'a str,
        start_after: Option<&'a ObjectKey>,
    ) -> BoxFuture<'a, Result<Page, Failure>> {
        match self.answer(folder, start_after) {
            Some(page) => Box::pin(async { Ok(page) }),
            None => self.inner.list(folder, start_after),
        }
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Failure>> {
        self.inner.delete(key)
    }
}

#[cfg(test)]
mod tests {
    use varve_objects::{Counting, Operation, testing::MemoryStore};

    use super::*;

    fn listed(key: &str) -> Listed {
        Listed { key: ObjectKey::new(key.to_owned()), bytes: 1 }
    }

    async fn keys(store: &Foreseen, folder: &str, after: Option<&str>) -> Vec<String> {
        let after = after.map(|after| ObjectKey::new(after.to_owned()));
        let page = store.list(folder, after.as_ref()).await.unwrap();
        page.objects.into_iter().map(|listed| listed.key.as_str().to_owned()).collect()
    }

    #[tokio::test]
    async fn a_folder_is_answered_from_memory_once_and_then_by_the_store() {
        let counting = Counting::new(MemoryStore::default());
        let counters = counting.counters();
        let store = Foreseen::new(Arc::new(counting));
        let names = ["p/t/0/i1/ckpt/5", "p/t/0/i1/ckpt/7", "p/t/0/i1/seg/5", "p/t/0/i1/segments"];
        store.learn("p/t/0".to_owned(), names.map(listed).into());
        let asked = || counters.snapshot()[&Operation::List].requests;
        assert_eq!(keys(&store, "p/t/0/i1/ckpt", Some("p/t/0/i1/ckpt/5")).await, ["p/t/0/i1/ckpt/7"]);
        assert_eq!(keys(&store, "p/t/0/i1/seg", None).await, ["p/t/0/i1/seg/5"]);
        assert_eq!((asked(), keys(&store, "p/t/0/i2/seg", None).await.len()), (0, 0));
        // What was listed is not there: the second look is a look at the store.
        assert_eq!(keys(&store, "p/t/0/i1/ckpt", None).await, [""; 0]);
        assert_eq!(asked(), 1);
        // Of others nothing is known, whatever their names begin with.
        drop(keys(&store, "p/t/00/i1/seg", None).await);
        drop(keys(&store, "p/t", None).await);
        assert_eq!(asked(), 3);
    }

    #[test]
    fn names_are_bounded() {
        let store = Foreseen::new(Arc::new(MemoryStore::default()));
        let many = |count| (0..count).map(|number| listed(&format!("{number}"))).collect();
        store.learn("a".to_owned(), many(NAMES_MAX - 1));
        store.learn("b".to_owned(), many(2));
        store.learn("c".to_owned(), many(1));
        assert!(store.names("b").is_none() && store.names("c").is_some());
    }
}
