//! From rolled to tiered: announce, upload, append, fold; and the uploads that came to nothing.

use varve_formats::{
    manifest::{Entry, EntryKind},
    state::Intent,
};
use varve_replica::{Action, GroupStatus, JobKind};

use crate::Planner;

/// Whether an intent has lost its range. An upload's was trimmed before it was tiered: there is no job for it, and as long
/// as it counts as one that is announced nothing else may be (T39). What a merge would replace is not there any more as it
/// was: it was trimmed, or folded into a node in part, or folded after the merge had read the root.
fn is_overtaken(status: &GroupStatus, intent: &Intent) -> bool {
    let entries = &status.root.entries;
    let is_run = || {
        entries.binary_search_by_key(&intent.base, |entry| entry.base).is_ok()
            && entries.binary_search_by_key(&intent.end, Entry::end).is_ok()
    };
    let is_in_leaf =
        || !status.uploaded.contains(&intent.uid) && status.root.leaf_over(intent.base, intent.end).is_some();
    match intent.kind {
        EntryKind::Raw => intent.base < status.tiered_end,
        _ => !is_run() && !is_in_leaf(),
    }
}

impl Planner<'_> {
    pub(crate) fn tier(&mut self) {
        if !self.status.ready {
            return;
        }
        self.expire_lost_intents();
        if self.status.options.tiered {
            self.announce();
            self.start_uploads();
        }
        if self.status.appendable && !self.status.fence_pending && !self.waits_for_file() {
            self.act(Action::Append);
        }
        let root = &self.status.root;
        let fan_out = self.status.options.fan_out.0 as usize;
        let full = root.entries.len() > fan_out || root.nodes.len() > fan_out;
        let runs = self.status.jobs.runs(JobKind::Fold);
        if full && !runs && !self.status.fence_pending && self.may_try(JobKind::Fold) {
            let uid = self.uid();
            self.act(Action::Fold { uid });
        }
    }

    /// Intents of an earlier term have no job, and a failed upload may or may not have left an object: neither is waited
    /// for. Nor is one that does not run when uploads are switched off.
    fn expire_lost_intents(&mut self) {
        let status = self.status;
        let lost = status.intents.iter().filter(|intent| {
            let has_job = status.uploading.contains(&intent.uid) || status.uploaded.contains(&intent.uid);
            intent.term != status.term
                || status.upload_failed.contains(&intent.uid)
                || (!status.options.tiered && !has_job)
                || (is_overtaken(status, intent) && !status.uploading.contains(&intent.uid))
        });
        let uids: Vec<u64> = lost.map(|intent| intent.uid).collect();
        if !uids.is_empty() {
            self.act(Action::Expire { uids });
        }
    }

    /// Announces the oldest rolled ranges that nobody uploads, up to the bound.
    fn announce(&mut self) {
        let uploads = self.status.intents.iter().filter(|intent| intent.kind == EntryKind::Raw).count();
        let free = self.options.uploads_max.saturating_sub(uploads);
        if free == 0 || !self.may_try(JobKind::Upload) {
            return;
        }
        let announced = |base| self.status.intents.iter().any(|intent| intent.base == base);
        let wanted: Vec<_> =
            self.status.rolls.iter().filter(|roll| !announced(roll.base)).take(free).cloned().collect();
        for roll in wanted {
            let uid = self.uid();
            self.act(Action::Announce { uid, base: roll.base, end: roll.end });
        }
    }

    fn start_uploads(&mut self) {
        let idle: Vec<u64> = self
            .status
            .intents
            .iter()
            .filter(|intent| intent.term == self.status.term)
            .map(|intent| intent.uid)
            .filter(|uid| {
                let status = self.status;
                !status.uploading.contains(uid)
                    && !status.uploaded.contains(uid)
                    && !status.upload_failed.contains(uid)
            })
            .collect();
        idle.into_iter().for_each(|uid| self.act(Action::Upload { uid }));
    }
}
