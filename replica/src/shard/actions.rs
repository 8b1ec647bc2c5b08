//! What the planner decided, checked again: it looked at a status that may be old. A stale action is dropped; the
//! planner will see why in the next status.

use std::sync::Arc;

use varve_common::{LogIndex, Offset, Term, TopicId};
use varve_formats::{
    command::{
        Command, Fence, IntentExpired, LeafReplaced, ProducerExpired, TierAppend, TierIntent, TierReplace,
    },
    manifest::{self, EntryKind},
    state::{Intent, RollEntry},
};

use super::hosted::{Hosted, Machine, Progress};
use crate::{
    api::{Action, Effect, Job, JobKind, Mark, Mended, Now, ReapPass, SealMark, uid_of_leaf},
    checkpoint::Captured,
    limits::{DELETE_BATCH_MAX, UPLOADS_MAX},
    partition::PartitionState,
};

impl Hosted {
    pub(super) fn act(&mut self, now: Now, action: Action, effects: &mut Vec<Effect>) {
        // A tombstone may be offered and refused for days, as long as the grid keeps a checkpoint that names it.
        // Whoever asks its leader for something changes nothing here, and looks again in its time.
        self.touched |= match action {
            Action::Delete { .. } => false,
            Action::Advance => self.is_ready(),
            _ => true,
        };
        match action {
            Action::Roll { cause: _ } => self.roll(now),
            Action::Announce { uid, base, end } => self.announce(now, uid, base, end),
            Action::Upload { uid } => self.upload(uid, effects),
            Action::Append => self.append_uploaded(now),
            Action::Seal { base } => self.seal(base, effects),
            Action::Unseal { base } => self.unseal(base, effects),
            Action::CheckpointLocal => self.checkpoint_local(effects),
            Action::PublishCheckpoint { uid } => self.publish_checkpoint(uid, effects),
            Action::OfferCheckpoint => self.offer_checkpoint(effects),
            Action::Refetch { base } => self.refetch(base, effects),
            Action::Fold { uid } => self.fold(uid, effects),
            Action::MendLeaf { uid, leaf } => self.mend_leaf(uid, leaf, effects),
            Action::Trim { log_start, cause } => drop(self.propose_trim(now, log_start, cause, None)),
            Action::Expire { uids } => self.expire(now, uids),
            Action::ExpireProducers { unused_since_ms } => self.expire_producers(now, unused_since_ms),
            Action::Advance => self.advance(now),
            Action::Delete { uids } => self.delete(&uids, effects),
            Action::Archive => self.archive(effects),
            Action::Reap { topic, pass } => self.reap(topic, pass, effects),
            Action::Cut { index, term } => self.cut(index, term, effects),
        }
    }

    pub(super) fn partition(&self) -> Option<&PartitionState> {
        match &self.machine {
            Machine::Partition(state) => Some(state),
            Machine::Metadata(_) => None,
        }
    }

    pub(super) fn start(&mut self, job: Job, effects: &mut Vec<Effect>) {
        self.touched = true;
        *self.jobs.running.entry(job.kind()).or_insert(0) += 1;
        effects.push(Effect::Start(job));
    }

    fn roll(&mut self, now: Now) {
        if self.partition().is_none() || self.speculation.roll.is_some() {
            return;
        }
        let Some(roll) = self.speculation.roll_command() else { return };
        if let Some(index) = self.propose(now, &Command::Roll(roll), None) {
            self.speculation.rolled(index);
        }
    }

    fn announce(&mut self, now: Now, uid: u64, base: Offset, end: Offset) {
        let Some(state) = self.partition() else { return };
        let (bucket, records) = (state.bucket(), state.records());
        let legal = bucket.kind_of_upload(base, end, records).is_some() && !bucket.is_announced(uid, base);
        // Until it is applied the planner sees none, and asks again whenever anything happens: a quorum may take its time.
        if legal && self.options.tiered && !self.speculation.announces(base) {
            let intent = TierIntent { uid, term: self.raft.term(), base, end };
            if let Some(index) = self.propose(now, &Command::TierIntent(intent), None) {
                self.speculation.announced(base, index);
            }
        }
    }

