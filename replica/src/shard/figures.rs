//! What the groups of a node come to together: as many figures as before when there are ten thousand of them.

use varve_common::{GroupId, ReplicaId};
use varve_consensus::{Group, Role};

use super::{
    Shard,
    hosted::{Hosted, Machine},
};
use crate::partition::PartitionState;

/// Sums and extremes over all groups of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Groups here.
    pub groups: u64,
    /// Those that this node leads.
    pub led: u64,
    /// Those that know no leader.
    pub leaderless: u64,
    /// Those whose replica here does not vote.
    pub learners: u64,
    /// Those at rest.
    pub resting: u64,
    /// Those whose replica here has stopped.
    pub stopped: u64,
    /// The highest term.
    pub term_max: u64,
    /// Sum of the last entries' indexes.
    pub last: u64,
    /// Sum of commit indexes.
    pub committed: u64,
    /// Sum of applied indexes.
    pub applied: u64,
    /// Bytes of entries in memory.
    pub memory_bytes: u64,
    /// Of the groups led here: entries that followers lack, in all.
    pub follower_lag: u64,
    /// The same of the one that lacks the most.
    pub follower_lag_max: u64,
    /// Of the groups led here: replicas in sync, in all.
    pub in_sync: u64,
    /// The smallest in-sync set of them.
    pub in_sync_min: Option<u64>,
    /// Those of them with a voter that does not keep up.
    pub under_replicated: u64,
    /// Groups of consumers that this node coordinates.
    pub coordinated: u64,
    /// Their members.
    pub members: u64,
    /// Of the groups led here: offsets that wait for their file.
    pub unarchived: u64,
    /// When the first of them was tiered, wall clock.
    pub unarchived_since_ms: Option<i64>,
}

impl Shard {
    /// What the groups come to together.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        // An idle group does not notice that a follower is gone; its node does.
        let image = self.groups.get(GroupId::METADATA).and_then(|hosted| match &hosted.machine {
            Machine::Metadata(state) => Some(state.image()),
            Machine::Partition(_) => None,
        });
        // A node may be there and its disk gone: its new replica counts once it votes.
        let is_lost = |replica: ReplicaId| image.is_some_and(|image| image.is_lost(replica));
        let is_here =
            |replica: ReplicaId| !self.has_peers() || (self.is_alive(replica.node()) && !is_lost(replica));
        self.groups.iter().for_each(|(_, hosted)| figures.add(hosted, &is_here));
        figures
    }
}

impl Figures {
    fn add(&mut self, hosted: &Hosted, is_here: &impl Fn(ReplicaId) -> bool) {
        let raft = &hosted.raft;
        self.groups += 1;
        self.leaderless += u64::from(raft.leader().is_none());
        self.learners += u64::from(!raft.membership().voters.contains(&hosted.replica));
        self.resting += u64::from(raft.is_resting());
        self.stopped += u64::from(hosted.is_stopped());
        self.term_max = self.term_max.max(raft.term().0);
        self.last += raft.last_index().0;
        self.committed += raft.commit_index().0;
        self.applied += raft.applied_index().0;
        self.memory_bytes += raft.memory_bytes() as u64;
        let (groups, members) = hosted.coordinated();
        self.coordinated += groups as u64;
        self.members += members as u64;
        if raft.role() == Role::Leader {
            self.add_archive(hosted);
            self.add_led(hosted.replica, raft, is_here);
        }
    }

    fn add_archive(&mut self, hosted: &Hosted) {
        let Some(bucket) = hosted.partition().map(PartitionState::bucket) else { return };
        if hosted.options.archive_age_ms.is_none() {
            return;
        }
        let end = bucket.archive.map_or(bucket.log_start, |archive| archive.end).max(bucket.log_start);
        let waiting = bucket.tiered_end.0.saturating_sub(end.0);
        self.unarchived += waiting;
        let since = hosted.archiving.since_ms().filter(|_| waiting > 0);
        self.unarchived_since_ms = self.unarchived_since_ms.into_iter().chain(since).min();
    }

    fn add_led(&mut self, own: ReplicaId, raft: &Group, is_here: &impl Fn(ReplicaId) -> bool) {
        self.led += 1;
        let in_sync = raft.in_sync().into_iter().filter(|id| *id == own || is_here(*id)).count() as u64;
        self.in_sync += in_sync;
        self.in_sync_min = Some(self.in_sync_min.map_or(in_sync, |least| least.min(in_sync)));
        self.under_replicated += u64::from(in_sync < raft.membership().voters.len() as u64);
        for member in raft.members().filter(|member| *member != own) {
            let matched = raft.matched(member).unwrap_or_default();
            let lag = raft.last_index().0.saturating_sub(matched.0);
            self.follower_lag += lag;
            self.follower_lag_max = self.follower_lag_max.max(lag);
        }
    }
}
