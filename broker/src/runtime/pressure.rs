//! The log's room, seen from the node: producers wait for it, and the planner is told who must let go of it
//! ([`RoomWatch`]).

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use varve_common::{Clock, Disk};
use varve_compactor::{bytes_to_come, crowded_bytes};
use varve_objects::Budgets;

use super::mailbox::{Mail, Mailbox};
use crate::{driver::RoomWatch, metrics::Metrics};

/// How often the log is looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// A log of this many files lets one go before a large part of it is taken.
const FILES_MIN: u64 = 32;
/// The length of files is a multiple of this.
const FILE_UNIT_BYTES: u64 = 64 << 10;

/// The length of a log file: as configured, and shorter where the log is so small that it would hold few of them.
#[must_use]
pub fn file_bytes(configured: u64, bytes_max: u64) -> u64 {
    let most = (bytes_max / FILES_MIN).max(FILE_UNIT_BYTES);
    configured.min(most) / FILE_UNIT_BYTES * FILE_UNIT_BYTES
}

/// Says whether there is room for records. Clones share what was measured last.
#[derive(Clone)]
pub struct Room {
    wal: varve_wal::Handle,
    reader: varve_wal::Reader,
    /// How far the log may grow.
    bytes_max: Arc<AtomicU64>,
}

impl Room {
    /// Room in a log of at most `bytes_max`.
    #[must_use]
    pub fn new(wal: varve_wal::Handle, reader: varve_wal::Reader, bytes_max: u64) -> Self {
        Self { wal, reader, bytes_max: Arc::new(AtomicU64::new(bytes_max)) }
    }

    /// Bytes that wait to be durable.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.wal.queued_bytes()
    }

    /// Whether producers must wait: the log is full, or so full that what frees it needs the rest.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.wal.pressure() != varve_wal::Pressure::None
            || bytes_to_come(self.reader.bytes(), self.wal.queued_bytes())
                > crowded_bytes(self.bytes_max.load(Ordering::Relaxed))
    }
}

/// What is watched.
pub struct Sources {
    /// Producers ask it.
    pub room: Room,
    /// Of the log.
    pub quota: u64,
    /// The disk that holds `data`.
    pub disk: Arc<dyn Disk>,
    /// The data directory.
    pub data: PathBuf,
    /// The planner's thread.
    pub mailbox: Mailbox,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What is shown.
    pub metrics: Arc<Metrics>,
    /// The ways to the store.
    pub budgets: Budgets,
}

/// Watches until it is dropped.
pub async fn watch(sources: Sources) {
    let Sources { room: Room { wal, reader, bytes_max }, quota, .. } = &sources;
    let mut watch = RoomWatch::new(*quota);
    let mut was_short = false;
    loop {
        sources.clock.sleep(INTERVAL).await;
        // A disk that does not say leaves the quota.
        let free_bytes = sources.disk.space(&sources.data).map_or(u64::MAX, |space| space.free_bytes);
        // What frees the log goes before what clients read.
        sources.budgets.press(sources.room.is_crowded());
        bytes_max.store(watch.measure(reader.bytes(), free_bytes), Ordering::Relaxed);
        let full = matches!(wal.pressure(), varve_wal::Pressure::Full(_));
        let Some(pressure) = watch.look(reader, full) else { continue };
        if pressure.disk != was_short {
            was_short = pressure.disk;
            tell(&sources, free_bytes, was_short);
        }
        if !sources.mailbox.send(Mail::Pressure(pressure)) {
            return;
        }
    }
}

fn tell(sources: &Sources, free_bytes: u64, is_short: bool) {
    sources.metrics.handles.disk_short.set(i64::from(is_short));
    if is_short {
        tracing::warn!(
            free_bytes,
            "the disk is nearly full: what is in the object store leaves it now; then producers wait"
        );
    } else {
        tracing::info!(free_bytes, "the disk has room again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_log_has_short_files() {
        let mib = 1 << 20;
        assert_eq!(file_bytes(64 * mib, 8 << 30), 64 * mib);
        assert_eq!(file_bytes(64 * mib, 256 * mib), 8 * mib);
        assert_eq!(file_bytes(64 * mib, 1), FILE_UNIT_BYTES);
        assert_eq!(file_bytes(mib, 8 << 30), mib);
    }
}