    fn roll_of(&self, intent: &Intent) -> Option<&RollEntry> {
        let rolls = &self.partition()?.records().rolls;
        rolls.iter().find(|roll| roll.base == intent.base && roll.end == intent.end)
    }

    fn upload(&mut self, uid: u64, effects: &mut Vec<Effect>) {
        let Some(state) = self.partition() else { return };
        let Some(intent) = state.bucket().intents.iter().find(|intent| intent.uid == uid) else { return };
        let known = self.uploading.contains(&uid)
            || self.uploaded.contains_key(&uid)
            || self.upload_failed.contains(&uid);
        let current = intent.term == self.raft.term() && self.is_ready();
        if known || !current || self.uploading.len() >= UPLOADS_MAX {
            return;
        }
        let job = match intent.kind {
            EntryKind::Raw => self.upload_job(state, intent),
            _ => self.replacing_job(state, intent),
        };
        if let Some(job) = job {
            self.uploading.insert(uid);
            self.start(job, effects);
        }
    }

    fn upload_job(&self, state: &PartitionState, intent: &Intent) -> Option<Job> {
        let roll = self.roll_of(intent)?;
        Some(Job::Upload {
            group: self.group,
            identity: state.identity().clone(),
            intent: intent.clone(),
            roll: roll.clone(),
            frozen: state.frozen_at(roll.end).map(Arc::clone),
            seal: self.seals.iter().find(|seal| seal.base == roll.base && seal.end == roll.end).cloned(),
        })
    }

    /// Of one segment: its object is damaged, and this node may still hold its records. Of several: they become one; one
    /// such job at a time, for what it holds in memory and asks of the store is not urgent.
    fn replacing_job(&self, state: &PartitionState, intent: &Intent) -> Option<Job> {
        let Some(entries) = state.bucket().run(intent.base, intent.end) else {
            return self.job_within_leaf(state, intent);
        };
        let entries = entries.to_vec();
        if let [entry] = entries.as_slice() {
            let sealed = |seal: &&SealMark| seal.base == entry.base && seal.end == entry.end();
            return Some(Job::Restore {
                group: self.group,
                identity: state.identity().clone(),
                intent: intent.clone(),
                entry: entry.clone(),
                seal: self.seals.iter().find(sealed).cloned(),
            });
        }
        (!self.jobs.runs(JobKind::Merge)).then(|| Job::Merge {
            group: self.group,
            identity: state.identity().clone(),
            intent: intent.clone(),
            entries,
        })
    }

    /// The same in a leaf: it is read, and another takes its place.
    fn job_within_leaf(&self, state: &PartitionState, intent: &Intent) -> Option<Job> {
        let leaf = state.bucket().root.leaf_over(intent.base, intent.end)?;
        let sealed = |seal: &&SealMark| seal.base == intent.base && seal.end == intent.end;
        self.may_mend().then(|| Job::Mend {
            group: self.group,
            identity: state.identity().clone(),
            uid: uid_of_leaf(intent.uid),
            leaf: leaf.clone(),
            range: Some((intent.clone(), self.seals.iter().find(sealed).cloned())),
        })
    }

    /// One at a time until it is applied: the next builds on what it leaves.
    fn may_mend(&self) -> bool {
        self.is_ready() && !self.jobs.runs(JobKind::Mend) && self.mended.is_none()
    }

    fn mend_leaf(&mut self, uid: u64, leaf: u64, effects: &mut Vec<Effect>) {
        let Some(state) = self.partition() else { return };
        let found = state.bucket().root.nodes.iter().find(|node| node.uid == leaf && node.level == 0);
        let Some(leaf) = found.filter(|_| self.may_mend()).cloned() else { return };
        let identity = state.identity().clone();
        self.start(Job::Mend { group: self.group, identity, uid, leaf, range: None }, effects);
    }

