//! When leadership goes back to the replica that stands first, by itself (Kafka's `auto.leader.rebalance.enable`).
//!
//! Pure: the same looks at the same times give the same answers. A preferred replica must have kept up for a while first, few go back
//! at a time, and one that does not hold what it was given is left alone for longer each time:
//!
//! ```text
//! led elsewhere, keeps up ──patience──> goes back ──> stays ──> forgotten
//!                     ^                     │
//!                     └── patience doubled ─┴── did not come to lead, or lost it soon after
//! ```

use std::{collections::BTreeMap, time::Duration};

use varve_common::{GroupId, Monotonic, ReplicaId};

/// How many go back at one look: each is a moment in which producers of that partition wait.
pub const RETURNS_MAX: usize = 8;
/// The patience with one that fails all the time: so many doublings.
const STRIKES_MAX: u32 = 6;
/// So many times the patience after it went back a leadership counts as one that stays.
const STAYS_AFTER: u32 = 8;

/// What is known of a group that was, or is, led by another than its preferred replica.
#[derive(Clone, Copy, Debug, Default)]
struct Wait {
    /// Since when the preferred replica could lead, and this node leads instead.
    since: Option<Monotonic>,
    /// When it was given to the preferred replica last.
    given: Option<Monotonic>,
    /// How often that failed.
    strikes: u32,
}

/// What one node knows of the groups that it leads for others.
#[derive(Debug)]
pub struct Returns {
    patience: Duration,
    waits: BTreeMap<GroupId, Wait>,
}

impl Returns {
    /// Nothing yet. So long a preferred replica must have kept up.
    #[must_use]
    pub const fn new(patience: Duration) -> Self {
        Self { patience, waits: BTreeMap::new() }
    }

    /// A look at the groups that this node leads, and that their preferred replicas could lead: those that go back now.
    pub fn look(
        &mut self,
        now: Monotonic,
        mut could: BTreeMap<GroupId, ReplicaId>,
    ) -> Vec<(GroupId, ReplicaId)> {
        let stays_after = self.patience * STAYS_AFTER;
        self.waits.retain(|group, wait| {
            if !could.contains_key(group) {
                wait.since = None;
            }
            wait.since.is_some() || wait.given.is_some_and(|given| now.since(given) < stays_after)
        });
        for group in could.keys() {
            let wait = self.waits.entry(*group).or_default();
            if wait.since.is_none() {
                // It was given away, and is here again.
                wait.strikes += u32::from(wait.given.is_some());
                wait.since = Some(now);
            }
        }
        could.retain(|group, _| self.is_due(now, *group));
        could.into_iter().take(RETURNS_MAX).collect()
    }

    fn is_due(&self, now: Monotonic, group: GroupId) -> bool {
        let wait = &self.waits[&group];
        let patience = self.patience * (1 << wait.strikes.min(STRIKES_MAX));
        wait.since.is_some_and(|since| now.since(since) >= patience)
    }

    /// A group was given to its preferred replica; whether that came to lead it.
    pub fn tried(&mut self, now: Monotonic, group: GroupId, leads: bool) {
        let wait = self.waits.entry(group).or_default();
        (wait.since, wait.given) = (None, Some(now));
        if !leads {
            tracing::debug!(%group, strikes = wait.strikes, "a preferred replica did not come to lead");
        }
    }
}

#[cfg(test)]
mod tests {
    use varve_common::NodeId;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    const NONE: [u64; 0] = [];

    fn at(seconds: u64) -> Monotonic {
        Monotonic::default().plus(Duration::from_secs(seconds))
    }

    fn could(groups: impl IntoIterator<Item = u64>) -> BTreeMap<GroupId, ReplicaId> {
        let replica = ReplicaId::new(NodeId::new(2).unwrap(), 1).unwrap();
        groups.into_iter().map(|group| (GroupId(group), replica)).collect()
    }

    fn due(returns: &mut Returns, seconds: u64, groups: impl IntoIterator<Item = u64>) -> Vec<u64> {
        returns.look(at(seconds), could(groups)).into_iter().map(|(group, _)| group.0).collect()
    }

    #[test]
    fn a_replica_that_kept_up_for_long_enough_leads_again() {
        let mut returns = Returns::new(PATIENCE);
        assert_eq!(due(&mut returns, 0, [1]), NONE);
        assert_eq!(due(&mut returns, 9, [1, 2]), NONE);
        assert_eq!(due(&mut returns, 10, [1, 2]), [1]);
        assert_eq!(due(&mut returns, 12, [2]), NONE);
        assert_eq!(due(&mut returns, 19, [1, 2]), [2], "the first was out of sync in between");
        assert_eq!(due(&mut returns, 28, [1]), NONE);
        assert_eq!(due(&mut returns, 29, [1]), [1]);
    }

    #[test]
    fn few_go_back_at_a_time() {
        let mut returns = Returns::new(PATIENCE);
        let all = || 0..20;
        assert_eq!(due(&mut returns, 0, all()), NONE);
        let first = due(&mut returns, 10, all());
        assert_eq!(first.len(), RETURNS_MAX);
        first.iter().for_each(|group| returns.tried(at(10), GroupId(*group), true));
        let rest = all().filter(|group| !first.contains(group));
        assert_eq!(due(&mut returns, 11, rest).len(), RETURNS_MAX);
    }

    #[test]
    fn one_that_does_not_hold_what_it_was_given_waits_twice_as_long_each_time() {
        let mut returns = Returns::new(PATIENCE);
        let (mut now, mut waited) = (0, Vec::new());
        for _ in 0..9 {
            let since = now;
            while due(&mut returns, now, [1]).is_empty() {
                now += 1;
            }
            waited.push(now - since);
            returns.tried(at(now), GroupId(1), false);
        }
        assert_eq!(waited, [10, 20, 40, 80, 160, 320, 640, 640, 640]);
        // It stays at last, and that is forgotten.
        assert_eq!(due(&mut returns, now + 80, NONE), NONE);
        assert_eq!(due(&mut returns, now + 90, [1]), NONE);
        assert_eq!(due(&mut returns, now + 100, [1]), [1]);
    }
}
