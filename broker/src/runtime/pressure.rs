//! The log's room, seen from the node: producers wait for it, and the planner is told who must let go of it
//! ([`RoomWatch`]).

use std::{sync::Arc, time::Duration};

use varve_common::Clock;
use varve_compactor::{bytes_to_come, crowded_bytes};
use varve_objects::Budgets;

use super::mailbox::{Mail, Mailbox};
use crate::driver::RoomWatch;

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

/// Says whether there is room for records.
#[derive(Clone)]
pub struct Room {
    wal: varve_wal::Handle,
    reader: varve_wal::Reader,
    crowded_bytes: u64,
}

impl Room {
    /// Room in a log of at most `bytes_max`.
    #[must_use]
    pub fn new(wal: varve_wal::Handle, reader: varve_wal::Reader, bytes_max: u64) -> Self {
        Self { wal, reader, crowded_bytes: crowded_bytes(bytes_max) }
    }

    /// Whether producers must wait: the log is full, or so full that what frees it needs the rest.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.wal.pressure() != varve_wal::Pressure::None
            || bytes_to_come(self.reader.bytes(), self.wal.queued_bytes()) > self.crowded_bytes
    }
}

/// Watches until it is dropped.
pub async fn watch(
    reader: varve_wal::Reader,
    wal: varve_wal::Handle,
    mailbox: Mailbox,
    clock: Arc<dyn Clock>,
    bytes_max: u64,
    budgets: Budgets,
) {
    let mut room = RoomWatch::new(bytes_max);
    let producers = Room::new(wal.clone(), reader.clone(), bytes_max);
    loop {
        clock.sleep(INTERVAL).await;
        // What frees the log goes before what clients read.
        budgets.press(producers.is_crowded());
        let full = matches!(wal.pressure(), varve_wal::Pressure::Full(_));
        let sent = room.look(&reader, full).is_none_or(|pressure| mailbox.send(Mail::Pressure(pressure)));
        if !sent {
            return;
        }
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