    /// The leaf in the bucket that waits for its command. One that could not take effect is given up here: its objects are
    /// named by an intent, or found by the daily listing.
    pub(super) fn replaced_leaf(&mut self, fence: Fence) -> Option<LeafReplaced> {
        let Mended { removed, node, exchanged } = self.mended.clone()?;
        let (gone, added) = exchanged.map_or_else(Default::default, |(gone, entry)| (gone, vec![entry]));
        let is_announced = added.iter().all(|entry| self.uploaded.contains_key(&entry.uid));
        let fits = |state: &PartitionState| {
            let mut root = manifest::Root::clone(&state.bucket().root);
            root.replace_leaf(removed, &node, &gone, &added).is_ok()
        };
        if !is_announced || !self.partition().is_some_and(fits) {
            self.mended = None;
            return None;
        }
        Some(LeafReplaced { fence, removed, node, gone, added })
    }

    /// The segment in the bucket, merged or put there once more, whose entries are still those of the root, as the command that names it.
    pub(super) fn replacement(&self, fence: Fence) -> Option<TierReplace> {
        let bucket = self.partition()?.bucket();
        let merged = self.uploaded.values().filter(|entry| entry.kind == EntryKind::Merged);
        let of = |entry: &manifest::Entry| {
            let removed = bucket.run(entry.base, entry.end())?.iter().map(|entry| entry.uid).collect();
            Some(TierReplace { fence, removed, added: vec![entry.clone()] })
        };
        merged.filter_map(of).next()
    }

    /// The done uploads that follow what is tiered, or trimmed, without a gap.
    pub(super) fn appendable(&self) -> Vec<manifest::Entry> {
        let Some(state) = self.partition() else { return Vec::new() };
        let mut next = state.bucket().next_upload(state.records());
        let mut entries = Vec::new();
        while let Some(entry) = self.uploaded.values().find(|entry| entry.base == next) {
            entries.push(entry.clone());
            if !state.bucket().can_append(&entries) {
                entries.pop();
                break;
            }
            next = entry.end();
        }
        entries
    }

    fn append_uploaded(&mut self, now: Now) {
        let entries = self.appendable();
        if entries.is_empty() {
            return;
        }
        if let Some(fence) = self.fence() {
            self.propose_fenced(now, &Command::TierAppend(TierAppend { fence, entries }), None);
        }
    }

    pub(super) fn seal(&mut self, base: Offset, effects: &mut Vec<Effect>) {
        let Some(state) = self.partition() else { return };
        let Some(roll) = state.records().rolls.iter().find(|roll| roll.base == base) else { return };
        let sealed = self.seals.iter().any(|seal| seal.base == base);
        if sealed || self.jobs.sealing.contains(&base) || self.jobs.removing.contains(&base) {
            return;
        }
        if self.brings_files() {
            return self.installs.seal_first(base);
        }
        let job = Job::Seal {
            group: self.group,
            identity: state.identity().clone(),
            roll: roll.clone(),
            frozen: state.frozen_at(roll.end).map(Arc::clone),
        };
        self.jobs.sealing.insert(base);
        self.start(job, effects);
    }

    fn unseal(&mut self, base: Offset, effects: &mut Vec<Effect>) {
        let Some(state) = self.partition() else { return };
        let gone = state.bucket().log_start;
        let tiered = state.bucket().tiered_end;
        let Some(seal) = self.seals.iter().find(|seal| seal.base == base).cloned() else { return };
        // What comes in the place of a damaged one has its name.
        let comes_anew =
            self.broken.contains(&base) && (self.brings_files() || self.jobs.runs(JobKind::Refetch));
        // What says that it is in the bucket may be a checkpoint that is not durable here yet.
        if (seal.end > tiered && seal.end > gone) || comes_anew || self.installs.is_under_way() {
            return;
        }
        self.let_go_of(seal, effects);
    }

    /// The file goes once the mark that forgets it is durable.
    pub(super) fn let_go_of(&mut self, seal: SealMark, effects: &mut Vec<Effect>) {
        Arc::make_mut(&mut self.seals).retain(|kept| kept.base != seal.base);
        self.broken.remove(&seal.base);
        self.jobs.removing.insert(seal.base);
        self.withdraw_offer_of(&seal, effects);
        let number = self.mark(Mark::Unsealed { base: seal.base, end: seal.end }, effects);
        self.unsealing.insert(number, seal);
    }

