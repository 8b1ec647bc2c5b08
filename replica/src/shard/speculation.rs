//! The partition as it will be when everything pending is applied: where the leader assigns offsets and checks
//! producers (RAFT.md 4). Rebuilt from the applied state whenever nothing is pending, and on every change of leadership.

use std::collections::BTreeMap;

use varve_common::{LogIndex, Offset};
use varve_formats::{command::Roll, state::ProducerEntry};

use super::missed::Missed;
use crate::{
    api::{BatchMeta, OpenRange},
    partition::{PartitionState, Verdict, check, remember},
};

#[derive(Debug, Default)]
pub(super) struct Speculation {
    pub(super) log_end: Offset,
    pub(super) open: OpenRange,
    /// Producers that pending batches touch; over the applied table.
    producers: BTreeMap<i64, ProducerEntry>,
    /// A roll that is proposed and not applied.
    pub(super) roll: Option<LogIndex>,
    /// A command that changes the manifest, proposed and not applied.
    pub(super) fence: Option<LogIndex>,
    /// Intents that are proposed and not applied, by the base of their range.
    intents: BTreeMap<Offset, LogIndex>,
    /// The same of the expiry of intents.
    pub(super) expiry: Option<LogIndex>,
    /// The same of what says that something is deleted.
    pub(super) reaped: Option<LogIndex>,
    /// The same of what says how far files for other systems go.
    pub(super) archive: Option<LogIndex>,
}

impl Speculation {
    /// Nothing is pending: what is applied is all.
    pub(super) fn reset(&mut self, state: &PartitionState) {
        let records = state.records();
        *self = Self { log_end: records.log_end, open: records.open, ..Self::default() };
    }

    fn known<'a>(&'a self, state: &'a PartitionState, producer_id: i64) -> Option<&'a ProducerEntry> {
        self.producers.get(&producer_id).or_else(|| state.records().producers.get(&producer_id))
    }

    pub(super) fn check(&self, state: &PartitionState, missed: &Missed, meta: &BatchMeta) -> Verdict {
        if meta.producer_id < 0 {
            return Verdict::Append;
        }
        match self.known(state, meta.producer_id) {
            Some(known) => check(Some(known), meta),
            None => missed.check(meta),
        }
    }

    /// Whether nothing is known of a producer.
    pub(super) fn is_unknown(&self, state: &PartitionState, producer_id: i64) -> bool {
        self.known(state, producer_id).is_none()
    }

    /// Producers that only pending batches know.
    pub(super) fn unknown(&self, state: &PartitionState) -> impl Iterator<Item = &ProducerEntry> {
        self.producers.values().filter(|entry| !state.records().producers.contains_key(&entry.producer_id))
    }

    /// A batch was proposed at `index`.
    pub(super) fn append(
        &mut self,
        state: &PartitionState,
        meta: &BatchMeta,
        index: LogIndex,
        append_time_ms: i64,
    ) {
        if meta.producer_id >= 0 {
            let entry = remember(self.known(state, meta.producer_id), meta, self.log_end, append_time_ms);
            self.producers.insert(meta.producer_id, entry);
        }
        self.open.extend(meta, index, append_time_ms);
        self.log_end = self.log_end.plus(u64::from(meta.last_offset_delta) + 1);
    }

    /// The command that would close the open range now; `None` where that is empty.
    pub(super) fn roll_command(&self) -> Option<Roll> {
        (!self.open.is_empty()).then(|| self.open.roll(self.log_end))
    }

    /// A roll was proposed at `index`.
    pub(super) fn rolled(&mut self, index: LogIndex) {
        self.open = OpenRange::starting_at(self.log_end);
        self.roll = Some(index);
    }

    /// Whether an intent for the range at `base` is on its way.
    pub(super) fn announces(&self, base: Offset) -> bool {
        self.intents.contains_key(&base)
    }

    /// An intent was proposed at `index`.
    pub(super) fn announced(&mut self, base: Offset, index: LogIndex) {
        self.intents.insert(base, index);
    }

    /// The entry at `index` was applied.
    pub(super) fn applied(&mut self, index: LogIndex) {
        for pending in
            [&mut self.roll, &mut self.fence, &mut self.expiry, &mut self.reaped, &mut self.archive]
        {
            *pending = pending.filter(|pending| *pending > index);
        }
        self.intents.retain(|_, pending| *pending > index);
    }
}
