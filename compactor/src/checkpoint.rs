//! Checkpoints, on this node and in the bucket, and the cut of the log that they allow.

use std::{ops::Bound, time::Duration};

use varve_common::{GroupId, LogIndex, Offset, Term};
use varve_replica::{Action, JobKind, Role};

use crate::Planner;

/// How far apart checkpoints are of which a member that lags needs one.
const WANTED_WAITS: Duration = Duration::from_secs(2);
/// How long the log is kept for whoever was last given some of a checkpoint, or of a file.
const LEASE: Duration = varve_replica::limits::PIN_LEASE;
/// How long a deleted topic waits for each of the two checkpoints that let its objects go.
const DELETION_WAITS: Duration = Duration::from_secs(10);
/// How long a follower waits for what it asked its leader to write.
const ADVANCE_AGAIN: Duration = Duration::from_secs(1);

impl Planner<'_> {
    pub(crate) fn checkpoint(&mut self) {
        self.checkpoint_locally();
        self.publish();
        self.offer();
        self.refetch();
    }

    /// A checkpoint for members that lag behind what was cut, from this node: where the bucket does not serve them, or cannot. Whoever
    /// has just been elected may need the one that lags to commit anything, and so to publish anything.
    fn offer(&mut self) {
        let status = self.status;
        if self.gives_checkpoints()
            && self.offer_reaches()
            && !status.jobs.runs(JobKind::Offer)
            && self.may_try(JobKind::Offer)
        {
            self.act(Action::OfferCheckpoint);
        }
    }

    /// Whether members that lag find what they need in the bucket.
    fn sends_from_bucket(&self) -> bool {
        let status = self.status;
        let failures = |kind| status.jobs.failures.get(&kind).map_or(0, |(failures, _)| *failures);
        let stranded = |kind| failures(kind) >= self.options.stranded_failures;
        self.options.has_store
            && (status.options.tiered || status.group == GroupId::METADATA)
            && !status.checkpoint_declined
            && !stranded(JobKind::Publish)
            && !stranded(JobKind::Upload)
    }

    /// Whether members that lag are to have one from this node.
    fn gives_checkpoints(&self) -> bool {
        let status = self.status;
        let leads = status.role == Role::Leader;
        leads && status.checkpoint_wanted && !(status.ready && self.sends_from_bucket())
    }

    /// Whether the log goes on where the one that could be made now ends.
    pub(crate) fn offer_reaches(&self) -> bool {
        self.status.offer_end.is_some_and(|end| end.0 >= self.status.truncated.0)
    }

    /// Whether a member waits for a checkpoint that can be made once more of the log is in files of this node.
    pub(crate) fn waits_for_seal(&self) -> bool {
        self.gives_checkpoints() && !self.offer_reaches()
    }

    /// A sealed file that is damaged comes from another node: each in its turn, for there may be one that nobody has.
    fn refetch(&mut self) {
        let status = self.status;
        let behind = status.jobs.refetched.map_or(Bound::Unbounded, Bound::Excluded);
        let next = status.broken.range((behind, Bound::Unbounded)).next().or_else(|| status.broken.first());
        let Some(base) = next.copied() else { return };
        let runs = status.jobs.runs(JobKind::Refetch) || status.jobs.runs(JobKind::Install);
        if !runs && self.may_try(JobKind::Refetch) {
            self.act(Action::Refetch { base });
        }
    }

    /// A restart replays what came after the newest local checkpoint, so that must stay little; and the log is cut behind
    /// the older of two, so a pressed group needs two above what it holds.
    fn checkpoint_locally(&mut self) {
        let status = self.status;
        if status.jobs.runs(JobKind::CheckpointLocal) || !self.may_try(JobKind::CheckpointLocal) {
            return;
        }
        let due = status.bytes_since_checkpoint >= self.options.checkpoint_bytes
            || status.changes_since_checkpoint >= self.options.checkpoint_changes;
        let pressed = (self.is_pressed() || self.options.draining) && status.changes_since_checkpoint > 0;
        if due || pressed {
            return self.act(Action::CheckpointLocal);
        }
        // At rest the newest checkpoint holds everything, and the older one still pins the log below it. An entry
        // that changes nothing gives the next checkpoint an index of its own.
        let older = match status.local_checkpoints.as_slice() {
            [older, _, ..] => older.index,
            _ => LogIndex::ZERO,
        };
        let pinned = older < status.releasable && status.truncated.0 < status.releasable;
        if !self.is_pressed() || !pinned || status.group == GroupId::METADATA {
            return;
        }
        if status.role == Role::Follower {
            // Its leader is asked, whose log may have room; and asked again, for a word between nodes may be lost.
            self.act(Action::Advance);
            self.look_after(ADVANCE_AGAIN);
        } else if status.ready && status.inflight_bytes == 0 {
            self.act(Action::Advance);
        }
    }

    fn publish(&mut self) {
        let status = self.status;
        if !self.options.has_store
            || !status.ready
            || status.jobs.runs(JobKind::Publish)
            || status.publication_pending
        {
            return;
        }
        let due = if status.checkpoint_wanted && self.is_newest_old() {
            true
        } else if !status.publish_dirty {
            self.wanted_to_delete()
        } else if status.group == GroupId::METADATA {
            self.options.draining || self.metadata_is_due()
        } else {
            let pressed = (self.is_pressed() || self.options.draining) && status.unpublished_segments > 0;
            pressed
                || status.unpublished_segments >= self.options.publish_segments
                || status
                    .first_unpublished_ms
                    .is_some_and(|since| self.has_aged(since, self.options.publish_age))
                || self.is_local_and_old()
                || self.wanted_to_delete()
        };
        if due && self.is_spaced() && self.may_try(JobKind::Publish) {
            let uid = self.uid();
            self.act(Action::PublishCheckpoint { uid });
        }
    }

    /// Records that stay on nodes are in no segment whose age would tell; what a checkpoint says of them is all that a restore
    /// from the bucket has.
    fn is_local_and_old(&mut self) -> bool {
        if self.status.options.tiered || self.status.high_watermark == Offset::ZERO {
            return false;
        }
        let last = self.status.published.last().map(|last| last.published_ms);
        last.is_none_or(|last| self.has_aged(last, self.options.publish_age))
    }

    /// Whether the last publication is long enough ago. A clock that was set back does not hold the next one up.
    fn is_spaced(&mut self) -> bool {
        let last = self.status.published.last().map(|last| last.published_ms);
        // Where a follower lags a pressed log is cut behind what is published, and waits for it.
        let is_waited_for = self.options.draining || (self.is_pressed() && self.status.has_peers);
        let last = last.filter(|last| *last <= self.now.wall_ms && !is_waited_for);
        last.is_none_or(|last| self.has_aged(last, self.options.publish_interval))
    }

    /// Who waits for a checkpoint may wait for more than one.
    fn is_newest_old(&mut self) -> bool {
        let last = self.status.published.last().map_or(0, |checkpoint| checkpoint.published_ms);
        let nothing_new = if self.status.publish_dirty { 1 } else { 5 };
        self.has_aged(last, WANTED_WAITS * nothing_new)
    }

    /// What was trimmed or deleted goes when the two newest checkpoints carry that: nothing else may bring them about.
    fn wanted_to_delete(&mut self) -> bool {
        if self.status.group == GroupId::METADATA {
            return self.deletions_wait() && self.metadata_is_due();
        }
        self.waits_since_ms().is_some_and(|since| self.has_aged(since, self.options.publish_age))
    }

    /// A deleted topic waits for two of them, and who deletes one wants its disk back.
    fn metadata_is_due(&mut self) -> bool {
        let last = self.status.published.last().map_or(0, |checkpoint| checkpoint.published_ms);
        let age = self.options.publish_metadata_age;
        let age = if self.deletions_wait() { age.min(DELETION_WAITS) } else { age };
        self.has_aged(last, age)
    }

    /// Unpressed, the log keeps what a learner or a damaged checkpoint may still want: everything above S of the second
    /// newest checkpoint in the bucket, and what a follower that keeps up has not. Under pressure it is cut as far as is safe
    /// (TIERING.md 6), and whoever lags is sent to a checkpoint.
    pub(crate) fn cut(&mut self) {
        let status = self.status;
        let limit = status.cut_limit;
        let kept_from = match status.published.as_slice() {
            [older, _] => Some((older.state_index, older.state_term)),
            _ => None,
        };
        let target = match kept_from {
            _ if self.is_pressed() => limit,
            Some(kept) if kept.0 < limit.0 => kept,
            Some(_) => limit,
            None => return,
        };
        if !self.is_pressed() && target.0 > status.needed_above {
            return;
        }
        let target = self.within_reach(target);
        if target.0 > status.truncated.0 {
            self.act(Action::Cut { index: target.0, term: target.1 });
        }
    }

    /// Whoever is sent to a checkpoint goes on from there: what follows S of the newest stays, be it in the bucket or one that could be
    /// made here.
    fn within_reach(&self, target: (LogIndex, Term)) -> (LogIndex, Term) {
        let status = self.status;
        if !status.has_peers {
            return target;
        }
        let newest = status.published.last().filter(|_| self.sends_from_bucket());
        let newest = newest.map(|newest| (newest.state_index, newest.state_term));
        let waited_for = newest.or_else(|| self.served_by_peers()).filter(|_| !self.options.pressure.urgent);
        let kept = waited_for.or_else(|| self.reached_from_here(newest));
        kept.filter(|kept| kept.0 < target.0).unwrap_or(target)
    }

    /// Where nobody is waited for, as where producers are about to wait for the log, no more of it stays than the commands behind the
    /// newest checkpoint that could be made here, or is in the bucket. Those do: who is elected next may need whoever lags to commit
    /// anything, and so to make a newer one. A file that is lost keeps nothing: who has it may never come.
    fn reached_from_here(&self, published: Option<(LogIndex, Term)>) -> Option<(LogIndex, Term)> {
        let status = self.status;
        let reaches = |end: &(LogIndex, Term)| end.0 >= status.truncated.0 && status.broken.is_empty();
        let here = status.lasting_end.filter(reaches)?;
        published.into_iter().chain([here]).max_by_key(|place| place.0)
    }

    /// S of the checkpoint that somebody is on its way to.
    pub(crate) fn leased(&self) -> Option<(LogIndex, Term)> {
        let leased = self.status.leased.filter(|(_, last)| self.now.monotonic.since(*last) < LEASE);
        leased.map(|(place, _)| place)
    }

    /// The last entry that nobody needs of this log who has sealed files and a checkpoint from here: S of the one that could be made
    /// now, but not above what somebody still goes on from.
    fn served_by_peers(&self) -> Option<(LogIndex, Term)> {
        let status = self.status;
        let leased = self.leased();
        let needed = leased.map_or(status.needed_above, |place| place.0.min(status.needed_above));
        let places = status
            .lasting_end
            .or(status.offer_end)
            .into_iter()
            .chain(leased)
            .filter(|place| place.0 <= needed);
        places.chain(status.reached_by_all).max_by_key(|place| place.0)
    }
}
