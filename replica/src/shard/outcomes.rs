//! Jobs that ended and marks that are durable.

use std::sync::Arc;

use varve_common::Offset;
use varve_formats::{
    command::{Archived, CkptPublished, Command, MetadataCommand, NodeFolded, TierReaped},
    manifest,
    state::RollEntry,
};

use super::hosted::{Hosted, Machine};
use crate::{
    api::{Effect, Job, JobKind, JobOutcome, Mark, Mended, Now, ReapPass, SealMark},
    bugs::{Bug, is_seeded},
    limits::LOCAL_CHECKPOINTS_KEPT,
};

impl Hosted {
    pub(super) fn job_done(&mut self, now: Now, outcome: JobOutcome, effects: &mut Vec<Effect>) {
        self.touched = true;
        let kind = kind_of(&outcome);
        self.finish(kind, !is_failure(&outcome));
        match outcome {
            JobOutcome::Uploaded { entry, .. } | JobOutcome::Merged { entry, .. } => {
                self.uploaded(entry.uid, entry);
                self.advance_jobs(now);
            }
            JobOutcome::UploadFailed { uid, why, .. } | JobOutcome::MergeFailed { uid, why } => {
                self.gave_up(uid);
                self.job_failed(kind, why, now.monotonic);
            }
            JobOutcome::Sealed(seal) => {
                if is_seeded(Bug::CutBeforeSealMark) {
                    self.sealed(seal.clone());
                }
                self.mark(Mark::Sealed(seal), effects);
            }
            JobOutcome::SealFailed { base, why } => self.not_sealed(now, base, why),
            JobOutcome::SealPassed { base, why } => self.passed_by(now, base, why),
            JobOutcome::CheckpointWritten(checkpoint) => {
                self.mark(Mark::Snapshot(checkpoint), effects);
            }
            JobOutcome::CheckpointPublished { checkpoint, kept } => {
                let command = CkptPublished { term: self.raft.term(), checkpoint, kept };
                match self.propose(now, &Command::CkptPublished(command), None) {
                    Some(index) => self.publishing = index,
                    None => self.publish_dirty = true,
                }
            }
            JobOutcome::Folded { node } => {
                self.folded = Some(node);
                self.advance_jobs(now);
            }
            JobOutcome::Mended(mended) => {
                self.mended(*mended);
                self.advance_jobs(now);
            }
            JobOutcome::MendFailed { uid, why } => {
                uid.into_iter().for_each(|uid| self.gave_up(uid));
                self.job_failed(kind, why, now.monotonic);
            }
            JobOutcome::Deleted { uids } => {
                let command = TierReaped { term: self.raft.term(), uids };
                self.speculation.reaped = self.propose(now, &Command::TierReaped(command), None);
            }
            JobOutcome::ArchiveMeasured { plan, alone, .. } => self.measured(now, plan, alone),
            JobOutcome::Archived { base, end, newest_ms, file } => {
                self.archived(now, |term| Archived { term, base, end, newest_ms, file });
            }
            JobOutcome::Reaped { topic, pass: ReapPass::Early, .. } => {
                self.reaped_early.insert(topic);
            }
            JobOutcome::Reaped { topic, pass: ReapPass::Final, .. } => {
                self.reaped_early.remove(&topic);
                let command = MetadataCommand::TopicReaped { id: topic };
                self.speculation.reaped = self.propose(now, &Command::Metadata(command), None);
            }
            JobOutcome::CheckpointRemoved => {}
            JobOutcome::Unsealed { base } => {
                self.jobs.removing.remove(&base);
                self.forget_failed_removals();
            }
            JobOutcome::Offered { checkpoint, file } => self.offered(checkpoint, file, effects),
            JobOutcome::Fetched(seals) => self.fetched(seals, effects),
            JobOutcome::Refetched(seal) => self.refetched(seal, effects),
            JobOutcome::Installable(installable) => self.install(*installable),
            JobOutcome::Failed { kind, why } => self.failed(now, kind, why, effects),
        }
        self.follow_next(effects);
    }

