//! Offsets that nobody wants any more: Kafka's rule (KIP-211), by `offsets.retention.minutes`.
//!
//! While a group has members its offsets stay, but for topics that no consumer of it subscribes to. Once it is empty they
//! stay for the retention, counted from then; those of a group that never had members from their commit.

use std::sync::Arc;

use super::{
    Coordinator, Step,
    group::{Group, State},
    offsets::tombstone,
    stored::{Groups, StoredGroup},
    writes::{NewRecord, Place, Write},
};
use crate::{api::Now, limits::EXPIRED_AT_ONCE_MAX};

impl Coordinator {
    /// Lets go of what is old, some of it: the rest the next time.
    pub(super) fn expire(&mut self, now: Now, stored: &Groups) {
        let names: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        let mut room = EXPIRED_AT_ONCE_MAX;
        for name in names {
            let group = &self.groups[&name];
            // What is on its way is younger than any retention.
            if !group.pending.is_empty() || room == 0 {
                continue;
            }
            let mut step = Step { now, name: &name, options: &self.options, out: &mut self.out };
            let Some(records) = group.expired(&step, stored.get(&name)) else {
                let records = group.end_of_group(&step, stored);
                room = room.saturating_sub(records.len());
                write(&mut step, &records);
                self.remove(&name);
                continue;
            };
            room = room.saturating_sub(records.len());
            write(&mut step, &records);
        }
    }
}

fn write(step: &mut Step<'_>, records: &[NewRecord]) {
    if !records.is_empty() {
        step.out.write(step.now.wall_ms, records, Write::Quiet);
    }
}

impl Group {
    /// The end of old offsets; `None` where nothing is left of the group.
    fn expired(&self, step: &Step<'_>, stored: Option<&Arc<StoredGroup>>) -> Option<Vec<NewRecord>> {
        let is_over = self.state == State::Empty && self.expected.is_empty();
        let Some(stored) = stored else { return (!is_over).then(Vec::new) };
        let retention_ms = i64::try_from(step.options.retention.as_millis()).unwrap_or(i64::MAX);
        let is_old = |since_ms: i64| step.now.wall_ms.saturating_sub(since_ms) >= retention_ms;
        let subscribed = if self.state == State::Stable { self.subscribed() } else { None };
        let goes = |topic: &str, commit_ms: i64| match (&self.protocol_type, self.state) {
            (Some(_), State::Empty) => is_old(self.since_ms.max(commit_ms)),
            (Some(_), State::Stable) => subscribed
                .as_ref()
                .is_some_and(|topics| !topics.iter().any(|known| known == topic) && is_old(commit_ms)),
            (None, _) => is_old(commit_ms),
            (Some(_), _) => false,
        };
        let (mut records, mut left) = (Vec::new(), 0);
        for (topic, partitions) in &stored.offsets {
            for (partition, committed) in partitions {
                if goes(topic, committed.value.commit_ms) {
                    let place: Place = (Arc::clone(topic), *partition);
                    records.push(tombstone(step, &place));
                } else {
                    left += 1;
                }
            }
        }
        let is_gone = is_over && left == 0 && (stored.metadata.is_none() || is_old(self.since_ms));
        (!is_gone).then_some(records)
    }
}
