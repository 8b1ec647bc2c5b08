//! What readers and the planner see of a group, and how far its log may be cut.

use std::sync::Arc;

use varve_common::{LogIndex, Offset, Term};

use super::hosted::{Hosted, Machine};
use crate::{
    api::{Effect, GroupStatus, JobsStatus, PartitionView, Role},
    bugs::{Bug, is_seeded},
    limits::LOCAL_CHECKPOINTS_KEPT,
    partition::PartitionState,
};

impl Hosted {
    fn role(&self) -> Role {
        let membership = self.raft.membership();
        match self.raft.role() {
            varve_consensus::Role::Leader => Role::Leader,
            varve_consensus::Role::Candidate | varve_consensus::Role::PreCandidate => Role::Candidate,
            varve_consensus::Role::Follower if membership.learners.contains(&self.replica) => Role::Learner,
            varve_consensus::Role::Follower => Role::Follower,
        }
    }

    /// Tells readers, where what they see has changed.
    pub(super) fn publish(&mut self, effects: &mut Vec<Effect>) {
        let Some(view) = self.view() else { return };
        if self.published_view.as_ref() != Some(&view) {
            self.published_view = Some(view.clone());
            effects.push(Effect::Publish { group: self.group, view: Arc::new(view) });
        }
    }

    pub(super) fn view(&self) -> Option<PartitionView> {
        let state = self.partition()?;
        let (records, bucket) = (state.records(), state.bucket());
        Some(PartitionView {
            identity: state.identity().clone(),
            replica: self.replica,
            role: self.role(),
            leader: self.raft.leader(),
            leader_epoch: self.raft.term().leader_epoch(),
            ready: self.is_ready(),
            whole: state.is_whole(),
            log_start: self.log_start(state),
            local_start: self.local_start(state),
            tiered_end: bucket.tiered_end,
            high_watermark: records.log_end,
            last_stable_offset: records.log_end,
            log_end: if self.is_ready() { self.speculation.log_end } else { records.log_end },
            epochs: Arc::clone(&records.epochs),
            root: Arc::clone(&bucket.root),
            intents: Arc::clone(&bucket.intents),
            tombstones: Arc::clone(&bucket.tombstones),
            rolls: Arc::clone(&records.rolls),
            seals: Arc::clone(&self.seals),
            open: records.open,
            producers: records.producers.len(),
        })
    }

    /// The first offset on this node: sealed files count where they reach the WAL's window without a gap.
    fn local_start(&self, state: &PartitionState) -> Offset {
        let mut start = self.wal_start.min(state.records().log_end);
        for seal in self.seals.iter().rev() {
            if seal.end >= start && seal.base < start {
                start = seal.base;
            }
        }
        start.max(self.log_start(state))
    }

    /// What was trimmed by A may reach beyond the records of a checkpoint as of S: until they are applied nothing is left. What
    /// another node had trimmed when this one jumped did not come with the checkpoint, which knows of less: readers are not
    /// promised what is nowhere here and gone elsewhere (B7).
    fn log_start(&self, state: &PartitionState) -> Offset {
        state.bucket().log_start.max(self.installs.passed_over()).min(state.records().log_end)
    }

    /// The furthest safe cut (TIERING.md 6): below the older of two local checkpoints, and below the contiguous end of
    /// what is sealed here (mark fsynced) or tiered (append applied).
    pub(super) fn cut_limit(&self) -> (LogIndex, Term) {
        if self.local_checkpoints.len() < LOCAL_CHECKPOINTS_KEPT {
            return self.truncated;
        }
        let checkpoint = (self.local_checkpoints[0].index, self.local_checkpoints[0].term);
        let limit = match &self.machine {
            Machine::Metadata(_) => checkpoint.0,
            Machine::Partition(state) if !state.is_whole() => return self.truncated,
            Machine::Partition(state) => checkpoint.0.min(self.held_elsewhere(state)),
        };
        if limit <= self.truncated.0 {
            self.truncated
        } else if limit == checkpoint.0 {
            checkpoint
        } else {
            self.known_at_or_below(limit)
        }
    }

    /// The last roll, or entry before the first range that is nowhere else, that checkpoints alone still keep in the log.
    fn releasable(&self, state: &PartitionState) -> LogIndex {
        let last_roll =
            state.records().rolls.last().map_or(state.bucket().tiered_roll.0, |roll| roll.roll_index);
        last_roll.min(self.held_elsewhere(state))
    }

    /// The last entry with all records up to it tiered, sealed or trimmed.
    fn held_elsewhere(&self, state: &PartitionState) -> LogIndex {
        let records = state.records();
        let announced = |base: Offset| {
            is_seeded(Bug::CutBeforeAppend) && state.bucket().intents.iter().any(|intent| intent.base == base)
        };
        let missing = records.rolls.iter().find(|roll| {
            let sealed = self.seals.iter().any(|seal| seal.base == roll.base && seal.end == roll.end);
            // What was cut with nothing that holds it is lost: waiting for it brings nothing back.
            let cut = roll.roll_index <= self.truncated.0;
            !sealed && !announced(roll.base) && !cut
        });
        match missing {
            Some(roll) => before(roll.first_index),
            None if records.open.is_empty() => records.index,
            None => before(records.open.first_index),
        }
    }