    fn failed(&mut self, now: Now, kind: JobKind, why: String, effects: &mut Vec<Effect>) {
        match kind {
            JobKind::Install => self.install_failed(effects),
            JobKind::Publish => self.publish_dirty = true,
            // The file may be there or not, and no mark names it.
            JobKind::Unseal => self.forget_failed_removals(),
            _ => {}
        }
        self.job_failed(kind, why, now.monotonic);
    }

    /// A failure does not name its file. Once no removal runs, what waits is what still waits for its mark.
    fn forget_failed_removals(&mut self) {
        if !self.jobs.runs(JobKind::Unseal) {
            self.jobs.removing = self.unsealing.values().map(|seal| seal.base).collect();
        }
    }

    /// A job of a group that has stopped ended: nothing follows from it.
    pub(super) fn job_ended(&mut self, outcome: &JobOutcome) {
        self.finish(kind_of(outcome), !is_failure(outcome));
    }

    fn finish(&mut self, kind: JobKind, succeeded: bool) {
        if let Some(count) = self.jobs.running.get_mut(&kind) {
            *count -= 1;
            if *count == 0 {
                self.jobs.running.remove(&kind);
            }
        }
        if succeeded {
            self.jobs.failures.remove(&kind);
        }
    }

    /// Kept until it is applied, with the segment that comes with it.
    fn mended(&mut self, mended: Mended) {
        if let Some((_, entry)) = &mended.exchanged {
            self.uploaded(entry.uid, entry.clone());
        }
        self.mended = Some(mended);
    }

    /// The object may be there or not: its intent is expired.
    fn gave_up(&mut self, uid: u64) {
        self.uploading.remove(&uid);
        self.upload_failed.insert(uid);
    }

    /// Kept until its append is applied; one whose intent is gone stays an orphan that a tombstone names.
    fn uploaded(&mut self, uid: u64, entry: manifest::Entry) {
        self.uploading.remove(&uid);
        let live = self
            .partition()
            .is_some_and(|state| state.bucket().intents.iter().any(|intent| intent.uid == uid));
        if live {
            self.uploaded.insert(uid, entry);
        }
    }

    fn not_sealed(&mut self, now: Now, base: Offset, why: String) {
        self.jobs.sealing.remove(&base);
        self.job_failed(JobKind::Seal, why, now.monotonic);
    }

    /// The log does not have the range: tiered, or trimmed, and cut before the job began, which is no failure; or nowhere.
    fn passed_by(&mut self, now: Now, base: Offset, why: String) {
        let is_rolled = |roll: &RollEntry| roll.base == base;
        if self.partition().is_some_and(|state| state.records().rolls.iter().any(is_rolled)) {
            self.not_sealed(now, base, why);
        } else {
            self.jobs.sealing.remove(&base);
        }
    }

    /// Proposes what waited for its turn behind another change of the manifest.
    pub(super) fn advance_jobs(&mut self, now: Now) {
        let Some(fence) = self.fence() else { return };
        if let Some(node) = self.node_folded() {
            self.propose_fenced(now, &Command::NodeFolded(NodeFolded { fence, node }), None);
        } else if let Some(replaced) = self.replaced_leaf(fence) {
            self.propose_fenced(now, &Command::LeafReplaced(replaced), None);
        } else if let Some(replace) = self.replacement(fence) {
            self.propose_fenced(now, &Command::TierReplace(replace), None);
        }
    }

