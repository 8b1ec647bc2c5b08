//! Reads from the object store that a fetch has begun. They run side by side and outlive its passes; where others are
//! enough, or time is up, the answer leaves without them, and the next fetch finds them in the cache.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};
use varve_common::clock::BoxFuture;

use crate::node::{ColdRead, ReadError};

/// How long an answer that could leave waits for records that are on their way: what is in a cache comes within it.
const LAST_MOMENT: Duration = Duration::from_millis(5);

/// What one partition gave.
pub type Arrived = Result<Vec<Bytes>, ReadError>;

struct Cold {
    promised: usize,
    read: Option<ColdRead>,
    arrived: Option<Arrived>,
}

impl Cold {
    async fn arrive(&mut self) {
        if let Some(read) = &mut self.read {
            let arrived = read.await;
            self.read = None;
            self.arrived = Some(arrived.map(|batches| batches.chunks));
        }
    }
}

/// The reads, by the place of their partition in the fetch.
pub struct OnTheirWay {
    bytes_max: usize,
    reads: BTreeMap<usize, Cold>,
}

impl OnTheirWay {
    /// None yet. Side by side they bring no more than `bytes_max`, beside what is read on this node.
    pub const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, reads: BTreeMap::new() }
    }

    /// Whether a partition was asked for already.
    pub fn knows(&self, place: usize) -> bool {
        self.reads.contains_key(&place)
    }

    /// Takes a read of at most so many bytes; one for which there is no room is left to the next fetch.
    pub fn expect(&mut self, place: usize, read: ColdRead, promised: usize) {
        let others: usize = self.reads.values().map(|cold| cold.promised).sum();
        let fits = others == 0 || others + promised <= self.bytes_max;
        let cold =
            Cold { promised: if fits { promised } else { 0 }, read: fits.then_some(read), arrived: None };
        self.reads.insert(place, cold);
    }

    /// What a partition gave, if it has arrived.
    pub fn arrived(&self, place: usize) -> Option<Arrived> {
        self.reads.get(&place)?.arrived.clone()
    }

    /// The partitions whose records have arrived.
    pub fn places(&self) -> Vec<usize> {
        let arrived = self.reads.iter().filter(|(_, cold)| cold.arrived.is_some());
        arrived.map(|(place, _)| *place).collect()
    }

    /// A future for each that is on its way.
    pub fn events(&mut self) -> impl Iterator<Item = BoxFuture<'_, ()>> {
        let waiting = self.reads.values_mut().filter(|cold| cold.read.is_some());
        waiting.map(|cold| Box::pin(cold.arrive()) as BoxFuture<'_, ()>)
    }

    /// Gives what is on its way a last moment.
    pub async fn linger(&mut self) {
        let events: Vec<_> = self.events().collect();
        if !events.is_empty() {
            drop(timeout_at(Instant::now() + LAST_MOMENT, join_all(events)).await);
        }
    }
}