    /// The entry at `limit`, or the nearest below it whose term this process knows.
    fn known_at_or_below(&self, limit: LogIndex) -> (LogIndex, Term) {
        if let Some(term) = self.raft.term_at(limit) {
            return (limit, term);
        }
        let tiered = self.partition().map(|state| state.bucket().tiered_roll);
        let sealed = self.seals.iter().map(|seal| (seal.last_index, seal.last_term));
        let known = sealed.chain(tiered).filter(|place| place.0 <= limit);
        known.max().map_or(self.truncated, |place| place.max(self.truncated))
    }

    /// The first offset that the WAL still holds after a cut: exact where the cut is at a roll, else no lower.
    pub(super) fn offset_after_cut(&self, index: LogIndex) -> Offset {
        let Some(state) = self.partition() else { return Offset::ZERO };
        let bucket = state.bucket();
        let open = state.records().open;
        let kept = state.records().rolls.iter().find(|roll| roll.roll_index > index);
        match kept {
            Some(roll) if roll.first_index > index => roll.base,
            Some(roll) => roll.end,
            None if open.is_empty() => state.records().log_end,
            None if open.first_index > index => open.base.max(bucket.log_start),
            None => state.records().log_end,
        }
    }

    /// What is left after a cut, as a share: the WAL's own accounting is exact, this is for the planner's order only.
    pub(super) fn log_bytes_after_cut(&self) -> u64 {
        let Some(state) = self.partition() else { return self.since_checkpoint.bytes };
        let rolls: u64 = state
            .records()
            .rolls
            .iter()
            .filter(|roll| roll.roll_index > self.truncated.0)
            .map(|roll| roll.bytes)
            .sum();
        (rolls + state.records().open.bytes).min(self.log_bytes)
    }

    pub(super) fn status(&self) -> GroupStatus {
        let partition = self.partition();
        let records = partition.map(PartitionState::records);
        let bucket = partition.map(PartitionState::bucket);
        let (applied, published) = match &self.machine {
            Machine::Partition(state) => (state.applied(), state.bucket().published.as_ref().clone()),
            Machine::Metadata(state) => (state.applied(), state.published().to_vec()),
        };
        let [offer_end, lasting_end] = self.offer_ends();
        GroupStatus {
            group: self.group,
            replica: self.replica,
            identity: partition.map(|state| state.identity().clone()),
            options: self.options.clone(),
            role: self.role(),
            term: self.raft.term(),
            ready: self.is_ready(),
            applied,
            truncated: self.truncated,
            cut_limit: self.cut_limit(),
            releasable: partition.map_or(LogIndex::ZERO, |state| self.releasable(state)),
            log_bytes: self.log_bytes,
            bytes_since_checkpoint: self.since_checkpoint.bytes,
            changes_since_checkpoint: self.since_checkpoint.changes,
            log_start: bucket.map_or(Offset::ZERO, |bucket| bucket.log_start),
            high_watermark: records.map_or(Offset::ZERO, |records| records.log_end),
            open: records.map(|records| records.open).unwrap_or_default(),
            rolls: records.map(|records| Arc::clone(&records.rolls)).unwrap_or_default(),
            seals: Arc::clone(&self.seals),
            tiered_end: bucket.map_or(Offset::ZERO, |bucket| bucket.tiered_end),
            root: bucket.map(|bucket| Arc::clone(&bucket.root)).unwrap_or_default(),
            manifest_seq: bucket.map_or(0, |bucket| bucket.manifest_seq),
            intents: bucket.map(|bucket| Arc::clone(&bucket.intents)).unwrap_or_default(),
            uploading: self.uploading.clone(),
            uploaded: self.uploaded.keys().copied().collect(),
            appendable: self.speculation.fence.is_none() && !self.appendable().is_empty(),
            upload_failed: self.upload_failed.clone(),
            deletions: self.deletions(),
            reaped_early: self.reaped_early.clone(),
            tombstones: bucket.map(|bucket| Arc::clone(&bucket.tombstones)).unwrap_or_default(),
            published,
            local_checkpoints: self.local_checkpoints.clone(),
            unpublished_segments: self.unpublished_segments(),
            first_unpublished_ms: self.first_unpublished_ms,
            publish_dirty: self.publish_dirty,
            publication_pending: self.publishing > self.applied(),
            checkpoint_wanted: self.installs.is_wanted(),
            checkpoint_declined: self.installs.is_declined(),
            offer_end,
            lasting_end,
            leased: self.leased(),
            broken: self.broken.clone(),
            needed_above: self.needed_above(),
            has_peers: self.raft.members().any(|member| member != self.replica),
            reached_by_all: self.reached_by_all(),
            roll_pending: self.speculation.roll.is_some(),
            fence_pending: self.speculation.fence.is_some(),
            archive: bucket.and_then(|bucket| bucket.archive),
            unarchived_since_ms: self.archiving.since_ms(),
            archive_pending: self.speculation.archive.is_some(),
            inflight_bytes: self.pending.bytes(),
            producers: records.map_or(0, |records| records.producers.len()),
            oldest_producer_ms: records
                .and_then(|records| records.producers.values().map(|producer| producer.last_timestamp).min()),
            fenced_commands: partition.map_or(0, PartitionState::fenced),
            jobs: JobsStatus { seal_waits: self.installs.waits_to_seal(), ..self.jobs.clone() },
        }
    }
}

const fn before(index: LogIndex) -> LogIndex {
    LogIndex(index.0.saturating_sub(1))
}
