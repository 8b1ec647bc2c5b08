//! What stays on this node in files of its own.

use std::time::Duration;

use varve_formats::{
    manifest::EntryKind,
    state::{Intent, RollEntry},
};
use varve_replica::{Action, GroupStatus, JobKind, LocalRetention, SealMark};

use crate::{Planner, hot};

/// The oldest rolled range without a file of which the log has all. The one that holds the log start is one of them, though it begins
/// below that: as long as it is in the log alone, nothing behind it can leave that (T39).
fn next_unsealed(status: &GroupStatus) -> Option<&RollEntry> {
    let mut seals = status.seals.iter().peekable();
    // Files of other nodes may be here that lie ahead of what this replica has sealed.
    let is_sealed = |roll: &RollEntry, seals: &mut std::iter::Peekable<std::slice::Iter<'_, SealMark>>| {
        while seals.peek().is_some_and(|seal| seal.base < roll.base) {
            seals.next();
        }
        seals.peek().is_some_and(|seal| seal.base == roll.base)
    };
    // What is cut makes no file: it waits for its trim, or is lost, and nothing behind it waits for that.
    let in_log = |roll: &&RollEntry| roll.base >= status.tiered_end && roll.roll_index > status.truncated.0;
    let jobs = &status.jobs;
    let is_busy = |roll: &RollEntry| jobs.sealing.contains(&roll.base) || jobs.removing.contains(&roll.base);
    status.rolls.iter().filter(in_log).find(|roll| !is_sealed(roll, &mut seals) && !is_busy(roll))
}

/// Whether ranges get a file of this node before they are known to be in the bucket, because the topic asks to keep them here.
fn keeps_local(status: &GroupStatus) -> bool {
    match status.options.local_retention {
        LocalRetention::Window => false,
        LocalRetention::Explicit { ms, bytes } => status.options.tiered && ms != Some(0) && bytes != Some(0),
    }
}

/// The next range that gets a file for that reason.
pub(crate) fn next_kept(status: &GroupStatus) -> Option<&RollEntry> {
    if keeps_local(status) { next_unsealed(status) } else { None }
}

impl Planner<'_> {
    pub(crate) fn seal(&mut self) {
        self.seal_rolled();
        self.give_up_sealed();
    }

    /// Rolled ranges go into files when the log must let go of them and the bucket does not have them, and when they are
    /// to stay here after it has them.
    fn seal_rolled(&mut self) {
        let must = (self.is_pressed() && self.is_stranded()) || self.waits_for_seal();
        // In order, one at a time: the log is cut behind a contiguous end.
        if !self.status.jobs.sealing.is_empty() || self.status.jobs.seal_waits {
            return;
        }
        let Some(base) = next_unsealed(self.status).map(|roll| roll.base) else { return };
        if (must || self.has_room_to_keep()) && self.may_try(JobKind::Seal) {
            self.act(Action::Seal { base });
        }
    }

    fn has_room_to_keep(&self) -> bool {
        next_kept(self.status).is_some_and(|roll| hot::file_bytes(roll.bytes) <= self.options.hot.room)
    }

    /// Whether the bucket's copy is not named yet, because that makes the log let go of a range which is to stay here and
    /// has no file. Not waited for: a disk that takes none, and room that nobody can make.
    pub(crate) fn waits_for_file(&self) -> bool {
        let status = self.status;
        if !keeps_local(status) || status.jobs.failures.contains_key(&JobKind::Seal) {
            return false;
        }
        let coming = !status.jobs.sealing.is_empty() || self.has_room_to_keep() || self.options.hot.can_free;
        let is_new =
            |intent: &&Intent| intent.kind == EntryKind::Raw && status.uploaded.contains(&intent.uid);
        let mut uploaded = status.intents.iter().filter(is_new);
        coming && uploaded.any(|intent| !status.seals.iter().any(|seal| seal.base == intent.base))
    }

    /// A file goes when its range lies below the log start, or when it is tiered, nobody asks to keep it here and nobody is about to have
    /// it from here: the checkpoint that a member was sent to may be older than the range's way into the bucket.
    fn give_up_sealed(&mut self) {
        if self.status.jobs.runs(JobKind::Unseal) {
            return;
        }
        let Some(oldest) = self.status.seals.first() else { return };
        let dead = oldest.end <= self.status.log_start;
        let is_lent = self.leased().is_some_and(|(end, _)| oldest.last_index <= end);
        if dead || oldest.end <= self.status.tiered_end && !is_lent && self.is_spare(oldest) {
            let base = oldest.base;
            self.act(Action::Unseal { base });
        }
    }

    /// Whether a tiered file is more than `local.retention.*` asks for, as Kafka counts: whole segments go, by size while
    /// what is left is still as large as asked.
    fn is_spare(&mut self, oldest: &SealMark) -> bool {
        let LocalRetention::Explicit { ms, bytes } = self.status.options.local_retention else { return true };
        let left: u64 = self.status.seals.iter().skip(1).map(|seal| seal.bytes).sum();
        if self.options.hot.give_up || bytes.is_some_and(|kept| left >= kept) {
            return true;
        }
        let max_timestamp = hot::max_timestamp(self.status, oldest);
        ms.is_some_and(|ms| max_timestamp >= 0 && self.has_aged(max_timestamp, Duration::from_millis(ms)))
    }
}
