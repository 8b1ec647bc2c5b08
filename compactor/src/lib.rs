//! When to roll, upload, seal, snapshot, cut, retain and collect: decisions only. And [`history`], what a bucket holds, read
//! without a broker; [`verify`], whether all of it is there; [`copy`], the same as another cluster's; and [`archive`], the same as
//! files for other tools.
//!
//! [`plan`] is a pure function of what a group says of itself, the options and the time. It is called whenever something
//! happened to a group, and again after [`Plan::look_again_after`]. It promises nothing: the core checks each action
//! again and drops a stale one, so a plan made twice does no harm.
//!
//! ```text
//! open range --Roll--> rolled --Announce--> intent --(upload)--> --Append--> tiered --PublishCheckpoint--> --Cut--> freed
//!                        |
//!                        └--Seal--> file of this node            (not tiered, or the store is away and the log presses; to stay here: local.retention.*)
//! ```
//! One file a concern: [`roll`], [`tier`], [`seal`], [`checkpoint`], [`retain`], [`merge`], [`archiving`], [`reap`]; who must let go of a log short of room: [`PressureGauge`]; of the disk: [`HotGauge`]. Each adds actions and says when it
//! wants to look again.
//!
//! Invariants
//! - What is not safe is not decided here: cut limits, fences and what checkpoints name are the core's.
//! - Failures back off, each kind by itself; nothing is retried in a tight loop and nothing is given up.
//! - No action depends on a clock but `now`; uids come from the caller's entropy.
//! - Only `history`, `verify`, `copy` and `archive` touch anything, and that is stores, through `varve_objects::Store`: of a
//!   history's own they read alone, and `copy` and `archive` put objects where they are told.

pub mod archive;
mod archiving;
mod checkpoint;
pub mod copy;
pub mod history;
mod hot;
mod merge;
mod options;
mod pin;
mod pressure;
mod reap;
mod retain;
mod roll;
mod seal;
mod tier;
pub mod verify;

use std::time::Duration;

use varve_common::{Entropy, GroupId};
use varve_replica::{Action, GroupStatus, JobKind, Now, Role};

pub use hot::{Hot, HotGauge};
pub use merge::{Merge, MergeGauge};
pub use options::PlanOptions;
pub use pin::Pin;
pub use pressure::{Holdings, Pressure, PressureGauge, bytes_to_come, crowded_bytes, reachable_bytes};

/// The first back-off after a failure; it doubles up to [`BACK_OFF_MAX`].
const BACK_OFF: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// What to do for a group now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub actions: Vec<Action>,
    /// When to look again if nothing happens; `None` for a group that is at rest.
    pub look_again_after: Option<Duration>,
}

/// Decides for one group.
#[must_use]
pub fn plan(status: &GroupStatus, options: &PlanOptions, now: Now, entropy: &dyn Entropy) -> Plan {
    let mut planner = Planner { status, options, now, entropy, plan: Plan::default() };
    if status.group != GroupId::METADATA {
        planner.roll();
        planner.tier();
        planner.seal();
        planner.retain();
        planner.merge();
        planner.archive();
    }
    if status.group == GroupId::METADATA {
        planner.reap();
    }
    planner.checkpoint();
    planner.cut();
    planner.plan
}

/// Whether a draining node has nothing left to do for a group: all that can be is in the bucket and in a checkpoint.
#[must_use]
pub fn is_drained(status: &GroupStatus) -> bool {
    let tiered = !status.options.tiered || (status.open.is_empty() && status.rolls.is_empty());
    let metadata_dirty = status.group == GroupId::METADATA && status.publish_dirty;
    let published = !metadata_dirty && status.unpublished_segments == 0;
    // A deletion goes on after the next start, and so does an archive; a merge is begun anew.
    let is_no_matter = |kind: &JobKind| {
        use JobKind::{Archive, Delete, Mend, Merge, Reap};
        matches!(kind, Delete | Reap | Merge | Mend | Archive)
    };
    let rests = status.jobs.running.keys().all(is_no_matter);
    // What is for the bucket is its leader's to bring there, and what that goes on to write comes here until the node stops.
    if status.role != Role::Leader {
        return rests;
    }
    tiered && published && status.changes_since_checkpoint == 0 && rests
}

struct Planner<'a> {
    status: &'a GroupStatus,
    options: &'a PlanOptions,
    now: Now,
    entropy: &'a dyn Entropy,
    plan: Plan,
}

impl Planner<'_> {
    fn act(&mut self, action: Action) {
        self.plan.actions.push(action);
    }

    fn look_after(&mut self, span: Duration) {
        let sooner = self.plan.look_again_after.is_none_or(|planned| span < planned);
        if sooner {
            self.plan.look_again_after = Some(span);
        }
    }

    /// Whether `age` has passed since the wall-clock time `since_ms`; where not, looks again when it has.
    fn has_aged(&mut self, since_ms: i64, age: Duration) -> bool {
        let passed = Duration::from_millis(self.now.wall_ms.saturating_sub(since_ms).max(0) as u64);
        if passed < age {
            self.look_after(age - passed);
        }
        passed >= age
    }

    /// Whether a job of this kind may be tried now: its back-off is over.
    fn may_try(&mut self, kind: JobKind) -> bool {
        let Some(&(failures, last)) = self.status.jobs.failures.get(&kind) else { return true };
        let wait = BACK_OFF.saturating_mul(1 << failures.min(16)).min(BACK_OFF_MAX);
        let passed = self.now.monotonic.since(last);
        if passed < wait {
            self.look_after(wait - passed);
        }
        passed >= wait
    }

    /// A random number that names an object; 0 is kept free.
    fn uid(&self) -> u64 {
        self.entropy.next_u64().max(1)
    }

    /// Whether the log is short of room and this group is asked to let go of it.
    fn is_pressed(&self) -> bool {
        self.options.pressure.groups.contains(&self.status.group)
    }

    /// Whether what is rolled does not leave for the bucket in time: the topic does not tier, the store does not take it, or
    /// producers are about to wait for it.
    fn is_stranded(&self) -> bool {
        let failures = self.status.jobs.failures.get(&JobKind::Upload).map_or(0, |(failures, _)| *failures);
        !self.status.options.tiered
            || failures >= self.options.stranded_failures
            || self.options.pressure.urgent
    }
}

#[cfg(test)]
mod tests;