    fn checkpoint_local(&mut self, effects: &mut Vec<Effect>) {
        let members = self.raft.membership();
        let (captured, (index, term)) = match &self.machine {
            Machine::Partition(state) => {
                let captured = Captured::local(self.group, state, &self.seals, members);
                (captured.with_members(&self.members), state.applied())
            }
            Machine::Metadata(state) => (Some(Captured::metadata(state, members)), state.applied()),
        };
        let Some(captured) = captured else { return };
        let newest = self.local_checkpoints.last().map_or(LogIndex::ZERO, |newest| newest.index);
        // One that waits for its mark counts: written twice, the older mark's file would go and take the newer's with it.
        let written = index <= newest || self.checkpoint_waits_for_its_mark(index);
        if written || self.jobs.runs(JobKind::CheckpointLocal) || self.installs.is_under_way() {
            return;
        }
        self.since_checkpoint = Progress::default();
        let group = self.group;
        self.start(Job::CheckpointLocal { group, index, term, captured }, effects);
    }

    /// One at a time until it is committed: a publication deletes what neither the state names nor is among the newest,
    /// and with several commits on their way that would be what one of them is about to name (B1).
    fn publish_checkpoint(&mut self, uid: u64, effects: &mut Vec<Effect>) {
        if !self.is_ready() || self.jobs.runs(JobKind::Publish) || self.publishing > self.applied() {
            return;
        }
        let members = self.raft.membership();
        let captured = match &self.machine {
            Machine::Partition(state) => {
                let at_rest = || Captured::at_rest(self.group, state, members);
                let wanted = (self.installs.is_wanted() && self.options.tiered).then(at_rest).flatten();
                wanted.or_else(|| Captured::bucket(self.group, state, self.options.tiered, members))
            }
            Machine::Metadata(state) => Some(Captured::metadata(state, members)),
        };
        let Some(captured) = captured.and_then(|captured| captured.with_members(&self.members)) else {
            return;
        };
        let identity = self.partition().map(|state| state.identity().clone());
        self.publish_dirty = false;
        let (group, key_term) = (self.group, self.raft.term());
        self.start(Job::Publish { group, identity, uid, key_term, captured }, effects);
    }

    fn fold(&mut self, uid: u64, effects: &mut Vec<Effect>) {
        if !self.is_ready() || self.jobs.runs(JobKind::Fold) || self.folded.is_some() {
            return;
        }
        let Some(state) = self.partition() else { return };
        let Some(contents) = state.bucket().root.plan_fold(self.options.fan_out) else { return };
        let identity = state.identity().clone();
        self.folding = Some(contents.clone());
        self.start(Job::Fold { group: self.group, identity, uid, contents }, effects);
    }

    /// The node in the bucket that waits for its command. It names what stood in the root when it was written: a leaf that gave
    /// way since would be named by it again, and its sums are the same. Then nothing names the node, and the daily listing finds it.
    pub(super) fn node_folded(&mut self) -> Option<manifest::NodeReference> {
        let node = self.folded.take()?;
        let plan = self.folding.take()?;
        self.partition().is_some_and(|state| state.bucket().root.holds(&plan)).then_some(node)
    }

    /// Whether an intent may be given up: never while its upload runs here or its append may be on its way.
    fn is_expirable(&self, intent: &Intent, state: &PartitionState) -> bool {
        let stale = intent.term < self.raft.term()
            || self.upload_failed.contains(&intent.uid)
            || !self.is_wanted(intent, state)
            || !self.options.tiered;
        let kept = self.uploaded.contains_key(&intent.uid) && self.is_wanted(intent, state);
        stale && !kept && !self.uploading.contains(&intent.uid) && self.speculation.fence.is_none()
    }

