//! Reads from the object store that are under way, so that a client that asks again joins the one it stopped waiting for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use futures_util::{FutureExt as _, future::Shared};
use prometheus_client::metrics::gauge::Gauge;
use tokio::runtime::Handle;
use varve_common::{GroupId, Offset};

use crate::node::{ColdRead, ReadBatches, ReadError};

/// Partition, first offset, most bytes, whether one batch comes whatever its size.
type Key = (GroupId, Offset, usize, bool);

/// A handle; clones share it.
#[derive(Clone, Default)]
pub struct ColdReads {
    reads: Arc<Mutex<BTreeMap<Key, Shared<ColdRead>>>>,
    count: Gauge,
}

impl ColdReads {
    /// None yet; how many there are is told to `count`.
    #[must_use]
    pub fn new(count: Gauge) -> Self {
        Self { reads: Arc::default(), count }
    }

    /// The read that is under way, or the one that `begin` begins. It runs on `runtime` and to its end, whoever waits for it,
    /// and is forgotten then: whoever waits takes only what it gave, so that no thread of a connection expands or copies what
    /// is cold.
    pub fn join<F>(&self, runtime: &Handle, key: Key, begin: impl FnOnce() -> F) -> Shared<ColdRead>
    where
        F: Future<Output = Result<ReadBatches, ReadError>> + Send + 'static,
    {
        let mut reads = self.lock();
        if let Some(read) = reads.get(&key) {
            return read.clone();
        }
        let (place, read) = (Place { reads: self.clone(), key }, begin());
        let task = runtime.spawn(async move {
            let read = read.await;
            drop(place);
            read
        });
        // A task that is dropped with its runtime gives nothing: the node stops.
        let read: ColdRead = Box::pin(async move { task.await.unwrap_or(Err(ReadError::Storage)) });
        let read = read.shared();
        reads.insert(key, read.clone());
        self.count.set(reads.len() as i64);
        read
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Shared<ColdRead>>> {
        self.reads.lock().expect("no holder of this lock panics")
    }
}

/// Given up however the read ends.
struct Place {
    reads: ColdReads,
    key: Key,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut reads = self.reads.lock();
        let read = reads.remove(&self.key);
        self.reads.count.set(reads.len() as i64);
        // What it gave may be large.
        drop(reads);
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
        assert_eq!(reads.count.get(), 1);
        open.send(true).unwrap();
        assert_eq!(joined.await.unwrap().next, Offset(9));
        while reads.count.get() > 0 {
            tokio::task::yield_now().await;
        }
        let anew = reads.join(&here, key, || async { Err(ReadError::Corrupt) });
        assert_eq!(anew.await, Err(ReadError::Corrupt));
    }

    #[test]
    fn a_read_runs_on_the_threads_for_it_whoever_waits() {
        let cold = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (reads, here) = (ColdReads::default(), std::thread::current().id());
        let begin = || async move {
            for _ in 0..3 {
                assert_ne!(std::thread::current().id(), here);
                tokio::task::yield_now().await;
            }
            Ok(ReadBatches { chunks: Vec::new(), next: Offset(9) })
        };
        let read = reads.join(cold.handle(), (GroupId(1), Offset(5), 100, true), begin);
        let waiter = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(waiter.block_on(read).unwrap().next, Offset(9));
    }
}
