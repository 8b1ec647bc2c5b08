//! Who leads what: leaders push, every node remembers, nobody commits anything for it.
//!
//! A node publishes what its own replicas lead. Each change takes the next number of its life; a pulse to a peer
//! carries what changed behind the number that the peer has heard, so a lost pulse costs a repetition and an idle
//! cluster says nothing. A peer that starts anew has heard nothing of anybody.

use std::collections::{BTreeMap, BTreeSet};

use varve_common::{
    GroupId, ReplicaId, Term,
    codec::{DecodeError, Decoder, Encoder},
};

use crate::{limits::REPORTS_MAX, pulse::replica};

/// What a leader says of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderReport {
    /// Which group.
    pub group: GroupId,
    /// Its term.
    pub term: Term,
    /// Grows with each report of this term.
    pub version: u64,
    /// Who leads it.
    pub leader: ReplicaId,
    /// The voters that keep up, in order.
    pub in_sync: Vec<ReplicaId>,
}

impl LeaderReport {
    pub(crate) const BYTES_MIN: usize = 36;

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder.u64(self.group.0);
        encoder.term(self.term);
        encoder.u64(self.version);
        encoder.u64(self.leader.get());
        encoder.list(self.in_sync.iter(), |encoder, id| encoder.u64(id.get()));
    }

    pub(crate) fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(Self {
            group: GroupId(decoder.u64()?),
            term: decoder.term()?,
            version: decoder.u64()?,
            leader: replica(decoder)?,
            in_sync: decoder.list(8, replica)?,
        })
    }
}

/// The newest report of every group that this node has heard of, its own among them.
#[derive(Debug, Default)]
pub struct LeaderBoard {
    reports: BTreeMap<GroupId, LeaderReport>,
    /// Groups with news since somebody last asked.
    changed: BTreeSet<GroupId>,
}

impl LeaderBoard {
    /// Takes a report unless a newer one is known; whether anything changed.
    pub(crate) fn learn(&mut self, report: &LeaderReport) -> bool {
        let newest = self.reports.get(&report.group).map(|known| (known.term, known.version));
        if newest.is_some_and(|known| known >= (report.term, report.version)) {
            return false;
        }
        self.reports.insert(report.group, report.clone());
        self.changed.insert(report.group);
        true
    }

    /// What is news since this was last asked.
    pub(crate) fn take_changed(&mut self) -> Vec<LeaderReport> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().filter_map(|group| self.reports.get(group)).cloned().collect()
    }

    /// Who leads a group, as far as this node knows.
    #[must_use]
    pub fn get(&self, group: GroupId) -> Option<&LeaderReport> {
        self.reports.get(&group)
    }

    /// All that is known, by group.
    pub fn iter(&self) -> impl Iterator<Item = &LeaderReport> {
        self.reports.values()
    }
}

/// What this node leads, and when it last changed.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    number: u64,
    own: BTreeMap<GroupId, (u64, LeaderReport)>,
    by_number: BTreeMap<u64, GroupId>,
}

impl Publisher {
    /// This node leads `group`, in that term and with those in sync; gives the report where that is news.
    pub(crate) fn publish(
        &mut self,
        group: GroupId,
        term: Term,
        leader: ReplicaId,
        in_sync: Vec<ReplicaId>,
    ) -> Option<LeaderReport> {
        let before = self.own.get(&group);
        if before.is_some_and(|(_, known)| {
            (known.term, known.leader) == (term, leader) && known.in_sync == in_sync
        }) {
            return None;
        }
        if let Some((number, _)) = before {
            self.by_number.remove(number);
        }
        self.number += 1;
        let report = LeaderReport { group, term, version: self.number, leader, in_sync };
        self.own.insert(group, (self.number, report.clone()));
        self.by_number.insert(self.number, group);
        Some(report)
    }

    /// This node does not lead `group`.
    pub(crate) fn withdraw(&mut self, group: GroupId) {
        if let Some((number, _)) = self.own.remove(&group) {
            self.by_number.remove(&number);
        }
    }

    /// What changed behind `after`, and up to which number that is all.
    pub(crate) fn since(&self, after: u64) -> (u64, Vec<LeaderReport>) {
        let changed = self.by_number.range(after.saturating_add(1)..).take(REPORTS_MAX);
        let changed: Vec<(u64, GroupId)> = changed.map(|(number, group)| (*number, *group)).collect();
        let through = if changed.len() < REPORTS_MAX { self.number } else { changed[REPORTS_MAX - 1].0 };
        let reports =
            changed.iter().filter_map(|(_, group)| self.own.get(group)).map(|(_, report)| report.clone());
        (through, reports.collect())
    }
}
