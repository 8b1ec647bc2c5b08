//! Tells the shard which groups keep the log's oldest file while the log is short of room.

use std::{sync::Arc, time::Duration};

use varve_common::Clock;

use super::mailbox::{Mail, Mailbox};

/// How often the log is looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// The share of its limit from which on the log counts as short of room, in percent.
const MARK_PERCENT: u64 = 50;

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
        let groups = if short { reader.usage().oldest_pinned_by } else { Vec::new() };
        if !mailbox.send(Mail::Pressure(groups)) {
            return;
        }
    }
}
