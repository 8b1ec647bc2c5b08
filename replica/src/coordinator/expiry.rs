//! Offsets that nobody wants any more: Kafka's rule (KIP-211), by `offsets.retention.minutes`.
//!
//! While a group has members its offsets stay, but for topics that no consumer of it subscribes to. Once it is empty they
//! stay for the retention, counted from then; those of a group that never had members from their commit.

use std::{
    cell::LazyCell,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use super::{
    Coordinator, Step,
    group::{Group, State},
    offsets::{Subscription, tombstone},
    stored::{Committed, Groups, StoredGroup},
    writes::{NewRecord, Place},
};
use crate::{
    api::Now,
    limits::{EXPIRED_AT_ONCE_MAX, EXPIRED_GROUPS_MAX, EXPIRY_PAUSE},
};

impl Coordinator {
    /// Lets go of what is old, some of it: the rest after a pause, for others wait.
    pub(super) fn expire(&mut self, now: Now, stored: &Groups) {
        let begin = self.expire_from.take().map_or(Unbounded, Excluded);
        let names = self.groups.range::<Arc<str>, _>((begin, Unbounded)).map(|(name, _)| Arc::clone(name));
        let names: Vec<Arc<str>> = names.take(EXPIRED_GROUPS_MAX).collect();
        let mut is_whole = names.len() < EXPIRED_GROUPS_MAX;
        let mut room = EXPIRED_AT_ONCE_MAX;
        for name in names {
            room = room.saturating_sub(self.expire_one(now, &name, stored));
            self.expire_from = Some(name);
            if room == 0 {
                is_whole = false;
                break;
            }
        }
        let pause = if is_whole { self.options.expiry_interval } else { EXPIRY_PAUSE };
        if is_whole {
            self.expire_from = None;
        }
        self.expire_at = now.monotonic.plus(pause.min(self.options.expiry_interval));
    }

    /// How many records that takes.
    fn expire_one(&mut self, now: Now, name: &Arc<str>, stored: &Groups) -> usize {
        let group = &self.groups[name];
        // What is on its way is younger than any retention.
        if !group.pending.is_empty() || group.is_ending {
            return 0;
        }
        let step = Step { now, name, options: &self.options, out: &mut self.out, stored };
        let Some(records) = group.expired(&step) else {
            self.begin_end(now, name, None, stored);
            return 1 + stored.get(name).map_or(0, |stored| stored.count());
        };
        // Where the log takes them not, the next look finds them again.
        self.out.write_quietly(now.wall_ms, &records);
        records.len()
    }
}

impl Group {
    /// The end of old offsets; `None` where nothing is left of the group.
    fn expired(&self, step: &Step<'_>) -> Option<Vec<NewRecord>> {
        let is_over = self.state == State::Empty && self.expected.is_empty();
        let Some(stored) = step.stored.get(step.name) else { return (!is_over).then(Vec::new) };
        let (mut records, left) = self.old_offsets(step, stored);
        if left == 0 && is_over && (stored.metadata.is_none() || is_old(step, self.since_ms)) {
            return None;
        }
        records.truncate(EXPIRED_AT_ONCE_MAX);
        Some(records)
    }

    /// The end of what is old, and how much is not.
    fn old_offsets(&self, step: &Step<'_>, stored: &StoredGroup) -> (Vec<NewRecord>, usize) {
        // Only where something is old: members of many topics say much.
        let subscribed = LazyCell::new(|| match self.state {
            State::Stable => self.subscription(),
            State::Empty | State::PreparingRebalance | State::CompletingRebalance => Subscription::Unknown,
        });
        let goes = |topic: &str, committed: &Committed| match (&self.protocol_type, self.state) {
            _ if !self.is_due(step, committed) => false,
            (None, _) | (Some(_), State::Empty) => true,
            (Some(_), _) => !subscribed.may_hold(topic),
        };
        let (mut records, mut left) = (Vec::new(), 0);
        for (topic, partitions) in &stored.offsets {
            for (partition, committed) in partitions {
                if goes(topic, committed) {
                    let place: Place = (Arc::clone(topic), *partition);
                    records.push(tombstone(step.name, &place));
                } else {
                    left += 1;
                }
            }
        }
        (records, left)
    }

    /// Whether an offset that nobody reads has stayed as long as it may: what clients of old said, or the retention.
    fn is_due(&self, step: &Step<'_>, committed: &Committed) -> bool {
        let value = &committed.value;
        if let Some(expire_ms) = value.expire_ms {
            return step.now.wall_ms >= expire_ms;
        }
        let is_empty = self.protocol_type.is_some() && self.state == State::Empty;
        is_old(step, if is_empty { self.since_ms.max(value.commit_ms) } else { value.commit_ms })
    }
}

fn is_old(step: &Step<'_>, since_ms: i64) -> bool {
    let retention_ms = i64::try_from(step.options.retention.as_millis()).unwrap_or(i64::MAX);
    step.now.wall_ms.saturating_sub(since_ms) >= retention_ms
}
