//! How long single requests take, one after the other.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use varve_common::{Digest, ObjectKey};
use varve_objects::{Operation, Store};

use super::rights::{Right, Rights};
use crate::output::{Table, human_bytes};

pub const SMALL_BYTES: usize = 4 << 10;
const LARGE_BYTES: usize = 8 << 20;
/// Of so many small requests one is large.
const SMALL_PER_LARGE: u32 = 5;

/// The requests of one kind.
pub struct Latency {
    operation: Operation,
    bytes: usize,
    times: Vec<Duration>,
    failed: u32,
}

/// Times every kind of request that is granted; what fails is counted and not timed. Nothing is put that could not be deleted.
pub async fn measure(store: &dyn Store, folder: &str, samples: u32, rights: &Rights) -> Vec<Latency> {
    let mut all = if rights.has(Right::Put) && rights.has(Right::Delete) {
        let mut all = round(store, folder, samples, SMALL_BYTES, rights).await;
        all.extend(round(store, folder, samples.div_ceil(SMALL_PER_LARGE), LARGE_BYTES, rights).await);
        all
    } else {
        of_what_is_there(store, folder, samples, rights).await
    };
    all.retain(|latency| !latency.times.is_empty() || latency.failed > 0);
    all
}

/// The requests of one size.
struct Round {
    put: Latency,
    get: Latency,
    range: Latency,
    head: Latency,
    list: Latency,
    delete: Latency,
    reads: bool,
    lists: bool,
}

impl Round {
    fn new(bytes: usize, rights: &Rights) -> Self {
        let new = |operation| Latency { operation, bytes, times: Vec::new(), failed: 0 };
        Self {
            put: new(Operation::Put),
            get: new(Operation::Get),
            range: new(Operation::GetRange),
            head: new(Operation::Head),
            list: new(Operation::List),
            delete: new(Operation::Delete),
            reads: rights.has(Right::Get),
            lists: rights.has(Right::List),
        }
    }

    async fn read(&mut self, store: &dyn Store, key: &ObjectKey) {
        if self.reads {
            self.get.time(store.get(key)).await;
            self.range.time(store.get_range(key, 0..(self.get.bytes / 2) as u64)).await;
            self.head.time(store.head(key)).await;
        }
    }

    async fn list(&mut self, store: &dyn Store, folder: &str) {
        if self.lists {
            self.list.time(store.list(folder, None)).await;
        }
    }

    /// Of large objects only what carries their bytes is of interest.
    fn finish(self) -> Vec<Latency> {
        if self.put.bytes == LARGE_BYTES {
            vec![self.put, self.get]
        } else {
            vec![self.put, self.get, self.range, self.head, self.list, self.delete]
        }
    }
}

async fn round(store: &dyn Store, folder: &str, samples: u32, bytes: usize, rights: &Rights) -> Vec<Latency> {
    let body = Bytes::from(vec![0x5a; bytes]);
    let digest = Digest::of(&body);
    let folder = format!("{folder}/latency-{bytes}");
    let key = |sample: u32| ObjectKey::new(format!("{folder}/{sample:05}"));
    let mut round = Round::new(bytes, rights);
    for sample in 0..samples {
        let key = key(sample);
        round.put.time(store.put_new(&key, body.clone().into(), digest)).await;
        round.read(store, &key).await;
        round.list(store, &folder).await;
    }
    for sample in 0..samples {
        round.delete.time(store.delete(&key(sample))).await;
    }
    round.finish()
}

/// Of the one object that was put to ask for rights and is still there, where one is.
async fn of_what_is_there(store: &dyn Store, folder: &str, samples: u32, rights: &Rights) -> Vec<Latency> {
    let mut round = Round::new(SMALL_BYTES, rights);
    round.put.times.extend(rights.put_took);
    for _ in 0..samples {
        if let Some(key) = &rights.left {
            round.read(store, key).await;
        }
        round.list(store, folder).await;
    }
    round.finish()
}

impl Latency {
    async fn time<T, E>(&mut self, request: impl Future<Output = Result<T, E>>) {
        let begin = Instant::now();
        match request.await {
            Ok(_) => self.times.push(begin.elapsed()),
            Err(_) => self.failed += 1,
        }
        self.times.sort_unstable();
    }

    /// The time within which so many of a hundred were done.
    fn percentile_ms(&self, percent: usize) -> Option<f64> {
        let place = (self.times.len() * percent).div_ceil(100).max(1) - 1;
        self.times.get(place).map(|time| time.as_secs_f64() * 1000.0)
    }

    fn carries_body(&self) -> bool {
        matches!(self.operation, Operation::Put | Operation::Get)
    }

    fn mib_per_second(&self) -> Option<f64> {
        let seconds = self.percentile_ms(50)? / 1000.0;
        (self.carries_body() && self.bytes == LARGE_BYTES)
            .then(|| self.bytes as f64 / f64::from(1 << 20) / seconds)
    }

    pub fn to_json(&self) -> Value {
        json!({
            "operation": self.operation.to_string(),
            "object_bytes": self.bytes,
            "requests": self.times.len(),
            "failed": self.failed,
            "p50_ms": self.percentile_ms(50),
            "p95_ms": self.percentile_ms(95),
            "max_ms": self.percentile_ms(100),
            "mib_per_second": self.mib_per_second(),
        })
    }
}

pub fn table(latencies: &[Latency]) -> String {
    let mut table =
        Table::new(&["REQUEST", "OBJECT", "COUNT", "FAILED", "P50 MS", "P95 MS", "MAX MS", "MIB/S"]);
    let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    for latency in latencies {
        table.row([
            latency.operation.to_string(),
            human_bytes(latency.bytes as u64),
            latency.times.len().to_string(),
            latency.failed.to_string(),
            cell(latency.percentile_ms(50)),
            cell(latency.percentile_ms(95)),
            cell(latency.percentile_ms(100)),
            cell(latency.mib_per_second()),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_times_in_order() {
        let times = (1..=20).map(Duration::from_millis).collect();
        let latency = Latency { operation: Operation::Get, bytes: LARGE_BYTES, times, failed: 0 };
        assert_eq!([50, 95, 100].map(|percent| latency.percentile_ms(percent)), [10.0, 19.0, 20.0].map(Some));
        assert_eq!(latency.mib_per_second(), Some(800.0));
        let none = Latency { operation: Operation::Head, bytes: 1, times: Vec::new(), failed: 2 };
        assert_eq!((none.percentile_ms(50), none.mib_per_second()), (None, None));
        assert!(table(&[none]).contains('-'));
    }
}