    /// Whether what is uploaded, or will be, can still be committed. What was merged while its run was folded into a leaf
    /// cannot: it comes without a leaf that names it.
    fn is_wanted(&self, intent: &Intent, state: &PartitionState) -> bool {
        let bucket = state.bucket();
        let mended = self.mended.as_ref().and_then(|mended| mended.exchanged.as_ref());
        let comes_with_leaf = mended.is_some_and(|(_, entry)| entry.uid == intent.uid);
        let is_late = self.uploaded.contains_key(&intent.uid)
            && intent.kind != EntryKind::Raw
            && bucket.run(intent.base, intent.end).is_none()
            && !comes_with_leaf;
        !bucket.is_overtaken(intent) && !is_late
    }

    fn expire(&mut self, now: Now, mut uids: Vec<u64>) {
        let Some(state) = self.partition() else { return };
        let intents = &state.bucket().intents;
        uids.retain(|uid| {
            intents.iter().any(|intent| intent.uid == *uid && self.is_expirable(intent, state))
        });
        if !uids.is_empty() && self.speculation.expiry.is_none() {
            let command = Command::IntentExpired(IntentExpired { term: self.raft.term(), uids });
            self.speculation.expiry = self.propose(now, &command, None);
        }
    }

    fn expire_producers(&mut self, now: Now, unused_since_ms: i64) {
        let Some(state) = self.partition() else { return };
        let unused = |last: i64| last < unused_since_ms;
        // Not while batches are pending: the speculative table would remember what the applied one has forgotten.
        let any = state.records().producers.values().any(|producer| unused(producer.last_timestamp));
        if any && self.pending.is_empty() {
            self.propose(now, &Command::ProducerExpired(ProducerExpired { unused_since_ms }), None);
        }
    }

    /// A term opens with an empty entry and nobody else may write one, so the entry is an expiry that finds nobody.
    pub(super) fn advance(&mut self, now: Now) {
        if self.partition().is_some() && self.is_ready() && self.pending.is_empty() {
            let nobody = ProducerExpired { unused_since_ms: i64::MIN };
            self.propose(now, &Command::ProducerExpired(nobody), None);
        }
    }

    fn delete(&mut self, uids: &[u64], effects: &mut Vec<Effect>) {
        let Some(state) = self.partition() else { return };
        if !self.is_ready() || self.jobs.runs(JobKind::Delete) || self.speculation.reaped.is_some() {
            return;
        }
        let bucket = state.bucket();
        let may_go = |tombstone: &&_| bucket.may_delete(tombstone);
        let tombstones: Vec<_> = bucket
            .tombstones
            .iter()
            .filter(|tombstone| uids.contains(&tombstone.uid))
            .filter(may_go)
            .take(DELETE_BATCH_MAX)
            .cloned()
            .collect();
        if !tombstones.is_empty() {
            let job = Job::Delete { group: self.group, identity: state.identity().clone(), tombstones };
            self.start(job, effects);
        }
    }

    fn reap(&mut self, topic: TopicId, pass: ReapPass, effects: &mut Vec<Effect>) {
        if !self.is_ready() || self.jobs.runs(JobKind::Reap) || self.speculation.reaped.is_some() {
            return;
        }
        let Some(deletion) = self.deletions().get(&topic).cloned() else { return };
        self.start(Job::Reap { group: self.group, topic: deletion.topic, pass }, effects);
    }

    /// Cuts the log. The mark need not be durable for the memory to go: a restart reads what is still there.
    fn cut(&mut self, index: LogIndex, term: Term, effects: &mut Vec<Effect>) {
        let limit = self.cut_limit();
        if index <= self.truncated.0 || index > limit.0 || (index == limit.0 && term != limit.1) {
            return;
        }
        if let Some(known) = self.raft.term_at(index)
            && known != term
        {
            return;
        }
        self.truncated = (index, term);
        if index > self.raft.truncated().start {
            self.raft.compact(index);
        }
        self.wal_start = self.wal_start.max(self.offset_after_cut(index));
        self.log_bytes = self.log_bytes_after_cut();
        self.mark(Mark::Truncated { index, term }, effects);
    }
}
