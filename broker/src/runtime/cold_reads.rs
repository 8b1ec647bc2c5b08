//! Reads from the object store that are under way, so that a client that asks again joins the one it stopped waiting for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use futures_util::{FutureExt as _, future::Shared};
use tokio::runtime::Handle;
use varve_common::{GroupId, Offset};

use crate::node::{ColdRead, ReadBatches, ReadError};

/// Partition, first offset, most bytes, whether one batch comes whatever its size.
type Key = (GroupId, Offset, usize, bool);

/// A handle; clones share it.
#[derive(Clone, Default)]
pub struct ColdReads(Arc<Mutex<BTreeMap<Key, Shared<ColdRead>>>>);

impl ColdReads {
    /// The read that is under way, or the one that `begin` begins. It runs to its end whoever waits for it, and is
    /// forgotten then.
    pub fn join<F>(&self, runtime: &Handle, key: Key, begin: impl FnOnce() -> F) -> Shared<ColdRead>
    where
        F: Future<Output = Result<ReadBatches, ReadError>> + Send + 'static,
    {
        let mut reads = self.lock();
        if let Some(read) = reads.get(&key) {
            return read.clone();
        }
        let read: ColdRead = Box::pin(begin());
        let read = read.shared();
        reads.insert(key, read.clone());
        drop(reads);
        let place = Place { reads: self.clone(), key };
        let driven = read.clone();
        runtime.spawn(async move {
            drop(driven.await);
            drop(place);
        });
        read
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Shared<ColdRead>>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// Given up however the read ends.
struct Place {
    reads: ColdReads,
    key: Key,
}

impl Drop for Place {
    fn drop(&mut self) {
        let read = self.reads.lock().remove(&self.key);
        // Behind the lock: what it gave may be large.
        drop(read);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    #[tokio::test]
    async fn who_asks_again_joins_and_a_read_that_nobody_waits_for_goes_on_to_its_end() {
        let (reads, here) = (ColdReads::default(), Handle::current());
        let (open, opens) = watch::channel(false);
        let key = (GroupId(1), Offset(5), 100, true);
        let begin = || {
            let mut opens = opens.clone();
            async move {
                opens.wait_for(|open| *open).await.map_err(|_| ReadError::Storage)?;
                Ok(ReadBatches { chunks: Vec::new(), next: Offset(9) })
            }
        };
        drop(reads.join(&here, key, begin));
        let joined = reads.join(&here, key, || async { Err(ReadError::Corrupt) });
        assert_eq!(reads.count(), 1);
        open.send(true).unwrap();
        assert_eq!(joined.await.unwrap().next, Offset(9));
        while reads.count() > 0 {
            tokio::task::yield_now().await;
        }
        let anew = reads.join(&here, key, || async { Err(ReadError::Corrupt) });
        assert_eq!(anew.await, Err(ReadError::Corrupt));
    }
}
