//! Room in the log: who must let go of it, and when producers must wait for it.
//!
//! ```text
//! 0 %                      50 %                  70 %                    100 %
//! |  nothing is in a hurry  |  roll, seal, cut     |  producers wait        |
//! ```
//! Rolls and tier commands are entries too, and an entry of a group stands behind all before it. So producers are turned
//! away long before the log is full: were their records to fill it, the commands that free it would wait behind them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use varve_common::{Clock, GroupId};

use super::mailbox::{Mail, Mailbox};

/// How often the log is looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// The share of its limit from which on the log counts as short of room, in percent.
pub const MARK_PERCENT: u64 = 50;

/// The share of the limit from which on producers wait, in percent.
pub const CROWDED_PERCENT: u64 = 70;
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
        Self { wal, reader, crowded_bytes: bytes_max / 100 * CROWDED_PERCENT }
    }

    /// Whether producers must wait: the log is full, or so full that what frees it needs the rest.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.wal.pressure() != varve_wal::Pressure::None
            || self.reader.bytes() + self.wal.queued_bytes() > self.crowded_bytes
    }
}

/// Watches until it is dropped.
pub async fn watch(
    reader: varve_wal::Reader,
    wal: varve_wal::Handle,
    mailbox: Mailbox,
    clock: Arc<dyn Clock>,
    bytes_max: u64,
) {
    let mark = bytes_max / 100 * MARK_PERCENT;
    let mut pressed = false;
    loop {
        clock.sleep(INTERVAL).await;
        let short = reader.bytes() > mark || matches!(wal.pressure(), varve_wal::Pressure::Full(_));
        if !short && !pressed {
            continue;
        }
        pressed = short;
        let groups = if short { to_press(&reader.usage()) } else { Vec::new() };
        if !mailbox.send(Mail::Pressure(groups)) {
            return;
        }
    }
}

/// Who must let go: the groups that keep the oldest file, and those that hold most, down to half of what is live. What little
/// others hold in old files the log itself moves forward, once the live bytes have become few.
#[must_use]
pub fn to_press(usage: &varve_wal::Usage) -> Vec<GroupId> {
    let mut holders: Vec<(u64, GroupId)> =
        usage.groups.iter().map(|(group, bytes)| (*bytes, *group)).collect();
    holders.sort_unstable_by_key(|(bytes, group)| (std::cmp::Reverse(*bytes), *group));
    let mut pressed: BTreeSet<GroupId> = usage.oldest_pinned_by.iter().copied().collect();
    let mut covered = 0;
    for (bytes, group) in holders {
        if covered * 2 >= usage.live_bytes {
            break;
        }
        covered += bytes;
        pressed.insert(group);
    }
    pressed.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_most_is_pressed_beside_who_holds_the_oldest_file() {
        let usage = varve_wal::Usage {
            bytes: 1_000,
            live_bytes: 700,
            groups: [(0, 10), (1, 400), (2, 200), (3, 90)]
                .map(|(group, bytes)| (GroupId(group), bytes))
                .into(),
            oldest_pinned_by: vec![GroupId(0)],
        };
        assert_eq!(to_press(&usage), [GroupId(0), GroupId(1)]);
    }

    #[test]
    fn a_small_log_has_short_files() {
        let mib = 1 << 20;
        assert_eq!(file_bytes(64 * mib, 8 << 30), 64 * mib);
        assert_eq!(file_bytes(64 * mib, 256 * mib), 8 * mib);
        assert_eq!(file_bytes(64 * mib, 1), FILE_UNIT_BYTES);
        assert_eq!(file_bytes(mib, 8 << 30), mib);
    }
}
