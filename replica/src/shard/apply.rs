//! What raft hands out: writes, messages, changes of leadership, committed entries; and what each does to those who
//! wait.

use std::sync::Arc;

use varve_consensus::{Entry, Leadership, Persist, Ready, Role};
use varve_formats::command::Command;

use super::{
    holders::Held,
    hosted::{Hosted, Machine, log_entry},
    pending::{Proposal, Waiter},
};
use crate::{
    api::{Effect, Now, PeerEffect, PersistedHardState, Refusal, Reply, StopReason},
    metadata::MetadataApplied,
    partition::Applied,
};

impl Hosted {
    /// Hands out everything that is ready; whether something changed that readers or the planner see.
    pub(super) fn drive(&mut self, now: Now, effects: &mut Vec<Effect>) -> bool {
        while !self.is_stopped() {
            let Some(ready) = self.raft.ready() else { break };
            self.tell(&ready, effects);
            if let Some(leadership) = ready.leadership {
                self.on_leadership(leadership, effects);
            }
            if let Some(persist) = ready.persist {
                self.persist(ready.number, persist, effects);
            }
            effects.extend(
                ready.messages.into_iter().map(|message| Effect::Send { group: self.group, message }),
            );
            self.apply_all(&ready.committed, effects);
            if self.is_ready() {
                self.coordinate(now, effects);
                self.drain_queue(now, effects);
                self.advance_jobs(now);
            }
        }
        self.answer_held(effects);
        if let Some(violation) = self.raft.fenced()
            && !self.is_stopped()
        {
            self.stop(StopReason::Inconsistent(violation.to_string()), effects);
        }
        if std::mem::take(&mut self.touched) && !self.is_stopped() {
            self.publish(effects);
            return true;
        }
        false
    }

    /// What several nodes need; nothing with a single voter.
    fn tell(&mut self, ready: &Ready, effects: &mut Vec<Effect>) {
        let group = self.group;
        let fetches = ready.fetches.iter().map(|&fetch| PeerEffect::Fetch { group, fetch });
        self.told.extend(fetches);
        let reads = ready.reads.iter();
        self.told.extend(reads.map(|read| PeerEffect::Read { ticket: read.ticket, outcome: read.outcome }));
        let wanted = ready.snapshots_wanted.iter();
        self.told.extend(wanted.map(|wanted| PeerEffect::SnapshotWanted { group, replica: wanted.replica }));
        if !ready.snapshots_wanted.is_empty() {
            self.want_checkpoint();
        }
        if let Some(times) = ready.snapshots_late.iter().map(|late| late.times).max() {
            self.sent_in_vain(times);
        }
        if let Some(pointer) = &ready.snapshot_pointer {
            self.follow_pointer(pointer, effects);
        }
    }

    fn on_leadership(&mut self, leadership: Leadership, effects: &mut Vec<Effect>) {
        self.touched = true;
        // Whatever this replica proposed in an earlier term may still be committed, or not: nobody here can know.
        self.pending.fail(&Refusal::Unknown, effects);
        self.end_coordinator(effects);
        if leadership.role != Role::Leader {
            self.fail_waiters(&Refusal::NotLeader { leader: leadership.leader }, effects);
        }
        if let Machine::Partition(state) = &self.machine {
            // What is dropped may never be applied, and nobody remembers these producers then.
            for entry in self.speculation.unknown(state) {
                let sequence = entry.batches.first().map_or(0, |batch| batch.base_sequence);
                self.missed.note(entry.producer_id, entry.epoch, sequence);
            }
            self.speculation.reset(state);
        }
        self.upload_failed.clear();
        self.installs.forget_wanted();
        // Another leader may have collected what no manifest named in its time.
        (self.folding, self.folded, self.mended) = (None, None, None);
    }

    fn persist(&mut self, ready: u64, persist: Persist, effects: &mut Vec<Effect>) {
        let installed = persist.installed.map(|offer| self.adopt(&offer, ready, effects));
        let hard_state = persist.hard_state.map(|state| PersistedHardState {
            term: state.term,
            vote: state.vote.map_or(0, varve_common::ReplicaId::get),
            commit: state.commit,
        });
        let mut entries = Vec::with_capacity(persist.entries.len());
        for entry in &persist.entries {
            let offset = self.extend_tail(entry.index, entry.kind.to_u8(), &entry.data);
            self.log_bytes += entry.data.len() as u64;
            entries.push(log_entry(entry, offset));
        }
        let (group, replica, must_sync) = (self.group, self.replica, persist.must_sync);
        effects.push(Effect::Persist { group, replica, ready, hard_state, installed, entries, must_sync });
    }

    fn apply_all(&mut self, committed: &[Entry], effects: &mut Vec<Effect>) {
        let Some(last) = committed.last() else { return };
        for entry in committed {
            self.since_checkpoint.bytes += entry.data.len() as u64;
            let proposal = self.pending.take(entry.index);
            let (ours, others): (Option<Proposal>, Option<Proposal>) = match proposal {
                Some(proposal) if proposal.term == entry.term => (Some(proposal), None),
                other => (None, other),
            };
            let others = others.into_iter().flat_map(|proposal| proposal.waiters);
            effects.extend(others.filter_map(|waiter| waiter.refused(&Refusal::Unknown)));
            let waiters = ours.map_or_else(Vec::new, |proposal| proposal.waiters);
            if let Err(cause) = self.apply_one(entry, &waiters, effects) {
                let refused = |waiter: &Waiter| waiter.refused(&Refusal::StorageError);
                effects.extend(waiters.iter().filter_map(refused));
                return self.stop(StopReason::Apply { index: entry.index, cause }, effects);
            }
            self.speculation.applied(entry.index);
        }
        self.raft.applied(last.index);
        self.note_changes();
        self.applied_to(last.index);
        if let Machine::Partition(state) = &self.machine
            && self.pending.is_empty()
        {
            self.speculation.reset(state);
        }
        self.touched = true;
    }

