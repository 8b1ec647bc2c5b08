//! What may go for good: records beyond their retention, forgotten producers, objects that nothing names.

use std::time::Duration;

use varve_common::Offset;
use varve_formats::{
    command::{PublishedCheckpoint, TrimCause},
    state::Tombstone,
};
use varve_replica::{Action, GroupStatus, JobKind, LocalRetention};

use crate::Planner;

/// A closed range, wherever it lives.
struct Closed {
    end: Offset,
    bytes: u64,
    max_timestamp: i64,
}

/// The first offset from which on sealed files that `local.retention.*` asks for hold what is tiered; the end of what is
/// tiered where there are none.
fn kept_from(status: &GroupStatus) -> Offset {
    let mut start = status.tiered_end;
    if status.options.local_retention == LocalRetention::Window {
        return start;
    }
    for seal in status.seals.iter().rev().skip_while(|seal| seal.base >= status.tiered_end) {
        if seal.end < start {
            break;
        }
        start = seal.base;
    }
    start
}

impl Planner<'_> {
    pub(crate) fn retain(&mut self) {
        if !self.status.ready {
            return;
        }
        self.forget_tiered();
        self.trim();
        self.delete();
        self.expire_producers();
    }

    /// Closed ranges from the oldest on: folded nodes as a whole, then entries, then what is rolled and not tiered. Their
    /// bytes are the log's, as Kafka counts them: blocks may be smaller in the bucket.
    fn closed(&self) -> impl Iterator<Item = Closed> {
        let root = &self.status.root;
        let nodes = root.nodes.iter().map(|node| Closed {
            end: node.last.next(),
            bytes: node.log_bytes(),
            max_timestamp: node.max_timestamp,
        });
        let entries = root.entries.iter().map(|entry| Closed {
            end: entry.end(),
            bytes: entry.batch_bytes,
            max_timestamp: entry.max_timestamp,
        });
        let rolls = self.status.rolls.iter().map(|roll| Closed {
            end: roll.end,
            bytes: roll.bytes,
            max_timestamp: roll.max_timestamp,
        });
        nodes.chain(entries).chain(rolls)
    }

    /// Tiering was switched off for good: what is in the bucket leaves the log, up to what is on this node by the topic's
    /// own wish. That goes on being read, and follows when it is given up here.
    fn forget_tiered(&mut self) {
        let status = self.status;
        let is_in_bucket = !(status.root.nodes.is_empty() && status.root.entries.is_empty());
        if !status.options.forgets_tiered || status.fence_pending || !is_in_bucket {
            return;
        }
        let log_start = kept_from(status);
        if log_start > status.log_start {
            self.act(Action::Trim { log_start, cause: TrimCause::Disabled });
        }
    }

    fn trim(&mut self) {
        let options = &self.status.options;
        if self.status.fence_pending || (options.retention_ms.is_none() && options.retention_bytes.is_none())
        {
            return;
        }
        let held: u64 =
            self.closed().map(|range| range.bytes).fold(self.status.open.bytes, u64::saturating_add);
        let mut excess = options.retention_bytes.map_or(0, |most| held.saturating_sub(most));
        let oldest_ms = options.retention_ms.map(|ms| self.now.wall_ms.saturating_sub_unsigned(ms));
        let mut log_start = self.status.log_start;
        for range in self.closed() {
            let too_old =
                oldest_ms.is_some_and(|oldest| range.max_timestamp >= 0 && range.max_timestamp < oldest);
            if !too_old && range.bytes > excess {
                break;
            }
            excess = excess.saturating_sub(range.bytes);
            log_start = log_start.max(range.end);
        }
        if log_start > self.status.log_start {
            self.act(Action::Trim { log_start, cause: TrimCause::Retention });
        } else if self.closed().next().is_some() {
            self.look_after(self.options.retention_interval);
        }
    }

    /// Objects go when both of the newest checkpoints were published without them and the grace has passed.
    fn delete(&mut self) {
        if self.status.jobs.runs(JobKind::Delete) {
            return;
        }
        let mut uids = Vec::new();
        for tombstone in self.status.tombstones.iter() {
            if self.is_unnamed(tombstone) && self.has_aged(tombstone.since_ms, self.options.delete_grace) {
                uids.push(tombstone.uid);
            }
        }
        if !uids.is_empty() && self.may_try(JobKind::Delete) {
            self.act(Action::Delete { uids });
        }
    }

    /// Whether both of the newest checkpoints were published after the tombstone was made, and carry its log start. What no
    /// manifest ever named, an upload that was given up, waits for none.
    fn is_unnamed(&self, tombstone: &Tombstone) -> bool {
        if tombstone.named.is_empty() {
            return true;
        }
        let [older, newest] = self.status.published.as_slice() else { return false };
        let carries = |one: &PublishedCheckpoint| {
            tombstone.log_start <= one.log_start && tombstone.since_ms < one.published_ms
        };
        carries(older) && carries(newest)
    }

    /// Since when the oldest object waits for a checkpoint that does not name it.
    pub(crate) fn waits_since_ms(&self) -> Option<i64> {
        let waiting = self.status.tombstones.iter().filter(|tombstone| !self.is_unnamed(tombstone));
        waiting.map(|tombstone| tombstone.since_ms).min()
    }

    fn expire_producers(&mut self) {
        let Some(oldest) = self.status.oldest_producer_ms else { return };
        let expiration = Duration::from_millis(self.status.options.producer_expiration_ms);
        // A day's worth of ids is forgotten once an hour, not one by one.
        let slack = Duration::from_secs(3_600).min(expiration / 2);
        if self.has_aged(oldest, expiration + slack) {
            let expiration_ms = i64::try_from(expiration.as_millis()).unwrap_or(i64::MAX);
            let unused_since_ms = self.now.wall_ms.saturating_sub(expiration_ms);
            self.act(Action::ExpireProducers { unused_since_ms });
        }
    }
}