    /// A mark is durable: only now does it count (B4).
    pub(super) fn marked(&mut self, number: u64, effects: &mut Vec<Effect>) {
        self.touched = true;
        match self.take_mark(number) {
            Some(Mark::Sealed(seal)) => {
                self.jobs.sealing.remove(&seal.base);
                self.broken.remove(&seal.base);
                self.sealed(seal);
                self.fetched_marked(number, effects);
            }
            Some(Mark::Snapshot(checkpoint)) => {
                // In a full log a mark overtakes one that waits behind entries: the older of two is told by its index.
                let at = self.local_checkpoints.partition_point(|kept| kept.index < checkpoint.index);
                self.local_checkpoints.insert(at, checkpoint);
                while self.local_checkpoints.len() > LOCAL_CHECKPOINTS_KEPT {
                    let checkpoint = self.local_checkpoints.remove(0);
                    let group = self.group;
                    self.start(Job::RemoveCheckpoint { group, checkpoint }, effects);
                }
            }
            Some(Mark::Unsealed { .. }) => {
                if let Some(seal) = self.unsealing.remove(&number) {
                    let group = self.group;
                    self.start(Job::Unseal { group, seal }, effects);
                }
            }
            Some(Mark::Truncated { .. } | Mark::Damaged { .. } | Mark::Destroyed) | None => {}
        }
        self.follow_next(effects);
    }

    fn sealed(&mut self, seal: SealMark) {
        let seals = Arc::make_mut(&mut self.seals);
        let at = seals.partition_point(|kept| kept.base < seal.base);
        match seals.get_mut(at).filter(|kept| kept.base == seal.base) {
            Some(kept) => *kept = seal,
            None => seals.insert(at, seal),
        }
    }

    /// Whether state changed between the capture of a checkpoint and its publication.
    pub(super) const fn since_publish_capture(&self) -> bool {
        self.publish_dirty
    }

    /// Tiered segments above S of the newest published checkpoint.
    pub(super) fn unpublished_segments(&self) -> u32 {
        let Machine::Partition(state) = &self.machine else { return 0 };
        let published =
            state.bucket().published.last().map_or(varve_common::Offset::ZERO, |newest| newest.state_offset);
        let entries = &state.bucket().root.entries;
        u32::try_from(entries.iter().rev().take_while(|entry| entry.base >= published).count())
            .unwrap_or(u32::MAX)
    }
}

const fn is_failure(outcome: &JobOutcome) -> bool {
    matches!(
        outcome,
        JobOutcome::UploadFailed { .. }
            | JobOutcome::MergeFailed { .. }
            | JobOutcome::MendFailed { .. }
            | JobOutcome::SealFailed { .. }
            | JobOutcome::SealPassed { .. }
            | JobOutcome::Failed { .. }
    )
}

const fn kind_of(outcome: &JobOutcome) -> JobKind {
    match outcome {
        JobOutcome::Uploaded { .. } | JobOutcome::UploadFailed { .. } => JobKind::Upload,
        JobOutcome::Merged { .. } | JobOutcome::MergeFailed { .. } => JobKind::Merge,
        JobOutcome::Sealed(_) | JobOutcome::SealFailed { .. } | JobOutcome::SealPassed { .. } => {
            JobKind::Seal
        }
        JobOutcome::Unsealed { .. } => JobKind::Unseal,
        JobOutcome::CheckpointWritten(_) => JobKind::CheckpointLocal,
        JobOutcome::CheckpointPublished { .. } => JobKind::Publish,
        JobOutcome::Folded { .. } => JobKind::Fold,
        JobOutcome::Mended(_) | JobOutcome::MendFailed { .. } => JobKind::Mend,
        JobOutcome::Offered { .. } => JobKind::Offer,
        JobOutcome::Installable(_) | JobOutcome::Fetched(_) => JobKind::Install,
        JobOutcome::Refetched(_) => JobKind::Refetch,
        JobOutcome::Deleted { .. } => JobKind::Delete,
        JobOutcome::ArchiveMeasured { .. } | JobOutcome::Archived { .. } => JobKind::Archive,
        JobOutcome::Reaped { .. } => JobKind::Reap,
        JobOutcome::CheckpointRemoved => JobKind::RemoveCheckpoint,
        JobOutcome::Failed { kind, .. } => *kind,
    }
}