    fn apply_one(
        &mut self,
        entry: &Entry,
        waiters: &[Waiter],
        effects: &mut Vec<Effect>,
    ) -> Result<(), crate::partition::ApplyError> {
        let log_entry = log_entry(entry, varve_common::Offset::ZERO);
        match &mut self.machine {
            Machine::Metadata(state) => {
                let applied = state.apply(&log_entry)?;
                let image = Arc::new(state.image().clone());
                self.after_metadata(applied, image, waiters, effects);
            }
            Machine::Partition(state) => {
                let applied = state.apply(&log_entry)?;
                self.after_partition(entry, applied, waiters, effects);
            }
        }
        Ok(())
    }

    fn after_metadata(
        &mut self,
        applied: MetadataApplied,
        image: Arc<crate::metadata::Image>,
        waiters: &[Waiter],
        effects: &mut Vec<Effect>,
    ) {
        match applied {
            MetadataApplied::Nothing | MetadataApplied::Fenced => {}
            MetadataApplied::Published => {
                self.publish_dirty = self.since_publish_capture();
                self.published_anew();
            }
            MetadataApplied::Command(outcome) => {
                self.since_checkpoint.changes += 1;
                self.publish_dirty = true;
                if outcome.is_ok() {
                    effects.push(Effect::MetadataChanged(image));
                }
                for ticket in waiters.iter().filter_map(|waiter| waiter.ticket()) {
                    effects.push(Effect::Reply { ticket, reply: Reply::Metadata(outcome.clone()) });
                }
            }
        }
    }

    fn after_partition(
        &mut self,
        entry: &Entry,
        applied: Applied,
        waiters: &[Waiter],
        effects: &mut Vec<Effect>,
    ) {
        match &applied {
            Applied::Nothing | Applied::Ignored => return,
            Applied::Records { header, batch, .. } => effects.push(Effect::Tail {
                group: self.group,
                base: header.base_offset,
                end: header.end(),
                term: entry.term,
                batch: batch.clone(),
            }),
            Applied::Changed(command) => self.after_change(command),
            Applied::Rolled(_) | Applied::Fenced(_) => {}
        }
        self.since_checkpoint.changes += 1;
        if !matches!(&applied, Applied::Changed(command) if matches!(**command, Command::CkptPublished(_))) {
            self.publish_dirty = true;
        }
        let Machine::Partition(state) = &self.machine else { return };
        let log_start = state.bucket().log_start;
        for waiter in waiters {
            let Some(ticket) = waiter.ticket() else {
                self.coordinating.applied.extend(waiter.write());
                continue;
            };
            let reply = match (*waiter, &applied) {
                (Waiter::Produce { append_time_ms, .. }, Applied::Records { header, .. }) => {
                    Reply::Produced { base_offset: header.base_offset, append_time_ms, log_start }
                }
                (Waiter::Duplicate { .. }, Applied::Records { header, .. }) => {
                    Reply::Duplicate { base_offset: header.base_offset, log_start }
                }
                (Waiter::Trim(_), Applied::Changed(_)) => Reply::Trimmed { log_start },
                (Waiter::Trim(_), _) => Reply::Refused(Refusal::Throttled),
                _ => Reply::Refused(Refusal::Unknown),
            };
            match waiter.replicas_min() {
                0 => effects.push(Effect::Reply { ticket, reply }),
                replicas_min => self.held.push(replicas_min, Held { index: entry.index, ticket, reply }),
            }
        }
    }

    fn after_change(&mut self, command: &Command) {
        let Machine::Partition(state) = &self.machine else { return };
        match command {
            Command::TierAppend(append) => {
                for entry in &append.entries {
                    self.uploaded.remove(&entry.uid);
                }
                let time = state.records().append_time_ms;
                self.first_unpublished_ms = self.first_unpublished_ms.or(Some(time));
                let is_archived = self.options.archive_age_ms.is_some();
                self.archiving.tiered(state.bucket().tiered_end, time, is_archived);
            }
            Command::Archived(archived) => self.archiving.archived(archived.end),
            Command::TierReplace(replace) => {
                for entry in &replace.added {
                    self.uploaded.remove(&entry.uid);
                }
            }
            Command::LeafReplaced(replaced) => {
                self.mended = None;
                for entry in &replaced.added {
                    self.uploaded.remove(&entry.uid);
                }
            }
            Command::IntentExpired(expired) => {
                for uid in &expired.uids {
                    self.uploaded.remove(uid);
                    self.upload_failed.remove(uid);
                }
            }
            Command::CkptPublished(_) => {
                self.publish_dirty = self.since_publish_capture();
                if self.unpublished_segments() == 0 {
                    self.first_unpublished_ms = None;
                }
                self.published_anew();
            }
            _ => {}
        }
    }
}
